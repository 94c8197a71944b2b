"""
The config, typed and frozen, with every default filled in.

It holds no secret and refuses to know where it came from beyond file and line.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from broker.config.problems import Location
from broker.config.recording import AuditConfig, NotifyConfig
from broker.config.replacing import RotateConfig
from broker.config.template import Template
from broker.core.model import Limits, Policy, SecretRule, ServerRule
from broker.paths import Mode

LOCAL: Final = "local"
"""The backend that is always there."""

SEALED: Final = "sealed"
"""Its type."""

DEFAULT_TTL: Final = 3600.0
"""Seconds that a lease lasts where the config does not say."""

_NOWHERE: Final = Location(file=Path("broker.toml"))


def _nothing() -> Mapping[str, Any]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendConfig:
    """
    One place that secrets come from.

    Attributes:
        name: as the config calls it.
        type: which adapter it is.
        options: everything else that stands in its table, for the adapter to judge.
        rotate: when its own key or login is replaced; None for never.
        where: its table.

    """

    name: str
    type: str
    options: Mapping[str, Any] = field(default_factory=_nothing)
    rotate: RotateConfig | None = None
    where: Location = field(default=_NOWHERE, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretConfig:
    """
    One secret: where it is, not what it is.

    Attributes:
        name: as templates call it.
        backend: the name of the backend that holds it.
        path: where in there, in the backend's own terms.
        ttl: seconds that one lease of it lasts at most.
        stale: seconds past the loss of the backend for which it may still be served, unexpired.
        share: whether what is minted for it is minted once for all processes, and not for each.
        params: what is sent along to the backend, as it stands.
        rotate: how it is replaced; None for never.
        declared: whether the config has a table for it; if not, it is the local one of its name.
        where: its table.

    """

    name: str
    backend: str = LOCAL
    path: str
    ttl: float = DEFAULT_TTL
    stale: float = 0.0
    share: bool = False
    params: Mapping[str, Any] = field(default_factory=_nothing)
    rotate: RotateConfig | None = None
    declared: bool = field(default=True, compare=False)
    where: Location = field(default=_NOWHERE, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """
    One MCP server: what starts it, who may, and what it gets.

    Attributes:
        name: as the config calls it.
        command: program and arguments; empty for an entry that only grants, to scripts.
        client_args: whether what the client appends goes through.
        selectors: attested facts that must all hold, users and groups as numbers.
        env: variables and what is in them.
        files: variables that hold the path of a file in memory, and what is in the file.
        pass_env: names of further variables of the caller, ``*`` for any characters.
        allow: secrets that it may ask for over the socket.
        unsafe_user_selector: whether in system mode a user is enough where a unit should be.
        where: its table.
        origins: where each of its keys stands, by dotted name; keys taken over by ``like`` stand elsewhere.

    """

    name: str
    command: tuple[str, ...] = ()
    client_args: bool = False
    selectors: frozenset[str] = frozenset()
    env: Mapping[str, Template] = field(default_factory=_nothing)
    files: Mapping[str, Template] = field(default_factory=_nothing)
    pass_env: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    unsafe_user_selector: bool = False
    where: Location = field(default=_NOWHERE, compare=False)
    origins: Mapping[str, Location] = field(default_factory=_nothing, compare=False, repr=False)

    @property
    def needs(self) -> frozenset[str]:
        """Return every secret without which it does not start."""
        return frozenset[str]().union(
            *(template.secrets for template in (*self.env.values(), *self.files.values())),
        )

    @property
    def grants(self) -> frozenset[str]:
        """Return every secret that it may have: a reference is its own grant."""
        return self.needs.union(self.allow)

    def origin(self, key: str) -> Location:
        """Return where one of its keys stands."""
        return self.origins.get(key, self.where)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """
    The whole config.

    Attributes:
        mode: whose broker it is for.
        files: what was read, in this order; empty where there was nothing.
        backends: by name; ``local`` is always among them.
        secrets: those that are declared, by name.
        servers: by name.
        limits: what one uid may use.
        audit: how the log is kept and where copies of it go.
        notify: whom to tell of what needs a person.
        autostart: whether commands may start the daemon themselves.

    """

    mode: Mode
    files: tuple[Path, ...] = field(default=(), compare=False)
    backends: Mapping[str, BackendConfig] = field(default_factory=_nothing)
    secrets: Mapping[str, SecretConfig] = field(default_factory=_nothing)
    servers: Mapping[str, ServerConfig] = field(default_factory=_nothing)
    limits: Limits = field(default_factory=Limits)
    audit: AuditConfig = field(default_factory=AuditConfig)
    notify: NotifyConfig = field(default_factory=NotifyConfig)
    autostart: bool = True

    def secret(self, name: str) -> SecretConfig:
        """Return a secret as declared, or else the local one of that name."""
        declared = self.secrets.get(name)
        return declared if declared is not None else SecretConfig(name=name, path=name, declared=False)

    def known_secrets(self) -> Mapping[str, SecretConfig]:
        """Return every secret that is declared or that a server may have, sorted by name."""
        granted = (server.grants for server in self.servers.values())
        return {name: self.secret(name) for name in sorted(frozenset(self.secrets).union(*granted))}

    def policy(self) -> Policy:
        """Return the rules by which is decided who gets what."""
        return Policy(
            servers={
                name: ServerRule(name=name, selectors=server.selectors, grants=server.grants)
                for name, server in self.servers.items()
            },
            secrets={
                name: SecretRule(name=name, backend=secret.backend, ttl=secret.ttl)
                for name, secret in self.known_secrets().items()
            },
            limits=self.limits,
        )
