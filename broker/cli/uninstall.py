"""
``uninstall``: says what a broker has on this machine, and takes away what is asked for.

This module refuses to take away anything that was not named, and a directory
that is not a broker's.
"""

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from broker.cli import options, show
from broker.cli.serve import stop_it
from broker.cli.service import Work
from broker.cli.show import Cell
from broker.client import ANYWHERE, Client, Where
from broker.errors import BrokerError, DeniedError, RequestError, UnavailableError
from broker.lock import Lock
from broker.paths import Places

_END_WITHIN: Final = 20.0
"""Seconds in which a broker that was stopped has closed its files."""

_OF_A_STATE: Final = frozenset({"sealed.db", "state.db", "master.key", "daemon.lock", "audit"})
_OF_A_CONFIG: Final = frozenset({"broker.toml", "broker.d"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """
    One kind of thing that a broker leaves on a machine.

    Attributes:
        name: of the option that takes it away.
        there: what of it is there, one line each.
        take: takes it away.

    """

    name: str
    there: list[str]
    take: Callable[[], None]


@click.command()
@click.option("--units", is_flag=True, help="The units that `service install` has put in place.")
@click.option("--keyring", is_flag=True, help="The secrets that the config keeps in a keyring.")
@click.option("--state", is_flag=True, help="Secrets, master key, leases and audit log. There is no way back.")
@click.option("--sockets", is_flag=True, help="The directory of the sockets.")
@click.option("--config", "config", is_flag=True, help="The config.")
@click.option("--all", "everything", is_flag=True, help="All of these.")
@click.option("--dry-run", is_flag=True, help="Say what would be taken away, and leave it.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.which_broker
def uninstall(*, where: Where, everything: bool, dry_run: bool, yes: bool, **named: bool) -> None:
    """
    Say what this broker has on the machine, and take away what is named.

    The broker is stopped first; where its state goes, everything that is out is
    revoked before. The program itself is left to what has installed it.

        mcp-broker uninstall
        mcp-broker uninstall --units --state --dry-run
    """
    # A host's broker is not meant by who does not say so.
    where = ("--user", "") if where == ANYWHERE else where
    places = options.places(where)
    if places.mode == "system" and os.geteuid():
        message = "what the host's broker has, only root can see and take away"
        raise DeniedError(message, hint="sudo mcp-broker uninstall --system")
    parts = [part for part in _parts(where, places) if part.there]
    chosen = [part for part in parts if everything or named[part.name]]
    for part in parts:
        show.line(Cell(f"--{part.name}", "bold" if part in chosen else "dim"))
        for each in part.there:
            show.line(f"  {each}")
    if not parts:
        show.line("there is nothing of this broker here")
    elif not chosen:
        show.line("nothing was taken away: name what is to go, or --all")
    elif dry_run:
        show.line(f"would be taken away: {' '.join(part.name for part in chosen)}")
    else:
        _confirm(where, chosen, yes=yes)
        _take(where, places, chosen)
    show.line(
        f"the program is in {sys.prefix}: remove it as it was installed, as with pipx uninstall mcp-secrets-broker"
    )


def _confirm(where: Where, chosen: list[Part], *, yes: bool) -> None:
    names = " ".join(part.name for part in chosen)
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        message = f"taking away {names} needs a yes, and there is no terminal to ask on"
        options_again = " ".join(f"--{part.name}" for part in chosen)
        raise RequestError(message, hint=f"mcp-broker uninstall {options_again} --yes{options.again(where)}")
    click.confirm(f"take away {names}?", abort=True, err=True)


def _take(where: Where, places: Places, chosen: list[Part]) -> None:
    """Take away what was chosen: first what needs a broker, then the broker, then what it stood on."""
    for part in chosen:
        if part.name == "keyring":
            part.take()
    with contextlib.ExitStack() as stack:
        if any(part.name != "keyring" for part in chosen):
            # Where none runs, that is as good; and one that cannot be asked to end still has its lock.
            with contextlib.suppress(UnavailableError):
                stop_it(where, revoke=any(part.name == "state" for part in chosen))
            if places.state.is_dir():
                stack.callback(Lock(places.state, patience=_END_WITHIN).release)
        for part in chosen:
            if part.name != "keyring":
                part.take()
                show.line(Cell("taken away: ", "green"), part.name)


def _parts(where: Where, places: Places) -> Iterator[Part]:
    """Yield all that there can be, in the order in which it has to go."""
    yield _keyring(where)
    if where[0] != "--dir":
        work = Work(places.mode)
        files = [str(file.path) for file in work.files if file.state() in {"same", "older"}]
        yield Part(name="units", there=files, take=work.remove)
    yield _directory("sockets", places.run, None)
    yield _directory("state", places.state, _OF_A_STATE)
    yield _directory("config", places.config, _OF_A_CONFIG)


def _keyring(where: Where) -> Part:
    """Return the secrets in keyrings. Only a broker that runs knows them."""
    rows: list[dict[str, Any]] = []
    try:
        with options.admin(where, autostart=False) as client:
            kinds = {each["name"]: each["type"] for each in client.call("status")["backends"]}
            found = client.call("secret/list")["secrets"]
            rows = [row for row in found if row["stored"] and kinds.get(row["backend"]) == "keyring"]
    except BrokerError:
        rows = []

    def take() -> None:
        with options.admin(where, autostart=False) as client:
            for row in rows:
                _forget(client, row)

    return Part(name="keyring", there=[f"{row['name']} in {row['backend']}" for row in rows], take=take)


def _forget(client: Client, row: dict[str, Any]) -> None:
    client.call("secret/rm", name=row["name"], backend=row["backend"])
    show.line(Cell("taken away: ", "green"), f"{row['name']} in {row['backend']}")


def _directory(name: str, path: Path, of_a_broker: frozenset[str] | None) -> Part:
    """Return a directory as a part, if it is one of a broker's."""
    there = path.is_dir() and not path.is_symlink()
    if there and of_a_broker is not None:
        there = any(each.name in of_a_broker for each in path.iterdir())
    if there and of_a_broker is None:
        there = path.name in {"mcp-broker", "run"}
    return Part(name=name, there=[str(path)] if there else [], take=lambda: _remove(path))


def _remove(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)
