"""
``demo``: the guided tour.

This module refuses to load it before it is asked for.
"""

import click


@click.command()
def demo() -> int:
    """
    See it all work, in a throwaway directory, with nothing to set up.

    A broker is started, a secret stored, an example MCP server started with it,
    another one refused, and the audit log verified. Every step prints the
    command that it is.
    """
    from broker.demo import run  # noqa: PLC0415 - it brings its own server and, where there is one, the official SDK

    return run()
