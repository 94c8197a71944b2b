"""The audit log on a disk that does what it is told: what is written, where, and who may."""

import asyncio
import json
import os
import stat
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import uvloop

from backends.base import Secret
from broker.audit import AuditLog
from broker.core.chain import RecordError
from broker.errors import AuditError
from tests.audit_steps import HASTY, QUICK, events, judged, opened, reasons, records, recovered, run, seen, segments
from tests.fakes.bad_disk import BadDisk


def test_record_is_on_disk_when_it_is_acknowledged(tmp_path: Path) -> None:
    """Whoever is told of a record finds it in the file."""

    async def body() -> None:
        async with opened(tmp_path / "audit") as log:
            number = await log.record("credential/authorised", server="github", secret="github", uid=1000)
            assert 2 == number
            last = (tmp_path / "audit/audit.jsonl").read_bytes().splitlines()[-1]
            assert ["github", 1000, 2] == [json.loads(last)[name] for name in ("secret", "uid", "seq")]

    run(body)


def test_many_share_a_sync_and_keep_their_order(tmp_path: Path) -> None:
    """Records of many that wait at once get numbers in the order in which they were asked for."""

    async def body() -> None:
        async with opened(tmp_path) as log:
            numbers = await asyncio.gather(*(log.append("test/one", {"count": count}) for count in range(3000)))
            assert list(range(2, 3002)) == numbers
        found = [record["count"] for record in records(tmp_path) if record["event"] == "test/one"]
        assert list(range(3000)) == found
        assert judged(tmp_path).intact

    run(body)


def test_notes_stand_in_order_with_records(tmp_path: Path) -> None:
    """What did not wait stands before what was asked for later."""

    async def body() -> None:
        async with opened(tmp_path) as log:
            log.note("test/note", count=1)
            first = log.append("test/one", {"count": 2})
            log.note("test/note", count=3)
            await log.record("test/one", count=4)
            assert first.done()
        assert [1, 2, 3, 4] == [record["count"] for record in records(tmp_path) if "count" in record]

    run(body)


def test_nothing_is_open_to_others(tmp_path: Path) -> None:
    """Directories are 0700 and files 0600, whatever the umask."""

    async def body() -> None:
        before = os.umask(0)
        try:
            async with opened(tmp_path / "state/audit", settings=replace(QUICK, segment_bytes=1)) as log:
                await log.record("test/one")
                await log.record("test/one")
        finally:
            os.umask(before)

    run(body)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "state").rglob("*")}
    assert 0o700 == modes.pop("audit") == stat.S_IMODE((tmp_path / "state").stat().st_mode)
    assert {0o600} == set(modes.values())
    assert {"audit.jsonl", "audit-000001.jsonl", "lock", "fingerprint.key"} <= set(modes)


def test_peaceful_restart_goes_on_in_the_same_file(tmp_path: Path) -> None:
    """A broker that ended in peace is followed by another in the same segment, which is for its owner alone again."""

    async def body() -> None:
        for _ in range(3):
            async with opened(tmp_path) as log:
                await log.record("test/one")
            (tmp_path / "audit.jsonl").chmod(0o644)
        async with opened(tmp_path):
            assert 0o600 == stat.S_IMODE((tmp_path / "audit.jsonl").stat().st_mode)

    run(body)
    once, again = ["test/one", "audit/closed"], ["audit/opened", "audit/closed"]
    assert ["audit/segment", *once, "audit/opened", *once, "audit/opened", *once, *again] == events(tmp_path)
    assert ["audit.jsonl"] == segments(tmp_path)
    assert [] == seen(tmp_path)


def test_crash_is_followed_by_a_new_segment(tmp_path: Path) -> None:
    """A segment that nobody closed is not written to again: its broker may have died of the disk."""

    async def body() -> None:
        log = AuditLog(tmp_path, settings=QUICK)
        await log.open()
        await log.record("test/one")
        text = (tmp_path / "audit.jsonl").read_bytes()
        await log.close()
        (tmp_path / "audit.jsonl").write_bytes(text)
        async with opened(tmp_path):
            pass

    run(body)
    assert ["first", "restart"] == reasons(tmp_path)
    assert [] == seen(tmp_path)


def test_full_segment_is_followed_by_the_next(tmp_path: Path) -> None:
    """At its length a segment is kept under its number, and the chain goes on."""

    async def body() -> None:
        async with opened(tmp_path, settings=replace(QUICK, segment_bytes=1000)) as log:
            for count in range(30):
                await log.record("test/one", count=count)

    run(body)
    names = segments(tmp_path)
    assert len(names) > 3
    assert [f"audit-{number:06d}.jsonl" for number in range(1, len(names))] + ["audit.jsonl"] == names
    assert ["first"] + ["size"] * (len(names) - 1) == reasons(tmp_path)
    assert [] == seen(tmp_path)
    assert list(range(30)) == [record["count"] for record in records(tmp_path) if "count" in record]


def test_second_broker_is_refused(tmp_path: Path) -> None:
    """One log has one writer, and the second is told who holds it."""

    async def body() -> None:
        async with opened(tmp_path) as log:
            with pytest.raises(AuditError, match="another broker"):
                await AuditLog(tmp_path, settings=QUICK).open()
            await log.record("test/one")
        async with opened(tmp_path) as log:
            assert log.state().accepts

    run(body)


def test_torn_line_is_cut_off_and_recorded(tmp_path: Path) -> None:
    """Half a line that a crash left is cut off, with its length and its hash on record."""
    torn = b'{"seq":3,"prev":"00'

    async def body() -> None:
        async with opened(tmp_path):
            pass
        with (tmp_path / "audit.jsonl").open("ab") as file:
            file.write(torn)
        async with opened(tmp_path) as log:
            assert "ok" == log.state().state

    run(body)
    begun = [record for record in records(tmp_path) if record["event"] == "audit/segment"][-1]
    assert ["torn", len(torn), sha256(torn).hexdigest()] == [begun[key] for key in ("why", "cut_bytes", "cut_sha256")]
    assert (tmp_path / "audit-000001.jsonl").read_bytes().endswith(b"\n")
    assert [("torn", "audit.jsonl:1", False), ("noticed", "audit.jsonl:1", False)] == seen(tmp_path)


def test_edited_history_is_said_and_does_not_stop_the_start(tmp_path: Path) -> None:
    """A broker starts on a log that somebody changed, says so in its state and records that it saw it."""

    async def body() -> None:
        async with opened(tmp_path) as log:
            for _ in range(5):
                await log.record("test/one", uid=1000)
        path = tmp_path / "audit.jsonl"
        path.write_bytes(path.read_bytes().replace(b'"uid":1000', b'"uid":1001', 1))
        async with opened(tmp_path) as log:
            assert "damaged" == log.state().state
            assert "record 3 does not follow record 2" == log.state().detail
            assert log.state().accepts
            await log.record("test/one")

    run(body)
    assert ["first", "damaged"] == reasons(tmp_path)
    assert ("edited", "audit-000001.jsonl:2", True) == seen(tmp_path)[0]


def test_directory_that_others_can_write_to_is_refused_until_mended(tmp_path: Path) -> None:
    """Nothing is recorded where others could change it; once they cannot, it is."""

    async def body() -> None:
        (tmp_path / "audit").mkdir()
        (tmp_path / "audit").chmod(0o777)
        async with opened(tmp_path / "audit") as log:
            assert "failed" == log.state().state
            assert f"chmod 700 {tmp_path}/audit" == log.state().hint
            (tmp_path / "audit").chmod(0o700)
            await recovered(log)

    run(body)


def test_segments_that_vanished_while_no_broker_ran_are_missed(tmp_path: Path) -> None:
    """A log whose files are gone does not look like a new one: its key is still there."""

    async def body() -> None:
        async with opened(tmp_path):
            pass
        (tmp_path / "audit.jsonl").unlink()
        async with opened(tmp_path):
            pass

    run(body)
    assert ["missing"] == reasons(tmp_path)


def test_current_segment_that_vanished_while_no_broker_ran(tmp_path: Path) -> None:
    """Where earlier segments are there and the current one is gone, the chain goes on, and verification misses one."""

    async def body() -> None:
        async with opened(tmp_path, settings=replace(QUICK, segment_bytes=300)) as log:
            await log.record("test/one")
            await log.record("test/two")
        (tmp_path / "audit.jsonl").unlink()
        async with opened(tmp_path) as log:
            await log.record("test/three")

    run(body)
    assert "missing" == reasons(tmp_path)[-1]
    assert [("missing-segment", "audit.jsonl:1", True), ("noticed", "audit.jsonl:1", False)] == seen(tmp_path)


def test_crash_between_two_segments_is_not_mistaken_for_a_theft(tmp_path: Path) -> None:
    """A broker that died after it had kept the old segment and before it had named the new one left no gap."""

    async def body() -> None:
        async with opened(tmp_path) as log:
            await log.record("test/one")
        (tmp_path / "audit.jsonl").rename(tmp_path / "audit-000001.jsonl")
        (tmp_path / "audit.jsonl.new").write_bytes(b"")
        async with opened(tmp_path) as log:
            await log.record("test/two")

    run(body)
    assert ["first", "restart"] == reasons(tmp_path)
    assert [] == seen(tmp_path)


def test_segment_of_a_newer_broker_is_not_written_to(tmp_path: Path) -> None:
    """After a downgrade the log goes on in a segment of the older format, and says that it cannot judge the other."""

    async def body() -> None:
        async with opened(tmp_path):
            pass
        path = tmp_path / "audit.jsonl"
        path.write_bytes(path.read_bytes().replace(b'"format":1', b'"format":2'))
        async with opened(tmp_path) as log:
            assert "damaged" == log.state().state

    run(body)
    assert [("unknown-format", "audit-000001.jsonl:1", True)] == seen(tmp_path)


def test_key_of_the_wrong_length_is_not_used(tmp_path: Path) -> None:
    """A key for fingerprints that is cut off makes the log refuse, with the command that mends it."""

    async def body() -> None:
        async with opened(tmp_path):
            pass
        (tmp_path / "fingerprint.key").write_bytes(b"short")
        async with opened(tmp_path) as log:
            with pytest.raises(AuditError, match="5 bytes instead of 32"):
                log.fingerprint(Secret("hunter2"))
            (tmp_path / "fingerprint.key").unlink()
            await recovered(log)
            assert log.fingerprint(Secret("hunter2"))

    run(body)


def test_key_that_is_deleted_is_put_back(tmp_path: Path) -> None:
    """A broker that has the key in memory writes the same one again when it begins a segment."""

    async def body() -> None:
        async with opened(tmp_path) as log:
            before = (tmp_path / "fingerprint.key").read_bytes()
            (tmp_path / "fingerprint.key").unlink()
            (tmp_path / "audit.jsonl").unlink()
            with pytest.raises(AuditError):
                await log.record("test/one")
            await recovered(log)
            assert before == (tmp_path / "fingerprint.key").read_bytes()

    run(body)


def test_log_on_uvloop(tmp_path: Path) -> None:
    """On the loop that the daemon uses records are written just as well, and a hung disk is refused."""

    async def body() -> None:
        disk = BadDisk()
        async with opened(tmp_path, files=disk, settings=HASTY) as log:
            assert list(range(2, 102)) == await asyncio.gather(*(log.append("test/one", {}) for _ in range(100)))
            disk.open.clear()
            with pytest.raises(AuditError, match="has not answered"):
                await log.record("test/hung")
            disk.open.set()
            await recovered(log)

    uvloop.run(body())
    assert judged(tmp_path).intact


def test_unknown_field_is_a_bug_and_is_not_logged(tmp_path: Path) -> None:
    """A field that is not on the list raises and leaves no trace."""

    async def body() -> None:
        async with opened(tmp_path) as log:
            with pytest.raises(RecordError, match="no audit record may have the field 'password'"):
                log.append("test/one", {"password": "hunter2"})
            with pytest.raises(RecordError):
                log.note("test/one", uid=Secret("hunter2"))

    run(body)
    assert b"hunter2" not in (tmp_path / "audit.jsonl").read_bytes()


def test_fingerprint_is_keyed_and_stays(tmp_path: Path) -> None:
    """A value has the same fingerprint after a restart, and another one in another log."""

    async def body() -> list[str]:
        found = []
        for name in ("a", "a", "b"):
            async with opened(tmp_path / name) as log:
                found.append(log.fingerprint(Secret("hunter2")))
        return found

    first, again, other = asyncio.run(body())
    assert first == again
    assert first != other
    assert 32 == len(first)


def test_closed_log_refuses(tmp_path: Path) -> None:
    """After its end a log takes nothing, and says what it never wrote."""

    async def body() -> None:
        log = AuditLog(tmp_path, settings=QUICK)
        await log.open()
        assert 0 == await log.close()
        with pytest.raises(AuditError, match="it is closed"):
            await log.record("test/one")
        log.note("test/one")
        assert 1 == await log.close()

    run(body)
