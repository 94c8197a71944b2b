"""
Starting a server once, as a client would, to see what it answers with.

It speaks the older era of the protocol first, which nearly every server does,
and the newer one where that is refused (facts of both: the specification of
2025-11-25 and of 2026-07-28). It refuses to wait without a deadline, to show a
value that it was told of, and to leave the server running.
"""

import base64
import json
import os
import selectors
import signal
import subprocess
import time
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any, Final

from broker.errors import BrokerError

LEGACY: Final = "2025-11-25"
MODERN: Final = "2026-07-28"
WITHIN: Final = 90.0
"""Seconds for all of it: npx and uvx download a server when it is first started."""

LONGEST: Final = 10 * 1024 * 1024
"""Bytes of one line, as the SDKs have it."""

MARK: Final = "[hidden]"
_PAGES: Final = 50
_END_WITHIN: Final = 2.0
_SAID_LINES: Final = 12
_NAME: Final = 80
_ABOUT: Final = {"name": "mcp-broker", "version": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """
    What a server answered with.

    Attributes:
        name: what it calls itself.
        version: of the protocol.
        tools: their names.

    """

    name: str
    version: str
    tools: Sequence[str]


class TrialError(BrokerError):
    """
    The server did not answer as one does.

    Attributes:
        said: the last lines that it wrote to stderr, cleaned.

    """

    code = "unavailable"

    def __init__(self, message: str, *, hint: str | None, said: Sequence[str] = ()) -> None:
        """Say what is wrong, what mends it, and what the server said of it."""
        super().__init__(message, hint=hint)
        self.said = tuple(said)


class _AnswerError(Exception):
    """The server answered with an error; ``error`` is the object."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__()
        self.error = error


def attempt(words: Sequence[str], values: Iterable[str], *, within: float = WITHIN) -> Answered:
    """
    Start a command, ask what it is and which tools it has, and end it.

    Args:
        words: the command.
        values: what must not be shown of what it says.
        within: seconds for all of it.

    Raises:
        TrialError: it did not answer.

    """
    hidden = _forms(values)
    # In memory: what it says may hold a value, which belongs on no disk.
    with os.fdopen(os.memfd_create("said", os.MFD_CLOEXEC), "w+b") as said:
        server = subprocess.Popen(  # noqa: S603 - our own command
            list(words), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, start_new_session=True
        )
        try:
            return _asked(_Session(server, time.monotonic() + within), hidden)
        except _AnswerError as refused:
            message, hint = _told(refused.error, hidden)
            raise TrialError(message, hint=hint, said=_last(said, hidden)) from None
        except TrialError as error:
            raise TrialError(error.message, hint=error.hint, said=_last(said, hidden)) from None
        finally:
            _end(server)


def cleaned(text: str, hidden: Sequence[str]) -> str:
    """Return text without the forms of a value, fit for one line."""
    for form in hidden:
        text = text.replace(form, MARK)
    return " ".join(text.split())


class _Session:
    """One request at a time, to a deadline."""

    def __init__(self, server: subprocess.Popen[bytes], until: float) -> None:
        assert server.stdin is not None
        assert server.stdout is not None
        self._server = server
        self._to: IO[bytes] = server.stdin
        self._from: IO[bytes] = server.stdout
        self._until = until
        self._rest = b""
        self._number = 0
        os.set_blocking(self._from.fileno(), False)

    def ask(self, method: str, params: Mapping[str, object]) -> dict[str, Any]:
        self._number += 1
        self.tell({"id": self._number, "method": method, "params": params})
        while True:
            message = self._message()
            if "method" in message and "id" in message:
                # A question of the server's, such as for roots: it must not wait for us.
                self.tell({"id": message["id"], "error": {"code": -32601, "message": "not here"}})
            elif message.get("id") == self._number and "method" not in message:
                error, result = message.get("error"), message.get("result")
                if isinstance(error, dict):
                    raise _AnswerError(error)
                return result if isinstance(result, dict) else {}

    def tell(self, message: Mapping[str, object]) -> None:
        line = json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n"
        try:
            self._to.write(line)
            self._to.flush()
        except OSError:
            raise self._ended() from None

    def _message(self) -> dict[str, Any]:
        while True:
            line, end, rest = self._rest.partition(b"\n")
            if not end:
                self._read()
                continue
            self._rest = rest
            try:
                message = json.loads(line)
            except (ValueError, RecursionError):
                continue  # what does not belong there: clients pass over it, too
            if isinstance(message, dict):
                return message

    def _read(self) -> None:
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._from, selectors.EVENT_READ)
            ready = waiting.select(max(0.0, self._until - time.monotonic()))
        piece = os.read(self._from.fileno(), 262144) if ready else None
        if piece is None:
            message = "the server did not answer in time"
            raise TrialError(message, hint="start its command by hand, and see what it waits for")
        if not piece:
            raise self._ended()
        self._rest += piece
        if len(self._rest) > LONGEST:
            message = "the server writes something that is not MCP"
            raise TrialError(message, hint="does its command need another argument, such as stdio?")

    def _ended(self) -> TrialError:
        try:
            status = self._server.wait(_END_WITHIN)
        except subprocess.TimeoutExpired:
            ended = "closed its output"
        else:
            ended = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        message = f"the server {ended} before it answered"
        return TrialError(message, hint="start its command by hand, and see what it says")


def _asked(session: _Session, hidden: Sequence[str]) -> Answered:
    begin = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": _ABOUT}
    meta: dict[str, object] = {}
    try:
        about = session.ask("initialize", begin)
        version = about.get("protocolVersion")
        session.tell({"method": "notifications/initialized"})
    except _AnswerError as refused:
        if _is_ours(refused.error):
            raise
        inside = {"protocolVersion": MODERN, "clientCapabilities": {}, "clientInfo": _ABOUT}
        meta = {"_meta": {f"io.modelcontextprotocol/{name}": value for name, value in inside.items()}}
        about, version = session.ask("server/discover", meta), MODERN
    who = about.get("serverInfo")
    name = who.get("name") if isinstance(who, dict) else None
    tools = _tools(session, meta) if "tools" in (about.get("capabilities") or {}) else []
    return Answered(
        name=_short(name, hidden), version=_short(version, hidden), tools=[_short(one, hidden) for one in tools]
    )


def _tools(session: _Session, meta: Mapping[str, object]) -> list[object]:
    found: list[object] = []
    cursor: object = None
    for _ in range(_PAGES):
        page = session.ask("tools/list", {**meta, **({"cursor": cursor} if cursor is not None else {})})
        tools = page.get("tools")
        found += [one.get("name") for one in tools if isinstance(one, dict)] if isinstance(tools, list) else []
        cursor = page.get("nextCursor")
        if cursor is None:
            break
    return found


def _short(text: object, hidden: Sequence[str]) -> str:
    found = cleaned(text, hidden) if isinstance(text, str) else "?"
    return found if len(found) <= _NAME else f"{found[:_NAME]}…"


def _is_ours(error: Mapping[str, Any]) -> bool:
    """Return whether an error is that of our own command, which stayed in the place of the server."""
    return str(error.get("message", "")).startswith("mcp-broker cannot start")


def _told(error: Mapping[str, Any], hidden: Sequence[str]) -> tuple[str, str | None]:
    message = cleaned(str(error.get("message", "no reason given")), hidden)[:500]
    if _is_ours(error):
        more = error.get("data")
        hint = more.get("hint") if isinstance(more, dict) else None
        _, _, why = message.partition(". To mend it:")[0].partition("': ")
        return why or message, cleaned(str(hint), hidden) if hint else None
    return f"the server answered with an error: {message}", "start its command by hand, and see what it says"


def _last(said: IO[bytes], hidden: Sequence[str]) -> list[str]:
    """Return the last lines of what a server wrote to stderr."""
    said.seek(0, os.SEEK_END)
    said.seek(max(0, said.tell() - 65536))
    # Cleaned as a whole first: a value may hold an end of a line.
    text = said.read().decode("utf-8", "replace")
    for form in hidden:
        text = text.replace(form, MARK)
    lines = [cleaned(line, hidden)[:400] for line in text.splitlines()]
    return [line for line in lines if line][-_SAID_LINES:]


def _forms(values: Iterable[str]) -> list[str]:
    """Return the ways in which values may be written, the longest first."""
    found: set[str] = set()
    for value in values:
        once = json.dumps(value)[1:-1]
        found |= {value, value.strip(), once, json.dumps(once)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
        found |= {urllib.parse.quote(value), urllib.parse.quote(value, safe=""), urllib.parse.quote_plus(value)}
        found |= {repr(value)[1:-1], value.encode().hex(), value.encode().hex().upper()}
        found |= {line for line in value.splitlines() if len(line) >= 8}  # noqa: PLR2004 - shorter ones are everywhere
        for skipped in range(3):
            for encode in (base64.b64encode, base64.urlsafe_b64encode):
                text = encode(b"\0" * skipped + value.encode()).decode()
                found.add(text[4 if skipped else 0 : len(text) // 4 * 4 - 4])
                found.add(text)
    return sorted((one for one in found if len(one) > 2), key=len, reverse=True)  # noqa: PLR2004 - nothing is left then


def _end(server: subprocess.Popen[bytes]) -> None:
    """End a server as clients do: its input first, then by force; and what it started with it."""
    assert server.stdin is not None
    assert server.stdout is not None
    with suppress(OSError):  # it has gone
        server.stdin.close()
    for force in (signal.SIGTERM, signal.SIGKILL):
        try:
            server.wait(_END_WITHIN)
            break
        except subprocess.TimeoutExpired:
            _kill(server.pid, force)
    server.wait()
    _kill(server.pid, signal.SIGKILL)
    server.stdout.close()


def _kill(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # nobody is left
        os.killpg(group, number)
