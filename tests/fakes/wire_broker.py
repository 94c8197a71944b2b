"""
A broker that says what it is told to, over the real wire.

It speaks JSON lines on a real socket and keeps every request. It refuses to
know any rule: for those there is the daemon.
"""

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

Answer = Callable[[dict[str, Any]], Any]
"""From the parameters to the result. Raises ``Refuse`` for an error."""


class Refuse(Exception):  # noqa: N818 - a script's word, not an error of ours
    """Answer with this error."""

    def __init__(self, code: str, *, message: str = "no", hint: str | None = None, number: int = -32000) -> None:
        """Make the error object."""
        super().__init__(message)
        self.error = {"code": number, "message": message, "data": {"code": code, "hint": hint}}


def opened(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 - fields of many types
    """Return an answer to ``server/open``."""
    return {
        "server": "github",
        "command": ["true"],
        "client_args": False,
        "env": {},
        "files": {},
        "pass_env": [],
        "leases": ["a1"],
        "version": "0.1.0",
        **changes,
    }


class WireBroker:
    """
    Listens at ``DIR/run/broker.sock`` and ``DIR/run/admin.sock`` while in use.

    Attributes:
        verbs: the answer to each method; a method that is not there is an error.
        requests: every request, as it came.
        before: lines to send before each answer.
        mute: read everything and answer nothing.
        hang_up: close each connection after the first line.

    """

    def __init__(self, directory: Path, verbs: Mapping[str, Answer] | None = None) -> None:
        """Prepare to listen in ``directory``."""
        self.directory = directory
        self.verbs: dict[str, Answer] = {"whoami": lambda _: {"version": "0.1.0", "mode": "user"}, **(verbs or {})}
        self.requests: list[dict[str, Any]] = []
        self.before: list[bytes] = []
        self.mute = False
        self.hang_up = False
        self._listening: list[socket.socket] = []
        self._connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    @property
    def where(self) -> list[str]:
        """Return the options that lead a command here."""
        return ["--dir", str(self.directory)]

    def asked(self, method: str) -> list[dict[str, Any]]:
        """Return the parameters of every request for one method."""
        return [request["params"] for request in self.requests if request["method"] == method]

    def __enter__(self) -> Self:
        """Listen."""
        run = self.directory / "run"
        run.mkdir(parents=True, mode=0o700)
        for name in ("broker.sock", "admin.sock"):
            listening = socket.socket(socket.AF_UNIX)
            listening.bind(str(run / name))
            listening.listen()
            self._listening.append(listening)
            self._start(self._accept, listening)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every socket and wait for the threads."""
        for each in (*self._listening, *self._connections):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(timeout=10)

    def drop(self) -> None:
        """Close every connection, and go on listening."""
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _start(self, work: Callable[[socket.socket], None], argument: socket.socket) -> None:
        thread = threading.Thread(target=work, args=(argument,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            self._connections.append(connection)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rb") as lines:
                for line in lines:
                    if self.hang_up:
                        return
                    request = json.loads(line)
                    self.requests.append(request)
                    if not self.mute:
                        connection.sendall(b"".join(self.before) + self._answer(request))
        except OSError:
            return  # the other side has gone, or the test has ended

    def _answer(self, request: dict[str, Any]) -> bytes:
        head = {"jsonrpc": "2.0", "id": request["id"]}
        verb = self.verbs.get(request["method"])
        if verb is None:
            number = -32601
            return _line({**head, "error": {"code": number, "message": "unknown verb", "data": {}}})
        try:
            return _line({**head, "result": verb(request["params"])})
        except Refuse as refuse:
            return _line({**head, "error": refuse.error})


def _line(message: dict[str, Any]) -> bytes:
    try:
        return json.dumps(message, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(message).encode() + b"\n"  # half of a letter cannot be written in UTF-8
