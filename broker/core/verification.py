"""
Whether the audit log is still what was written, and if not, which line is the first that is not.

``verify`` reads a chain once, from its first line to its last, and keeps no
more than the last few thousand hashes, however long the log is. It tells what
the broker itself declared (records that nobody was told of, a torn line after a
crash) from what nobody declared. This module refuses to open files: it is given
lines, so that the same function judges a directory, a copy and a daemon's answer.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Final, final

from broker.core import chain
from broker.core import findings as f
from broker.core.findings import Finding, Report, spelled

LONGEST_LINE: Final = 1 << 16
"""No record is as long as this many bytes; a longer line is none."""

_TRAIL: Final = 4 * chain.BATCH
_FINDINGS: Final = 100
_ROUTINE: Final = frozenset({"first", "size", "restart"})
_BROKE_OFF: Final = frozenset({"error", "hung"})


def verify(segments: Iterable[tuple[str, Iterable[bytes]]], *, partial: bool = False) -> Report:
    """
    Judge a whole log.

    Args:
        segments: name and lines of each segment, oldest first (``chain.in_order``); lines as a binary file gives
            them, with their newline. ``split`` makes such lines of any pieces.
        partial: whether it is known that earlier segments are kept elsewhere.

    """
    reader = _Reader(partial=partial)
    for name, lines in segments:
        empty = True
        for number, raw in enumerate(lines, 1):
            empty = False
            reader.read(_Place(name=name, line=number), raw)
            if reader.stopped:
                return reader.report()
        if empty:
            reader.find(f.MISSING_SEGMENT, _Place(name=name, line=1), "the segment is empty")
    return reader.report()


def split(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield lines with their newline; one that is too long to be a record is cut short, so that memory stays small."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for text in lines:
            yield text[:LONGEST_LINE] + b"\n"
        rest = rest[:LONGEST_LINE]
    if rest:
        yield rest


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    name: str
    line: int

    def __str__(self) -> str:
        return f"{self.name}:{self.line}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """
    One record of the chain.

    Attributes:
        head: the chain's end with it.
        place: where it stands.
        lines: how many lines had been read with it.
        found: how many findings there were with it.

    """

    head: chain.Head
    place: _Place
    lines: int
    found: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stray:
    """A record that is not due where it stands, and the earlier record, if any, that it hangs on."""

    head: chain.Head
    place: _Place
    lines: int
    step: _Step | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Gap:
    """Numbers that were passed over, and which finding says so."""

    low: int
    high: int
    finding: int


@final
@dataclass(slots=True, kw_only=True)
class _Reader:
    """
    What is remembered between two lines.

    Attributes:
        trail: the last records of the chain by the hash of their lines, oldest first.
        suspects: two neighbours that do not fit; the next line tells which of them was changed.
        stray: a record that is not due; the next line tells whether the chain goes on there.
        unread: how many unreadable lines stand since the last record of the chain.
        renumbered: the number that a rightly linked record claims; if the next one goes on from it, so do we.
        torn: the last line, if it has no newline, and where it stands.
        before: where the line before stands.
        segment: the number of the segment that is being read.

    """

    partial: bool
    findings: list[Finding] = field(default_factory=list)
    more: int = 0
    records: int = 0
    lines: int = 0
    first: chain.Link | None = None
    last: chain.Link | None = None
    trail: OrderedDict[str, _Step] = field(default_factory=OrderedDict)
    end: _Step | None = None
    suspects: tuple[_Place, _Place] | None = None
    stray: _Stray | None = None
    unread: int = 0
    renumbered: int | None = None
    gaps: deque[_Gap] = field(default_factory=lambda: deque(maxlen=_FINDINGS))
    torn: tuple[_Place, bytes] | None = None
    before: _Place | None = None
    segment: int = 0
    stopped: bool = False

    # -- lines ---------------------------------------------------------------

    def read(self, place: _Place, raw: bytes) -> None:
        """Judge one line."""
        if self.torn is not None and place.line > 1:
            self.unreadable(self.torn[0])
            self.torn = None
        if not raw.endswith(b"\n"):
            self.torn = (place, raw)
            return
        text = raw[:-1]
        link = chain.read(text)
        if link is None:
            self.unreadable(place)
            return
        self.lines += 1
        self.records += 1
        self.first = self.first or link
        self.last = link
        head = chain.Head(seq=link.seq, digest=sha256(text).hexdigest())
        first = chain.read_segment(text) if link.event == chain.SEGMENT else None
        if first is None:
            self.follow(place, link, head)
        else:
            self.boundary(place, first, head)
        self.before = place

    def unreadable(self, place: _Place) -> None:
        """Report a line that is no record."""
        self.lines += 1
        self.unread += 1
        self.before = place
        self.find(f.NOT_JSON, place, "this line is not a record")

    # -- segments ------------------------------------------------------------

    def boundary(self, place: _Place, first: chain.SegmentLink, head: chain.Head) -> None:
        """Judge the first record of a segment, and with it how the segment before it ended."""
        if first.format > chain.FORMAT:
            text = f"format {first.format} is newer than this program; nothing from here on was judged"
            self.find(f.UNKNOWN_FORMAT, place, text)
            self.stopped = True
            return
        self.settle(first)
        self.judge_end(place, first)
        self.judge_number(place, first)
        step = self.step_before(first)
        if step is None:
            self.follow(place, first, head)
        else:
            extra = self.lines - 1 - step.lines
            if extra:
                self.judge_rest(step, extra, first)
            # A broker that found the end damaged hung its first record on it all the same: that vouches for nothing.
            if first.why == "damaged":
                self.leave_suspects()
            self.back_to(step)
            self.take(place, head)
        if first.why not in _ROUTINE:
            text = f"the broker began a new segment here ({first.why}){f': {first.detail}' if first.detail else ''}"
            self.find(f.NOTICED, place, text, alarm=False)

    def judge_number(self, place: _Place, first: chain.SegmentLink) -> None:
        """Compare the segment's number with the one before and with the name of the file."""
        due = self.segment + 1
        if first.segment > due:
            known = self.partial and self.segment == 0
            text = f"{spelled(due, first.segment - 1, 'segment')} missing before this line"
            self.find(f.MISSING_SEGMENT, place, text, alarm=not known)
        elif first.segment < due:
            self.find(f.REORDERED, place, f"segment {first.segment} comes after segment {self.segment}")
        self.segment = first.segment
        named = chain.number_of(place.name)
        if place.line == 1 and named is not None and named != first.segment:
            self.find(f.REORDERED, place, f"this is segment {first.segment} under the name of another")

    def judge_end(self, place: _Place, first: chain.SegmentLink) -> None:
        """Judge a torn last line of the segment before, by what this segment's first record says of it."""
        torn, self.torn = self.torn, None
        if torn is None:
            if first.cut_bytes:
                text = f"{first.cut_bytes} bytes of a torn line were cut off the end of the segment before"
                self.find(f.TORN, place, text, alarm=False)
            return
        where, rest = torn
        told = first.cut_bytes == len(rest) and first.cut_sha256 == sha256(rest).hexdigest()
        told = told or (first.why in _BROKE_OFF and first.unacknowledged > 0)
        text = (
            "this line breaks off, as the next segment says" if told else "this line breaks off and no record says why"
        )
        self.find(f.TORN, where, text, alarm=not told)

    def judge_rest(self, step: _Step, extra: int, first: chain.SegmentLink) -> None:
        """
        Judge what stands between a segment and the earlier record that it hangs on.

        As many lines as the broker declared are orphans: written, perhaps only in
        part, when the disk failed, and nobody was told that they were. More than
        that came from somebody else.
        """
        place = self.after(step)
        if extra > first.unacknowledged:
            text = f"{extra} lines follow record {step.head.seq}; the broker left {first.unacknowledged}"
            self.find(f.INSERTED, place, text)
            return
        self.findings[step.found :] = [finding for finding in self.findings[step.found :] if finding.kind == f.TORN]
        self.gaps = deque((gap for gap in self.gaps if gap.finding < step.found), maxlen=_FINDINGS)
        which = "this line" if extra == 1 else f"the {extra} lines from here to {self.before}"
        text = (
            f"{which}, after record {step.head.seq}, never counted: the disk failed, and nothing was released on them"
        )
        self.find(f.ORPHANED, place, text, alarm=False)

    # -- the chain -----------------------------------------------------------

    def follow(self, place: _Place, link: chain.Link, head: chain.Head) -> None:
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

    def start(self, place: _Place, link: chain.Link) -> None:
        """Judge the first record of all."""
        whole = link.seq == 1 and link.prev == chain.GENESIS.digest
        if not whole and self.segment <= 1 and not self.partial:
            self.find(f.DROPPED, place, f"the chain begins with record {link.seq}")

    def misplaced(self, place: _Place, link: chain.Link, head: chain.Head, before: _Step) -> None:
        """Judge a record that has neither the number nor the link that is due here."""
        if self.unread and link.seq == before.head.seq + 1 + self.unread:
            self.clear_suspects(vouched=False)
            self.take(place, head)
        elif self.fills_gap(place, link):
            return
        elif head.digest in self.trail:
            self.find(f.INSERTED, place, f"record {link.seq} stands here for a second time")
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
            self.find(f.INSERTED, place, f"record {link.seq} stands after record {before.head.seq}")
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
            self.find(f.INSERTED, stray.place, f"this record {stray.head.seq} was put in")

    def fills_gap(self, place: _Place, link: chain.Link) -> bool:
        """Return whether this record was missing further up; then it was not dropped but moved."""
        for gap in self.gaps:
            if gap.low <= link.seq <= gap.high:
                old = self.findings[gap.finding]
                if old.kind != f.REORDERED:
                    text = f"{spelled(gap.low, gap.high)} missing before this line; record {link.seq} is at {place}"
                    self.findings[gap.finding] = replace(old, kind=f.REORDERED, text=text)
                return True
        return False

    def step_before(self, link: chain.Link) -> _Step | None:
        """Return the record of the chain that this one hangs on, if it is not too long ago."""
        step = self.trail.get(link.prev)
        return step if step is not None and step.head.seq == link.seq - 1 else None

    def back_to(self, step: _Step) -> None:
        """Go back to an earlier record of the chain, as if what follows it had not been there."""
        while next(reversed(self.trail.values())) is not step:
            self.trail.popitem()
        self.end = step
        if self.suspects is not None and self.suspects[1] == step.place:
            self.clear_suspects(vouched=True)
        self.suspects = self.stray = self.renumbered = None

    def after(self, step: _Step) -> _Place:
        """Return where the line after an earlier record of the chain stands."""
        steps = iter(self.trail.values())
        later = next((found for found in steps if found.lines > step.lines), None)
        if later is not None and later.lines == step.lines + 1:
            return later.place
        return _Place(name=step.place.name, line=step.place.line + 1)

    def take(self, place: _Place, head: chain.Head, *, lines: int | None = None) -> None:
        """Take a record as the end of the chain; it is the last line that was read, or the one with this number."""
        lines = self.lines if lines is None else lines
        self.end = _Step(head=head, place=place, lines=lines, found=len(self.findings))
        self.trail[head.digest] = self.end
        if len(self.trail) > _TRAIL:
            self.trail.popitem(last=False)
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

    def find(self, kind: str, place: _Place, text: str, *, alarm: bool = True) -> int | None:
        """Report something and return which finding it is; of one line the first alarm is enough."""
        where = str(place)
        if alarm and any(finding.where == where and finding.alarm for finding in self.findings[-3:]):
            return None
        if len(self.findings) >= _FINDINGS:
            self.more += alarm
            return None
        self.findings.append(Finding(kind=kind, where=where, alarm=alarm, text=text))
        return len(self.findings) - 1

    def report(self) -> Report:
        """Sum up."""
        self.settle(None)
        self.leave_suspects()
        if self.torn is not None:
            self.find(f.TORN, self.torn[0], "the last line breaks off")
        if not self.records and not self.findings:
            self.find(f.MISSING_SEGMENT, _Place(name=chain.CURRENT, line=1), "there is no record")
        return Report(
            findings=tuple(self.findings),
            more=self.more,
            records=self.records,
            first=self.first,
            last=self.last,
            head=self.end.head if self.end is not None else None,
        )
