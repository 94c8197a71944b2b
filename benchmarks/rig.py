"""
A broker to measure, its peers, and the figures of the machine.

Everything lives in a directory of its own and ends with it.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

CONFIG: Final = """\
[servers.bench]
command = ["/bin/true"]
env.BENCH_TOKEN = "{bench}"

[limits]
connections = 0
requests_per_second = 0
leases = 0
"""
VALUE: Final = "v" * 40
PATIENCE: Final = 15.0


class Rig:
    """A directory with a broker in it."""

    def __init__(self, directory: Path) -> None:
        """Write the config and the master key."""
        self.directory = directory
        self.broker = directory / "run" / "broker.sock"
        self.admin = directory / "run" / "admin.sock"
        command("init", "--yes", "--dir", str(directory))
        (directory / "config" / "broker.toml").write_text((directory / "config" / "broker.toml").read_text() + CONFIG)

    @contextlib.contextmanager
    def serving(self) -> Iterator[tuple[int, float]]:
        """Run the daemon; give its pid and the seconds until it answered."""
        begin = time.perf_counter()
        with ended(
            subprocess.Popen([*MCP_BROKER, "serve", "--dir", str(self.directory)], stderr=subprocess.DEVNULL)
        ) as daemon:
            until_answer(self.broker)
            yield daemon.pid, time.perf_counter() - begin


MCP_BROKER: Final = (str(Path(sys.executable).with_name("mcp-broker")),)


@contextlib.contextmanager
def rig() -> Iterator[Rig]:
    """Give a rig in a directory that is removed in the end."""
    # /tmp may be in memory, where a sync costs nothing: measure on the disk that holds this checkout.
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=Path.cwd()) as directory:
        yield Rig(Path(directory))


def command(*arguments: str) -> None:
    """Run the installed command, or say which of its words failed."""
    done = subprocess.run([*MCP_BROKER, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        message = f"mcp-broker {arguments[0]} failed: {done.stderr}"
        raise SystemExit(message)


@contextlib.contextmanager
def ended(process: "subprocess.Popen[bytes]") -> Iterator["subprocess.Popen[bytes]"]:
    """End a process that was started here, by its id, whatever happens."""
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def until_answer(path: Path) -> None:
    """Wait until a broker answers at ``path``."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            ask(path, "whoami")
            return
        time.sleep(0.005)
    message = f"nothing answers at {path}"
    raise SystemExit(message)


def ask(path: Path, method: str, **params: Any) -> dict[str, Any]:  # noqa: ANN401 -- what JSON can hold
    """Send one request and return its result."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(str(path))
        sock.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode() + b"\n")
        with sock.makefile() as lines:
            answer = json.loads(lines.readline())
    if "error" in answer:
        message = f"{method}: {answer['error']['message']}"
        raise SystemExit(message)
    result: dict[str, Any] = answer["result"]
    return result


def load(path: Path, request: str, mark: str, *, connections: int, seconds: float) -> dict[str, float]:
    """Run the load in a process of its own and return its figures."""
    job = {"path": str(path), "request": request, "mark": mark, "connections": connections, "seconds": seconds}
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(job, file)
        file.flush()
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.load", file.name], capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise SystemExit(done.stderr)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


@contextlib.contextmanager
def peer(kind: str, path: Path) -> Iterator[Path]:
    """Run one of ``benchmarks.bare``; give its socket."""
    with ended(subprocess.Popen([sys.executable, "-m", "benchmarks.bare", kind, str(path)])):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(path))
                break
            time.sleep(0.01)
        yield path


def fdatasync_ms(directory: Path, *, times: int = 300, length: int = 400) -> float:
    """Return the median milliseconds of appending and syncing ``length`` bytes in ``directory``."""
    found = []
    path = directory / "sync"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        for _ in range(times):
            begin = time.perf_counter()
            os.write(descriptor, b"x" * length)
            os.fdatasync(descriptor)
            found.append(time.perf_counter() - begin)
    finally:
        os.close(descriptor)
        path.unlink()
    return sorted(found)[times // 2] * 1000


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0
