"""
The line dialect: JSON-RPC 2.0, one message a line, as MCP frames it.

Requests on one connection are answered as they are ready, in any order; ``id``
says which is which. A line that cannot be read gets an error and the
connection goes on, unless it is too long to be skipped.
"""

import asyncio
import sys
import time
from collections.abc import Coroutine, Mapping
from typing import Any, Final, Literal, Protocol

import msgspec

from broker.api.answer import answer
from broker.api.encode import Fault, encode, fault
from broker.api.messages import LeaseChanged
from broker.api.verbs import Verb
from broker.api.words import Result
from broker.api.workload import Caller
from broker.errors import BrokerError, RateLimitedError, RequestError

MOST_AT_ONCE: Final = 64
"""Requests of one connection that are worked on at the same time; more wait in its socket."""

MOST_A_TURN: Final = 16
"""Lines of one connection that are read before the others get their turn: a quarter of a megabyte holds thousands."""

_PARSE_ERROR: Final = -32700
_INVALID_REQUEST: Final = -32600
_METHOD_NOT_FOUND: Final = -32601
"""Numbers of JSON-RPC 2.0 for what is no request; their stable code is that of all bad requests."""

_FOR_EXAMPLE: Final = '{"jsonrpc":"2.0","id":1,"method":"whoami"}'

_NO_PARAMS: Final = msgspec.Raw(b"{}")

Id = int | str


class Request(msgspec.Struct, frozen=True):
    """One line that a client sends."""

    jsonrpc: Literal["2.0"]
    method: str
    id: Id | msgspec.UnsetType = msgspec.UNSET
    params: msgspec.Raw = _NO_PARAMS


class Answer(msgspec.Struct, frozen=True):
    """One line with a result."""

    id: Id
    result: Result
    jsonrpc: Literal["2.0"] = "2.0"


class Refusal(msgspec.Struct, frozen=True):
    """One line with an error; ``id`` is null where the request could not be read."""

    id: Id | None
    error: Fault
    jsonrpc: Literal["2.0"] = "2.0"


class Notification(msgspec.Struct, frozen=True):
    """One line that answers nothing."""

    method: str
    params: LeaseChanged
    jsonrpc: Literal["2.0"] = "2.0"


def started(work: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> "asyncio.Task[None]":
    """Return a task that has begun already where Python can do that (3.12), which saves it a turn of the loop."""
    if sys.version_info >= (3, 12):
        return asyncio.Task(work, loop=loop, eager_start=True)
    return loop.create_task(work)


_decode: Final = msgspec.json.Decoder(Request).decode


class Sink(Protocol):
    """The part of a transport that this dialect needs."""

    def write(self, data: bytes) -> None:
        """Send."""
        ...

    def close(self) -> None:
        """Send what is left and close."""
        ...

    def is_closing(self) -> bool:
        """Return whether nothing can be sent any more."""
        ...

    def pause_reading(self) -> None:
        """Read no more for now."""
        ...

    def resume_reading(self) -> None:
        """Read again."""
        ...


class Lines:
    """One connection that speaks the line dialect."""

    def __init__(self, caller: Caller, verbs: Mapping[str, Verb], transport: Sink) -> None:
        """Take over a connection whose peer is attested."""
        self._caller = caller
        self._verbs = verbs
        self._transport = transport
        self._limit = caller.running.service.policy.limits.message_bytes or 1 << 62
        self._buffer = bytearray()
        self._searched = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._full = False
        self._paused = False
        self._ended = False
        self._behind = False
        self._coming = False
        self.partial_since: float | None = None
        caller.notify = self._notify

    def feed(self, chunk: bytes) -> None:
        """Take what has arrived."""
        if not self._buffer and chunk.find(b"\n") == len(chunk) - 1 and len(chunk) <= self._limit:
            self._line(chunk)
        else:
            self._buffer += chunk
            self._split()
        self._throttle()

    def _split(self) -> None:
        """Take the lines that are whole, but not more than a few at once."""
        begin, left = 0, MOST_A_TURN
        while 0 <= (end := self._buffer.find(b"\n", max(begin, self._searched))) <= begin + self._limit:
            if not left or self._busy() or self._transport.is_closing():
                break
            self._line(bytes(self._buffer[begin:end]))
            begin, left = end + 1, left - 1
        self._behind = 0 <= end <= begin + self._limit
        del self._buffer[:begin]
        self._searched = 0 if self._behind else len(self._buffer)
        if len(self._buffer) > self._limit and not self._behind:
            too_long = RequestError(f"the line is longer than {self._limit} bytes")
            self._refuse(None, too_long, code=_INVALID_REQUEST)
            self._buffer.clear()
            self._transport.close()
        # What follows a whole line is the beginning of another one, however long that line took.
        since = None if begin else self.partial_since
        self.partial_since = None if self._behind or not self._buffer else since or time.monotonic()

    def _catch_up(self) -> None:
        """Take some more of the lines that had to wait."""
        self._coming = False
        self._split()
        self._throttle()
        self._close_when_done()

    def _line(self, line: bytes) -> None:
        if not line.strip():
            return
        try:
            request = _decode(line)
        except RecursionError:
            self._refuse_line(None, RequestError("the message is nested too deeply"), code=_PARSE_ERROR)
            return
        except msgspec.ValidationError as error:
            self._refuse_line(None, _not_a_request(line, error), code=_INVALID_REQUEST)
            return
        except (msgspec.MsgspecError, UnicodeDecodeError):
            unreadable = RequestError("the line is not JSON in UTF-8", hint=_FOR_EXAMPLE)
            self._refuse_line(None, unreadable, code=_PARSE_ERROR)
            return
        if isinstance(request.id, msgspec.UnsetType):
            return
        verb = self._verbs.get(request.method)
        if verb is None:
            unknown = RequestError("unknown method", hint=f"known: {', '.join(self._verbs)}")
            self._refuse_line(request.id, unknown, code=_METHOD_NOT_FOUND)
            return
        task = started(self._answer(verb, request.id, request.params), self._loop)
        if not task.done():
            self._tasks.add(task)

    def _refuse_line(self, request: Id | None, error: BrokerError, *, code: int | None = None) -> None:
        """Refuse what is no request; it counts like one, and who sends nothing else is hung up on."""
        workload = self._caller.peer.workload
        if self._caller.running.rate.take(workload.uid, time.monotonic()):
            self._refuse(request, error, code=code)
        else:
            self._refuse(None, RateLimitedError(f"uid {workload.uid} sends too much that cannot be read"))
            self._transport.close()

    async def _answer(self, verb: Verb, request: Id, params: msgspec.Raw) -> None:
        try:
            result = await answer(self._caller, verb, params)
        except BrokerError as error:
            self._refuse(request, error)
        else:
            if not self._transport.is_closing():
                self._transport.write(encode(Answer(request, result)) + b"\n")
        finally:
            # Not a callback of the task: that would cost each request another turn of the loop.
            self._tasks.discard(asyncio.current_task())
            if self._paused or self._ended:
                self._loop.call_soon(self._done)

    def _refuse(self, request: Id | None, error: BrokerError, *, code: int | None = None) -> None:
        said = fault(error)
        if code is not None:
            said = msgspec.structs.replace(said, code=code)
        if not self._transport.is_closing():
            self._transport.write(encode(Refusal(request, said)) + b"\n")

    def _notify(self, change: LeaseChanged) -> None:
        if not self._transport.is_closing():
            self._transport.write(encode(Notification("lease/changed", change)) + b"\n")

    def _done(self) -> None:
        self._throttle()
        self._close_when_done()

    def _close_when_done(self) -> None:
        if self._ended and not self._tasks and not self._behind:
            self._transport.close()

    def full(self, *, full: bool) -> None:
        """Know whether the peer reads what is sent; while it does not, nothing more is read from it."""
        self._full = full
        self._throttle()

    def _busy(self) -> bool:
        return self._full or len(self._tasks) >= MOST_AT_ONCE

    def _throttle(self) -> None:
        """Read no more than can be answered, and go on with what was read when it can."""
        if self._transport.is_closing():
            return
        busy = self._busy()
        if self._behind and not busy and not self._coming:
            self._coming = True
            self._loop.call_soon(self._catch_up)
        wanted = busy or self._behind
        if wanted == self._paused:
            return
        self._paused = wanted
        if wanted:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def eof(self) -> bool:
        """Know that nothing more will come; return whether answers are still under way."""
        self._ended = True
        return bool(self._tasks) or self._behind


def _not_a_request(line: bytes, error: msgspec.ValidationError) -> RequestError:
    if line.lstrip()[:1] == b"[":
        return RequestError("batches are not spoken here", hint="send one request a line")
    text = str(error)
    return RequestError(text[:1].lower() + text[1:], hint=_FOR_EXAMPLE)


def refusal(error: BrokerError) -> bytes:
    """Return the line that refuses a connection as a whole."""
    return encode(Refusal(None, fault(error))) + b"\n"
