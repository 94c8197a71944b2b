"""
A booted systemd: this machine's own file system, with everything that is written to it kept in memory.

``systemd-nspawn`` boots an overlay of ``/``. The broker is installed into it as
the README says for a host. Nothing of the machine itself is changed; when the
test is over, all is gone.
"""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent.parent
PYTHON: Final = "/usr/bin/python3"
"""The host's own Python: a service under a uid of its own cannot reach one in somebody's home directory."""

BROKER: Final = "/opt/mcp-broker/bin/mcp-broker"
BOOT_WITHIN: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A booted system: its files, as this machine sees them, and the pid of its init."""

    files: Path
    init: int

    def run(self, *words: str, user: str | None = None, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command in it, as root or as a user, and return how it ended."""
        as_user = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--reset-env"] if user else []
        command = ["nsenter", f"--target={self.init}", "--all", "--", *as_user, *words]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=120)

    def do(self, *words: str, user: str | None = None, stdin: str = "") -> str:
        """Run a command that has to succeed, and return what it printed."""
        done = self.run(*words, user=user, stdin=stdin)
        assert 0 == done.returncode, f"{words}: {done.stderr}"
        return done.stdout

    def write(self, path: str, text: str) -> None:
        """Write a file of root's in it."""
        place = self.files / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)


@contextmanager
def booted(directory: Path) -> Iterator[Host]:
    """Boot a copy of this machine in which the broker is installed."""
    memory, files = directory / "memory", directory / "host"
    memory.mkdir()
    files.mkdir()
    with ExitStack() as stack:
        stack.enter_context(_mounted(memory, "-t", "tmpfs", "-o", "mode=0755", "tmpfs"))
        (memory / "upper").mkdir()
        (memory / "work").mkdir()
        layers = f"lowerdir=/,upperdir={memory / 'upper'},workdir={memory / 'work'}"
        stack.enter_context(_mounted(files, "-t", "overlay", "-o", layers, "overlay"))
        _tidy(files)
        _install(files)
        yield stack.enter_context(_running(files, directory / "console"))


@contextmanager
def _mounted(place: Path, *words: str) -> Iterator[None]:
    subprocess.run(["mount", *words, place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def _tidy(files: Path) -> None:
    """Take away what this machine starts and mounts by itself: none of it belongs to the test."""
    shutil.rmtree(files / "etc/systemd/system")
    (files / "etc/systemd/system").mkdir()
    (files / "etc/fstab").write_text("")
    shutil.rmtree(files / "opt/mcp-broker", ignore_errors=True)
    shutil.rmtree(files / "etc/mcp-broker", ignore_errors=True)


def _install(files: Path) -> None:
    """Install as the README says for a host, but from the lock, and by uv, which takes a tenth of the time."""
    environment = files / "opt/mcp-broker"
    source = files / "root/mcp-broker-source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "__pycache__", "build", "*.egg-info"))
    subprocess.run([PYTHON, "-I", "-m", "venv", "--without-pip", environment], check=True)
    uv = [str(Path(sys.executable).with_name("uv")), "pip", "install", "--quiet"]
    into = [*uv, "--link-mode=copy", "--compile-bytecode", "--python", str(environment / "bin/python")]
    lock = source / "requirements/demo.txt"
    subprocess.run([*into, "--require-hashes", "--only-binary=:all:", "-r", lock], check=True)
    subprocess.run([*into, "--no-deps", "--no-build-isolation", source], check=True)


@contextmanager
def _running(files: Path, console: Path) -> Iterator[Host]:
    command = ["systemd-nspawn", "--quiet", f"--directory={files}", "--register=no", "--keep-unit", "--boot"]
    with console.open("wb") as out:
        container = subprocess.Popen(
            [*command, "systemd.unit=basic.target"], stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    try:
        host = Host(files=files, init=_init_of(container))
        _wait_for(host)
        yield host
    finally:
        container.send_signal(signal.SIGTERM)
        try:
            container.wait(30)
        except subprocess.TimeoutExpired:
            container.kill()
            container.wait()


def _init_of(container: subprocess.Popen[bytes]) -> int:
    """Return the pid of the container's init, as soon as it is systemd."""
    until = time.monotonic() + BOOT_WITHIN
    children = Path(f"/proc/{container.pid}/task/{container.pid}/children")
    while time.monotonic() < until and container.poll() is None:
        for child in children.read_text().split():
            # One that has just ended says nothing any more.
            with suppress(OSError):
                if Path(f"/proc/{child}/exe").readlink().name == "systemd":
                    return int(child)
        time.sleep(0.05)
    message = f"{container.args!r} does not boot"
    raise TimeoutError(message)


def _wait_for(host: Host) -> None:
    """Wait until it has booted."""
    until = time.monotonic() + BOOT_WITHIN
    while host.run("systemctl", "is-active", "basic.target").stdout.strip() != "active":
        if time.monotonic() > until:
            raise TimeoutError(host.init)
        time.sleep(0.1)
