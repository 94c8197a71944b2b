"""
``client-config``: a server's entry as a client wants it.

The entry alone goes to stdout, so that it can be piped; where it belongs is told
on stderr. This module refuses to write into a client's own files.
"""

import os
import shutil
from pathlib import Path

import click

from broker import config, paths
from broker.cli import options, show
from broker.client import ANYWHERE, Where
from broker.clients.entry import Entry, Start, entry
from broker.clients.known import ALIASES, CLIENTS, Client
from broker.clients.launcher import DESKTOP_PATH, Launcher, launcher
from broker.config.model import ServerConfig
from broker.config.problems import nearest
from broker.errors import BrokerError, ConfigError, RequestError

USUAL = "claude-desktop"
"""The client whose form most others share."""


@click.command("client-config")
@click.argument("name")
@click.option("--client", metavar="CLIENT", help="Which client: claude-code, codex, cursor, vscode, …")
@click.option("--with-path", is_flag=True, help="Have the client search this shell's PATH for the server's program.")
@options.as_json
@options.which_broker
def client_config(*, where: Where, name: str, client: str | None, with_path: bool, as_json: bool) -> None:
    """
    Print the entry that makes a client start the server NAME through the broker.

    It goes to stdout in the client's own form, and where it belongs to stderr:

        mcp-broker client-config github --client codex >> ~/.codex/config.toml
    """
    chosen = named(client)
    server, where = configured(name, where)
    if not server.command:
        message = f"[servers.{name}] has no command: it is a grant for programs that ask by themselves"
        raise ConfigError(message, hint=f"{server.where}: command = [...]")
    found = launcher()
    made = entry(CLIENTS[chosen], start(name, where, found, with_path=with_path))
    if as_json:
        show.as_json(told(chosen, made))
        return
    click.echo(made.text)
    explain(CLIENTS[chosen], made, server, found, with_path=with_path)


def named(client: str | None) -> str:
    """
    Return the name of a client as our table has it.

    Raises:
        RequestError: there is none of that name.

    """
    if client is None:
        message = "no client is named"
        raise RequestError(message, hint=f"--client {' | '.join(CLIENTS)}")
    wanted = client.strip().lower().replace(" ", "-").replace("_", "-")
    wanted = ALIASES.get(wanted, wanted)
    if wanted in CLIENTS:
        return wanted
    near = nearest(wanted, (*CLIENTS, *ALIASES))
    message = "no such client is known" + ("" if near is None else f"; is {ALIASES.get(near, near)} meant")
    raise RequestError(message, hint=f"--client {' | '.join(CLIENTS)}; most others take what claude-desktop takes")


def configured(name: str, where: Where) -> tuple[ServerConfig, Where]:
    """
    Return a server of the config, and the options that lead to its broker.

    Raises:
        RequestError: the config names no such server.

    """
    servers = dict(config.load(options.places(where)).servers)
    if name in servers:
        return servers[name], where
    if where == ANYWHERE:
        host = _of_the_host()
        if name in host:
            return host[name], ("--system", "")
        servers |= host
    near = nearest(name, servers)
    message = f"the config names no server {name!r}" + ("" if near is None else f"; is {near!r} meant")
    hint = f"mcp-broker server add {name} --secret VARIABLE{options.again(where)} -- COMMAND"
    raise RequestError(message, hint=hint)


def _of_the_host() -> dict[str, ServerConfig]:
    """Return the servers of this host's broker, as far as its config is ours to read."""
    try:
        return dict(config.load(paths.system()).servers)
    except BrokerError:
        return {}


def start(name: str, where: Where, found: Launcher, *, with_path: bool = False) -> Start:
    """Return what a client has to do to start a server."""
    which = [str(Path(word).absolute()) if number else word for number, word in enumerate(where) if word]
    env = {"PATH": os.environ.get("PATH", DESKTOP_PATH)} if with_path else {}
    return Start(server=name, command=str(found.path), arguments=["exec", name, *which], env=env)


def told(chosen: str, made: Entry) -> dict[str, object]:
    """Return an entry and where it belongs, for programs."""
    client = CLIENTS[chosen]
    return {
        "client": chosen,
        "title": client.title,
        "format": made.format,
        "entry": made.text,
        "command": made.typed,
        "files": [*client.files],
    }


def explain(client: Client, made: Entry, server: ServerConfig, found: Launcher, *, with_path: bool) -> None:
    """Say on stderr where an entry belongs, and what may be in its way."""
    first, *others = client.files
    show.line(f"{client.title}: into {first}" + (f", or {'; '.join(others)}" if others else ""), err=True)
    if made.typed:
        show.line(f"or type: {made.typed}", err=True)
    show.line(f"what stands there already stays beside it; then {client.again}", err=True)
    if found.caution:
        show.line(f"note: {found.caution}", err=True)
    hidden = None if with_path else hidden_program(server)
    if hidden:
        show.line(f"note: {hidden}", err=True)


def hidden_program(server: ServerConfig) -> str | None:
    """Say that a client from a desktop's menu may not find a server's program, where this shell does."""
    program = server.command[0] if server.command else ""
    if not program or "/" in program or shutil.which(program, path=DESKTOP_PATH):
        return None
    here = shutil.which(program)
    if here is None:
        return f"{program} is not in this shell's PATH: command -v {program}"
    return (
        f"{program} is in {Path(here).parent}, where a client from a desktop's menu may not look: "
        "--with-path puts this shell's PATH into the entry"
    )
