"""Segments that are compressed and removed, and disks that fill in the middle of it: nothing is lost, all verifies."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from broker.audit import AuditLog
from broker.audit_upkeep import Upkeep
from broker.config.recording import AuditConfig
from broker.core import checkpoint as c
from broker.core.retention import Kept, removable
from tests.audit.killing import judged, killed, page_text
from tests.audit_steps import QUICK, recovered, until
from tests.fakes.bad_disk import BadDisk
from tests.running import start

SMALL = AuditConfig(segment_bytes=1000, checkpoint=3600.0)


@asynccontextmanager
async def kept(
    place: Path, config: AuditConfig, *, files: BadDisk | None = None, now: list[float] | None = None
) -> AsyncIterator[tuple[AuditLog, Upkeep]]:
    """Open a log with its upkeep, and close both."""
    clock = (lambda: now[0]) if now is not None else (lambda: 1_790_000_000.0)
    settings = replace(QUICK, segment_bytes=config.segment_bytes)
    log = AuditLog(place / "audit", settings=settings, files=files, clock=clock)
    upkeep = Upkeep(
        log,
        config,
        directory=place / "audit",
        keys=place / "signing",
        clock=clock,
        alarm=lambda *_, **__: None,
        files=files,
    )
    log.marked = upkeep.marked
    await log.open()
    await upkeep.open()
    try:
        yield log, upkeep
    finally:
        await upkeep.close()
        await log.close()


def run(body: Callable[[], Awaitable[None]]) -> None:
    """Run a test's body in a loop of its own."""

    async def whole() -> None:
        await body()

    asyncio.run(whole())


def names(place: Path) -> list[str]:
    """Return the names of the log's segments as they are on the disk."""
    return sorted(path.name for path in (place / "audit").glob("audit*"))


async def fill(log: AuditLog, count: int) -> None:
    """Write so many records, one after the other."""
    for number in range(count):
        await log.record("test/one", count=number)


def test_earlier_segments_are_compressed_and_read_as_before(tmp_path: Path) -> None:
    """Each earlier segment becomes a gzip file with the same lines, and the whole log verifies."""

    async def body() -> None:
        async with kept(tmp_path, SMALL) as (log, _):
            await fill(log, 30)
            await until(lambda: len([name for name in names(tmp_path) if name.endswith(".gz")]) >= 4)

    run(body)
    packed = [name for name in names(tmp_path) if name.endswith(".gz")]
    plain = [name for name in names(tmp_path) if name.endswith(".jsonl")]
    assert (True, True) == (len(packed) >= 4, "audit.jsonl" in plain)
    assert b'"why":"first"' in gzip.decompress((tmp_path / "audit" / packed[0]).read_bytes())
    report = judged(tmp_path / "audit")
    assert (True, ()) == (report.intact, report.findings)
    assert report.vouched >= report.records - 9


def test_a_compressed_segment_that_was_damaged_shows(tmp_path: Path) -> None:
    """A byte that was changed in a compressed file, or its end cut off, is a finding and no error."""

    async def body() -> None:
        async with kept(tmp_path, SMALL) as (log, _):
            await fill(log, 30)
            await until(lambda: len([name for name in names(tmp_path) if name.endswith(".gz")]) >= 4)

    run(body)
    path = tmp_path / "audit/audit-000002.jsonl.gz"
    whole = path.read_bytes()
    for changed in (whole[:100], bytes([*whole[:60], whole[60] ^ 1, *whole[61:]]), b"", b"no gzip at all"):
        path.write_bytes(changed)
        assert not judged(tmp_path / "audit").intact
    path.write_bytes(whole)
    assert judged(tmp_path / "audit").intact


def test_what_is_old_is_removed_and_the_rest_verifies(tmp_path: Path) -> None:
    """Segments go when they are old enough, their removal is on record, and a checkpoint is the new beginning."""
    now = [1_790_000_000.0]
    config = replace(SMALL, keep=100.0, checkpoint=10.0)

    async def body() -> None:
        async with kept(tmp_path, config, now=now) as (log, upkeep):
            await fill(log, 20)
            await until(lambda: "audit-000002.jsonl.gz" in names(tmp_path))
            now[0] += 101.0
            await fill(log, 20)
            upkeep.tick(now[0])
            await until(lambda: not any(name.startswith("audit-000002") for name in names(tmp_path)))
            await fill(log, 3)
            now[0] += 11.0
            upkeep.tick(now[0])

    run(body)
    report = judged(tmp_path / "audit")
    assert (True, ["removed"]) == (report.intact, [each.kind for each in report.findings])
    (tmp_path / "audit" / c.FILE).unlink()
    (tmp_path / "audit" / c.FILE).write_bytes(b"")
    assert not judged(tmp_path / "audit").intact


def test_a_segment_that_somebody_else_removed_is_missing(tmp_path: Path) -> None:
    """Without a record of its removal the absence of the first segment is an alarm."""

    async def body() -> None:
        async with kept(tmp_path, SMALL) as (log, _):
            await fill(log, 20)
            await until(lambda: "audit-000001.jsonl.gz" in names(tmp_path))

    run(body)
    (tmp_path / "audit/audit-000001.jsonl.gz").unlink()
    assert ["missing-segment"] == [each.kind for each in judged(tmp_path / "audit").findings]


@pytest.mark.parametrize(
    ("covered", "taken", "keep", "expected"),
    [
        (100, 100, 10.0, [1, 2]),
        (20, 100, 10.0, [1]),
        (100, 15, 10.0, [1]),
        (10, 100, 10.0, []),
        (100, 100, 95.0, [1]),
        (100, 100, None, []),
    ],
)
def test_nothing_is_removed_that_is_not_covered_and_copied(
    covered: int, taken: int, keep: float | None, expected: list[int]
) -> None:
    """A segment goes when it is old, a checkpoint covers more than it, and every sink has it; never out of order."""
    segments = [Kept(number=1, last=10, ended=0.0), Kept(number=2, last=20, ended=10.0)]
    found = removable(segments, now=100.0, keep=keep, covered=covered, taken=taken)
    assert expected == [each.number for each in found]


@pytest.mark.parametrize(
    "call", ["create", "write", "sync", "rename", "sync_directory", "remove", "append_to", "destroy"]
)
def test_a_disk_that_is_full_in_a_segment_change_loses_nothing(tmp_path: Path, call: str) -> None:
    """Whichever call fails when a segment is full: what was acknowledged is there, and the log goes on."""
    acknowledged: list[int] = []
    disk = BadDisk()

    async def body() -> None:
        async with kept(tmp_path, SMALL, files=disk) as (log, upkeep):
            for number in range(60):
                disk.failing = {call: 28} if number in {9, 10, 30, 31, 32} else {}
                try:
                    await log.record("test/one", count=number)
                    acknowledged.append(number)
                except Exception:  # noqa: BLE001 -- refused: that is no loss
                    disk.failing = {}
                    await recovered(log)
            disk.failing = {}
            await recovered(log)
            await upkeep.checkpoint()

    run(body)
    report = judged(tmp_path / "audit")
    assert [] == [each for each in report.findings if each.alarm]
    text = b"".join(page_text(tmp_path / "audit"))
    assert [] == [number for number in acknowledged if b'"count":%d}' % number not in text]
    assert len(acknowledged) >= 50


KILLS = 12
"""``python -m benchmarks kills`` goes on to a thousand."""


def test_nothing_is_lost_over_kills_under_load(tmp_path: Path) -> None:
    """Whatever a broker was at when it was killed, what it had answered is on record, and the whole log verifies."""
    assert [] == killed(tmp_path / "b", KILLS)


def test_a_log_that_was_cut_while_the_broker_was_stopped_is_told_at_the_start(tmp_path: Path) -> None:
    """A broker that finds fewer records than its last checkpoint vouches for says so, at once and from then on."""
    with start(tmp_path / "b", secrets={"github": "made up"}) as broker:
        for _ in range(5):
            broker.call("credential/issue", secret="github")
        broker.stop()
        path = broker.places.audit / "audit.jsonl"
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))
        broker.launch()
        state = broker.admin("status")["audit"]
        assert ("damaged", True) == (state["state"], "its end was cut off" in state["detail"])
        raised = [each["why"] for each in broker.records() if each["event"] == "alarm/raised"]
        assert raised[:1] == ["chain-broken"]
        broker.call("credential/issue", secret="github")
        broker.stop()
        kinds = {each.kind for each in judged(broker.places.audit).findings if each.alarm}
        assert kinds & {"rewritten", "cut-off"}
