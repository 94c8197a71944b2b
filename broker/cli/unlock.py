"""
``unlock``: opens a keyring that is locked, with its password, typed on the terminal.

Where a keyring takes its password at its own prompt alone, it is had to ask
there, once. This module refuses a password on the command line, and to keep one
for longer than it takes to hand it over.
"""

import sys
import time
from typing import Any, Final

import click

from broker.cli import options, show, values
from broker.client import Client, Where
from broker.errors import DeniedError, LockedError, RequestError

_TRIES: Final = 3
_PROMPT_SECONDS: Final = 300.0
"""How long a person has to answer a prompt on the desktop."""

_LOOK_AGAIN: Final = 0.5


@click.command()
@click.option("--backend", metavar="NAME", help="This one alone.")
@options.which_broker
def unlock(*, where: Where, backend: str | None) -> None:
    """
    Unlock the keyring that secrets, or the key of the sealed store, are kept in.

    The password is asked for without echo; where stdin is not a terminal it is
    the password, less one final newline. A keyring that takes its password at a
    prompt of its own is had to show it. It tries again whatever was tried before.
    """
    with options.admin(where) as client:
        if backend is not None:
            _require(client, backend)
        done: dict[str, dict[str, Any]] = {}
        # One keyring can be what several backends are locked by: after each, look again.
        while rows := [row for row in _locks(client, backend) if row["backend"] not in done]:
            done[rows[0]["backend"]] = rows[0]
            if rows[0]["usable"]:
                _open(client, rows[0])
        if not done:
            show.line("nothing is locked" if backend is None else f"{backend} is not locked")
        # Last: one that is not there keeps none of the others locked.
        for row in done.values():
            if not row["usable"]:
                message = f"backend {row['backend']}: {row['what']}"
                raise LockedError(message, hint=row["hint"])


def _require(client: Client, backend: str) -> None:
    names = sorted(row["name"] for row in client.call("status")["backends"])
    if backend not in names:
        message = f"there is no backend {backend!r}"
        raise RequestError(message, hint=f"there are: {', '.join(names)}")


def _locks(client: Client, backend: str | None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.call("backend/locks")["locks"]
    return [row for row in found if backend in {None, row["backend"]}]


def _open(client: Client, row: dict[str, Any]) -> None:
    if row["takes_password"]:
        _by_password(client, row)
    else:
        _by_prompt(client, row)
    show.line(f"{row['what']} is unlocked")


def _by_password(client: Client, row: dict[str, Any]) -> None:
    asks = sys.stdin is not None and sys.stdin.isatty()
    for left in reversed(range(_TRIES if asks else 1)):
        try:
            client.call("backend/unlock", backend=row["backend"], password=values.password(row["what"]))
        except DeniedError as error:
            if not left:
                raise
            show.line(error.message, err=True)
        else:
            return


def _by_prompt(client: Client, row: dict[str, Any]) -> None:
    show.line(f"{row['what']} asks for its password on the desktop", err=True)
    try:
        client.call("backend/unlock", backend=row["backend"])
    except LockedError:
        # Either somebody has declined, or nobody has answered yet.
        until = time.monotonic() + _PROMPT_SECONDS
        while any(each["asking"] for each in _locks(client, row["backend"])):
            if time.monotonic() > until:
                raise
            time.sleep(_LOOK_AGAIN)
        if _locks(client, row["backend"]):
            raise
    except DeniedError as error:
        raise RequestError(error.message, hint=error.hint) from None
