"""What stands in an item of a keyring: fields as text, and the ledger of versions."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.base import CorruptError
from backends.keyring_text import (
    KEPT,
    Ledger,
    added,
    decode,
    decode_names,
    encode,
    encode_names,
    noted,
    packed,
    unpacked,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
FIELDS = st.dictionaries(TEXT.filter(bool), TEXT, min_size=1)


def ledger(*texts: str) -> Ledger:
    """Return the ledger after some puts, a second apart."""
    found = added(None, texts[0], now=0, salt="s")
    for second, text in enumerate(texts[1:], 1):
        found = added(found, text, now=second, salt="s")
    return found


@given(FIELDS)
def test_fields_survive_being_text(fields: dict[str, str]) -> None:
    """Whatever is packed is unpacked as it was."""
    assert fields == unpacked(packed(fields))


@given(TEXT)
def test_one_value_is_kept_as_it_is(value: str) -> None:
    """A secret of one field stands in the item with nothing around it, so that a person can read and change it."""
    assert value == packed({"value": value})


@given(TEXT)
def test_any_text_of_another_program_is_a_value_or_an_error(text: str) -> None:
    """Whatever somebody has written there is taken as it is."""
    assert {"value": text} == unpacked(text)


@pytest.mark.parametrize(
    "value",
    [packed({"a": "b", "c": "d"}), '{"mcp-broker fields": ', '{ "mcp-broker fields": {"value": "x"}}'],
    ids=["fields", "broken", "spaced"],
)
def test_a_value_that_looks_like_fields_is_still_one_value(value: str) -> None:
    """A value may be any text, also what looks like several fields."""
    assert {"value": value} == unpacked(packed({"value": value}))


def test_a_value_that_is_json_is_one_value() -> None:
    """A key file of a cloud, which is JSON, is one value and not its fields."""
    key = json.dumps({"type": "service_account", "private_key": "made up"})
    assert {"value": key} == unpacked(packed({"value": key}))


@pytest.mark.parametrize(
    "text",
    [
        '{"mcp-broker fields": {"a": "canary"',
        '{"mcp-broker fields": "canary"}',
        '{"mcp-broker fields": {"a": 1}}',
        '{"mcp-broker fields": {}}',
        '{"mcp-broker fields are": "canary"}',
        '{"mcp-broker fields": {"a": "canary\\ud800"}}',
        '{"mcp-broker fields": {"canary\\ud800": "b"}}',
    ],
    ids=["cut off", "no object", "number", "empty", "other", "half a character", "half a name"],
)
def test_fields_that_somebody_has_broken_are_an_error_without_them(text: str) -> None:
    """What says that it holds fields and does not is not issued, and not quoted."""
    with pytest.raises(CorruptError) as caught:
        unpacked(text)
    assert ("canary" not in repr(caught.value), None) == (True, caught.value.__cause__)


def test_what_is_there_already_is_no_version_more() -> None:
    """A text that the ledger knows leaves it as it is."""
    found = ledger("one", "two")
    assert found is noted(found, "two", now=9, salt="t")


def test_what_another_program_has_written_is_a_version_more() -> None:
    """A text that the ledger does not know is the next version, and the only current one."""
    found = noted(ledger("one", "two"), "three", now=9, salt="t")
    assert [(3, True), (2, False), (1, False)] == [(each.number, each.current) for each in found.versions]


def test_what_was_never_put_is_the_first_version() -> None:
    """An item that somebody else has made begins at 1."""
    assert 1 == noted(None, "theirs", now=9, salt="t").newest.number


def test_a_ledger_remembers_so_many_versions() -> None:
    """The oldest are forgotten, and the numbers go on."""
    found = ledger(*map(str, range(KEPT + 5)))
    assert (KEPT, KEPT + 5, 6) == (len(found.versions), found.newest.number, found.versions[-1].number)


def test_a_clock_that_was_put_back_does_not_reorder_versions() -> None:
    """A newer version is never older than the one before."""
    assert 5.0 == added(added(None, "a", now=5, salt="s"), "b", now=1, salt="s").newest.created_at


def test_a_ledger_survives_being_text() -> None:
    """What is written is read as the same."""
    found = added(ledger("one"), packed({"a": "x", "b": "y"}), now=1.25, salt="t")
    assert found == decode(encode(found))


def test_a_ledger_holds_no_value() -> None:
    """It names fields and times, and a digest that is salted."""
    assert "canary" not in encode(ledger("canary", packed({"user": "canary", "password": "canary"})))


@given(st.none() | TEXT | st.recursive(st.none() | TEXT, st.lists).map(json.dumps))
def test_a_ledger_that_somebody_has_broken_is_none(text: str | None) -> None:
    """Nothing that stands there stops a secret from being read."""
    assert decode(text) is None


def broken(*, salt: str = "s", digest: str = "d", version: str = '[1, 1.5, ["value"]]') -> str:
    """Return a ledger as another program may leave it, by default a whole one."""
    return f'{{"salt": "{salt}", "digest": "{digest}", "versions": [{version}]}}'


@pytest.mark.parametrize(
    "text",
    [
        broken(salt="\\ud800"),
        broken(digest="é"),
        broken(version="[Infinity, 1, []]"),
        broken(version=f"[{10**400}, 1, []]"),
        broken(version="[0, 1, []]"),
        broken(version="[1, NaN, []]"),
        broken(version="[1, 1e300, []]"),
        broken(version='[1, 1, ["\\ud800"]]'),
    ],
    ids=["salt", "digest", "no end", "too many", "zero", "no time", "no date", "half a character"],
)
def test_a_ledger_that_nothing_of_ours_has_written_is_none(text: str) -> None:
    """What has the shape of a ledger and would be tripped over later is none, and the versions begin anew."""
    found = decode(text)
    assert (None, 1) == (found, noted(found, "canary", now=9, salt="t").newest.number)


def test_a_ledger_of_another_program_is_cut_to_what_is_remembered() -> None:
    """However many versions somebody has written there, no more are kept than of our own; a whole one is taken."""
    found = decode(broken(version=", ".join(f'[{number}, 1.5, ["value"]]' for number in range(99, 0, -1))))
    assert (KEPT, 99) == (found and len(found.versions), found and found.newest.number)


@given(st.frozensets(TEXT))
def test_names_survive_being_text(names: frozenset[str]) -> None:
    """What is written is read as the same."""
    assert names == decode_names(encode_names(names))


@pytest.mark.parametrize("text", [None, "", "x", "1", "null"])
def test_names_that_somebody_has_broken_are_none(text: str | None) -> None:
    """A list that cannot be read is empty."""
    assert frozenset() == decode_names(text)
