"""
Giving back to a backend that fails.

The clock that is waited by is a number here, so that attempts over days are
counted in a moment. This module refuses to ask a real backend.
"""

import asyncio
from collections import Counter
from itertools import pairwise
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from broker.core.model import Lease
from broker.revoker import CAP, FLOOR, IRREVOCABLE, Revoker, wait_before

DAY: Final = 86400


def lease(accessor: str, backend_lease: str = "") -> Lease:
    """Return a lease that is to be given back."""
    return Lease(
        accessor=accessor,
        secret="s",
        server="app",
        backend="b",
        process=None,
        uid=1000,
        issued_at=0.0,
        expires_at=90.0,
        ttl=90.0,
        backend_lease=backend_lease or f"at-the-backend-{accessor}",
    )


class Stage:
    """A revoker, its backend, and the time."""

    def __init__(self) -> None:
        """Begin at 0 with a backend that is away."""
        self.now = 0.0
        self.away = True
        self.asked: list[tuple[float, str]] = []
        self.done: list[str] = []
        self.failed: list[tuple[str, int]] = []
        self.revoker = Revoker(
            self._revoke,
            lambda lease, _: self.done.append(lease.accessor),
            lambda lease, attempts, _: self.failed.append((lease.accessor, attempts)),
            clock=lambda: self.now,
            monotonic=lambda: self.now,
        )

    async def _revoke(self, lease: Lease) -> None:
        self.asked.append((self.now, lease.accessor))
        if self.away:
            message = "it is away"
            raise ConnectionError(message)

    async def passes(self, seconds: int) -> None:
        """Let so many seconds pass, one by one, as the scheduler does."""
        for _ in range(seconds):
            self.now += 1.0
            self.revoker.tick()
            for _ in range(2):
                await asyncio.sleep(0)


def test_no_loop_is_hot() -> None:
    """In a day of a backend that is away one lease is tried some three hundred times, never twice within a second."""

    async def story() -> list[float]:
        stage = Stage()
        stage.revoker.add(lease("a"))
        await stage.passes(DAY)
        return [when for when, _ in stage.asked]

    times = asyncio.run(story())
    gaps = [later - sooner for sooner, later in pairwise(times)]
    assert (True, True, True) == (280 < len(times) < 620, min(gaps) >= FLOOR, max(gaps) <= CAP + 1)


def test_after_six_failures_it_is_irrevocable_and_tried_all_the_same() -> None:
    """The first failure and the sixth are told, it is shown from the sixth on, and given back in the end."""

    async def story() -> tuple[list[tuple[str, int]], float | None, int, list[str]]:
        stage = Stage()
        stage.revoker.add(lease("a"))
        await stage.passes(10)
        assert [] == stage.revoker.irrevocable()
        await stage.passes(3600)
        shown = stage.revoker.irrevocable()[0]
        stage.away = False
        await stage.passes(int(CAP) + 1)
        return stage.failed, shown.since, len(stage.revoker), stage.done

    assert ([("a", 1), ("a", IRREVOCABLE)], 1.0, 0, ["a"]) == asyncio.run(story())


def test_what_is_about_one_thing_is_given_back_once() -> None:
    """Three leases that name one thing at their backend are one attempt, and all of them are done with it."""

    async def story() -> tuple[int, list[str]]:
        stage = Stage()
        stage.away = False
        for name in ("a", "b", "c", "a"):
            stage.revoker.add(lease(name, "shared"))
        await stage.passes(1)
        return len(stage.asked), stage.done

    assert (1, ["a", "b", "c"]) == asyncio.run(story())


@given(attempts=st.integers(1, 10_000), jitter=st.floats(0.0, 1.0))
def test_the_wait_has_a_floor_and_a_cap(attempts: int, jitter: float) -> None:
    """However often it has failed, the next attempt is neither sooner than the floor nor later than the cap."""
    assert FLOOR <= wait_before(attempts, jitter=jitter) <= CAP


def test_a_thousand_leases_do_not_come_back_together() -> None:
    """A thousand leases that failed for an hour are spread over minutes: no second has more than a few dozen."""

    async def story() -> Counter[float]:
        stage = Stage()
        for number in range(1000):
            stage.revoker.add(lease(f"{number}"))
        await stage.passes(3600)
        stage.away, stage.asked = False, []
        await stage.passes(int(CAP) + 1)
        return Counter(when for when, _ in stage.asked)

    counted = asyncio.run(story())
    assert (1000, True) == (sum(counted.values()), max(counted.values()) < 40)
