"""
The way of a credential, from who asks to its release.

    connection → attest → decide → intent → backend → lease → record → release

``issue`` is that line as code. What decides is pure and lives in ``core``; what
does is handed in. The order is the promise: nothing that can be revoked exists
without an intent on disk, nothing is released without its lease and its audit
record on disk, and nothing is released to a process that has ended.
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from backends.base import Backend, Credential
from broker.attest import Anchor, Peer
from broker.audit import AuditLog
from broker.config import Config, SecretConfig
from broker.core.leases import GROWTH, LeaseTable, renewal_at, replaceable
from broker.core.model import Lease, Process
from broker.core.policy import Allowed, Ask, Decision, Refused, decide
from broker.endings import MORE_FILES, Endings
from broker.errors import (
    DeniedError,
    LeaseNotFoundError,
    RateLimitedError,
    RequestError,
    UnavailableError,
)
from broker.minting import Minting, StaticError
from broker.reading import Reading
from broker.records import release_facts, what, who
from broker.refusals import Refusals
from broker.release import Opening, Release, Wanted, as_issued, new_accessor, require_value
from broker.renewals import Renewals
from broker.store import Store

LEAST_BOUND_TTL: Final = 10.0
"""Seconds that a lease lasts at least that hangs on a process: it is renewed by itself, and each time is work."""

MOST_UNBOUND_TTL: Final = 3600.0
"""Seconds that a lease may last that hangs on no process."""


class Service:
    """Issues, renews and takes back, by the config in force."""

    def __init__(
        self,
        config: Config,
        *,
        backends: Mapping[str, Backend],
        store: Store,
        audit: AuditLog,
        leases: LeaseTable,
        endings: Endings,
        refusals: Refusals,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take what there is; nothing is opened or closed here."""
        self.backends = backends
        self.store = store
        self.audit = audit
        self.leases = leases
        self.endings = endings
        self.refusals = refusals
        self.clock = clock
        self.minting = Minting(store=store, endings=endings, leases=leases, clock=clock)
        self.reading = Reading(clock=clock)
        self.renewals = Renewals(
            backends=backends,
            store=store,
            audit=audit,
            leases=leases,
            endings=endings,
            minting=self.minting,
            clock=clock,
        )
        self._take_over(config)
        self._taking: dict[tuple[Process, str, str], asyncio.Future[None]] = {}
        self._promised: Counter[int] = Counter()
        """Leases that are being made, by uid: they count, so that many requests at once do not pass the limit."""
        self.refresh: Callable[[], Awaitable[None]] = _as_it_is
        """Has the config in force be the one on disk, before a no is said that an edit of a moment ago made wrong."""
        self._epoch = 0
        """Goes up with whatever takes something away: another config, a kill switch."""
        self._killed: dict[str, int] = {}
        """For each server, the epoch in which everything of it was revoked last."""

    def _take_over(self, config: Config) -> None:
        self.config = config
        self.policy = config.policy()
        self._secrets = config.known_secrets()
        self.reading.adopt(self._secrets.values())

    def adopt(self, config: Config) -> None:
        """Put another config in force, as a whole."""
        self._take_over(config)
        self._epoch += 1

    def kill(self, server: str) -> None:
        """Know that all of a server's leases are revoked now: those that are being made are not released either."""
        self._epoch += 1
        self._killed[server] = self._epoch

    async def issue(self, peer: Peer, wanted: Wanted) -> Release:
        """
        Issue one credential to the process that connected.

        Raises:
            DeniedError: the policy does not allow it, or the process has ended.
            LockedError, UnavailableError: the backend cannot give it now.
            AuditError: the release cannot be recorded.

        """
        decision = self._verdict(peer, wanted)
        if isinstance(decision, Refused):
            await self.refresh()
            decision = self._verdict(peer, wanted)
        allowed, epoch = self._accept(peer, wanted, decision), self._epoch
        taken = self._again(allowed, wanted) or await self._take_once(peer, allowed, wanted)
        try:
            await self.audit.append("credential/authorised", release_facts(self.audit, peer, taken, wanted))
            peer.require_alive()
            self._require_in_force(peer, wanted, taken.lease, epoch)
        except BaseException as error:
            self._withhold(taken, error)
            raise
        if self.minting.instead:
            self._let_go_of_before(taken.lease)
        return taken

    async def _take_once(self, peer: Peer, allowed: Allowed, wanted: Wanted) -> Release:
        """Take, but not twice for one process that asks twice at once: the second waits and gets the first's lease."""
        if wanted.holder is None or wanted.fresh:
            return await self._take(peer, allowed, wanted)
        key = (wanted.holder.process, wanted.secret, allowed.rule.name)
        while (other := self._taking.get(key)) is not None:
            await asyncio.wait([other])
        again = self._again(allowed, wanted)
        if again is not None:
            return again
        done = self._taking[key] = asyncio.get_running_loop().create_future()
        try:
            return await self._take(peer, allowed, wanted)
        finally:
            del self._taking[key]
            done.set_result(None)

    async def _take(self, peer: Peer, allowed: Allowed, wanted: Wanted) -> Release:
        """Make a lease and what it is about; where there is something to revoke, each is on disk before the next."""
        secret = self._secrets[wanted.secret]
        backend = self.backends[secret.backend]
        mints, held = backend.mints(secret.path), self._held(allowed, wanted)
        if held is not None and not mints:
            credential, stale = await self.reading.read(backend, secret, held.accessor)
            return self._current(held, require_value(credential, secret), stale=stale)
        lease = self._promise(peer, allowed, wanted, secret)
        hang, stale = partial(self._hang, holder=wanted.holder), False
        self._promised[lease.uid] += 1
        try:
            if mints:
                try:
                    lease, credential = await self.minting.take(backend, secret, lease, hang=hang, fresh=wanted.fresh)
                except StaticError:
                    # Its backend had to look first, and knows it now.
                    return await self._take(peer, allowed, wanted)
                if not backend.mints(secret.path):
                    self.reading.took(secret, credential)
                if held is not None and self._ends_soon(held):
                    self.minting.instead[lease.accessor] = held.accessor
            else:
                credential, stale = await self.reading.read(backend, secret, lease.accessor)
                lease = as_issued(lease, require_value(credential, secret))
                self.store.keep_soon([lease])
                self.leases.add(lease)
                hang(lease)
        finally:
            self._promised[lease.uid] -= 1
        return Release(lease, credential, new=True, stale=stale)

    def _hang(self, lease: Lease, *, holder: Anchor | None) -> None:
        """Hang a lease on its process; one that nobody watches would never end."""
        try:
            if holder is not None:
                self.endings.hold(holder)
        except OSError as error:
            self.endings.end(lease, "credential/withheld", "unavailable")
            message = f"the process cannot be watched: {error.strerror}"
            raise UnavailableError(message, hint=MORE_FILES) from None

    def _ends_soon(self, held: Lease) -> bool:
        """Return whether who asks again gets another credential than this, which was minted."""
        now = self.clock()
        return held.expires_at <= now or replaceable(held, now)

    def _let_go_of_before(self, lease: Lease) -> None:
        """End the lease in the place of which this one has been released now."""
        before = self.leases.get(self.minting.instead.pop(lease.accessor, ""))
        if before is not None and not before.barred:
            self.endings.end(before, "lease/ended", f"{lease.accessor} was released in its place")

    def _held(self, allowed: Allowed, wanted: Wanted) -> Lease | None:
        """Return the lease that the process already holds by the same rule, unless it wants another."""
        if wanted.holder is None or wanted.fresh:
            return None
        held = self.leases.find(wanted.holder.process, wanted.secret, server=allowed.rule.name)
        if held is not None and held.backend != self._secrets[wanted.secret].backend:
            self.endings.end(held, "lease/ended", "its secret is in another backend now")
            return None
        return held

    def _again(self, allowed: Allowed, wanted: Wanted) -> Release | None:
        """Return what the process holds already, where the values are at hand."""
        held = self._held(allowed, wanted)
        if held is None:
            return None
        if held.backend_lease is not None or held.gone_by is not None:
            known = self.minting.values.get(held.accessor)
            return None if known is None or self._ends_soon(held) else Release(held, known, new=False)
        secret = self._secrets[wanted.secret]
        credential = None if secret.params else self.backends[secret.backend].at_hand(secret.path)
        return None if credential is None else self._current(held, require_value(credential, secret))

    def _current(self, held: Lease, credential: Credential, *, stale: bool = False) -> Release:
        """Return a static lease with the version that is issued now and, where that is due, with more time."""
        now = self.clock()
        if credential.ttl is not None and not stale:
            held = self._lasting(held, credential, now)
        due = renewal_at(held) <= now
        if due or credential.version != held.version:
            expires_at = now + held.ttl if due else held.expires_at
            if held.gone_by is not None:
                expires_at = min(expires_at, held.gone_by)
            version = credential.version
            held = self.leases.renewed(held.accessor, now=now, expires_at=expires_at, version=version) or held
            self.store.keep_soon([held])
        return Release(held, credential, new=False, stale=stale)

    def _lasting(self, held: Lease, credential: Credential, now: float) -> Lease:
        """Return a static lease with the end that its source has put to the value meanwhile, where that is another."""
        anew = as_issued(replace(held, issued_at=now, ttl=self._secrets[held.secret].ttl), credential)
        moved = math.inf if None in {held.gone_by, anew.gone_by} else (anew.gone_by or 0.0) - (held.gone_by or 0.0)
        if held.gone_by == anew.gone_by or -1.0 < moved < held.ttl * GROWTH:
            return held
        self.leases.remove(held.accessor)
        held = replace(anew, issued_at=held.issued_at)
        self.leases.add(held)
        self.store.keep_soon([held])
        return held

    def _withhold(self, taken: Release, error: BaseException) -> None:
        """Undo what was made for nothing: what is not released is revoked, and that is recorded."""
        now = self.leases.get(taken.lease.accessor)
        if taken.new and now is not None and not now.barred:
            self.endings.end(taken.lease, "credential/withheld", getattr(error, "code", "internal"))
        else:
            self.endings.withheld(taken.lease, getattr(error, "code", "internal"))

    def _require_in_force(self, peer: Peer, wanted: Wanted, lease: Lease, epoch: int) -> None:
        """Meanwhile an admin may have revoked it or changed the config, or the process may have ended."""
        if epoch != self._epoch:
            if self._killed.get(lease.server, 0) > epoch:
                self.endings.bar([lease], "its server was revoked while it was made", killed=True)
            else:
                self._accept(peer, wanted, self._verdict(peer, wanted))
        now = self.leases.get(lease.accessor)
        if now is None or now.barred:
            message = "the lease was revoked before it was released"
            raise LeaseNotFoundError(message, hint="start the server anew, or ask again")

    async def open_server(self, peer: Peer, name: str, *, dialect: str = "lines") -> Opening:
        """
        Issue everything that a server needs to start, to the process that will become it.

        Raises: see ``issue``; what was issued before something failed is revoked.
        """
        if isinstance(decide(self.policy, peer.selectors, Ask(server=name)), Refused):
            await self.refresh()
        decision = decide(self.policy, peer.selectors, Ask(server=name))
        if isinstance(decision, Refused):
            raise self.refusals.refuse(peer.workload, Ask(server=name), decision)
        server = self.config.servers[name]
        if not server.command:
            message = f"server {name!r} has no command: it is a grant for scripts"
            raise RequestError(message, hint=f"add command = [...] to [servers.{name}], or use mcp-broker get")
        needed = sorted({secret for part in (*server.env.values(), *server.files.values()) for secret in part.secrets})
        epoch, released = self._epoch, dict[str, Release]()
        wanted = {secret: Wanted(secret=secret, server=name, holder=peer.anchor, dialect=dialect) for secret in needed}
        try:
            for secret in needed:
                released[secret] = await self.issue(peer, wanted[secret])
            values = {secret: release.credential.values for secret, release in released.items()}
            env = {variable: part.render(values) for variable, part in server.env.items()}
            files = {variable: part.render(values) for variable, part in server.files.items()}
            await self.audit.record("server/opened", **who(peer), server=name, dialect=dialect)
            peer.require_alive()
            for secret, release in released.items():
                self._require_in_force(peer, wanted[secret], release.lease, epoch)
        except BaseException as error:
            for release in released.values():
                if release.new:
                    self._withhold(release, error)
            raise
        return Opening(server, env, files, tuple(release.lease for release in released.values()))

    async def renew(self, peer: Peer, accessor: str, ttl: float | None) -> Lease:
        """Give the caller's own lease more time, at most the ``ttl`` that the config allows."""
        lease = self._own(peer, accessor)
        self._require_granted(peer, lease)
        wanted = Wanted(secret=lease.secret, ttl=ttl or lease.ttl, holder=peer.anchor if lease.process else None)
        renewed = await self.renewals.prolong(lease, _length(wanted, self.config.secret(lease.secret)))
        await self.audit.append("lease/renewed", what(renewed) | who(peer))
        return renewed

    async def give_back(self, peer: Peer, accessor: str) -> None:
        """End the caller's own lease at its wish."""
        lease = self._own(peer, accessor)
        if lease.process is None:
            # Any process of the user may know its accessor.
            self._require_granted(peer, lease)
        self.endings.end(lease, "lease/released", "released")

    def _require_granted(self, peer: Peer, lease: Lease) -> None:
        ask = Ask(server=lease.server, secret=lease.secret)
        decision = decide(self.policy, peer.selectors, ask)
        if isinstance(decision, Refused):
            raise self.refusals.refuse(peer.workload, ask, decision)

    def _own(self, peer: Peer, accessor: str) -> Lease:
        """Return the caller's lease; another's looks just like one that is not there."""
        lease = self.leases.get(accessor)
        mine = lease is not None and lease.uid == peer.workload.uid
        if lease is None or not mine or lease.process not in {None, peer.workload.process}:
            message = "the caller has no such lease"
            raise LeaseNotFoundError(message, hint="a lease ends with its process; ask for the credential again")
        if lease.barred:
            raise self._barred(peer, Ask(server=lease.server, secret=lease.secret))
        return lease

    def _barred(self, peer: Peer, ask: Ask) -> DeniedError:
        """Record that an admin's word keeps this process from a secret, and return that as an error."""
        message, hint = f"an admin has revoked {ask.secret!r} for this process", "start the server anew"
        self.refusals.noted(peer.workload, ask, code="denied", reason=message, hint=hint)
        return DeniedError(message, hint=hint)

    def _verdict(self, peer: Peer, wanted: Wanted) -> Decision:
        ask = Ask(server=wanted.server, secret=wanted.secret)
        return self._decide_as_itself(peer, wanted) or decide(self.policy, peer.selectors, ask)

    def _accept(self, peer: Peer, wanted: Wanted, decision: Decision) -> Allowed:
        """Return a yes; record a no, and that of an admin who has barred the process, and raise it."""
        ask = Ask(server=wanted.server, secret=wanted.secret)
        if isinstance(decision, Refused):
            raise self.refusals.refuse(peer.workload, ask, decision)
        for process in (peer.workload.process, None if wanted.holder is None else wanted.holder.process):
            if process is not None and self.leases.barred(process, wanted.secret, decision.rule.name):
                raise self._barred(peer, ask)
        return decision

    def _decide_as_itself(self, peer: Peer, wanted: Wanted) -> Allowed | None:
        """
        Decide by the rule of the server that the process is, where it holds something as that already.

        Where several servers have the same selectors, what a process asks for
        over the socket then counts for the one that it was opened as.
        """
        if wanted.server is not None or wanted.holder is None:
            return None
        process = wanted.holder.process
        held = self.leases.find(process, wanted.secret) or next(iter(self.leases.of(process)), None)
        if held is None:
            return None
        decision = decide(self.policy, peer.selectors, Ask(server=held.server, secret=wanted.secret))
        return decision if isinstance(decision, Allowed) else None

    def _promise(self, peer: Peer, allowed: Allowed, wanted: Wanted, secret: SecretConfig) -> Lease:
        """Return the lease as it will be if the backend agrees; refuse where the uid has too many."""
        uid = peer.workload.uid
        limit = self.policy.limits.leases
        if limit and self.leases.count(uid) + self._promised[uid] >= limit:
            message = f"uid {uid} holds {limit} leases, which is the limit"
            raise RateLimitedError(message, hint="mcp-broker lease list; [limits] leases = N in the config")
        ttl = _length(wanted, secret)
        now = self.clock()
        return Lease(
            accessor=new_accessor(),
            secret=wanted.secret,
            server=allowed.rule.name,
            backend=secret.backend,
            process=None if wanted.holder is None else wanted.holder.process,
            uid=uid,
            issued_at=now,
            expires_at=now + ttl,
            ttl=ttl,
            holds=peer.selectors,
            asker=peer.workload.process if wanted.holder is None else None,
        )


async def _as_it_is() -> None:
    """Leave the config as it is."""


def _length(wanted: Wanted, secret: SecretConfig) -> float:
    """
    Return the seconds that a lease is for: what is wanted, within what the config allows.

    One that hangs on a process is renewed by itself, so it is not for less than
    a floor; one that hangs on its time alone is not for more than a cap.
    """
    ttl = min(wanted.ttl or secret.ttl, secret.ttl)
    return min(ttl, MOST_UNBOUND_TTL) if wanted.holder is None else max(ttl, min(LEAST_BOUND_TTL, secret.ttl))
