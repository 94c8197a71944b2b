"""
What the config says of the audit log, of its copies elsewhere, and of whom to tell.

Shapes alone: this module refuses to read a file, and to know how anything is sent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

from broker.config.problems import Location

FILE: Final = "file"
"""The broker's own log among those that must have a record before a release: always."""

SinkType = Literal["journald", "syslog", "http"]
Sent = Literal["checkpoints", "records"]

_NOWHERE: Final = Location(file=Path("broker.toml"))


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkConfig:
    """
    One place that copies go to.

    Attributes:
        name: as the config calls it.
        type: how it is spoken to.
        send: checkpoints alone, or every record too.
        address: ``tls://HOST:PORT`` or ``unix:///PATH`` for syslog, a URL for HTTP, a socket's path for journald.
        ca_file: certificates that its own must come from; None for those that the system trusts.
        token_file: holds what is sent as ``Authorization: Bearer``; None for nothing.
        where: its table.

    """

    name: str
    type: SinkType
    send: Sent = "checkpoints"
    address: str = ""
    ca_file: Path | None = None
    token_file: Path | None = None
    where: Location = field(default=_NOWHERE, compare=False)


def _no_sinks() -> Mapping[str, SinkConfig]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditConfig:
    """
    How the audit log is kept.

    Attributes:
        segment_bytes: the length at which a new segment begins.
        segment_age: seconds after which one begins that is not that long.
        keep: seconds for which earlier segments are kept; None for ever.
        checkpoint: seconds between two checkpoints, if anything was recorded between them.
        required: who must have a record before what it is about is released: ``file``, and names of sinks.
        within: seconds that the sinks among them may take.
        sinks: where copies go, by name.

    """

    segment_bytes: int = 64 << 20
    segment_age: float = 7 * 86400.0
    keep: float | None = None
    checkpoint: float = 3600.0
    required: tuple[str, ...] = (FILE,)
    within: float = 2.0
    sinks: Mapping[str, SinkConfig] = field(default_factory=_no_sinks)


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifyConfig:
    """
    Whom to tell of what needs a person.

    Attributes:
        program: a program and its arguments, which gets JSON on stdin; empty for none.
        address: a URL that JSON is posted to; empty for none.
        ca_file: see ``SinkConfig``.
        token_file: see ``SinkConfig``.
        again: seconds before the same is told again.
        most: how many are told in an hour at most.

    """

    program: tuple[str, ...] = ()
    address: str = ""
    ca_file: Path | None = None
    token_file: Path | None = None
    again: float = 3600.0
    most: int = 20
