"""Denials that storm. This module refuses to wait: time is a number here."""

from collections import Counter
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from broker.core.storm import BURST, MOST_UIDS, OTHERS, PERIOD, Counted, Storm

END: Final = 1e9


def offered(storm: Storm, uid: int, now: float, times: int) -> int:
    """Return how many of so many denials are to be recorded by themselves."""
    return sum(storm.offer(now, uid, "denied") for _ in range(times))


def test_the_first_denials_are_recorded_one_by_one() -> None:
    """A uid's first denials have a record each, and no more than the burst of them."""
    assert BURST == offered(Storm(), 1000, 0.0, BURST + 100)


def test_the_rest_are_counted_into_one_record() -> None:
    """What was not recorded by itself comes out as one count, from the first to the last of them."""
    storm = Storm()
    offered(storm, 1000, 0.0, BURST)
    offered(storm, 1000, 1.0, 7)
    offered(storm, 1000, 4.0, 5)
    assert [Counted(uid=1000, code="denied", count=12, first=1.0, last=4.0)] == storm.due(PERIOD)


def test_a_count_waits_for_its_period() -> None:
    """Before its period is over a count has no record."""
    storm = Storm()
    offered(storm, 1000, 0.0, BURST + 1)
    assert [] == storm.due(PERIOD - 0.001)


def test_a_count_comes_out_once() -> None:
    """What has been told is not told again."""
    storm = Storm()
    offered(storm, 1000, 0.0, BURST + 1)
    storm.due(PERIOD)
    assert [] == storm.due(2 * PERIOD)


def test_a_uid_that_goes_on_earns_no_new_burst() -> None:
    """A uid that was counted in one period has one record of its own in the next."""
    storm = Storm()
    offered(storm, 1000, 0.0, BURST + 1)
    storm.due(PERIOD)
    assert 1 == offered(storm, 1000, PERIOD + 1, 5)


def test_a_quiet_uid_earns_its_burst_back() -> None:
    """After as many periods as the burst is long without a denial, all of it is there again."""
    storm = Storm()
    offered(storm, 1000, 0.0, BURST + 1)
    storm.due(PERIOD)
    storm.due(BURST * PERIOD)
    assert BURST == offered(storm, 1000, BURST * PERIOD, BURST + 1)


def test_one_uid_hides_no_other() -> None:
    """While one uid storms, the denials of another have a record each."""
    storm = Storm()
    offered(storm, 1000, 0.0, 100_000)
    assert 3 == offered(storm, 1001, 0.0, 3)


def test_uids_beyond_those_told_apart_share_one_count() -> None:
    """A crowd of uids is told apart up to a number, and the denials of all others are counted together."""
    storm = Storm()
    for uid in range(MOST_UIDS + BURST + 9):
        storm.offer(0.0, uid, "denied")
    assert [Counted(uid=OTHERS, code="denied", count=9, first=0.0, last=0.0)] == storm.due(PERIOD)


@given(
    denials=st.lists(
        st.tuples(st.floats(0.0, 30.0), st.integers(1000, 1003), st.booleans()),
        max_size=300,
    )
)
def test_no_denial_is_lost_or_doubled(denials: list[tuple[float, int, bool]]) -> None:
    """Each denial of each uid is in a record of its own or in exactly one count, whenever the counts are asked for."""
    storm, now = Storm(), 0.0
    found: Counter[int] = Counter()
    for step, uid, ask in denials:
        now += step
        found[uid] += storm.offer(now, uid, "denied")
        if ask:
            found.update({counted.uid: counted.count for counted in storm.due(now)})
    found.update({counted.uid: counted.count for counted in storm.due(END)})
    assert Counter(uid for _, uid, _ in denials) == +found


@given(times=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=500))
def test_a_storm_costs_no_more_than_a_burst_and_a_record_a_period(times: list[float]) -> None:
    """However often one uid is denied, its records are at most one burst, and one and a count for each period."""
    storm, now, records = Storm(), 0.0, 0
    for step in times:
        now += step
        records += storm.offer(now, 1000, "denied") + len(storm.due(now))
    assert records <= BURST + 2 * (now / PERIOD)
