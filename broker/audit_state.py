"""
What the audit log knows of itself: how it behaves, how it is, what it still has to write.

This module refuses to touch a disk, a thread or a loop.
"""

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Final, Self

from broker.config.recording import AuditConfig
from broker.core import chain

OPENING: Final = "opening"
OK: Final = "ok"
DAMAGED: Final = "damaged"
FAILED: Final = "failed"
CLOSED: Final = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """
    How the log behaves.

    Attributes:
        deadline: seconds that a record may wait for the disk before it is refused.
        tick: seconds between two attempts to mend, and between two looks at the clock.
        patience: the most seconds between two attempts, on a disk that fails again and again soon after it was mended.
        look: seconds between two looks at the file while nothing is written.
        segment_bytes: the length at which a new segment begins.
        segment_age: seconds after which one begins that is not that long.
        reserve: bytes of disk kept for what must be recorded (``note``); with less than this, releases are refused.
        notes: how many records are kept in memory while the disk takes none.

    """

    deadline: float = 0.8
    tick: float = 0.25
    patience: float = 8.0
    look: float = 0.5
    segment_bytes: int = 64 << 20
    segment_age: float = math.inf
    reserve: int = 4 << 20
    notes: int = 32768

    @classmethod
    def of(cls, config: AuditConfig) -> Self:
        """Return how the log behaves by the config."""
        return cls(segment_bytes=config.segment_bytes, segment_age=config.segment_age)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditStatus:
    """
    How the log is, for ``status``.

    Attributes:
        state: ``opening``, ``ok``, ``damaged`` (it is written to, but what was there before does not verify),
            ``failed`` (everything is refused), ``closed``.
        detail: for a person; empty where all is well.
        hint: the command that shows or mends it.
        segment: the file that is written to.
        records: the number of the last record that is on the disk.
        waiting: how many records wait for the disk.
        noted: how many of those are kept because the disk takes none.
        lost: how many could not even be kept.

    """

    state: str
    detail: str
    hint: str | None
    segment: str
    records: int
    waiting: int
    noted: int
    lost: int

    @property
    def accepts(self) -> bool:
        """Return whether a record would be taken now."""
        return self.state in {OK, DAMAGED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """
    How far the log is acknowledged: to here, and no further, others may read it.

    Attributes:
        head: the last record.
        segment: the number of the current segment.
        size: its length in bytes.
        began: whether this is the first record of a segment.

    """

    head: chain.Head
    segment: int
    size: int
    began: bool


@dataclass(slots=True, kw_only=True)
class Outage:
    """
    Why nothing can be written.

    Attributes:
        why: what the first record of the next segment will say.
        detail: for a person.
        hint: the command that shows or mends it.
        since: when it began (Unix seconds).
        locked: whether another broker holds the log.
        refused: how many waited for the disk in vain.

    """

    why: str
    detail: str
    hint: str
    since: float
    locked: bool = False
    refused: int = 0

    @property
    def fields(self) -> dict[str, object]:
        """Return what the next segment's first record says of it."""
        return {"detail": self.detail, "since": self.since, "refused": self.refused}


@dataclass(slots=True, kw_only=True)
class Notes:
    """
    What has to be recorded and could not be yet, oldest first.

    Attributes:
        room: how many are kept; what comes when there is no more room is counted.
        kept: records of ``chain.body``, with the time at which they happened.
        lost: how many were only counted, and from when to when.

    """

    room: int
    kept: deque[bytes] = field(default_factory=deque)
    lost: int = 0
    first_lost: float = 0.0
    last_lost: float = 0.0

    def __len__(self) -> int:
        """Return how many were kept or counted."""
        return len(self.kept) + self.lost

    def keep(self, record: bytes, now: float) -> None:
        """Keep a record, or count it."""
        if len(self.kept) < self.room:
            self.kept.append(record)
            return
        self.first_lost = self.first_lost if self.lost else now
        self.last_lost = now
        self.lost += 1

    def take(self, now: float) -> list[bytes]:
        """Give up everything that was kept, and one record of what was only counted."""
        records = list(self.kept)
        self.kept.clear()
        if self.lost:
            lost = {"count": self.lost, "first": self.first_lost, "last": self.last_lost}
            records.append(chain.body(now, chain.LOST, lost))
            self.lost = 0
        return records
