"""
How each kind of sink is spoken to, by whoever may wait: journald, syslog, HTTP.

``send`` returns when all of it was taken, as far as the other end says: journald
has it in its socket, an HTTP endpoint has answered, and of a syslog connection
the other host's kernel has acknowledged every byte (syslog itself says nothing).
This module refuses to send over a network without TLS, and to remember anything.
"""

import contextlib
import errno
import fcntl
import os
import socket
import ssl
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, final
from urllib.parse import urlsplit

from broker.config.recording import SinkConfig
from broker.web import Endpoint, PostError

DEADLINE: Final = 10.0
"""Seconds for each step."""

JOURNAL: Final = "/run/systemd/journal/socket"

_AUDIT: Final = 13 * 8
_NOTICE: Final = 5
_TLS_PORT: Final = 6514
_SIOCOUTQ: Final = 0x5411
_BUFFER: Final = 8 << 20
_LONGEST_ID: Final = 32


class SinkError(Exception):
    """A sink did not take what it was sent; ``detail`` says why, for a person."""

    def __init__(self, detail: str, *, hint: str) -> None:
        """Say what happened."""
        super().__init__(detail)
        self.detail = detail
        self.hint = hint


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """
    One thing to send.

    Attributes:
        text: one line of JSON, without its newline.
        event: what it is: the event of a record, or ``audit/checkpoint``.
        time: when that happened, RFC 3339.
        number: of the record or the checkpoint.

    """

    text: bytes
    event: str
    time: str
    number: int


class Speaker(Protocol):
    """Knows one protocol."""

    def send(self, messages: Sequence[Message]) -> None:
        """Send messages in their order. Raises ``SinkError``: perhaps some of them arrived."""
        ...

    def close(self) -> None:
        """Hang up."""
        ...


def speaker(config: SinkConfig) -> Speaker:
    """Return what speaks to a sink."""
    match config.type:
        case "journald":
            return Journald(config.address or JOURNAL)
        case "syslog":
            return Syslog(config)
        case "http":
            return Http(config)


def _why(error: OSError) -> str:
    return (error.strerror or str(error) or type(error).__name__).lower()


@final
class Journald:
    """The native protocol: one datagram a message, so that each field can be searched for (``journalctl MCP_…=``)."""

    def __init__(self, path: str) -> None:
        """Connect to nothing yet."""
        self._path = path
        self._socket: socket.socket | None = None

    def send(self, messages: Sequence[Message]) -> None:
        """See ``Speaker``."""
        try:
            sock = self._socket = self._socket or self._connected()
            for message in messages:
                sock.send(journal_entry(message))
        except OSError as error:
            self.close()
            msg = f"{self._path}: {_why(error)}"
            raise SinkError(msg, hint="systemctl status systemd-journald") from None

    def close(self) -> None:
        """See ``Speaker``."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connected(self) -> socket.socket:
        return _unix(self._path, socket.SOCK_DGRAM)


def journal_entry(message: Message) -> bytes:
    """Return a message as journald reads it: names in capitals, a length before what may hold a newline."""
    plain = {
        "PRIORITY": b"5",
        "SYSLOG_IDENTIFIER": b"mcp-broker",
        "SYSLOG_FACILITY": b"13",
        "MCP_BROKER_EVENT": message.event.encode(),
        "MCP_BROKER_NUMBER": str(message.number).encode(),
    }
    lines = [name.encode() + b"=" + value + b"\n" for name, value in plain.items() if b"\n" not in value]
    return b"".join([*lines, b"MESSAGE\n", struct.pack("<Q", len(message.text)), message.text, b"\n"])


def _unix(path: str, kind: socket.SocketKind) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC)
    try:
        sock.settimeout(DEADLINE)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    return sock


@final
class Syslog:
    """RFC 5424, over TLS with a length before each message (RFC 5425), or into a Unix socket."""

    def __init__(self, config: SinkConfig) -> None:
        """Connect to nothing yet."""
        parts = urlsplit(config.address)
        self._config = config
        self._path = parts.path if parts.scheme == "unix" else ""
        self._host, self._port = parts.hostname or "", parts.port or _TLS_PORT
        self._name = socket.gethostname()
        self._socket: socket.socket | None = None
        self._counted = not self._path

    def send(self, messages: Sequence[Message]) -> None:
        """See ``Speaker``."""
        framed = [syslog_message(each, host=self._name) for each in messages]
        try:
            sock = self._socket = self._socket or self._connected()
            if self._counted:
                _require_open(sock)
                sock.sendall(b"".join(b"%d %b" % (len(each), each) for each in framed))
                _until_acknowledged(sock)
            else:
                for each in framed:
                    sock.send(each)
        except OSError as error:
            self.close()
            hint = "ls -l /dev/log" if self._path else f"openssl s_client -connect {self._host}:{self._port}"
            msg = f"{self._path or self._host}: {_why(error)}"
            raise SinkError(msg, hint=hint) from None

    def close(self) -> None:
        """See ``Speaker``."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connected(self) -> socket.socket:
        if self._path:
            try:
                return _unix(self._path, socket.SOCK_DGRAM)
            except OSError as error:
                if error.errno != errno.EPROTOTYPE:
                    raise
                self._counted = True
                return _unix(self._path, socket.SOCK_STREAM)
        ca_file = self._config.ca_file
        context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
        raw = socket.create_connection((self._host, self._port), timeout=DEADLINE)
        try:
            return context.wrap_socket(raw, server_hostname=self._host)
        except OSError:
            raw.close()
            raise


def syslog_message(message: Message, *, host: str) -> bytes:
    """Return a message of RFC 5424: facility 13 (log audit), notice, the record's own time, no structured data."""
    name = "".join(each for each in host if "!" <= each <= "~")[:255] or "-"
    head = f"<{_AUDIT + _NOTICE}>1 {message.time} {name} mcp-broker {os.getpid()} {message.event[:_LONGEST_ID]} - "
    return head.encode("ascii", "replace") + message.text


def _require_open(sock: socket.socket) -> None:
    """Notice that the other end has hung up, before anything is sent to nobody."""
    sock.settimeout(0)
    try:
        if sock.recv(1024) == b"":
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
    except (BlockingIOError, ssl.SSLWantReadError):
        pass
    finally:
        sock.settimeout(DEADLINE)


def _until_acknowledged(sock: socket.socket) -> None:
    """Wait until nothing that was sent is on its way any more: a connection that breaks loses what was."""
    end = time.monotonic() + DEADLINE
    pause = 0.0005
    while time.monotonic() < end:
        left = struct.unpack("i", fcntl.ioctl(sock.fileno(), _SIOCOUTQ, bytes(4)))[0]
        if not left:
            return
        time.sleep(pause)
        pause = min(pause * 2, 0.05)
    raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))


@final
class Http:
    """One POST for some messages, one JSON object a line; any status of the 200s means that they were taken."""

    def __init__(self, config: SinkConfig) -> None:
        """Connect to nothing yet."""
        self._endpoint = Endpoint(
            config.address, ca_file=config.ca_file, token_file=config.token_file, deadline=DEADLINE
        )

    def send(self, messages: Sequence[Message]) -> None:
        """See ``Speaker``."""
        try:
            self._endpoint.post(b"".join(each.text + b"\n" for each in messages), "application/x-ndjson")
        except PostError as error:
            raise SinkError(error.detail, hint=error.hint) from None

    def close(self) -> None:
        """See ``Speaker``."""
        self._endpoint.close()
