"""
The audit log's lines, from a broker or from a directory, page by page.

This module refuses to judge them, and to hold more than it has to show.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, Protocol, TypeVar

from broker.audit_pages import Page, Pages
from broker.client import Client
from broker.core import chain
from broker.core.verification import split
from broker.errors import RequestError, UnavailableError

Answer = TypeVar("Answer")

_PAGE: Final = 262144

PATIENCE: Final = 60.0
"""Seconds that a broker may be away, to be restarted, while its log is followed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One file of the log and how many bytes it has now."""

    name: str
    length: int


class Log(Protocol):
    """Where the lines come from."""

    def segments(self) -> list[Segment]:
        """Return the segments, oldest first."""
        ...

    def page(self, segment: str, offset: int) -> Page:
        """Return what stands in a segment from ``offset`` on. Raises ``RequestError`` where there is none."""
        ...

    def checkpoints(self) -> int | None:
        """Return how many bytes of checkpoints there are now; None where there is no file of them."""
        ...


class AskedLog:
    """The log of a running broker."""

    def __init__(self, client: Client) -> None:
        """Ask over ``client``, which is an admin's."""
        self._client = client

    def segments(self) -> list[Segment]:
        """Return the segments, oldest first."""
        found = self._client.call("audit/segments")["segments"]
        return [Segment(name=each["name"], length=each["bytes"]) for each in found]

    def page(self, segment: str, offset: int) -> Page:
        """Return what stands in a segment from ``offset`` on."""
        found = self._client.call("audit/read", segment=segment, offset=offset, limit=_PAGE)
        return Page(text=found["text"].encode(), next=found["next"], end=found["end"])

    def checkpoints(self) -> int | None:
        """Return how many bytes of checkpoints there are now; None where there is no file of them."""
        found: int | None = self._client.call("audit/segments")["checkpoints"]
        return found


class PatientLog:
    """The log of a broker that may be restarted meanwhile: it is waited for."""

    def __init__(
        self, log: Log, again: Callable[[], Log], *, tell: Callable[[str], None], patience: float = PATIENCE
    ) -> None:
        """
        Read ``log``, and when its broker has gone, the one that ``again`` returns.

        Args:
            log: where to begin.
            again: connects anew; raises ``UnavailableError`` where it cannot.
            tell: tells somebody that it waits, and that it waits no more.
            patience: seconds to wait.

        """
        self._log = log
        self._again = again
        self._tell = tell
        self._patience = patience

    def segments(self) -> list[Segment]:
        """Return the segments, oldest first."""
        return self._asked(lambda log: log.segments())

    def page(self, segment: str, offset: int) -> Page:
        """Return what stands in a segment from ``offset`` on."""
        return self._asked(lambda log: log.page(segment, offset))

    def checkpoints(self) -> int | None:
        """Return how many bytes of checkpoints there are now; None where there is no file of them."""
        return self._asked(lambda log: log.checkpoints())

    def _asked(self, question: Callable[[Log], Answer]) -> Answer:
        try:
            return question(self._log)
        except UnavailableError:
            self._tell(f"the broker has gone; waiting up to {self._patience:.0f} seconds for it to come back")
        until = time.monotonic() + self._patience
        while True:
            try:
                self._log = self._again()
                answer = question(self._log)
            except UnavailableError:
                if time.monotonic() >= until:
                    raise
                time.sleep(0.2)
            else:
                self._tell("the broker is back")
                return answer


class DirectoryLog:
    """The log in a directory: a copy, or that of a broker that does not run."""

    def __init__(self, directory: Path) -> None:
        """
        Read in ``directory``.

        Raises:
            RequestError: it cannot be read, or holds no log.

        """
        self._directory = directory
        self._pages = Pages(directory)
        if not self.segments():
            message = f"{directory} holds no audit log: there is no {chain.CURRENT} in it"
            raise RequestError(message, hint="mcp-broker audit verify --path DIR")

    def segments(self) -> list[Segment]:
        """Return the segments, oldest first."""
        try:
            return [Segment(name=each.name, length=each.length) for each in self._pages.segments()]
        except OSError as error:
            raise _unreadable(self._directory, error) from None

    def page(self, segment: str, offset: int) -> Page:
        """Return what stands in a segment from ``offset`` on."""
        try:
            return self._pages.page(segment, offset, _PAGE)
        except OSError as error:
            raise _unreadable(self._directory / segment, error) from None

    def checkpoints(self) -> int | None:
        """Return how many bytes of checkpoints there are now; None where there is no file of them."""
        return self._pages.checkpoints()


def _unreadable(path: Path, error: OSError) -> RequestError:
    return RequestError(f"{path}: {(error.strerror or 'cannot be read').lower()}", hint=f"ls -ld {path}")


def lines(log: Log) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Yield name and lines, with their newlines, of each segment, oldest first."""
    for segment in log.segments():
        yield segment.name, split(_pieces(log, segment.name))


def newest(
    log: Log, segments: Sequence[Segment], count: int, *, wanted: Callable[[bytes], bool] = lambda _: True
) -> list[bytes]:
    """Return the last ``count`` lines that are wanted, of what stood in the log when it had these segments."""
    found: list[bytes] = []
    for segment in reversed(segments):
        if len(found) < count:
            found = [*_end_of(log, segment, count - len(found), wanted), *found]
    return found


def _end_of(log: Log, segment: Segment, count: int, wanted: Callable[[bytes], bool]) -> list[bytes]:
    """Return the last ``count`` lines that are wanted of a segment, reading from its end as far as that takes."""
    window = _PAGE
    while True:
        start = max(0, segment.length - window)
        # What begins in the middle of a segment begins in the middle of a line.
        whole = islice(split(_pieces(log, segment.name, start, segment.length)), 1 if start else 0, None)
        found = deque(filter(wanted, whole), maxlen=count)
        if len(found) >= count or not start:
            return list(found)
        window *= 8


def written(log: Log, name: str, until: int) -> Iterator[bytes]:
    """Yield what stood in a file of the log when it had so many bytes."""
    return _pieces(log, name, 0, until)


def _pieces(log: Log, segment: str, offset: int = 0, until: int | None = None) -> Iterator[bytes]:
    while until is None or offset < until:
        page = log.page(segment, offset)
        yield page.text if until is None else page.text[: until - offset]
        if page.end or page.next == offset:
            return
        offset = page.next


def follow(
    log: Log, found: Sequence[Segment], *, pause: Callable[[], None] = lambda: time.sleep(0.5)
) -> Iterator[bytes]:
    """Yield each line that is written after the log had these segments, also in later ones, for ever."""
    offset = found[-1].length if found and found[-1].name == chain.CURRENT else 0
    earlier = _earlier(found)
    rest = b""
    while True:
        try:
            page = log.page(chain.CURRENT, offset)
        except RequestError:
            page = Page(text=b"", next=offset, end=True)  # it has just been given its number, or is broken
        now = _earlier(log.segments())
        if len(now) > len(earlier):
            # What was the current segment has a number now, and the page may be of the one after it.
            for segment in now[len(earlier) :]:
                yield from split(iter([rest, *_pieces(log, segment, offset)]))
                offset, rest = 0, b""
            earlier = now
            continue
        *whole, rest = (rest + page.text).split(b"\n")
        yield from (text + b"\n" for text in whole)
        offset = page.next
        if page.end:
            pause()


def _earlier(segments: Sequence[Segment]) -> list[str]:
    return [segment.name for segment in segments if segment.name != chain.CURRENT]
