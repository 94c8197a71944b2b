"""
One request to one server, on the thread that calls it: hvac knows the API, urllib3 the wire.

hvac's own adapters follow redirects with the token in hand, lose the status and
the headers of an error, and read the environment for tokens, proxies and
passwords. This one does none of that: no redirect, no retry, no cookie, no
``VAULT_TOKEN``, no ``~/.vault-token``, no ``.netrc``. Its one promise to who has
to decide what a failure means is to know whether anything was sent.

Imported when a backend opens and not before: it takes longer than the rest of a start.
"""

import contextlib
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any, Final, final
from urllib.parse import quote, urlencode

import msgspec
from hvac.adapters import Adapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from backends.base import MisconfiguredError, Secret
from backends.vault_options import Address, VaultOptions
from backends.vault_wire import LONGEST_ANSWER, Answer, Fault, Kind, read

CONNECTIONS: Final = 16
"""To one server at the same time at most, and requests of one backend under way."""

_PIECE: Final = 65536
_SAFE: Final = "/-._~+%"
"""hvac has escaped what it puts into a path, and ``api`` what we do."""


def api(path: str) -> str:
    """Return the path of the API for one that a person has written."""
    return "/v1/" + quote(path, safe="/-._~+")


class NotSentError(Exception):
    """No server could be reached: nothing was sent, so nothing was done."""


class CutError(Exception):
    """A request was sent, and no whole answer came: it may have been done."""


class FaultError(Exception):
    """The server has answered, and its answer is no success."""

    def __init__(self, fault: Fault) -> None:
        """Take what the answer means."""
        super().__init__(fault.kind.value)
        self.fault = fault


@final
class Call:
    """One request under way, which another thread can cut off."""

    __slots__ = ("_ended", "_lock", "_socket", "_spare", "sent")

    def __init__(self) -> None:
        """Begin with nothing sent."""
        self.sent = False
        self._socket: socket.socket | None = None
        self._spare = False
        self._ended = False
        self._lock = threading.Lock()

    def hold(self, connection: socket.socket, *, spare: bool = False) -> None:
        """Know the socket that the request goes over, or a ``spare`` name for it, which is closed when it is let go."""
        with self._lock:
            self._drop()
            self._socket, self._spare = connection, spare
            if self._ended:
                _shut(connection)

    def let_go(self) -> None:
        """Forget the socket: the next request over it is another's."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        if self._socket is not None and self._spare:
            self._socket.close()
        self._socket, self._spare = None, False

    def abort(self) -> None:
        """Wake the thread that waits for an answer which comes too late."""
        with self._lock:
            self._ended = True
            if self._socket is not None:
                _shut(self._socket)


def _shut(connection: socket.socket) -> None:
    # The base class's own, which leaves what a TLS socket remembers to the thread that uses it.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


class _Watched:
    """What our connections add to urllib3's: they tell the request under way what becomes of it."""

    calls: threading.local
    sock: socket.socket | None

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]  # of the class that this is mixed into
        if self.sock is not None:
            self.calls.current.hold(self.sock)

    def send(self, text: Any) -> None:  # noqa: ANN401 -- as in http.client
        if self.sock is None:
            self.connect()
        call: Call = self.calls.current
        if self.sock is not None:
            call.hold(self.sock)
        call.sent = True
        super().send(text)  # type: ignore[misc]


class _Plain(_Watched, HTTPConnection):
    def __init__(self, *, calls: threading.local, **options: Any) -> None:  # noqa: ANN401
        super().__init__(**options)
        self.calls = calls


class _Encrypted(_Watched, HTTPSConnection):
    def __init__(self, *, calls: threading.local, **options: Any) -> None:  # noqa: ANN401
        super().__init__(**options)
        self.calls = calls

    def _new_conn(self) -> socket.socket:
        connection = super()._new_conn()
        # During the handshake the library has it, and each byte of a server that drips starts the time-out anew.
        self.calls.current.hold(connection.dup(), spare=True)
        return connection


class _Local(_Plain):
    """A connection to a Unix socket, such as a local agent's."""

    def __init__(self, *, path: str, **options: Any) -> None:  # noqa: ANN401
        super().__init__(**options)
        self._path = path

    def _new_conn(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(self.timeout if isinstance(self.timeout, (int, float)) else None)
            connection.connect(self._path)
        except OSError as error:
            connection.close()
            raise NotSentError(error.strerror or "it does not answer") from None
        return connection


@final
class Wire:
    """The connections to one address."""

    def __init__(self, address: Address, options: VaultOptions) -> None:
        """Describe them; none is made yet. Raises ``MisconfiguredError`` for a certificate that cannot be read."""
        self.address = address
        self._namespace = options.namespace
        self._calls = threading.local()
        self._pool = self._made(options)
        # It logs what it cannot read of an answer's head, and that may be anything.
        logging.getLogger("urllib3").setLevel(logging.CRITICAL)

    def _made(self, options: VaultOptions) -> HTTPConnectionPool:
        most: dict[str, Any] = {"maxsize": CONNECTIONS, "block": False, "retries": False}
        host, port = self.address.host, self.address.port
        match self.address.scheme:
            case "unix":
                pool = HTTPConnectionPool("localhost", **most)
                kind: Callable[..., Any] = partial(_Local, path=host)
            case "http":
                pool = HTTPConnectionPool(host, port, **most)
                kind = _Plain
            case _:
                name = options.server_name
                named: dict[str, Any] = {} if name is None else {"server_hostname": name}
                pool = HTTPSConnectionPool(host, port, ssl_context=tls(options), **named, **most)
                kind = _Encrypted
        pool.ConnectionCls = partial(kind, calls=self._calls)  # type: ignore[assignment]
        return pool

    def adapter(self, call: Call, token: Secret | None, seconds: float) -> "VaultAdapter":
        """Return what hvac asks through, for one request."""
        return VaultAdapter(partial(self._ask, call, token, seconds))

    def close(self) -> None:
        """Close what is idle; what is under way ends by itself."""
        self._pool.close()

    def _ask(  # noqa: PLR0917 -- the last three are hvac's
        self, call: Call, token: Secret | None, seconds: float, method: str, target: str, body: bytes | None
    ) -> Answer | Fault:
        headers = {"X-Vault-Request": "true", "Accept": "application/json", "User-Agent": "mcp-secrets-broker"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if token is not None:
            headers["X-Vault-Token"] = token.expose()
        if self._namespace:
            headers["X-Vault-Namespace"] = self._namespace
        self._calls.current = call
        try:
            return self._answer(method, target, body, headers, seconds)
        except (HTTPError, OSError, ValueError, AttributeError) as error:
            # ValueError and AttributeError: what the standard library says of a socket that was shut meanwhile.
            if call.sent:
                raise CutError(type(error).__name__) from None
            raise NotSentError(_why(error)) from None
        finally:
            call.let_go()
            del self._calls.current

    def _answer(
        self, method: str, target: str, body: bytes | None, headers: Mapping[str, str], seconds: float
    ) -> Answer | Fault:
        response = self._pool.urlopen(
            method,
            target,
            body=body,
            headers=headers,
            retries=False,
            redirect=False,
            assert_same_host=False,
            timeout=Timeout(connect=seconds, read=seconds),
            preload_content=False,
        )
        if not _says_where_it_ends(response.status, response.headers):
            # The end of the connection might be anywhere in it, in the middle of a header too.
            response.close()
            message = "its end is not known"
            raise CutError(message)
        whole = False
        try:
            pieces, length = [], 0
            while length <= LONGEST_ANSWER and (piece := response.read(_PIECE)):
                pieces.append(piece)
                length += len(piece)
            whole = length <= LONGEST_ANSWER
        finally:
            if whole:
                response.release_conn()
            else:
                response.close()
        if not whole:
            return Fault(kind=Kind.GARBLED, status=response.status)
        return read(response.status, {key.lower(): text for key, text in response.headers.items()}, b"".join(pieces))


def _says_where_it_ends(status: int, headers: Mapping[str, str]) -> bool:
    return status == HTTPStatus.NO_CONTENT or "content-length" in headers or "transfer-encoding" in headers


def tls(options: VaultOptions) -> ssl.SSLContext:
    """Return how a server has to prove itself, and what is shown to it. Raises ``MisconfiguredError``."""
    try:
        context = ssl.create_default_context(cafile=options.ca_file)
    except OSError as error:
        message = f"the certificates in {options.ca_file} cannot be read: {_trouble(error, 'they are no PEM')}"
        raise MisconfiguredError(
            message, hint="put the PEM of the CA that signed the server's certificate there"
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if options.client_cert_file is not None:
        try:
            # A key that is encrypted would ask on the terminal of whoever started the broker.
            context.load_cert_chain(options.client_cert_file, options.client_key_file, password=lambda: "")
        except OSError as error:
            why = _trouble(error, "it is no PEM, or the key does not fit")
            message = f"the client certificate {options.client_cert_file} cannot be used: {why}"
            raise MisconfiguredError(message, hint="it and its key are PEM, and the key has no passphrase") from None
    return context


def _trouble(error: OSError, unreadable: str) -> str:
    """Return why a file cannot be used; the library's own words for what is in it say nothing to anybody."""
    return unreadable if isinstance(error, ssl.SSLError) or error.strerror is None else error.strerror


@final
class VaultAdapter(Adapter):  # type: ignore[misc]  # hvac has no types
    """
    What hvac's classes ask through: one request, one answer or a ``FaultError``.

    It has no session, and no token that another request could find.
    """

    def __init__(self, ask: Callable[[str, str, bytes | None], Answer | Fault]) -> None:
        """Take what does it. The base class would make a session with an environment of its own."""
        self._ask = ask

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        raise_exception: bool = True,  # noqa: FBT001, FBT002 -- as hvac has it
        **kwargs: Any,  # noqa: ANN401
    ) -> Answer:
        """Ask. Of hvac's keywords ``json`` and ``params`` are known; any other would be passed over in silence."""
        body, query = kwargs.pop("json", None), kwargs.pop("params", None)
        kwargs.pop("wrap_ttl", None)
        assert not kwargs, "hvac wants something that is not done here"
        assert headers is None
        assert raise_exception
        target = "/" + quote(url.strip("/"), safe=_SAFE)
        if query:
            target += "?" + urlencode(query)
        answer = self._ask(method.upper(), target, None if body is None else msgspec.json.encode(body))
        if isinstance(answer, Fault):
            raise FaultError(answer)
        return answer

    def get_login_token(self, response: Answer) -> str:
        """Refuse: a token stays wrapped."""
        raise NotImplementedError


def _why(error: Exception) -> str:
    """Return in our words why nobody could be reached."""
    if isinstance(error, ssl.SSLError) or isinstance(error.__cause__, ssl.SSLError) or "SSL" in type(error).__name__:
        reason = getattr(error, "verify_message", "") or getattr(
            error.args[0] if error.args else None, "verify_message", ""
        )
        reason = reason[:1].lower() + reason[1:].rstrip(".")
        return f"its certificate is not accepted: {reason}" if reason else "no TLS connection can be made"
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    return getattr(cause, "strerror", None) or "it cannot be reached"
