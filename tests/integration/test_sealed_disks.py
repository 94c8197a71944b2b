"""The sealed store on real file systems that are full, frozen, read-only, or break under it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.base import BackendError, OutcomeUnknownError, Secret, UnavailableError
from backends.master_key import KeySource
from backends.sealed import SealedBackend
from tests.backends.places import get, key_file, put, sealed, using
from tests.contract.backend import issue
from tests.volumes import Volume, thin_volume, volume

pytestmark = [pytest.mark.root, pytest.mark.live("disks", commands=["mkfs.ext4", "fsfreeze", "losetup", "findmnt"])]

BIG = "x" * 40_000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Volume]:
    """Return a small file system of its own."""
    with volume(tmp_path) as made:
        yield made


@pytest.fixture
def source(tmp_path: Path) -> KeySource:
    """Return a key that is not on that file system."""
    return key_file(tmp_path)


async def put_until_refused(backend: SealedBackend) -> tuple[int, BackendError]:
    """Put versions until one is refused; return the last number that was acknowledged, and the refusal."""
    number = 0
    for _ in range(1000):
        try:
            number = await backend.put("github", {"value": Secret(BIG)})
        except BackendError as error:
            return number, error
    pytest.fail("the disk took everything")


def test_on_a_full_disk_what_is_there_is_issued(disk: Volume, source: KeySource) -> None:
    """A put that finds no room is refused, the last good version is issued, and with room again puts go on."""

    async def body(backend: SealedBackend) -> None:
        disk.fill(leave=300_000)
        last, error = await put_until_refused(backend)
        during = await backend.issue("github", params={}, intent="i")
        disk.empty()
        after = await backend.put("github", {"value": Secret("small")})
        assert (UnavailableError, last, last + 1) == (type(error), during.version, after)

    using(sealed(disk.path, source, keep=1000), body)
    assert "small" == get(disk.path, "github", source)


def test_a_disk_that_promised_too_much_loses_nothing_that_was_acknowledged(tmp_path: Path, source: KeySource) -> None:
    """Where the room runs out below the file system, what was acknowledged is still there after a restart."""
    with thin_volume(tmp_path) as (thin, ground):

        async def body(backend: SealedBackend) -> int:
            await backend.put("github", {"value": Secret("first")})
            ground.fill()
            last, _ = await put_until_refused(backend)
            return last

        last = using(sealed(thin.path, source, keep=1000, disk_seconds=20.0), body)
        ground.empty()
        thin.replace()

        async def version(backend: SealedBackend) -> int:
            return (await backend.issue("github", params={}, intent="i")).version or 0

        assert last <= using(sealed(thin.path, source, keep=1000), version)


def test_a_frozen_disk_stops_no_issue(disk: Volume, source: KeySource) -> None:
    """While the disk hangs a put is of unknown outcome and issues go on; thawed, it has happened once."""

    async def body(backend: SealedBackend) -> tuple[str, str, int]:
        await backend.put("github", {"value": Secret("before")})
        disk.freeze()
        try:
            hanging = asyncio.create_task(backend.put("github", {"value": Secret("during")}))
            await asyncio.sleep(0.1)
            during = (await issue(backend, "github"))["value"]
            with pytest.raises(OutcomeUnknownError):
                await hanging
        finally:
            disk.thaw()
        after = await backend.put("slack", {"value": Secret("x")})
        return during, (await issue(backend, "github"))["value"], after

    assert ("before", "during", 1) == using(sealed(disk.path, source, disk_seconds=0.5), body)


def test_closing_does_not_wait_for_a_frozen_disk(disk: Volume, source: KeySource) -> None:
    """A broker that is told to end ends, whatever its disk does, and the store opens afterwards."""

    async def body() -> float:
        backend = sealed(disk.path, source, disk_seconds=0.3)
        await backend.open()
        await backend.put("github", {"value": Secret("x")})
        disk.freeze()
        with pytest.raises(OutcomeUnknownError):
            await backend.put("github", {"value": Secret("y")})
        began = asyncio.get_running_loop().time()
        await backend.close()
        return asyncio.get_running_loop().time() - began

    try:
        took = asyncio.run(body())
    finally:
        disk.thaw()
    assert took < 5


def test_a_read_only_disk_opens_nothing_and_changes_nothing(disk: Volume, source: KeySource) -> None:
    """On a read-only file system the store says that it cannot be used, and works when it can be written again."""
    put(disk.path, "github", "value", source)
    disk.remount("ro")
    with pytest.raises(UnavailableError):
        get(disk.path, "github", source)
    disk.remount("rw")
    assert "value" == get(disk.path, "github", source)


def test_a_disk_that_breaks_keeps_what_is_in_memory(tmp_path: Path, source: KeySource) -> None:
    """When the file system turns read-only under it, puts are refused and issues go on."""

    async def body(backend: SealedBackend) -> str:
        await backend.put("github", {"value": Secret("value")})
        breaking.break_down()
        for _ in range(2):
            with pytest.raises(UnavailableError):
                await backend.put("github", {"value": Secret("newer")})
        return (await issue(backend, "github"))["value"]

    with volume(tmp_path, options="rw,errors=remount-ro") as breaking:
        assert "value" == using(sealed(breaking.path, source), body)


def test_a_rotation_without_room_leaves_a_store_that_opens(disk: Volume, source: KeySource) -> None:
    """Where there is no room to seal everything anew, the old key stays in force and every value stays readable."""

    async def body(backend: SealedBackend) -> str:
        for number in range(20):
            await backend.put(f"s{number}", {"value": Secret(BIG)})
        disk.fill(leave=100_000)
        with pytest.raises(UnavailableError):
            await backend.rotate_key(reencrypt=True)
        disk.empty()
        return (await issue(backend, "s19"))["value"]

    first = using(sealed(disk.path, source), body)
    assert (BIG, BIG) == (first, get(disk.path, "s0", source))


def test_a_rotation_with_little_room_says_what_remains(disk: Volume, source: KeySource) -> None:
    """Where there is room for the new wrapping and none to rewrite the file, the result says so."""

    async def body(backend: SealedBackend) -> tuple[int, bool]:
        for number in range(60):
            await backend.put(f"s{number}", {"value": Secret(BIG)})
        disk.fill(leave=200_000)
        done = await backend.rotate_key()
        disk.empty()
        return done.generation, "may still hold what the old key sealed" in (done.remains or "")

    found = using(sealed(disk.path, source), body)
    assert ((2, True), BIG) == (found, get(disk.path, "s59", source))
