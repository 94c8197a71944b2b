"""
A server that does to each connection what a test says, byte by byte, and remembers what came in.

    with listening(answers(b"HTTP/1.1 200 OK…"), hang) as server:
        server.address

The first connection gets the first act, and so on; the last act is for all that
come after. It refuses to understand HTTP beyond where a request ends.
"""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

Act = Callable[["RawServer", socket.socket], None]

DRIP = 0.05
"""Seconds between the bytes of an answer that drips."""


class RawServer:
    """
    What listens.

    Attributes:
        address: where it listens, as a config says it.
        requests: the head and the body of each request, in the order in which they came.
        connections: how many were accepted.

    """

    def __init__(self, acts: tuple[Act, ...], listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        """Take the listening socket."""
        name = listener.getsockname()
        scheme = "http" if tls is None else "https"
        self.address = f"unix://{name}" if isinstance(name, str) else f"{scheme}://127.0.0.1:{name[1]}"
        self.requests: list[bytes] = []
        self.connections = 0
        self.over = threading.Event()
        self._acts = acts
        self._listener = listener
        self._tls = tls

    def run(self) -> None:
        """Accept until it is closed."""
        with suppress(OSError):
            while not self.over.is_set():
                connection, _ = self._listener.accept()
                act = self._acts[min(self.connections, len(self._acts) - 1)]
                self.connections += 1
                threading.Thread(target=self._one, args=[act, connection], daemon=True).start()

    def _one(self, act: Act, connection: socket.socket) -> None:
        connection.settimeout(20)
        with suppress(OSError), connection:
            if self._tls is not None:
                with self._tls.wrap_socket(connection, server_side=True) as secured:
                    act(self, secured)
            else:
                act(self, connection)

    def request(self, connection: socket.socket) -> bytes:
        """Read one request, remember it and return it; empty where the client has gone."""
        text = b""
        while b"\r\n\r\n" not in text and (piece := connection.recv(65536)):
            text += piece
        head, _, body = text.partition(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        length = int(lengths[0].partition(b":")[2]) if lengths else 0
        while len(body) < length and (piece := connection.recv(65536)):
            body += piece
        if head:
            self.requests.append(head + b"\r\n\r\n" + body)
        return head


def whole(status: int, body: bytes = b"{}", *headers: str) -> bytes:
    """Return an answer as it stands on the wire."""
    lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def answers(*said: bytes) -> Act:
    """Answer each request on the connection in turn, the last one for all that come after."""

    def act(server: RawServer, connection: socket.socket) -> None:
        number = 0
        while server.request(connection):
            connection.sendall(said[min(number, len(said) - 1)])
            number += 1

    return act


def cut(after: bytes = b"") -> Act:
    """Read the request, send so much, and close the connection."""

    def act(server: RawServer, connection: socket.socket) -> None:
        server.request(connection)
        connection.sendall(after)

    return act


def talk(said: bytes) -> Act:
    """Say something without being asked, and close the connection."""

    def act(server: RawServer, connection: socket.socket) -> None:
        connection.sendall(said)
        # Closing with something unread would take back what was said.
        connection.recv(65536)
        del server

    return act


def slam(server: RawServer, connection: socket.socket) -> None:
    """Close the connection before anything was read."""
    del server
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")


def hang(server: RawServer, connection: socket.socket) -> None:
    """Read the request and say nothing until the test is over."""
    server.request(connection)
    server.over.wait(20)


def mute(server: RawServer, connection: socket.socket) -> None:
    """Accept the connection and read nothing until the test is over."""
    del connection
    server.over.wait(20)


def drip(said: bytes) -> Act:
    """Read the request and send the answer byte by byte, each in time and all of it too late."""

    def act(server: RawServer, connection: socket.socket) -> None:
        server.request(connection)
        for byte in said:
            if server.over.wait(DRIP):
                return
            connection.sendall(bytes([byte]))

    return act


@contextmanager
def listening(*acts: Act, tls: ssl.SSLContext | None = None, path: Path | None = None) -> Iterator[RawServer]:
    """Listen on this machine for as long as the block lasts."""
    listener = socket.socket(socket.AF_INET if path is None else socket.AF_UNIX)
    with listener:
        listener.bind(("127.0.0.1", 0) if path is None else str(path))
        listener.listen(64)
        server = RawServer(acts, listener, tls)
        threading.Thread(target=server.run, daemon=True).start()
        try:
            yield server
        finally:
            server.over.set()
            # An accept that waits is woken by closing alone where the system says so; a connection always wakes it.
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)


def nobody() -> str:
    """Return an address at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"
