"""
``secret export``: what is stored, for who leaves.

Each value is asked for like any other credential, so that the policy holds and
every release is on record. This module refuses to write values into anything
but a terminal, unless that is asked for by its name.
"""

import json
import sys
from typing import Final

import click

from broker.cli import options, show
from broker.client import Where
from broker.errors import BrokerError, DeniedError, RequestError

_TTL: Final = "60s"


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--unsafe-stdout", is_flag=True, help="Also into a file or a pipe, where the values stay in plain text.")
@options.which_broker
def export(*, where: Where, names: tuple[str, ...], unsafe_stdout: bool) -> int:
    """
    Print the secrets that are stored, all or these, with their values, as JSON.

    Only to a terminal. What no server of the config may have is not given to
    you either; `allow = ["NAME"]` in a server's table lets you have it.
    """
    if not unsafe_stdout and (sys.stdout is None or not sys.stdout.isatty()):
        message = "values in plain text go to a terminal only"
        raise RequestError(message, hint="mcp-broker secret export --unsafe-stdout, if a file or a pipe is meant")
    with options.admin(where) as client:
        stored = [row["name"] for row in client.call("secret/list")["secrets"] if row["stored"]]
    if unknown := [name for name in names if name not in stored]:
        message = f"there is no stored secret {unknown[0]!r}"
        raise RequestError(message, hint="mcp-broker secret list")
    found: dict[str, dict[str, str]] = {}
    refused: list[tuple[str, BrokerError]] = []
    with options.workload(where) as client:
        for name in names or stored:
            try:
                found[name] = client.call("credential/issue", secret=name, ttl=_TTL, bind="none")["values"]
            except BrokerError as error:
                refused.append((name, error))
    # In ASCII, so that no value commands the terminal.
    click.echo(json.dumps(found, indent=2))
    for name, why in refused:
        show.line(f"{name}: {why.message}", err=True)
        if why.hint:
            show.line(f"  hint: {why.hint}", err=True)
    if refused:
        message = f"{len(refused)} of {len(refused) + len(found)} secrets were not given out"
        raise DeniedError(message)
    return 0
