"""
``secret``: what the sealed store and other writable backends keep.

This module refuses to print a value; ``get`` and ``secret export`` do, when asked.
"""

import sys
from pathlib import Path
from typing import Any, Final

import click

from broker.cli import moments, options, show, values
from broker.cli.export import export
from broker.cli.show import Cell
from broker.client import Where
from broker.errors import RequestError

kept_in: Final = click.option(
    "--backend", metavar="NAME", help="The backend that keeps it, where the config names none."
)


@click.group(commands={"export": export})
def secret() -> None:
    """Store, list and remove secrets. None of these prints a value but `export`."""


@secret.command("set")
@click.argument("name")
@click.argument("fields", nargs=-1, metavar="[FIELD]...")
@click.option("--file", "file", type=click.Path(path_type=Path), help="Take the value from a file, to the last byte.")
@click.option("--json", "as_json", is_flag=True, help='Take the fields from JSON on stdin: {"username": "…"}.')
@kept_in
@options.which_broker
def set_(
    *, where: Where, name: str, fields: tuple[str, ...], file: Path | None, as_json: bool, backend: str | None
) -> None:
    """
    Store a new version of the secret NAME and make it current.

    The value is asked for without echo; where stdin is not a terminal it is the
    value, less one final newline. FIELDs name its parts, and each is asked for:

        mcp-broker secret set github
        mcp-broker secret set app-db username password
        pass show github | mcp-broker secret set github
    """
    values.refuse_values(name, fields)
    if as_json and (fields or file):
        message = "--json brings its own fields"
        raise click.UsageError(message)
    if file is not None and len(fields) > 1:
        message = "a file is the value of one field"
        raise click.UsageError(message)
    options.admin(where).close()  # so that nobody is asked for a value that cannot be stored
    wanted = fields or (values.ONE,)
    if as_json:
        found = values.from_json()
    elif file is not None:
        found = values.from_file(file, wanted[0])
    else:
        found = values.from_stdin_or_terminal(name, wanted)
    with options.admin(where) as client:
        stored = client.call("secret/set", name=name, values=found, backend=backend)
    show.line(f"{stored['secret']} is stored in {stored['backend']}, version {stored['version']}")
    if not stored["declared"]:
        show.line("note: no server gets it before the config says where it is:", err=True)
        show.line(f"    [secrets.{stored['secret']}]", err=True)
        show.line(f'    backend = "{stored["backend"]}"', err=True)


@secret.command("list")
@click.option("--backend", metavar="NAME", help="All that this backend keeps, named by the config or not.")
@options.as_json
@options.which_broker
def list_(*, where: Where, backend: str | None, as_json: bool) -> None:
    """List the secrets that the config declares and the store keeps, and who gets them."""
    with options.admin(where) as client:
        found = client.call("secret/list", backend=backend)
    if as_json:
        show.as_json(found)
        return
    for problem in found["problems"]:
        show.line(f"note: {problem}", err=True)
    show.table(
        ("NAME", "BACKEND", "FIELDS", "VERSION", "STORED", "TTL", "SERVERS"),
        [_row(each) for each in found["secrets"]],
        empty="there is no secret; store one: mcp-broker secret set NAME",
    )


def _row(secret: dict[str, Any]) -> list[Cell | str]:
    known = {True: "yes", False: "no", None: "?"}[secret["stored"]]
    stored = moments.relative(secret["created_at"]) if secret["created_at"] else known
    return [
        Cell(secret["name"], "bold"),
        secret["backend"],
        " ".join(secret["fields"]),
        "" if secret["version"] is None else str(secret["version"]),
        stored,
        moments.distance(secret["ttl"]),
        " ".join(secret["servers"]),
    ]


@secret.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@kept_in
@options.which_broker
def rm(*, where: Where, name: str, yes: bool, backend: str | None) -> None:
    """Remove the secret NAME with all its versions. There is no way back."""
    if not yes:
        if sys.stdin is None or not sys.stdin.isatty():
            message = f"removing {name} needs a yes, and there is no terminal to ask on"
            raise RequestError(message, hint=f"mcp-broker secret rm {name} --yes{options.again(where)}")
        click.confirm(f"remove {name} with all its versions?", abort=True, err=True)
    with options.admin(where) as client:
        client.call("secret/rm", name=name, backend=backend)
    show.line(f"{name} is removed")


@secret.command()
@click.argument("name")
@kept_in
@options.as_json
@options.which_broker
def versions(*, where: Where, name: str, backend: str | None, as_json: bool) -> None:
    """List the versions of the secret NAME, newest first."""
    with options.admin(where) as client:
        found = client.call("secret/versions", name=name, backend=backend)
    if as_json:
        show.as_json(found)
        return
    rows = [
        (
            str(each["number"]),
            moments.local(each["created_at"]),
            " ".join(each["fields"]),
            Cell("current", "green") if each["current"] else "",
        )
        for each in found["versions"]
    ]
    show.table(("VERSION", "STORED", "FIELDS", ""), rows, empty=f"{name} has no version")
