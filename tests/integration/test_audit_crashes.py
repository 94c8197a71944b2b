"""The audit log after crashes and changes at any byte: it always opens, and says what is missing."""

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hypothesis
from hypothesis import strategies as st

from broker.audit import AuditLog
from broker.core import chain
from tests.audit_steps import QUICK, judged, opened, recovered, segments
from tests.fakes.bad_disk import BadDisk

RECORDS = 12


def written() -> bytes:
    """Return the text of a log with a dozen records that nobody closed."""
    records = [chain.body(1_790_000_000, chain.SEGMENT, {"format": 1, "segment": 1, "why": "first"})]
    records += [chain.body(1_790_000_000 + n, "test/one", {"count": n, "secret": "github"}) for n in range(RECORDS)]
    return chain.extend(chain.GENESIS, records)[0]


@contextmanager
def left_behind(text: bytes) -> Iterator[Path]:
    """Return a directory with a log that holds ``text``."""
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / chain.CURRENT).write_bytes(text)
        (Path(name) / "fingerprint.key").write_bytes(bytes(32))
        yield Path(name)


def open_and_record(place: Path) -> str:
    """Open the log, record something, close it; return the state that it was in."""

    async def body() -> str:
        async with opened(place) as log:
            state = log.state().state
            await log.record("test/after")
            return state

    return asyncio.run(body())


def whole_lines(text: bytes) -> list[bytes]:
    """Return the lines that end."""
    return text[: text.rfind(b"\n") + 1].splitlines(keepends=True)


@hypothesis.settings(max_examples=150)
@hypothesis.given(length=st.integers(0, len(written())))
def test_log_that_ends_anywhere(length: int) -> None:
    """Wherever a crash cuts the log off, it opens, all whole lines stay, and a torn one is on record."""
    text = written()[:length]
    with left_behind(text) as place:
        open_and_record(place)
        kept = b"".join((place / name).read_bytes() for name in segments(place))
        assert kept.startswith(b"".join(whole_lines(text)))
        report = judged(place)
        torn = not text.endswith(b"\n") and len(text) > 0
        assert torn == any(finding.kind == "torn" for finding in report.findings)
        assert bool(whole_lines(text)) == report.intact


@hypothesis.settings(max_examples=150)
@hypothesis.given(at=st.integers(0, len(written()) - 1), bit=st.integers(0, 7))
def test_log_with_one_bit_changed(at: int, bit: int) -> None:
    """
    Whichever bit of the log is changed, it opens and verification names that line.

    Of the last two lines it may name the other one, and a change in the last one can go unseen: nothing hangs on it.
    """
    text = bytearray(written())
    text[at] ^= 1 << bit
    line = written()[:at].count(b"\n") + 1
    with left_behind(bytes(text)) as place:
        open_and_record(place)
        alarms = {finding.where for finding in judged(place).findings if finding.alarm}
        first, second = f"audit-000001.jsonl:{line}", f"audit-000001.jsonl:{line + 1}"
        assert (line <= RECORDS) <= bool(alarms)
        assert (line < RECORDS) <= (first in alarms)
        assert alarms <= {first, second, "audit.jsonl:1"}


@hypothesis.settings(max_examples=100)
@hypothesis.given(text=st.binary(max_size=2000))
def test_log_that_is_noise(text: bytes) -> None:
    """Whatever is in the place of the log, a broker starts, and verification is not content with it."""
    with left_behind(text) as place:
        open_and_record(place)
        assert not judged(place).intact


@hypothesis.settings(max_examples=40)
@hypothesis.given(
    steps=st.lists(st.sampled_from(["record", "sync", "write", "short", "rename", "crash", "close"]), max_size=12)
)
def test_any_sequence_of_failures(steps: list[str]) -> None:
    """Whatever fails in whatever order, every acknowledged record is in the log and the chain verifies."""
    with tempfile.TemporaryDirectory() as name:
        acknowledged = asyncio.run(lived(Path(name), steps))
        report = judged(Path(name))
        assert [] == [finding for finding in report.findings if finding.alarm]
        text = b"".join((Path(name) / segment).read_bytes() for segment in segments(Path(name)))
        assert [] == [count for count in acknowledged if b'"count":%d}' % count not in text]


async def lived(place: Path, steps: list[str]) -> list[int]:
    """Live through ``steps`` and return which records were acknowledged."""
    disk = BadDisk()
    log = AuditLog(place, settings=QUICK, files=disk)
    await log.open()
    done: list[int] = []
    for number, step in enumerate([*steps, "record"]):
        if step in {"crash", "close"}:
            text = (place / chain.CURRENT).read_bytes()
            await log.close()
            if step == "crash":
                (place / chain.CURRENT).write_bytes(text)
            log = AuditLog(place, settings=QUICK, files=disk)
            await log.open()
            continue
        if step != "record":
            disk.takes = 100 if step == "short" else None
            disk.failing = {} if step == "short" else {step: 5}
        waiting = [log.append("test/one", {"count": count}) for count in range(number * 10, number * 10 + 3)]
        results = await asyncio.gather(*waiting, return_exceptions=True)
        done += [number * 10 + at for at, result in enumerate(results) if isinstance(result, int)]
        disk.failing, disk.takes = {}, None
        await recovered(log)
    await log.close()
    return done
