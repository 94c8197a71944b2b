"""
What the messages are made of: names, times, lengths of time, and what each of them has in common with all.

This module holds types alone.
"""

from datetime import datetime
from typing import Annotated

from msgspec import Meta, Struct

# In all patterns: "$" alone would let a final newline through, and a name goes into logs.
Name = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=128,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$(?!\n)",
        description="The name of a server, a secret or a backend.",
    ),
]

Accessor = Annotated[
    str,
    Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$(?!\n)", description="The public name of a lease."),
]

Time = Annotated[datetime, Meta(tz=True)]
"""A time in UTC."""

_LENGTH_OF_TIME = "^(?=[0-9])([0-9]{1,9}w)?([0-9]{1,9}d)?([0-9]{1,9}h)?([0-9]{1,9}m)?([0-9]{1,9}(\\.[0-9]{1,6})?s)?$"

Duration = (
    Annotated[str, Meta(description="A length of time, such as 1h30m.", extra_json_schema={"pattern": _LENGTH_OF_TIME})]
    | Annotated[float, Meta(description="Seconds.", extra_json_schema={"exclusiveMinimum": 0})]
)
"""A length of time: ``"90s"``, ``"10m"``, ``"1h30m"``, or seconds. ``broker.config.duration`` reads it."""

Field = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$(?!\n)")]
"""The name of one field of a secret."""

Value = Annotated[str, Meta(extra_json_schema={"format": "password", "writeOnly": True})]
"""The value of a field, on its way in."""


class Params(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """What a request may say; anything else in it is an error."""


class Result(Struct, kw_only=True, frozen=True, omit_defaults=False):
    """What an answer says."""
