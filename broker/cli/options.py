"""
What several commands have in common: which broker they mean, and ``--json``.

This module refuses to guess between two brokers that were both named.
"""

import re
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from broker import paths
from broker.client import ADMIN, ANYWHERE, WORKLOAD, Client, Where
from broker.errors import BrokerError
from broker.paths import Places

_ASKS: Final = re.compile(
    r"(?:did you mean '[^']*'\? )?mcp-broker "
    r"(?:status|reload|stop|explain|unlock|(?:secret|server|lease|key) [a-z]+|get|init|rotate)(?: (?!-)[\w.-]+){0,2}"
)
"""A hint that is one command of ours and nothing else, and names no broker yet."""

Body = TypeVar("Body", bound=Callable[..., Any])

as_json: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def which_broker(body: Body) -> Body:
    """Give a command the options that name a broker; it gets them as ``where``."""

    @click.option("--user", is_flag=True, help="Your own broker only.")
    @click.option("--system", is_flag=True, help="The broker of this host only.")
    @click.option("--socket", metavar="PATH", help="The broker that listens there.")
    @click.option("--dir", "directory", metavar="DIR", help="The broker that lives in DIR.")
    @wraps(body)
    def command(*, user: bool, system: bool, socket: str | None, directory: str | None, **rest: Any) -> Any:  # noqa: ANN401 - the body's
        named = [
            *([("--user", "")] if user else []),
            *([("--system", "")] if system else []),
            *([("--socket", socket)] if socket is not None else []),
            *([("--dir", directory)] if directory is not None else []),
        ]
        if len(named) > 1:
            message = f"{named[0][0]} and {named[1][0]} name two brokers"
            raise click.UsageError(message)
        where = named[0] if named else ANYWHERE
        try:
            return body(where=where, **rest)
        except BrokerError as error:
            error.hint = None if error.hint is None else at_the_same(where, error.hint)
            raise

    return command  # type: ignore[return-value]  # click looks at the options, which hang on the new function


def admin(where: Where, *, autostart: bool = True) -> Client:
    """Connect as an admin."""
    return Client(where, socket=ADMIN, autostart=autostart)


def workload(where: Where) -> Client:
    """Connect as any program does."""
    return Client(where, socket=WORKLOAD)


def places(where: Where) -> Places:
    """Return the directories of a broker that need not run."""
    match where:
        case ("--dir", directory):
            return paths.within(Path(directory))
        case ("--system", _):
            return paths.system()
        case ("--socket", _):
            message = "--socket says where a broker listens, not where it lives; use --dir, --user or --system"
            raise click.UsageError(message)
        case _:
            return paths.user()


def at_the_same(where: Where, hint: str) -> str:
    """Return a hint of the broker's, which does not know how it was reached, as a command for that broker."""
    return f"{hint}{again(where)}" if _ASKS.fullmatch(hint) else hint


def again(where: Where) -> str:
    """Return the options that name the same broker again, to follow a command in a hint."""
    return "".join(f" {word}" for word in where if word)
