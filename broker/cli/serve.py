"""
``serve``, ``stop`` and ``reload``: the daemon, from outside.

This module refuses to load the daemon's rooms for anything but ``serve``.
"""

import os
import sys
from typing import Final

import click

from broker.cli import options, show
from broker.client import NOBODY, Client, Where
from broker.config.duration import seconds
from broker.errors import UnavailableError

_END_WITHIN: Final = 20.0
"""Seconds that a broker has to end, revocations included."""


@click.command()
@click.option("--idle", metavar="TIME", help="End when nobody has needed it for so long, as in 15m.")
@options.which_broker
def serve(*, where: Where, idle: str | None) -> int:
    """
    Run the broker until it is told to stop.

    Without an option it is your own, which listens below /run/user or in
    ~/.local/state/mcp-broker/run; with --system the one of this host. Commands
    that need your own and find none start it by themselves, with --idle.
    """
    places = options.places(where)
    try:
        patience = None if idle is None else seconds(idle)
    except ValueError as error:
        message = f"--idle: {error}"
        raise click.UsageError(message) from None
    if not sys.platform.startswith("linux"):
        message = "the broker itself needs Linux, whose kernel tells who is at the other end of a socket"
        raise UnavailableError(message, hint="run it on a Linux host")
    from broker.daemon import serve as run  # noqa: PLC0415 - the daemon's rooms are loaded for it alone

    try:
        return run(places, idle=patience)
    except OSError as error:
        if error.filename is None:
            raise
        path = os.fsdecode(error.filename)
        message = f"{path}: {(error.strerror or 'cannot be used').lower()}"
        raise UnavailableError(message, hint=_way_in(where, path)) from None


def _way_in(where: Where, path: str) -> str:
    """Return how to get at what a broker needs."""
    if where[0] == "--system" and os.geteuid():
        return "systemctl start mcp-broker: this host's broker runs as a user of its own"
    return f"ls -ld {path}"


@click.command()
@click.option("--revoke", is_flag=True, help="Revoke everything that is out first.")
@options.which_broker
def stop(*, where: Where, revoke: bool) -> None:
    """
    Stop the broker.

    No session ends by that: what is out stays out, and a broker that is started
    again finds the processes that still hold it. --revoke takes it back.
    """
    stop_it(where, revoke=revoke)
    show.line("the broker has stopped" + (", and what was out is revoked" if revoke else ""))


def stop_it(where: Where, *, revoke: bool) -> None:
    """
    Stop a broker, and wait for its end.

    Raises:
        UnavailableError: none runs, or it does not end.

    """
    with _running(where) as client:
        client.call("stop", revoke=revoke)
        if not client.wait_for_end(_END_WITHIN):
            message = f"the broker was told to stop and still runs after {_END_WITHIN:.0f} seconds"
            raise UnavailableError(message, hint=f"mcp-broker status{options.again(where)}")


def _running(where: Where) -> Client:
    """Connect to a broker that is to be stopped; where none runs, starting one would be absurd advice."""
    try:
        return options.admin(where, autostart=False)
    except UnavailableError as error:
        if not error.message.startswith(NOBODY):
            raise
        message = f"nothing to stop: {error.message}"
        raise UnavailableError(message) from None


@click.command()
@options.as_json
@options.which_broker
def reload(*, where: Where, as_json: bool) -> None:
    """
    Read the config again: all of it is put in force, or nothing and you see why.

    A changed [backends] table needs a restart of the broker, which ends no session.
    """
    with options.admin(where) as client:
        found = client.call("reload")
    if as_json:
        show.as_json(found)
        return
    for change in found["changed"]:
        show.line(change)
    if not found["changed"]:
        show.line("nothing has changed")
