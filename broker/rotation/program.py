"""
Running the admin's own program, one step at a time.

It gets an argument vector, an environment of a few harmless variables, and one
line of JSON on its standard input. Its standard output goes nowhere, and of its
standard error one line is kept, if nothing in it looks like part of a value. It
has a deadline, at which it ends with all that it started. While it runs it holds a lock,
so that a broker that was killed and is back does not start it twice at once.

This module refuses to use a shell, to pass a value in arguments or environment,
and to repeat what it cannot tell from a value.
"""

import asyncio
import base64
import contextlib
import fcntl
import json
import os
import signal
import urllib.parse
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Final

from backends.base import Secret
from broker.core.rotation import Step
from broker.errors import UnavailableError

DEADLINE: Final = 60.0
"""Seconds that the program has for one step."""

PASSED: Final = ("HOME", "USER", "LOGNAME", "PATH", "LANG", "LC_ALL", "TZ", "TMPDIR")
"""The variables of the broker that it gets, and no others."""

_MOST_SAID: Final = 8192
_MOST_SHOWN: Final = 200
_ENDS: Final = 2.0
"""Seconds for what is left of its output once it has ended."""

_PART: Final = 5
"""Characters of a value, or of a form of it, that make a line unfit to be repeated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """
    One step, as the program is told of it.

    Attributes:
        step: which.
        secret: the name of the secret in the config.
        token: the rotation's name, the same at each step and each attempt.
        current: the fields that are issued now; none where there is no secret yet.
        pending: the fields that are to be, or None where they are already.
        previous: for ``retire``, the fields that are to be worthless.
        public: fields that are no secret, because they stand in the config.

    """

    step: Step
    secret: str
    token: str
    current: Mapping[str, Secret]
    pending: Mapping[str, Secret] | None = None
    previous: Mapping[str, Secret] | None = None
    public: frozenset[str] = frozenset()

    def encoded(self) -> bytes:
        """Return the line of JSON."""
        said = {
            "step": self.step,
            "secret": self.secret,
            "current": _bare(self.current) or None,
            "pending": _bare(self.pending),
            "previous": _bare(self.previous),
            "token": self.token,
        }
        return json.dumps(said).encode() + b"\n"

    def values(self) -> list[str]:
        """Return every value in it that is a secret."""
        parts = [part for part in (self.current, self.pending, self.previous) if part]
        return [value.expose() for part in parts for field, value in part.items() if field not in self.public]


Run = Callable[[Sequence[str], Asked, Path], Awaitable[None]]
"""What ``run`` is: has a program do a step while it holds a lock."""


async def run(command: Sequence[str], asked: Asked, lock: Path, *, deadline: float = DEADLINE) -> None:
    """
    Have the program do one step.

    Raises:
        UnavailableError: it did not, or not in time, or an earlier run of it goes on.

    """
    name = Path(command[0]).name
    hint = f"mend it, then mcp-broker rotate {asked.secret} --resume"
    with _only_one(lock, name) as descriptor, _pipe() as (asks, tells), _pipe() as (hears, says):
        try:
            child = await asyncio.create_subprocess_exec(
                *command,
                stdin=asks,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=says,
                env={name: value for name in PASSED if (value := os.environ.get(name)) is not None},
                cwd="/",
                start_new_session=True,
                pass_fds=(descriptor,),
            )
        except (OSError, ValueError) as error:
            message = f"{name} cannot be started: {getattr(error, 'strerror', None) or type(error).__name__}"
            raise UnavailableError(message, hint=hint) from None
        asks.close()
        says.close()
        try:
            async with asyncio.timeout(deadline):
                status, said = await _talk(child, asked, tells, hears)
        except TimeoutError:
            message = f"{name} has not done the step {asked.step!r} in {deadline:g} seconds"
            raise UnavailableError(message, hint=hint) from None
        finally:
            await _end(child)
    if status:
        why = f"with status {status}" if status > 0 else f"by signal {-status}"
        shown = f": {line}" if (line := fit_to_show(said, asked.values())) else ""
        message = f"{name} ended {why} in the step {asked.step!r}{shown}"
        raise UnavailableError(message, hint=hint)


@contextlib.contextmanager
def _only_one(path: Path, name: str) -> Iterator[int]:
    """Hold the lock of one secret's program; the program holds it on, whatever becomes of us."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"an earlier run of {name} has not ended yet"
            raise UnavailableError(message, hint="mcp-broker status") from None
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[FileIO, FileIO]]:
    """
    Give both ends of a pipe.

    Of asyncio's own it is said that a program has not ended while anybody holds their
    other ends, and ours stay open for as long.
    """
    reads, writes = os.pipe()
    with FileIO(reads, "rb") as reading, FileIO(writes, "wb") as writing:
        yield reading, writing


async def _talk(child: asyncio.subprocess.Process, asked: Asked, tells: FileIO, hears: FileIO) -> tuple[int, bytes]:
    """Tell the program what to do; return its exit status and the beginning of what it wrote to standard error."""
    loop, stream = asyncio.get_running_loop(), asyncio.StreamReader()
    telling, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, tells)
    hearing, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), hears)
    reading = asyncio.ensure_future(_first(stream))
    try:
        # A program that does not read is judged by its exit status.
        telling.write(asked.encoded())
        telling.write_eof()
        status = await child.wait()
        # Whatever it started may hold its standard error open.
        await asyncio.wait([reading], timeout=_ENDS)
        return status, reading.result() if reading.done() else b""
    finally:
        reading.cancel()
        hearing.close()
        if telling.get_write_buffer_size():
            telling.abort()


async def _first(stream: asyncio.StreamReader) -> bytes:
    """Return the beginning of a stream, and read it to its end, so that nobody who writes has to wait."""
    found = b""
    while part := await stream.read(_MOST_SAID):
        found = (found + part)[:_MOST_SAID]
    return found


async def _end(child: asyncio.subprocess.Process) -> None:
    """End a program that has not ended, with all that is in its session."""
    if child.returncode is not None:
        # Its number may be somebody else's by now. What it left running holds the lock, and that is noticed.
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_ENDS):
            await child.wait()


def fit_to_show(said: bytes, values: Sequence[str]) -> str:
    """Return the last line of what a program wrote, or why it is not shown, or nothing where there is none."""
    text = said.decode("utf-8", "replace")
    if not text.strip():
        return ""
    parts = {part for value in values for form in _forms(value) for part in _parts(form)}
    if any(part in text for part in parts):
        return "(what it says is not shown: part of a value is in it)"
    line = text.strip().splitlines()[-1].strip()
    line = "".join(each if each.isprintable() else "?" for each in line)
    return line if len(line) <= _MOST_SHOWN else line[: _MOST_SHOWN - 1] + "…"


def _forms(value: str) -> Iterator[str]:
    """Yield a value in the forms in which programs print what they hold."""
    encoded = value.encode("utf-8", "surrogatepass")
    yield from (value, value[::-1], json.dumps(value)[1:-1], urllib.parse.quote(value, safe=""), encoded.hex())
    yield encoded.hex().upper()
    for shift in range(3):
        # What stands before a value moves it within the groups of three bytes; the edges depend on it.
        for coded in (base64.b64encode, base64.urlsafe_b64encode):
            yield coded(bytes(shift) + encoded).decode().rstrip("=")[(0, 2, 3)[shift] : -1]


def _parts(form: str) -> Iterator[str]:
    if len(form) <= _PART:
        yield from [form] if form else []
    for start in range(len(form) - _PART + 1):
        yield form[start : start + _PART]


def _bare(values: Mapping[str, Secret] | None) -> dict[str, str] | None:
    return None if values is None else {field: value.expose() for field, value in values.items()}
