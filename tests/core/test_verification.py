"""The verification of audit chains, by the vectors and by chance."""

import json
from pathlib import Path
from typing import Any, Final

import pytest

from broker.core import chain
from broker.core.findings import Report
from broker.core.verification import LONGEST_LINE, split, verify
from tests.vectors.audit_logs import Writer, lines, log

VECTORS: Final = Path(__file__).parent.parent / "vectors" / "audit"
NAMES: Final = sorted(path.name for path in VECTORS.iterdir() if path.is_dir())


def judged(place: Path) -> Report:
    """Verify the log in a directory."""
    names = chain.in_order(path.name for path in place.iterdir())
    return verify((name, (place / name).read_bytes().splitlines(keepends=True)) for name in names)


@pytest.mark.parametrize("name", NAMES)
def test_vector(name: str) -> None:
    """Every vector has exactly the outcome that it declares."""
    declared: dict[str, Any] = json.loads((VECTORS / name / "outcome.json").read_text())
    report = judged(VECTORS / name)
    found = [{"kind": x.kind, "where": x.where, "alarm": x.alarm} for x in report.findings]
    assert declared["findings"] == found
    assert declared["intact"] == report.intact


def found(*segments: tuple[str, bytes], partial: bool = False) -> list[tuple[str, str, bool]]:
    """Return what verification finds in segments: kind, where, whether it is an alarm."""
    report = verify(((name, split([text])) for name, text in segments), partial=partial)
    return [(finding.kind, finding.where, finding.alarm) for finding in report.findings]


def current(*text: bytes) -> list[tuple[str, str, bool]]:
    """Return what verification finds in a log of one segment."""
    return found((chain.CURRENT, b"".join(text)))


def test_no_log_is_not_intact() -> None:
    """Nothing at all is no undamaged log."""
    assert [("missing-segment", "audit.jsonl:1", True)] == found()


def test_earlier_segments_may_be_kept_elsewhere() -> None:
    """Who says that the beginning is elsewhere gets a notice for it, and an alarm for what is missing later."""
    files = log(2, 2, 2, 2)
    parts = [(name, files[name]) for name in (chain.archived(2), chain.CURRENT)]
    expected = [("missing-segment", "audit-000002.jsonl:1", False), ("missing-segment", "audit.jsonl:1", True)]
    assert expected == found(*parts, partial=True)


def test_report_names_the_ends_of_the_chain() -> None:
    """The report has the number of records, the first, the last, and the hash of the last line."""
    files = log(3)
    report = verify([(chain.CURRENT, lines(files[chain.CURRENT]))])
    tail = chain.last_good(files[chain.CURRENT], whole=True)
    assert report.first is not None
    assert report.last is not None
    assert (4, 1, 4, tail.head) == (report.records, report.first.seq, report.last.seq, report.head)


def test_long_log_is_verified_with_a_short_memory() -> None:
    """A log that is longer than what is remembered of it verifies, and is damaged where it is damaged."""
    text = log(10_000)[chain.CURRENT]
    assert [] == current(text)
    edited = lines(text)
    edited[7000] = edited[7000].replace(b'"uid":1000', b'"uid":1001')
    assert [("edited", "audit.jsonl:7001", True)] == current(*edited)


def test_thousand_findings_are_counted() -> None:
    """Of a log that is nothing but damage the first hundred findings are named and the rest counted."""
    report = verify([(chain.CURRENT, [b"prose\n"] * 1000)])
    assert (100, 900, False) == (len(report.findings), report.more, report.intact)


def test_endless_line_is_one_finding_and_costs_no_memory() -> None:
    """A line of many megabytes is cut short while it is read, and the lines after it keep their numbers."""
    before, *after = lines(log(3)[chain.CURRENT])
    pieces = [before, *([bytes(LONGEST_LINE)] * 50), b"\n", *after]
    assert max(len(text) for text in split(pieces)) <= LONGEST_LINE + 1
    report = verify([(chain.CURRENT, split(pieces))])
    assert ["audit.jsonl:2"] == [finding.where for finding in report.findings]


def test_pieces_of_any_size_make_the_same_lines() -> None:
    """How a file was cut into pages does not show in its lines."""
    text = log(5)[chain.CURRENT] + b"torn"
    for size in (1, 7, 100, 10_000):
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        assert text.splitlines(keepends=True) == list(split(pieces))


def test_line_without_an_end_in_the_middle() -> None:
    """A reader that hands out half a line and goes on has handed out something that is no record."""
    first, *rest = lines(log(3)[chain.CURRENT])
    report = verify([(chain.CURRENT, [first[:20], first, *rest])])
    assert [("not-json", "audit.jsonl:1")] == [(finding.kind, finding.where) for finding in report.findings]


def test_forged_record_that_hangs_on_an_old_one() -> None:
    """A line that was put in far from the record that it hangs on is named, not the ones in between."""
    writer = Writer()
    writer.begin("first")
    writer.issue(2)
    old = writer.head
    writer.issue(3)
    text = writer.files[chain.CURRENT]
    forged = chain.line(old.seq + 1, old.digest, writer.body("test/forged", {})) + b"\n"
    writer.issue(2)
    assert [("inserted", "audit.jsonl:7", True)] == current(text, forged, writer.files[chain.CURRENT][len(text) :])


def test_forged_record_at_the_end() -> None:
    """A second line for the place of the last one is named."""
    writer = Writer()
    writer.begin("first")
    writer.issue(1)
    old = writer.head
    writer.issue(1)
    forged = chain.line(old.seq + 1, old.digest, writer.body("test/forged", {})) + b"\n"
    assert [("inserted", "audit.jsonl:4", True)] == current(writer.files[chain.CURRENT], forged)


def test_forged_branch() -> None:
    """Where several lines were put in that hang on each other, the first of them is named."""
    writer = Writer()
    writer.begin("first")
    writer.issue(2)
    whole = writer.files[chain.CURRENT]
    branch, _ = chain.extend(writer.head, [writer.body("test/forged", {"count": n}) for n in range(3)])
    writer.issue(4)
    assert [("inserted", "audit.jsonl:4", True)] == current(whole, branch, writer.files[chain.CURRENT][len(whole) :])


def test_record_with_a_number_of_the_future() -> None:
    """A line with a high number and a wrong link does not make all that follow it look wrong."""
    text = lines(log(8)[chain.CURRENT])
    text[4] = text[4].replace(b'"seq":5,"prev":"', b'"seq":500,"prev":"').replace(text[4][16:20], b"0000")
    report = verify([(chain.CURRENT, text)])
    assert {"audit.jsonl:5", "audit.jsonl:6"} >= {finding.where for finding in report.findings}
    assert not report.intact


def test_numbers_that_really_jump() -> None:
    """A chain whose numbers jump at one place is named there and nowhere else."""
    writer = Writer()
    writer.begin("first")
    writer.issue(2)
    writer.head = chain.Head(seq=writer.head.seq + 10, digest=writer.head.digest)
    writer.issue(4)
    assert [("seq-gap", "audit.jsonl:4", True)] == current(writer.files[chain.CURRENT])


def test_change_right_before_a_new_segment() -> None:
    """The first record of the next segment vouches for the last line of this one, so the one before was changed."""
    files = log(4, 3)
    text = lines(files[chain.archived(1)])
    text[3] = text[3].replace(b'"uid":1000', b'"uid":1001')
    expected = [("edited", "audit-000001.jsonl:4", True)]
    assert expected == found((chain.archived(1), b"".join(text)), (chain.CURRENT, files[chain.CURRENT]))


def test_segments_in_one_stream() -> None:
    """Segments that were put together into one file verify as they did apart."""
    files = log(2, 3, 1)
    assert [] == current(*(files[name] for name in chain.in_order(files)))


def test_segment_record_without_what_it_has_to_say() -> None:
    """A first record that lacks its format is judged as any other record."""
    files = log(2, 2)
    text = files[chain.CURRENT].replace(b'"format":1,', b"", 1)
    expected = [("edited", "audit.jsonl:1", True)]
    assert expected == found((chain.archived(1), files[chain.archived(1)]), (chain.CURRENT, text))


def test_every_line_changed_in_turn_is_the_first_to_be_named() -> None:
    """Whichever line but the last two is changed, the first alarm is that line."""
    text = lines(log(12)[chain.CURRENT])
    for at in range(len(text) - 2):
        changed = [*text[:at], text[at].replace(b'"time":"2', b'"time":"1'), *text[at + 1 :]]
        assert [("edited", f"audit.jsonl:{at + 1}", True)] == current(*changed)


def test_several_lines_that_stand_a_second_time() -> None:
    """Where a block of old lines was put in again, its first line is named, not the originals."""
    text = lines(log(8)[chain.CURRENT])
    found = current(*text[:7], *text[3:6], *text[7:])
    assert [("replayed", f"audit.jsonl:{line}", True) for line in (8, 9, 10)] == found


def test_segment_under_the_name_of_another() -> None:
    """A file whose name is not the number of its segment is reported, though its chain is undamaged."""
    text = log(2)[chain.CURRENT]
    assert [("reordered", "audit-000005.jsonl:1", True)] == found(("audit-000005.jsonl", text))


def test_orphans_after_a_long_log() -> None:
    """However long a segment was, the next one may hang on one of its last records."""
    writer = Writer()
    writer.begin("first")
    writer.issue(6000)
    writer.issue(3, acknowledged=False)
    writer.begin("error", unacknowledged=3)
    expected = [("orphaned", "audit-000001.jsonl:6002", False), ("noticed", "audit.jsonl:1", False)]
    assert expected == found(*((name, writer.files[name]) for name in chain.in_order(writer.files)))


def test_broker_that_found_the_end_damaged_vouches_for_nothing() -> None:
    """Where a broker began anew after a damaged end, either of the last two lines may be the changed one."""
    writer = Writer()
    writer.begin("first")
    writer.issue(3)
    *rest, last = lines(writer.files[chain.CURRENT])
    last = last.replace(b'"prev":"', b'"prev":"0000', 1).replace(last[17:21], b"", 1)
    writer.files[chain.CURRENT] = b"".join([*rest, last])
    tail = chain.last_good(writer.files[chain.CURRENT], whole=True)
    assert tail.head is not None
    writer.head = tail.head
    writer.begin("damaged", detail=tail.broken)
    writer.issue(2)
    expected = [("wrong-prev", "audit-000001.jsonl:4", True), ("noticed", "audit.jsonl:1", False)]
    assert expected == found(*((name, writer.files[name]) for name in chain.in_order(writer.files)))


def test_a_checkpoint_that_a_failing_disk_was_told_twice_is_one() -> None:
    """What orphans say of checkpoints is forgotten with them: it is said again in the next segment."""
    writer = Writer()
    writer.begin("first")
    writer.issue(3)
    told = [writer.body("audit/checkpoint", {"checkpoint": number, "records": 1}) for number in (1, 2)]
    writer.files[chain.CURRENT] += chain.extend(writer.head, told)[0]
    writer.begin("error", unacknowledged=2)
    text, writer.head = chain.extend(writer.head, told)
    writer.files[chain.CURRENT] += text
    report = verify(((name, lines(text)) for name, text in sorted(writer.files.items())), notes=None)
    assert [] == [each for each in report.findings if each.alarm]
