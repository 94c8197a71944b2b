"""
What goes over the wire, as values: one request, one answer, one no. And how Go writes times and durations.

It refuses to know any rule.
"""

import re
import secrets
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final

_UNITS: Final = MappingProxyType({"s": 1, "m": 60, "h": 3600, "d": 86400})
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)([smhd])")


class Refusal(Exception):  # noqa: N818 -- an answer, not an error of ours
    """Answer with this status and these errors."""

    def __init__(self, status: int, *errors: str, headers: Mapping[str, str] | None = None) -> None:
        """Keep what to answer."""
        super().__init__(status, errors)
        self.status = status
        self.errors = errors
        self.headers = headers or {}


def denied() -> Refusal:
    """Return what a dead or missing token gets."""
    return Refusal(HTTPStatus.FORBIDDEN, "permission denied")


def denied_by_policy() -> Refusal:
    """Return what a token without the capability gets, in the server's own layout."""
    return Refusal(HTTPStatus.FORBIDDEN, "1 error occurred:\n\t* permission denied\n\n")


def unsupported() -> Refusal:
    """Return what a path says that does not take the method."""
    return Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "1 error occurred:\n\t* unsupported operation\n\n")


def bad(text: str) -> Refusal:
    """Return a 400 with one error."""
    return Refusal(HTTPStatus.BAD_REQUEST, text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """
    One request.

    Attributes:
        method: in capitals; ``LIST`` also for ``GET ?list=true``.
        path: without ``/v1/`` and namespace.
        namespace: ``""`` for the root, else without a slash at either end.
        body: the fields of the JSON object.
        query: the last value of each parameter.
        headers: by their names in lower case.
        token: what was sent as one; never shown.
        peer: the certificate that the client showed, DER.

    """

    method: str
    path: str
    namespace: str = ""
    body: Mapping[str, Any] = field(default_factory=dict, repr=False)
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    token: str = field(default="", repr=False)
    peer: bytes | None = field(default=None, repr=False)

    @property
    def reads(self) -> bool:
        """Return whether it is a GET."""
        return self.method == "GET"

    @property
    def writes(self) -> bool:
        """Return whether it is a POST or a PUT, which are the same to the server."""
        return self.method in {"POST", "PUT"}


@dataclass(slots=True, kw_only=True)
class Answer:
    """
    What an engine answers; the envelope is made of it.

    Attributes:
        status: None for 200, or 204 where there is nothing to say.
        data: the fields; None for none.
        warnings: for a person.
        lease: what is to become a lease: see ``Wanted``.
        auth: the ``auth`` part of a login.
        lease_id: of a lease that is there already.
        lease_duration: its length, or a hint.
        renewable: whether it is.
        plain: an answer without an envelope, as ``sys/health`` gives.
        beside: what stands beside the envelope as well, as some paths do for old clients.

    """

    status: int | None = None
    data: Mapping[str, Any] | None = None
    warnings: Sequence[str] = ()
    lease: "Wanted | None" = None
    auth: Mapping[str, Any] | None = None
    lease_id: str = ""
    lease_duration: int = 0
    renewable: bool = False
    plain: Mapping[str, Any] | None = None
    beside: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What an engine wants of the lease on what it has made; 0 for the server's own."""

    ttl: float = 0
    max_ttl: float = 0
    renewable: bool = True
    internal: Mapping[str, Any] = field(default_factory=dict, repr=False)


NOTHING: Final = Answer(status=HTTPStatus.NO_CONTENT)


def envelope(answer: Answer, *, wrap: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the JSON object around an answer, its keys in the server's order."""
    return {
        **answer.beside,
        "request_id": "" if wrap else str(uuid.uuid4()),
        "lease_id": answer.lease_id,
        "renewable": answer.renewable,
        "lease_duration": answer.lease_duration,
        "data": None if wrap or answer.data is None else dict(answer.data),
        "wrap_info": wrap,
        "warnings": list(answer.warnings) or None,
        "auth": None if wrap else answer.auth,
    }


def seconds(value: object) -> float:
    """Return a duration as the server reads it: a number, or a text such as ``90``, ``10m``, ``1h30m``."""
    if value is None or value == "":
        return 0.0
    if isinstance(value, int | float):
        return float(value)
    text = str(value)
    if re.fullmatch(r"-?\d+(\.\d+)?", text):
        return float(text)
    if not re.fullmatch(f"({_DURATION.pattern})+", text):
        raise bad(f"error converting input {text} for field: could not parse duration")
    return sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(text))


def spoken(duration: float) -> str:
    """Return a duration as Go writes it, without what is nought: ``25h``, ``19m59s``, ``0s``."""
    whole = int(duration)
    parts = [(whole // 3600, "h"), (whole // 60 % 60, "m"), (whole % 60, "s")]
    return "".join(f"{number}{unit}" for number, unit in parts if number) or "0s"


def moment(at: float) -> str:
    """Return a time as Go writes it: RFC 3339 in UTC, with nanoseconds."""
    whole = datetime.fromtimestamp(int(at), UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{int(at % 1 * 1e9):09d}Z"


def random_name(length: int = 24) -> str:
    """Return a random text of letters and digits, as ids have them."""
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    return "".join(secrets.choice(letters) for _ in range(length))


def capped(
    *, wanted: float, default: float, longest: float, begun: float, now: float, period: float = 0
) -> tuple[int, list[str]]:
    """
    Return the seconds that something gets, counted from now, and the warnings about it.

    Whole seconds everywhere, as the server does it. ``period`` replaces what was wanted, and knows no end.

    Raises:
        Refusal: its time is over.

    """
    ttl = period or wanted or default
    left = int(begun) + int(longest) - int(now)
    if period:
        return int(min(ttl, longest)), []
    if left <= 0:
        raise bad("past the max TTL, cannot renew")
    if left < ttl:
        warning = f'TTL of "{spoken(ttl)}" exceeded the effective max_ttl of "{spoken(left)}"'
        return left, [f"{warning}; TTL value is capped accordingly"]
    return int(ttl), []
