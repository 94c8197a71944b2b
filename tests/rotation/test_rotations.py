"""What the driver does where something is in its way, and what an admin may say."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from backends.base import Secret, UnavailableError
from broker.core.leases import LeaseTable
from broker.errors import AuditError, BrokerError, RequestError
from broker.rotation.shown import problems, shown
from tests.config.build import config
from tests.core.test_leases import lease, process
from tests.fakes.shared_store import Cupboard, SharedStore
from tests.rotation.world import Noted, World

ONE: Final = '[secrets.db]\nrotate = { every = "1d", grace = "1h", with = ["p"], max_age = "2d" }'
OLD: Final = {"username": Secret("a"), "password": Secret("old")}


def played(directory: Path, text: str, work: Callable[[World], Awaitable[None]], **others: Any) -> World:  # noqa: ANN401
    """Open a world with a first version, do something in it, and close it."""
    world = World(directory, config(text))
    world.others = others

    async def play() -> None:
        await world.open()
        await world.store.put("db", OLD)
        world.source.logins = {"a": "old"}
        try:
            await work(world)
        finally:
            await world.close()

    asyncio.run(play())
    return world


@dataclass
class AtTheSource(SharedStore):
    """A backend whose source replaces by itself, and fails as often as it is told to."""

    failures: int = 0
    told: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Share nothing."""
        super().__init__("vault", Cupboard(lambda: 0.0))

    async def rotate(self, path: str, *, token: str) -> None:
        """Replace what is at a path."""
        self.told.append((path, token))
        if self.failures:
            self.failures -= 1
            message = "the source is away"
            raise UnavailableError(message, hint="wait")

    async def rotate_login(self, *, token: str) -> None:
        """Replace the login."""
        await self.rotate("login", token=token)


SOURCE: Final = """
[backends.vault]
type = "vault"
rotate = { every = "7d" }
[secrets.role]
backend = "vault"
path = "database/static-creds/app"
rotate = { every = "1d" }
"""


def test_what_the_source_replaces_is_asked_for(tmp_path: Path) -> None:
    """Each day the role, each week the login, each with a token of its own; a failure is tried again with the same."""
    source = AtTheSource(failures=1)

    async def play(world: World) -> None:
        for _ in range(24 * 15):
            await world.tick(after=3600)

    world = played(tmp_path, SOURCE, play, vault=source)
    paths = [path for path, _ in source.told]
    tokens = {token for _, token in source.told}
    assert (2, 15) == (paths.count("login"), paths.count("database/static-creds/app"))
    assert (16, 1) == (len(tokens), world.audit.events().count("failed"))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('[secrets.db]\nrotate = { every = "1d" }', "db"),
        ('[backends.vault]\ntype = "vault"\nrotate = { every = "1d" }', "backends.vault"),
        ('[backends.new]\ntype = "vault"\n[secrets.x]\nbackend = "new"\nrotate = { every = "1d" }', "x"),
    ],
)
def test_what_nothing_can_replace_says_so(tmp_path: Path, text: str, name: str) -> None:
    """It does not begin, shows as failed with what to do, and keeps no other from anything."""

    async def play(world: World) -> None:
        for _ in range(30):
            await world.tick(after=3600)
        (row,) = shown(world.rotations, world.now)
        assert (name, "failed", True) == (row.name, row.state, row.hint is not None)
        assert row.error in [text.partition(": ")[2] for text, _ in problems(world.rotations, world.now)]

    world = played(tmp_path, text, play, vault=SharedStore("vault", Cupboard(lambda: 0.0)))
    assert [] == world.audit.events()


class DeafLog(Noted):
    """An audit log that takes nothing for a while."""

    deaf = True

    async def record(self, event: str, **fields: Any) -> None:  # noqa: ANN401 -- audit fields
        """Refuse, or keep a record."""
        if self.deaf:
            message = "the disk is full"
            raise AuditError(message)
        await super().record(event, **fields)


def test_without_a_record_nothing_begins(tmp_path: Path) -> None:
    """No value is made while it cannot be written down that one is; when it can, it is."""

    async def play(world: World) -> None:
        log = world.audit = DeafLog()
        await world.rotations.close()
        await world.rotations_again()
        for _ in range(30):
            await world.tick(after=3600)
        with pytest.raises(AuditError):
            await world.rotations.start("db", uid=0)
        assert ([], OLD) == (world.source.asked, dict(world.current()))
        log.deaf = False
        await world.tick(after=60)
        assert dict(world.current()) != OLD

    played(tmp_path, ONE, play)


def test_an_admin_is_told_what_cannot_be(tmp_path: Path) -> None:
    """Unknown, not under way, under way already, promoted already: each is refused with the command that fits."""

    async def refused(work: Awaitable[None]) -> str:
        with pytest.raises(BrokerError) as caught:
            await work
        assert isinstance(caught.value, RequestError)
        return caught.value.hint or ""

    async def play(world: World) -> None:
        rotations = world.rotations
        said = [await refused(rotations.start("none", uid=0)), await refused(rotations.resume("db", uid=0))]
        world.leases.add(lease("l", process(1), secret="db", version=1))
        await rotations.start("db", uid=0)
        await world.tick()
        said += [await refused(rotations.start("db", uid=0)), await refused(rotations.abandon("db", uid=0))]
        assert [
            'add rotate = { with = ["PROGRAM"] } to [secrets.none]',
            "mcp-broker rotate db",
            "mcp-broker rotate db --resume",
            "mcp-broker rotate db --resume ends the grace",
        ] == said
        (row,) = shown(rotations, world.now)
        assert "1 session keeps version 1 until it is restarted or the grace ends" == row.says
        assert (["l"], row.grace_until) == (world.told, world.now + 3600)
        await rotations.resume("db", uid=0)
        await world.tick()
        assert "retire" == world.source.asked[-1][0]

    played(tmp_path, ONE, play)


def test_what_nobody_holds_is_retired_before_the_grace_is_over(tmp_path: Path) -> None:
    """The last session of the old version ends, and within a minute the old version does, too."""

    async def play(world: World) -> None:
        world.leases = LeaseTable()
        await world.rotations.close()
        await world.rotations_again()
        world.leases.add(lease("l", process(1), secret="db", version=1))
        await world.rotations.start("db", uid=0)
        for _ in range(10):
            await world.tick(after=61)
        held = [step for step, _ in world.source.asked]
        world.leases.remove("l")
        await world.tick(after=1)
        assert (["set", "test"], "retire") == (held, world.source.asked[-1][0])

    played(tmp_path, ONE, play)


def test_a_promise_that_is_broken_shows(tmp_path: Path) -> None:
    """A version that grows older than promised, because its source is away, is a problem with a command."""

    async def play(world: World) -> None:
        world.source.fails = {("set", "before")}
        for _ in range(60):
            await world.tick(after=3600)
        found = dict(problems(world.rotations, world.now))
        assert "rotation of db: it is older than the config promises" in found
        assert "rotation of db: the source is away" in found

    played(tmp_path, ONE, play)


def test_what_the_config_forgot_shows(tmp_path: Path) -> None:
    """Under way and without rotate in the config, it waits, and is not forgotten."""

    async def play(world: World) -> None:
        world.source.fails = {("set", "before")}
        await world.rotations.start("db", uid=0)
        await world.tick()
        world.config = config("")
        asked = len(world.source.asked)
        for _ in range(5):
            await world.tick(after=3600)
        (text, _), *rest = problems(world.rotations, world.now)
        assert "rotation of db: it is under way, and the config has no rotate for it any more" == text
        assert ([], asked) == (rest, len(world.source.asked))

    played(tmp_path, ONE, play)


def test_something_unexpected_is_a_failure_without_its_words(tmp_path: Path) -> None:
    """An error that nobody foresaw may quote anything: its kind is told, and it is tried again."""

    async def broken(*_: object) -> None:
        message = "made-up-value"
        raise ZeroDivisionError(message)

    async def play(world: World) -> None:
        world._run = broken  # noqa: SLF001 -- the world is ours
        await world.rotations.close()
        await world.rotations_again()
        await world.rotations.start("db", uid=0)
        await world.tick()
        (row,) = shown(world.rotations, world.now)
        assert "it failed unexpectedly: ZeroDivisionError" == row.error

    played(tmp_path, ONE, play)
