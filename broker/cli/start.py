"""
``exec``, as the overview of the commands knows it.

It is dispatched before any of this is loaded; this module refuses to add anything to it.
"""

import click

from broker.launch.command import main


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def start(words: tuple[str, ...]) -> int:
    """Start an MCP server with its credentials."""
    return main(list(words))
