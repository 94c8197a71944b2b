"""
Logs with checkpoints, and what somebody does to them who has the host today, and no key of yesterday.

Each attack is one class of change with what has to be found. This module refuses
to be told how verification works: it writes files and lines.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from random import Random
from typing import Final

from broker import audit_keys
from broker.core import chain
from broker.core import checkpoint as c
from broker.core.findings import Report
from broker.core.verification import look_again, verify
from broker.core.vouching import Expected

NAME: Final = "0123456789abcdef"


@dataclass(slots=True, kw_only=True)
class Tampered:
    """
    A log that can be changed line by line.

    Attributes:
        lines: every line, without its newline.
        notes: every checkpoint.
        private: the key for the next checkpoint: what is on the host today.
        expected: what was kept elsewhere.

    """

    lines: list[bytes]
    notes: list[bytes]
    private: bytes
    expected: list[Expected] = field(default_factory=list)

    @property
    def segments(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Yield the log as one segment."""
        yield chain.CURRENT, (line + b"\n" for line in self.lines)

    def judged(self) -> Report:
        """Verify it."""
        report = verify(self.segments, notes=iter(self.notes), expected=self.expected, signed=audit_keys.signed)
        return look_again(report, self.segments) if report.strangers else report


def built(count: int, *, every: int) -> Tampered:
    """Return a log of so many records after the first, with a checkpoint after each ``every`` of them."""
    private = audit_keys.fresh()
    made = Tampered(lines=[], notes=[], private=private)
    head = extend(made, chain.GENESIS, [chain.body(1.79e9, chain.SEGMENT, {"format": 1, "segment": 1, "why": "first"})])
    done = 0
    while done < count:
        some = min(every, count - done)
        records = [
            chain.body(1.79e9 + done + number, "credential/authorised", {"uid": done + number, "secret": "github"})
            for number in range(some)
        ]
        head = extend(made, head, records)
        done += some
        made.private = sign(made, head, made.private, audit_keys.fresh())
    return made


def extend(made: Tampered, head: chain.Head, records: list[bytes]) -> chain.Head:
    """Append records to a log."""
    text, head = chain.extend(head, records)
    made.lines += text.splitlines()
    return head


def sign(made: Tampered, head: chain.Head, private: bytes, following: bytes, *, number: int | None = None) -> bytes:
    """Append a checkpoint and return the key for the next one."""
    said = c.Checkpoint(
        log=NAME,
        number=number or len(made.notes) + 1,
        head=head,
        time=chain.rfc3339(1.79e9),
        key=audit_keys.public(private),
        next=audit_keys.public(following),
    )
    made.notes.append(said.note(audit_keys.sign(private, said.text)))
    return following


def chained(lines: list[bytes], begin: int) -> list[bytes]:
    """Return the lines hashed anew from index ``begin`` on, as whoever can write them would."""
    digest = chain.GENESIS.digest if not begin else sha256(lines[begin - 1]).hexdigest()
    seq = begin
    done = lines[:begin]
    for line in lines[begin:]:
        seq += 1
        record = b"{" + line.split(b'",', 1)[1]
        done.append(chain.line(seq, digest, record))
        digest = sha256(done[-1]).hexdigest()
    return done


def head_of(lines: list[bytes]) -> chain.Head:
    """Return the head of a chain of lines."""
    return chain.Head(seq=len(lines), digest=sha256(lines[-1]).hexdigest())


def _place(made: Tampered, chance: Random) -> int:
    """Return the index of a line in the middle: neither the first nor one of the last two."""
    return chance.randrange(1, len(made.lines) - 2)


def edit(made: Tampered, chance: Random) -> int:
    """Change one record in place."""
    at = _place(made, chance)
    made.lines[at] = made.lines[at].replace(b'"github"', b'"gitlab"')
    return at


def drop(made: Tampered, chance: Random) -> int:
    """Take one record out."""
    at = _place(made, chance)
    del made.lines[at]
    return at


def insert(made: Tampered, chance: Random) -> int:
    """Put a record in that hangs rightly on the one before."""
    at = _place(made, chance)
    before = chain.Head(seq=at, digest=sha256(made.lines[at - 1]).hexdigest())
    made.lines.insert(at, chain.line(before.seq + 1, before.digest, chain.body(1.79e9, "test/forged", {})))
    return at


def reorder(made: Tampered, chance: Random) -> int:
    """Let two neighbours change places."""
    at = _place(made, chance)
    made.lines[at], made.lines[at + 1] = made.lines[at + 1], made.lines[at]
    return at


def replay(made: Tampered, chance: Random) -> int:
    """Put an earlier record in once more."""
    at = _place(made, chance)
    made.lines.insert(at + 1, made.lines[chance.randrange(at)])
    return at + 1


def cut(made: Tampered, chance: Random) -> int:
    """Cut the end off, at a line, before the last checkpoint."""
    at = chance.randrange(1, len(made.lines) - 1)
    del made.lines[at:]
    return at


def rewrite(made: Tampered, chance: Random) -> int:
    """Change a record and hash everything after it anew."""
    at = edit(made, chance)
    made.lines = chained(made.lines, at)
    return at


def sign_again(made: Tampered, chance: Random) -> int:
    """Rewrite, and replace the checkpoints from there on with a new one, of today's key; the first one stays."""
    first = c.read(made.notes[0])
    assert first is not None
    at = chance.randrange(first.checkpoint.head.seq, len(made.lines) - 1)
    made.lines[at] = made.lines[at].replace(b'"github"', b'"gitlab"')
    made.lines = chained(made.lines, at)
    good = [note for note in made.notes if (found := c.read(note)) is not None and found.checkpoint.head.seq <= at]
    made.notes = good
    sign(made, head_of(made.lines), made.private, audit_keys.fresh())
    return at


def sign_all_again(made: Tampered, chance: Random) -> int:
    """Rewrite, with checkpoints that all were made anew; one that was kept elsewhere is there."""
    chance.random()
    last = c.read(made.notes[-1])
    assert last is not None
    made.expected = [Expected(head=last.checkpoint.head, note=last)]
    at = rewrite(made, chance)
    made.notes = []
    sign(made, head_of(made.lines), audit_keys.fresh(), made.private)
    return at


def drop_checkpoint(made: Tampered, chance: Random) -> int:
    """Take one checkpoint out that is not the last."""
    del made.notes[chance.randrange(len(made.notes) - 1)]
    return 0


def swap_checkpoint(made: Tampered, chance: Random) -> int:
    """Put a checkpoint of another head, with another key, in the place of one."""
    number = chance.randrange(len(made.notes))
    other = Tampered(lines=[], notes=[], private=b"")
    sign(other, head_of(made.lines[:5]), audit_keys.fresh(), audit_keys.fresh(), number=number + 1)
    made.notes[number] = other.notes[0]
    return 0


Attack = Callable[[Tampered, Random], int]

ATTACKS: Final[dict[str, tuple[Attack, frozenset[str]]]] = {
    "edited": (edit, frozenset({"edited"})),
    "dropped": (drop, frozenset({"dropped"})),
    "inserted": (insert, frozenset({"inserted"})),
    "reordered": (reorder, frozenset({"reordered"})),
    "replayed": (replay, frozenset({"replayed"})),
    "cut off at the end": (cut, frozenset({"cut-off"})),
    "rewritten": (rewrite, frozenset({"rewritten"})),
    "rewritten and signed again with today's key": (sign_again, frozenset({"signed-again"})),
    "signed again from the first on": (sign_all_again, frozenset({"signed-again", "missing-checkpoint", "rewritten"})),
    "a checkpoint taken out": (drop_checkpoint, frozenset({"missing-checkpoint"})),
    "a checkpoint of another": (swap_checkpoint, frozenset({"signed-again"})),
}
"""Each class of change, and what it may be called: one of these has to be found."""

LINE_IS_NAMED: Final = frozenset({"edited", "dropped", "inserted", "reordered", "replayed"})
"""Those of which the first bad line is known."""
