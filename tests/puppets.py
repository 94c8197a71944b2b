"""
Processes that do what a test tells them: connect, ask, fork, become another user, end.

A puppet is a real process with a pid, a parent and a user of its own. The first of
a session is a Python of its own; all others are forked from it or from each other,
which costs a millisecond. Each is told what to do over a socket, and passes open
connections on where a test wants them stolen. This module refuses to print what a
broker answered: values come back as ``Secret``.
"""

import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from tests.running import DEADLINE, AnswerError, Connection, HungUpError, until, wrapped

_LONGEST: Final = 1 << 17


class PuppetError(Exception):
    """A puppet could not do what it was told; the text is its traceback."""


class Puppet:
    """
    One process, from the test's side.

    Attributes:
        pid: its process id.

    """

    def __init__(self, control: socket.socket, pid: int) -> None:
        """Take over the socket that it listens on."""
        self.pid = pid
        self._control = control
        self._pidfd = os.pidfd_open(pid)
        self._children: list[Puppet] = []
        control.settimeout(DEADLINE)

    # -- asking a broker -----------------------------------------------------

    def connect(self, path: Path, name: str = "c") -> None:
        """Connect to a socket, and call the connection ``name``."""
        self._tell("connect", name=name, path=str(path))

    def send(self, method: str, /, *, connection: str = "c", **params: Any) -> None:  # noqa: ANN401
        """Ask over a connection that is there, and do not wait."""
        self._tell("send", name=connection, method=method, params=params)

    def receive(self, *, connection: str = "c") -> dict[str, Any]:
        """Return the result that comes next; raise ``AnswerError`` or ``HungUpError``."""
        answer = self._tell("receive", name=connection)
        if answer is None:
            raise HungUpError
        if "error" in answer:
            raise AnswerError(answer["error"])
        result: dict[str, Any] = wrapped(answer["result"])
        return result

    def call(self, method: str, /, *, connection: str = "c", **params: Any) -> dict[str, Any]:  # noqa: ANN401
        """Ask over a connection that is there, and return the result."""
        self.send(method, connection=connection, **params)
        return self.receive(connection=connection)

    def hang_up(self, connection: str = "c") -> None:
        """Close a connection."""
        self._tell("hang_up", name=connection)

    # -- being a process -----------------------------------------------------

    def fork(self) -> "Puppet":
        """Return a child of it, which holds the same connections."""
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            pid = self._tell("fork", descriptors=[theirs.fileno()])
        self._children.append(Puppet(mine, pid))
        return self._children[-1]

    def become(self, uid: int, gid: int | None = None, groups: Sequence[int] = ()) -> None:
        """Become another user for good."""
        self._tell("become", uid=uid, gid=uid if gid is None else gid, groups=list(groups))

    def take(self, connection: str = "c") -> int:
        """Return a descriptor of one of its connections, for the test to pass on and to close."""
        return int(self._tell("take", name=connection, descriptors=[]))

    def give(self, descriptor: int, name: str = "c") -> None:
        """Pass it a connection of somebody else's (``SCM_RIGHTS``)."""
        self._tell("give", name=name, descriptors=[descriptor])

    def run(self, source: str, **values: Any) -> Any:  # noqa: ANN401
        """Have it run Python with ``os``, ``socket``, ``ctypes``, ``connections``; return its ``result``."""
        return self._tell("run", source=source, values=values)

    def execute(self, *words: str) -> None:
        """Have it become another program, which keeps its connections and hears no more of us."""
        self._send("execute", words=list(words))
        self._control.close()

    def kill(self) -> None:
        """End it with SIGKILL, and wait until it has."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        until(self.ended, said="the end of a puppet")

    def ended(self) -> bool:
        """Return whether it has ended, whether anybody has taken note of it or not."""
        return bool(select.select([self._pidfd], [], [], 0)[0])

    def close(self) -> None:
        """End it and all that came from it, however the test went."""
        for child in self._children:
            child.close()
        self.kill()
        self._control.close()
        os.close(self._pidfd)

    def _send(self, verb: str, descriptors: Sequence[int] = (), **what: Any) -> None:  # noqa: ANN401
        text = json.dumps({"verb": verb, **what}).encode()
        socket.send_fds(self._control, [text], list(descriptors))

    def _tell(self, verb: str, descriptors: Sequence[int] = (), **what: Any) -> Any:  # noqa: ANN401
        self._send(verb, descriptors, **what)
        text, passed, _, _ = socket.recv_fds(self._control, _LONGEST, 1)
        if not text:
            message = f"puppet {self.pid} has ended"
            raise PuppetError(message)
        answer = json.loads(text)
        if "failed" in answer:
            raise PuppetError(answer["failed"])
        return passed[0] if passed else answer["value"]


@contextmanager
def theatre() -> Iterator[Puppet]:
    """Give the first puppet, of which all others are forked; end it, and with it whoever is left, in the end."""
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    root = Path(__file__).parent.parent
    with theirs:
        command = [sys.executable, "-m", "tests.puppets", str(theirs.fileno())]
        child = subprocess.Popen(command, cwd=root, pass_fds=[theirs.fileno()], start_new_session=True)
    first = Puppet(mine, child.pid)
    try:
        yield first
    finally:
        # Whoever holds no end of a socket any more ends by itself; the group takes the rest.
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait(DEADLINE)
        first.close()


class _Strings:
    """What a puppet hangs on: its own side."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self.connections: dict[str, Connection] = {}

    def listen(self) -> None:
        """Do what is told until nobody tells anything any more."""
        while True:
            text, passed, _, _ = socket.recv_fds(self._control, _LONGEST, 1)
            if not text:
                return
            what = json.loads(text)
            verb = getattr(self, what.pop("verb"))
            descriptors: list[int] = []
            try:
                value = verb(*passed, **what)
                descriptors = [value.fileno()] if isinstance(value, socket.socket) else []
                answer = {"value": None if descriptors else value}
            except BaseException:  # noqa: BLE001 -- the test wants to know, whatever it is
                answer = {"failed": traceback.format_exc()}
            socket.send_fds(self._control, [json.dumps(answer).encode()], descriptors)

    def connect(self, name: str, path: str) -> None:
        self.connections[name] = Connection(Path(path))

    def send(self, name: str, method: str, params: dict[str, Any]) -> None:
        self.connections[name].send(method, **params)

    def receive(self, name: str) -> Any:  # noqa: ANN401
        try:
            return self.connections[name].receive_raw()
        except HungUpError:
            return None

    def hang_up(self, name: str) -> None:
        self.connections.pop(name).close()

    def fork(self, control: int) -> int:
        pid = os.fork()
        if pid:
            os.close(control)
            return pid
        self._control.close()
        self._control = socket.socket(fileno=control)
        self.listen()
        os._exit(0)

    def become(self, uid: int, gid: int, groups: list[int]) -> None:
        os.setgroups(groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)

    def take(self, name: str) -> socket.socket:
        return self.connections[name].socket

    def give(self, descriptor: int, name: str) -> None:
        self.connections[name] = Connection(socket.socket(fileno=descriptor))

    def run(self, source: str, values: dict[str, Any]) -> Any:  # noqa: ANN401
        # Whoever has become another user may not be able to import anything.
        modules = {"os": os, "socket": socket, "ctypes": ctypes}
        names: dict[str, Any] = {**modules, "connections": self.connections, "result": None, **values}
        exec(source, names)  # noqa: S102 -- the source stands in the test
        return names["result"]

    def execute(self, words: list[str]) -> None:
        for connection in self.connections.values():
            connection.socket.set_inheritable(True)
        os.execv(words[0], words)  # noqa: S606


def main(words: list[str]) -> int:
    """Be the first puppet."""
    # Who has ended is gone at once: nobody here waits for children.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    _Strings(socket.socket(fileno=int(words[0]))).listen()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
