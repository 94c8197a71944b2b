"""The audit log on real file systems that are full, frozen, read-only, or break under it."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from broker.audit import AuditLog, Settings
from tests.audit_steps import HASTY, QUICK, events, judged, opened, reasons, records, recovered, refused, run, until
from tests.volumes import MEGABYTE, Volume, command, thin_volume, volume

pytestmark = [pytest.mark.root, pytest.mark.live("disks", commands=["mkfs.ext4", "fsfreeze", "losetup", "findmnt"])]

ROUTINE = {"audit/segment", "audit/closed", "audit/opened", "test/frozen"}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Volume]:
    """Return a small file system of its own."""
    with volume(tmp_path) as made:
        yield made


async def acknowledged(log: AuditLog, count: int) -> list[int]:
    """Write records one after the other until one is refused; return the counts of those that were acknowledged."""
    done: list[int] = []
    for number in range(count):
        if await taken(log, number):
            done.append(number)
        else:
            break
    return done


async def taken(log: AuditLog, number: int) -> bool:
    """Return whether a record was acknowledged."""
    waiting = [log.append("test/one", {"count": number, "reason": "x" * 500})] if log.state().accepts else []
    results = await asyncio.gather(*waiting, return_exceptions=True)
    return [True] == [isinstance(result, int) for result in results]


def counts(directory: Path) -> set[int]:
    """Return the counts of all records that can be read."""
    return {record["count"] for record in records(directory) if record["event"] == "test/one"}


def test_full_disk(disk: Volume) -> None:
    """On a full disk everything is refused, what was acknowledged stays, and with room again the log goes on."""
    place = disk.path / "audit"

    async def body() -> None:
        async with opened(place, settings=QUICK) as log:
            disk.fill(leave=20_000)
            done = await acknowledged(log, 200)
            assert 0 < len(done) < 200
            assert "no space left" in (log.state().detail) or "the disk took" in log.state().detail
            assert "audit log cannot be written" in await refused(log)
            disk.empty()
            await recovered(log)
            await log.record("test/after")
            assert set(done) <= counts(place)

    run(body)
    assert ["first", "error"] == reasons(place)
    assert judged(place).intact


def test_nearly_full_disk_still_takes_revocations(disk: Volume) -> None:
    """With little room left a release is refused and a revocation is recorded, in the same segment."""
    place = disk.path / "audit"

    async def body() -> None:
        async with opened(place, settings=replace(QUICK, reserve=MEGABYTE)) as log:
            disk.fill(leave=MEGABYTE // 2)
            await until(lambda: not log.state().accepts)
            assert "are for revocations" in await refused(log)
            log.note("lease/revoked", accessor="a")
            await until(lambda: "lease/revoked" in events(place))
            disk.empty()
            await recovered(log)
            await log.record("test/after")

    run(body)
    assert ["first"] == reasons(place)


def test_frozen_disk(disk: Volume) -> None:
    """A frozen disk is noticed within a second by all who wait, stops no one else, and is used again once thawed."""
    place = disk.path / "audit"

    async def body() -> None:
        async with opened(place, settings=Settings(reserve=0)) as log:
            await log.record("test/before")
            disk.freeze()
            began = time.monotonic()
            waiting = [log.append("test/frozen", {"count": count}) for count in range(32)]
            found = await asyncio.gather(*waiting, return_exceptions=True)
            assert time.monotonic() - began < 1.0
            assert {"the disk has not answered for 0.8 seconds"} == {
                str(x).split(": ")[1].split("\n")[0] for x in found
            }
            log.note("lease/revoked", accessor="a")
            began = time.monotonic()
            assert "audit log cannot be written" in await refused(log)
            assert time.monotonic() - began < 0.1
            disk.thaw()
            await recovered(log)
            await log.record("test/after")

    run(body)
    assert ["first", "hung"] == reasons(place)
    assert ["test/before", "lease/revoked", "test/after"] == [e for e in events(place) if e not in ROUTINE]
    assert judged(place).intact


def test_start_on_a_frozen_disk(disk: Volume) -> None:
    """A broker that starts on a frozen disk comes up, refuses, and begins once it is thawed."""
    place = disk.path / "audit"

    async def body() -> None:
        disk.freeze()
        began = time.monotonic()
        async with opened(place, settings=Settings(reserve=0)) as log:
            assert time.monotonic() - began < 1.5
            assert "the disk has not answered for 0.8 seconds" == log.state().detail
            disk.thaw()
            await recovered(log)
            await log.record("test/after")

    run(body)
    assert judged(place).intact


def test_log_on_a_frozen_disk_can_be_closed(disk: Volume) -> None:
    """The end of the broker does not wait for the disk."""

    async def body() -> None:
        log = AuditLog(disk.path / "audit", settings=HASTY)
        await log.open()
        disk.freeze()
        log.note("lease/revoked", accessor="a")
        began = time.monotonic()
        assert 1 <= await log.close()
        assert time.monotonic() - began < 2.0
        disk.thaw()

    run(body)


def test_read_only_at_the_start(disk: Volume) -> None:
    """A broker that starts on a read-only file system refuses until it can be written to."""

    async def body() -> None:
        disk.remount("ro")
        async with opened(disk.path / "audit") as log:
            assert "read-only file system" == log.state().detail
            disk.remount("rw")
            await recovered(log)
            await log.record("test/after")

    run(body)
    assert ["first"] == reasons(disk.path / "audit")


def test_file_system_that_breaks_and_is_replaced(tmp_path: Path) -> None:
    """A file system that the kernel makes read-only is noticed; mended and mounted again, the log goes on in it."""
    with volume(tmp_path, options="errors=remount-ro") as disk:
        place = disk.path / "audit"

        async def body() -> None:
            async with opened(place) as log:
                await log.record("test/before")
                disk.break_down()
                assert "audit log cannot be written" in await refused(log)
                await until(lambda: log.state().detail == "read-only file system")
                disk.replace()
                await recovered(log)
                await log.record("test/after")

        run(body)
        assert judged(place).intact
        assert {"test/before", "test/after"} <= set(events(place))


def test_sync_that_fails_after_a_write_that_did_not(tmp_path: Path) -> None:
    """Where a disk takes a write and loses it, nobody is told that it was written, and the chain goes on without."""
    with thin_volume(tmp_path) as (thin, ground):
        place = thin.path / "audit"

        async def body() -> None:
            async with opened(place, settings=QUICK) as log:
                before = await acknowledged(log, 3)
                ground.fill()
                done = await acknowledged(log, 100)
                assert len(done) < 100
                assert not log.state().accepts
                ground.empty()
                await recovered(log)
                await log.record("test/after")
                assert set(before) | set(done) <= counts(place)

        run(body)
        assert "error" == reasons(place)[-1]
        assert judged(place).intact


def test_segment_that_cannot_be_opened_for_writing(disk: Volume) -> None:
    """An immutable log is not written to, whoever made it so; once it is not, the chain goes on."""
    place = disk.path / "audit"

    async def body() -> None:
        async with opened(place):
            pass
        command("chattr", "+i", place / "audit.jsonl")
        try:
            async with opened(place) as log:
                assert "operation not permitted" == log.state().detail
                command("chattr", "-i", place / "audit.jsonl")
                await recovered(log)
        finally:
            command("chattr", "-i", place / "audit.jsonl")

    run(body)
    assert judged(place).intact
