"""
Checkpoints beside the chain: is each signed by the key that the one before names, and does the log hold what it says?

They are read once, in step with the records, so that memory does not grow with
either. Whoever calls brings the function that checks a signature: this module
refuses to know how that is done.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, final

from broker.core import checkpoint as c
from broker.core import findings as f
from broker.core.chain import Head
from broker.core.trail import Place

Check = Callable[[bytes, bytes, bytes], bool]
"""Says whether a public key, a signature and a text belong together."""

Find = Callable[..., object]
"""Reports something: kind, place, text, ``alarm=``."""

_NEVER: Final = 1 << 62
_DOUBTS: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """
    A head of the log that was kept elsewhere.

    Attributes:
        head: the record and the hash of its line.
        note: the whole checkpoint, where it is one.

    """

    head: Head
    note: c.Signed | None = None

    @property
    def words(self) -> str:
        """Return what to call it."""
        return "the expected head" if self.note is None else f"the expected checkpoint {self.note.checkpoint.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What somebody vouches for: this record, and so all before it."""

    head: Head
    words: str
    time: str = ""
    expected: bool = False


@final
@dataclass(slots=True, kw_only=True)
class Vouching:
    """
    All that vouches for a log, and how far it has been compared.

    Attributes:
        due: the number of the record that is to be compared next.
        good: the last claim that the log fulfils.
        number: of the last checkpoint that was read.
        compared: whether the log holds something that was kept elsewhere.
        doubts: claims that the log did not fulfil when the record came by; it may come again, behind an orphan.

    """

    notes: Iterable[bytes] | None
    expected: Sequence[Expected]
    signed: Check
    find: Find
    due: int = _NEVER
    good: Claim | None = None
    number: int = 0
    doubts: dict[int, tuple[Claim, Place | None, int]] = field(default_factory=dict)
    compared: bool = False
    more: int = 0
    _claims: Iterator[Claim] = field(init=False)
    _next: Claim | None = None
    _last: Claim | None = None

    def __post_init__(self) -> None:
        """Read the first claim."""
        self._claims = self._in_order()
        self._pull()

    # -- what is claimed -----------------------------------------------------

    def _pull(self) -> None:
        self._next = next(self._claims, None)
        self.due = _NEVER if self._next is None else self._next.head.seq
        self._last = self._next or self._last

    def _in_order(self) -> Iterator[Claim]:
        """Yield checkpoints and what was kept elsewhere, by the number of their record."""
        kept = sorted(self.expected, key=lambda one: one.head.seq)
        for each in kept:
            note = each.note
            if note is not None and not self.signed(note.checkpoint.key, note.signature, note.checkpoint.text):
                self._report(f.SIGNED_AGAIN, 0, f"{each.words} is not signed with the key that it names")
        claims = [Claim(head=each.head, words=each.words, expected=True) for each in kept]
        for claim in self._ledger():
            while claims and claims[0].head.seq <= claim.head.seq:
                yield claims.pop(0)
            yield claim
        yield from claims

    def _ledger(self) -> Iterator[Claim]:
        """Yield what the file of checkpoints claims, and report what is wrong with it."""
        before: c.Checkpoint | None = None
        kept = {one.note.checkpoint.number: one.note for one in self.expected if one.note is not None}
        for count, note in enumerate(self.notes or (), 1):
            found = c.read(note)
            if found is None:
                self._unread(count, note)
                continue
            this = found.checkpoint
            if self._follows(count, before, found):
                yield Claim(head=this.head, words=f"checkpoint {this.number}", time=this.time)
            own = kept.pop(this.number, None)
            if own is not None and own.checkpoint != this:
                text = f"checkpoint {this.number} is not the one that was kept elsewhere: it was signed again"
                self._report(f.SIGNED_AGAIN, count, text)
            before, self.number = this, this.number
        if self.notes is not None:
            for number in sorted(kept):
                text = f"checkpoint {number} was kept elsewhere, and is not in the file"
                self._report(f.MISSING_CHECKPOINT, 0, text)

    def _unread(self, count: int, note: bytes) -> None:
        if c.broke_off(note):
            self._report(f.TORN, count, "the last checkpoint breaks off: it never counted", alarm=False)
        else:
            self._report(f.NOT_A_CHECKPOINT, count, "this is not a checkpoint")

    def _follows(self, count: int, before: c.Checkpoint | None, found: c.Signed) -> bool:
        """Judge a checkpoint by the one before it; return whether what it claims is worth comparing."""
        this = found.checkpoint
        name = f"checkpoint {this.number}"
        if before is None:
            if this.number != 1:
                self._report(f.MISSING_CHECKPOINT, count, f"{f.spelled(1, this.number - 1, 'checkpoint')} missing")
        elif this.number != before.number + 1:
            text = f"{name} follows checkpoint {before.number}"
            self._report(f.MISSING_CHECKPOINT if this.number > before.number else f.REORDERED, count, text)
        elif this.key != before.next or this.log != before.log:
            text = f"{name} is signed with a key that checkpoint {before.number} does not name: it was signed again"
            self._report(f.SIGNED_AGAIN, count, text)
        if not self.signed(this.key, found.signature, this.text):
            self._report(f.SIGNED_AGAIN, count, f"{name} is not signed with the key that it names")
            return False
        if before is not None and this.head.seq < before.head.seq:
            text = f"{name} vouches for {this.head.seq} records and the one before for {before.head.seq}: the end"
            self._report(f.CUT_OFF, count, f"{text} of the log had been cut off when it was made")
            return False
        return True

    def _report(self, kind: str, count: int, text: str, *, alarm: bool = True) -> None:
        self.find(kind, Place(name=c.FILE, line=count), text, alarm=alarm)

    # -- what is there -------------------------------------------------------

    def begins(self, seq: int, prev: str, place: Place) -> None:
        """Know where the chain begins: what is claimed of earlier records cannot be compared, but for the last."""
        while self._next is not None and self._next.head.seq < seq:
            if self._next.head.seq == seq - 1:
                self._compare(self._next, prev, place)
            self._pull()

    def taken(self, seq: int, digest: str, place: Place) -> None:
        """Compare a record of the chain with what is claimed of it."""
        doubt = self.doubts.pop(seq, None)
        if doubt is not None:
            self._compare(doubt[0], digest, place)
        while self._next is not None and self._next.head.seq <= seq:
            if self._next.head.seq == seq:
                self._compare(self._next, digest, place)
            else:
                self._doubt(self._next, None)
            self._pull()

    def _compare(self, claim: Claim, digest: str, place: Place) -> None:
        if claim.head.digest != digest:
            self._doubt(claim, place)
            return
        self.compared = self.compared or claim.expected
        if self.good is None or claim.head.seq >= self.good.head.seq:
            self.good = claim

    def _doubt(self, claim: Claim, place: Place | None) -> None:
        if len(self.doubts) < _DOUBTS:
            self.doubts[claim.head.seq] = claim, place, 0 if self.good is None else self.good.head.seq
        else:
            self.more += 1

    def end(self, last: int, place: Place) -> int:
        """Report what the log does not hold; return how many further claims it does not."""
        for claim, where, since in self.doubts.values():
            text = f"record {claim.head.seq} is not the one that {claim.words} vouches for"
            if where is None:
                text = f"record {claim.head.seq}, which {claim.words} vouches for, is not there"
            text += f": something from record {since + 1} on was written anew"
            self.find(f.REWRITTEN, where or place, text)
        beyond: Claim | None = None
        while self._next is not None:
            beyond = self._next
            self._pull()
        if beyond is not None and beyond.head.seq > last:
            gone = f.spelled(last + 1, beyond.head.seq)
            self.find(f.CUT_OFF, place, f"{gone} missing at the end, and {beyond.words} vouches for them")
        return self.more
