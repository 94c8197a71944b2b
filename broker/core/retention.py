"""
Which earlier segments of the audit log may go.

This module refuses to let one go that no checkpoint covers, that a sink has not
taken yet, or that is younger than the config says; and to leave a hole: the
oldest goes first.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """
    One earlier segment.

    Attributes:
        number: which.
        last: the number of its last record.
        ended: when the segment after it began (Unix seconds).

    """

    number: int
    last: int
    ended: float


def removable(segments: Sequence[Kept], *, now: float, keep: float | None, covered: int, taken: int) -> list[Kept]:
    """
    Return the segments that may be removed, oldest first.

    Args:
        segments: all earlier ones, oldest first.
        now: Unix seconds.
        keep: seconds for which they are kept; None for ever.
        covered: the number of the last record that a checkpoint on the disk covers.
        taken: the number of the last record that every sink has.

    """
    found: list[Kept] = []
    for each in segments:
        if keep is None or now - each.ended < keep or each.last >= covered or each.last > taken:
            break
        found.append(each)
    return found
