"""
``server rm``: a server out of the config, and with ``--purge`` its secrets out of the store.

This module refuses to take away a secret that another server uses, and to cut
into a file where it cannot be sure of what it cuts.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from broker import config_files
from broker.cli import options, show
from broker.client import ANYWHERE, Where
from broker.config import Config, drafts
from broker.config.problems import nearest
from broker.errors import BrokerError, RequestError
from broker.paths import Places


@click.command("rm")
@click.argument("name")
@click.option("--purge", is_flag=True, help="Revoke what it holds, and remove its secrets that no other server uses.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.as_json
@options.which_broker
def rm(*, where: Where, name: str, purge: bool, yes: bool, as_json: bool) -> None:
    """
    Take the server NAME out of the config.

    Its secrets stay, and so does what already runs; with --purge both go, and
    there is no way back.
    """
    with options.admin(where) as broker:
        mode = broker.broker["mode"]
        rows = broker.call("secret/list")["secrets"] if purge else []
    places = options.places(("--system", "") if where == ANYWHERE and mode == "system" else where)
    before = config_files.current(places)
    _refuse(before, name, where)
    going = _going(before, name, rows) if purge else []
    change = _change(before, name, [row["name"] for row in going], places)
    if purge and not yes:
        _confirm(name, [row["name"] for row in going], where)
    if purge:
        _ask(where, "server/revoke", server=name)
    config_files.make(change, places)
    try:
        _ask(where, "reload")
    except BaseException:
        config_files.unmake(change, places)
        raise
    gone, left = _removed(going, where)
    if as_json:
        show.as_json({"server": name, "file": str(change.path), "removed": gone, "left": left})
    else:
        emptied = "" if change.after else ", which is empty now and gone"
        show.line(f"{name} is out of {change.path}{emptied}")
        for secret in gone:
            show.line(f"{secret} is removed")
        if not purge:
            show.line("its secrets are still stored: mcp-broker secret list" + options.again(where), err=True)
        show.line("its entry in a client's own config is yours to remove", err=True)
    if left:
        message = f"{', '.join(left)} could not be removed"
        raise BrokerError(message, hint=f"mcp-broker secret rm {left[0]}{options.again(where)}")


def _refuse(before: Config, name: str, where: Where) -> None:
    if name in before.servers:
        return
    near = nearest(name, before.servers)
    message = "the config names no such server" + ("" if near is None else f"; is {near!r} meant")
    raise RequestError(message, hint=f"mcp-broker server list{options.again(where)}")


def _going(before: Config, name: str, rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the stored secrets that only this server is granted."""
    others: frozenset[str] = frozenset().union(*(s.grants for other, s in before.servers.items() if other != name))
    own = before.servers[name].grants - others
    return [row for row in rows if row["name"] in own and row["stored"]]


def _change(before: Config, name: str, going: Sequence[str], places: Places) -> config_files.Change:
    """Return the change of the one file that the server stands in."""
    where = before.servers[name].where
    text = config_files.text_of(where.file) or ""
    same_file = [one for one in going if one in before.secrets and before.secrets[one].where.file == where.file]
    after = drafts.removed(text, [("servers", name), *(("secrets", one) for one in same_file)])
    if after is None:
        message = f"{where}: [servers.{name}] is written in a way that only you can take apart"
        raise RequestError(message, hint=f"remove it in {where}, then mcp-broker reload")
    if where.file == config_files.part(places, name) and drafts.is_bare(after):
        after = ""
    return config_files.planned(places, where.file, after, expected=text)


def _confirm(name: str, going: Sequence[str], where: Where) -> None:
    secrets = "secret" if len(going) == 1 else "secrets"
    what = f"{name} and the {secrets} {', '.join(going)}" if going else f"{name}, which has no secret of its own,"
    if sys.stdin is None or not sys.stdin.isatty():
        message = f"removing {what} needs a yes, and there is no terminal to ask on"
        raise RequestError(message, hint=f"mcp-broker server rm {name} --purge --yes{options.again(where)}")
    click.confirm(f"remove {what}?", abort=True, err=True)


def _removed(going: Sequence[Mapping[str, Any]], where: Where) -> tuple[list[str], list[str]]:
    """Remove secrets, as many as can be; return those that are gone and those that are not."""
    gone, left = [], []
    for row in going:
        try:
            _ask(where, "secret/rm", name=row["name"], backend=row["backend"])
        except BrokerError as error:
            show.line(f"mcp-broker: {row['name']}: {error.message}", err=True)
            left.append(row["name"])
        else:
            gone.append(row["name"])
    return gone, left


def _ask(where: Where, verb: str, **params: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    with options.admin(where) as broker:
        return broker.call(verb, **params)
