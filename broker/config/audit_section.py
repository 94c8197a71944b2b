"""
The tables ``[audit]``, ``[audit.sinks.*]`` and ``[notify]``.

This module refuses an address at which others could read along: what is sent is
the record of who had what.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, get_args
from urllib.parse import urlsplit

from broker.config.problems import meant
from broker.config.recording import FILE, AuditConfig, NotifyConfig, Sent, SinkConfig
from broker.config.table import Table

_AUDIT_KEYS: Final = frozenset(
    {"segment_bytes", "segment_age", "keep", "checkpoint", "required", "required_within", "sinks"}
)
_SINK_KEYS: Final = frozenset({"type", "send", "address", "ca_file", "token_file"})
_NOTIFY_KEYS: Final = frozenset({"program", "address", "ca_file", "token_file", "again", "at_most"})
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})

_SMALLEST_SEGMENT: Final = 1 << 16
_LARGEST_SEGMENT: Final = 1 << 30
_SHORTEST: Final = 1.0


def audit(table: Table | None) -> AuditConfig:
    """Read ``[audit]``; what is wrong is noted."""
    if table is None:
        return AuditConfig()
    table.expect(_AUDIT_KEYS)
    sinks = _sinks(table.take_table("sinks"))
    found: dict[str, Any] = {
        "segment_bytes": table.take_count("segment_bytes", lowest=_SMALLEST_SEGMENT, highest=_LARGEST_SEGMENT),
        "segment_age": table.take_seconds("segment_age", lowest=60.0),
        "keep": table.take_seconds("keep", lowest=60.0),
        "checkpoint": table.take_seconds("checkpoint", lowest=_SHORTEST),
        "within": table.take_seconds("required_within", lowest=0.1),
        "required": _required(table, sinks),
    }
    return AuditConfig(sinks=sinks, **{name: value for name, value in found.items() if value is not None})


def _required(table: Table, sinks: Mapping[str, SinkConfig]) -> tuple[str, ...] | None:
    names = table.take_words("required")
    if names is None:
        return None
    if FILE not in names:
        table.reject("required", text=f'must name "{FILE}": nothing is released that is not in the log itself')
    known = [FILE, *sinks]
    table.each(names, "required", lambda name: None if name in known else f"no such sink{meant(name, known)}")
    deaf = 'gets no records: a required sink needs send = "records"'
    table.each(names, "required", lambda name: deaf if name in sinks and sinks[name].send != "records" else None)
    return names


def _sinks(table: Table | None) -> Mapping[str, SinkConfig]:
    found: dict[str, SinkConfig] = {}
    for name in table.rows if table is not None else ():
        if table is None or not _NAME.fullmatch(name) or name == FILE:
            if table is not None:
                table.reject(name, text="a sink's name must be letters, digits, - and _, and not " + FILE)
            continue
        inner = table.take_table(name)
        one = None if inner is None else _sink(name, inner)
        if one is not None:
            found[name] = one
    return MappingProxyType(found)


def _sink(name: str, table: Table) -> SinkConfig | None:
    table.expect(_SINK_KEYS)
    kind, send = table.take_text("type") or "", table.take_text("send") or "checkpoints"
    if kind not in _ADDRESSES:
        table.reject("type", text="must be journald, syslog or http", hint='type = "journald", for one')
        return None
    if send not in get_args(Sent):
        table.reject("send", text='must be "checkpoints" or "records"')
        return None
    address = table.take_text("address") or ""
    wrong = _ADDRESSES[kind](address)
    if wrong is not None:
        table.reject("address", text=wrong)
        return None
    return SinkConfig(
        name=name,
        type=kind,  # type: ignore[arg-type]  # looked up above
        send=send,  # type: ignore[arg-type]
        address=address,
        ca_file=_path(table, "ca_file"),
        token_file=_path(table, "token_file"),
        where=table.where(),
    )


def _journald(address: str) -> str | None:
    """Return what is wrong with the address of a journal: it has one of its own, and another for tests."""
    return None if not address or address.startswith("/") else "must be the absolute path of a socket, or absent"


def _syslog(address: str) -> str | None:
    parts = urlsplit(address)
    if parts.scheme == "unix" and parts.path.startswith("/") and not parts.netloc:
        return None
    if parts.scheme == "tls" and parts.hostname and not parts.path.strip("/"):
        return None if _port(address) else "the port is no number"
    return "must be tls://HOST:PORT or unix:///PATH: whoever can read along reads who had what"


def web(address: str) -> str | None:
    """Return what is wrong with the address of an HTTP endpoint, or None."""
    parts = urlsplit(address)
    if parts.username is not None or parts.password is not None:
        return "no credential stands in the config: token_file names a file that holds one"
    if not parts.hostname or not _port(address):
        return "must be https://HOST[:PORT]/PATH"
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        return None
    return "must be https://…: http:// is for this host alone"


_ADDRESSES: Final = MappingProxyType({"journald": _journald, "syslog": _syslog, "http": web})


def _port(address: str) -> bool:
    try:
        return urlsplit(address).port != 0
    except ValueError:
        return False


def _path(table: Table, key: str) -> Path | None:
    text = table.take_text(key)
    if text is not None and not text.startswith("/"):
        table.reject(key, text="must be an absolute path")
        return None
    return None if text is None else Path(text)


def notify(table: Table | None) -> NotifyConfig:
    """Read ``[notify]``; what is wrong is noted."""
    if table is None:
        return NotifyConfig()
    table.expect(_NOTIFY_KEYS)
    program, address = table.take_words("program") or (), table.take_text("address") or ""
    if not program and not address:
        table.reject(text="names nobody to tell", hint='program = ["/usr/local/bin/tell-me"], or address = "https://…"')
    if program and not program[0].startswith("/"):
        table.reject("program", text="must begin with an absolute path: nobody's PATH is asked")
    wrong = web(address) if address else None
    if wrong is not None:
        table.reject("address", text=wrong)
    found: dict[str, Any] = {
        "again": table.take_seconds("again", lowest=1.0),
        "most": table.take_count("at_most", lowest=1, highest=3600),
        "ca_file": _path(table, "ca_file"),
        "token_file": _path(table, "token_file"),
    }
    return NotifyConfig(
        program=program, address=address, **{name: value for name, value in found.items() if value is not None}
    )
