"""
``vault``: what Vault and OpenBao have to let the broker do.

This module refuses to talk to either: the daemon knows what its backend needs.
"""

import click

from broker.cli import options, show
from broker.client import Where


@click.group()
def vault() -> None:
    """Print what Vault or OpenBao has to let the broker do."""


@vault.command()
@click.argument("backend", required=False)
@options.as_json
@options.which_broker
def policy(*, where: Where, backend: str | None, as_json: bool) -> None:
    """
    Print the policy that the config needs at BACKEND.

    BACKEND may be left out where there is one only. For example:

        mcp-broker vault policy | bao policy write mcp-broker -
    """
    with options.admin(where) as client:
        found = client.call("backend/policy", backend=backend)
    if as_json:
        show.as_json(found)
    else:
        click.echo(found["policy"], nl=not found["policy"].endswith("\n"))
