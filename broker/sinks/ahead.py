"""
What a sink has not got yet, read from the log's files: nothing waits in memory, however long a sink is away.

Only what is acknowledged is read. This module refuses to skip a record; a
segment that somebody has taken away is passed over and counted.
"""

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from broker.audit_pages import Opened, listed, opened
from broker.audit_state import Mark
from broker.core import chain
from broker.core import checkpoint as c
from broker.sinks.cursor import Cursor

_BATCH: Final = 1 << 18
_FIRST_LINE: Final = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Some whole lines, and the position after them."""

    lines: list[bytes]
    segment: int
    offset: int
    record: int


@final
class Ahead:
    """Reads one log for one sink. One thread at a time."""

    def __init__(self, directory: Path, cursor: Cursor) -> None:
        """Go on at ``cursor``."""
        self._directory = directory
        self._file: Opened | None = None
        self._segment, self._offset, self._record = cursor.segment, cursor.offset, cursor.record
        self._notes_at = 0
        self.gone = 0
        """Segments that were not there any more, or could not be read, when it was their turn."""

    def checkpoints(self, after: int, up_to: int) -> Iterator[c.Signed]:
        """Yield the checkpoints with these numbers. Raises ``OSError``."""
        try:
            with opened(self._directory, c.FILE) as file:
                file.seek(self._notes_at)
                text = file.read()
        except FileNotFoundError:
            return
        for note in c.notes(text.splitlines(keepends=True)):
            found = c.read(note)
            if found is not None and after < found.checkpoint.number <= up_to:
                yield found

    def records(self, mark: Mark) -> Batch | None:
        """Return the next lines up to ``mark``, or None where there are none. Raises ``OSError``."""
        while True:
            if not self._segment and not self._begin(mark):
                return None
            end, last = self._bounds(mark)
            batch = self._read(end, last)
            if batch is not None or self._segment >= mark.segment:
                return batch
            self._enter(self._segment + 1)

    def took(self, batch: Batch) -> None:
        """Know that a batch has arrived: the next one comes after it."""
        self._segment, self._offset, self._record = batch.segment, batch.offset, batch.record

    def back(self) -> None:
        """Know that a batch has not arrived: it is read again."""
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _begin(self, mark: Mark) -> bool:
        names = [each.name for each in listed(self._directory)]
        if not names:
            return False
        self._enter(chain.number_of(names[0]) or mark.segment)
        return True

    def _enter(self, segment: int) -> None:
        self.close()
        self._segment, self._offset = segment, 0

    def _bounds(self, mark: Mark) -> tuple[int | None, int | None]:
        """Return where the acknowledged part of this segment ends: in bytes, or at a record."""
        if self._segment >= mark.segment:
            return mark.size, None
        following = self._first(self._segment + 1, mark)
        if following is None or not following.unacknowledged:
            return None, None
        return None, following.seq - 1

    def _first(self, segment: int, mark: Mark) -> chain.SegmentLink | None:
        try:
            with self._opened(segment, mark.segment) as file:
                return chain.read_segment(file.readline(_FIRST_LINE).rstrip(b"\n"))
        except FileNotFoundError:
            return None

    def _opened(self, segment: int, current: int) -> Opened:
        """Open a segment: the current one may be given its number while that is done."""
        if segment >= current:
            file = opened(self._directory, chain.CURRENT)
            first = chain.read_segment(file.readline(_FIRST_LINE).rstrip(b"\n"))
            if first is not None and first.segment == segment:
                file.seek(0)
                return file
            file.close()
        return opened(self._directory, chain.archived(segment))

    def _read(self, end: int | None, last: int | None) -> Batch | None:
        """Return whole lines from where this sink is; None at the end of what may be read of this segment."""
        if self._file is None:
            try:
                self._file = self._opened(self._segment, self._segment)
            except FileNotFoundError:
                self.gone += 1
                return None
            self._file.seek(self._offset)
        size = _BATCH if end is None else min(_BATCH, end - self._offset)
        try:
            text = self._file.read(size) if size > 0 else b""
            if size == _BATCH and text and not text.endswith(b"\n"):
                text += self._file.readline(_FIRST_LINE)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            self.gone += 1
            return None
        lines = text[: text.rfind(b"\n") + 1].splitlines(keepends=True)
        if last is not None:
            lines = [line for line in lines if (link := chain.read(line[:-1])) is None or link.seq <= last]
        if not lines:
            return None
        final_ = chain.read(lines[-1][:-1])
        length = sum(map(len, lines)) if last is None else len(text)
        if length != len(text):
            self.close()
        record = self._record if final_ is None else max(self._record, final_.seq)
        return Batch(lines=lines, segment=self._segment, offset=self._offset + length, record=record)
