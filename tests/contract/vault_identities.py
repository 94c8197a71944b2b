"""
Who vouches for who logs in: a signer of JWTs, a Kubernetes API that knows tokens, an LDAP directory that knows people.

Each says yes or no to one question, over its real wire, and refuses all others.
"""

import base64
import json
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.fakes.authority import Authority
from tests.fakes.faulty_http import Asked, FaultyServer, Said

_RIGHT: Final = 0
_WRONG: Final = 49
_BIND: Final = 0x60
_SEARCH: Final = 0x63


class Signer:
    """Somebody with an RSA key."""

    def __init__(self) -> None:
        """Make the key."""
        self._key = rsa.generate_private_key(65537, 2048)
        shape = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        self.public = self._key.public_key().public_bytes(*shape).decode()

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Return a JWT with these claims, good for an hour unless they say something else."""
        now = int(time.time())
        parts = [{"alg": "RS256", "typ": "JWT"}, {"iat": now, "exp": now + 3600, **claims}]
        text = ".".join(_encoded(json.dumps(part).encode()) for part in parts)
        return f"{text}.{_encoded(self._key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def _encoded(text: bytes) -> str:
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


class Cluster:
    """
    A Kubernetes API that reviews tokens.

    Attributes:
        token: the only one that it knows: of the account ``broker`` in the namespace ``mcp``.

    """

    def __init__(self, authority: Authority) -> None:
        """Prepare to listen, with a certificate of ``authority``."""
        account = {"namespace": "mcp", "serviceaccount": {"name": "broker", "uid": "u-1"}}
        claims = {"iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:mcp:broker"}
        self.token = Signer().sign({**claims, "kubernetes.io": account})
        self._server = FaultyServer(self._answer, tls=authority.listening())

    @property
    def address(self) -> str:
        """Return where it listens."""
        return self._server.address

    async def _answer(self, asked: Asked) -> Said:
        shown = json.loads(asked.body)["spec"]["token"] if asked.body else ""
        status: dict[str, Any] = {"authenticated": False, "error": "unknown"}
        if shown == self.token:
            user = {"username": "system:serviceaccount:mcp:broker", "uid": "u-1", "groups": []}
            status = {"authenticated": True, "user": user}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status}
        return Said(status=201, headers={"content-type": "application/json"}, body=json.dumps(body).encode())

    def __enter__(self) -> Self:
        """Listen."""
        self._server.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self._server.__exit__(kind, error, trace)


class Directory:
    """An LDAP directory: who binds as ``uid=NAME,…`` with the right password is let in; searches find nothing."""

    def __init__(self, people: Mapping[str, str]) -> None:
        """Know ``people`` and their passwords."""
        self._people = people
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []

    @property
    def address(self) -> str:
        """Return where it listens."""
        return f"ldap://127.0.0.1:{self._socket.getsockname()[1]}"

    def __enter__(self) -> Self:
        """Listen."""
        threading.Thread(target=self._listen, name="directory", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=[connection], name="directory-client", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream, suppress(OSError, ValueError, IndexError):
            while message := _element(stream.read(1), stream):
                number, rest = _first(message)
                operation, content = rest[0], _first(rest)[0]
                if operation == _BIND:
                    code = self._bind(content)
                    connection.sendall(_message(number, 0x61, code))
                elif operation == _SEARCH:
                    connection.sendall(_message(number, 0x65, _RIGHT))
                else:
                    return

    def _bind(self, content: bytes) -> int:
        """Return the result of a bind: version, name, password."""
        _, rest = _first(content)
        name, rest = _first(rest)
        password, _ = _first(rest)
        user = name.decode().partition("=")[2].partition(",")[0]
        return _RIGHT if password and self._people.get(user) == password.decode() else _WRONG


def _element(tag: bytes, stream: Any) -> bytes:  # noqa: ANN401 -- a file of bytes
    """Return the content of the element that begins with ``tag``; nothing at the end."""
    if not tag:
        return b""
    length = stream.read(1)[0]
    if length & 0x80:
        length = int.from_bytes(stream.read(length & 0x7F), "big")
    return bytes(stream.read(length))


def _first(content: bytes) -> tuple[bytes, bytes]:
    """Return the content of the first element, and what follows it."""
    length, at = content[1], 2
    if length & 0x80:
        size = length & 0x7F
        length, at = int.from_bytes(content[2 : 2 + size], "big"), 2 + size
    return content[at : at + length], content[at + length :]


def _message(number: bytes, operation: int, code: int) -> bytes:
    """Return an answer that is nothing but a result."""
    result = bytes([0x0A, 1, code, 0x04, 0, 0x04, 0])
    inside = bytes([0x02, len(number)]) + number + bytes([operation, len(result)]) + result
    return bytes([0x30, len(inside)]) + inside
