"""
``rotate``: replace a credential now, all of them, or those that are due.

This module refuses to see a value, and to wait for a grace: what has been
promoted is in force.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import click

from broker.cli import moments, options, show
from broker.cli.show import Cell
from broker.client import Client, Where
from broker.errors import UnavailableError

_POLL: Final = 0.2
"""Seconds between two looks at how far it is."""

_STEPS: Final = {"create": 0, "set": 1, "test": 2, "promote": 3, "grace": 4, "retire": 4, "abandon": 3}


@click.command()
@click.argument("name", required=False)
@click.option("--all", "everything", is_flag=True, help="All that the config has replaced.")
@click.option("--due", is_flag=True, help="What is due, or older than promised, whatever its window says.")
@click.option("--dry-run", is_flag=True, help="Say what would happen, and do nothing.")
@click.option(
    "--resume", is_flag=True, help="Go on at once, without waiting for another attempt or the end of a grace."
)
@click.option("--abandon", is_flag=True, help="Go back to the credential that there was.")
@click.option(
    "--wait", "patience", default=120.0, metavar="SECONDS", help="How long to watch it; it goes on in any case."
)
@options.as_json
@options.which_broker
def rotate(
    *,
    where: Where,
    name: str | None,
    everything: bool,
    due: bool,
    dry_run: bool,
    resume: bool,
    abandon: bool,
    patience: float,
    as_json: bool,
) -> None:
    """
    Replace the credential NAME at its source.

    A new one is made, set, tested, and in use from then on; the one before it is
    made worthless when nobody holds it any more, or after its grace. What fails is
    tried again by itself, and the old one stays in use.

        mcp-broker rotate app-db --dry-run
    """
    if [name is not None, everything, due].count(True) != 1:
        message = "say which: NAME, --all or --due"
        raise click.UsageError(message)
    with options.admin(where) as client:
        asked: dict[str, Any] = {
            "name": name,
            "all": everything,
            "due": due,
            "resume": resume,
            "abandon": abandon,
            "dry_run": dry_run,
        }
        found = client.call("rotate", **asked)["rotations"]
        if not dry_run:
            found = _watched(client, found, patience, silent=as_json)
    if as_json:
        show.as_json({"rotations": found})
    else:
        _shown(found, dry_run=dry_run)
    if not dry_run and any(each["error"] for each in found):
        failed = [each["name"] for each in found if each["error"]]
        message = f"not replaced: {', '.join(failed)}"
        raise UnavailableError(message, hint="mcp-broker status")


def _watched(client: Client, rows: list[dict[str, Any]], patience: float, *, silent: bool) -> list[dict[str, Any]]:
    """Return how each is once nothing more happens by itself, or the patience is over."""
    names, end = {each["name"] for each in rows}, time.monotonic() + patience
    refused = {each["name"]: each for each in rows if each["error"]}
    with _progress(silent=silent) as tell:
        while True:
            found = [each for each in client.call("rotation/list")["rotations"] if each["name"] in names]
            found = [
                each | {"error": refused[each["name"]]["error"]} if each["name"] in refused else each for each in found
            ]
            tell(found)
            if not any(each["state"] == "running" and not each["error"] for each in found) or time.monotonic() > end:
                return found
            time.sleep(_POLL)


@contextlib.contextmanager
def _progress(*, silent: bool) -> Iterator[Callable[[list[dict[str, Any]]], None]]:
    """Yield what draws how far each is: bars on a terminal, nothing in a pipe."""
    if silent or not show.is_terminal():
        yield lambda _: None
        return
    from rich.progress import BarColumn, Progress, TaskID, TextColumn  # noqa: PLC0415 - only a terminal needs it

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TextColumn("{task.fields[stage]}"))
    with Progress(*columns, transient=True) as progress:
        bars: dict[str, TaskID] = {}

        def tell(rows: list[dict[str, Any]]) -> None:
            for each in rows:
                name, stage = each["name"], each["stage"] or "done"
                if name not in bars:
                    bars[name] = progress.add_task(show.safe(name), total=4, stage=stage)
                progress.update(bars[name], completed=_STEPS.get(stage, 4), stage=stage)

        yield tell


def _shown(rows: list[dict[str, Any]], *, dry_run: bool) -> None:
    cells = [_row(each, dry_run=dry_run) for each in rows]
    last = "WOULD MEAN" if dry_run else ""
    show.table(("NAME", "STATE", "VERSION", "SINCE", "NEXT", last), cells, empty="nothing is to be replaced")
    for each in rows:
        if each["hint"] and each["error"]:
            show.line(Cell("hint: ", "bold"), each["hint"])


def _row(each: dict[str, Any], *, dry_run: bool) -> list[Cell | str]:
    state = {"failed": "red", "running": "yellow"}.get(each["state"], "green")
    stage = f" ({each['stage']})" if each["stage"] and each["stage"] != each["state"] else ""
    return [
        Cell(each["name"], "bold"),
        Cell(each["state"] + stage, state),
        "" if each["version"] is None else str(each["version"]),
        moments.relative(each["since"]),
        moments.relative(each["next_at"]),
        each["would"] if dry_run else each["error"] or each["says"],
    ]
