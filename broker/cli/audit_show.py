"""
``audit show`` and ``audit tail``: what stands in the log.

This module refuses to judge it: a record that is shown may still be one that
does not verify.
"""

import difflib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from broker.cli import moments, options, show
from broker.cli.audit_log import AskedLog, Log, PatientLog, follow, lines, newest
from broker.cli.audit_source import chosen, from_directory
from broker.cli.moments import Moment
from broker.cli.show import Cell
from broker.client import Where
from broker.core import selection
from broker.core.holdings import holdings
from broker.core.selection import Filters

Body = TypeVar("Body", bound=Callable[..., Any])

_ELSEWHERE: Final = frozenset({"seq", "prev", "time", "event", "gid", "start", "boot", "dialect", "fingerprint"})
"""Fields that stand at the beginning of a line already, or that only a program wants: ``--json`` has them."""

_WHAT: Final = ("server", "secret")
_WHO: Final = ("uid", "pid", "unit")
_THEN: Final = ("accessor", "version", "code", "rule", "reason")
"""The fields of a line: two columns, and what follows them."""

_EVENT_WIDTH: Final = 21
_WHAT_WIDTH: Final = 30
_WHO_WIDTH: Final = 20
"""Columns that nearly everything fits in: records come one by one, so nobody knows the longest."""


def _filters(body: Body) -> Body:
    """Give a command the options that choose records."""
    for option in (
        click.option("--refused", is_flag=True, default=None, help="Refusals alone."),
        click.option("--event", metavar="EVENT", help="Of this kind, as in lease/revoked; lease for all such."),
        click.option("--unit", metavar="UNIT", help="Of processes of this systemd unit."),
        click.option("--uid", type=click.IntRange(min=0), metavar="UID", help="Of this user's processes."),
        click.option("--secret", metavar="NAME", help="About this secret."),
        click.option("--server", metavar="NAME", help="About this server."),
        click.option("--until", type=Moment(), help="Before then: a time, or how long ago."),
        click.option("--since", type=Moment(), help="From then on: a time, or how long ago, as in 2h."),
    ):
        body = option(body)
    return body


@click.command("show")
@click.option("--held", is_flag=True, help="Who held what in that time, and until when: one line for each lease.")
@_filters
@from_directory
@options.as_json
@options.which_broker
def show_(*, where: Where, path: Path | None, held: bool, as_json: bool, **filters: Any) -> None:  # noqa: ANN401 - the filters
    """
    Print the records that all the filters let through, oldest first; or who held what.

        mcp-broker audit show --since 2h --refused
        mcp-broker audit show --server app --since 2026-11-01
        mcp-broker audit show --held --secret github --since 3d --until 2d
    """
    wanted = _Wanted(Filters(**filters))
    if held and (filters["event"] or filters["refused"]):
        message = "--held is about leases: it takes no --event and no --refused"
        raise click.UsageError(message)
    with chosen(where, path) as log:
        if held:
            _print_held(log, Filters(**filters), as_json=as_json)
            return
        for _, each in lines(log):
            for text in filter(wanted, each):
                _print_record(text, as_json=as_json)
    wanted.say_if_none()


def _print_held(log: Log, filters: Filters, *, as_json: bool) -> None:
    """Print who held what. A lease of before the time in question counts, so the log is read from its beginning."""
    records = filter(None, (_of_a_lease(text) for _, each in lines(log) for text in each))
    found = sorted(holdings(records, filters), key=lambda one: one.since)
    if as_json:
        for one in found:
            click.echo(json.dumps(asdict(one)))
        return
    cells = [
        (
            Cell(one.secret, "bold"),
            one.server or "",
            " ".join(each for each in (f"uid={one.uid}", f"pid={one.pid}" if one.pid else "", one.unit or "") if each),
            "" if one.version is None else str(one.version),
            moments.local(one.since),
            moments.local(one.until),
            one.how,
            str(one.releases),
        )
        for one in found
    ]
    heads = ("SECRET", "SERVER", "WHO", "VERSION", "FROM", "UNTIL", "HOW IT ENDED", "RELEASES")
    show.table(heads, cells, empty="nobody held it then")


def _of_a_lease(text: bytes) -> dict[str, Any] | None:
    """Return a record that is about a lease; most of the others need not be parsed."""
    return selection.parse(text.rstrip(b"\n")) if b'"accessor"' in text else None


@click.command()
@click.option("-n", "--lines", "count", type=click.IntRange(min=0), default=10, help="How many.  [default: 10]")
@click.option("-f", "--follow", "follows", is_flag=True, help="Go on with each new record, until interrupted.")
@_filters
@from_directory
@options.as_json
@options.which_broker
def tail(
    *,
    where: Where,
    path: Path | None,
    count: int,
    follows: bool,
    as_json: bool,
    **filters: Any,  # noqa: ANN401 - the filters
) -> None:
    """
    Print the newest records that all the filters let through; with --follow also those to come.

    --follow goes on when the broker is restarted.
    """
    wanted = _Wanted(Filters(**filters))
    with chosen(where, path) as log:
        # What is written from here on is followed, however long it takes to print what was there.
        found = log.segments()
        for text in newest(log, found, count, wanted=wanted) if count else ():
            _print_record(text, as_json=as_json)
        if not follows:
            wanted.say_if_none()
            return
        for text in filter(wanted, follow(_patient(log, where), found)):
            _print_record(text, as_json=as_json)


def _patient(log: Log, where: Where) -> Log:
    """Return a log that outlasts a restart of its broker; one in a directory does anyway."""
    if not isinstance(log, AskedLog):
        return log
    return PatientLog(log, lambda: AskedLog(options.admin(where)), tell=_note)


def _note(text: str) -> None:
    show.line(Cell("note: ", "yellow"), text, err=True)


class _Wanted:
    """Says of each line whether it is a record that the filters let through, and remembers what there was."""

    def __init__(self, filters: Filters) -> None:
        """Begin with nothing seen."""
        self._filters = filters
        self._events: set[str] = set()
        self._any = False

    def __call__(self, text: bytes) -> bool:
        """Return whether the line is wanted."""
        record = selection.parse(text.rstrip(b"\n"))
        if record is None:
            return False
        self._events.add(record["event"])
        found = selection.matches(record, self._filters)
        self._any = self._any or found
        return found

    def say_if_none(self) -> None:
        """Say so where nothing was let through: an event that does not exist looks like one that did not happen."""
        if self._any:
            return
        event = self._filters.event or ""
        alike = difflib.get_close_matches(event, sorted(self._events), n=3)
        if event in self._events or not alike:
            _note("no record matches")
        else:
            _note(f"no record matches; events in the log that are called something like {event}: {', '.join(alike)}")


def _print_record(text: bytes, *, as_json: bool) -> None:
    if as_json:
        click.echo(text.decode("utf-8", "replace").rstrip("\n"))
        return
    record = selection.parse(text.rstrip(b"\n")) or {}
    what, who = show.fields(record, _WHAT), show.fields(record, _WHO)
    others = [name for name in record if name not in {*_ELSEWHERE, *_WHAT, *_WHO, *_THEN}]
    rest = show.fields(record, [*_THEN, *others])
    refused = "code" in record
    show.line(
        Cell(moments.local(record["time"]), "dim"),
        "  ",
        Cell(f"{record['event']:<{_EVENT_WIDTH}}", "red" if refused else "bold"),
        f"  {what:<{_WHAT_WIDTH}} {who:<{_WHO_WIDTH}}",
        Cell(f" {rest}", "dim"),
    )
