"""
How long a value that was read may still be served when its source answers no more.

Pure: the time is an argument. Both clocks count, so that neither a suspended
machine nor a clock that was set back makes it longer. This module refuses to
know a value.
"""

from dataclasses import dataclass
from typing import Final

FLOOR: Final = 1.0
"""Seconds for which a source that did not answer is not asked again at least."""

CAP: Final = 30.0
"""Seconds for which it is not asked again at most."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A time by both clocks: the wall's, in Unix seconds, and the monotonic one."""

    wall: float
    monotonic: float

    def since(self, before: "Moment") -> float:
        """Return the seconds since another moment, by the clock that says more."""
        return max(self.wall - before.wall, self.monotonic - before.monotonic)


@dataclass(frozen=True, slots=True)
class Confirmed:
    """When the source said a value last, and for how long it promised it; None where it promised nothing."""

    at: Moment
    ttl: float | None = None

    def length(self, stale: float) -> float:
        """Return the seconds after its confirmation for which the value is good, where ``stale`` are allowed."""
        return stale if self.ttl is None else min(stale, self.ttl)

    def servable(self, now: Moment, stale: float) -> bool:
        """Return whether the value may be served now though the source does not answer."""
        return now.since(self.at) < self.length(stale)


def quiet_for(failures: int, *, jitter: float) -> float:
    """Return for how many seconds a source is left alone after so many failures; ``jitter`` is between 0 and 1."""
    return max(FLOOR, min(CAP, FLOOR * 2.0 ** min(failures - 1, 16)) * (0.5 + jitter / 2))
