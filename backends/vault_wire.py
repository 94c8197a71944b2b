"""
What a Vault or OpenBao says on the wire, and what that means. Pure: bytes in, a judgement out.

A server that is sealed, overloaded, a standby, or not a Vault at all answers
too, and so does a proxy in between. This module decides which of the few
things that can be done applies. It refuses to let any text of an answer into a
message: what a server says may hold what it was sent.

Source of the status codes: the HTTP API documents of Vault and OpenBao, and the
recorded answers of OpenBao 2.6.2 in tests/vectors/vault.
"""

from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from enum import Enum
from http import HTTPStatus
from typing import Any, Final, final

import msgspec

from backends.base import Secret

LONGEST_ANSWER: Final = 4 * 1024 * 1024
"""Bytes of an answer that are read; a secret is much shorter."""

_LONGEST_WAIT: Final = 300.0
"""Seconds that a server may ask us to wait at most."""

LONGEST_TIME: Final = 100 * 365 * 86400.0
"""Seconds that anything lives at most: beyond that no date can be made of it."""

_HINT_OF_KV: Final = "versioned K/V"
_LOST_LEASE: Final = ("lease not found", "lease expired", "invalid lease", "invalid accessor")
_NOT_RENEWABLE: Final = ("lease is not renewable", "lease not renewable", "cannot be renewed")
_USED_WRAPPING: Final = "wrapping token is not valid"
_STALE_CAS: Final = "check-and-set parameter did not match"
_UNKNOWN_ROLE: Final = ("unknown role", "could not be found", "not an allowed role", "role not found", "no such role")


class Kind(Enum):
    """What an answer that is no success means to who asked."""

    ABSENT = "there is nothing at this path"
    DELETED = "the version was deleted"
    NO_ROUTE = "nothing is mounted there, or the namespace does not exist"
    VERSIONED = "it is K/V 2"
    LEASE_GONE = "the lease is not known"
    NOT_RENEWABLE = "it cannot be renewed"
    WRAPPING_USED = "the wrapping token is not valid: somebody may have used it already"
    STALE = "somebody else has written meanwhile"
    UNKNOWN_ROLE = "it does not know the role, or does not let the role be used"
    REFUSED = "it refuses the request"
    FORBIDDEN = "it does not allow that"
    WRONG_METHOD = "it does not take this method here"
    TOO_LARGE = "the request is too large"
    LIMITED = "a rate limit was reached"
    SEALED = "it is sealed"
    UNINITIALISED = "it is not initialised"
    NAMESPACE_LOCKED = "the namespace is locked"
    STANDBY = "it is a standby and knows no active node"
    REDIRECT = "it says to ask another server"
    NOT_YET = "it has not caught up with the others yet"
    INTERNAL = "it failed"
    UPSTREAM = "what is in front of it cannot reach it"
    GARBLED = "what answered is not a Vault"


@final
class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """
    An answer that is no success.

    Attributes:
        kind: what it means.
        status: the HTTP status.
        wait: seconds that the server wants us to wait, or None.
        location: where it sends us, for ``REDIRECT``.

    """

    kind: Kind
    status: int
    wait: float | None = None
    location: str | None = None


@final
class Auth(msgspec.Struct, frozen=True, kw_only=True):
    """A login that succeeded, or a token that was made or renewed. ``ttl`` 0 means for ever."""

    token: Secret | None
    accessor: str
    policies: Sequence[str]
    ttl: float
    renewable: bool
    batch: bool = False
    name: str = ""


@final
class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """
    An answer that is a success.

    Attributes:
        data: what was asked for; None for nothing.
        lease_id: the name of the lease; empty for none.
        lease_duration: seconds; for what has no lease a hint.
        renewable: whether the lease is.
        auth: the login that came of it.
        wrapped: whether what was asked for is wrapped, and not here.
        needs_mfa: whether a login wants a second factor.
        capped: whether a warning says that a time was cut down.
        wrong_kv_path: whether a warning says that this is a versioned K/V engine.
        date: the server's clock, Unix seconds; None where it does not say.

    """

    data: Mapping[str, Any] | None = None
    lease_id: str = ""
    lease_duration: float = 0.0
    renewable: bool = False
    auth: Auth | None = None
    wrapped: bool = False
    needs_mfa: bool = False
    capped: bool = False
    wrong_kv_path: bool = False
    date: float | None = None


class _Auth(msgspec.Struct):
    client_token: str = ""
    accessor: str = ""
    policies: list[str] | None = None
    token_policies: list[str] | None = None
    lease_duration: float = 0.0
    renewable: bool = False
    token_type: str = ""
    metadata: dict[str, Any] | None = None
    mfa_requirement: dict[str, Any] | None = None


class _Body(msgspec.Struct):
    lease_id: str | None = ""
    lease_duration: float | None = 0.0
    renewable: bool | None = False
    data: Any = None
    warnings: list[str] | None = None
    errors: list[str] | None = None
    auth: _Auth | None = None
    wrap_info: dict[str, Any] | None = None
    # What ``sys/health`` says beside its status.
    sealed: bool | None = None
    standby: bool | None = None


_BODY: Final = msgspec.json.Decoder(_Body)


def read(status: int, headers: Mapping[str, str], body: bytes) -> Answer | Fault:
    """
    Return what an answer means.

    Args:
        status: the HTTP status.
        headers: their names in lower case.
        body: all of it, or none of it where there was too much.

    """
    if status in {HTTPStatus.TEMPORARY_REDIRECT, HTTPStatus.PERMANENT_REDIRECT}:
        return Fault(kind=Kind.REDIRECT, status=status, location=headers.get("location", ""))
    found = _body(body)
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        if found is None:
            return Fault(kind=Kind.GARBLED, status=status)
        return _answer(found, headers)
    return Fault(kind=_kind(status, found), status=status, wait=_wait(headers))


def _body(body: bytes) -> _Body | None:
    """Return the envelope; an empty one for no body; None for what is none."""
    if not body:
        return _Body()
    try:
        return _BODY.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _answer(found: _Body, headers: Mapping[str, str]) -> Answer:
    warnings = found.warnings or ()
    return Answer(
        data=found.data if isinstance(found.data, dict) else None,
        lease_id=found.lease_id or "",
        lease_duration=_bounded(found.lease_duration or 0.0),
        renewable=bool(found.renewable),
        auth=None if found.auth is None or not _usable(found.auth) else _auth(found.auth),
        wrapped=found.wrap_info is not None,
        needs_mfa=found.auth is not None and found.auth.mfa_requirement is not None and not found.auth.client_token,
        capped=any("TTL" in each and "exceeded" in each for each in warnings),
        wrong_kv_path=any(_HINT_OF_KV in each for each in warnings),
        date=_date(headers.get("date")),
    )


def _usable(auth: _Auth) -> bool:
    return bool(auth.client_token or auth.accessor)


def _auth(auth: _Auth) -> Auth:
    metadata = auth.metadata or {}
    name = next((str(metadata[key]) for key in ("role_name", "username", "role", "cert_name") if key in metadata), "")
    return Auth(
        token=Secret(auth.client_token) if auth.client_token else None,
        accessor=auth.accessor,
        policies=tuple(auth.policies or auth.token_policies or ()),
        ttl=_bounded(auth.lease_duration),
        renewable=auth.renewable,
        batch=auth.token_type == "batch",  # noqa: S105 -- a kind of token
        name=name,
    )


def _kind(status: int, found: _Body | None) -> Kind:  # noqa: C901, PLR0911, PLR0912 -- a table of what each status means
    errors = () if found is None else tuple(found.errors or ())
    match status:
        case 400:
            return Kind.GARBLED if found is None else _refusal(errors)
        case 401 | 403:
            return Kind.GARBLED if found is None else Kind.FORBIDDEN
        case 404:
            return Kind.GARBLED if found is None else _absence(found, errors)
        case 405:
            return Kind.WRONG_METHOD
        case 412:
            return Kind.NOT_YET
        case 413:
            return Kind.TOO_LARGE
        case 429 if found is not None and found.standby:
            return Kind.STANDBY
        case 429 | 473:
            return Kind.LIMITED
        case 472:
            return Kind.STANDBY
        case 500:
            # A role that its connection does not allow is 500, and nothing was made.
            return _refusal(errors) if _refusal(errors) is Kind.UNKNOWN_ROLE else Kind.INTERNAL
        case 501:
            return Kind.UNINITIALISED
        case 503:
            return Kind.UPSTREAM if found is None else _closed(found, errors)
        case 502 | 504:
            return Kind.UPSTREAM
        case _:
            return Kind.GARBLED if status < HTTPStatus.INTERNAL_SERVER_ERROR else Kind.INTERNAL


def _refusal(errors: Sequence[str]) -> Kind:
    text = " ".join(errors)
    known = (
        (_LOST_LEASE, Kind.LEASE_GONE),
        (_NOT_RENEWABLE, Kind.NOT_RENEWABLE),
        ((_USED_WRAPPING,), Kind.WRAPPING_USED),
        ((_STALE_CAS,), Kind.STALE),
        (_UNKNOWN_ROLE, Kind.UNKNOWN_ROLE),
    )
    return next((kind for words, kind in known if any(word in text for word in words)), Kind.REFUSED)


def _absence(found: _Body, errors: Sequence[str]) -> Kind:
    if any(_HINT_OF_KV in each for each in found.warnings or ()):
        return Kind.VERSIONED
    if isinstance(found.data, dict) and "metadata" in found.data:
        return Kind.DELETED
    return Kind.NO_ROUTE if errors else Kind.ABSENT


def _closed(found: _Body, errors: Sequence[str]) -> Kind:
    text = " ".join(errors).lower()
    if "namespace" in text and "lock" in text:
        return Kind.NAMESPACE_LOCKED
    if found.sealed or "sealed" in text:
        return Kind.SEALED
    return Kind.STANDBY


def _bounded(seconds: float) -> float:
    return min(max(0.0, seconds), LONGEST_TIME)


def _wait(headers: Mapping[str, str]) -> float | None:
    """Return what ``Retry-After`` says in seconds; a date there counts as nothing, as no Vault sends one."""
    text = headers.get("retry-after", "").strip()
    if not text.isascii() or not text.isdigit():
        return None
    return min(float(text[:9]), _LONGEST_WAIT)


def _date(text: str | None) -> float | None:
    try:
        return None if text is None else parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
