"""
Leases: what an engine has handed out, until when, under which token.

It refuses to undo anything at the engine: who ends a lease does.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.vault.tokens import LONGEST, Token
from tests.fakes.vault.wire import Wanted, bad, capped, moment, random_name


@dataclass(slots=True, kw_only=True)
class Lease:
    """One lease. ``revoke`` takes it back at the engine; ``prolong`` tells the engine its new end."""

    id: str
    path: str
    namespace: str
    token: str = field(repr=False)
    begun: float
    expires: float
    ttl: float
    max_ttl: float
    renewable: bool
    internal: Mapping[str, Any] = field(repr=False)
    revoke: Callable[[Mapping[str, Any]], None]
    prolong: Callable[[Mapping[str, Any], float], None]
    renewed: float | None = None

    def lookup(self, now: float) -> dict[str, Any]:
        """Return what a lookup says."""
        return {
            "expire_time": moment(self.expires),
            "id": self.id,
            "issue_time": moment(self.begun),
            "last_renewal": None if self.renewed is None else moment(self.renewed),
            "path": self.path,
            "renewable": self.renewable,
            "ttl": max(0, int(self.expires - now)),
        }


class Leases:
    """All leases of a server."""

    def __init__(self) -> None:
        """Begin with none."""
        self._leases: dict[str, Lease] = {}

    def add(
        self,
        path: str,
        token: Token,
        wanted: Wanted,
        now: float,
        *,
        revoke: Callable[[Mapping[str, Any]], None],
        prolong: Callable[[Mapping[str, Any], float], None],
    ) -> Lease:
        """Return a new lease that dies with ``token``; one under a batch token ends before it."""
        ttl = float(int(min(wanted.ttl or LONGEST, wanted.max_ttl or LONGEST)))
        if token.batch and token.expires is not None:
            ttl = min(ttl, token.expires - now)
        lease = Lease(
            id=f"{path}/{random_name()}",
            path=path,
            namespace=token.namespace,
            token=token.secret,
            begun=now,
            expires=now + ttl,
            ttl=ttl,
            max_ttl=wanted.max_ttl or LONGEST,
            renewable=wanted.renewable,
            internal=wanted.internal,
            revoke=revoke,
            prolong=prolong,
        )
        self._leases[lease.id] = lease
        return lease

    def find(self, name: str, now: float) -> Lease | None:
        """Return a lease that lives, or None."""
        lease = self._leases.get(name)
        return lease if lease is not None and lease.expires > now else None

    def renew(self, name: str, increment: float, now: float) -> tuple[Lease, list[str]]:
        """Prolong a lease from now on; return it and the warnings. Raises ``Refusal``."""
        lease = self.find(name, now)
        if lease is None:
            raise bad("lease not found")
        if not lease.renewable:
            raise bad("lease is not renewable")
        ttl, warnings = capped(wanted=increment, default=lease.ttl, longest=lease.max_ttl, begun=lease.begun, now=now)
        lease.prolong(lease.internal, now + ttl)
        lease.expires = now + ttl
        lease.renewed = now
        return lease, warnings

    def of(self, token: Token) -> list[Lease]:
        """Return the leases that hang on a token."""
        return [lease for lease in self._leases.values() if lease.token == token.secret]

    def below(self, prefix: str) -> list[Lease]:
        """Return the leases whose names begin so."""
        return [lease for lease in self._leases.values() if lease.id.startswith(prefix)]

    def over(self, now: float) -> list[Lease]:
        """Return the leases whose time is over."""
        return [lease for lease in self._leases.values() if lease.expires <= now]

    def drop(self, lease: Lease) -> None:
        """Forget a lease."""
        self._leases.pop(lease.id, None)
