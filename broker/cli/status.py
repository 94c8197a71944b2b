"""
``status``: how the broker is, at a glance.

This module refuses to hide a problem behind a total: what is wrong comes first,
each with what mends it.
"""

from collections.abc import Sequence
from typing import Any

import click

import broker
from broker.cli import moments, options, show
from broker.cli.show import Cell
from broker.client import Where


@click.command()
@options.as_json
@options.which_broker
def status(*, where: Where, as_json: bool) -> None:
    """Show what is out, what was refused lately and what is wrong."""
    with options.admin(where) as client:
        found = client.call("status")
        rotations = client.call("rotation/list")["rotations"]
        path = client.path
    if as_json:
        show.as_json({**found, "rotations": rotations, "socket": path})
        return
    _headline(found, path)
    if found["version"] != broker.__version__:
        text = f"this command is version {broker.__version__}, of another installation than the broker's"
        show.line(Cell("note: ", "yellow"), text)
    _problems(found)
    _backends(found["backends"])
    _rotations(rotations)
    _copies(found["audit"]["sinks"])
    _unknown(found["unknown"])
    _refusals(found["refusals"])


def _headline(found: dict[str, Any], path: str) -> None:
    state = Cell("healthy", "bold green") if found["healthy"] else Cell("not well", "bold red")
    show.line(state, f"  mcp-broker {found['version']}, started {moments.relative(found['started_at'])}")
    whose = "this host's" if found["mode"] == "system" else "your own"
    files = found["config"]["files"]
    config = "no file yet" if not files else files[0] + (f" and {len(files) - 1} more" if len(files) > 1 else "")
    audit = found["audit"]
    waiting = f", {audit['waiting']} waiting" if audit["waiting"] else ""
    rows = [
        ("broker", f"{whose}, uid {found['uid']}, pid {found['pid']}, at {path}"),
        ("config", f"{config}, read {moments.relative(found['config']['loaded_at'])}"),
        ("state", found["directory"]),
        ("audit", f"{audit['state']}, {audit['records']} records, now in {audit['segment']}{waiting}"),
        ("vouched", _vouched(audit)),
        ("out", f"{_count(found['leases'], 'lease')} held by {_count(found['processes'], 'process', 'processes')}"),
        ("known", f"{_count(found['servers'], 'server')}, {_count(found['secrets'], 'secret')}"),
        ("open", _count(found["connections"], "connection")),
    ]
    if found["pending_revocations"]:
        rows.append(("pending", _count(found["pending_revocations"], "revocation")))
    for name, text in rows:
        show.line(Cell(f"  {name:<8}", "dim"), text)


def _vouched(audit: dict[str, Any]) -> str:
    if not audit["checkpoint"]:
        return "by no checkpoint yet"
    made = moments.relative(audit["checkpoint_at"])
    return f"up to record {audit['vouched']}, by checkpoint {audit['checkpoint']}, made {made}"


def _copies(rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    _title("copies of the audit log")
    cells = [
        (
            Cell(each["name"], "bold"),
            each["type"],
            "required" if each["required"] else "",
            Cell(each["state"], "red" if each["state"] == "failing" else "green"),
            f"checkpoint {each['checkpoint']}",
            f"{each['behind']} records behind" if each["send"] == "records" else "",
            each["detail"],
        )
        for each in rows
    ]
    show.table(("NAME", "TYPE", "", "STATE", "HAS", "", ""), cells, empty="none")


def _problems(found: dict[str, Any]) -> None:
    if not found["problems"]:
        return
    _title("problems")
    for problem in found["problems"]:
        show.line("  ", Cell(problem["text"], "red"))
        if problem["hint"]:
            show.line("  ", Cell("hint: ", "bold"), problem["hint"])
    if found["config"]["error"]:
        for line in found["config"]["error"].splitlines():
            show.line("  ", line)


def _backends(rows: Sequence[dict[str, Any]]) -> None:
    _title("backends")
    cells = [
        (
            Cell(each["name"], "bold"),
            each["type"],
            Cell(each["state"], "green" if each["state"] == "ok" else "red"),
            each["detail"],
        )
        for each in rows
    ]
    show.table(("NAME", "TYPE", "STATE", ""), cells, empty="none")
    for each in rows:
        if each["facts"]:
            _title(f"backend {each['name']}")
            widest = max(map(len, each["facts"]))
            for name, text in each["facts"].items():
                show.line(Cell(f"  {name:<{widest}}  ", "dim"), text)


def _rotations(rows: Sequence[dict[str, Any]]) -> None:
    if not rows:
        return
    _title("rotations")
    colours = {"idle": "green", "grace": "green", "running": "yellow", "failed": "red"}
    cells = [
        (
            Cell(each["name"], "bold"),
            Cell(each["state"], colours[each["state"]]),
            "" if each["version"] is None else str(each["version"]),
            moments.relative(each["since"]),
            moments.relative(each["next_at"]),
            each["says"],
        )
        for each in rows
    ]
    show.table(("NAME", "STATE", "VERSION", "SINCE", "NEXT", "WHO KEEPS WHAT"), cells, empty="none")


def _unknown(rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    _title("may exist at a backend, and nobody holds it")
    cells = [(each["secret"], each["backend"], moments.relative(each["gone_by"])) for each in rows]
    show.table(("SECRET", "BACKEND", "GONE"), cells, empty="none")


def _refusals(rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    _title("refused lately")
    cells = [
        (
            moments.relative(each["at"]),
            f"{each['count']}x" if each["count"] > 1 else "",
            show.fields(each, ("uid", "pid")),
            " ".join(each[name] for name in ("server", "secret") if each[name]),
            Cell(each["reason"], "yellow"),
            each["hint"] or "",
        )
        for each in rows
    ]
    show.table(("WHEN", "", "WHO", "WHAT", "WHY", "MEND"), cells, empty="none")


def _title(text: str) -> None:
    show.line("")
    show.line(Cell(text, "bold"))


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
