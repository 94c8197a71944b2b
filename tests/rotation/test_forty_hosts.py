"""Forty brokers with the same entry, and one secret that they share."""

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from backends.base import Credential, Secret
from backends.rotating import Staged
from broker.rotation.staged import TAKEN_OVER_AFTER
from tests.config.build import config
from tests.fakes.shared_store import Cupboard, SharedStore
from tests.rotation.world import START, Crash, World

HOSTS: Final = 40
DAY: Final = 86400.0
CONFIG: Final = """
[backends.shared]
type = "vault"
[secrets.db]
backend = "shared"
path = "kv/db"
rotate = { every = "10d", grace = "1h", with = ["program"], generate = { alternate = { username = ["a", "b"] } } }
"""


class Hosts:
    """Brokers with journals and clocks of their own, a source and a cupboard that they share."""

    def __init__(self, directory: Path, count: int) -> None:
        """Describe them."""
        self.now = START
        self.cupboard = Cupboard(lambda: self.now)
        self.worlds = []
        for number in range(count):
            home = directory / str(number)
            home.mkdir()
            world = World(home, config(CONFIG))
            world.others = {"shared": SharedStore("shared", self.cupboard)}
            self.worlds.append(world)
        # One source for all: the moments of the first are those of everybody.
        self.source = self.worlds[0].source
        self.moments = self.worlds[0].moments
        for world in self.worlds:
            world.source = self.source
            world._run = self.source.run  # noqa: SLF001 -- the worlds are ours

    async def open(self) -> None:
        """Open all of them, with a first version."""
        self.source.logins = {"a": "old", "b": None}
        self.cupboard.versions["kv/db"] = [(self.now, {"username": Secret("a"), "password": Secret("old")})]
        self.moments.judge = self._judge
        for world in self.worlds:
            await world.open()

    def _judge(self) -> None:
        """Make sure that what everybody is issued logs in."""
        assert self.source.lets_in(self.cupboard.versions["kv/db"][-1][1])

    async def tick(self, *, after: float = 0.0) -> None:
        """Let time pass for all of them, and have all do at once what is due."""
        self.now += after
        for world in self.worlds:
            world.now = self.now
        await asyncio.gather(*(world.tick() for world in self.worlds))

    async def close(self) -> None:
        """Close all of them."""
        for world in self.worlds:
            await world.close()

    def events(self) -> list[str]:
        """Return what happened, on whichever host."""
        return [event for world in self.worlds for event in world.audit.events()]


async def played(hosts: Hosts, ticks: list[float]) -> dict[str, Any]:
    """Let so much time pass between ticks; return what was done."""
    for after in ticks:
        await hosts.tick(after=after)
    steps = [step for step, _ in hosts.source.asked]
    return {
        "versions": len(hosts.cupboard.versions["kv/db"]),
        "sets": steps.count("set"),
        "retired": steps.count("retire"),
        "staged": len(hosts.cupboard.staged),
    }


def test_forty_hosts_replace_it_once(tmp_path: Path) -> None:
    """All find it due in the same second: one wins, the others follow, and the source hears of one new value."""

    async def play() -> tuple[dict[str, Any], list[str]]:
        hosts = Hosts(tmp_path, HOSTS)
        await hosts.open()
        found = await played(hosts, [0.0, 10 * DAY, *[61.0] * 5])
        early = found["retired"]
        found = await played(hosts, [3600.0, 61.0, 61.0])
        await hosts.close()
        return found | {"early": early}, hosts.events()

    found, events = asyncio.run(play())
    assert {"versions": 2, "sets": 1, "retired": 1, "staged": 0, "early": 0} == found
    assert (1, 1) == (events.count("promoted"), events.count("done"))
    assert events.count("followed") >= 1


def test_a_hundred_days_are_ten_replacements(tmp_path: Path) -> None:
    """Period after period there is one replacement for all of them together."""

    async def play() -> dict[str, Any]:
        hosts = Hosts(tmp_path, 5)
        await hosts.open()
        found = await played(hosts, [3600.0] * (24 * 105))
        await hosts.close()
        return found

    found = asyncio.run(play())
    assert (11, 10, 10) == (found["versions"], found["sets"], found["retired"])


def test_another_host_carries_on_what_one_left_behind(tmp_path: Path) -> None:
    """The winner vanishes for good at any moment: after an hour another takes over, with the value that was staged."""

    async def play(directory: Path, moment: int) -> bool:
        directory.mkdir()  # noqa: ASYNC240 -- nobody else waits
        hosts = Hosts(directory, 2)
        await hosts.open()
        first, second = hosts.worlds
        await hosts.tick()
        await first.rotations.start("db", uid=0)
        await first.rotations.close()
        await first.rotations_again()
        hosts.moments.last = hosts.moments.count + moment
        with contextlib.suppress(Crash):
            await first.tick()
        vanished, hosts.moments.last = hosts.moments.count == hosts.moments.last, 0
        left = hosts.cupboard.staged.get("kv/db")
        hosts.worlds = [second]
        period = [10 * DAY + TAKEN_OVER_AFTER, 61.0, 61.0, 3601.0, 61.0]
        # What was promoted already is retired by whoever comes next.
        found = await played(hosts, period * 2)
        versions = hosts.cupboard.versions["kv/db"]
        await first.close()
        await second.close()
        assert found["staged"] == 0
        assert left is None or versions[1][1] == left.pending
        return vanished

    async def at_each_moment() -> int:
        moment = 1
        while await play(tmp_path / str(moment), moment):
            moment += 1
        return moment

    assert asyncio.run(at_each_moment()) > 10


def test_what_others_have_done_meanwhile_is_noticed_before_the_source_is_told(tmp_path: Path) -> None:
    """
    Between a host's look and its claim another one replaces the secret from beginning to end.

    The first gives its claim back and follows; a value that it had made is told nobody.
    """

    async def play() -> tuple[list[str], dict[str, Any]]:
        hosts = Hosts(tmp_path, 2)
        await hosts.open()
        first, second = hosts.worlds
        await hosts.tick()
        shared = SlowStore(hosts.cupboard)
        first.others["shared"] = shared
        await first.rotations.close()
        await first.rotations_again()
        shared.slow = True
        await first.rotations.start("db", uid=0)
        await shared.looked.wait()
        await second.rotations.start("db", uid=0)
        hosts.worlds = [second]
        await played(hosts, [0.0, 3601.0])
        shared.go_on.set()
        hosts.worlds = [first, second]
        found = await played(hosts, [0.0])
        await hosts.close()
        return first.audit.events(), found

    events, found = asyncio.run(play())
    assert (["begun", "followed"], 2, 1, 0) == (events, found["versions"], found["sets"], found["staged"])


class SlowStore(SharedStore):
    """A way to the cupboard on which a look takes long, once."""

    def __init__(self, cupboard: Cupboard) -> None:
        """Be quick."""
        super().__init__("shared", cupboard)
        self.slow = False
        self.looked, self.go_on = asyncio.Event(), asyncio.Event()

    async def issue(self, path: str, *, params: Mapping[str, Any], intent: str) -> Credential:
        """Look, and say what was seen much later."""
        seen = await super().issue(path, params=params, intent=intent)
        if self.slow and len(self.cupboard.versions[path]) == 1 and self.claiming:
            self.slow = False
            self.looked.set()
            await self.go_on.wait()
        return seen

    claiming = False

    async def staged(self, path: str) -> Staged | None:
        """Look what is staged, which is what somebody does who is about to claim."""
        self.claiming = True
        return await super().staged(path)


def test_who_was_away_gives_way(tmp_path: Path) -> None:
    """A winner that comes back after another has taken over does nothing more."""

    async def play() -> tuple[list[str], dict[str, Any]]:
        hosts = Hosts(tmp_path, 2)
        await hosts.open()
        first, second = hosts.worlds
        await hosts.tick()
        hosts.source.fails = {("set", "before")}
        hosts.worlds = [first]
        await first.rotations.start("db", uid=0)
        await hosts.tick()
        hosts.source.fails = set()
        hosts.worlds = [second]
        await played(hosts, [10 * DAY + TAKEN_OVER_AFTER])
        hosts.worlds = [first, second]
        found = await played(hosts, [61.0, 61.0, 3601.0, 61.0])
        await hosts.close()
        return first.audit.events(), found

    events, found = asyncio.run(play())
    assert ("followed", 2, 0) == (events[-1], found["versions"], found["staged"])


def test_a_source_belongs_to_one_world(tmp_path: Path) -> None:
    """The hosts really share: what one sets, all see."""
    hosts = Hosts(tmp_path, 3)
    assert [True] * 3 == [world.source is hosts.source for world in hosts.worlds]
