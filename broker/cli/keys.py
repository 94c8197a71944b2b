"""
``key``: the master key of the sealed store.

This module refuses to see a key: the daemon makes it and keeps it.
"""

from typing import Final

import click

from broker.cli import options, show
from broker.client import Where

_WITHIN: Final = 900.0
"""Seconds; sealing everything anew takes as long as there is much."""


@click.group()
def key() -> None:
    """Replace the master key of the sealed store."""


@key.command()
@click.option("--reencrypt", is_flag=True, help="Seal every stored value anew too, with a new data key.")
@options.as_json
@options.which_broker
def rotate(*, where: Where, reencrypt: bool, as_json: bool) -> None:
    """
    Replace the master key, where the old one may have become known.

    Without --reencrypt only the key that seals the values is wrapped anew. A
    crash in the middle leaves a store that opens.
    """
    with options.admin(where) as client:
        found = client.call("key/rotate", within=_WITHIN, reencrypt=reencrypt)
    if as_json:
        show.as_json(found)
        return
    show.line(f"the store {found['backend']} is sealed with generation {found['generation']} of {found['source']}")
    if found["reencrypted"]:
        count = found["reencrypted"]
        show.line("1 value was sealed anew" if count == 1 else f"{count} values were sealed anew")
    if found.get("remains"):
        show.line(found["remains"])
