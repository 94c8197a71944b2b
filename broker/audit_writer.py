"""
The audit log's files, as the one thread that writes them sees them.

Every method may block for as long as the disk does, so none is called from the
event loop. The caller owns the chain: it says after which acknowledged record
to go on, and a record counts only once the caller has taken the answer. This
module refuses to write again to a file that a write or a sync has failed on.
"""

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from stat import S_ISREG
from typing import Final, final

from broker import audit_pages
from broker.audit_files import Files
from broker.audit_home import Home, SegmentError
from broker.core import chain

__all__ = ["Journal", "SegmentError", "Written"]

_TAIL: Final = 1 << 20
_MEASURE: Final = 1 << 18
_NEW: Final = "audit.jsonl.new"


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """
    What is on disk now.

    Attributes:
        head: the last record.
        size: bytes in the current segment.
        free: bytes that the disk still has room for.
        segment: the number of the current segment.
        since: when it began (Unix seconds).
        began: whether ``head`` is its first record.
        found: the last record that was there before this broker, where this is its start.
        damaged: what does not verify in the records that were there before, for a person; empty where all does.

    """

    head: chain.Head
    size: int
    free: int
    segment: int = 0
    since: float = 0.0
    began: bool = False
    found: chain.Head | None = None
    damaged: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What an earlier broker left: where its chain ends, in which segment, and why a new one has to begin, if so."""

    head: chain.Head
    segment: int
    why: str
    detail: str = ""
    cut: bytes = b""
    began: str = ""

    @property
    def fields(self) -> dict[str, object]:
        """Return what the next segment's first record says of it."""
        said: dict[str, object] = {"detail": self.detail or None}
        return said | ({"cut_bytes": len(self.cut), "cut_sha256": sha256(self.cut).hexdigest()} if self.cut else {})


@final
class Journal:
    """The files of one audit log. One thread at a time."""

    def __init__(self, directory: Path, *, files: Files, clock: Callable[[], float]) -> None:
        """Touch nothing yet."""
        self._home = Home(directory, files=files)
        self._directory = directory
        self._files = files
        self._clock = clock
        self._current = directory / chain.CURRENT
        self._descriptor: int | None = None
        self._identity = (0, 0)
        self._size = self._measured = self._free = 0
        self._segment = 0
        self._since = 0.0
        self._produced: chain.Head | None = None
        self._unacknowledged = 0
        self._doubted = False

    @property
    def key(self) -> bytes | None:
        """Return the key for fingerprints, once it is known."""
        return self._home.key

    def start(self) -> Written:
        """
        Find what is there and get ready to go on after its last good record.

        Raises:
            SegmentError: it cannot be written to. Calling again is how to find out that it can.

        """
        try:
            self._home.prepare()
            found = self._find()
            self._unacknowledged = 0
            if not found.why:
                self._adopt(found)
                self._doubted = True
                written = self.append(found.head, [chain.body(self._clock(), chain.OPENED, {})])
                self._doubted = False
                return replace(written, found=found.head)
            self._segment = found.segment
            written = self._begin(found.head, found.why, found.fields)
            if found.cut:
                self._cut(len(found.cut))
        except OSError as error:
            raise self._failed(error) from None
        return replace(written, found=found.head, damaged=found.detail if found.why == "damaged" else "")

    def resume(self, head: chain.Head, why: str, fields: Mapping[str, object]) -> Written:
        """Begin a new segment after ``head``, the last record that the caller acknowledged."""
        try:
            self._home.prepare()
            return self._begin(head, why, fields)
        except OSError as error:
            raise self._failed(error) from None

    def roll(self, head: chain.Head) -> Written:
        """Begin a new segment because this one is long enough; where that fails, stay with this one."""
        try:
            return self._begin(head, "size", {})
        except OSError:
            return self._written(head)

    def append(self, head: chain.Head, records: Sequence[bytes]) -> Written:
        """
        Write records (of ``chain.body``) after ``head`` and wait until they are on the disk.

        Raises:
            SegmentError: they may or may not be. The file must not be written to again.

        """
        if self._descriptor is None:
            raise self._failed(OSError(errno.EBADF, os.strerror(errno.EBADF)))
        self._acknowledge(head)
        text, head = chain.extend(head, records)
        self._unacknowledged += len(records)
        try:
            self._write(self._descriptor, text)
            self._size += len(text)
            if self._size - self._measured > _MEASURE:
                self._measure()
        except OSError as error:
            raise self._failed(error) from None
        self._look()
        self._produced = head
        return self._written(head)

    def inspect(self, head: chain.Head) -> Written:
        """Make sure that the file which readers see is still the one that is written to, as it was left."""
        self._look()
        try:
            self._measure()
        except OSError as error:
            raise self._failed(error) from None
        return self._written(head)

    def close(self) -> None:
        """Let go of the files and of the lock."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self._home.close()

    # -- the current segment -------------------------------------------------

    def _written(self, head: chain.Head) -> Written:
        return Written(head=head, size=self._size, free=self._free, segment=self._segment, since=self._since)

    def _write(self, descriptor: int, text: bytes) -> None:
        """Write all of it and sync, or raise: a disk that took a part has an error that it has not told yet."""
        taken = self._files.write(descriptor, text)
        if taken != len(text):
            raise OSError(errno.ENOSPC, f"the disk took {taken} of {len(text)} bytes")
        self._files.sync(descriptor)

    def _measure(self) -> None:
        self._measured = self._size
        self._free = self._files.free(self._directory)

    def _acknowledge(self, head: chain.Head) -> None:
        """Learn whether the caller took the last answer: it goes on after it, or after what was before."""
        if head == self._produced:
            self._unacknowledged = 0
        self._produced = None

    def _look(self) -> None:
        """
        Compare the file at the current name with the one that was written to.

        Raises:
            SegmentError: it is gone, another, shorter or longer.

        """
        try:
            seen = self._files.stat(self._current)
        except FileNotFoundError:
            detail = "the current segment is gone"
            raise self._lost(detail, why="missing") from None
        except OSError as error:
            raise self._failed(error) from None
        if (seen.st_dev, seen.st_ino) != self._identity:
            detail = "another file stands in the place of the current segment"
            raise self._lost(detail, why="replaced")
        if seen.st_size != self._size:
            detail = f"the current segment has {seen.st_size} bytes and was left with {self._size}"
            raise self._lost(detail, why="truncated" if seen.st_size < self._size else "appended")

    def _begin(self, head: chain.Head, why: str, fields: Mapping[str, object]) -> Written:
        """
        Write the first record of a new segment, then put it in the place of the current one.

        The new file is complete and on the disk before any name changes, so
        that a disk with no room for it leaves everything as it was.
        """
        self._acknowledge(head)
        keep, number = self._numbers()
        said = {"format": chain.FORMAT, "segment": number, "why": why, "unacknowledged": self._unacknowledged}
        now = self._clock()
        text, after = chain.extend(head, [chain.body(now, chain.SEGMENT, said | dict(fields))])
        new = self._directory / _NEW
        new.unlink(missing_ok=True)
        descriptor = self._files.create(new)
        try:
            self._write(descriptor, text)
            seen = os.fstat(descriptor)
            free = self._files.free(self._directory)
            if keep is not None:
                self._files.rename(self._current, self._directory / keep)
            self._unacknowledged += 1
            self._files.rename(new, self._current)
            self._files.sync_directory(self._directory)
        except OSError:
            os.close(descriptor)
            raise
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = descriptor
        self._identity = (seen.st_dev, seen.st_ino)
        self._size = self._measured = len(text)
        self._free, self._segment, self._produced, self._since = free, number, after, now
        return replace(self._written(after), began=True)

    def _numbers(self) -> tuple[str | None, int]:
        """
        Return the name under which to keep what is at the current name, if anything is, and the next number.

        What is no file (a link, a directory) is kept too, but not as a segment: nobody should read on through it.
        """
        numbers = (chain.number_of(path.name) for path in self._directory.iterdir())
        highest = max((number for number in numbers if number is not None), default=0)
        own = self._segment if self._segment > highest else highest + 1
        try:
            kind = self._files.stat(self._current).st_mode
        except FileNotFoundError:
            return None, max(self._segment, highest) + 1
        return chain.archived(own) if S_ISREG(kind) else f"{chain.archived(own)}.no-file", own + 1

    # -- what is there at the start ------------------------------------------

    def _find(self) -> _Found:
        """Return where the chain ends, and why that segment cannot be gone on with, if it cannot."""
        names = chain.in_order(path.name for path in self._directory.iterdir())
        if not names and self._home.fresh:
            return _Found(head=chain.GENESIS, segment=0, why="first")
        if not names:
            detail = "there is a key for fingerprints and there are no records"
            return _Found(head=chain.GENESIS, segment=0, why="missing", detail=detail)
        segment, empty, cut = 0, "", b""
        for name in reversed(names):
            tail, first = self._tail(name)
            if name == names[-1]:
                cut = tail.torn
            number = chain.number_of(name)
            segment = max(segment, first.segment if first is not None and number is None else number or 0)
            if tail.head is not None:
                segment = max(segment, *(chain.number_of(other) or 0 for other in names))
                why, detail = self._judge(names[-1], empty, tail, first)
                # The number of a segment that is gone is not given to another: verification has to miss it.
                number, began = segment + (why == "missing"), first.time if first is not None else ""
                return _Found(head=tail.head, segment=number, why=why, detail=detail, cut=cut, began=began)
            empty = empty or f"{name} holds no record"
        return _Found(head=chain.GENESIS, segment=segment, why="damaged", detail=empty, cut=cut)

    def _judge(self, newest: str, empty: str, tail: chain.Tail, first: chain.SegmentLink | None) -> tuple[str, str]:
        """Return why a new segment has to begin, and what was seen; no reason where the newest one will do."""
        if empty or tail.broken:
            return "damaged", empty or tail.broken
        if first is None or first.format != chain.FORMAT:
            return "damaged", "the newest segment does not begin with a record that this version knows"
        if newest != chain.CURRENT:
            between = (self._directory / _NEW).exists()
            return ("restart", "") if between else ("missing", "there is no current segment")
        if tail.torn:
            return "torn", ""
        if self._doubted:
            return "error", "the newest segment could not be written to"
        return ("", "") if tail.event == chain.CLOSED else ("restart", "")

    def _tail(self, name: str) -> tuple[chain.Tail, chain.SegmentLink | None]:
        """Read the end of a segment, and its first record. What is no file holds none."""
        path = self._directory / name
        if not S_ISREG(self._files.stat(path).st_mode):
            return chain.last_good(b"", whole=True), None
        start, end, whole = audit_pages.ends(path, most=_TAIL)
        first, newline, _ = start.partition(b"\n")
        return chain.last_good(end, whole=whole), chain.read_segment(first) if newline else None

    def _adopt(self, found: _Found) -> None:
        """Go on in the segment that is there."""
        descriptor = self._files.append_to(self._current)
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = descriptor
        os.fchmod(descriptor, 0o600)
        seen = os.fstat(descriptor)
        self._identity = (seen.st_dev, seen.st_ino)
        self._size, self._segment, self._since = seen.st_size, found.segment, chain.moment(found.began)
        self._measure()

    def _cut(self, length: int) -> None:
        """
        Cut a torn line off the segment before this one.

        The first record of this one already tells its length and its hash; where
        cutting fails, verification finds the torn line as it was told.
        """
        path = self._directory / chain.archived(self._segment - 1)
        try:
            os.truncate(path, path.stat().st_size - length)
        except OSError:
            return

    # -- errors --------------------------------------------------------------

    def _failed(self, error: OSError) -> SegmentError:
        reason = (error.strerror or type(error).__name__).lower()
        return SegmentError(reason, hint=f"df -h {self._directory}; ls -ld {self._directory}")

    def _lost(self, detail: str, *, why: str) -> SegmentError:
        return SegmentError(detail, why=why, hint="mcp-broker audit verify")
