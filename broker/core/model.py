"""
The nouns of the rules: who asks, what there is, what was promised.

All of it is frozen and holds no value of any secret. Times are Unix seconds in
UTC, durations are seconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import msgspec


class Process(msgspec.Struct, frozen=True, kw_only=True, cache_hash=True):
    """
    A process, named so that no other one ever has the same name.

    A pid is used again; a pid with the boot it belongs to and its start time is not.

    Attributes:
        boot: the kernel's boot id.
        pid: as the broker's pid namespace numbers it.
        start: start time in clock ticks since boot (``/proc/PID/stat``, field 22).
        uid: the user that it connected as.

    """

    boot: str
    pid: int
    start: int
    uid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """
    The process that asks, as the kernel describes it.

    Attributes:
        process: which process.
        gid: its group.
        groups: its supplementary groups; empty where the kernel does not say.
        unit: the systemd unit it runs in, ``mcp-app@7.service``; None for none and for units of a user's manager.

    """

    process: Process
    gid: int
    groups: frozenset[int] = frozenset()
    unit: str | None = None

    @property
    def uid(self) -> int:
        """Return the user that it connected as."""
        return self.process.uid

    @property
    def selectors(self) -> frozenset[str]:
        """
        Return every attested fact in the form that the config writes.

        A unit that is an instance also matches its template, so that
        ``unit:mcp-app@.service`` covers every connection of a socket unit.
        """
        facts = {f"uid:{self.uid}", f"gid:{self.gid}", *(f"gid:{group}" for group in self.groups)}
        if self.unit is not None:
            facts.add(f"unit:{self.unit}")
            template, at, _ = self.unit.partition("@")
            if at:
                facts.add(f"unit:{template}@.service")
        return frozenset(facts)


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretRule:
    """
    What the policy needs to know of a secret.

    Attributes:
        name: as the config calls it.
        backend: the backend that holds it.
        ttl: seconds that one lease of it lasts at most.

    """

    name: str
    backend: str
    ttl: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRule:
    """
    What the policy needs to know of a server.

    Attributes:
        name: as the config calls it.
        selectors: all of them must hold. An empty set holds for nobody.
        grants: names of the secrets it may have, by reference or by ``allow``.

    """

    name: str
    selectors: frozenset[str]
    grants: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one uid may use; 0 means none."""

    connections: int = 1024
    requests_per_second: int = 2000
    leases: int = 4096
    message_bytes: int = 1048576


@dataclass(frozen=True, kw_only=True)
class Policy:
    """All rules: what is not in here is denied."""

    servers: Mapping[str, ServerRule] = field(default_factory=dict)
    secrets: Mapping[str, SecretRule] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)

    @cached_property
    def granting(self) -> Mapping[str, tuple[ServerRule, ...]]:
        """Return, for each secret, the servers that may have it, in the order of their names."""
        found: dict[str, list[ServerRule]] = {}
        for _, server in sorted(self.servers.items()):
            for secret in server.grants:
                found.setdefault(secret, []).append(server)
        return {secret: tuple(servers) for secret, servers in found.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """
    A promise that one credential is good until a time, for one process.

    Attributes:
        accessor: its public name, safe to print.
        secret: what it is for.
        server: the server whose grant allowed it.
        backend: where it came from.
        process: whose life it hangs on; None for one that hangs on its ``ttl`` alone.
        uid: the user it counts for.
        issued_at: when.
        expires_at: until when; a lease of a living process is renewed before.
        ttl: the length that was promised and that a renewal promises again.
        version: of the secret, as it was last issued; None where the backend has none.
        backend_lease: what the backend calls it, where it can revoke it.
        renewable: whether the backend can prolong it. A static one, without ``backend_lease``, always is.
        barred: revoked by an admin while its process lives: that process gets this secret no more.
        holds: the selectors that were attested when it was issued, by which a renewal is decided.
        asker: the process that asked for one that hangs on no process, to be barred where an admin revokes it.
        ended: it has ended here, whether its process lives or not, and its backend has still to be told.
        gone_by: when the credential itself is over at its source, whatever anybody does; None where nothing says so.
        killed: barred along with its server: its process gets nothing of that server any more.

    """

    accessor: str
    secret: str
    server: str
    backend: str
    process: Process | None
    uid: int
    issued_at: float
    expires_at: float
    ttl: float
    version: int | None = None
    backend_lease: str | None = None
    renewable: bool = True
    barred: bool = False
    ended: bool = False
    holds: frozenset[str] = frozenset()
    asker: Process | None = None
    gone_by: float | None = None
    killed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """
    A mint that is about to happen, on disk before it does.

    Found again after a crash it says: something may exist at the backend that
    nobody holds, and it is gone by ``gone_by`` at the latest. With a ``handle``
    it need not wait for that: what may exist is revoked by it, seen or not.
    """

    accessor: str
    secret: str
    server: str
    backend: str
    uid: int
    process: Process | None
    started_at: float
    gone_by: float
    handle: str | None = None


class LeaseChanged(msgspec.Struct, frozen=True, kw_only=True):
    """One lease is no longer what it was."""

    accessor: str
    secret: str
    reason: Literal["rotated", "revoked", "expiring"]
