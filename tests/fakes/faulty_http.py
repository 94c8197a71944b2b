"""
An HTTP server that counts what it is asked, and fails as it is told: on a port, with or without TLS, or on a socket.

What is answered comes from a function; how the answer gets lost on its way is decided here:

    with FaultyServer(answer) as server:
        server.fail(Cut(after=True), on="database/creds/", times=1)
        …
        assert 1 == server.count("database/creds/")

It runs on a thread of its own. This module refuses to know what a Vault is.
"""

import asyncio
import json
import re
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, assert_never

_LONGEST_HEAD: Final = 1 << 16
_WAITING_CONNECTIONS: Final = 4096
_STOP_AFTER: Final = 10.0

PROXY_PAGE: Final = b"<html><head><title>502 Bad Gateway</title></head><body>nginx: canary-of-a-proxy</body></html>"
"""What a proxy says that cannot reach what is behind it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """
    One request.

    Attributes:
        method: in capitals.
        target: the path with its query, as it was sent.
        headers: by their names in lower case.
        body: all of it.
        peer: the certificate that the client showed, DER, or None.

    """

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    peer: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One answer. ``Content-Length`` is added to the headers."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


Answer = Callable[[Asked], Awaitable[Said]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Say:
    """Answer this, and do nothing."""

    status: int
    errors: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    page: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Cut the connection: before anything is done, or after it is done and before it is answered."""

    after: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Half:
    """Do it, send half of the answer, and cut the connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Late:
    """Do it, and answer when so many seconds have passed."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Hang:
    """Do nothing, and never answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongLength:
    """Do it, and say that the answer is longer than it is by so many bytes, or shorter."""

    by: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lie:
    """Do it, and answer something else: what the function makes of the JSON of the answer."""

    change: Callable[[dict[str, Any]], object]


Fault = Say | Cut | Half | Late | Hang | WrongLength | Lie

PROXY: Final = Say(status=502, page=PROXY_PAGE, headers={"content-type": "text/html"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A fault, for the requests whose method and path match, so many times (None: always), after letting some pass."""

    fault: Fault
    on: re.Pattern[str]
    method: str | None
    times: int | None
    skip: int


@dataclass(slots=True, kw_only=True)
class Seen:
    """
    One request that came in.

    Attributes:
        method: in capitals.
        path: without ``/v1/`` and query.
        at: when, by the monotonic clock.
        token: what it said it was; never shown.
        status: of the answer; None as long as there is none, and where none ever came.

    """

    method: str
    path: str
    at: float
    token: str = field(repr=False)
    status: int | None = None


class FaultyServer:
    """
    A server for as long as it is entered.

    Attributes:
        seen: every request, in the order in which they came.
        most_at_once: how many requests were being answered at the same time at most.

    """

    def __init__(
        self, answer: Answer, *, tls: ssl.SSLContext | None = None, path: Path | None = None, port: int = 0
    ) -> None:
        """Prepare to listen at a port of 127.0.0.1 (0: any that is free), or at ``path``."""
        self.seen: list[Seen] = []
        self.most_at_once = 0
        self._answer = answer
        self._tls = tls
        self._path = path
        self._port = port
        self._rules: list[Rule] = []
        self._lock = threading.Lock()
        self._open: set[asyncio.Task[None]] = set()
        self._under_way: set[int] = set()
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._thread: threading.Thread | None = None
        self._last_things: list[Callable[[], Awaitable[None]]] = []

    # -- where it is, what it saw ---------------------------------------------

    @property
    def address(self) -> str:
        """Return where it listens, as a config says it."""
        if self._path is not None:
            return f"unix://{self._path}"
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    @property
    def port(self) -> int:
        """Return the port, once it listens."""
        return self._port

    def count(self, on: str = "", *, method: str | None = None, status: int | None = None) -> int:
        """Return how many requests came whose path matches the expression ``on`` from its start."""
        return len(self.requests(on, method=method, status=status))

    def requests(self, on: str = "", *, method: str | None = None, status: int | None = None) -> list[Seen]:
        """Return the requests that came whose path matches."""
        pattern = re.compile(on)
        return [
            each
            for each in list(self.seen)
            if pattern.match(each.path) and method in {None, each.method} and status in {None, each.status}
        ]

    def forget(self) -> None:
        """Begin counting anew."""
        self.seen.clear()
        self.most_at_once = 0
        # What is still late for somebody who has gone is not counted any more.
        self._under_way = set()

    # -- what it does wrong ---------------------------------------------------

    def fail(
        self, fault: Fault, *, on: str = "", method: str | None = None, times: int | None = None, skip: int = 0
    ) -> None:
        """Fail like this from now on where the path (without ``/v1/``) matches ``on`` from its start."""
        with self._lock:
            self._rules.append(Rule(fault=fault, on=re.compile(on), method=method, times=times, skip=skip))

    def mend(self) -> None:
        """Do everything right from now on."""
        with self._lock:
            self._rules.clear()

    @contextmanager
    def failing(self, fault: Fault, *, on: str = "", method: str | None = None) -> Iterator[None]:
        """Fail like this for as long as the block lasts."""
        self.fail(fault, on=on, method=method)
        try:
            yield
        finally:
            self.mend()

    def _fault(self, method: str, path: str) -> Fault | None:
        with self._lock:
            for number, rule in enumerate(self._rules):
                if not rule.on.match(path) or rule.method not in {None, method}:
                    continue
                if rule.skip:
                    self._rules[number] = replace(rule, skip=rule.skip - 1)
                    continue
                if rule.times is not None:
                    self._rules[number] = replace(rule, times=rule.times - 1)
                    self._rules[number : number + 1] = [r for r in self._rules[number : number + 1] if r.times]
                return rule.fault
        return None

    def at_the_end(self, close: Callable[[], Awaitable[None]]) -> None:
        """Have something closed on the server's own loop when it stops."""
        self._last_things.append(close)

    # -- its life -------------------------------------------------------------

    def __enter__(self) -> Self:
        """Listen."""
        listening = threading.Event()
        self._thread = threading.Thread(target=self._run, args=[listening], name="faulty-http", daemon=True)
        self._thread.start()
        if not listening.wait(_STOP_AFTER) or self._server is None:
            message = "the server does not listen"
            raise OSError(message)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, unless that has been done before."""
        self.stop()

    def stop(self) -> None:
        """Cut all connections, and listen no more."""
        assert self._thread is not None
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_STOP_AFTER)

    def _run(self, listening: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._listen())
        finally:
            listening.set()
        self._loop.run_forever()
        assert self._server is not None
        self._server.close()
        for task in self._open:
            task.cancel()
        with suppress(asyncio.CancelledError):
            self._loop.run_until_complete(asyncio.gather(*self._open, return_exceptions=True))
        for close in self._last_things:
            self._loop.run_until_complete(close())
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    async def _listen(self) -> None:
        if self._path is not None:
            self._server = await asyncio.start_unix_server(
                self._connected, self._path, limit=_LONGEST_HEAD, backlog=_WAITING_CONNECTIONS
            )
            return
        self._server = await asyncio.start_server(
            self._connected, "127.0.0.1", self._port, ssl=self._tls, limit=_LONGEST_HEAD, backlog=_WAITING_CONNECTIONS
        )
        self._port = self._server.sockets[0].getsockname()[1]

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._serve(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (asked := await read_request(reader, writer)) is not None:
                if not await self._one(asked, writer) or asked.headers.get("connection", "").lower() == "close":
                    break
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever asked has gone, or asks what nobody understands
        finally:
            if not writer.is_closing():
                writer.transport.abort()

    async def _one(self, asked: Asked, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; return whether the connection goes on."""
        path = asked.target.partition("?")[0].removeprefix("/v1/")
        token = asked.headers.get("x-vault-token", "")
        seen = Seen(method=asked.method, path=path, at=time.monotonic(), token=token)
        self.seen.append(seen)
        self._under_way.add(id(seen))
        self.most_at_once = max(self.most_at_once, len(self._under_way))
        try:
            return await self._with_fault(self._fault(asked.method, path), asked, seen, writer)
        finally:
            self._under_way.discard(id(seen))

    async def _with_fault(self, fault: Fault | None, asked: Asked, seen: Seen, writer: asyncio.StreamWriter) -> bool:  # noqa: C901
        said = Said(status=HTTPStatus.NO_CONTENT)
        if isinstance(fault, Hang):
            await asyncio.Event().wait()
        elif isinstance(fault, Say):
            said = _instead(fault)
        elif not (isinstance(fault, Cut) and not fault.after):
            said = await self._answer(asked)
        wrong = 0
        match fault:
            case None | Say():
                pass
            case Cut() | Hang():
                return False
            case Late(seconds=seconds):
                await asyncio.sleep(seconds)
            case WrongLength(by=wrong):
                pass
            case Lie(change=change):
                said = replace(said, body=json.dumps(change(json.loads(said.body or b"{}"))).encode())
            case Half():
                writer.write(encoded(said)[: -max(1, len(said.body) // 2)])
                await writer.drain()
                # Closed in order, so that what was sent arrives: an abort might throw it away.
                writer.close()
                return False
            case _:
                assert_never(fault)
        seen.status = said.status
        writer.write(encoded(said, wrong=wrong))
        await writer.drain()
        if wrong:
            writer.close()
        return not wrong


def _instead(fault: Say) -> Said:
    body = json.dumps({"errors": list(fault.errors)}).encode() if fault.page is None else fault.page
    return Said(status=fault.status, headers={"content-type": "application/json", **fault.headers}, body=body)


async def read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Asked | None:
    """Return the next request of a connection; None where there is none any more."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    method, target, _ = first.split(" ", 2)
    headers = {name.strip().lower(): text.strip() for name, _, text in (line.partition(":") for line in lines)}
    body = await _read_body(reader, headers)
    secured: ssl.SSLObject | None = writer.get_extra_info("ssl_object")
    peer = secured.getpeercert(binary_form=True) if secured is not None else None
    return Asked(method=method, target=target, headers=headers, body=body, peer=peer)


async def _read_body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    if "chunked" not in headers.get("transfer-encoding", ""):
        return await reader.readexactly(int(headers.get("content-length", "0")))
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readuntil(b"\r\n")
    return body


def encoded(said: Said, *, wrong: int = 0) -> bytes:
    """Return an answer as it goes over the wire, its length wrong by so many bytes."""
    empty = said.status == HTTPStatus.NO_CONTENT
    body = b"" if empty else said.body
    phrase = HTTPStatus(said.status).phrase if said.status in set(HTTPStatus) else "Odd"
    headers = {name: text for name, text in said.headers.items() if name.lower() != "content-length"}
    if not empty:
        headers["content-length"] = str(max(0, len(body) + wrong))
    lines = [f"HTTP/1.1 {said.status} {phrase}", *(f"{name}: {text}" for name, text in headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1") + body
