"""
When a credential is due to be replaced.

A time is planned once, kept, and compared with the clock: so what was missed
while the machine slept happens once and soon, and a clock that was set changes
what is planned only where it must. A wall-clock time that does not exist on the
day on which the clocks change is taken for the same moment an hour later by the
wall; one that comes twice counts the first time.

This module refuses to know what time it is, to draw lots, and to parse what
people write.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, tzinfo
from typing import Final

Fires = Callable[[datetime], datetime | None]
"""Given a time by the wall, without a zone, returns the next one that a cron line names; None where there is none."""

REPLACED_AFTER: Final = 2 / 3
"""The part of its life after which something that ends by itself is replaced."""

_DAY: Final = 24 * 60
_MOST_LOOKS: Final = 200
"""Wall-clock times that are looked at for the next moment; the hour that comes twice has 60 minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """When it may happen, in minutes of the day by the wall; over midnight where ``start`` is not before ``end``."""

    start: int
    end: int

    def holds(self, wall: datetime) -> bool:
        """Return whether a time by the wall lies in it."""
        minute = wall.hour * 60 + wall.minute
        return (minute - self.start) % _DAY < ((self.end - self.start) % _DAY or _DAY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """
    What the config says of when.

    Attributes:
        every: seconds between two rotations; None for no such rule.
        fires: the cron line; None for none.
        zone: whose wall ``fires`` and ``window`` mean.
        jitter: seconds by which it may come later, drawn anew each time.
        window: when it may happen; None for always.
        max_age: seconds that a version may live.

    """

    every: float | None = None
    fires: Fires | None = None
    zone: tzinfo = UTC
    jitter: float = 0.0
    window: Window | None = None
    max_age: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """
    What is known of one credential, and when it is due.

    Attributes:
        since: since when its current version is that, as far as is known.
        lifetime: seconds after ``since`` in which it ends by itself; None for never.
        due_at: when it is due next; None for never.
        rule: the words of the config by which that was planned.

    """

    since: float
    lifetime: float | None = None
    due_at: float | None = None
    rule: str = ""


def planned(plan: Plan, timing: Timing, *, now: float, draw: float) -> Plan:
    """
    Return the plan with the next time in it.

    Args:
        plan: what is known.
        timing: the rules.
        now: the time.
        draw: a lot between 0 and 1, for the jitter.

    """
    times = tuple(_times(plan, timing, now))
    return replace(plan, due_at=min(times) + timing.jitter * draw if times else None)


def _times(plan: Plan, timing: Timing, now: float) -> Iterator[float]:
    # What is from the future was dated by a clock that has been set back.
    since = min(plan.since, now)
    if timing.every is not None:
        yield since + timing.every
    if plan.lifetime is not None:
        # Jitter must not carry it beyond its end.
        yield since + max(0.0, plan.lifetime * REPLACED_AFTER - timing.jitter)
    if timing.fires is not None and (at := next_moment(timing.fires, timing.zone, now)) is not None:
        yield at


def next_moment(fires: Fires, zone: tzinfo, after: float) -> float | None:
    """Return the next moment after ``after`` at which the wall shows a time that ``fires`` names."""
    wall: datetime | None = datetime.fromtimestamp(after, zone).replace(tzinfo=None, fold=0)
    for _ in range(_MOST_LOOKS):
        wall = None if wall is None else fires(wall)
        if wall is None:
            return None
        at = wall.replace(tzinfo=zone, fold=0).timestamp()
        if at > after:
            return at
    return None


def stands(plan: Plan, timing: Timing, now: float) -> bool:
    """
    Return whether what is planned can be right; if not, the clock was set back so far that it must be planned anew.

    One that was set back a little, within a period, repeats nothing.
    """
    if plan.due_at is None:
        return True
    latest = max(_latest(plan, timing, now), default=now)
    return plan.due_at <= latest + timing.jitter


def _latest(plan: Plan, timing: Timing, now: float) -> Iterator[float]:
    """Return, for each rule, the latest time that it can have planned, had the clock been right within a period."""
    if timing.every is not None:
        yield now + 2 * timing.every
    if plan.lifetime is not None:
        yield now + 2 * plan.lifetime
    if timing.fires is not None:
        first = next_moment(timing.fires, timing.zone, now)
        second = None if first is None else next_moment(timing.fires, timing.zone, first)
        yield now if second is None else second


def due(plan: Plan, timing: Timing, now: float) -> bool:
    """Return whether it is due and may happen now."""
    if plan.due_at is None or plan.due_at > now:
        return False
    return timing.window is None or timing.window.holds(datetime.fromtimestamp(now, timing.zone))


def too_old(plan: Plan, timing: Timing, now: float) -> bool:
    """Return whether the current version is older than the config promises."""
    return timing.max_age is not None and now - plan.since > timing.max_age
