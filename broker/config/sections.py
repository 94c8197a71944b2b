"""
The tables ``[backends.*]``, ``[secrets.*]`` and ``[limits]``.

This module refuses to judge a backend's own options: its adapter does.
"""

from collections.abc import Collection, Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Final

from broker.config import rotate
from broker.config.model import DEFAULT_TTL, LOCAL, SEALED, BackendConfig, SecretConfig
from broker.config.problems import meant
from broker.config.table import Table
from broker.core.model import Limits

SECRET_KEYS: Final = frozenset({"backend", "path", "ttl", "stale", "share", "params", "rotate"})

_MISPLACED: Final = {
    "value": "no secret stands in the config: mcp-broker secret set NAME",
    "type": 'a type belongs to a backend: [backends.NAME], and backend = "NAME" here',
    "every": 'write rotate = { every = "30d", with = ["PROGRAM"] }',
    "grace": 'write rotate = { every = "30d", with = ["PROGRAM"], grace = "10m" }',
}

_SHORTEST_TTL: Final = 1.0
_SMALLEST_MESSAGE: Final = 1024


def backend(name: str, table: Table) -> BackendConfig | None:
    """Read one ``[backends.NAME]``; None where it is wrong, which is noted."""
    kind = table.take_text("type")
    if name == LOCAL:
        if kind not in (None, SEALED):
            table.reject("type", text=f'the backend "{LOCAL}" is always the sealed store', hint="give it another name")
        kind = SEALED
    elif kind is None:
        if "type" not in table.rows:
            table.reject(text="has no type", hint='type = "vault", for one')
        return None
    options = {key: value for key, value in table.rows.items() if key not in {"type", "rotate"}}
    own = rotate.of_backend(table.take_table("rotate"), keyed=name == LOCAL)
    return BackendConfig(name=name, type=kind, options=MappingProxyType(options), rotate=own, where=table.where())


def check_type(found: BackendConfig, table: Table, types: Collection[str]) -> None:
    """Note that there is no adapter of a backend's type."""
    if found.type not in types:
        table.reject(
            "type",
            text=f"there is no such type of backend{meant(found.type, types)}",
            hint="known here: " + ", ".join(sorted(types)),
        )


def secret(name: str, table: Table, backends: Collection[str]) -> SecretConfig:
    """Read one ``[secrets.NAME]``; what is wrong is noted."""
    table.expect(SECRET_KEYS, _MISPLACED)
    holder = table.take_text("backend") or LOCAL
    if holder not in backends:
        table.reject(
            "backend",
            text=f"there is no such backend{meant(holder, backends)}",
            hint="there are: " + ", ".join(sorted(backends)),
        )
    ttl = table.take_seconds("ttl", lowest=_SHORTEST_TTL)
    params = table.take_table("params")
    return SecretConfig(
        name=name,
        backend=holder,
        path=table.take_text("path") or name,
        ttl=DEFAULT_TTL if ttl is None else ttl,
        stale=table.take_seconds("stale") or 0.0,
        share=table.take_flag("share") or False,
        params=MappingProxyType(dict(params.rows) if params is not None else {}),
        rotate=rotate.of_secret(table.take_table("rotate")),
        where=table.where(),
    )


def limits(table: Table) -> Limits:
    """Read ``[limits]``; what is wrong is noted."""
    names = [one.name for one in fields(Limits)]
    table.expect(names)
    found: Mapping[str, int] = {name: count for name in names if (count := table.take_count(name)) is not None}
    if 0 < found.get("message_bytes", 0) < _SMALLEST_MESSAGE:
        table.reject("message_bytes", text=f"must be 0 or at least {_SMALLEST_MESSAGE}, or no request fits in")
    return Limits(**found)
