"""
What must outlive the broker, on a disk that is locked, full or frozen for a while.

The file is a real one, and who locks it is another connection. This module
refuses to sleep where something happens that it can wait for.
"""

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar

import pytest

from broker.core.model import Intent, Lease, Process
from broker.errors import UnavailableError
from broker.store import Store
from tests.volumes import Volume, volume

PROCESS: Final = Process(boot="b", pid=1, start=1, uid=1)
PATIENCE: Final = 15.0
"""Seconds that anything here is waited for."""

Found = TypeVar("Found")


def lease(accessor: str) -> Lease:
    """Return a lease as it would be stored."""
    return Lease(
        accessor=accessor,
        secret="s",
        server="s",
        backend="b",
        process=PROCESS,
        uid=1,
        issued_at=1.0,
        expires_at=2.0,
        ttl=1.0,
    )


def intent(accessor: str) -> Intent:
    """Return an intent as it would be stored."""
    return Intent(
        accessor=accessor, secret="s", server="s", backend="b", uid=1, process=PROCESS, started_at=1.0, gone_by=9.0
    )


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let nothing be written to the file; a commit that waits for it fails after a second."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


async def until(what: Callable[[], object]) -> None:
    """Wait until ``what`` is true."""
    async with asyncio.timeout(PATIENCE):
        while not what():  # noqa: ASYNC110 -- it happens in a thread that knows no loop
            await asyncio.sleep(0.01)


def using(path: Path, what: Callable[[Store], Awaitable[Found]], *, deadline: float = 5.0) -> Found:
    """Open a store, have something done with it, and close it."""

    async def use() -> Found:
        store = Store(path, deadline=deadline)
        await store.open()
        try:
            return await what(store)
        finally:
            await store.close()

    return asyncio.run(use())


def on_disk(path: Path) -> tuple[set[str], set[str]]:
    """Return what the next broker finds: the accessors of leases, and of intents."""

    async def look() -> tuple[set[str], set[str]]:
        store = Store(path)
        leases, intents = await store.open()
        await store.close()
        return {each.accessor for each in leases}, {each.accessor for each in intents}

    return asyncio.run(look())


async def settled(store: Store) -> None:
    """Wait until everything is on disk, however often that fails first."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await store.settled()
            except UnavailableError:
                await asyncio.sleep(0.01)
            else:
                return


async def keep_until_refused(store: Store) -> set[str]:
    """Keep leases until one is refused; return all of them, that one included."""
    kept: set[str] = set()
    for number in range(100_000):
        kept.add(f"{number}")
        try:
            await store.keep(lease(f"{number}"))
        except UnavailableError:
            return kept
    message = "the disk took all of it"
    raise AssertionError(message)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the file will be."""
    return tmp_path / "state.db"


class TestLocked:
    """Another connection holds the file, so that every commit fails after a second."""

    def test_what_could_not_be_written_is_written_later(self, path: Path) -> None:
        """A change whose commit failed gets to the disk when that is well, without anybody saying it again."""

        async def use(store: Store) -> list[object]:
            with locked(path):
                store.keep_soon([lease("kept")])
                await until(lambda: store.trouble)
                said: list[object] = [store.trouble is None]
            await until(lambda: store.trouble is None)
            return said

        assert ([False], ({"kept"}, set())) == (using(path, use), on_disk(path))

    def test_the_latest_word_is_the_one_that_counts(self, path: Path) -> None:
        """What was said of a lease while its commit failed replaces what that commit said."""

        async def use(store: Store) -> list[Lease]:
            store.keep_soon([lease("barred"), lease("gone")])
            await store.settled()
            with locked(path):
                store.keep_soon([replace(lease("barred"), version=2), replace(lease("gone"), version=2)])
                await until(lambda: store.trouble)
                store.keep_soon([replace(lease("barred"), barred=True)])
                store.forget_soon(["gone"])
            await settled(store)
            again = Store(path)
            leases, _ = await again.open()
            await again.close()
            return leases

        assert [replace(lease("barred"), barred=True)] == using(path, use)

    def test_no_more_is_kept_than_there_are_leases(self, path: Path) -> None:
        """Ten thousand leases that come and go while nothing can be written leave nothing that waits."""

        async def use(store: Store) -> int:
            with locked(path):
                for number in range(10_000):
                    store.keep_soon([lease(f"{number}")])
                    store.forget_soon([f"{number}"])
                return len(store._unwritten)  # noqa: SLF001 -- what it keeps is what this is about

        assert (True, (set(), set())) == (using(path, use) <= 1, on_disk(path))

    def test_changes_of_one_lease_wait_as_one(self, path: Path) -> None:
        """However often a lease changes while nothing can be written, one row of it waits."""

        async def use(store: Store) -> int:
            with locked(path):
                for number in range(1000):
                    store.keep_soon([replace(lease("one"), version=number)])
                return len(store._unwritten)  # noqa: SLF001

        assert (True, ({"one"}, set())) == (using(path, use) <= 1, on_disk(path))

    @pytest.mark.parametrize("held_for", [0.5, 2.5], ids=["the commit succeeds later", "the commit fails"])
    def test_a_refused_intent_leaves_nothing(self, path: Path, held_for: float) -> None:
        """An intent that was not on disk in time is refused, and gone whatever becomes of its commit."""

        async def use(store: Store) -> float:
            began = time.monotonic()
            with locked(path):
                with pytest.raises(UnavailableError):
                    await store.intend(intent("ghost"))
                took = time.monotonic() - began
                await asyncio.sleep(held_for - took)
            await settled(store)
            return took

        assert (True, (set(), set())) == (using(path, use, deadline=0.2) < held_for, on_disk(path))

    def test_an_intent_of_who_does_not_wait_leaves_nothing(self, path: Path) -> None:
        """An intent whose request was cancelled before it was on disk is gone."""

        async def use(store: Store) -> bool:
            with locked(path):
                task = asyncio.create_task(store.intend(intent("ghost")))
                await asyncio.sleep(0.1)
                task.cancel()
                await asyncio.wait([task])
            await settled(store)
            return task.cancelled()

        assert (True, (set(), set())) == (using(path, use), on_disk(path))

    def test_in_trouble_nothing_is_intended(self, path: Path) -> None:
        """While nothing can be written, an intent is refused at once: there is no use in waiting."""

        async def use(store: Store) -> float:
            with locked(path):
                store.keep_soon([lease("first")])
                await until(lambda: store.trouble)
                began = time.monotonic()
                with pytest.raises(UnavailableError):
                    await store.intend(intent("ghost"))
                return time.monotonic() - began

        assert (True, ({"first"}, set())) == (using(path, use) < 0.5, on_disk(path))

    def test_what_is_said_to_be_settled_is_all_on_disk(self, path: Path) -> None:
        """``settled`` answers for what failed before it was asked, too."""

        async def use(store: Store) -> tuple[set[str], set[str]]:
            with locked(path):
                store.keep_soon([lease("first")])
                await until(lambda: store.trouble)
                with pytest.raises(UnavailableError):
                    await store.settled()
            await store.settled()
            return await asyncio.to_thread(on_disk, path)

        assert ({"first"}, set()) == using(path, use)

    def test_it_ends_though_nothing_can_be_written(self, path: Path) -> None:
        """A store is closed within its deadline, whatever its file does."""

        async def use() -> float:
            store = Store(path, deadline=3.0)
            await store.open()
            with locked(path):
                store.keep_soon([lease("lost")])
                await until(lambda: store.trouble)
                began = time.monotonic()
                await store.close()
                return time.monotonic() - began

        assert asyncio.run(use()) < 3.5


@pytest.mark.root
@pytest.mark.live("disks", commands=["mkfs.ext4", "fsfreeze", "losetup", "findmnt"])
class TestDisks:
    """A real file system that is full, or frozen."""

    @pytest.fixture
    def disk(self, tmp_path: Path) -> Iterator[Volume]:
        """Return a small file system of its own."""
        with volume(tmp_path) as made:
            yield made

    def test_a_full_disk_loses_nothing(self, disk: Volume) -> None:
        """What a full disk refused is on it when there is room again."""
        path = disk.path / "state.db"

        async def use(store: Store) -> set[str]:
            disk.fill()
            kept = await keep_until_refused(store)
            store.forget_soon(["0"])
            store.keep_soon([lease("last")])
            disk.empty()
            await settled(store)
            return kept - {"0"} | {"last"}

        assert (using(path, use), set()) == on_disk(path)

    def test_a_frozen_disk_keeps_nothing_waiting_for_ever(self, disk: Volume) -> None:
        """On a disk that hangs, what must be on it is refused in time, and the rest gets there when it goes on."""
        path = disk.path / "state.db"

        async def use(store: Store) -> int:
            disk.freeze()
            try:
                with pytest.raises(UnavailableError):
                    await store.intend(intent("ghost"))
                for number in range(10_000):
                    store.keep_soon([lease(f"{number}")])
                    store.forget_soon([f"{number}"])
                store.keep_soon([lease("kept")])
                waiting = len(store._unwritten)  # noqa: SLF001 -- what it keeps is what this is about
            finally:
                await asyncio.to_thread(disk.thaw)
            await settled(store)
            return waiting

        assert (True, ({"kept"}, set())) == (using(path, use, deadline=0.5) <= 3, on_disk(path))
