"""
What stands in an item of a keyring, as text: the fields of a secret, and the ledger of its versions.

Pure. A secret of one field is kept as it is, so that a person who looks at it
in Seahorse, or changes it there, has the value before them and nothing else.
Several fields are one JSON object. The ledger is kept beside it, not in it: it
knows by a salted digest whether what is there is still what was put.

This module refuses to guess: a text that says that it holds fields, and does
not, is an error and not a value.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, final

from backends.base import CorruptError, Version

KEPT: Final = 10
"""Versions that a ledger remembers. It remembers when they were written, not what they were."""

_MOST_VERSIONS: Final = 2**53
"""More than anybody writes, and less than the whole numbers of JSON and of SQLite can hold."""

_LATEST: Final = 253_402_300_799
"""Unix seconds of the last second that a date can be written for, of the year 9999."""

_ONE: Final = "value"
_MARK: Final = "mcp-broker fields"
_WITHIN: Final = len(_MARK) + 8
"""Characters at the start of a text in which the mark has to stand: a brace, a quote, some space."""


def packed(values: Mapping[str, str]) -> str:
    """Return the fields of a secret as the text of one item."""
    if values.keys() == {_ONE} and not _marked(values[_ONE]):
        return values[_ONE]
    return json.dumps({_MARK: dict(values)}, ensure_ascii=False)


def unpacked(text: str) -> Mapping[str, str]:
    """Return the fields that a text holds. Raises ``CorruptError`` where somebody has broken it."""
    if not _marked(text):
        return {_ONE: text}
    try:
        fields = json.loads(text)[_MARK]
    except (ValueError, KeyError, TypeError, RecursionError):
        fields = None
    if not isinstance(fields, dict) or not fields or not all(_is_text(each) for each in (*fields, *fields.values())):
        # The cause would hold the values.
        message = "an item that should hold fields is not the JSON of them any more"
        raise CorruptError(message, hint="mcp-broker secret set NAME FIELD...")
    return fields


def _is_text(found: object) -> bool:
    """Return whether this is text that can be written as UTF-8: JSON can spell halves of characters."""
    try:
        return isinstance(found, str) and found.encode() is not None
    except UnicodeEncodeError:
        return False


def _marked(text: str) -> bool:
    start = text[:_WITHIN].lstrip()
    return start.startswith("{") and _MARK in start


@final
@dataclass(frozen=True, slots=True)
class Ledger:
    """
    The versions of one secret, newest first, and a digest of what the newest one is.

    Attributes:
        salt: of the digest.
        digest: of the item's text.
        versions: what is remembered.

    """

    salt: str
    digest: str
    versions: tuple[Version, ...]

    @property
    def newest(self) -> Version:
        """Return the version that is current."""
        return self.versions[0]


def noted(ledger: Ledger | None, text: str, *, now: float, salt: str) -> Ledger:
    """
    Return the ledger for the text that is there: the same where it says so already, else one with a version more.

    Args:
        ledger: what was known; None for nothing.
        text: what the item holds.
        now: Unix seconds, UTC.
        salt: a fresh one, in case it is needed.

    """
    if ledger is not None and hmac.compare_digest(_digest(ledger.salt, text), ledger.digest):
        return ledger
    return added(ledger, text, now=now, salt=salt)


def added(ledger: Ledger | None, text: str, *, now: float, salt: str) -> Ledger:
    """Return the ledger with one version more, whose text this is."""
    before = () if ledger is None else ledger.versions
    newest = Version(
        number=before[0].number + 1 if before else 1,
        # A clock that was put back must not make a newer version look older.
        created_at=max(now, before[0].created_at) if before else now,
        fields=tuple(_names(text)),
        current=True,
    )
    earlier = tuple(replace(each, current=False) for each in before[: KEPT - 1])
    return Ledger(salt, _digest(salt, text), (newest, *earlier))


def _names(text: str) -> tuple[str, ...]:
    try:
        return tuple(unpacked(text))
    except CorruptError:
        return ()


def _digest(salt: str, text: str) -> str:
    return hashlib.sha256(f"{salt}:{text}".encode()).hexdigest()[:32]


def encode(ledger: Ledger) -> str:
    """Return a ledger as text."""
    rows = [[each.number, each.created_at, list(each.fields)] for each in ledger.versions]
    return json.dumps({"salt": ledger.salt, "digest": ledger.digest, "versions": rows})


def decode(text: str | None) -> Ledger | None:
    """
    Return the ledger in a text; None where there is none, or where somebody has broken it: it holds no value.

    Any program of the same user can write there. What comes out is what ``encode``
    could have written, so that nothing after this trips over it.
    """
    if text is None:
        return None
    try:
        found = json.loads(text)
        versions = tuple(_version(row, current=not place) for place, row in enumerate(found["versions"][:KEPT]))
        salt, digest = str(found["salt"]), str(found["digest"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return Ledger(salt, digest, versions) if versions and salt.isascii() and digest.isascii() else None


def _version(row: Any, *, current: bool) -> Version:  # noqa: ANN401 -- whatever stands there
    number, created_at, fields = int(row[0]), float(row[1]), tuple(str(name) for name in row[2])
    if not 0 < number <= _MOST_VERSIONS or not 0 <= created_at <= _LATEST or not all(map(_is_text, fields)):
        message = "no version"
        raise ValueError(message)
    return Version(number=number, created_at=created_at, fields=fields, current=current)


def encode_names(names: frozenset[str]) -> str:
    """Return a list of names as text, for keyrings that cannot be asked what they hold."""
    return json.dumps(sorted(names), ensure_ascii=False)


def decode_names(text: str | None) -> frozenset[str]:
    """Return the names in such a text."""
    try:
        return frozenset(str(name) for name in json.loads(text or "[]"))
    except (ValueError, TypeError, RecursionError):
        return frozenset()
