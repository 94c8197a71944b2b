"""One uid's share. This module refuses to wait: time is a number here."""

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.limits import RateLimit

REMEMBERED: Final = 4096


def taken(limit: RateLimit, uid: int, now: float, times: int) -> int:
    """Return how many of so many requests at once are let through."""
    return sum(limit.take(uid, now) for _ in range(times))


@pytest.mark.parametrize(
    ("rate", "times", "expected"),
    [(0, 10_000, 10_000), (1, 5, 1), (5, 5, 5), (5, 9, 5)],
    ids=["no limit", "one a second", "as many as the rate", "more than the rate"],
)
def test_as_many_at_once_as_the_rate_says(rate: int, times: int, expected: int) -> None:
    """At one moment a uid gets as many requests through as its rate is, and all of them where there is no limit."""
    assert expected == taken(RateLimit(rate), 1000, 0.0, times)


def test_what_was_used_comes_back_with_time() -> None:
    """A bucket that is empty has half its requests again after half a second."""
    limit = RateLimit(10)
    taken(limit, 1000, 0.0, 10)
    assert 5 == taken(limit, 1000, 0.5, 10)


def test_a_quiet_uid_saves_no_more_than_a_second() -> None:
    """However long a uid was quiet, it has one second's requests at once and no more."""
    limit = RateLimit(10)
    taken(limit, 1000, 0.0, 10)
    assert 10 == taken(limit, 1000, 3600.0, 100)


def test_one_uid_takes_nothing_from_another() -> None:
    """A uid whose share is used up leaves another's untouched."""
    limit = RateLimit(3)
    taken(limit, 1000, 0.0, 100)
    assert 3 == taken(limit, 1001, 0.0, 100)


def test_a_refused_request_costs_nothing() -> None:
    """Who goes on asking while refused has the next request when it is due, not later."""
    limit = RateLimit(2)
    taken(limit, 1000, 0.0, 2)
    refused = taken(limit, 1000, 0.25, 50)
    assert (0, 1) == (refused, taken(limit, 1000, 0.5, 50))


def test_uids_beyond_those_remembered_begin_anew() -> None:
    """More uids than are remembered push out the first, which then begins with a full share."""
    limit = RateLimit(1)
    for uid in range(REMEMBERED + 1):
        limit.take(uid, 0.0)
    assert (True, False) == (limit.take(0, 0.0), limit.take(REMEMBERED, 0.0))


@given(rate=st.integers(1, 50), steps=st.lists(st.floats(0.0, 2.0), max_size=200))
def test_no_stretch_of_time_lets_more_through_than_its_share(rate: int, steps: list[float]) -> None:
    """From the first request on, what got through is at most the rate times the seconds, and one burst."""
    limit, now, through = RateLimit(rate), 0.0, 0
    for step in steps:
        now += step
        through += limit.take(1000, now)
    assert through <= rate * now + rate + 1e-6
