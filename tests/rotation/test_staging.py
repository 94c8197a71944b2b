"""Where pending values are, for backends that write only over what was seen, and for those that just write."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from backends.base import ConflictError, Credential, Health, RefusedError, Secret, SecretNotFoundError, Version
from backends.rotating import Staged
from broker.errors import ConfigError, IntegrityError
from broker.rotation.staging import staging
from tests.config.build import config
from tests.rotation.world import START, World

STAGED = Staged(
    token="t",
    pending={"a": Secret("new"), "b": Secret("näher\n\0")},
    previous={"a": Secret("old")},
    expected=3,
    at=START,
    lifetime=60.0,
    beside={"c": Secret("beside")},
)


class PlainStore:
    """A writable backend in memory that writes over whatever is there."""

    name = "desktop"

    def __init__(self) -> None:
        """Begin with one secret."""
        self.kept: dict[str, list[Mapping[str, Secret]]] = {"mcp/db": [{"value": Secret("old")}]}

    async def open(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""

    def mints(self, path: str) -> bool:
        """Return False."""
        return path == ""

    def at_hand(self, path: str) -> Credential | None:
        """Return what is current."""
        versions = self.kept.get(path)
        return Credential(values=versions[-1], version=len(versions)) if versions else None

    async def issue(self, path: str, *, params: Mapping[str, Any], intent: str) -> Credential:
        """Return what is current."""
        del params, intent
        found = self.at_hand(path)
        if found is None:
            message = "nothing is there"
            raise SecretNotFoundError(message)
        return found

    async def renew(self, backend_lease: str, *, increment: float) -> float:
        """Refuse."""
        del backend_lease, increment
        message = "there are no leases"
        raise RefusedError(message)

    async def revoke(self, backend_lease: str) -> None:
        """Do nothing."""

    async def health(self) -> Health:
        """Say that all is well."""
        return Health(state="ok")

    async def put(self, path: str, values: Mapping[str, Secret]) -> int:
        """Write."""
        self.kept.setdefault(path, []).append(values)
        return len(self.kept[path])

    async def delete(self, path: str) -> None:
        """Remove."""
        del self.kept[path]

    async def list(self) -> Sequence[str]:
        """Return the paths."""
        return sorted(self.kept)

    async def versions(self, path: str) -> Sequence[Version]:
        """Return the current version alone."""
        return [Version(number=len(self.kept[path]), created_at=START, fields=["value"], current=True)]


async def world(directory: Path, text: str = "") -> World:
    """Return a world that is open."""
    found = World(directory, config(text))
    await found.open()
    return found


def test_what_is_staged_comes_back_and_is_no_secret_that_anybody_can_name(tmp_path: Path) -> None:
    """Over a restart it is the same; it is not in the list, it has no versions, and nobody is issued it."""

    async def play() -> tuple[Staged | None, Staged | None, list[str], list[str]]:
        here = await world(tmp_path)
        await here.store.put("db", {"a": Secret("old")})
        drawer = here.store.drawer("rotation/db")
        await staging(here.store, "db", drawer).write(STAGED, instead_of=None)
        await here.crash()
        beside = staging(here.store, "db", here.store.drawer("rotation/db"))
        found, listed = await beside.read(), list(await here.store.list())
        refused = []
        for name in ("rotation/db", "\x1frotation/db"):
            try:
                await here.store.issue(name, params={}, intent="i")
            except SecretNotFoundError:
                refused.append(name)
        await beside.write(None, instead_of="t")
        gone = await beside.read()
        await here.close()
        return found, gone, listed, refused

    assert (STAGED, None, ["db"], ["rotation/db", "\x1frotation/db"]) == asyncio.run(play())


def test_what_cannot_be_read_is_said_without_quoting_it(tmp_path: Path) -> None:
    """A drawer of a newer broker is not guessed at, and nothing of it is in the error."""

    async def play() -> str:
        here = await world(tmp_path)
        drawer = here.store.drawer("rotation/db")
        await drawer.write(Secret('{"token": 5, "pending": "made-up-value"}'))
        with pytest.raises(IntegrityError) as caught:
            await staging(here.store, "db", drawer).read()
        await here.close()
        return str(caught.value)

    assert "made-up-value" not in asyncio.run(play())


def test_a_backend_that_keeps_nothing_is_refused(tmp_path: Path) -> None:
    """Without a place for what is pending there is no rotation by a rule."""

    async def play() -> None:
        here = await world(tmp_path)
        try:
            with pytest.raises(ConfigError):
                staging(here.store, "db", None)
        finally:
            await here.close()

    asyncio.run(play())


def test_a_backend_that_just_writes_is_looked_at_first(tmp_path: Path) -> None:
    """What somebody has put in meanwhile is not written over."""

    async def play() -> tuple[int | None, list[str]]:
        here, plain = await world(tmp_path), PlainStore()
        there = staging(plain, "mcp/db", here.store.drawer("rotation/db"))
        seen = await there.current()
        first = await there.promote({"value": Secret("new")}, expected=seen)
        with pytest.raises(ConflictError):
            await there.promote({"value": Secret("late")}, expected=seen)
        await here.close()
        return first, [each["value"].expose() for each in plain.kept["mcp/db"]]

    assert (2, ["old", "new"]) == asyncio.run(play())


def test_a_secret_in_another_store_is_replaced(tmp_path: Path) -> None:
    """What is pending is sealed in our own store; what is current is where the config says."""
    text = """
        [backends.desktop]
        type = "keyring"
        [secrets.db]
        backend = "desktop"
        path = "mcp/db"
        rotate = { every = "1d", generate = { length = 30 }, grace = 0 }
    """

    async def play() -> tuple[int, int, list[str]]:
        here, plain = World(tmp_path, config(text)), PlainStore()
        here.others = {"desktop": plain}
        await here.open()
        for _ in range(3 * 24):
            await here.tick(after=3600)
        left = await here.store.drawer("rotation/db").read()
        value = plain.kept["mcp/db"][-1]["value"].expose()
        await here.close()
        return len(plain.kept["mcp/db"]), len(value), [] if left is None else ["something"]

    assert (4, 30, []) == asyncio.run(play())
