"""
The chain, record by record: what follows what, and what is wrong where it does not.

This is the part of ``broker.core.verification`` that looks at two neighbours. It
refuses to know of files and lines more than where they are.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from broker.core import chain
from broker.core import findings as f
from broker.core.findings import Finding, spelled
from broker.core.trail import LONGEST, Place, Step, Trail
from broker.core.vouching import Check, Expected, Vouching

MOST: Final = 100
"""Findings that are named; the others are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stray:
    """A record that is not due where it stands, and the earlier record, if any, that it hangs on."""

    head: chain.Head
    place: Place
    lines: int
    step: Step | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Gap:
    """Numbers that were passed over, and which finding says so."""

    low: int
    high: int
    finding: int


@dataclass(slots=True, kw_only=True)
class Following:
    """
    What is remembered between two lines.

    Attributes:
        trail: the last records of the chain.
        suspects: two neighbours that do not fit; the next line tells which of them was changed.
        stray: a record that is not due; the next line tells whether the chain goes on there.
        unread: how many unreadable lines stand since the last record of the chain.
        renumbered: the number that a rightly linked record claims; if the next one goes on from it, so do we.
        torn: the last line, if it has no newline, and where it stands.
        before: where the line before stands.
        segment: the number of the segment that is being read.

    """

    partial: bool
    notes: Iterable[bytes] | None
    expected: Sequence[Expected]
    signed: Check
    findings: list[Finding] = field(default_factory=list)
    more: int = 0
    records: int = 0
    lines: int = 0
    first: chain.Link | None = None
    last: chain.Link | None = None
    trail: Trail = field(default_factory=Trail)
    end: Step | None = None
    suspects: tuple[Place, Place] | None = None
    stray: _Stray | None = None
    unread: int = 0
    renumbered: int | None = None
    gaps: deque[_Gap] = field(default_factory=lambda: deque(maxlen=MOST))
    torn: tuple[Place, bytes] | None = None
    before: Place | None = None
    segment: int = 0
    stopped: bool = False
    any_lines: bool = False
    absent: int | None = None
    begins: int = 0
    removed: int = 0
    told: tuple[int, Place] | None = None
    tells: deque[tuple[int, int, Place]] = field(default_factory=lambda: deque(maxlen=LONGEST))
    strangers: dict[str, int] = field(default_factory=dict)
    vouching: Vouching = field(init=False)

    def __post_init__(self) -> None:
        """Begin to read the checkpoints."""
        self.vouching = Vouching(notes=self.notes, expected=self.expected, signed=self.signed, find=self.find)

    # -- the chain -----------------------------------------------------------

    def follow(self, place: Place, link: chain.Link, head: chain.Head) -> None:
        """Judge a record by the one before it."""
        self.settle(link)
        before = self.end
        if before is None:
            self.start(place, link)
            self.take(place, head)
            return
        links = link.prev == before.head.digest
        counts = link.seq == before.head.seq + 1
        went_on = self.renumbered is not None and link.seq == self.renumbered + 1
        self.renumbered = None
        if links:
            self.clear_suspects(vouched=True)
            if not counts and not went_on:
                self.find(f.SEQ_GAP, place, f"record {link.seq} stands where record {before.head.seq + 1} belongs")
                self.renumbered = link.seq
                head = replace(head, seq=before.head.seq + 1)
            self.take(place, head)
        elif counts:
            self.clear_suspects(vouched=False)
            self.suspects = (before.place, place)
            self.take(place, head)
        else:
            self.misplaced(place, link, head, before)

    def start(self, place: Place, link: chain.Link) -> None:
        """Judge the first record of all."""
        whole = link.seq == 1 and link.prev == chain.GENESIS.digest
        self.begins = link.seq
        self.vouching.begins(link.seq, link.prev, place)
        if not whole and self.segment <= 1 and not self.partial:
            self.find(f.DROPPED, place, f"the chain begins with record {link.seq}")

    def misplaced(self, place: Place, link: chain.Link, head: chain.Head, before: Step) -> None:
        """Judge a record that has neither the number nor the link that is due here."""
        if self.unread and link.seq == before.head.seq + 1 + self.unread:
            self.clear_suspects(vouched=False)
            self.take(place, head)
        elif self.fills_gap(place, link):
            return
        elif self.trail.get(head.digest) is not None:
            self.find(f.REPLAYED, place, f"record {link.seq} stands here for a second time")
        elif (step := self.step_before(link)) is not None:
            self.stray = _Stray(head=head, place=place, lines=self.lines, step=step)
        elif link.seq > before.head.seq + 1:
            self.clear_suspects(vouched=False)
            low, high = before.head.seq + 1, link.seq - 1
            found = self.find(f.DROPPED, place, f"{spelled(low, high)} missing before this line")
            if found is not None:
                self.gaps.append(_Gap(low=low, high=high, finding=found))
            self.take(place, head)
        else:
            self.stranger(
                head, self.find(f.INSERTED, place, f"record {link.seq} stands after record {before.head.seq}")
            )
            self.stray = _Stray(head=head, place=place, lines=self.lines, step=None)

    def settle(self, link: chain.Link | None) -> None:
        """Decide whether the chain goes on at the stray record: it does if the next one hangs on it."""
        stray, self.stray = self.stray, None
        if stray is None:
            return
        goes_on = link is not None and link.prev == stray.head.digest and link.seq == stray.head.seq + 1
        if stray.step is None:
            if goes_on:
                self.take(stray.place, stray.head, lines=stray.lines)
        elif goes_on:
            text = f"what stands between here and record {stray.head.seq} at {stray.place} was put in"
            self.find(f.INSERTED, self.after(stray.step), text)
            self.back_to(stray.step)
            self.take(stray.place, stray.head, lines=stray.lines)
        else:
            self.stranger(stray.head, self.find(f.INSERTED, stray.place, f"this record {stray.head.seq} was put in"))

    def stranger(self, head: chain.Head, finding: int | None) -> None:
        """Remember a line that was put in: it may be one of much earlier."""
        if finding is not None:
            self.strangers[head.digest] = finding

    def fills_gap(self, place: Place, link: chain.Link) -> bool:
        """Return whether this record was missing further up; then it was not dropped but moved."""
        for gap in self.gaps:
            if gap.low <= link.seq <= gap.high:
                old = self.findings[gap.finding]
                if old.kind != f.REORDERED:
                    text = f"{spelled(gap.low, gap.high)} missing before this line; record {link.seq} is at {place}"
                    self.findings[gap.finding] = replace(old, kind=f.REORDERED, text=text)
                return True
        return False

    def step_before(self, link: chain.Link) -> Step | None:
        """Return the record of the chain that this one hangs on, if it is not too long ago."""
        step = self.trail.get(link.prev)
        return step if step is not None and step.head.seq == link.seq - 1 else None

    def back_to(self, step: Step) -> None:
        """Go back to an earlier record of the chain, as if what follows it had not been there."""
        self.trail.back_to(step)
        self.end = step
        if self.suspects is not None and self.suspects[1] == step.place:
            self.clear_suspects(vouched=True)
        self.suspects = self.stray = self.renumbered = None

    def after(self, step: Step) -> Place:
        """Return where the line after an earlier record of the chain stands."""
        later = self.trail.after(step.lines)
        if later is not None and later.lines == step.lines + 1:
            return later.place
        return Place(name=step.name, line=step.line + 1)

    def take(self, place: Place, head: chain.Head, *, lines: int | None = None) -> None:
        """Take a record as the end of the chain; it is the last line that was read, or the one with this number."""
        lines = self.lines if lines is None else lines
        self.end = Step(head.digest, head.seq, place.name, place.line, lines, len(self.findings))
        self.trail.entries.append(self.end)
        if head.seq >= self.vouching.due or self.vouching.doubts:
            self.vouching.taken(head.seq, head.digest, place)
        self.unread = 0

    def clear_suspects(self, *, vouched: bool) -> None:
        """Decide which of two neighbours was changed: not the one that the next record hangs on."""
        if self.suspects is None:
            return
        before, this = self.suspects
        self.suspects = None
        if vouched:
            self.find(f.EDITED, before, "this line is not the one that was written")
        else:
            self.find(f.EDITED, this, "this line is not the one that was written; the one before it may not be either")

    def leave_suspects(self) -> None:
        """Report two neighbours of which no record tells which one was changed."""
        if self.suspects is None:
            return
        before, this = self.suspects
        self.suspects = None
        self.find(f.WRONG_PREV, this, f"this line does not hang on {before}; one of them was changed")

    # -- findings ------------------------------------------------------------

    def find(self, kind: str, place: Place, text: str, *, alarm: bool = True) -> int | None:
        """Report something and return which finding it is; of one line the first alarm is enough."""
        where = str(place)
        if alarm and any(finding.where == where and finding.alarm for finding in self.findings[-3:]):
            return None
        if len(self.findings) >= MOST:
            self.more += alarm
            return None
        self.findings.append(Finding(kind=kind, where=where, alarm=alarm, text=text))
        return len(self.findings) - 1
