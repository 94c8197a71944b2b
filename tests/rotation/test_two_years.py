"""
Two years of rotations under a clock that jumps: suspends, clocks set back and forward, daylight saving.

Each rotation is written down at the time at which the world really is, which the
broker's clock need not show. This module refuses to know how a time is planned:
it counts what happens in each period.
"""

import asyncio
import itertools
import random
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import pytest

from backends.base import Secret
from tests.config.build import config
from tests.rotation.world import World

BERLIN: Final = ZoneInfo("Europe/Berlin")
HOUR: Final = 3600.0
DAY: Final = 24 * HOUR
BEGIN: Final = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
TWO_YEARS: Final = 730 * DAY


def years(
    directory: Path, rule: str, *, naps: list[tuple[float, float]] | None = None, step: float = HOUR
) -> list[float]:
    """
    Let two years pass; return when the secret was replaced.

    Args:
        directory: where the disk is.
        rule: what ``rotate`` says besides its program.
        naps: when, in seconds from the beginning, the machine sleeps, and how long.
        step: seconds between two looks.

    """
    naps = sorted(naps or [])
    world = World(directory, config(f"[secrets.db]\nrotate = {{ generate = {{ }}, grace = 0, {rule} }}"))
    world.now = BEGIN
    chance = random.Random(rule)  # noqa: S311 -- nobody is to be surprised
    world.draw = chance.random
    found: list[float] = []

    async def play() -> None:
        await world.open()
        await world.store.put("db", {"username": Secret("a"), "password": Secret("old")})
        world.source.logins = {"a": "old"}
        await world.tick()
        version = 1
        while world.now < BEGIN + TWO_YEARS:
            after = step
            while naps and BEGIN + naps[0][0] <= world.now + after:
                after += naps.pop(0)[1]
            await world.tick(after=after)
            newest = (await world.store.versions("db"))[0].number
            found.extend([world.now] * (newest - version))
            version = newest
        await world.close()

    asyncio.run(play())
    return found


def days(moments: list[float], zone: ZoneInfo) -> Counter[str]:
    """Count the moments by the day that the wall shows."""
    return Counter(datetime.fromtimestamp(each, zone).date().isoformat() for each in moments)


def test_every_day_by_the_wall(tmp_path: Path) -> None:
    """A line for half past two has one replacement on each of 730 days, on those too on which the clocks change."""
    found = years(tmp_path, 'cron = "30 2 * * *", timezone = "Europe/Berlin"', step=2 * HOUR)
    counted = days(found, BERLIN)
    assert (730, {1}) == (len(counted), set(counted.values()))


def test_every_ten_days(tmp_path: Path) -> None:
    """An interval of ten days has 73 replacements in two years, each ten days after the one before."""
    found = years(tmp_path, 'every = "10d"')
    gaps = {round((later - earlier) / HOUR) for earlier, later in itertools.pairwise(found)}
    assert (73, {240}) == (len(found), gaps)


def test_jitter_only_delays(tmp_path: Path) -> None:
    """With a day of jitter each comes between ten and eleven days after the one before."""
    found = years(tmp_path, 'every = "10d", jitter = "1d"')
    gaps = [(later - earlier) / DAY for earlier, later in itertools.pairwise(found)]
    assert [] == [gap for gap in gaps if not 10 <= gap <= 11.1]
    assert max(gaps) - min(gaps) > 0.3


def test_a_window_is_kept(tmp_path: Path) -> None:
    """All of them happen between two and five by the wall, in summer and in winter."""
    found = years(tmp_path, 'every = "7d", window = "02:00-05:00", timezone = "Europe/Berlin"')
    hours = {datetime.fromtimestamp(each, BERLIN).hour for each in found}
    assert (True, True) == (hours <= {2, 3, 4}, len(found) >= 90)


def test_naps(tmp_path: Path) -> None:
    """
    A machine that sleeps through many of its times makes up for them once, when it wakes.

    On each day on which it was awake for its time there is one replacement; after
    a nap over one or more of them there is one within an hour.
    """
    chance = random.Random(6)  # noqa: S311
    naps = [(day * DAY + chance.random() * DAY, chance.uniform(0.2, 6) * DAY) for day in range(5, 720, 10)]
    found = years(tmp_path, 'cron = "0 3 * * *"', naps=naps)
    counted = days(found, ZoneInfo("UTC"))
    assert [] == [day for day, count in counted.items() if count > 2]
    missed = []
    for start, length in naps:
        begin, end = BEGIN + start, BEGIN + start + length
        slept_through = [day for day in range(740) if begin < BEGIN + day * DAY + 3 * HOUR <= end]
        made_up = [each for each in found if end - HOUR <= each <= end + HOUR]
        # Who wakes within an hour of a regular time has that one, too: it was not missed, and is not left out.
        regular = [day for day in range(740) if abs(BEGIN + day * DAY + 3 * HOUR - end) <= HOUR]
        if slept_through and not 1 <= len(made_up) <= (2 if regular else 1):
            missed.append(start)
    assert [] == missed
    asleep = {
        day
        for day in range(731)
        for start, length in naps
        if start - HOUR < day * DAY + 3 * HOUR < start + length + HOUR
    }
    awake = [day for day in range(729) if day not in asleep]
    dates = [datetime.fromtimestamp(BEGIN + day * DAY, UTC).date().isoformat() for day in awake]
    assert [] == [date for date in dates if not counted[date]]


@pytest.mark.parametrize(
    ("rule", "at_most"),
    [('every = "10d"', 21 * DAY), ('cron = "0 3 * * *"', 3 * DAY), ('cron = "0 3 * * sun"', 15 * DAY)],
)
def test_clocks_that_jump(tmp_path: Path, rule: str, at_most: float) -> None:
    """
    Set forward by years and back, by hours, or by minutes, the clock stops nothing for longer than two periods.

    What had gone by of a period when the clock was set back by years is lost: nobody
    knows what time it was. Set back by less than a period, nothing is done twice.
    """

    async def play() -> tuple[list[float], int]:
        world = World(tmp_path, config(f"[secrets.db]\nrotate = {{ generate = {{ }}, grace = 0, {rule} }}"))
        world.now, real = BEGIN, 0.0
        await world.open()
        await world.store.put("db", {"username": Secret("a"), "password": Secret("old")})
        version, found = 1, []
        doubled = 0
        jumps = {100: 5 * 365 * DAY, 110: -5 * 365 * DAY, 300: -HOUR, 500: 40 * DAY, 501: -40 * DAY, 600: -300.0}
        for day in range(730):
            jump = jumps.get(day, 0.0)
            before = version
            world.now += jump
            for _ in range(12):
                await world.tick(after=2 * HOUR)
                real += 2 * HOUR
                newest = (await world.store.versions("db"))[0].number
                found.extend([real] * (newest - version))
                version = newest
            if jump in {-HOUR, -300.0}:
                doubled += max(0, version - before - 1)
        await world.close()
        return found, doubled

    found, doubled = asyncio.run(play())
    gaps = [later - earlier for earlier, later in zip([0.0, *found], [*found, 730 * DAY], strict=True)]
    assert ([], 0) == ([gap / DAY for gap in gaps if gap > at_most], doubled)
