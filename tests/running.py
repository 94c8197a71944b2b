"""
A real broker, running: a child process with its sockets, its state and its log in one directory.

    with running.start(tmp_path, config=TEXT, secrets={"github": "made up"}) as broker:
        issued = broker.call("credential/issue", secret="github")

Values come back as ``Secret``, so that no failing test prints one. Whatever
happens in the test, the child has ended when the block has. This module refuses
to sleep blindly: it waits for a thing that happens, with a deadline.
"""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar

import backends
import broker
from backends.base import Secret
from backends.master_key import create_key_file
from broker.api.door import STALLED_AFTER
from broker.paths import Mode, Places, within

DEADLINE: Final = 15.0
"""Seconds that anything here is waited for; a broker is ready within one."""

ONE_SERVER: Final = """
[servers.gh]
command = ["true"]
env.GITHUB_TOKEN = "{github}"
"""
"""The smallest config: who asks gets the secret ``github``."""

_SERVE: Final = """
import sys
directory, mode, path, kernel, stalled_after = sys.argv[1:]
sys.path[:0] = path.split(":")
from pathlib import Path
from broker import daemon, errors, paths
if kernel == "old":
    from tests.fakes import old_kernel
    old_kernel.pretend()
try:
    sys.exit(daemon.serve(paths.within(Path(directory), mode=mode), stalled_after=float(stalled_after)))
except errors.BrokerError as error:
    sys.exit(f"mcp-broker: {error}")
"""

_VALUES: Final = frozenset({"values", "env", "files"})

Found = TypeVar("Found")


class AnswerError(Exception):
    """The broker answered with an error; ``code`` is the stable one."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        """Take the error object as it stood on the wire."""
        super().__init__(error["message"])
        self.number: int = error["code"]
        self.message: str = error["message"]
        self.code: str = error["data"]["code"]
        self.hint: str | None = error["data"].get("hint")


class HungUpError(Exception):
    """The broker closed the connection instead of answering."""


def until(what: Callable[[], Found | None], *, deadline: float = DEADLINE, said: str = "what was waited for") -> Found:
    """Return the first answer of ``what`` that is true; fail when the deadline has passed."""
    end = time.monotonic() + deadline
    pause = 0.001
    while not (found := what()):
        if time.monotonic() > end:
            message = f"{said} did not happen within {deadline:g} s"
            raise TimeoutError(message)
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)
    return found


class Connection:
    """One connection that speaks the line dialect."""

    def __init__(self, to: Path | socket.socket, *, deadline: float = DEADLINE) -> None:
        """Connect to the socket at a path, or take over one that is connected."""
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) if isinstance(to, Path) else to
        self.socket.settimeout(deadline)
        if isinstance(to, Path):
            try:
                self.socket.connect(str(to))
            except OSError:
                self.socket.close()
                raise
        self._lines = self.socket.makefile("rb")
        self._number = 0

    def send(self, method: str, /, **params: Any) -> int:  # noqa: ANN401 -- whatever the verb takes
        """Send a request and return its number, without waiting."""
        self._number += 1
        said = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": params}
        self.socket.sendall(json.dumps(said).encode() + b"\n")
        return self._number

    def receive(self) -> dict[str, Any]:
        """Return the next line, values wrapped; raise ``HungUpError`` where there is none."""
        message = self.receive_raw()
        if "result" in message:
            message["result"] = wrapped(message["result"])
        return message

    def receive_raw(self) -> dict[str, Any]:
        """Return the next line, read as JSON and nothing else."""
        message: dict[str, Any] = json.loads(self.line())
        return message

    def line(self) -> bytes:
        """Return the next line as it came; raise ``HungUpError`` where there is none."""
        try:
            line = self._lines.readline()
        except ConnectionError:
            line = b""
        if not line.endswith(b"\n"):
            raise HungUpError
        return line

    def call(self, method: str, /, **params: Any) -> dict[str, Any]:  # noqa: ANN401
        """Send a request and return its result; raise ``AnswerError`` where it is an error."""
        number = self.send(method, **params)
        # A connection that is refused as a whole is so under no number.
        while "method" in (answer := self.receive()) or answer["id"] not in {number, None}:
            pass
        if "error" in answer:
            raise AnswerError(answer["error"])
        result: dict[str, Any] = answer["result"]
        return result

    def close(self) -> None:
        """Hang up."""
        self._lines.close()
        self.socket.close()

    def __enter__(self) -> Self:
        """Return the connection, which is there already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Hang up."""
        self.close()


class RunningBroker:
    """
    A broker that was started here.

    Attributes:
        places: its directories.
        log_file: what it writes to stderr.

    """

    def __init__(self, places: Places, command: Sequence[str], *, options: Mapping[str, Any]) -> None:
        """Keep how to start it; ``launch`` does."""
        self.places = places
        self.log_file = places.run.parent / "daemon.log"
        self._command = command
        self._options = options
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Return its process id."""
        assert self._child is not None
        return self._child.pid

    @property
    def log(self) -> str:
        """Return what it has written to stderr, over all its starts."""
        return self.log_file.read_text("utf-8")

    def launch(self) -> None:
        """Start it, again if it has run before, and wait until it answers."""
        with self.log_file.open("ab") as log:
            self._child = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self._options
            )
        until(self._answers, said="the start of the broker")

    def _answers(self) -> bool:
        assert self._child is not None
        if (status := self._child.poll()) is not None:
            message = f"the broker ended with status {status}: {self.log}"
            raise ChildProcessError(message)
        try:
            with Connection(self.places.admin_socket) as connection:
                return bool(connection.call("whoami"))
        except AnswerError:
            return True  # a no is an answer, too
        except (OSError, HungUpError):
            return False

    def connect(self, *, admin: bool = False) -> Connection:
        """Return a new connection to one of its sockets."""
        return Connection(self.places.admin_socket if admin else self.places.broker_socket)

    def call(self, method: str, /, **params: Any) -> dict[str, Any]:  # noqa: ANN401
        """Ask on ``broker.sock``, on a connection of its own, as this process."""
        with self.connect() as connection:
            return connection.call(method, **params)

    def admin(self, method: str, /, **params: Any) -> dict[str, Any]:  # noqa: ANN401
        """Ask on ``admin.sock``, on a connection of its own, as this process."""
        with self.connect(admin=True) as connection:
            return connection.call(method, **params)

    def records(self) -> list[dict[str, Any]]:
        """Return every audit record that is on disk, oldest first."""
        segments = sorted(self.places.audit.glob("audit-*.jsonl"))
        current = self.places.audit / "audit.jsonl"
        lines = [line for path in (*segments, current) if path.exists() for line in path.read_bytes().splitlines()]
        return [json.loads(line) for line in lines]

    def write_config(self, text: str) -> None:
        """Replace the config on disk in one step; the broker reads it when it is told to or notices."""
        _write_config(self.places, text)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self._child is not None
        self._child.send_signal(number)

    def wait(self) -> int:
        """Wait until it has ended; return its exit status."""
        assert self._child is not None
        return self._child.wait(DEADLINE)

    def stop(self) -> int:
        """Let it end in order; return its exit status."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> int:
        """End it with SIGKILL; return its exit status."""
        self.signal(signal.SIGKILL)
        return self.wait()

    def end(self) -> None:
        """Make sure that it has ended, however the test went."""
        if self._child is not None and self._child.poll() is None:
            self.signal(signal.SIGTERM)
            try:
                self._child.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                self.kill()


@contextmanager
def start(
    directory: Path,
    *,
    config: str = ONE_SERVER,
    mode: Mode = "user",
    secrets: Mapping[str, str | Mapping[str, str]] | None = None,
    uid: int | None = None,
    packages: Sequence[Path] = (),
    installation: Path | None = None,
    kernel: Literal["old", "this"] = "this",
    inside: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    stalled_after: float = STALLED_AFTER,
) -> Iterator[RunningBroker]:
    """
    Run a broker in ``directory`` for as long as the block lasts.

    Args:
        directory: its own; others must be able to enter it where they are to reach the sockets (``room``).
        config: the text of ``broker.toml``.
        mode: of the broker.
        secrets: what to put into the sealed store first: a value, or one for each field.
        uid: another user for it to run as, which needs root; the admin socket lets root in.
        packages: directories that hold more installed packages, for backends of third parties.
        installation: the directory that holds ``broker`` and ``backends``; None for those that this test imports.
        kernel: ``old`` makes it one without ``SO_PEERPIDFD``, as before Linux 6.5.
        inside: words before the command, such as those of ``unshare``.
        environment: variables that it gets beside those of this process.
        pass_fds: descriptors that it inherits.
        stalled_after: seconds that a connection may stop in the middle of something.

    """
    places = within(directory, mode=mode)
    prepare(places, config, uid=uid)
    path = ":".join(map(str, [*([installation] if installation else []), *_homes(), *packages]))
    options: dict[str, Any] = {"env": {**os.environ, **(environment or {})}, "pass_fds": pass_fds, "cwd": "/"}
    who = [*inside, *([] if uid is None else as_user(uid))]
    arguments = [str(directory.absolute()), mode, path, kernel, str(stalled_after)]
    command = [*who, sys.executable, "-P", "-c", _SERVE, *arguments]
    running = RunningBroker(places, command, options=options)
    try:
        running.launch()
        for name, value in (secrets or {}).items():
            running.admin("secret/set", name=name, values={"value": value} if isinstance(value, str) else value)
        yield running
    finally:
        running.end()


def prepare(places: Places, config: str, *, uid: int | None = None) -> None:
    """Make the directories of a broker with a config and a master key, unless they are there already."""
    base = places.run.parent
    base.mkdir(parents=True, exist_ok=True)
    for directory in (places.config, places.state):
        directory.mkdir(mode=0o700, exist_ok=True)
    _write_config(places, config)
    key = places.state / "master.key"
    if not key.exists():
        create_key_file(key)
    if uid is not None:
        for path in (base, *base.rglob("*")):
            os.chown(path, uid, uid)


def as_user(uid: int) -> list[str]:
    """
    Return the words before a command that make it run as another user, who can read Python and our packages.

    Where those lie in a home that is closed to others, the command gets a mount
    namespace of its own in which nothing but they can be seen there. Needs root.
    """
    needed: dict[Path, list[Path]] = {}
    for home in dict.fromkeys([Path(sys.prefix), Path(sys.base_prefix), *_homes()]):
        closed = [above for above in reversed(home.parents) if not above.stat().st_mode & 0o001]
        if closed:
            needed.setdefault(closed[0], []).append(home)
    script = ["set -e"]
    for closed_one, homes in needed.items():
        kept = list(enumerate(homes, 3))
        script += [f"exec {number}<{shlex.quote(str(path))}" for number, path in kept]
        script += [f"mount -t tmpfs -o mode=0755 none {shlex.quote(str(closed_one))}"]
        for number, path in kept:
            where = shlex.quote(str(path))
            script += [
                f"mkdir -p {where}",
                f"mount --no-canonicalize --bind /proc/self/fd/{number} {where}",
                f"exec {number}<&-",
            ]
    words = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"]
    if not needed:
        return words
    script += [f'exec {shlex.join(words)} "$@"']
    return ["unshare", "--mount", "--propagation=private", "sh", "-c", "; ".join(script), "sh"]


def _homes() -> list[Path]:
    """Return the directories that our packages, and these tests, are imported from."""
    files = (broker.__file__, backends.__file__, __file__)
    return list(dict.fromkeys(Path(file or "").parent.parent for file in files))


def _write_config(places: Places, text: str) -> None:
    """Rename a whole file into place, with the owner of the directory, so that nobody reads half of it."""
    new = places.config / "new"
    new.write_text(text, "utf-8")
    new.chmod(0o600)
    owner = places.config.stat()
    os.chown(new, owner.st_uid, owner.st_gid)
    new.rename(places.config / "broker.toml")


@contextmanager
def room() -> Iterator[Path]:
    """Give a directory with a short path that every user can enter, as pytest's own cannot be; remove it in the end."""
    with tempfile.TemporaryDirectory(prefix="broker-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        directory.chmod(0o711)
        yield directory


def wrapped(result: Any) -> Any:  # noqa: ANN401 -- any JSON
    """Return a result with every value in a ``Secret``."""
    if not isinstance(result, dict):
        return result
    return {
        name: {field: Secret(value) for field, value in part.items()} if name in _VALUES else part
        for name, part in result.items()
    }
