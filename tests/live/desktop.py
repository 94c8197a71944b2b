"""
A desktop without a screen: a D-Bus session of its own, and a real gnome-keyring in it.

    with desktop(tmp_path) as there:
        there.lock()

It refuses to touch the session of whoever runs the tests: everything lives in one
directory, and every process that is started ends with the block.
"""

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Self

from jeepney import (  # type: ignore[import-untyped]
    DBusErrorResponse,
    HeaderFields,
    MessageType,
    message_bus,
    new_error,
    new_method_return,
)
from jeepney.io.blocking import Proxy, open_dbus_connection  # type: ignore[import-untyped]

from backends.secret_service_talk import dialled
from backends.secret_service_words import COLLECTION, ITEM, SERVICE
from tests.running import until

PASSWORD: Final = "correct horse battery staple"

COMMANDS: Final = ["dbus-daemon", "gnome-keyring-daemon", "secret-tool"]

_SECONDS: Final = 10.0
_PROMPTER: Final = "org.gnome.keyring.SystemPrompter"


class Desktop:
    """
    One session.

    Attributes:
        address: of its bus.
        directory: the home of whoever works there.

    """

    def __init__(self, directory: Path, *, bus: Path | None = None, words: Sequence[str] = ()) -> None:
        """Take the directory, where the bus is to be, and the words before each command; ``begin`` does the rest."""
        self.directory = directory
        self.address = f"unix:path={bus or directory / 'bus'}"
        self._words = words
        self._bus: subprocess.Popen[bytes] | None = None
        self._keyrings: list[subprocess.Popen[bytes]] = []
        clean = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        self.environment = clean | {
            "HOME": str(directory),
            "XDG_RUNTIME_DIR": str(directory / "run"),
            "DBUS_SESSION_BUS_ADDRESS": self.address,
        }

    def begin(self) -> None:
        """Start the bus, and a keyring that is unlocked."""
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        command = [*self._words, "dbus-daemon", "--session", "--nofork", f"--address={self.address}"]
        self._bus = subprocess.Popen(command, env=self.environment, cwd=self.directory, **quiet)
        until(lambda: Path(self.address.partition("=")[2]).exists(), said="the start of the bus")
        self.start_keyring()

    def start_keyring(self) -> None:
        """Start a keyring and unlock it, as a login does."""
        command = [*self._words, "gnome-keyring-daemon", "--unlock", "--components=secrets", "--foreground"]
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        started = subprocess.Popen(
            command, env=self.environment, cwd=self.directory, stdin=subprocess.PIPE, start_new_session=True, **quiet
        )
        assert started.stdin is not None
        started.stdin.write(PASSWORD.encode())
        started.stdin.close()
        self._keyrings.append(started)
        if not self._words:  # a bus of another user lets nobody in, not even to look
            until(lambda: self.pid() == started.pid, said="the start of the keyring")
            until(lambda: not self.locked(), said="the keyring's unlocking")

    def end(self) -> None:
        """End everything that was started; what the bus has started ends with it."""
        for process in (*self._keyrings, self._bus):
            if process is not None:
                process.kill()
                process.wait()

    def pid(self) -> int | None:
        """Return the process that keeps the keyring; None where there is none."""
        with contextlib.closing(open_dbus_connection(self.address)) as connection:
            bus = Proxy(message_bus, connection, timeout=_SECONDS)
            try:
                return int(bus.GetConnectionUnixProcessID("org.freedesktop.secrets")[0])
            except DBusErrorResponse:
                return None

    def kill_keyring(self) -> None:
        """End the keyring's process as a crash would; the bus starts another when it is needed, and that is locked."""
        pid = self.pid()
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            until(lambda: self.pid() != pid, said="the keyring's end")

    def stop_keyring(self, *, stopped: bool = True) -> None:
        """Have the keyring's process hang, or go on."""
        pid = self.pid()
        if pid is not None:
            os.kill(pid, signal.SIGSTOP if stopped else signal.SIGCONT)

    def locked(self) -> bool:
        """Return whether the default keyring is locked, or not there yet."""
        with contextlib.closing(dialled(self.address, seconds=_SECONDS)) as talk:
            path = talk.collection()
            return path is None or bool(talk.read(path, COLLECTION, "Locked"))

    def lock(self) -> None:
        """Lock it."""
        with contextlib.closing(dialled(self.address, seconds=_SECONDS)) as talk:
            talk.call(*SERVICE, "Lock", "ao", [talk.collection()])
        assert self.locked()

    def unlock(self) -> None:
        """Unlock it, as another program would."""
        with contextlib.closing(dialled(self.address, seconds=_SECONDS)) as talk:
            path = talk.collection()
            assert path is not None
            assert talk.unlock(path, PASSWORD)

    def clear(self) -> None:
        """Remove every item."""
        with contextlib.closing(dialled(self.address, seconds=_SECONDS)) as talk:
            path = talk.collection()
            for item in talk.read(path or "", COLLECTION, "Items"):
                talk.call(item, ITEM, "Delete")

    def labels(self) -> list[str]:
        """Return what a person sees of the items, sorted."""
        with contextlib.closing(dialled(self.address, seconds=_SECONDS)) as talk:
            path = talk.collection()
            items = talk.read(path or "", COLLECTION, "Items")
            return sorted(str(talk.read(item, ITEM, "Label")) for item in items)

    def secret_tool(self, *words: str, said: str = "") -> str:
        """Run ``secret-tool``; return what it printed."""
        command = [*self._words, "secret-tool", *words]
        done = subprocess.run(
            command, env=self.environment, input=said, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
        return done.stdout


class Prompter:
    """
    What a person sees of a keyring that asks, without the person.

    Attributes:
        asked: how often a prompt was opened.

    """

    def __init__(self, address: str, *, declines: bool) -> None:
        """Be the program that asks on this bus: one that nobody answers, or one that says no at once."""
        self.asked = 0
        self._declines = declines
        self._connection = open_dbus_connection(address)
        Proxy(message_bus, self._connection, timeout=_SECONDS).RequestName(_PROMPTER)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError, ValueError, KeyError):
            while True:
                message = self._connection.receive(timeout=None)
                if message.header.message_type is not MessageType.method_call:
                    continue
                begins = message.header.fields[HeaderFields.member] == "BeginPrompting"
                self.asked += begins
                if begins and self._declines:
                    self._connection.send(new_error(message, "org.freedesktop.DBus.Error.Failed"))
                else:
                    self._connection.send(new_method_return(message))

    def __enter__(self) -> Self:
        """Be there for a while."""
        return self

    def __exit__(self, *_: object) -> None:
        """Go."""
        self._connection.sock.shutdown(2)
        self._thread.join(_SECONDS)
        self._connection.close()


@contextlib.contextmanager
def desktop(directory: Path, *, bus: Path | None = None, words: Sequence[str] = ()) -> Iterator[Desktop]:
    """Run a session in ``directory`` for as long as the block lasts."""
    (directory / "run").mkdir(mode=0o700, parents=True, exist_ok=True)
    there = Desktop(directory, bus=bus, words=words)
    try:
        there.begin()
        yield there
    finally:
        there.end()


@contextlib.contextmanager
def users_own_session(home: Path, uid: int = 1) -> Iterator[tuple[Desktop, Sequence[str]]]:
    """
    Run a session of a user where a login has it, ``/run/user/UID/bus``; root alone can.

    Yields it, with the words before a command that make it the user's. The user
    is one that every Debian has: a bus does not run as one that is in no list.
    """
    runtime = Path(f"/run/user/{uid}")
    for made in (runtime, home, home / "run"):
        made.mkdir(mode=0o700, parents=True)
        os.chown(made, uid, uid)
    words = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"]
    try:
        with desktop(home, bus=runtime / "bus", words=words) as there:
            yield there, words
    finally:
        (runtime / "bus").unlink(missing_ok=True)
        for left in runtime.iterdir():
            left.unlink()
        runtime.rmdir()
