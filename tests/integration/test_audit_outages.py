"""The audit log on a disk that fails: who is refused, what is kept, and how it comes back."""

import asyncio
import errno
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from broker.audit import AuditLog, AuditStatus
from broker.errors import AuditError
from tests.audit_steps import (
    HASTY,
    QUICK,
    events,
    judged,
    opened,
    reasons,
    records,
    recovered,
    refused,
    run,
    seen,
    until,
)
from tests.fakes.bad_disk import BadDisk


@pytest.mark.parametrize("call", ["write", "sync", "stat"])
def test_error_refuses_and_begins_a_new_segment_once_mended(tmp_path: Path, call: str) -> None:
    """Whatever call fails: who waits is refused, and after the mend the log goes on in a new segment."""

    async def body() -> None:
        disk = BadDisk()
        async with opened(tmp_path, files=disk) as log:
            await log.record("test/before")
            disk.failing[call] = errno.EIO
            assert "audit log cannot be written: input/output error" == await refused(log)
            assert "failed" == log.state().state
            with pytest.raises(AuditError):
                log.append("test/at-once", {})
            disk.failing.clear()
            await recovered(log)
            await log.record("test/after")

    run(body)
    assert ["first", "error"] == reasons(tmp_path)
    assert judged(tmp_path).intact
    assert "test/at-once" not in events(tmp_path)
    assert ["test/before", "test/after"] == [e for e in events(tmp_path) if e in {"test/before", "test/after"}]


def test_failed_sync_leaves_declared_orphans(tmp_path: Path) -> None:
    """Records that were written and whose sync failed are named as orphans, and nobody takes them for released."""

    async def body() -> None:
        disk = BadDisk()
        async with opened(tmp_path, files=disk) as log:
            await log.record("test/before")
            disk.failing["sync"] = errno.EIO
            waiting = [log.append("test/lost", {"count": count}) for count in range(3)]
            assert [AuditError] * 3 == [type(x) for x in await asyncio.gather(*waiting, return_exceptions=True)]
            disk.failing.clear()
            await recovered(log)

    run(body)
    begun = [record for record in records(tmp_path) if record["event"] == "audit/segment"][-1]
    assert [3, 3, 3, "input/output error"] == [begun[x] for x in ("seq", "unacknowledged", "refused", "detail")]
    assert [("orphaned", "audit-000001.jsonl:3", False), ("noticed", "audit.jsonl:1", False)] == seen(tmp_path)


def test_part_of_a_line_is_an_error(tmp_path: Path) -> None:
    """A disk that takes a part of a batch has failed, though it said nothing; the part is told from a forgery."""

    async def body() -> None:
        disk = BadDisk()
        async with opened(tmp_path, files=disk) as log:
            disk.takes = 150
            assert "audit log cannot be written: the disk took 150 of" in await refused(log)
            disk.takes = None
            await recovered(log)

    run(body)
    assert [("torn", "audit-000001.jsonl:2", False), ("noticed", "audit.jsonl:1", False)] == seen(tmp_path)


def test_file_with_an_error_is_not_written_to_again(tmp_path: Path) -> None:
    """After an error nothing is appended to the file, though the disk would take it."""

    async def body() -> None:
        disk = BadDisk()
        async with opened(tmp_path, files=disk) as log:
            disk.failing["sync"] = errno.EIO
            await refused(log)
            length = (tmp_path / "audit.jsonl").stat().st_size
            disk.failing.clear()
            await recovered(log)
            await log.record("test/after")
            assert length == (tmp_path / "audit-000001.jsonl").stat().st_size

    run(body)


def test_attempts_leave_no_files_behind(tmp_path: Path) -> None:
    """A disk that takes no new segment is asked again and again, and is not filled by that."""

    async def body() -> None:
        disk = BadDisk()
        async with opened(tmp_path, files=disk) as log:
            disk.failing |= {"sync": errno.ENOSPC}
            await refused(log)
            before = disk.calls.count("create")
            await until(lambda: disk.calls.count("create") > before + 5)
            assert 5 >= len(os.listdir(tmp_path))  # noqa: PTH208
            disk.failing.clear()
            await recovered(log)

    run(body)
    assert judged(tmp_path).intact


def test_segment_that_fails_at_once_is_not_followed_by_another_at_once(tmp_path: Path) -> None:
    """A disk that takes first records and nothing else is not filled with segments."""

    async def body() -> None:
        disk = BadDisk()
        async with opened(tmp_path, files=disk, settings=replace(QUICK, patience=8.0)) as log:
            end = time.monotonic() + 1.5
            while time.monotonic() < end:
                if log.state().accepts:
                    disk.failing["sync"] = errno.EIO
                    await refused(log)
                    disk.failing.clear()
                await asyncio.sleep(0.01)

    run(body)
    assert len(reasons(tmp_path)) < 9


@pytest.mark.parametrize("step", ["create", "rename to audit-000001.jsonl", "rename to audit.jsonl", "sync_directory"])
def test_error_in_the_middle_of_a_new_segment(tmp_path: Path, step: str) -> None:
    """At whatever step the next segment fails, it begins later, and the chain verifies."""

    async def body() -> None:
        disk = BadDisk()
        async with opened(tmp_path, files=disk) as log:
            await log.record("test/before")
            disk.failing["sync"] = errno.EIO
            await refused(log)
            disk.failing = {step: errno.EIO}
            calls = len(disk.calls)
            await until(lambda: step in disk.calls[calls:])
            await asyncio.sleep(0.1)
            disk.failing.clear()
            await recovered(log)
            await log.record("test/after")

    run(body)
    assert judged(tmp_path).intact
    assert {"test/before", "test/after"} <= set(events(tmp_path))


@pytest.mark.parametrize("step", ["create", "rename to audit-000001.jsonl", "sync"])
def test_full_segment_that_cannot_be_followed_is_gone_on_with(tmp_path: Path, step: str) -> None:
    """Where no new segment can be begun, a long one is better than none."""

    async def body() -> None:
        disk = BadDisk()
        async with opened(tmp_path, files=disk, settings=replace(QUICK, segment_bytes=400)) as log:
            await log.record("test/one")
            if step != "sync":
                disk.failing[step] = errno.EIO
            await log.record("test/two")
            await log.record("test/three")
            assert log.state().accepts

    run(body)
    assert judged(tmp_path).intact


def test_notes_of_an_outage_are_written_afterwards(tmp_path: Path) -> None:
    """What must be recorded is kept in memory, in order and with its own time, and written first after the mend."""

    async def body() -> None:
        disk = BadDisk()
        async with opened(tmp_path, files=disk) as log:
            disk.failing["sync"] = errno.EIO
            log.note("test/note", count=0)
            await refused(log)
            for count in range(1, 4):
                log.note("test/note", count=count)
            assert 4 == log.state().noted
            disk.failing.clear()
            await recovered(log)
            await log.record("test/after")

    run(body)
    after = records(tmp_path)[[r["why"] for r in records(tmp_path) if "why" in r].index("error") + 1 :]
    noted = [record["count"] for record in after if record["event"] == "test/note"]
    assert [0, 1, 2, 3] == noted[-4:]
    assert events(tmp_path).index("test/after") > max(i for i, e in enumerate(events(tmp_path)) if e == "test/note")


def test_notes_keep_their_order_over_an_error(tmp_path: Path) -> None:
    """What was in flight when the disk failed is written before what waited behind it."""

    async def body() -> None:
        disk = BadDisk()
        async with opened(tmp_path, files=disk) as log:
            disk.open.clear()
            log.note("test/note", count=0)
            await asyncio.sleep(0.05)
            log.note("test/note", count=1)
            disk.failing["write"] = errno.EIO
            disk.open.set()
            await until(lambda: not log.state().accepts)
            disk.failing.clear()
            await recovered(log)

    run(body)
    assert [0, 1] == [record["count"] for record in records(tmp_path) if record["event"] == "test/note"]


def test_notes_beyond_the_room_are_counted(tmp_path: Path) -> None:
    """A long outage does not fill the memory: what there is no room for is counted into one record."""

    async def body() -> None:
        disk = BadDisk()
        async with opened(tmp_path, files=disk, settings=replace(QUICK, notes=10)) as log:
            disk.failing["sync"] = errno.EIO
            await refused(log)
            for count in range(25):
                log.note("test/note", count=count)
            assert (10, 15) == (log.state().noted, log.state().lost)
            disk.failing.clear()
            await recovered(log)

    run(body)
    assert [15] == [record["count"] for record in records(tmp_path) if record["event"] == "audit/lost"]
    assert 10 == events(tmp_path).count("test/note")


def test_hung_disk_refuses_within_the_deadline_and_comes_back(tmp_path: Path) -> None:
    """A disk that does not answer is given up on in time, without a second thread, and used again when it answers."""

    async def body() -> None:
        disk = BadDisk()
        async with opened(tmp_path, files=disk, settings=HASTY) as log:
            threads = threading.active_count()
            disk.open.clear()
            began = time.monotonic()
            waiting = [log.append("test/hung", {"count": count}) for count in range(5)]
            found = await asyncio.gather(*waiting, return_exceptions=True)
            took = time.monotonic() - began
            assert ["audit log cannot be written: the disk has not answered for 0.5 seconds"] * 5 == [
                x.message for x in found if isinstance(x, AuditError)
            ]
            assert HASTY.deadline <= took < HASTY.deadline + 0.5
            log.note("test/note")
            await asyncio.sleep(0.2)
            assert threads == threading.active_count()
            assert "failed" == log.state().state
            disk.open.set()
            await recovered(log)
            await log.record("test/after")

    run(body)
    assert ["first", "hung"] == reasons(tmp_path)
    assert [("orphaned", "audit-000001.jsonl:2", False), ("noticed", "audit.jsonl:1", False)] == seen(tmp_path)
    assert ["test/note", "test/after"] == [e for e in events(tmp_path) if e in {"test/note", "test/after"}]


def test_log_on_a_hung_disk_can_be_closed(tmp_path: Path) -> None:
    """The end of the broker does not wait for a disk that does not answer."""

    async def body() -> None:
        disk = BadDisk()
        log = AuditLog(tmp_path, settings=HASTY, files=disk)
        await log.open()
        disk.open.clear()
        log.note("test/note")
        began = time.monotonic()
        assert 1 <= await log.close()
        assert time.monotonic() - began < 2
        disk.open.set()

    run(body)


def test_disk_that_hangs_at_the_start(tmp_path: Path) -> None:
    """A broker comes up on a disk that does not answer, refuses, and begins when it does."""

    async def body() -> None:
        disk = BadDisk()
        disk.open.clear()
        async with opened(tmp_path, files=disk, settings=HASTY) as log:
            assert "failed" == log.state().state
            disk.open.set()
            await recovered(log)
            await log.record("test/after")

    run(body)
    assert judged(tmp_path).intact


def test_loop_that_stood_still_does_not_accuse_the_disk(tmp_path: Path) -> None:
    """A broker that was stopped for longer than the deadline does not take that for a hung disk."""

    async def body() -> None:
        disk = BadDisk()
        async with opened(tmp_path, files=disk, settings=HASTY) as log:
            disk.open.clear()
            threading.Timer(1.0, disk.open.set).start()
            waiting = log.append("test/one", {})
            await asyncio.sleep(0.05)
            time.sleep(0.8)  # noqa: ASYNC251
            await waiting
            assert "ok" == log.state().state

    run(body)


def test_records_are_refused_before_the_disk_is_full_and_notes_are_not(tmp_path: Path) -> None:
    """The last of the disk is for revocations: releases are refused while they can still be recorded."""

    async def body() -> None:
        disk = BadDisk()
        disk.room = 10_000_000
        async with opened(tmp_path, files=disk, settings=replace(QUICK, reserve=1_000_000)) as log:
            await log.record("test/before")
            disk.room = 900_000
            await until(lambda: log.state().state == "failed")
            assert "the disk has 900000 bytes left" in await refused(log)
            log.note("test/note")
            await until(lambda: "test/note" in events(tmp_path))
            disk.room = 2_000_000
            await recovered(log)
            await log.record("test/after")

    run(body)
    assert ["first"] == reasons(tmp_path)
    assert [] == seen(tmp_path)


def test_change_of_state_is_told(tmp_path: Path) -> None:
    """Whoever asked to be told hears of the outage and of its end."""
    told: list[AuditStatus] = []

    async def body() -> None:
        disk = BadDisk()
        log = AuditLog(tmp_path, settings=QUICK, files=disk, changed=told.append)
        await log.open()
        disk.failing["sync"] = errno.ENOSPC
        await refused(log)
        disk.failing.clear()
        await recovered(log)
        await log.close()

    run(body)
    assert [("ok", ""), ("failed", "no space left on device"), ("ok", "")] == [(x.state, x.detail) for x in told]


def test_error_at_the_start_is_mended_later(tmp_path: Path) -> None:
    """A broker comes up on a disk that takes nothing, says why, and begins once it can."""

    async def body() -> None:
        disk = BadDisk()
        disk.failing["create"] = errno.EROFS
        async with opened(tmp_path / "audit", files=disk) as log:
            assert ("failed", "read-only file system") == (log.state().state, log.state().detail)
            with pytest.raises(AuditError, match="read-only file system"):
                await log.record("test/one")
            disk.failing.clear()
            await recovered(log)

    run(body)
    assert ["first"] == reasons(tmp_path / "audit")


def test_error_while_going_on_in_an_old_segment(tmp_path: Path) -> None:
    """Where the first write to an adopted segment fails, it is not written to a second time."""

    async def body() -> None:
        async with opened(tmp_path):
            pass
        length = (tmp_path / "audit.jsonl").stat().st_size
        disk = BadDisk()
        disk.failing["write"] = errno.EIO
        async with opened(tmp_path, files=disk) as log:
            assert "failed" == log.state().state
            disk.failing.clear()
            await recovered(log)
        assert length == (tmp_path / "audit-000001.jsonl").stat().st_size

    run(body)
    assert ["first", "error"] == reasons(tmp_path)
    assert judged(tmp_path).intact


def test_bug_in_the_thread_is_an_outage_and_not_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What nobody foresaw is logged with its trace and treated as a disk that failed."""

    async def body() -> None:
        disk = BadDisk()
        async with opened(tmp_path, files=disk) as log:
            disk.takes = "nonsense"  # type: ignore[assignment]
            assert "audit log cannot be written: unexpected TypeError" == await refused(log)
            disk.takes = None
            await recovered(log)

    run(body)
    assert "in a way that nobody foresaw" in caplog.text
    assert judged(tmp_path).intact
