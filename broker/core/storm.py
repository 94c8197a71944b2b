"""
Denials that storm: the first are recorded one by one, the rest are counted.

One uid that is refused ten thousand times a second must neither fill the disk
nor hide what others are refused. Pure: the time is an argument, in Unix
seconds.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

BURST: Final = 20
"""Denials of one uid that are recorded one by one before counting begins."""

PERIOD: Final = 10.0
"""Seconds between two records of a count, and in which a uid earns one of its burst back."""

MOST_UIDS: Final = 1024
"""Uids that are told apart, for each code. Those beyond share one count, under ``OTHERS``."""

OTHERS: Final = 0xFFFFFFFE
"""The uid under which the denials of all further uids are counted; no user has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """So many denials of one uid with one code that were not recorded one by one, from when to when."""

    uid: int
    code: str
    count: int
    first: float
    last: float


@dataclass(slots=True)
class _Seen:
    since: float
    left: float = BURST
    count: int = 0
    first: float = 0.0
    last: float = 0.0


class Storm:
    """Says of each denial whether it is recorded by itself, and in time how many were not."""

    def __init__(self) -> None:
        """Begin in calm weather."""
        self._seen: OrderedDict[tuple[int, str], _Seen] = OrderedDict()

    def offer(self, now: float, uid: int, code: str) -> bool:
        """Take note of a denial; return whether it is to be recorded by itself."""
        if (uid, code) not in self._seen and len(self._seen) >= MOST_UIDS:
            uid = OTHERS
        seen = self._seen.setdefault((uid, code), _Seen(since=now))
        if seen.left >= 1:
            seen.left -= 1
            return True
        if not seen.count:
            seen.first = now
        seen.count += 1
        seen.last = now
        return False

    def due(self, now: float) -> list[Counted]:
        """Return the counts whose period is over, each once, and forget who has all of its burst back."""
        found: list[Counted] = []
        for (uid, code), seen in tuple(self._seen.items()):
            periods = (now - seen.since) // PERIOD
            if periods < 1:
                continue
            if seen.count:
                found.append(Counted(uid=uid, code=code, count=seen.count, first=seen.first, last=seen.last))
            # One a period, so that who is denied twice a second for a day is counted, too, and not recorded each time.
            left = min(float(BURST), seen.left + periods)
            if left < BURST:
                self._seen[uid, code] = _Seen(since=seen.since + periods * PERIOD, left=left)
            else:
                del self._seen[uid, code]
        return found
