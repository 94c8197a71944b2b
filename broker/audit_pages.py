"""
The audit log's files, for reading: page by page, so that a long one is never in memory.

A segment has one name, compressed or not: ``audit-000003.jsonl``. Whoever reads
gets the bytes as they are and verifies them with ``broker.core.verification``:
this module refuses to judge them. A compressed file that is damaged ends where
it cannot be read; what is missing then shows in the chain.
"""

import gzip
import os
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, final

from broker.core import chain
from broker.core.checkpoint import FILE as CHECKPOINTS
from broker.errors import RequestError

Opened = BinaryIO | gzip.GzipFile
"""A segment that is being read, as it is or through the decompressor."""

_PIECE: Final = 1 << 20
_KEPT_OPEN: Final = 4
_TRAILER: Final = 8
_UNREADABLE: Final = (EOFError, zlib.error, gzip.BadGzipFile)


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentFile:
    """One file of the log and how long it is now, not compressed."""

    name: str
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Whole lines; ``next`` is the offset to go on at, ``end`` whether there are no more for now."""

    text: bytes
    next: int
    end: bool


def listed(directory: Path) -> list[SegmentFile]:
    """
    Return the segments, oldest first; none where there is no log yet.

    Raises:
        OSError: the directory cannot be read.

    """
    if not directory.exists():
        return []
    # A segment that is compressed meanwhile has one name or the other at each moment, and one look at the directory can
    # miss both. The second look begins when the first has ended.
    seen = {path.name.removesuffix(chain.PACKED) for _ in range(2) for path in directory.iterdir()}
    found = ((name, _length_of(directory, name)) for name in chain.in_order(seen))
    return [SegmentFile(name=name, length=length) for name, length in found if length is not None]


def _length_of(directory: Path, name: str) -> int | None:
    """Return how long a segment is, however it is stored; None where somebody has taken it away."""
    for stored in (name, f"{name}{chain.PACKED}"):
        try:
            return _length(directory / stored)
        except FileNotFoundError:
            continue
    return None


def _length(path: Path) -> int:
    """Return how long a segment is; of a compressed one, as long as it says itself."""
    size = path.stat().st_size
    if path.suffix != chain.PACKED:
        return size
    with path.open("rb") as file:
        file.seek(max(0, size - _TRAILER // 2))
        return int.from_bytes(file.read(_TRAILER // 2), "little")


def opened(directory: Path, name: str) -> Opened:
    """
    Open a segment, or the checkpoints, by its one name; a link is not followed.

    Raises:
        FileNotFoundError: there is none.
        OSError: it cannot be read.

    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        return os.fdopen(os.open(directory / name, flags), "rb")
    except FileNotFoundError:
        if name == CHECKPOINTS or chain.number_of(name) is None:
            raise
    raw = os.fdopen(os.open(directory / f"{name}{chain.PACKED}", flags), "rb")
    return _Unpacked(raw)


@final
class _Unpacked(gzip.GzipFile):
    """A compressed file that closes what it reads from."""

    def __init__(self, raw: BinaryIO) -> None:
        super().__init__(fileobj=raw, mode="rb")
        self._raw = raw

    def close(self) -> None:
        """Close both."""
        super().close()
        self._raw.close()


def _read(file: Opened, size: int) -> bytes:
    """Return so many bytes, fewer only at the end, which is where it cannot be read any more, too."""
    pieces: list[bytes] = []
    try:
        while size and (piece := file.read(size)):
            pieces.append(piece)
            size -= len(piece)
    except _UNREADABLE:
        pass
    return b"".join(pieces)


def _line(file: Opened) -> bytes:
    try:
        return file.readline(_PIECE)
    except _UNREADABLE:
        return b""


def ends(path: Path, *, most: int) -> tuple[bytes, bytes, bool]:
    """
    Return how a segment begins, its last ``most`` bytes, and whether these are all of it.

    Raises:
        OSError: it cannot be read.

    """
    name = path.name.removesuffix(chain.PACKED)
    with opened(path.parent, name) as file:
        if not path.name.endswith(chain.PACKED):
            start = file.read(1 << 14)
            length = os.fstat(file.fileno()).st_size
            file.seek(max(0, length - most))
            return start, file.read(min(length, most)), length <= most
        end = start = _read(file, _PIECE)
        length = len(start)
        while piece := _read(file, _PIECE):
            end = (end + piece)[-most:]
            length += len(piece)
        return start, end[-most:], length <= most


@final
class Pages:
    """The log in one directory. Any thread may ask; files that are read through stay open, so that it goes on fast."""

    def __init__(self, directory: Path) -> None:
        """Open nothing yet."""
        self.directory = directory
        self._open: OrderedDict[tuple[str, int], Opened] = OrderedDict()
        self._lock = threading.Lock()

    def segments(self) -> list[SegmentFile]:
        """Return the segments, oldest first; raises as ``listed``."""
        return listed(self.directory)

    def checkpoints(self) -> int | None:
        """Return how many bytes of checkpoints there are; None where there is no file of them."""
        try:
            return (self.directory / CHECKPOINTS).stat().st_size
        except OSError:
            return None

    def page(self, name: str, offset: int, limit: int) -> Page:
        """
        Return whole lines of a segment from ``offset`` on, about ``limit`` bytes of them.

        A line that is longer than that comes whole, and so does a torn last one
        when there is nothing else: what cannot be read by this cannot be verified.

        Raises:
            RequestError: there is no such segment.
            OSError: it cannot be read.

        """
        with self._at(name, offset) as (file, kept):
            text = _read(file, limit)
            over = len(text) < limit
            if not over and not text.endswith(b"\n"):
                text += _line(file)
            complete = text.rfind(b"\n") + 1
            if not complete:
                return Page(text=text, next=offset + len(text), end=over)
            if complete == len(text):
                kept.append(offset + complete)
            # What follows the last newline comes with the next page: alone, so that it is seen for what it is.
            return Page(text=text[:complete], next=offset + complete, end=over and complete == len(text))

    @contextmanager
    def _at(self, name: str, offset: int) -> Iterator[tuple[Opened, list[int]]]:
        """Give a file that stands at ``offset``; it stays open if the block says where it stands afterwards."""
        with self._lock:
            file = self._open.pop((name, offset), None)
        kept: list[int] = []
        try:
            if file is None:
                file = opened(self.directory, name)
                with suppress(EOFError, zlib.error, gzip.BadGzipFile):
                    file.seek(offset)
            yield file, kept
        except FileNotFoundError:
            message = f"there is no segment {name}"
            raise RequestError(message, hint="mcp-broker audit verify") from None
        finally:
            if file is not None:
                self._keep(name, file, kept)

    def _keep(self, name: str, file: Opened, kept: list[int]) -> None:
        """Keep a compressed file open that is being read through; a plain one is opened as fast as it is found."""
        if not kept or not isinstance(file, gzip.GzipFile):
            file.close()
            return
        with self._lock:
            self._open[name, kept[0]] = file
            dropped = self._open.popitem(last=False)[1] if len(self._open) > _KEPT_OPEN else None
        if dropped is not None:
            dropped.close()
