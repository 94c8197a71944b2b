"""When something is due: intervals, cron lines, windows, clocks that jump, and the days on which they change."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

import pytest
from apscheduler.triggers.cron import CronTrigger

from broker.core.schedule import Fires, Plan, Timing, Window, due, next_moment, planned, stands, too_old

BERLIN: Final = ZoneInfo("Europe/Berlin")
DAY: Final = 86400.0


def cron(line: str) -> Fires:
    """Return what a cron line names, by the wall."""
    trigger = CronTrigger.from_crontab(line, timezone=UTC)

    def fires(wall: datetime) -> datetime | None:
        after = wall.replace(tzinfo=UTC) + timedelta(microseconds=1)
        found: datetime | None = trigger.get_next_fire_time(None, after)
        return None if found is None else found.replace(tzinfo=None)

    return fires


def at(text: str, zone: tzinfo = UTC) -> float:
    """Return a moment given by the wall."""
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


def shown(moment: float | None, zone: tzinfo = UTC) -> str:
    """Return what the wall shows at a moment."""
    return "never" if moment is None else datetime.fromtimestamp(moment, zone).isoformat(" ", "minutes")


def moments(line: str, first: str, count: int) -> list[str]:
    """Return the next moments that a line names in Berlin."""
    after, found = at(first, BERLIN), []
    for _ in range(count):
        moment = next_moment(cron(line), BERLIN, after)
        assert moment is not None
        found.append(shown(moment, BERLIN))
        after = moment
    return found


def test_a_time_that_the_clock_leaves_out_comes_once() -> None:
    """Half past two does not exist on the last Sunday of March: it is half past three then."""
    expected = ["2026-03-28 02:30+01:00", "2026-03-29 03:30+02:00", "2026-03-30 02:30+02:00"]
    assert expected == moments("30 2 * * *", "2026-03-28T00:00", 3)


def test_a_time_that_comes_twice_counts_once() -> None:
    """Half past two comes twice on the last Sunday of October: the first one counts."""
    expected = ["2026-10-24 02:30+02:00", "2026-10-25 02:30+02:00", "2026-10-26 02:30+01:00"]
    assert expected == moments("30 2 * * *", "2026-10-24T00:00", 3)


def test_from_within_the_hour_that_comes_twice() -> None:
    """Asked between the two, the answer is the next day."""
    # A quarter past two for the second time.
    between = at("2026-10-25T01:15")
    assert "2026-10-26 02:30+01:00" == shown(next_moment(cron("30 2 * * *"), BERLIN, between), BERLIN)


def test_every_minute_goes_on_over_both() -> None:
    """A line of many moments never stops, and no moment comes twice."""
    for day, last in (("2026-03-29", "04:00+02:00"), ("2026-10-25", "04:00+01:00")):
        found = moments("*/10 * * * *", f"{day}T01:55", 60)
        assert len(set(found)) == 60
        assert f"{day} {last}" in found


def test_a_line_that_never_comes() -> None:
    """The thirtieth of February is never."""
    assert None is next_moment(cron("0 0 30 2 *"), UTC, 0.0)


@pytest.mark.parametrize(
    ("plan", "timing", "expected"),
    [
        (Plan(since=100.0), Timing(), None),
        (Plan(since=100.0), Timing(every=DAY), 100.0 + DAY),
        (Plan(since=100.0), Timing(every=DAY, jitter=1000.0), 600.0 + DAY),
        (Plan(since=9000.0), Timing(every=DAY), 1000.0 + DAY),
        (Plan(since=-10 * DAY), Timing(every=DAY), -9 * DAY),
        (Plan(since=100.0, lifetime=900.0), Timing(), 700.0),
        (Plan(since=100.0, lifetime=900.0), Timing(every=60.0), 160.0),
        (Plan(since=100.0, lifetime=900.0), Timing(jitter=100.0), 650.0),
        (Plan(since=100.0, lifetime=900.0), Timing(jitter=1e6), 100.0 + 5e5),
        (Plan(since=100.0), Timing(fires=cron("30 * * * *")), 1800.0),
    ],
)
def test_what_is_planned(plan: Plan, timing: Timing, expected: float | None) -> None:
    """The earliest of the rules counts, jitter comes on top, and a version from the future is one of now."""
    assert expected == planned(plan, timing, now=1000.0, draw=0.5).due_at


def test_what_was_missed_comes_once() -> None:
    """A machine that slept for ten days rotates when it wakes, and then in a day."""
    timing = Timing(every=DAY)
    plan = planned(Plan(since=0.0), timing, now=0.0, draw=0.0)
    awake = 10 * DAY + 5
    assert due(plan, timing, awake)
    after = planned(replace(plan, since=awake), timing, now=awake, draw=0.0)
    assert (False, awake + DAY) == (due(after, timing, awake), after.due_at)


@pytest.mark.parametrize(
    ("wall", "start", "end", "expected"),
    [
        ("02:00", 120, 300, True),
        ("04:59", 120, 300, True),
        ("05:00", 120, 300, False),
        ("01:59", 120, 300, False),
        ("23:00", 1320, 240, True),
        ("03:59", 1320, 240, True),
        ("04:00", 1320, 240, False),
        ("21:59", 1320, 240, False),
        ("13:13", 300, 300, True),
    ],
)
def test_a_window(wall: str, start: int, end: int, *, expected: bool) -> None:
    """It holds from its start up to its end, over midnight too, and all day where both are the same."""
    assert expected == Window(start=start, end=end).holds(datetime.fromisoformat(f"2026-01-01T{wall}"))


def test_what_is_due_waits_for_its_window() -> None:
    """Due at noon, it happens at two in the morning by the wall that is meant."""
    timing = Timing(every=DAY, window=Window(start=120, end=300), zone=BERLIN)
    plan = Plan(since=0.0, due_at=at("2026-07-01T12:00", BERLIN))
    found = [
        due(plan, timing, at(text, BERLIN)) for text in ("2026-07-01T03:00", "2026-07-01T12:00", "2026-07-02T02:00")
    ]
    assert [False, False, True] == found


def test_a_clock_set_back_a_little_repeats_nothing() -> None:
    """What was done at three is not done again because it is five to three once more."""
    timing = Timing(fires=cron("0 3 * * *"))
    three = at("2026-01-01T03:00")
    plan = planned(Plan(since=three), timing, now=three + 5, draw=0.0)
    assert ("2026-01-02 03:00+00:00", True) == (shown(plan.due_at), stands(plan, timing, three - 300))


@pytest.mark.parametrize("timing", [Timing(every=DAY), Timing(fires=cron("0 3 * * *"))])
def test_a_clock_set_back_by_years_is_noticed(timing: Timing) -> None:
    """What was planned by a clock of 2036 does not wait until 2036."""
    plan = planned(Plan(since=at("2036-01-01T00:00")), timing, now=at("2036-01-01T00:00"), draw=0.0)
    now = at("2026-01-01T00:00")
    again = planned(plan, timing, now=now, draw=0.0)
    assert (False, True) == (stands(plan, timing, now), stands(again, timing, now))
    assert again.due_at is not None
    assert again.due_at <= now + DAY


def test_what_is_never_due_stands() -> None:
    """Without a time nothing is due, whatever the clock says."""
    plan = Plan(since=0.0)
    assert (True, False) == (stands(plan, Timing(), 1e9), due(plan, Timing(), 1e9))


def test_a_lifetime_is_planned_anew_after_years_back() -> None:
    """A token's end in the far future is no reason to wait for it."""
    plan = Plan(since=1e9, lifetime=3600.0, due_at=1e9 + 2400)
    assert (True, False) == (stands(plan, Timing(), 1e9 - 60), stands(plan, Timing(), 1e9 - DAY))


def test_a_line_without_a_next_moment_plans_nothing() -> None:
    """A line that never comes leaves nothing to wait for, and what was planned before falls."""
    timing = Timing(fires=cron("0 0 30 2 *"))
    assert None is planned(Plan(since=0.0), timing, now=0.0, draw=0.0).due_at
    assert not stands(Plan(since=0.0, due_at=5.0), timing, 0.0)


def test_age_is_a_promise() -> None:
    """Older than promised is too old; without a promise nothing is."""
    plan = Plan(since=0.0)
    found = [
        too_old(plan, Timing(max_age=DAY), DAY),
        too_old(plan, Timing(max_age=DAY), DAY + 1),
        too_old(plan, Timing(), 1e12),
    ]
    assert [False, True, False] == found


def test_a_line_that_goes_in_circles_ends() -> None:
    """Whatever names the times, the search for the next one ends."""
    assert None is next_moment(lambda _: datetime(1999, 1, 1), UTC, 1e9)  # noqa: DTZ001 -- by the wall
