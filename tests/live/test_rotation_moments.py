"""
A crash at every moment of a rotation, with the example program and a real PostgreSQL.

The moments are those of ``tests/rotation/world``: before and after everything that
reaches a disk or the source. PostgreSQL is asked at each end of the world whether
it takes what was handed out. With one user every second moment will do for the
suite. A campaign ends the world a second and a third time soon after:

    MCP_BROKER_ROTATION_CRASHES=300 pytest -s tests/live/test_rotation_moments.py

This module refuses to take anybody's word but PostgreSQL's.
"""

import asyncio
import itertools
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from backends.base import Secret
from broker.core.rotation import SETTLING
from broker.rotation import program
from broker.rotation.program import Asked
from tests.config.build import config
from tests.live.postgres import SUPERUSER, Postgres
from tests.rotation.world import Crash, Moments, World

pytestmark = [pytest.mark.live("postgresql"), pytest.mark.slow]

TURNS = ', generate = { alternate = { username = ["turn_a", "turn_b"] } }'
CAMPAIGN = int(os.environ.get("MCP_BROKER_ROTATION_CRASHES", "0"))
"""How many crashes there are to be, for each of the two ways; 0 for the suite's one at each moment."""

MOMENTS = 40
"""More than a rotation has."""

OLD = {"username": Secret("turn_a"), "password": Secret("old")}


class Play:
    """One world around a real source."""

    def __init__(self, directory: Path, postgres: Postgres, text: str) -> None:
        """Describe it; ``begin`` opens it."""
        directory.mkdir()
        self.postgres = postgres
        self.moments = Moments()
        self.world = World(directory, config(text), run=self._run)
        self.world.moments = self.moments

    async def _run(self, command: Sequence[str], asked: Asked, lock: Path) -> None:
        await self.moments.around(program.run(command, asked, lock))

    def works(self) -> bool:
        """Ask PostgreSQL whether it takes what is handed out now."""
        return self._logs_in(self.world.current())

    async def pending_works(self) -> bool:
        """Ask PostgreSQL whether it takes what is staged."""
        kept = await self.world.store.drawer("rotation/db").read()
        pending = {} if kept is None else json.loads(kept.expose())["pending"]
        return bool(pending) and self._logs_in({field: Secret(value) for field, value in pending.items()})

    def _logs_in(self, values: Mapping[str, Secret]) -> bool:
        return self.postgres.can_log_in(values["username"].expose(), values["password"].expose())

    async def begin(self) -> None:
        """Open it with a user who can log in."""
        self.postgres.sql("alter role turn_a login password 'old'; alter role turn_b nologin password null")
        await self.world.open()
        await self.world.store.put("db", OLD)
        await self.world.rotations.start("db", uid=0)

    async def crashed(self, distance: int) -> bool:
        """Let it go on until so many moments have passed, or to its end for 0; return whether it was ended."""
        self.moments.last = self.moments.count + distance if distance else 0
        try:
            for _ in range(4):
                await self.world.tick(after=SETTLING)
        except Crash:
            return True
        return False


def plots(*, every: int) -> Iterator[tuple[int, ...]]:
    """Yield after how many moments the world is to end, and end again: each moment once, then each with others."""
    for rounds in itertools.count():
        # The later ends come nearer to the first ones than the rotation is long, and at other distances each time.
        later = tuple(1 + (rounds * step) % 7 for step in (1, 3))[: min(rounds, 2)]
        for moment in range(1, MOMENTS, every):
            yield (moment, *later)
        if not CAMPAIGN:
            return


@pytest.mark.timeout(900 + 10 * CAMPAIGN)
@pytest.mark.parametrize("turns", [True, False], ids=["two users", "one user"])
def test_a_crash_at_every_moment(tmp_path: Path, postgres: Postgres, root: Path, *, turns: bool) -> None:
    """
    With two users what is handed out logs in at each crash; with either the end is the new password alone.

    With one, what is handed out or what is about to be logs in at each crash.
    """
    for user in ("turn_a", "turn_b"):
        postgres.sql(f"drop role if exists {user}; create role {user} nologin")
    host = str(postgres.directory) if turns else "127.0.0.1"
    words = [sys.executable, str(root / "examples/rotate-postgresql"), "--host", host, "--port", str(postgres.port)]
    words += ["--admin", SUPERUSER] if turns else []
    text = f"[secrets.db]\nrotate = {{ grace = '1m', with = {json.dumps(words)}{TURNS if turns else ''} }}"

    async def play(directory: Path, plot: tuple[int, ...]) -> list[bool]:
        """Return for each crash whether what was handed out then logged in."""
        play, worked = Play(directory, postgres, text), []
        await play.begin()
        for distance in plot:
            if not await play.crashed(distance):
                break
            worked.append(play.works())
            # In the gap that a single user has, it is the next one that works already.
            assert worked[-1] or await play.pending_works()
            await play.world.crash()
        assert not await play.crashed(0)
        end = (play.works(), play.world.rotations.courses["db"].rotation, play.world.current() == OLD)
        await play.world.close()
        assert (True, None, False) == end
        assert not postgres.can_log_in("turn_a", "old")
        return worked

    async def plays() -> tuple[int, int]:
        """Return how many crashes there were, and after how many of them nothing logged in."""
        crashes = refused = 0
        # With one user the suite takes half of the moments: the two ways differ in the source alone.
        for number, plot in enumerate(plots(every=1 if turns or CAMPAIGN else 2)):
            worked = await play(tmp_path / str(number), plot)
            crashes, refused = crashes + len(worked), refused + worked.count(False)
            if CAMPAIGN and crashes >= CAMPAIGN:
                break
        return crashes, refused

    crashes, refused = asyncio.run(plays())
    print(f"{'two users' if turns else 'one user'}: {crashes} crashes, after {refused} of them a refused login")  # noqa: T201 -- a campaign's result
    assert crashes >= (CAMPAIGN or MOMENTS // 4)
    assert not (turns and refused)
