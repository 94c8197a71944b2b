"""
More time for leases, and others in the place of those that get no more.

A lease is renewed at its backend where it has one there, and here where it has
not. This module refuses to decide what is due: ``core.leases`` does.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from backends.base import Backend
from broker.audit import AuditLog
from broker.config import SecretConfig
from broker.core.leases import LeaseTable
from broker.core.model import Lease
from broker.endings import Endings
from broker.errors import LeaseNotFoundError, RequestError
from broker.minting import Minting
from broker.records import what
from broker.release import BACKEND_DEADLINE, new_accessor
from broker.store import Store
from broker.translate import answered

GONE: Final = "its backend knows it no more: it was revoked there, or its time was over"


class Renewals:
    """Prolongs leases, and replaces those that cannot be prolonged."""

    def __init__(
        self,
        *,
        backends: Mapping[str, Backend],
        store: Store,
        audit: AuditLog,
        leases: LeaseTable,
        endings: Endings,
        minting: Minting,
        clock: Callable[[], float],
    ) -> None:
        """Take what there is."""
        self._backends = backends
        self._store = store
        self._audit = audit
        self._leases = leases
        self._endings = endings
        self._minting = minting
        self._clock = clock

    async def prolong(self, lease: Lease, ttl: float) -> Lease:
        """
        Renew a lease, at its backend where it has one there, for a caller or because it is due.

        Raises:
            RequestError: it cannot be renewed.
            LeaseNotFoundError: it has ended meanwhile, or its backend no longer knows it, and then it ends here, too.

        """
        if not lease.renewable:
            message = "this lease cannot be renewed"
            raise RequestError(message, hint='ask for another: "fresh": true')
        together = self._about_the_same(lease)
        # Nobody shortens what others share.
        asked = ttl = max([ttl, *(each.ttl for each in together[1:])])
        if lease.backend_lease is not None:
            renewing = self._backends[lease.backend].renew(lease.backend_lease, increment=ttl)
            try:
                ttl = await answered(renewing, within=BACKEND_DEADLINE)
            except LeaseNotFoundError:
                self._endings.gone(lease, GONE)
                raise
        now = self._clock()
        expires_at = now + ttl if lease.gone_by is None else min(now + ttl, lease.gone_by)
        renewed: Lease | None = None
        for each in self._about_the_same(lease):
            after = self._leases.renewed(
                each.accessor, now=now, expires_at=expires_at, version=each.version, asked=asked
            )
            if after is not None:
                self._store.keep_soon([after])
            if each.accessor == lease.accessor:
                renewed = after
        if renewed is None:
            message = "the lease has ended"
            raise LeaseNotFoundError(message)
        return renewed

    def _about_the_same(self, lease: Lease) -> tuple[Lease, ...]:
        """Return the lease, and all others of processes that are renewed at the backend along with it."""
        if lease.backend_lease is None:
            return (lease,)
        sharing = self._leases.sharing(lease.backend, lease.backend_lease)
        others = [each for each in sharing if each.process is not None and each.accessor != lease.accessor]
        return (lease, *others)

    async def replace(self, lease: Lease, secret: SecretConfig) -> Lease | None:
        """
        Mint another credential for the process of a lease that ends soon; tell who watches.

        The process gets it when it asks again, and then the old lease ends, or
        else at its own time. Returns None where there is nothing to do: the
        process has a newer one already, or it is not the backend that mints.
        """
        backend = self._backends[secret.backend]
        newest = self._leases.find(lease.process, lease.secret, server=lease.server)
        if newest is None or newest.accessor != lease.accessor or not backend.mints(secret.path):
            return None
        now = self._clock()
        ttl = min(lease.ttl, secret.ttl)
        promised = replace(
            lease,
            accessor=new_accessor(),
            backend=secret.backend,
            issued_at=now,
            expires_at=now + ttl,
            ttl=ttl,
            version=None,
            backend_lease=None,
            renewable=True,
            gone_by=None,
        )
        new, _ = await self._minting.take(backend, secret, promised, hang=self._hang_beside(lease))
        self._minting.instead[new.accessor] = lease.accessor
        self._audit.note("lease/replaced", **what(new), reason=f"{lease.accessor} cannot be renewed any further")
        self._endings.tell(lease, "rotated")
        return new

    def _hang_beside(self, before: Lease) -> Callable[[Lease], None]:
        """Return what hangs a new lease on the process of another one, which is watched as long as that is in force."""

        def hang(lease: Lease) -> None:
            now = self._leases.get(before.accessor)
            if now is None or now.barred:
                self._endings.end(lease, "credential/withheld", "expired")
                message = "the lease has ended"
                raise LeaseNotFoundError(message)

        return hang
