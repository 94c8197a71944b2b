"""
A crash at every moment of a rotation, and a failure of every step, with the source as the judge.

The moments are those between any two things that reach a disk or the source. This
module refuses to stop at one crash: what comes after it is ended, too.
"""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

import pytest

from backends.base import Secret
from broker.core.rotation import SETTLING
from tests.config.build import config
from tests.rotation.world import Crash, World

RULE: Final = 'with = ["program"], grace = "10m"'
TWO: Final = f'[secrets.db]\nrotate = {{ {RULE}, generate = {{ alternate = {{ username = ["a", "b"] }} }} }}'
ONE: Final = f"[secrets.db]\nrotate = {{ {RULE} }}"
OLD: Final = {"username": Secret("a"), "password": Secret("old")}

Scenario = Callable[[World], Coroutine[Any, Any, None]]


async def forward(world: World) -> None:
    """Replace it, and wait until it is over."""
    course = world.rotations.courses.get("db")
    if course is None or (course.rotation is None and course.outcome == ""):
        await world.rotations.start("db", uid=0)
    for _ in range(4):
        await world.tick(after=SETTLING)


async def back(world: World) -> None:
    """Begin, fail at the test, and abandon it."""
    world.source.fails = {("test", "before")}
    course = world.rotations.courses.get("db")
    if course is None or (course.rotation is None and course.outcome == ""):
        await world.rotations.start("db", uid=0)
        await world.tick()
        course = world.rotations.courses["db"]
    if course.rotation is not None and course.rotation.stage != "abandon":
        await world.rotations.abandon("db", uid=0)
    for _ in range(4):
        await world.tick(after=SETTLING)


async def lived(directory: Path, text: str, scenario: Scenario, *, crashes: tuple[int, ...]) -> tuple[World, bool]:
    """Play a scenario in a new world, ended at these moments; return the world, closed, and whether it was ended."""
    world = World(directory, config(text))
    await world.open()
    await world.store.put("db", OLD)
    world.source.logins = {"a": "old", "b": None}
    two = text is TWO

    def judge() -> None:
        if two:
            assert world.source.lets_in(world.current())

    world.moments.judge = judge
    ended = 0
    for distance in (*crashes, 0):
        world.moments.last = world.moments.count + distance if distance else 0
        try:
            await scenario(world)
        except Crash:
            ended += 1
            await world.crash()
        else:
            break
    await world.close()
    return world, ended == len(crashes)


async def legal(world: World) -> str:
    """Return at which of the two ends a world is; fail where it is at neither."""
    await world.open()
    course, staged = world.rotations.courses["db"], await world.store.drawer("rotation/db").read()
    now = {field: value.expose() for field, value in world.current().items()}
    logins = {user: password for user, password in world.source.logins.items() if password is not None}
    await world.close()
    assert (None, None) == (course.rotation, staged)
    assert {now["username"]: now["password"]} == logins
    assert course.outcome == ("abandoned" if now["password"] == "old" else "done")
    return course.outcome


def every_moment(directory: Path, text: str, scenario: Scenario) -> dict[str, int]:
    """Play a scenario with a crash at each of its moments, and with another crash soon after; count the ends."""
    ends: dict[str, int] = {}

    async def play() -> None:
        for first in range(1, 200):
            inside = False
            for second in (0, 1 + first % 5):
                home = directory / f"{first}-{second}"
                home.mkdir()
                world, inside = await lived(home, text, scenario, crashes=(first, second) if second else (first,))
                end = await legal(world)
                ends[end] = ends.get(end, 0) + 1
                assert len({token for _, token in world.source.asked}) <= 1
                if not inside:
                    break
            if not inside and not second:
                return
        raise AssertionError

    asyncio.run(play())
    return ends


@pytest.mark.parametrize("text", [TWO, ONE], ids=["two users", "one user"])
def test_a_crash_at_every_moment_of_a_rotation(tmp_path: Path, text: str) -> None:
    """Wherever it ends, it is carried on to its end, with one token; of two users one always gets in."""
    ends = every_moment(tmp_path, text, forward)
    assert {"done"} == set(ends)
    assert ends["done"] >= 40


@pytest.mark.parametrize("text", [TWO, ONE], ids=["two users", "one user"])
def test_a_crash_at_every_moment_of_a_way_back(tmp_path: Path, text: str) -> None:
    """Abandoned, it ends with the old credential in force and the new one worthless."""
    ends = every_moment(tmp_path, text, back)
    assert {"abandoned"} == set(ends)
    assert ends["abandoned"] >= 40


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", ["set", "test", "retire"])
def test_a_step_that_fails_for_a_while(tmp_path: Path, step: str, when: str) -> None:
    """The old credential stays current while a step fails, and the rotation ends when it does not fail any more."""

    async def play() -> tuple[list[bool], str, str]:
        world = World(tmp_path, config(TWO))
        await world.open()
        await world.store.put("db", OLD)
        world.source.logins = {"a": "old", "b": None}
        world.source.fails = {(step, when)}
        await world.rotations.start("db", uid=0)
        works = []
        for _ in range(10):
            await world.tick(after=3600)
            works.append(world.source.lets_in(world.current()) and (step == "retire" or world.current() == OLD))
        failing = world.rotations.courses["db"].rotation
        assert failing is not None
        stage = "set" if step == "test" else step
        world.source.fails = set()
        for _ in range(3):
            await world.tick(after=3600)
        await world.close()
        return works, failing.stage if failing.error else "", await legal(world) + stage

    works, stage, end = asyncio.run(play())
    assert ([True] * 10, "done" + stage) == (works, end)


def test_what_an_admin_puts_in_during_the_grace_is_not_retired(tmp_path: Path) -> None:
    """Back to the first user with a new password, while that user was to be retired: it goes on logging in."""

    async def play() -> tuple[bool, list[str]]:
        world = World(tmp_path, config(TWO))
        await world.open()
        await world.store.put("db", OLD)
        world.source.logins = {"a": "old", "b": None}
        await world.rotations.start("db", uid=0)
        await world.tick()
        world.source.logins["a"] = "by hand"
        await world.store.put("db", {"username": Secret("a"), "password": Secret("by hand")})
        for _ in range(3):
            await world.tick(after=3600)
        works = world.source.lets_in(world.current())
        await world.close()
        return works, world.audit.events()

    works, events = asyncio.run(play())
    assert (True, "done") == (works, events[-1])


def test_what_an_admin_puts_in_before_the_source_is_told_stays(tmp_path: Path) -> None:
    """Changed by hand while the source was away, the secret is not overwritten, and an admin has to say what counts."""

    async def play() -> tuple[str | None, str, list[str]]:
        world = World(tmp_path, config(TWO))
        await world.open()
        await world.store.put("db", OLD)
        world.source.logins = {"a": "old", "b": None}
        world.source.fails = {("set", "before")}
        await world.rotations.start("db", uid=0)
        await world.tick()
        world.source.fails = set()
        await world.store.put("db", {"username": Secret("a"), "password": Secret("by hand")})
        world.source.logins["a"] = "by hand"
        await world.tick(after=3600)
        rotation = world.rotations.courses["db"].rotation
        await world.rotations.abandon("db", uid=0)
        await world.tick()
        password = world.current()["password"].expose()
        await world.close()
        return rotation.error if rotation else None, password, [step for step, _ in world.source.asked]

    error, password, steps = asyncio.run(play())
    assert "it was changed while it was being replaced" == error
    assert ("by hand", ["set", "abandon"]) == (password, steps)


def test_abandoned_it_is_not_due_again_at_once(tmp_path: Path) -> None:
    """What was given up is tried again in a period, not in the next second."""

    async def play() -> list[str]:
        world = World(tmp_path, config(TWO.replace("rotate = {", 'rotate = { every = "1d",')))
        await world.open()
        await world.store.put("db", OLD)
        world.source.logins = {"a": "old", "b": None}
        world.source.fails = {("set", "before")}
        await world.tick()
        await world.tick(after=86400)
        await world.rotations.abandon("db", uid=0)
        for _ in range(20):
            await world.tick(after=3600)
        await world.close()
        return world.audit.events()

    assert ["begun", "failed", "abandoning", "abandoned"] == asyncio.run(play())
