"""
What verification remembers of the lines that it has read: the last few thousand, however long the log is.

This module refuses to judge them.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final, NamedTuple, final

from broker.core.chain import BATCH, Head

LONGEST: Final = 4 * BATCH
"""Records that are remembered: more than can be on the disk without having been acknowledged."""

Entry = tuple[str, int, str, int, int, int]
"""Hash, number, file, line, lines read with it, findings with it: a plain tuple, because one is made for each line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A line of a file, counted from 1."""

    name: str
    line: int

    def __str__(self) -> str:
        """Return it as editors and compilers have it."""
        return f"{self.name}:{self.line}"


class Step(NamedTuple):
    """
    One record of the chain.

    Attributes:
        digest: the hash of its line.
        seq: its number.
        name: the file it stands in.
        line: where in there.
        lines: how many lines had been read with it.
        found: how many findings there were with it.

    """

    digest: str
    seq: int
    name: str
    line: int
    lines: int
    found: int

    @property
    def head(self) -> Head:
        """Return the chain's end with it."""
        return Head(seq=self.seq, digest=self.digest)

    @property
    def place(self) -> Place:
        """Return where it stands."""
        return Place(name=self.name, line=self.line)


@final
@dataclass(slots=True)
class Trail:
    """The last records of the chain, oldest first; looked up by hash only where something is not as it should be."""

    entries: deque[Entry] = field(default_factory=lambda: deque(maxlen=LONGEST))
    _known: dict[str, Entry] = field(default_factory=dict)
    _known_to: Entry | None = None

    @property
    def end(self) -> Step | None:
        """Return the last record."""
        return Step(*self.entries[-1]) if self.entries else None

    def get(self, digest: str) -> Step | None:
        """Return the record whose line has this hash, if it is not too long ago."""
        if not self.entries:
            return None
        last = self.entries[-1]
        if digest == last[0]:
            return Step(*last)
        if self._known_to is not last:
            self._known, self._known_to = {entry[0]: entry for entry in self.entries}, last
        entry = self._known.get(digest)
        return None if entry is None else Step(*entry)

    def back_to(self, step: Step) -> None:
        """Forget all that came after ``step``, which is here."""
        while self.entries[-1] != step:
            self.entries.pop()

    def after(self, lines: int) -> Step | None:
        """Return the first record that was read after so many lines."""
        return next((Step(*entry) for entry in self.entries if entry[4] > lines), None)
