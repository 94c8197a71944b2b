"""
Writes the audit chains of ``tests/vectors/audit``, good and bad, each with its declared outcome.

The files are in the repository, so that another program can be tested with
them; this is how they came about: ``python -m tests.vectors.make_audit``. The
outcomes are written by hand, here, and not taken from what ``verify`` says.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from broker.core import chain
from tests.vectors.audit_logs import (
    Files,
    Writer,
    changed,
    cut,
    forged,
    lines,
    log,
    loose,
    outage,
    put,
    renamed,
    rewritten,
    swap,
    twice_failed,
    without,
)

PLACE: Final = Path(__file__).parent / "audit"

Finding = tuple[str, str, bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One log: its name, what it is, its files, and what has to be found (kind, where, whether it is an alarm)."""

    name: str
    about: str
    files: Files
    findings: tuple[Finding, ...]


def case(name: str, about: str, files: Files, *findings: Finding) -> Case:
    """Return a case."""
    return Case(name=name, about=about, files=files, findings=findings)


def good() -> Iterator[Case]:
    """Yield the logs that nobody has touched."""
    now = chain.CURRENT
    writer = Writer()
    writer.begin("first")
    writer.issue(2)
    writer.files[now] += chain.extend(writer.head, [writer.body(chain.CLOSED, {})])[0]
    yield case("good-one-segment", "a broker ran once and ended in peace", writer.files)
    yield case("good-three-segments", "two segments were full", log(4, 3, 2))
    yield case("good-only-first-record", "a broker started and nobody asked", log(0))


def declared() -> Iterator[Case]:
    """Yield the logs of brokers that had bad luck and said so."""
    now, one = chain.CURRENT, chain.archived(1)
    torn = b'{"seq":5,"prev":"00'
    noticed = ("noticed", f"{now}:1", False)
    yield case(
        "declared-orphans",
        "two records were written and never acknowledged, then the disk failed",
        outage(2, 2, detail="input/output error"),
        ("orphaned", f"{one}:5", False),
        noticed,
    )
    yield case(
        "declared-part-of-a-batch",
        "of three records one and a half were written, then the disk was full",
        outage(1, 3, rest=torn, detail="no space left on device"),
        ("torn", f"{one}:6", False),
        ("orphaned", f"{one}:5", False),
        noticed,
    )
    yield case(
        "declared-zeros",
        "a sync failed and the file is full of zeros where two records were",
        outage(0, 2, rest=b"\0" * 200, detail="input/output error"),
        ("torn", f"{one}:5", False),
        noticed,
    )
    yield case(
        "declared-zeros-over-one",
        "a sync failed and the first of two records is zeros",
        outage(0, 2, rest=b"\0" * 200 + b'"}\n', detail="input/output error"),
        ("orphaned", f"{one}:5", False),
        noticed,
    )
    yield case(
        "declared-hang",
        "the disk hung and wrote later",
        outage(2, 2, why="hung"),
        ("orphaned", f"{one}:5", False),
        noticed,
    )
    yield case(
        "declared-two-failures",
        "the first record of the next segment was not acknowledged either",
        twice_failed(),
        ("orphaned", f"{one}:5", False),
        noticed,
    )


def declared_torn() -> Iterator[Case]:
    """Yield the logs of brokers that died in the middle of a line."""
    now, one = chain.CURRENT, chain.archived(1)
    torn = b'{"seq":5,"prev":"00'
    told: dict[str, Any] = {"cut_bytes": len(torn), "cut_sha256": sha256(torn).hexdigest()}
    noticed = ("noticed", f"{now}:1", False)
    yield case(
        "declared-torn-cut",
        "a crash tore the last line, which was cut off at the start",
        outage(0, 0, why="torn", **told),
        ("torn", f"{now}:1", False),
        noticed,
    )
    yield case(
        "declared-torn-left",
        "a crash tore the last line, and another came before it was cut off",
        outage(0, 0, why="torn", rest=torn, **told),
        ("torn", f"{one}:5", False),
        noticed,
    )


def bad_lines() -> Iterator[Case]:
    """Yield the logs in which somebody changed lines."""
    now, one = chain.CURRENT, chain.archived(1)
    files, both = log(6), log(4, 3)
    yield case(
        "bad-edited",
        "line 3 names another uid",
        changed(files, now, swap(3, b'"uid":1000', b'"uid":1001')),
        ("edited", f"{now}:3", True),
    )
    yield case(
        "bad-edited-first",
        "line 1 is of another time",
        changed(files, now, swap(1, b"2026-", b"2025-")),
        ("edited", f"{now}:1", True),
    )
    yield case(
        "bad-edited-space",
        "line 3 ends in a space",
        changed(files, now, swap(3, b"\n", b" \n")),
        ("edited", f"{now}:3", True),
    )
    yield case(
        "bad-edited-prev",
        "line 4 hangs on nothing",
        changed(files, now, swap(4, lines(files[now])[3][17:81], b"a" * 64)),
        ("edited", f"{now}:4", True),
    )
    yield case(
        "bad-edited-last-of-segment",
        "the last line of an earlier segment names another uid",
        changed(both, one, swap(5, b'"uid":1000', b'"uid":1001')),
        ("edited", f"{one}:5", True),
    )
    yield case(
        "bad-edited-next-to-last",
        "the line before the last names another uid: it or the last was changed",
        changed(files, now, swap(6, b'"uid":1000', b'"uid":1001')),
        ("wrong-prev", f"{now}:7", True),
    )


def bad_order() -> Iterator[Case]:
    """Yield the logs in which somebody took lines out, put some in, or moved them."""
    now, one = chain.CURRENT, chain.archived(1)
    files, both = log(6), log(4, 3)
    yield case(
        "bad-number",
        "line 4 has the number 40",
        changed(files, now, swap(4, b'"seq":4,', b'"seq":40,')),
        ("seq-gap", f"{now}:4", True),
    )
    yield case("bad-dropped", "line 4 is gone", changed(files, now, without(4, 4)), ("dropped", f"{now}:4", True))
    yield case("bad-dropped-first", "line 1 is gone", changed(files, now, without(1, 1)), ("dropped", f"{now}:1", True))
    yield case(
        "bad-dropped-end-of-segment",
        "the last two lines of an earlier segment are gone",
        changed(both, one, without(4, 5)),
        ("dropped", f"{now}:1", True),
    )
    yield case(
        "bad-inserted",
        "line 4 was put in and hangs on line 3",
        changed(files, now, put(4, forged(files, 4))),
        ("inserted", f"{now}:4", True),
    )
    yield case(
        "bad-inserted-loose",
        "line 4 was put in and hangs on nothing",
        changed(files, now, put(4, loose())),
        ("inserted", f"{now}:4", True),
    )
    yield case(
        "bad-inserted-copy",
        "line 3 stands a second time after line 5",
        changed(files, now, lambda found: [*found[:5], found[2], *found[5:]]),
        ("replayed", f"{now}:6", True),
    )
    yield case(
        "bad-reordered",
        "lines 4 and 5 changed places",
        changed(files, now, lambda found: [*found[:3], found[4], found[3], *found[5:]]),
        ("reordered", f"{now}:4", True),
    )
    yield case(
        "bad-moved-up",
        "line 6 stands before line 3",
        changed(files, now, lambda found: [*found[:2], found[5], *found[2:5], *found[6:]]),
        ("reordered", f"{now}:3", True),
    )


def bad_text() -> Iterator[Case]:
    """Yield the logs with lines that are none."""
    now = chain.CURRENT
    files = log(6)
    yield case(
        "bad-not-json",
        "line 4 is prose",
        changed(files, now, lambda found: [*found[:3], b"nothing to see here\n", *found[4:]]),
        ("not-json", f"{now}:4", True),
    )
    yield case(
        "bad-blank-line",
        "an empty line stands in between",
        changed(files, now, put(4, b"\n")),
        ("not-json", f"{now}:4", True),
    )
    yield case(
        "bad-two-places",
        "line 3 names another uid and line 6 is gone",
        changed(changed(log(9), now, swap(3, b'"uid":1000', b'"uid":1001')), now, without(6, 6)),
        ("edited", f"{now}:3", True),
        ("dropped", f"{now}:6", True),
    )
    yield case("bad-torn", "the last line breaks off", cut(files), ("torn", f"{now}:7", True))


def bad_segments() -> Iterator[Case]:
    """Yield the logs in which somebody changed whole files, or the broker had to."""
    now, one, two = chain.CURRENT, chain.archived(1), chain.archived(2)
    three = log(3, 3, 3)
    newer = changed(log(2, 2), now, swap(1, b'"format":1', b'"format":2'))
    yield case(
        "bad-missing-middle",
        "the second of three segments is gone",
        {now: three[now], one: three[one]},
        ("missing-segment", f"{now}:1", True),
    )
    yield case(
        "bad-missing-first",
        "the first of three segments is gone",
        {now: three[now], two: three[two]},
        ("missing-segment", f"{two}:1", True),
    )
    yield case(
        "bad-empty",
        "a segment has nothing in it",
        three | {two: b""},
        ("missing-segment", f"{two}:1", True),
        ("missing-segment", f"{now}:1", True),
    )
    yield case(
        "bad-renamed",
        "two segments changed names",
        renamed(),
        ("missing-segment", f"{one}:1", True),
        ("reordered", f"{two}:1", True),
        ("missing-segment", f"{now}:1", True),
    )
    yield case(
        "bad-newer-format",
        "the second segment is of a format that is not known yet",
        newer,
        ("unknown-format", f"{now}:1", True),
    )


def bad_declarations() -> Iterator[Case]:
    """Yield the logs in which more is wrong than the broker said."""
    now, one = chain.CURRENT, chain.archived(1)
    yield case(
        "bad-more-than-declared",
        "three lines follow the last acknowledged one, and the broker wrote two",
        outage(3, 2),
        ("inserted", f"{one}:5", True),
        ("noticed", f"{now}:1", False),
    )
    yield case(
        "bad-torn-not-declared",
        "a line breaks off and the next segment knows nothing of it",
        outage(0, 0, why="size", rest=b'{"seq'),
        ("torn", f"{one}:5", True),
    )
    yield case(
        "bad-truncated",
        "somebody cut two acknowledged records off and the broker saw that the file was shorter",
        changed(
            outage(0, 0, why="truncated", detail="the current segment has 500 bytes and was left with 1000"),
            one,
            without(3, 4),
        ),
        ("dropped", f"{now}:1", True),
        ("noticed", f"{now}:1", False),
    )


def undetected() -> Iterator[Case]:
    """Yield what a chain alone cannot show: an end that was changed, a log that was written anew from some point on."""
    now = chain.CURRENT
    files = log(6)
    yield case("undetected-cut-tail", "the last two lines are gone", changed(files, now, without(6, 7)))
    yield case(
        "undetected-edited-last",
        "the last line names another uid",
        changed(files, now, swap(7, b'"uid":1000', b'"uid":1001')),
    )
    yield case("undetected-rewritten", "a line was changed and everything after it hashed anew", rewritten())


def cases() -> Iterator[Case]:
    """Yield every case."""
    for each in (
        good,
        declared,
        declared_torn,
        bad_lines,
        bad_order,
        bad_text,
        bad_segments,
        bad_declarations,
        undetected,
    ):
        yield from each()


def write() -> None:
    """Write every case."""
    for each in cases():
        place = PLACE / each.name
        place.mkdir(parents=True, exist_ok=True)
        for old in place.iterdir():
            old.unlink()
        for file, text in each.files.items():
            (place / file).write_bytes(text)
        outcome = {
            "about": each.about,
            "intact": not any(alarm for _, _, alarm in each.findings),
            "findings": [{"kind": kind, "where": where, "alarm": alarm} for kind, where, alarm in each.findings],
        }
        (place / "outcome.json").write_text(json.dumps(outcome, indent=2) + "\n")


if __name__ == "__main__":
    write()
