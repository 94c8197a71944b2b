"""Which audit records somebody wants to see."""

from typing import Any

import pytest

from broker.core import chain
from broker.core.selection import Filters, matches, parse

NOON = 1_790_000_000.0


def record(event: str = "credential/authorised", **fields: object) -> dict[str, Any]:
    """Return a record of noon as it is read from its line."""
    text, _ = chain.extend(chain.GENESIS, [chain.body(NOON, event, fields)])
    found = parse(text[:-1])
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("expected", "filters"),
    [
        (True, Filters()),
        (True, Filters(since=NOON)),
        (False, Filters(since=NOON + 0.000001)),
        (False, Filters(until=NOON)),
        (True, Filters(until=NOON + 0.000001)),
        (True, Filters(server="app")),
        (False, Filters(server="ap")),
        (True, Filters(secret="github")),
        (True, Filters(secret="notion")),
        (False, Filters(secret="slack")),
        (True, Filters(uid=0)),
        (False, Filters(uid=1000)),
        (True, Filters(unit="app.service")),
        (False, Filters(unit="app")),
        (True, Filters(event="credential")),
        (True, Filters(event="credential/denied")),
        (False, Filters(event="denied")),
        (True, Filters(refused=True)),
        (False, Filters(refused=False)),
        (True, Filters(server="app", uid=0, refused=True)),
        (False, Filters(server="app", uid=1000, refused=True)),
    ],
)
def test_filter(filters: Filters, *, expected: bool) -> None:
    """A record is shown if it has everything that is asked for."""
    denied = record(
        "credential/denied",
        server="app",
        secret="github",
        secrets=["notion"],
        uid=0,
        unit="app.service",
        code="denied",
    )
    assert expected == matches(denied, filters)


def test_what_was_not_refused_has_no_code() -> None:
    """A release is no refusal."""
    assert [False, True] == [matches(record(uid=1), Filters(refused=refused)) for refused in (True, False)]


def test_what_is_no_record_is_not_parsed() -> None:
    """A line that is no record gives None."""
    assert [None, None] == [parse(b"prose"), parse(b"{}")]
