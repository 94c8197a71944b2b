"""
What can be wrong with an audit log, in words.

This module refuses to look for it: ``broker.core.verification`` does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from broker.core import chain

EDITED: Final = "edited"
"""A line is not the one that was written."""

DROPPED: Final = "dropped"
"""Records are missing before a line."""

INSERTED: Final = "inserted"
"""A line was put in that the chain does not have."""

REORDERED: Final = "reordered"
"""Records, or segments, do not stand where they belong."""

REPLAYED: Final = "replayed"
"""A record of earlier stands here once more."""

REWRITTEN: Final = "rewritten"
"""A record is not the one that a checkpoint vouches for: the chain was hashed anew from somewhere before it."""

SIGNED_AGAIN: Final = "signed-again"
"""A checkpoint is not signed with the key that the one before names: somebody had another key."""

CUT_OFF: Final = "cut-off"
"""The end is missing that a checkpoint vouches for."""

MISSING_CHECKPOINT: Final = "missing-checkpoint"
"""A checkpoint is not in the file that should be."""

NOT_A_CHECKPOINT: Final = "not-a-checkpoint"
"""Something in the file of checkpoints is none."""

REMOVED: Final = "removed"
"""Segments were removed by the broker, as the config says; the record says so, and a checkpoint covers them."""

TORN: Final = "torn"
"""A line breaks off."""

ORPHANED: Final = "orphaned"
"""Records were written and never acknowledged; nothing was released on them."""

MISSING_SEGMENT: Final = "missing-segment"
"""A whole file is missing, or has nothing in it."""

NOT_JSON: Final = "not-json"
"""A line is no record."""

WRONG_PREV: Final = "wrong-prev"
"""The last line does not hang on the one before; no later line tells which of them was changed."""

SEQ_GAP: Final = "seq-gap"
"""A line hangs on the one before and has a number that does not follow."""

UNKNOWN_FORMAT: Final = "unknown-format"
"""A newer program wrote this; an older one cannot judge it."""

NOTICED: Final = "noticed"
"""The broker itself saw something and wrote it down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """
    One thing that is not as it should be.

    Attributes:
        kind: one of the constants of this module.
        where: ``file:line``, lines counted from 1.
        alarm: whether nobody declared it; what the broker wrote down itself is a notice.
        text: a sentence in lower case.

    """

    kind: str
    where: str
    alarm: bool
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """
    What ``verify`` found.

    Attributes:
        findings: about in the order of the lines.
        more: how many further findings were only counted.
        records: how many lines are records.
        first: the first record of all; None where there is none.
        last: the last one.
        head: the end of the chain, to compare with a copy of it that was kept elsewhere.
        vouched: the last record that a checkpoint vouches for; 0 where none does.
        by: that checkpoint, in words, and when it was made.
        compared: whether what vouches includes something that was kept elsewhere.
        strangers: hashes of lines that were put in, by finding: a second look tells which of them are replays.

    """

    findings: tuple[Finding, ...]
    more: int
    records: int
    first: chain.Link | None
    last: chain.Link | None
    head: chain.Head | None
    vouched: int = 0
    by: str = ""
    compared: bool = False
    strangers: Mapping[str, int] = field(default_factory=dict)

    @property
    def intact(self) -> bool:
        """Return whether nothing was found that the broker has not declared."""
        return self.first_alarm is None and not self.more

    @property
    def first_alarm(self) -> Finding | None:
        """Return the first thing that nobody declared."""
        return next((finding for finding in self.findings if finding.alarm), None)


def spelled(low: int, high: int, noun: str = "record") -> str:
    """Return a range of numbers in words, with its verb."""
    if low == high:
        return f"{noun} {low} is"
    return f"{noun}s {low} to {high} are"
