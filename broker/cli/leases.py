"""
``lease``: what is out, and taking it back.

This module refuses to know a value: a lease is known by its accessor.
"""

from typing import Any

import click

from broker.cli import moments, options, show
from broker.cli.show import Cell
from broker.client import Where


@click.group()
def lease() -> None:
    """List and revoke leases: what was released, to whom, until when."""


@lease.command("list")
@click.option("--server", metavar="NAME", help="Only what this server holds.")
@click.option("--secret", metavar="NAME", help="Only leases of this secret.")
@click.option("--all", "all_", is_flag=True, help="Those too that have ended and are not given back yet.")
@options.as_json
@options.which_broker
def list_(*, where: Where, server: str | None, secret: str | None, all_: bool, as_json: bool) -> None:
    """
    List what is out.

    A lease ends with the process that holds it. It is renewed before it
    expires; one that cannot be says so.
    """
    with options.admin(where) as client:
        found = client.call("lease/list", server=server, secret=secret, all=all_)
    if as_json:
        show.as_json(found)
        return
    show.table(
        ("ACCESSOR", "SECRET", "VERSION", "SERVER", "UID", "PID", "ISSUED", "EXPIRES", "STATE"),
        [_row(each) for each in found["leases"]],
        empty="nothing is out",
    )


def _row(lease: dict[str, Any]) -> list[Cell | str]:
    good = lease["state"] == "active"
    last = "" if lease["renewable"] else ", for good"
    return [
        Cell(lease["accessor"], "bold"),
        lease["secret"],
        "" if lease["version"] is None else str(lease["version"]),
        lease["server"],
        str(lease["uid"]),
        "none" if lease["pid"] is None else str(lease["pid"]),
        moments.relative(lease["issued_at"]),
        moments.relative(lease["expires_at"]) + last,
        Cell(lease["state"], "green" if good else "red"),
    ]


@lease.command()
@click.argument("accessor")
@options.as_json
@options.which_broker
def revoke(*, where: Where, accessor: str, as_json: bool) -> None:
    """Revoke the lease ACCESSOR at once. Its process gets that secret no more."""
    with options.admin(where) as client:
        found = client.call("lease/revoke", accessor=accessor)
    if as_json:
        show.as_json(found)
    else:
        show.line(told(found["revoked"]))


def told(count: int) -> str:
    """Return how many leases were revoked, in words."""
    return f"{count} lease{'' if count == 1 else 's'} revoked"
