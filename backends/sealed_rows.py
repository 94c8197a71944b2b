"""
What the rows of a sealed store mean, and what a change makes of them.

Pure: it looks at a snapshot and returns the next one together with what has to
be written for it. The data key seals every value, and a manifest: the digest of
all rows. So a row that was changed, moved, added or taken away is found when
the store is opened; only a whole file of an earlier day is not.

This module refuses to read, to write, and to decrypt more than one secret at a
time, but for a change of the data key.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

import msgspec

from backends.base import Version
from backends.envelope import Cipher, OpenError, binding
from backends.master_key import Wrapping
from backends.sealed_file import FORMAT, Header, Row

Place = tuple[str, int]
"""A name and a version: where a row belongs."""

_values: Final = msgspec.json.Decoder(dict[str, str])
_fields: Final = msgspec.json.Decoder(list[str])


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """
    One secret as it is kept in memory: sealed.

    Attributes:
        version: the current one.
        sealed: its fields and their values.
        bound: what they are bound to.
        history: all versions, newest first.

    """

    version: int
    sealed: bytes
    bound: bytes
    history: Sequence[Version]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """
    All of a store at one moment.

    Attributes:
        header: how it is sealed.
        cipher: the data key.
        shelves: the secrets by name.
        digests: of every row, for the manifest.

    """

    header: Header
    cipher: Cipher
    shelves: Mapping[str, Shelf]
    digests: Mapping[Place, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What the store will be, and what has to be written and removed, with the new header, to make it so."""

    view: View
    write: Sequence[Row] = ()
    remove: Sequence[Place] = ()


def wrapping_bound(wrapping: Wrapping, source: str) -> bytes:
    """Return what a wrapped data key is bound to: everything else that the header says."""
    return binding("data key", wrapping.store, FORMAT, wrapping.generation, source, wrapping.kdf or "")


def unseal(view: View, shelf: Shelf) -> dict[str, str]:
    """Return the values of the current version. Raises ``OpenError``."""
    return _values.decode(view.cipher.open(shelf.sealed, shelf.bound))


def genuine(header: Header, cipher: Cipher, rows: Iterable[Row]) -> View:
    """Return the view of what was read. Raises ``OpenError`` unless it is exactly what was written last."""
    view = View(header=header, cipher=cipher, shelves=_shelves(header, rows := list(rows)), digests=_digests(rows))
    if cipher.open(header.manifest, _manifest_bound(header.wrapping.store)) != _sum(view.digests):
        raise OpenError
    return view


def empty(header: Header, cipher: Cipher) -> View:
    """Return the view of a new store, its header complete."""
    return _sealed(View(header=header, cipher=cipher, shelves=MappingProxyType({}), digests=MappingProxyType({})))


def add(view: View, name: str, values: Mapping[str, str], *, now: float, keep: int) -> Change:
    """Make ``values`` the current version of ``name``; the oldest versions beyond ``keep`` go."""
    shelf = view.shelves.get(name)
    before: Sequence[Version] = () if shelf is None else shelf.history
    number = before[0].number + 1 if before else 1
    bound = _row_bound(view.header.wrapping.store, (name, number))
    row = Row(
        name=name,
        version=number,
        created_at=now,
        fields=msgspec.json.encode(sorted(values)).decode(),
        sealed=view.cipher.seal(msgspec.json.encode(values), bound),
    )
    stale = [(name, version.number) for version in before[keep - 1 :]]
    history = (_version(row), *(replace(version, current=False) for version in before[: keep - 1]))
    fresh = Shelf(version=number, sealed=row.sealed, bound=bound, history=history)
    digests = {place: digest for place, digest in view.digests.items() if place not in stale}
    after = replace(
        view,
        shelves=MappingProxyType({**view.shelves, name: fresh}),
        digests=MappingProxyType({**digests, (name, number): _digest(row)}),
    )
    return Change(view=_sealed(after), write=[row], remove=stale)


def drop(view: View, name: str) -> Change:
    """Remove ``name``, which is there, with all its versions."""
    gone = [(name, version.number) for version in view.shelves[name].history]
    after = replace(
        view,
        shelves=MappingProxyType({other: shelf for other, shelf in view.shelves.items() if other != name}),
        digests=MappingProxyType({place: digest for place, digest in view.digests.items() if place not in gone}),
    )
    return Change(view=_sealed(after), remove=gone)


def reseal(view: View, rows: Iterable[Row], header: Header, cipher: Cipher) -> Change:
    """Seal every row, which must be those of the view, with another data key. Raises ``OpenError``."""
    rows = list(rows)
    if _digests(rows) != view.digests:
        raise OpenError
    store = header.wrapping.store
    fresh = []
    for row in rows:
        bound = _row_bound(store, (row.name, row.version))
        fresh.append(replace(row, sealed=cipher.seal(view.cipher.open(row.sealed, bound), bound)))
    after = View(header=header, cipher=cipher, shelves=_shelves(header, fresh), digests=_digests(fresh))
    return Change(view=_sealed(after), write=fresh)


def _sealed(view: View) -> View:
    """Return the view with the manifest that belongs to it."""
    bound = _manifest_bound(view.header.wrapping.store)
    manifest = view.cipher.seal(_sum(view.digests), bound)
    return replace(view, header=replace(view.header, manifest=manifest))


def _shelves(header: Header, rows: Iterable[Row]) -> Mapping[str, Shelf]:
    by_name: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.version, reverse=True):
        by_name.setdefault(row.name, []).append(row)
    return MappingProxyType({name: _shelf(header, versions) for name, versions in by_name.items()})


def _shelf(header: Header, newest_first: Sequence[Row]) -> Shelf:
    newest, *older = newest_first
    return Shelf(
        version=newest.version,
        sealed=newest.sealed,
        bound=_row_bound(header.wrapping.store, (newest.name, newest.version)),
        history=(_version(newest), *(_version(row, current=False) for row in older)),
    )


def _version(row: Row, *, current: bool = True) -> Version:
    try:
        fields = tuple(_fields.decode(row.fields))
    except msgspec.MsgspecError:
        raise OpenError from None
    return Version(number=row.version, created_at=row.created_at, fields=fields, current=current)


def _row_bound(store: bytes, place: Place) -> bytes:
    return binding("secrets", store, *place)


def _manifest_bound(store: bytes) -> bytes:
    return binding("manifest", store)


def _digests(rows: Iterable[Row]) -> Mapping[Place, bytes]:
    return MappingProxyType({(row.name, row.version): _digest(row) for row in rows})


def _digest(row: Row) -> bytes:
    # float.hex is exact; what a float prints as is not the same on every machine for ever.
    text = binding("row", row.name, row.version, row.created_at.hex(), row.fields, row.sealed)
    return hashlib.sha256(text).digest()


def _sum(digests: Mapping[Place, bytes]) -> bytes:
    # Not sorted by place: a digest says its place, and sorting 32 bytes is quicker.
    return hashlib.sha256(b"".join(sorted(digests.values()))).digest()
