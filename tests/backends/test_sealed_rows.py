"""What the rows of a sealed store are bound to, without any file."""

from dataclasses import replace

import pytest

from backends.envelope import Cipher, OpenError, binding, fresh_key
from backends.master_key import Wrapping
from backends.sealed_file import Header
from backends.sealed_rows import Shelf, View, add, drop, empty, genuine, reseal, unseal, wrapping_bound


def header(store: bytes = bytes(16)) -> Header:
    """Return the header of a store."""
    return Header(wrapping=Wrapping(store=store, generation=1), source="a test", data_key=b"", manifest=b"")


def kept(view: View, name: str, value: str) -> tuple[View, Shelf]:
    """Add a secret to a store; return the store and the secret."""
    change = add(view, name, {"value": value}, now=1.0, keep=10)
    return change.view, change.view.shelves[name]


@pytest.fixture
def view() -> View:
    """Return an empty store."""
    return empty(header(), Cipher(fresh_key()))


def test_a_value_opens_at_its_place(view: View) -> None:
    """What was sealed for a place opens there."""
    view, shelf = kept(view, "github", "value")
    assert {"value": "value"} == unseal(view, shelf)


def test_a_value_does_not_open_at_another_name(view: View) -> None:
    """A value that was moved to another secret does not open, manifest or not."""
    view, github = kept(view, "github", "value")
    view, slack = kept(view, "slack", "other")
    with pytest.raises(OpenError):
        unseal(view, replace(slack, sealed=github.sealed))


def test_a_value_does_not_open_as_another_version(view: View) -> None:
    """An old value does not open as the current one."""
    view, old = kept(view, "github", "old")
    view, new = kept(view, "github", "new")
    with pytest.raises(OpenError):
        unseal(view, replace(new, sealed=old.sealed))


def test_a_value_does_not_open_in_another_store() -> None:
    """Two stores with one data key, which never happens, would still not take each other's rows."""
    cipher = Cipher(fresh_key())
    _, shelf = kept(empty(header(b"a" * 16), cipher), "github", "value")
    other, there = kept(empty(header(b"b" * 16), cipher), "github", "value")
    with pytest.raises(OpenError):
        unseal(other, replace(there, sealed=shelf.sealed))


def test_the_same_value_is_never_sealed_the_same_way(view: View) -> None:
    """Each seal has a nonce of its own: nobody sees that two secrets are equal."""
    seals = {kept(view, "github", "value")[1].sealed for _ in range(100)}
    assert (100, 100) == (len(seals), len({seal[:12] for seal in seals}))


def test_an_empty_store_is_genuine(view: View) -> None:
    """A store without rows has a manifest like any other."""
    assert {} == dict(genuine(view.header, view.cipher, []).shelves)


def test_a_row_that_was_removed_is_missed(view: View) -> None:
    """The manifest of a store with a row does not fit the store without it."""
    change = add(view, "github", {"value": "x"}, now=1.0, keep=10)
    with pytest.raises(OpenError):
        genuine(change.view.header, change.view.cipher, [])


def test_an_earlier_manifest_does_not_fit(view: View) -> None:
    """The header from before a change does not fit the rows after it."""
    change = add(view, "github", {"value": "x"}, now=1.0, keep=10)
    with pytest.raises(OpenError):
        genuine(view.header, view.cipher, change.write)


def test_dropping_what_was_added_leaves_what_was_there(view: View) -> None:
    """Adding and dropping a secret leaves the same secrets and the same digests."""
    before, _ = kept(view, "github", "value")
    after = drop(kept(before, "slack", "other")[0], "slack").view
    assert (before.shelves, before.digests) == (after.shelves, after.digests)


def test_other_rows_are_not_sealed_anew(view: View) -> None:
    """Rows that are not those of the view are never given a fresh and valid seal."""
    change = add(view, "github", {"value": "x"}, now=1.0, keep=10)
    forged = [replace(change.write[0], created_at=2.0)]
    with pytest.raises(OpenError):
        reseal(change.view, forged, header(), Cipher(fresh_key()))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a", "bc"), ("ab", "c")),
        (("a",), ("a", "")),
        ((1,), (bytes([0, 0, 0, 0, 0, 0, 0, 1, 0]),)),
        (("a", 1), ("a", 2)),
    ],
    ids=["boundary", "empty", "type", "number"],
)
def test_bindings_are_unambiguous(one: tuple[str | int | bytes, ...], other: tuple[str | int | bytes, ...]) -> None:
    """Two lists of parts that differ are bound differently."""
    assert binding("test", *one) != binding("test", *other)


def test_a_wrapped_key_is_bound_to_all_that_the_header_says() -> None:
    """Another store, generation, source or passphrase cost is another binding."""
    one = Wrapping(store=bytes(16), generation=1)
    others = [replace(one, store=b"x" * 16), replace(one, generation=2), replace(one, kdf="x")]
    bound = [wrapping_bound(wrapping, "a") for wrapping in (one, *others)] + [wrapping_bound(one, "b")]
    assert 5 == len(set(bound))
