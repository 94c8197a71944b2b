"""
The config as it is in force, with every default, for ``check`` to print.

What is returned can be read as a config again. This module refuses to show what
looks like a credential.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final

from broker.config import duration
from broker.config.model import BackendConfig, Config, SecretConfig, ServerConfig
from broker.config.plaintext import HIDDEN, argument_looks_secret, looks_secret, shown
from broker.config.recording import AuditConfig, NotifyConfig, SinkConfig
from broker.config.replacing import RotateConfig, in_words
from broker.config.template import Template

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_LARGEST: Final = 2**63 - 1


def effective(config: Config) -> dict[str, Any]:
    """
    Return the whole config as plain dicts, lists, texts, numbers and booleans.

    Secrets that are not declared but granted to a server are in it; ``like`` is
    resolved; users and groups are numbers.
    """
    return {
        "autostart": config.autostart,
        "limits": asdict(config.limits),
        "audit": _audit(config.audit),
        **({} if config.notify == NotifyConfig() else {"notify": _notify(config.notify)}),
        "backends": {one.name: _backend(one) for one in config.backends.values()},
        "secrets": {name: _secret(one) for name, one in config.known_secrets().items()},
        "servers": {one.name: _server(one) for one in config.servers.values()},
    }


def as_toml(structure: Mapping[str, Any]) -> str:
    """Return what ``effective`` returned as text that a config file could hold."""
    return "\n".join(_table("", structure)).lstrip("\n") + "\n"


def _audit(audit: AuditConfig) -> dict[str, Any]:
    return {
        "segment_bytes": audit.segment_bytes,
        "segment_age": duration.text(audit.segment_age),
        **({} if audit.keep is None else {"keep": duration.text(audit.keep)}),
        "checkpoint": duration.text(audit.checkpoint),
        "required": list(audit.required),
        "required_within": duration.text(audit.within),
        **({"sinks": {one.name: _sink(one) for one in audit.sinks.values()}} if audit.sinks else {}),
    }


def _sink(sink: SinkConfig) -> dict[str, Any]:
    return {"type": sink.type, "send": sink.send, **_reached(sink)}


def _notify(notify: NotifyConfig) -> dict[str, Any]:
    program = {"program": _arguments(notify.program)} if notify.program else {}
    return {**program, **_reached(notify), "again": duration.text(notify.again), "at_most": notify.most}


def _reached(one: SinkConfig | NotifyConfig) -> dict[str, Any]:
    said = {"address": shown(one.address), "ca_file": one.ca_file, "token_file": one.token_file}
    return {name: str(value) for name, value in said.items() if value}


def _backend(backend: BackendConfig) -> dict[str, Any]:
    own: dict[str, Any] = {} if backend.rotate is None else {"rotate": in_words(backend.rotate)}
    if backend.rotate is not None and backend.rotate.reencrypt:
        own["rotate"]["reencrypt"] = True
    return {"type": backend.type, **{name: _plain(value, name) for name, value in backend.options.items()}, **own}


def _secret(secret: SecretConfig) -> dict[str, Any]:
    found: dict[str, Any] = {
        "backend": secret.backend,
        "path": shown(secret.path),
        "ttl": duration.text(secret.ttl),
        "stale": duration.text(secret.stale),
        "share": secret.share,
        "params": {name: _plain(value, name) for name, value in secret.params.items()},
    }
    return found if secret.rotate is None else {**found, "rotate": _rotate(secret.rotate)}


def _rotate(rotate: RotateConfig) -> dict[str, Any]:
    command = {"with": _arguments(rotate.command)} if rotate.command else {}
    return {**in_words(rotate), **command, "grace": duration.text(rotate.grace)}


def _server(server: ServerConfig) -> dict[str, Any]:
    command = {"command": _arguments(server.command)} if server.command else {}
    return {
        **command,
        "client_args": server.client_args,
        "selectors": sorted(server.selectors),
        "unsafe_user_selector": server.unsafe_user_selector,
        "env": {name: _source(template, name) for name, template in server.env.items()},
        "files": {name: _source(template, "") for name, template in server.files.items()},
        "pass_env": list(server.pass_env),
        "allow": list(server.allow),
    }


def _arguments(command: tuple[str, ...]) -> list[str]:
    before = ("", *command)
    return [
        HIDDEN if argument_looks_secret(one) or looks_secret(one, option if option.startswith("-") else "") else one
        for one, option in zip(command, before, strict=False)
    ]


def _source(template: Template, name: str) -> str:
    literal = "".join(part if isinstance(part, str) else " " for part in template.parts)
    return HIDDEN if looks_secret(literal, "" if template.secrets else name) else template.source


def _plain(value: object, name: str) -> object:
    """Return an option as it can be printed in JSON and in TOML."""
    match value:
        case Mapping():
            return {str(key): _plain(one, str(key)) for key, one in value.items()}
        case list():
            return [_plain(one, name) for one in value]
        case str():
            return shown(value, name)
        case float():
            return value if math.isfinite(value) else str(value)  # JSON has no word for the others
        case int():
            return value if abs(value) <= _LARGEST else hex(value)  # Python writes no number of 5,000 digits
        case _:
            return str(value)


def _table(path: str, rows: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a table: its own keys first, then the tables within."""
    tables = {name: value for name, value in rows.items() if isinstance(value, Mapping) and value}
    if path and len(tables) < len(rows):
        yield f"\n[{path}]"
    for name, value in rows.items():
        if name not in tables:
            yield f"{_key(name)} = {_value(value)}"
    for name, inner in tables.items():
        yield from _table(f"{path}.{_key(name)}" if path else _key(name), inner)


def _value(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return _text(value)
        case Mapping():
            inside = ", ".join(f"{_key(name)} = {_value(one)}" for name, one in value.items())
            return "{ " + inside + " }" if inside else "{}"
        case list():
            return "[" + ", ".join(_value(one) for one in value) + "]"
        case _:
            return repr(value)


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _text(name)


def _text(text: str) -> str:
    """Return a TOML string; what a terminal could take for a command is escaped."""
    return '"' + "".join(_character(one) for one in text) + '"'


def _character(one: str) -> str:
    if one in '"\\':
        return f"\\{one}"
    return one if one.isprintable() else f"\\U{ord(one):08x}"
