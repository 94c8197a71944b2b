"""
Whether the audit log is still what was written, and if not, which line is the first that is not.

``verify`` reads a chain once, from its first line to its last, and keeps no
more than the last few thousand hashes, however long the log is. It tells what
the broker itself declared (records that nobody was told of, a torn line after a
crash) from what nobody declared. This module refuses to open files: it is given
lines, so that the same function judges a directory, a copy and a daemon's answer.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final, final

import msgspec

from broker.core import chain
from broker.core import checkpoint as c
from broker.core import findings as f
from broker.core.findings import Report, spelled
from broker.core.following import MOST, Following
from broker.core.trail import Place, Step
from broker.core.vouching import Check, Expected

LONGEST_LINE: Final = 1 << 16
"""No record is as long as this many bytes; a longer line is none."""

_ROUTINE: Final = frozenset({"first", "size", "restart"})
_BROKE_OFF: Final = frozenset({"error", "hung"})
_TOLD: Final = frozenset({chain.SEGMENT, c.MADE, c.REMOVED})
"""Events of records that say something of the log itself."""

Segments = Iterable[tuple[str, Iterable[bytes]]]


class _Quick(msgspec.Struct, frozen=True):
    """What the usual record is judged by."""

    seq: int
    prev: str
    time: str
    event: str


class _Said(msgspec.Struct, frozen=True):
    """What a record of the log itself says of others."""

    checkpoint: int = 0
    records: int = 0


_NEWLINE: Final = ord("\n")
_QUICK: Final = msgspec.json.Decoder(_Quick)
_SAID: Final = msgspec.json.Decoder(_Said)


def _nobody(_: bytes, __: bytes, ___: bytes) -> bool:
    """Say of no signature that it is good."""
    return False


def verify(
    segments: Segments,
    *,
    partial: bool = False,
    notes: Iterable[bytes] | None = None,
    expected: Sequence[Expected] = (),
    signed: Check = _nobody,
) -> Report:
    """
    Judge a whole log.

    Args:
        segments: name and lines of each segment, oldest first (``chain.in_order``); lines as a binary file gives
            them, with their newline. ``split`` makes such lines of any pieces.
        partial: whether it is known that earlier segments are kept elsewhere.
        notes: the checkpoints (``checkpoint.notes``), oldest first; None where nobody has them.
        expected: what was kept elsewhere.
        signed: checks a signature.

    """
    reader = _Reader(partial=partial, notes=notes, expected=expected, signed=signed)
    for name, lines in segments:
        source, number = iter(lines), 0
        while (odd := reader.glide(name, number, source)) is not None:
            number, raw = odd
            reader.read(Place(name=name, line=number), raw)
            if reader.stopped:
                return reader.report()
        if not reader.any_lines:
            reader.find(f.MISSING_SEGMENT, Place(name=name, line=1), "the segment is empty")
    return reader.report()


def look_again(report: Report, segments: Segments) -> Report:
    """
    Return the report with those lines that were put in called what they are: replays of earlier ones, where they are.

    Costs another look at the whole log, and is worth it where ``report.strangers`` has any.
    """
    seen = dict.fromkeys(report.strangers, 0)
    for _, lines in segments:
        for raw in lines:
            digest = sha256(raw[:-1]).hexdigest()
            if digest in seen:
                seen[digest] += 1
    findings = list(report.findings)
    for digest, number in report.strangers.items():
        if seen[digest] > 1:
            text = "a record that stands elsewhere in the log was put in here once more"
            findings[number] = replace(findings[number], kind=f.REPLAYED, text=text)
    return replace(report, findings=tuple(findings), strangers={})


def split(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield lines with their newline; one that is too long to be a record is cut short, so that memory stays small."""
    rest = b""
    for piece in pieces:
        text = rest + piece
        # No record has a carriage return in it, and this is by far the fastest way; it would take one for an end.
        lines = text.splitlines(keepends=True) if b"\r" not in text else _slowly(text)
        rest = b"" if not lines or lines[-1].endswith(b"\n") else lines.pop()
        if lines and max(map(len, lines)) > LONGEST_LINE:
            lines = [line if len(line) <= LONGEST_LINE else line[:LONGEST_LINE] + b"\n" for line in lines]
        yield from lines
        rest = rest[:LONGEST_LINE]
    if rest:
        yield rest


def _slowly(text: bytes) -> list[bytes]:
    *lines, rest = text.split(b"\n")
    return [*(line + b"\n" for line in lines), *([rest] if rest else [])]


@final
@dataclass(slots=True, kw_only=True)
class _Reader(Following):
    """Reads the lines, and judges what is not between two records: segments, and the log as a whole."""

    # -- lines ---------------------------------------------------------------

    def glide(self, name: str, number: int, lines: Iterator[bytes]) -> tuple[int, bytes] | None:
        """
        Take records as long as each is the one that is due; return the first line that is not, and its number.

        Nearly all of a log is read here, so what can be known beforehand is. Returns None at the end of the segment.
        """
        self.any_lines = number > 0
        end = self.end
        if end is None or self.torn or self.suspects or self.stray or self.renumbered is not None or self.unread:
            return self._next(number, lines)
        decode, hashed, keep = _QUICK.decode, sha256, self.trail.entries.append
        digest, seq, count, found, due = end.digest, end.seq, self.lines, len(self.findings), self.vouching.due
        began, odd, good = number, None, None
        due = 0 if self.vouching.doubts else due
        for raw in lines:
            number += 1
            text = raw[:-1]
            try:
                link = decode(text)
            except (msgspec.DecodeError, UnicodeDecodeError):
                odd = number, raw
                break
            if (
                link.prev != digest
                or link.seq != seq + 1
                or link.event in _TOLD
                or raw[-1] != _NEWLINE
                or seq + 1 >= due
            ):
                odd = number, raw
                break
            good, digest, seq, count = link, hashed(text).hexdigest(), seq + 1, count + 1
            keep((digest, seq, name, number, count, found))
        if good is not None:
            taken = number - began - (odd is not None)
            self.records, self.lines, self.end = self.records + taken, count, self.trail.end
            self.before = Place(name=name, line=began + taken)
            self.last = chain.Link(seq=good.seq, prev=good.prev, time=good.time, event=good.event)
        self.any_lines = number > 0
        return odd

    def _next(self, number: int, lines: Iterator[bytes]) -> tuple[int, bytes] | None:
        raw = next(lines, None)
        return None if raw is None else (number + 1, raw)

    def read(self, place: Place, raw: bytes) -> None:
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
        if link.event in _TOLD and self.end is not None and self.end.digest == head.digest:
            self.listen(place, link.event, text)

    def listen(self, place: Place, event: str, text: bytes) -> None:
        """Take in what a record of the chain says of the log."""
        try:
            said = _SAID.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        if event == c.REMOVED:
            self.removed = max(self.removed, said.records)
        elif event == c.MADE:
            # The same once more is one that a failing disk had to be told twice.
            if self.told is not None and said.checkpoint < self.told[0]:
                text_ = (
                    f"checkpoint {said.checkpoint} was made after checkpoint {self.told[0]}: somebody took the others"
                )
                self.find(f.MISSING_CHECKPOINT, place, text_)
            self.told = said.checkpoint, place
            self.tells.append((self.lines, said.checkpoint, place))

    def unlisten(self, lines: int) -> None:
        """Forget what lines after these have said: they never counted, and what they say is said again."""
        while self.tells and self.tells[-1][0] > lines:
            self.tells.pop()
        self.told = self.tells[-1][1:] if self.tells else None

    def unreadable(self, place: Place) -> None:
        """Report a line that is no record."""
        self.lines += 1
        self.unread += 1
        self.before = place
        self.find(f.NOT_JSON, place, "this line is not a record")

    # -- segments ------------------------------------------------------------

    def boundary(self, place: Place, first: chain.SegmentLink, head: chain.Head) -> None:
        """Judge the first record of a segment, and with it how the segment before it ended."""
        if first.format > chain.FORMAT:
            text = f"format {first.format} is newer than this program; nothing from here on was judged"
            self.find(f.UNKNOWN_FORMAT, place, text)
            self.stopped = True
            return
        self.settle(first)
        self.judge_end(place, first)
        if self.trail.get(head.digest) is not None:
            self.find(f.REPLAYED, place, f"record {first.seq}, which begins segment {first.segment}, stands here again")
            return
        self.judge_number(place, first, head)
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

    def judge_number(self, place: Place, first: chain.SegmentLink, head: chain.Head) -> None:
        """Compare the segment's number with the one before and with the name of the file."""
        due = self.segment + 1
        if first.segment > due:
            known = self.partial and self.segment == 0
            text = f"{spelled(due, first.segment - 1, 'segment')} missing before this line"
            number = self.find(f.MISSING_SEGMENT, place, text, alarm=not known)
            self.absent = number if self.segment == 0 else self.absent
        elif first.segment < due:
            text = f"segment {first.segment} comes after segment {self.segment}"
            self.stranger(head, self.find(f.REORDERED, place, text))
        self.segment = first.segment
        named = chain.number_of(place.name)
        if place.line == 1 and named is not None and named != first.segment:
            self.find(f.REORDERED, place, f"this is segment {first.segment} under the name of another")

    def judge_end(self, place: Place, first: chain.SegmentLink) -> None:
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

    def judge_rest(self, step: Step, extra: int, first: chain.SegmentLink) -> None:
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
        later = self.findings[step.found :]
        self.findings[step.found :] = [one for one in later if one.kind == f.TORN or one.where.startswith(c.FILE)]
        self.unlisten(step.lines)
        self.gaps = deque((gap for gap in self.gaps if gap.finding < step.found), maxlen=MOST)
        self.strangers = {digest: number for digest, number in self.strangers.items() if number < step.found}
        which = "this line" if extra == 1 else f"the {extra} lines from here to {self.before}"
        text = (
            f"{which}, after record {step.head.seq}, never counted: the disk failed, and nothing was released on them"
        )
        self.find(f.ORPHANED, place, text, alarm=False)

    # -- the whole -----------------------------------------------------------

    def report(self) -> Report:
        """Sum up."""
        self.settle(None)
        self.leave_suspects()
        if self.torn is not None:
            self.find(f.TORN, self.torn[0], "the last line breaks off")
        if not self.records and not self.findings:
            self.find(f.MISSING_SEGMENT, Place(name=chain.CURRENT, line=1), "there is no record")
        if not self.stopped:
            self.compare()
        good = self.vouching.good
        return Report(
            findings=tuple(self.findings),
            more=self.more,
            records=self.records,
            first=self.first,
            last=self.last,
            head=self.end.head if self.end is not None else None,
            vouched=0 if good is None else good.head.seq,
            by="" if good is None else f"{good.words}{f' of {good.time}' if good.time else ''}",
            compared=self.vouching.compared,
            strangers=self.strangers,
        )

    def compare(self) -> None:
        """Report what is vouched for and not there."""
        end = (
            Place(name=chain.CURRENT, line=1) if self.end is None else Place(name=self.end.name, line=self.end.line + 1)
        )
        self.more += self.vouching.end(0 if self.end is None else self.end.seq, end)
        if self.notes is not None and self.told is not None and self.told[0] > self.vouching.number:
            text = f"checkpoint {self.told[0]} was made, and is not in the file"
            self.find(f.MISSING_CHECKPOINT, self.told[1], text)
        good = self.vouching.good
        if self.absent is not None and good is not None and self.removed >= self.begins - 1:
            text = f"records 1 to {self.begins - 1} were removed, as a record says, and {good.words} covers them"
            self.findings[self.absent] = replace(self.findings[self.absent], kind=f.REMOVED, alarm=False, text=text)
