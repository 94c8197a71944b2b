"""The records of the audit log: what may stand in one, and how each hangs on the one before."""

import json
import subprocess
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.base import Secret
from broker.core import chain
from broker.core.chain import GENESIS, RecordError

NOON = 1_790_000_000.25


def said(fields: dict[str, object]) -> dict[str, Any]:
    """Return what a record says besides when and what."""
    record: dict[str, Any] = json.loads(chain.body(NOON, "test/one", fields))
    return {name: value for name, value in record.items() if name not in {"time", "event"}}


def test_record_is_one_line_in_a_fixed_order() -> None:
    """A line begins with its number, its link, its time and its event, and has nothing that is not asked for."""
    text, _ = chain.extend(GENESIS, [chain.body(NOON, "credential/authorised", {"secret": "github", "uid": 1000})])
    zeros = "0" * 64
    expected = (
        f'{{"seq":1,"prev":"{zeros}","time":"2026-09-21T14:13:20.250000Z","event":"credential/authorised",'
        '"secret":"github","uid":1000}\n'
    )
    assert expected == text.decode()


def test_each_record_hangs_on_the_line_before() -> None:
    """``prev`` is what ``sha256sum`` says of the line before without its newline."""
    text, head = chain.extend(GENESIS, [chain.body(NOON, "test/one", {"count": n}) for n in range(3)])
    lines = text.splitlines()
    told = [subprocess.run(["sha256sum"], input=x, capture_output=True, check=True).stdout[:64].decode() for x in lines]
    assert ["0" * 64, *told] == [json.loads(line)["prev"] for line in lines] + [head.digest]
    assert 3 == head.seq


def test_extending_by_parts_is_extending_at_once() -> None:
    """How records are grouped into batches does not show in the file."""
    records = [chain.body(NOON, "test/one", {"count": n}) for n in range(4)]
    whole, end = chain.extend(GENESIS, records)
    first, middle = chain.extend(GENESIS, records[:1])
    rest, other = chain.extend(middle, records[1:])
    assert (whole, end) == (first + rest, other)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("password", "hunter2"),
        ("values", {"value": "hunter2"}),
        ("uid", "1000"),
        ("uid", True),
        ("uid", -1),
        ("count", 2**53),
        ("server", Secret("hunter2")),
        ("server", b"hunter2"),
        ("ttl", "10m"),
        ("ttl", True),
        ("bound", 1.5),
        ("first", "now"),
        ("fresh", 1),
        ("secrets", "hunter2"),
        ("expires_at", "2026-11-23T09:00:00Z"),
        ("expires_at", 1e300),
        ("seq", 1),
        ("prev", "x"),
        ("time", "x"),
    ],
)
def test_what_is_not_on_the_list_raises(field: str, value: object) -> None:
    """An unknown field, a wrong type, a number out of range: an error that does not repeat the value."""
    with pytest.raises(RecordError) as caught:
        chain.body(NOON, "test/one", {field: value})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("event", ["", "Issue", 'a","uid":0,"x":"', "a/b/c", "a b", "a/", "/a"])
def test_what_is_no_event_raises(event: str) -> None:
    """An event's name cannot smuggle a field into the line."""
    with pytest.raises(RecordError):
        chain.body(NOON, event, {})


def test_each_kind_of_field_is_written_as_it_is() -> None:
    """Durations, flags, lists and times come out as JSON that any reader knows."""
    fields: dict[str, object] = {
        "ttl": 600,
        "fresh": True,
        "stale": 2.5,
        "bound": 42,
        "secrets": ["a", "b"],
        "first": 0,
    }
    assert fields | {"first": "1970-01-01T00:00:00.000000Z"} == said(fields)


def test_list_with_half_a_character_is_spelled_out() -> None:
    """What no JSON can hold is written as an escape, in lists too."""
    assert {"secrets": ["\\udc80"]} == said({"secrets": ["\udc80"]})


def test_none_is_left_out() -> None:
    """A fact that is not known takes no room."""
    assert {"uid": 0} == said({"uid": 0, "unit": None})


def test_overlong_text_is_cut_and_marked() -> None:
    """A text that is too long is cut, visibly: the record is not lost to it."""
    assert {"server": "x" * 127 + "…"} == said({"server": "x" * 500})


def test_overlong_list_says_how_much_is_left_out() -> None:
    """Of a list that is too long the last place says how many are not named."""
    found = said({"secrets": [f"s{n}" for n in range(100)]})["secrets"]
    assert (64, "s62", "… and 37 more") == (len(found), found[62], found[63])


def test_times_are_utc_with_six_digits() -> None:
    """Every time has the same width, so that text order is time order."""
    assert ["2026-09-21T14:13:20.000000Z", "2026-09-21T14:13:20.999999Z"] == [
        chain.rfc3339(1_790_000_000),
        chain.rfc3339(1_790_000_000.999999),
    ]


@given(
    st.dictionaries(
        st.sampled_from(["server", "secret", "unit", "reason"]), st.text(st.characters(exclude_categories=()))
    )
)
def test_no_text_breaks_a_line(fields: dict[str, object]) -> None:
    """Whatever a name consists of, newlines and halves of surrogate pairs too, the line stays one line and a record."""
    text, head = chain.extend(GENESIS, [chain.body(NOON, "test/one", fields)])
    assert 1 == text.count(b"\n")
    assert 1 == head.seq
    assert set(fields) == set(json.loads(text)) - {"seq", "prev", "time", "event"}
    assert chain.read(text[:-1]) is not None


def test_facts_encoded_once_are_the_same_record() -> None:
    """A record of facts that were checked before is the record of the fields themselves."""
    fields: dict[str, object] = {"uid": 1000, "secret": "github"}
    assert chain.body(NOON, "test/one", fields) == chain.body(NOON, "test/one", chain.facts(fields))


@given(st.binary(max_size=300))
def test_reading_noise_never_raises(text: bytes) -> None:
    """Whatever stands in a line, reading it gives a record or None."""
    found = chain.read(text)
    assert found is None or found.seq > 0
    assert chain.read_segment(text) is None


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b'{"seq":0,"prev":"%s","time":"x","event":"y"}' % (b"0" * 64),
        b'{"seq":1,"prev":"%s","time":"x","event":"y"}' % (b"0" * 63),
        b'{"seq":1,"prev":"%s","time":"x","event":"y"}' % (b"G" * 64),
        b'{"seq":"1","prev":"%s","time":"x","event":"y"}' % (b"0" * 64),
        b'{"seq":1,"prev":"%s","time":"x"}' % (b"0" * 64),
    ],
)
def test_half_a_record_is_none(text: bytes) -> None:
    """A line without a number, a link, a time or an event is no record."""
    assert chain.read(text) is None


def test_segments_stand_in_the_order_of_their_numbers() -> None:
    """The current segment is the last; other files, a millionth segment and a stray name do not confuse it."""
    names = ["audit.jsonl", "audit-000010.jsonl", "lock", "audit-000002.jsonl", "audit-1.jsonl", "audit-1000000.jsonl"]
    expected = ["audit-000002.jsonl", "audit-000010.jsonl", "audit-1000000.jsonl", "audit.jsonl"]
    assert expected == chain.in_order(names)
    assert [2, 10, 1000000, None] == [chain.number_of(name) for name in expected]
    assert "audit-000002.jsonl" == chain.archived(2)


LOG, END = chain.extend(GENESIS, [chain.body(NOON, "test/one", {"count": n}) for n in range(4)])


def test_tail_of_an_undamaged_segment() -> None:
    """The end of a segment names its last record."""
    tail = chain.last_good(LOG, whole=True)
    assert (END, "test/one", "", b"") == (tail.head, tail.event, tail.broken, tail.torn)


def test_tail_that_begins_in_the_middle_of_a_line() -> None:
    """What stands before the first newline of a piece is half a line, and not judged."""
    tail = chain.last_good(LOG[30:], whole=False)
    assert (END, "") == (tail.head, tail.broken)


def test_tail_with_a_torn_line() -> None:
    """What follows the last newline is torn, whatever it is."""
    assert b'{"seq":5' == chain.last_good(LOG + b'{"seq":5', whole=True).torn


def test_tail_with_an_edited_line() -> None:
    """A line that the next one does not hang on is noticed, and the last record is found all the same."""
    tail = chain.last_good(LOG.replace(b'"count":1', b'"count":7'), whole=True)
    assert (END, "record 3 does not follow record 2") == (tail.head, tail.broken)


def test_tail_without_a_record() -> None:
    """A file of something else has no last record."""
    tail = chain.last_good(b"prose\n", whole=True)
    assert (None, "after record ? stands a line that is no record") == (tail.head, tail.broken)


def test_first_line_of_a_segment() -> None:
    """A segment's first record is read with what it declares; another record is none."""
    fields: dict[str, object] = {"format": 1, "segment": 2, "why": "error", "unacknowledged": 3, "detail": "full"}
    text, _ = chain.extend(GENESIS, [chain.body(NOON, chain.SEGMENT, fields)])
    found = chain.read_segment(text[:-1])
    assert found is not None
    assert (1, 2, "error", 3, "full") == (found.format, found.segment, found.why, found.unacknowledged, found.detail)
    assert chain.read_segment(LOG.splitlines()[0]) is None


def test_hash_of_the_head() -> None:
    """The head is the hash of the last line, to be compared with a copy kept elsewhere."""
    assert sha256(LOG.splitlines()[-1]).hexdigest() == END.digest
