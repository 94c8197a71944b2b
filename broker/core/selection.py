"""
Which audit records somebody wants to see.

This module refuses to judge the chain: a record that matches may still be one
that does not verify.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from broker.core import chain

_DECODER: Final = msgspec.json.Decoder(dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """
    What a record must have to be shown; None asks for nothing.

    Attributes:
        since: Unix seconds; this moment is in.
        until: Unix seconds; this moment is out.
        server: its name.
        secret: its name; a record of several secrets matches by each.
        uid: the user.
        unit: the systemd unit.
        event: the whole name, or the part before the slash.
        refused: True for refusals alone, False for all but them. A refusal is what has a ``code``.

    """

    since: float | None = None
    until: float | None = None
    server: str | None = None
    secret: str | None = None
    uid: int | None = None
    unit: str | None = None
    event: str | None = None
    refused: bool | None = None


def parse(text: bytes) -> dict[str, Any] | None:
    """Return a record's fields as they stand in its line; None where the line is no record."""
    if chain.read(text) is None:
        return None
    return _DECODER.decode(text)


def matches(record: Mapping[str, Any], filters: Filters) -> bool:
    """Return whether ``record`` has everything that ``filters`` ask for."""
    # Times have one width and one zone, so their order as text is their order.
    when, event = str(record["time"]), str(record["event"])
    secrets = {record.get("secret"), *record.get("secrets", ())}
    return all(
        (
            filters.since is None or when >= chain.rfc3339(filters.since),
            filters.until is None or when < chain.rfc3339(filters.until),
            filters.server is None or record.get("server") == filters.server,
            filters.secret is None or filters.secret in secrets,
            filters.uid is None or record.get("uid") == filters.uid,
            filters.unit is None or record.get("unit") == filters.unit,
            filters.event is None or filters.event in {event, event.partition("/")[0]},
            filters.refused is None or filters.refused == ("code" in record),
        )
    )
