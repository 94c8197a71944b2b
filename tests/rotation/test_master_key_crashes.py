"""
A crash at every moment of the replacement of the master key, and further ones soon after.

What is on disk at that moment is copied, as a killed process would leave it, and
everything goes on from the copy. The judge is the sealed store: does it open, with
what is there, and hold the value? This module refuses to let a store tidy up before it ends.
"""

import asyncio
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from backends.base import Secret
from backends.master_key import KeyFile
from tests.backends.places import get
from tests.config.build import config
from tests.rotation.world import Crash, World

OFTEN: Final = 12 if "MCP_BROKER_ROTATION_CRASHES" in os.environ else 1
"""After how many different times each first crash is followed by a second one, and that by a third."""

NAME: Final = "backends.local"
MOST: Final = 100


async def until_crash(directory: Path, text: str, distance: int, after: Path) -> bool:
    """Go on from a directory; end so many moments later, leaving what is on disk in ``after``; say whether it ended."""
    world = World(directory, config(text))
    await world.open()
    await world.store.put("db", {"value": Secret("value")})
    course = world.rotations.courses.get(NAME)
    if course is None or (course.rotation is None and course.outcome == ""):
        await world.rotations.start(NAME, uid=0)
    world.moments.count, world.moments.last = 0, distance

    def leave() -> None:
        if world.moments.count == distance:
            shutil.copytree(directory, after)

    world.moments.judge = leave
    try:
        for _ in range(3):
            await world.tick(after=3600)
    except Crash:
        return True
    finally:
        await world.close()
    return False


def opens(directory: Path, copy: Path) -> None:
    """Fail where the store does not open with what is there; judged in a copy, because opening may tidy up."""
    shutil.copytree(directory, copy)
    with ThreadPoolExecutor(1) as pool:
        assert "value" == pool.submit(get, copy, "db", KeyFile(copy / "master.key")).result()


async def played(directory: Path, text: str, plot: tuple[int, ...]) -> int:
    """Play one plot of crashes to its end; return how many there were."""
    home, crashes = directory / "0", 0
    home.mkdir(parents=True)
    for distance in plot:
        after = directory / str(crashes + 1)
        if not await until_crash(home, text, distance, after):
            break
        opens(after, directory / f"{crashes}-judged")
        home, crashes = after, crashes + 1
    assert not await until_crash(home, text, 0, directory / "never")
    world = World(home, config(text))
    await world.open()
    course = world.rotations.courses[NAME]
    await world.close()
    keys = sorted(path.name for path in home.glob("master.key*"))
    assert (None, "done", ["master.key"]) == (course.rotation, course.outcome, keys)
    opens(home, directory / "judged")
    return crashes


@pytest.mark.parametrize("reencrypt", ["false", "true"])
def test_a_crash_at_every_moment(tmp_path: Path, reencrypt: str) -> None:
    """Wherever it ends, and ends again, the store opens with what is there, and the end is one key alone."""
    text = f'[backends.local]\nrotate = {{ every = "90d", reencrypt = {reencrypt} }}'

    async def play() -> tuple[int, int]:
        crashes = 0
        for first in range(1, MOST):
            for other in range(OFTEN):
                second = 1 + (first + other) % 12
                plot = (first, second, 1 + (first * 5 + other) % 7)
                found = await played(tmp_path / f"{first}-{other}", text, plot)
                if not found:
                    return first - 1, crashes
                crashes += found
        raise AssertionError

    moments, crashes = asyncio.run(play())
    print(f"reencrypt = {reencrypt}: {moments} moments, {crashes} crashes")  # noqa: T201 -- a campaign's result
    assert moments >= 9
    assert crashes >= moments * OFTEN
