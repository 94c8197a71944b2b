"""
The parameters and results of every verb, as they stand on the wire.

Durations go in as TOML writes them (``"10m"``) or as seconds; times come out in
RFC 3339, UTC. Unknown parameters are an error. This module holds types alone.
"""

from typing import Literal

from backends.base import Secret
from broker.api.audit_messages import AuditState
from broker.api.words import Accessor, Duration, Field, Name, Params, Result, Time, Value
from broker.core.model import LeaseChanged as LeaseChanged  # noqa: PLC0414 -- a message like all others, made in the core


class Nothing(Params):
    """No parameters."""


class Done(Result):
    """It happened."""

    done: bool = True


class Whoami(Result):
    """What the broker sees in the caller."""

    version: str
    mode: str
    uid: int
    gid: int
    groups: list[int]
    pid: int
    unit: str | None
    selectors: list[str]


class ServerOpen(Params):
    """Ask for all that a server needs to start."""

    server: Name


class Opened(Result):
    """All that a server needs to start."""

    server: str
    command: list[str]
    client_args: bool
    env: dict[str, Secret]
    files: dict[str, Secret]
    pass_env: list[str]
    leases: list[str]
    version: str


class CredentialIssue(Params):
    """
    Ask for one credential.

    ``bind`` hangs the lease on an ancestor of the caller (its pid) or on its
    ``ttl`` alone (``"none"``); without it, on the caller.
    """

    secret: Name
    ttl: Duration | None = None
    fresh: bool = False
    bind: int | Literal["none"] | None = None


class Issued(Result):
    """One credential."""

    accessor: str
    secret: str
    values: dict[str, Secret]
    issued_at: Time
    expires_at: Time
    renewable: bool
    version: int | None


class LeaseRenew(Params):
    """Ask for more time."""

    accessor: Accessor
    ttl: Duration | None = None


class Renewed(Result):
    """How much time there is now."""

    accessor: str
    expires_at: Time


class LeaseRelease(Params):
    """Give a credential back."""

    accessor: Accessor


class Watching(Result):
    """Notifications follow, for these leases and for later ones of the caller."""

    leases: list[str]


class LeaseRow(Result):
    """One lease, for an admin."""

    accessor: str
    secret: str
    server: str
    backend: str
    version: int | None
    uid: int
    pid: int | None
    state: Literal["active", "stale", "barred", "ended", "irrevocable"]
    issued_at: Time
    expires_at: Time
    renewable: bool


class LeaseList(Params):
    """Which leases to list; ``all`` are those too that have ended and are not given back to their backend yet."""

    server: Name | None = None
    secret: Name | None = None
    all: bool = False


class Leases(Result):
    """What is out."""

    leases: list[LeaseRow]


class LeaseRevoke(Params):
    """Which lease to revoke."""

    accessor: Accessor


class Revoked(Result):
    """How many leases were revoked."""

    revoked: int


class ServerName(Params):
    """Which server."""

    server: Name


class ServerRow(Result):
    """One server, for an admin."""

    name: str
    command: list[str]
    selectors: list[str]
    secrets: list[str]
    leases: int


class Servers(Result):
    """The servers that the config names."""

    servers: list[ServerRow]


class SecretName(Params):
    """Which secret."""

    name: Name
    backend: Name | None = None


class SecretSet(Params):
    """A new version of a secret: its fields and their values."""

    name: Name
    values: dict[Field, Value]
    backend: Name | None = None


class SecretList(Params):
    """Which secrets to list; without a backend, those that the config knows and all of the sealed store."""

    backend: Name | None = None


class SecretStored(Result):
    """Which version was written where, and whether the config says so: what it does not name, no server gets."""

    secret: str
    backend: str
    version: int
    declared: bool


class SecretRow(Result):
    """One secret, for an admin: everything but its value. ``stored`` is null where that cannot be seen now."""

    name: str
    backend: str
    path: str
    stored: bool | None
    fields: list[str]
    version: int | None
    created_at: Time | None
    ttl: float
    servers: list[str]


class Secrets(Result):
    """What the config declares, what the writable backends hold, and which of those do not say."""

    secrets: list[SecretRow]
    problems: list[str]


class VersionRow(Result):
    """One version of a secret."""

    number: int
    created_at: Time
    fields: list[str]
    current: bool


class Versions(Result):
    """The versions of one secret, newest first."""

    secret: str
    backend: str
    versions: list[VersionRow]


class Explain(Params):
    """
    Ask what the policy would say.

    The workload in question is the one of ``pid``, or one in ``unit``, or the
    one that was refused ``last``, or the caller.
    """

    server: Name | None = None
    secret: Name | None = None
    unit: str | None = None
    pid: int | None = None
    last: bool = False


class Explained(Result):
    """What the policy says, and by which rule."""

    allowed: bool
    reason: str
    rule: str | None
    hint: str | None
    server: str | None
    secret: str | None
    uid: int
    pid: int | None
    unit: str | None
    holds: list[str]
    wants: list[str]
    at: Time | None = None


class Reloaded(Result):
    """What a reload changed, one line each; empty where nothing did."""

    changed: list[str]


class KeyRotate(Params):
    """Whether the values are sealed anew too, or only the data key is wrapped anew."""

    reencrypt: bool = False


class KeyRotated(Result):
    """What was done, for a person."""

    backend: str
    source: str
    generation: int
    reencrypted: int
    remains: str | None = None


class Stop(Params):
    """Whether what is out is revoked first."""

    revoke: bool = False


class BackendRow(Result):
    """How a backend is, and what else it says of itself."""

    name: str
    type: str
    state: str
    detail: str
    hint: str | None
    facts: dict[str, str]


class BackendPolicy(Params):
    """Which backend; needed where several have policies."""

    backend: Name | None = None


class PolicyText(Result):
    """The policy that the config needs at a backend, in its own language."""

    backend: str
    policy: str
    secrets: int


class Problem(Result):
    """What is wrong, and the command that mends it or shows more."""

    text: str
    hint: str | None = None


class Refusal(Result):
    """What was refused lately, how often, and what mends it."""

    at: Time
    uid: int
    pid: int | None
    server: str | None
    secret: str | None
    code: str
    reason: str
    hint: str | None
    count: int


class ConfigState(Result):
    """Which config is in force."""

    files: list[str]
    loaded_at: Time
    error: str | None


class IntentRow(Result):
    """What may exist at a backend and nobody knows."""

    secret: str
    backend: str
    started_at: Time
    gone_by: Time


class Status(Result):
    """What a person wants to know first."""

    version: str
    mode: str
    pid: int
    uid: int
    started_at: Time
    directory: str
    healthy: bool
    problems: list[Problem]
    config: ConfigState
    audit: AuditState
    backends: list[BackendRow]
    servers: int
    secrets: int
    leases: int
    processes: int
    connections: int
    pending_revocations: int
    unknown: list[IntentRow]
    refusals: list[Refusal]
