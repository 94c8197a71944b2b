"""
Sinks that listen: a journal's socket, a syslog server with TLS, an HTTP endpoint; each can be slow, away, or say no.

They keep what they are sent, as it came. This module refuses to be a mock: what
is sent goes through real sockets.
"""

import datetime as dt
import ipaddress
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_PATIENCE: Final = 0.2


@dataclass(slots=True)
class Heard:
    """
    What a sink was sent.

    Attributes:
        texts: every message's JSON, in order.
        raw: every message as it came.
        open: cleared, the sink takes nothing.
        status: what an HTTP endpoint answers.

    """

    texts: list[dict[str, Any]] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    open: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    status: int = 204

    def hear(self, raw: bytes, text: bytes) -> None:
        """Keep one message."""
        self.raw.append(raw)
        self.texts.append(json.loads(text))

    @property
    def numbers(self) -> list[int]:
        """Return the numbers of the records, in the order in which they came."""
        return [each["seq"] for each in self.texts if "seq" in each]

    @property
    def checkpoints(self) -> list[int]:
        """Return the numbers of the checkpoints."""
        return [each["checkpoint"] for each in self.texts if "note" in each]


@contextmanager
def journal(path: Path) -> Iterator[Heard]:
    """Listen as journald does."""
    heard = Heard()
    heard.open.set()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(str(path))
    sock.settimeout(_PATIENCE)

    def listen() -> None:
        while not heard.ended.is_set():
            if not heard.open.wait(_PATIENCE):
                continue
            with suppress(TimeoutError):
                raw = sock.recv(1 << 20)
                at = raw.index(b"MESSAGE\n") + 8
                length = int.from_bytes(raw[at : at + 8], "little")
                heard.hear(raw, raw[at + 8 : at + 8 + length])

    try:
        with _running(listen, heard):
            yield heard
    finally:
        sock.close()
        path.unlink()


@contextmanager
def syslog(certificate: Path, *, port: int = 0) -> Iterator[tuple[Heard, int]]:
    """Listen as a syslog server does, with TLS; give the port."""
    heard = Heard()
    heard.open.set()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = socket.create_server(("127.0.0.1", port))
    server.settimeout(_PATIENCE)

    def listen() -> None:
        while not heard.ended.is_set():
            with suppress(OSError):
                raw, _ = server.accept()
                raw.settimeout(5)
                with context.wrap_socket(raw, server_side=True) as connection:
                    connection.settimeout(_PATIENCE)
                    _read_counted(connection, heard)

    with _running(listen, heard):
        yield heard, server.getsockname()[1]
    server.close()


def _read_counted(connection: ssl.SSLSocket, heard: Heard) -> None:
    """Take messages with a length before each, until the other end hangs up or this one ends."""
    buffer = b""
    while not heard.ended.is_set():
        if not heard.open.wait(_PATIENCE):
            continue
        try:
            piece = connection.recv(1 << 16)
        except TimeoutError:
            continue
        if not piece:
            return
        buffer += piece
        while b" " in buffer[:8]:
            count, _, rest = buffer.partition(b" ")
            if len(rest) < int(count):
                break
            message, buffer = rest[: int(count)], rest[int(count) :]
            heard.hear(message, message.partition(b" - ")[2])


@contextmanager
def endpoint() -> Iterator[tuple[Heard, int]]:
    """Listen as an HTTP endpoint; give the port."""
    heard = Heard()
    heard.open.set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            heard.open.wait(30)
            if heard.status < 300:
                for line in body.splitlines():
                    heard.hear(line, line)
            self.send_response(heard.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- as the library has it
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    with _running(server.serve_forever, heard):
        yield heard, server.server_port
        heard.open.set()
        server.shutdown()
    server.server_close()


@contextmanager
def _running(body: Any, heard: Heard) -> Iterator[None]:  # noqa: ANN401 -- a function of nothing
    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    try:
        yield
    finally:
        heard.ended.set()
        thread.join(5)


def certificate(path: Path) -> Path:
    """Write a certificate for 127.0.0.1, signed by itself, with its key; who trusts it trusts itself alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path
