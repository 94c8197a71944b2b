"""
One uid's share of requests, so that a busy one harms no other.

Pure: the time is an argument, in seconds of any clock that does not go back.
"""

from typing import Final

_MOST_UIDS: Final = 4096
"""Uids remembered at once. One that is forgotten begins with a full bucket."""


class RateLimit:
    """A token bucket per uid: ``rate`` requests a second, and as many at once; 0 means no limit."""

    def __init__(self, rate: int) -> None:
        """Begin with every bucket full."""
        self.rate = rate
        self._buckets: dict[int, tuple[float, float]] = {}

    def take(self, uid: int, now: float) -> bool:
        """Take one request from the share of ``uid``; return whether there was one left."""
        if not self.rate:
            return True
        left, then = self._buckets.get(uid, (float(self.rate), now))
        left = min(float(self.rate), left + (now - then) * self.rate)
        if left < 1.0:
            self._buckets[uid] = (left, now)
            return False
        if uid not in self._buckets and len(self._buckets) >= _MOST_UIDS:
            self._buckets.pop(next(iter(self._buckets)))
        self._buckets[uid] = (left - 1.0, now)
        return True
