"""
From answers to bytes: the one place where a value leaves the broker.
"""

from typing import Any, Final

import msgspec

from backends.base import Secret
from broker.errors import MEANINGS, BrokerError


def _exposed(value: Any) -> Any:  # noqa: ANN401 -- msgspec hands over whatever it does not know
    if isinstance(value, Secret):
        return value.expose()
    message = f"a {type(value).__name__} has no form on the wire"
    raise TypeError(message)


encode: Final = msgspec.json.Encoder(enc_hook=_exposed).encode
"""Write a result as JSON, its values included."""


class Details(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The stable part of an error."""

    code: str
    hint: str | None = None


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """An error of the line dialect, as JSON-RPC 2.0 has them."""

    code: int
    message: str
    data: Details


def fault(error: BrokerError) -> Fault:
    """Return an error as the line dialect says it."""
    return Fault(
        code=MEANINGS[error.code].jsonrpc,
        message=error.message,
        data=Details(code=error.code, hint=error.hint),
    )


class Failure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is wrong, as the HTTP dialect says it: the stable code, a sentence, and what mends it."""

    code: str
    message: str
    hint: str | None = None


class FailureBody(msgspec.Struct, frozen=True):
    """The body of every HTTP response that is not a success."""

    error: Failure


def failure(error: BrokerError) -> bytes:
    """Return an error as the body of an HTTP response."""
    return encode(FailureBody(Failure(code=error.code, message=error.message, hint=error.hint)))
