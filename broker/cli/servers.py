"""
``server``: which servers the config names, more of them and fewer, and the kill switch.

This module refuses to do the latter two itself: ``server_add`` and ``server_rm`` do.
"""

import click

from broker.cli import leases, options, show
from broker.cli.server_add import add
from broker.cli.server_rm import rm
from broker.cli.show import Cell
from broker.client import Where


@click.group(commands=[add, rm])
def server() -> None:
    """Add, list and remove servers, and take back all that one holds."""


@server.command("list")
@options.as_json
@options.which_broker
def list_(*, where: Where, as_json: bool) -> None:
    """List the servers that the config names, who may start them and what they get."""
    with options.admin(where) as client:
        found = client.call("server/list")
    if as_json:
        show.as_json(found)
        return
    rows = [
        (
            Cell(each["name"], "bold"),
            " ".join(each["secrets"]),
            " ".join(each["selectors"]),
            str(each["leases"]),
            " ".join(each["command"]),
        )
        for each in found["servers"]
    ]
    show.table(
        ("NAME", "SECRETS", "FOR", "LEASES", "COMMAND"),
        rows,
        empty="no server is named; add one: mcp-broker server add NAME --secret VARIABLE -- COMMAND",
    )


@server.command()
@click.argument("name")
@options.as_json
@options.which_broker
def revoke(*, where: Where, name: str, as_json: bool) -> None:
    """Revoke everything that the server NAME holds, at once: the kill switch."""
    with options.admin(where) as client:
        found = client.call("server/revoke", server=name)
    if as_json:
        show.as_json(found)
    else:
        show.line(leases.told(found["revoked"]))
