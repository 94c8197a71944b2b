"""How long a value may be served without its source. This module refuses to wait: time is a number here."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.freshness import CAP, FLOOR, Confirmed, Moment, quiet_for


@pytest.mark.parametrize(
    ("wall", "monotonic", "ttl", "stale", "expected"),
    [
        (0.0, 0.0, None, 300.0, True),
        (299.0, 299.0, None, 300.0, True),
        (300.0, 300.0, None, 300.0, False),
        (0.0, 0.0, None, 0.0, False),
        (59.0, 59.0, 60.0, 300.0, True),
        (60.0, 60.0, 60.0, 300.0, False),
        (60.0, 60.0, 600.0, 60.0, False),
        (-9000.0, 299.0, None, 300.0, True),
        (-9000.0, 300.0, None, 300.0, False),
        (9000.0, 10.0, None, 300.0, False),
    ],
    ids=[
        "just confirmed",
        "a second before",
        "over",
        "never wanted",
        "within its own time",
        "past its own time",
        "its own time is longer",
        "a clock that was set back",
        "a clock that was set back makes it no longer",
        "a machine that slept",
    ],
)
def test_a_value_is_served_for_so_long(
    wall: float, monotonic: float, ttl: float | None, stale: float, *, expected: bool
) -> None:
    """A value is served as long as the config allows and its source promised, by the clock that says more."""
    confirmed = Confirmed(Moment(1000.0, 50.0), ttl)
    assert expected == confirmed.servable(Moment(1000.0 + wall, 50.0 + monotonic), stale)


@given(failures=st.integers(1, 10_000), jitter=st.floats(0.0, 1.0))
def test_a_silent_source_is_left_alone_for_a_while(failures: int, jitter: float) -> None:
    """However often it was silent, a source is asked again after the floor at the earliest, the cap at the latest."""
    assert FLOOR <= quiet_for(failures, jitter=jitter) <= CAP


def test_it_is_left_alone_for_longer_each_time() -> None:
    """Without jitter each time is twice as long as the one before, up to the cap."""
    assert [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0] == [quiet_for(number, jitter=1.0) for number in range(1, 8)]
