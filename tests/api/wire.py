"""
A client that says whatever it likes, byte for byte, and another that must not notice.

It refuses to understand more than it must: answers come back as what they are
on the wire, taken apart but not judged.
"""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.running import Connection, RunningBroker, until

DEADLINE = 15.0
WHOAMI = b'{"jsonrpc":"2.0","id":"after","method":"whoami"}\n'
GET = b"GET /v1/whoami HTTP/1.1\r\nHost: broker\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Response:
    """One HTTP response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401 -- whatever JSON holds
        """Return the body, read as JSON."""
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        """Return the stable code of an error, or None."""
        return self.json["error"]["code"] if self.status != 200 else None


class Wire:
    """One connection."""

    def __init__(self, path: Path) -> None:
        """Connect."""
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(DEADLINE)
        self.socket.connect(str(path))
        self._rest = b""

    def send(self, said: bytes) -> None:
        """Send all of it, or as much as the other end takes before it hangs up."""
        try:
            self.socket.sendall(said)
        except (BrokenPipeError, ConnectionResetError):
            return

    def end(self) -> None:
        """Say that nothing more will be sent."""
        self.socket.shutdown(socket.SHUT_WR)

    def _more(self) -> bool:
        """Receive something; return whether there is still somebody at the other end."""
        try:
            part = self.socket.recv(1 << 16)
        except ConnectionResetError:
            return False
        self._rest += part
        return bool(part)

    def line(self) -> dict[str, Any] | None:
        """Return the next line, or None where the broker hung up first."""
        while b"\n" not in self._rest:
            if not self._more():
                return None
        line, _, self._rest = self._rest.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def response(self) -> Response | None:
        """Return the next HTTP response, or None where the broker hung up first."""
        while b"\r\n\r\n" not in self._rest:
            if not self._more():
                return None
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        first, *others = head.decode("ascii").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in others)}
        length = int(headers.get("content-length", "0"))
        while len(self._rest) < length and self._more():
            pass
        body, self._rest = self._rest[:length], self._rest[length:]
        return Response(int(first.split()[1]), headers, body)

    def hung_up(self) -> bool:
        """Return whether the broker ends the connection without another word."""
        return self._rest == b"" and not self._more()

    def everything(self) -> bytes:
        """Return all that comes until the broker hangs up."""
        while self._more():
            pass
        return self._rest

    def close(self) -> None:
        """Hang up."""
        self.socket.close()

    def __enter__(self) -> Self:
        """Return the connection, which is there already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Hang up."""
        self.close()


class Bystander:
    """Somebody else, who asks for a credential again and again and gets it each time."""

    def __init__(self, broker: RunningBroker) -> None:
        """Begin to ask, on one connection."""
        self.answers = 0
        self._connection = Connection(broker.places.broker_socket)
        self._stop = threading.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        try:
            while not self._stop.wait(0.002):
                assert "github" == self._connection.call("credential/issue", secret="github")["secret"]
                self.answers += 1
        except BaseException as error:  # noqa: BLE001 -- raised again where it is looked at
            self._failed = error

    def is_served(self) -> None:
        """Wait for two more answers: one may have been on its way before; raise whatever went wrong with any."""
        wanted = self.answers + 2
        until(lambda: self.answers >= wanted or self._failed is not None, said="an answer to the bystander")
        if self._failed is not None:
            raise self._failed

    def leave(self) -> None:
        """Stop asking."""
        self._stop.set()
        self._thread.join(DEADLINE)
        self._connection.close()


@contextmanager
def bystander(broker: RunningBroker) -> Iterator[Bystander]:
    """Give somebody who is served before, while and after the block does whatever it does."""
    other = Bystander(broker)
    try:
        other.is_served()
        yield other
        other.is_served()
    finally:
        other.leave()
