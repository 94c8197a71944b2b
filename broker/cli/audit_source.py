"""
Which log a command means: a copy in a directory, a running broker's, or that of one's own broker that does not run.

This module refuses to change it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from broker.cli import options
from broker.cli.audit_log import AskedLog, DirectoryLog, Log
from broker.client import Where
from broker.core.chain import CURRENT
from broker.errors import UnavailableError

from_directory = click.option(
    "--path", type=click.Path(path_type=Path), metavar="DIR", help="Read the log in DIR instead, such as a copy."
)


@contextmanager
def chosen(where: Where, path: Path | None) -> Iterator[Log]:
    """Give the log that is meant: a directory's, the broker's, or that of a broker of one's own that does not run."""
    if path is not None:
        yield DirectoryLog(path)
        return
    try:
        client = options.admin(where)
    except UnavailableError:
        if where[0] in {"--system", "--socket"}:
            raise
        own = options.places(where).audit
        if not (own / CURRENT).exists():
            raise
        yield DirectoryLog(own)
        return
    with client:
        yield AskedLog(client)
