"""
Who held what, and from when to when, by what the audit log says.

A record says that something was released; that somebody held it an hour later is
said by no record at all, but by all of them together. This module refuses to
judge the log: who wants to be sure verifies it first.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from broker.core.chain import rfc3339
from broker.core.selection import Filters

BEGIN: Final = "credential/authorised"
RENEWED: Final = "lease/renewed"
WITHHELD: Final = "credential/withheld"
ENDS: Final = frozenset({"lease/revoked", "lease/ended", "lease/expired", "lease/released"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """
    One lease, from its first release to its end.

    Attributes:
        accessor: of the lease.
        secret: what was held.
        server: by which rule.
        uid: whose process.
        pid: which process; None where the lease hung on its time alone.
        unit: the process's systemd unit, if any.
        version: the last one that was released.
        since: the first release, RFC 3339.
        until: the end that is on record, or the time by which it was over at the latest.
        how: the event of the end, or ``expires``.
        releases: how often it was asked for.

    """

    accessor: str
    secret: str
    server: str | None
    uid: int | None
    pid: int | None
    unit: str | None
    version: int | None
    since: str
    until: str
    how: str = "expires"
    releases: int = 1


def holdings(records: Iterable[Mapping[str, Any]], filters: Filters) -> Iterator[Holding]:
    """
    Yield each lease that was out at some moment between ``filters.since`` and ``filters.until``.

    What had ended before is forgotten at once, so that memory holds no more than
    what was out at the same time. They come in the order of their ends.
    """
    out: dict[str, Holding] = {}
    since = None if filters.since is None else rfc3339(filters.since)
    until = None if filters.until is None else rfc3339(filters.until)
    for record in records:
        accessor, event, when = record.get("accessor"), record["event"], str(record["time"])
        if not isinstance(accessor, str):
            continue
        held = out.get(accessor)
        if event == BEGIN:
            if held is not None or _wanted(record, filters):
                out[accessor] = _begun(held, record)
        elif held is None:
            continue
        elif event == WITHHELD and held.releases == 1:
            del out[accessor]
        elif event in {RENEWED, WITHHELD}:
            out[accessor] = _changed(held, record)
        elif event in ENDS:
            del out[accessor]
            ended = replace(held, until=when, how=event)
            if _overlaps(ended, since, until):
                yield ended
    yield from (held for held in out.values() if _overlaps(held, since, until))


def _begun(held: Holding | None, record: Mapping[str, Any]) -> Holding:
    expires = str(record.get("expires_at", record["time"]))
    if held is not None:
        return replace(held, until=expires, version=record.get("version"), releases=held.releases + 1)
    bound = record.get("bound")
    return Holding(
        accessor=str(record["accessor"]),
        secret=str(record.get("secret", "")),
        server=record.get("server"),
        uid=record.get("uid"),
        pid=bound if isinstance(bound, int) else record.get("pid") if bound != "ttl" else None,
        unit=record.get("unit"),
        version=record.get("version"),
        since=str(record["time"]),
        until=expires,
    )


def _changed(held: Holding, record: Mapping[str, Any]) -> Holding:
    if record["event"] == WITHHELD:
        return replace(held, releases=held.releases - 1)
    return replace(held, until=str(record.get("expires_at", held.until)))


def _wanted(record: Mapping[str, Any], filters: Filters) -> bool:
    asked = {"secret": filters.secret, "server": filters.server, "uid": filters.uid, "unit": filters.unit}
    return all(value is None or record.get(name) == value for name, value in asked.items())


def _overlaps(held: Holding, since: str | None, until: str | None) -> bool:
    return (until is None or held.since < until) and (since is None or held.until > since)
