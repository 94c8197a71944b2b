"""
``explain``: the decision and its reason, by the code that decides.

This module refuses to decide anything itself.
"""

from typing import Any

import click

from broker.cli import moments, options, show
from broker.cli.show import Cell
from broker.client import Where


@click.command()
@click.argument("server", required=False)
@click.argument("secret", required=False)
@click.option("--unit", metavar="UNIT", help="Ask for a process of this systemd unit.")
@click.option("--pid", type=click.IntRange(min=1), metavar="PID", help="Ask for this process.")
@click.option("--last", is_flag=True, help="Explain what was refused last.")
@options.as_json
@options.which_broker
def explain(
    *,
    where: Where,
    server: str | None,
    secret: str | None,
    unit: str | None,
    pid: int | None,
    last: bool,
    as_json: bool,
) -> None:
    """
    Say whether SERVER may be started, or may have SECRET, and by which rule.

    Without --unit or --pid it is asked for yourself. It is the same code that
    decides when a server really asks; nothing is released by asking here.
    """
    if unit is not None and pid is not None:
        message = "--unit and --pid name two workloads"
        raise click.UsageError(message)
    with options.admin(where) as client:
        found = client.call("explain", server=server, secret=secret, unit=unit, pid=pid, last=last or None)
    if as_json:
        show.as_json(found)
        return
    _print(found)


def _print(found: dict[str, Any]) -> None:
    verdict = Cell("allowed", "bold green") if found["allowed"] else Cell("denied", "bold red")
    show.line(verdict, f": {found['reason']}")
    asked = [f"server {found['server']}"] if found["server"] else []
    asked += [f"secret {found['secret']}"] if found["secret"] else []
    when = f", {moments.relative(found['at'])}" if found["at"] else ""
    rows = [
        ("asked for", ", ".join(asked) + when),
        ("by", show.fields(found, ("uid", "pid", "unit"))),
        ("rule", f"[servers.{found['rule']}]" if found["rule"] else "none"),
        ("it wants", " ".join(found["wants"]) or "-"),
        ("held are", " ".join(found["holds"]) or "-"),
    ]
    for name, text in rows:
        show.line(Cell(f"  {name:<10}", "dim"), text)
    if found["hint"]:
        show.line(Cell("hint: ", "bold"), found["hint"])
