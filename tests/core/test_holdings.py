"""Who held what, by tables of records."""

from collections.abc import Iterator
from typing import Any

import pytest

from broker.core.chain import rfc3339
from broker.core.holdings import holdings
from broker.core.selection import Filters

T = 1_790_000_000.0


def record(at: float, event: str, accessor: str = "a", **fields: object) -> dict[str, Any]:
    """Return one record, so many seconds after the beginning."""
    return {"time": rfc3339(T + at), "event": event, "accessor": accessor, **fields}


def issued(at: float, accessor: str = "a", *, lasts: float = 100.0, **fields: object) -> dict[str, Any]:
    """Return the record of a release."""
    said = {"secret": "github", "server": "gh", "uid": 1000, "pid": 7, "bound": 7, "version": 1} | fields
    return record(at, "credential/authorised", accessor, expires_at=rfc3339(T + at + lasts), **said)


def held(records: list[dict[str, Any]], **filters: Any) -> Iterator[tuple[str, float, float, str]]:  # noqa: ANN401 -- as the filters have it
    """Yield accessor, begin and end in seconds, and how it ended."""
    moments = {name: T + filters.pop(name) for name in ("since", "until") if name in filters}
    for one in holdings(records, Filters(**moments, **filters)):
        since, until = (
            next(at for at in range(-1, 2000) if rfc3339(T + at) == text) for text in (one.since, one.until)
        )
        yield one.accessor, since, until, one.how


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([issued(0)], [("a", 0, 100, "expires")]),
        ([issued(0), record(50, "lease/revoked")], [("a", 0, 50, "lease/revoked")]),
        ([issued(0), issued(60), record(90, "lease/ended")], [("a", 0, 90, "lease/ended")]),
        ([issued(0), record(80, "lease/renewed", expires_at=rfc3339(T + 180))], [("a", 0, 180, "expires")]),
        ([issued(0), record(1, "credential/withheld")], []),
        ([issued(0), issued(5), record(6, "credential/withheld")], [("a", 0, 105, "expires")]),
        ([record(1, "lease/revoked")], []),
        ([issued(0), issued(1, "b")], [("a", 0, 100, "expires"), ("b", 1, 101, "expires")]),
    ],
)
def test_a_lease_is_held_from_its_first_release_to_its_end(
    records: list[dict[str, Any]], expected: list[tuple[str, float, float, str]]
) -> None:
    """What was withheld was not held; a renewal prolongs; the end on record counts before the promised one."""
    assert expected == list(held(records))


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [(0, 10, []), (0, 21, ["a"]), (40, 60, ["a"]), (70, 80, []), (69, 80, ["a"]), (10, 200, ["a"])],
)
def test_whoever_held_it_in_between_is_named(since: float, until: float, expected: list[str]) -> None:
    """A lease that began before and ended after the time in question was held in it, too."""
    records = [issued(20), record(70, "lease/ended")]
    assert expected == [name for name, *_ in held(records, since=since, until=until)]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"secret": "github"}, ["a", "b"]),
        ({"server": "gh"}, ["a"]),
        ({"uid": 1001}, ["b"]),
        ({"secret": "notion"}, []),
    ],
)
def test_filters_choose_leases(filters: dict[str, Any], expected: list[str]) -> None:
    """The secret, the server and the user choose, as for records."""
    records = [issued(0), issued(1, "b", server="other", uid=1001), record(9, "lease/ended", "b")]
    assert expected == sorted(name for name, *_ in held(records, **filters))
