"""
``get``: one credential to stdout, for scripts. The one command that prints a value.

This module refuses to print one anywhere else, errors included.
"""

import json
import re
import shlex
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import click

from broker.cli import options
from broker.client import Where
from broker.errors import RequestError

_TTL: Final = "60s"
_TTL_AWS: Final = "1h"
"""AWS SDKs ask again when less than a quarter of an hour is left."""

_AWS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "AccessKeyId": ("AccessKeyId", "access_key", "access_key_id", "aws_access_key_id"),
        "SecretAccessKey": ("SecretAccessKey", "secret_key", "secret_access_key", "aws_secret_access_key"),
        "SessionToken": ("SessionToken", "session_token", "security_token", "aws_session_token"),
    },
)
"""What ``credential_process`` wants, and what Vault, AWS's own files and people call it."""


class Bind(click.ParamType[int | str]):
    """A pid, or ``none``."""

    name = "PID|none"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Read it."""
        if value == "none" or isinstance(value, int):
            return value
        if str(value).isdecimal() and int(str(value)) > 0:
            return int(str(value))
        return self.fail("write the pid of a process that this one descends from, or none", param, ctx)


@click.command()
@click.argument("name")
@click.option(
    "--format",
    "form",
    type=click.Choice(["plain", "env", "json", "aws"]),
    default="plain",
    help="plain: one value. env: lines for a shell to read. json: all of it. aws: what credential_process wants.",
)
@click.option("--field", metavar="FIELD", help="Which field, where the secret has several.")
@click.option("--bind", type=Bind(), default="none", help="The process whose life the lease hangs on; $$ in a script.")
@click.option("--ttl", metavar="TIME", help=f"How long it is needed, as in 10m. [default: {_TTL}; {_TTL_AWS} for aws]")
@options.which_broker
def get(*, where: Where, name: str, form: str, field: str | None, bind: int | str, ttl: str | None) -> None:
    """
    Print the credential NAME to stdout.

    It is leased for a short time of its own, or with --bind for the life of a
    process. A server's entry in the config must allow it (`allow = ["NAME"]`).

        curl -H "Authorization: Bearer $(mcp-broker get github)" …
        eval "$(mcp-broker get app-db --format env)"
    """
    if bind == "none":
        ttl = ttl or (_TTL_AWS if form == "aws" else _TTL)
    with options.workload(where) as client:
        issued = client.call("credential/issue", secret=name, ttl=ttl, bind=bind)
    click.echo(_FORMS[form](issued, field), nl=False)


def _plain(issued: dict[str, Any], field: str | None) -> str:
    value = _chosen(issued, field)
    return value if value.endswith("\n") else f"{value}\n"


def _env(issued: dict[str, Any], field: str | None) -> str:
    values: dict[str, str] = issued["values"]
    if field is not None:
        values = {field: _chosen(issued, field)}
    name = issued["secret"]
    lines = [
        f"{_variable(name if key == 'value' else f'{name}_{key}')}={shlex.quote(value)}\n"
        for key, value in values.items()
    ]
    return "".join(lines)


def _json(issued: dict[str, Any], field: str | None) -> str:
    if field is not None:
        issued = {**issued, "values": {field: _chosen(issued, field)}}
    return json.dumps(issued, ensure_ascii=False) + "\n"


def _aws(issued: dict[str, Any], field: str | None) -> str:
    if field is not None:
        message = "--field does not go with --format aws, which needs several"
        raise click.UsageError(message)
    values: dict[str, str] = issued["values"]
    found = {
        wanted: values[next(each for each in names if each in values)]
        for wanted, names in _AWS.items()
        if any(each in values for each in names)
    }
    if "AccessKeyId" not in found or "SecretAccessKey" not in found:
        message = f"{issued['secret']} is no AWS credential; its fields are {_listed(values)}"
        raise RequestError(message, hint=f"mcp-broker secret set {issued['secret']} access_key secret_key")
    return json.dumps({"Version": 1, **found, "Expiration": issued["expires_at"]}) + "\n"


def _chosen(issued: dict[str, Any], field: str | None) -> str:
    values: dict[str, str] = issued["values"]
    if field is None and len(values) == 1:
        return next(iter(values.values()))
    if field is None and "value" in values:
        return values["value"]
    if field is None or field not in values:
        what = "has several fields" if field is None else f"has no field {field!r}"
        message = f"{issued['secret']} {what}: {_listed(values)}"
        raise RequestError(message, hint=f"mcp-broker get {issued['secret']} --field {next(iter(values), 'FIELD')}")
    return values[field]


def _listed(values: Mapping[str, str]) -> str:
    return ", ".join(values)


def _variable(name: str) -> str:
    """Return a name as that of a shell variable: ``APP_DB_PASSWORD``."""
    word = re.sub(r"[^A-Za-z0-9_]", "_", name).upper()
    return f"_{word}" if word[:1].isdigit() else word


_FORMS: Final[Mapping[str, Callable[[dict[str, Any], str | None], str]]] = MappingProxyType(
    {"plain": _plain, "env": _env, "json": _json, "aws": _aws},
)
