"""
The audit log's records: what may stand in one, and how each hangs on the one before.

A record is one line of JSON, ``{"seq":N,"prev":"…","time":"…","event":"…",…}``.
``prev`` is the SHA-256 of the line before, in hex, without its newline, so that
a line that was changed, taken out or put in shows at the next one. Fields come
from an allow-list: what is not on it cannot be logged by accident.

This module refuses to read or write files, to know what time it is, and to
carry a value: there is no field that a value would fit.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from types import MappingProxyType
from typing import Annotated, Final

import msgspec

from broker.errors import BrokerError

FORMAT: Final = 1
"""The version of the format that this program writes, named in the first record of each segment."""

CURRENT: Final = "audit.jsonl"
"""The segment that is written to."""

SEGMENT: Final = "audit/segment"
OPENED: Final = "audit/opened"
CLOSED: Final = "audit/closed"
LOST: Final = "audit/lost"

BATCH: Final = 1024
"""
The most records that one sync covers, so the most that can be on disk without
having been acknowledged. Verification remembers a few more than that, no matter
how long the log is.
"""

_CUT: Final = "…"
_LARGEST: Final = 2**53 - 1
PACKED: Final = ".gz"
"""What the name of an earlier segment ends with once it is compressed."""

_ARCHIVED: Final = re.compile(r"audit-(\d{6,})\.jsonl(?:\.gz)?")
_EVENT: Final = re.compile(r"[a-z][a-z0-9-]*(/[a-z][a-z0-9-]*)?")
_ENCODER: Final = msgspec.json.Encoder()

Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class RecordError(BrokerError):
    """The broker tried to record what no record may hold: a bug of its own, so nothing is logged of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The last record of a chain: its number, counted from 1, and the hash of its line."""

    seq: int
    digest: str


GENESIS: Final = Head(seq=0, digest="0" * 64)
"""What the first record of all hangs on."""


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """What verification needs to know of any record."""

    seq: Annotated[int, msgspec.Meta(ge=1, le=_LARGEST)]
    prev: Digest
    time: str
    event: str


class SegmentLink(Link, frozen=True, kw_only=True):
    """
    The first record of a segment.

    Attributes:
        format: the version of the format from here on.
        segment: which segment this is, counted from 1.
        why: why it began: ``first``, ``size``, ``restart`` (the broker had not ended in peace), ``error``, ``hung``,
            ``torn``, ``missing``, ``replaced``, ``truncated``, ``appended``, ``damaged``.
        detail: what was seen, for a person.
        unacknowledged: how many records the segment before may hold that nobody was told of.
        cut_bytes: the length of the torn last line of the segment before.
        cut_sha256: its hash.

    """

    format: Annotated[int, msgspec.Meta(ge=1)]
    segment: Annotated[int, msgspec.Meta(ge=1)]
    why: str
    detail: str = ""
    unacknowledged: Annotated[int, msgspec.Meta(ge=0)] = 0
    cut_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0
    cut_sha256: str = ""


_LINK: Final = msgspec.json.Decoder(Link)
_SEGMENT_LINK: Final = msgspec.json.Decoder(SegmentLink)


def _text(limit: int) -> Callable[[object], object]:
    """Take text; an over-long one is cut and marked, because a record lost to its length is worse than a short one."""

    def check(value: object) -> object:
        if not isinstance(value, str):
            raise TypeError
        return str(value) if len(value) <= limit else value[: limit - 1] + _CUT

    return check


def _count(value: object) -> object:
    """Take a whole number that every JSON reader can hold."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError
    if not 0 <= value <= _LARGEST:
        raise ValueError
    return value


def _seconds(value: object) -> object:
    """Take a duration."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError
    return value


def _flag(value: object) -> object:
    """Take yes or no."""
    if not isinstance(value, bool):
        raise TypeError
    return value


def _moment(value: object) -> object:
    """Take Unix seconds, write RFC 3339."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError
    return rfc3339(value)


def _either(*kinds: Callable[[object], object]) -> Callable[[object], object]:
    """Take what one of ``kinds`` takes."""

    def check(value: object) -> object:
        for kind in kinds:
            try:
                return kind(value)
            except TypeError:
                continue
        raise TypeError

    return check


def _several(kind: Callable[[object], object], limit: int) -> Callable[[object], object]:
    """Take a list; what is too much of it is left out and counted in its place."""

    def check(value: object) -> object:
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise TypeError
        items = [kind(item) for item in value]
        return items if len(items) <= limit else [*items[: limit - 1], f"{_CUT} and {len(items) - limit + 1} more"]

    return check


FIELDS: Final[Mapping[str, Callable[[object], object]]] = MappingProxyType(
    {
        # who
        "uid": _count,
        "gid": _count,
        "pid": _count,
        "start": _count,
        "boot": _text(64),
        "unit": _text(256),
        "dialect": _text(16),
        # what
        "server": _text(128),
        "secret": _text(128),
        "secrets": _several(_text(128), 64),
        "backend": _text(128),
        "version": _count,
        "accessor": _text(64),
        "accessors": _several(_text(64), 64),
        "fingerprint": _either(_text(64), _several(_text(192), 64)),
        "bound": _either(_text(32), _count),
        "fresh": _flag,
        "stale": _either(_flag, _seconds),
        "ttl": _seconds,
        "issued_at": _moment,
        "expires_at": _moment,
        "gone_by": _moment,
        "rotation": _text(64),
        "step": _text(16),
        # how it went
        "outcome": _text(64),
        "code": _text(64),
        "reason": _text(512),
        "rule": _text(256),
        "count": _count,
        "first": _moment,
        "last": _moment,
        # the broker itself
        "program": _text(64),
        "mode": _text(16),
        "verb": _text(64),
        "source": _text(64),
        "generation": _count,
        "changed": _several(_text(256), 64),
        "connections": _count,
        "leases": _count,
        # the log itself
        "checkpoint": _count,
        "records": _count,
        "format": _count,
        "segment": _count,
        "why": _text(32),
        "detail": _text(512),
        "unacknowledged": _count,
        "refused": _count,
        "since": _moment,
        "cut_bytes": _count,
        "cut_sha256": _text(64),
    }
)
"""Every field that a record may have besides ``seq``, ``prev``, ``time`` and ``event``, and what it takes."""


def rfc3339(when: float) -> str:
    """Return Unix seconds as RFC 3339 in UTC, always with six digits after the second."""
    whole, micros = divmod(round(when * 1_000_000), 1_000_000)
    return f"{_second(whole)}.{micros:06d}Z"


def moment(text: str) -> float:
    """Return a record's time as Unix seconds; 0 where it is none."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0


@lru_cache(maxsize=64)
def _second(when: int) -> str:
    return datetime.fromtimestamp(when, UTC).isoformat()[:-6]


@lru_cache(maxsize=256)
def _is_event(event: str) -> bool:
    return _EVENT.fullmatch(event) is not None


@dataclass(frozen=True, slots=True)
class Facts:
    """Fields that were checked and encoded once, for records that say the same thing again and again."""

    text: bytes


def facts(fields: Mapping[str, object]) -> Facts:
    """
    Return fields, checked against the allow-list and encoded. A field that is None is left out.

    Raises:
        RecordError: an unknown field, a wrong type. The value is not in the message.

    """
    checked: dict[str, object] = {}
    for name, value in fields.items():
        if value is None:
            continue
        take = FIELDS.get(name)
        if take is None:
            message = f"no audit record may have the field {name!r}"
            raise RecordError(message)
        try:
            checked[name] = take(value)
        except (TypeError, ValueError, OverflowError):
            message = f"the audit field {name!r} cannot hold a {type(value).__name__} like this"
            raise RecordError(message) from None
    try:
        return Facts(_ENCODER.encode(checked)[1:-1])
    except UnicodeEncodeError:
        return Facts(_ENCODER.encode(_printable(checked))[1:-1])


def body(when: float, event: str, fields: Mapping[str, object] | Facts) -> bytes:
    """
    Return a record without its place in the chain, checked against the allow-list.

    Raises:
        RecordError: not the name of an event, and what ``facts`` raises.

    """
    if not _is_event(event):
        message = "not the name of an event"
        raise RecordError(message)
    text = fields.text if isinstance(fields, Facts) else facts(fields).text
    comma = b"," if text else b""
    return b'{"time":"%s","event":"%s"%s%s}' % (rfc3339(when).encode(), event.encode(), comma, text)


def _printable(value: object) -> object:
    """Return ``value`` with every half of a surrogate pair spelled out: file names can hold them, JSON cannot."""
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case list():
            return [_printable(item) for item in value]
        case dict():
            return {key: _printable(item) for key, item in value.items()}
        case _:
            return value


def line(seq: int, digest: str, record: bytes) -> bytes:
    """Return the line, without its newline, that makes ``record`` number ``seq``, after the line with this hash."""
    return b'{"seq":%d,"prev":"%s",' % (seq, digest.encode()) + record[1:]


def extend(head: Head, records: Iterable[bytes]) -> tuple[bytes, Head]:
    """Return the text to append for ``records`` and the head once it is there."""
    lines = []
    seq, digest = head.seq, head.digest
    for record in records:
        seq += 1
        text = line(seq, digest, record)
        digest = sha256(text).hexdigest()
        lines.append(text)
    lines.append(b"")
    return b"\n".join(lines), Head(seq=seq, digest=digest)


def read(text: bytes) -> Link | None:
    """Return what links a line into the chain, or None where it is no record."""
    try:
        return _LINK.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def read_segment(text: bytes) -> SegmentLink | None:
    """Return what a segment's first line says, or None where it is no such record."""
    try:
        found = _SEGMENT_LINK.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return found if found.event == SEGMENT else None


def archived(number: int) -> str:
    """Return the name of an earlier segment."""
    return f"audit-{number:06d}.jsonl"


def number_of(name: str) -> int | None:
    """Return the number in an earlier segment's name; None for any other name."""
    found = _ARCHIVED.fullmatch(name)
    return int(found[1]) if found is not None else None


def in_order(names: Iterable[str]) -> list[str]:
    """
    Return those of ``names`` that are segments, oldest first, the current one last.

    Of one that is there twice, compressed and not, a crash came before the plain one was removed: that one counts.
    """
    known = list(names)
    earlier: dict[int, str] = {}
    for name in known:
        number = number_of(name)
        if number is not None and not (number in earlier and name.endswith(PACKED)):
            earlier[number] = name
    return [earlier[number] for number in sorted(earlier)] + ([CURRENT] if CURRENT in known else [])


def last_good(tail: bytes, *, whole: bool) -> "Tail":
    """
    Return what the end of a segment says of the chain.

    Args:
        tail: the last bytes of the segment.
        whole: whether that is all of it; else what stands before the first newline is taken for half a line.

    """
    *lines, torn = tail.split(b"\n")
    if not whole:
        lines = lines[1:]
    head: Head | None = None
    event = broken = ""
    for text in lines:
        found = read(text)
        if found is None:
            broken = broken or f"after record {head.seq if head else '?'} stands a line that is no record"
            continue
        if head is not None and (found.seq != head.seq + 1 or found.prev != head.digest):
            broken = broken or f"record {found.seq} does not follow record {head.seq}"
        head = Head(seq=found.seq, digest=sha256(text).hexdigest())
        event = found.event
    return Tail(head=head, event=event, broken=broken, torn=torn)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """
    The end of a segment.

    Attributes:
        head: its last record; None where there is none.
        event: that record's event.
        broken: the first thing that does not verify, for a person; empty where all does.
        torn: what follows the last newline.

    """

    head: Head | None
    event: str
    broken: str
    torn: bytes
