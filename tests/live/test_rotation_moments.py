"""
A crash at every moment of a rotation, with the example program and a real PostgreSQL.

The moments are those of ``tests/rotation/world``: before and after everything that
reaches a disk or the source. PostgreSQL is asked at each end of the world whether
it takes what was handed out. With one user every second moment will
do. This module refuses to take anybody's word but PostgreSQL's.
"""

import asyncio
import json
import sys
from collections.abc import Sequence
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
OLD = {"username": Secret("turn_a"), "password": Secret("old")}


class Play:
    """One world around a real source."""

    def __init__(self, directory: Path, postgres: Postgres, text: str, last: int) -> None:
        """Have it end at one moment, or never where ``last`` is 0."""
        directory.mkdir()
        self.postgres = postgres
        self.moments = Moments()
        self.world = World(directory, config(text), run=self._run)
        self.world.moments = self.moments
        self.last = last

    async def _run(self, command: Sequence[str], asked: Asked, lock: Path) -> None:
        await self.moments.around(program.run(command, asked, lock))

    def works(self) -> bool:
        """Ask PostgreSQL whether it takes what is handed out now."""
        now = self.world.current()
        return self.postgres.can_log_in(now["username"].expose(), now["password"].expose())

    async def begin(self) -> None:
        """Open it with a user who can log in."""
        self.postgres.sql("alter role turn_a login password 'old'; alter role turn_b nologin password null")
        await self.world.open()
        await self.world.store.put("db", OLD)
        await self.world.rotations.start("db", uid=0)
        self.moments.last = self.moments.count + self.last if self.last else 0

    async def go_on(self) -> bool:
        """Let it go on to its end; return whether it was ended before."""
        try:
            for _ in range(4):
                await self.world.tick(after=SETTLING)
        except Crash:
            return True
        return False


@pytest.mark.timeout(900)
@pytest.mark.parametrize("turns", [True, False], ids=["two users", "one user"])
def test_a_crash_at_every_moment(tmp_path: Path, postgres: Postgres, root: Path, *, turns: bool) -> None:
    """With two users what is handed out logs in at each crash; with either the end is the new password alone."""
    for user in ("turn_a", "turn_b"):
        postgres.sql(f"drop role if exists {user}; create role {user} nologin")
    host = str(postgres.directory) if turns else "127.0.0.1"
    words = [sys.executable, str(root / "examples/rotate-postgresql"), "--host", host, "--port", str(postgres.port)]
    words += ["--admin", SUPERUSER] if turns else []
    text = f"[secrets.db]\nrotate = {{ grace = '1m', with = {json.dumps(words)}{TURNS if turns else ''} }}"

    async def at(moment: int) -> bool:
        play = Play(tmp_path / str(moment), postgres, text, moment)
        await play.begin()
        crashed = await play.go_on()
        between = play.works()
        if crashed:
            await play.world.crash()
            assert not await play.go_on()
        end = (play.works(), play.world.rotations.courses["db"].rotation, play.world.current() == OLD)
        await play.world.close()
        assert (True, None, False) == end
        assert between or not turns
        assert not postgres.can_log_in("turn_a", "old")
        return crashed

    async def at_each() -> int:
        moment = 1
        while await at(moment):
            # The two ways differ in the source alone: half of the moments will do for the second.
            moment += 1 if turns else 2
        return moment

    assert asyncio.run(at_each()) > 20
