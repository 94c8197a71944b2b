"""
Where a connection comes in: attested, counted, and its dialect found out by the first byte.

``{`` begins the line dialect, a capital letter HTTP. HTTP needs a library that
takes a third of a second to load, so it is loaded, on a thread, when the first
such connection comes. One bad client harms no other: connections are counted
per uid, and one that stops in the middle of a request, or does not read its
answers, is closed.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from broker.api import lines, plain_http
from broker.api.answer import unexpected
from broker.api.lines import Lines
from broker.api.verbs import Verb
from broker.api.workload import Caller
from broker.attest import Peer
from broker.errors import AttestationError, BrokerError, DeniedError, RateLimitedError, RequestError
from broker.running import Running

if TYPE_CHECKING:
    from broker.api.http import HttpDialect

_log: Final = logging.getLogger("mcp_broker.door")

STALLED_AFTER: Final = 30.0
"""Seconds that a connection may stop in the middle of a request, leave its answers unread, or say nothing at first."""

MOST_TURNED_AWAY: Final = 64
"""Connections that wait to be told why they are not let in; more are closed at once, because nothing counts them."""

JUST_COME: Final = 1.0
"""Seconds in which who has connected says something, and in which most requests are answered."""

_WRITE_HIGH: Final = 256 * 1024
_LINE_STARTS: Final = frozenset(b"{[ \t\r\n")


class Entrance:
    """One listening socket: what is known there, and who has come in."""

    def __init__(
        self,
        name: str,
        running: Running,
        verbs: Mapping[str, Verb],
        *,
        owners: frozenset[int] | None = None,
        most: int = 1 << 62,
        stalled_after: float = STALLED_AFTER,
    ) -> None:
        """
        Make the entrance of one socket.

        Args:
            name: of the socket, for counts and logs.
            running: what answers.
            verbs: what may be asked here.
            owners: the only uids that are let in, or None for all that the socket's mode lets connect.
            most: connections that there may be in all. One user can have many uids, and what all of them
                have together must not take the descriptors that the admin's socket needs.
            stalled_after: seconds; see ``STALLED_AFTER``.

        """
        self.name = name
        self.running = running
        self.verbs = verbs
        self.stalled_after = stalled_after
        self.turned_away = 0
        self._owners = owners
        self._most = most
        self._doors: set[Door] = set()
        self._uids: dict[int, int] = {}
        self._http: asyncio.Task[HttpDialect] | None = None

    def protocol(self) -> asyncio.Protocol:
        """Return a new door, for the event loop to connect."""
        return Door(self)

    def __len__(self) -> int:
        """Return how many connections there are."""
        return len(self._doors)

    def admit(self, door: "Door", peer: Peer) -> None:
        """Let a workload in, or raise ``RateLimitedError`` or ``DeniedError``."""
        uid = peer.workload.uid
        if self._owners is not None and uid not in self._owners:
            message = "this socket is for admins"
            raise DeniedError(message, hint="ask an admin, or use broker.sock")
        most = self.running.service.policy.limits.connections
        if most and self._uids.get(uid, 0) >= most:
            message = f"uid {uid} has {most} connections, which is the limit"
            raise RateLimitedError(message, hint="close some; [limits] connections = N in the config")
        if len(self._doors) >= self._most:
            message = f"the broker has {self._most} connections, which is all that it can"
            raise RateLimitedError(message, hint="ask again later, or raise LimitNOFILE of the broker's unit")
        self._uids[uid] = self._uids.get(uid, 0) + 1
        self._doors.add(door)
        self.running.connections[self.name] = len(self._doors)

    def left(self, door: "Door", peer: Peer) -> None:
        """Know that a workload that was let in is gone."""
        uid = peer.workload.uid
        self._uids[uid] -= 1
        if not self._uids[uid]:
            del self._uids[uid]
        self._doors.discard(door)
        self.running.connections[self.name] = len(self._doors)

    @property
    def busy(self) -> bool:
        """Return whether somebody waits for an answer, or has just come and is about to ask."""
        return any(door.busy for door in self._doors)

    def slow(self, now: float) -> bool:
        """Return whether a request takes long, as one that has something minted; ``now`` is monotonic seconds."""
        return any(door.asking_since is not None and now - door.asking_since > JUST_COME for door in self._doors)

    def sweep(self, now: float) -> None:
        """Close what has stalled; ``now`` is monotonic seconds."""
        for door in tuple(self._doors):
            door.sweep(now)

    async def http(self) -> "HttpDialect":
        """Return the HTTP dialect, loaded once, off the loop."""
        if self._http is None or (self._http.done() and self._http.exception() is not None):
            self._http = asyncio.create_task(self._load_http())
        return await asyncio.shield(self._http)

    async def _load_http(self) -> "HttpDialect":
        def load() -> "type[HttpDialect]":
            from broker.api.http import HttpDialect  # noqa: PLC0415 -- loaded when it is first needed

            return HttpDialect

        dialect = await asyncio.to_thread(load)
        return dialect(self.verbs)

    async def close(self) -> None:
        """Close every connection."""
        for door in tuple(self._doors):
            door.abort()
        if self._http is not None:
            with contextlib.suppress(Exception):  # it could not be loaded, and who asked for it was told
                await (await self._http).close()


class Door(asyncio.Protocol):
    """One connection, from its first byte until its dialect has taken over."""

    def __init__(self, entrance: Entrance) -> None:
        """Wait for a connection."""
        self._entrance = entrance
        self._transport: Any = None
        self._peer: Peer | None = None
        self._caller: Caller | None = None
        self._refusal: BrokerError | None = None
        self._lines: Lines | None = None
        self._http: Any = None
        self._first = b""
        self._since = time.monotonic()
        self._full_since: float | None = None
        self._loading: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask the kernel who it is. Nothing may be raised here: a failure must not reach the listener."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH)
        peer: Peer | None = None
        try:
            peer = self._entrance.running.attestor.attest(self._transport.get_extra_info("socket"))
            self._entrance.admit(self, peer)
            self._peer = peer
            self._caller = Caller(self._entrance.running, peer)
        except BrokerError as error:
            self._turn_away(peer, error)
        except Exception as error:  # noqa: BLE001 -- see above
            _log.error("a connection could not be attested: %s", type(error).__name__)  # no text: it may hold anything
            self._turn_away(peer, AttestationError("the kernel does not say who connected"))

    def _turn_away(self, peer: Peer | None, error: BrokerError) -> None:
        self._entrance.running.refusals.unattested(None if peer is None else peer.workload, error)
        self._refusal = error
        if peer is not None:
            peer.close()
        self._entrance.turned_away += 1
        if self._entrance.turned_away > MOST_TURNED_AWAY:
            self._transport.abort()
        # The answer waits for the first byte, which says in which dialect; a silent one is closed soon.
        asyncio.get_running_loop().call_later(1.0, self._transport.close)

    def data_received(self, data: bytes) -> None:
        """Take what has arrived, and find out the dialect if that is not known yet."""
        if self._lines is not None:
            self._lines.feed(data)
        elif self._http is not None:
            self._http.data_received(data)
        else:
            self._begin(data)

    def _begin(self, data: bytes) -> None:
        is_http = not self._first and data[0] not in _LINE_STARTS and 65 <= data[0] <= 90  # noqa: PLR2004 -- A to Z
        if self._refusal is not None:
            self._transport.write(_http_refusal(self._refusal) if is_http else lines.refusal(self._refusal))
            self._transport.close()
        elif self._loading is not None:
            self._first += data
        elif is_http:
            self._first = data
            self._transport.pause_reading()
            self._loading = asyncio.get_running_loop().create_task(self._speak_http())
        elif data[0] in _LINE_STARTS:
            assert self._caller is not None
            self._lines = Lines(self._caller, self._entrance.verbs, self._transport)
            self._lines.feed(data)
        else:
            error = RequestError("this is neither JSON-RPC nor HTTP", hint="see docs/socket.md for both dialects")
            self._transport.write(lines.refusal(error))
            self._transport.close()

    async def _speak_http(self) -> None:
        try:
            dialect = await self._entrance.http()
        except BrokerError as error:
            self._transport.write(_http_refusal(error))
            self._transport.close()
            return
        except Exception as error:  # noqa: BLE001 -- whatever keeps it from loading, the client must not wait for ever
            self._transport.write(_http_refusal(unexpected(error, "the HTTP dialect")))
            self._transport.close()
            return
        if self._transport.is_closing() or self._caller is None:
            return
        self._http = dialect.connection(self._caller, self._transport)
        self._transport.resume_reading()
        self._http.data_received(self._first)
        self._first = b""

    def eof_received(self) -> bool:
        """Keep a line connection open for answers that are under way; HTTP decides for itself."""
        if self._http is not None:
            return bool(self._http.eof_received())
        return self._lines is not None and self._lines.eof()

    def pause_writing(self) -> None:
        """Know that the peer does not read."""
        self._full_since = time.monotonic()
        if self._lines is not None:
            self._lines.full(full=True)
        elif self._http is not None:
            self._http.pause_writing()

    def resume_writing(self) -> None:
        """Know that the peer reads again."""
        self._full_since = None
        if self._lines is not None:
            self._lines.full(full=False)
        elif self._http is not None:
            self._http.resume_writing()

    @property
    def asking_since(self) -> float | None:
        """Return since when a request is worked on; who only watches does not wait for an answer."""
        return None if self._caller is None or self._caller.watching else self._caller.busy_since

    @property
    def busy(self) -> bool:
        """Return whether the other side waits for an answer, or has just come."""
        if self._lines is None and self._http is None:
            return time.monotonic() - self._since < JUST_COME
        return self.asking_since is not None or self._transport.get_write_buffer_size() > 0

    def sweep(self, now: float) -> None:
        """Close the connection where it has stalled in the middle of something."""
        since = self._full_since
        if since is None and self._lines is not None:
            since = self._lines.partial_since
        if since is None and self._http is not None:
            since = self._http.waiting_since
        if self._lines is None and self._http is None:
            since = self._since
        if since is not None and now - since > self._entrance.stalled_after:
            self._transport.abort()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything that belongs to the connection."""
        if self._http is not None:
            self._http.connection_lost(exc)
        if self._refusal is not None:
            self._entrance.turned_away -= 1
        if self._peer is not None:
            self._entrance.left(self, self._peer)
        if self._caller is not None:
            self._caller.leave()


def _http_refusal(error: BrokerError) -> bytes:
    return plain_http.refusal(error)
