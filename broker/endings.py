"""
How leases end: with their process, at their time, by an admin, or because a release failed.

Whatever ends is taken out of the table, recorded, told to who watches, and
given back at its backend where there is something to give back. Nothing here
waits for the audit log: a revocation happens, and is recorded as soon as it
can be.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import replace
from typing import Any, Final, Literal

from backends.base import Backend, LeaseGoneError
from broker.attest import Anchor, find
from broker.audit import AuditLog
from broker.core.leases import Expire, LeaseTable, Renew, Replace
from broker.core.model import Intent, Lease, LeaseChanged, Process
from broker.errors import UnavailableError
from broker.lifelines import Lifelines
from broker.records import what
from broker.release import taken_back
from broker.revoker import IRREVOCABLE, Revoker
from broker.store import Store

Watcher = Callable[[LeaseChanged], None]
Reason = Literal["rotated", "revoked", "expiring"]

MORE_FILES: Final = "raise LimitNOFILE= of the broker's unit, or ulimit -n: each process with a lease takes one"

REVOKE_DEADLINE: Final = 30.0
"""Seconds that a backend may take to revoke one lease before that counts as failed."""


class Endings:
    """Ends leases, and remembers what must still be given back."""

    def __init__(
        self,
        *,
        backends: Mapping[str, Backend],
        store: Store,
        audit: AuditLog,
        leases: LeaseTable,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take what there is; ``open`` begins to watch processes."""
        self._backends = backends
        self._store = store
        self._audit = audit
        self._leases = leases
        self._clock = clock
        self._lifelines = Lifelines(self._process_ended)
        self._watchers: dict[Process, set[Watcher]] = {}
        self.revoker = Revoker(self._revoke, self._revoked, self._not_revoked, clock=clock)
        self.unknown: dict[str, Intent] = {}
        self._boot = ""
        self.forget: Callable[[Lease], None] = lambda _: None
        """Told of each lease that has ended, to drop what is kept for it."""

    def open(self, leases: Iterable[Lease], intents: Iterable[Intent], *, boot: str) -> None:
        """
        Take up what was out when the broker last ran.

        A lease whose process still lives goes on; what the others left is
        revoked, and so is what had ended before. An intent without a lease is
        something that may exist and that nobody holds: it is revoked by its
        handle, or listed until it is gone by itself.

        Raises:
            UnavailableError: it cannot be known which processes live. Nothing that may be in use was revoked.

        """
        self._lifelines.open()
        self._boot = boot
        over: list[Lease] = []
        for lease in sorted(leases, key=lambda each: each.issued_at):
            if lease.ended:
                self.revoker.add(lease)
            elif lease.process is None:
                self._leases.add(lease)
            else:
                try:
                    anchor = find(lease.process, boot=boot)
                    if anchor is None:
                        over.append(lease)
                    else:
                        self._take_up(lease, anchor)
                except OSError as error:
                    message = f"the processes that hold leases cannot be watched: {error.strerror}"
                    raise UnavailableError(message, hint=MORE_FILES) from None
        # Only when all that live are known: what one of them shares with a process that has ended is in use.
        for lease in over:
            self._ended(lease, "lease/ended", "its process had ended while the broker was away")
        for intent in intents:
            self.lost(intent)

    def _take_up(self, lease: Lease, anchor: Anchor) -> None:
        self._leases.add(lease)
        self._lifelines.hold(anchor)
        anchor.close()
        if lease.barred and lease.backend_lease is not None:
            self.revoker.add(lease)

    def close(self) -> None:
        """Watch no process any more. Nothing is revoked."""
        self._lifelines.close()

    def hold(self, anchor: Anchor) -> None:
        """Hang what this process holds on its life."""
        self._lifelines.hold(anchor)

    def end(self, lease: Lease, event: str, reason: str, **facts: Any) -> None:  # noqa: ANN401 -- an audit field
        """Take a lease out, record why, and give back what it was about."""
        if self._leases.remove(lease.accessor) is None:
            return
        if lease.process is not None and not self._leases.of(lease.process):
            self._lifelines.release(lease.process)
        self._ended(lease, event, reason, **facts)

    def gone(self, lease: Lease, reason: str) -> None:
        """End a lease whose backend no longer knows it, and all about the same thing: who asks again gets another."""
        for each in self._sharing(lease) or (lease,):
            self.end(each, "lease/ended", reason)
            self.tell(each, "revoked")

    def bar(self, leases: Iterable[Lease], reason: str, *, killed: bool = False) -> int:
        """
        Revoke leases by an admin's word; return how many. Their processes get these secrets no more.

        What they share with others is worthless then, so the others' leases end,
        too; they may ask again.

        Args:
            leases: which.
            reason: for the record.
            killed: whether it is the whole server that is taken from their processes.

        """
        barred = [lease for lease in leases if self._bar(lease, reason, killed=killed)]
        for lease in barred:
            for other in self._sharing(lease):
                self.end(other, "lease/ended", "what it shared was revoked by an admin")
                self.tell(other, "revoked")
        return len(barred)

    def _bar(self, lease: Lease, reason: str, *, killed: bool) -> bool:
        lease = self._hung_on_asker(lease)
        before = self._leases.bar(lease.accessor, killed=killed)
        if before is None or before.barred:
            return False
        barred = self._leases.get(lease.accessor)
        self._audit.note("lease/revoked", **what(lease), reason=reason)
        self.forget(lease)
        if barred is None and lease.backend_lease is None:
            self._store.forget_soon([lease.accessor])
        else:
            # One row says both, that it is over and that its process is barred: a crash finds both or neither.
            self._store.keep_soon([barred or replace(lease, ended=True)])
        if lease.backend_lease is not None:
            self.revoker.add(lease)
        self.tell(lease, "revoked")
        return True

    def _hung_on_asker(self, lease: Lease) -> Lease:
        """Hang a lease that hangs on its time alone on the process that asked for it, so that it can be barred."""
        if lease.process is not None or lease.asker is None or self._leases.get(lease.accessor) is None:
            return lease
        try:
            anchor = find(lease.asker, boot=self._boot)
            if anchor is None:
                return lease
            with closing(anchor):
                self._lifelines.hold(anchor)
        except OSError:
            # It cannot be watched now, and is revoked all the same.
            return lease
        self._leases.remove(lease.accessor)
        hung = replace(lease, process=lease.asker)
        self._leases.add(hung)
        return hung

    def clock_moved(self, by: float) -> None:
        """Know that the wall clock was set back by so many seconds (negative)."""
        self._store.keep_soon(self._leases.shift(by))

    def withheld(self, lease: Lease, code: str) -> None:
        """Record that what was authorised did not leave."""
        self._audit.note("credential/withheld", **what(lease), code=code)

    def give_back(self, lease: Lease) -> None:
        """Revoke what never became a lease, because it could not be stored in time."""
        self._audit.note("credential/withheld", **what(lease), code="unavailable")
        self._store.keep_soon([replace(lease, ended=True)])
        self.revoker.add(lease)

    def take_back(self, intent: Intent) -> None:
        """Revoke whatever has come of an intent by its handle, until the backend says yes."""
        lease = taken_back(intent)
        self._store.keep_soon([lease])
        self.revoker.add(lease)

    def lost(self, intent: Intent) -> None:
        """Revoke what may exist at a backend and nobody knows or, where that cannot be, list it."""
        if intent.handle is not None:
            self.take_back(intent)
        elif intent.gone_by <= self._clock():
            self._store.forget_soon([intent.accessor])
            return
        else:
            self.unknown[intent.accessor] = intent
        self._audit.note(
            "lease/unknown",
            accessor=intent.accessor,
            secret=intent.secret,
            server=intent.server,
            backend=intent.backend,
            uid=intent.uid,
            expires_at=intent.gone_by,
            outcome="listed" if intent.handle is None else "to be given back",
        )

    def watch(self, process: Process, watcher: Watcher) -> None:
        """Tell ``watcher`` of changes to the leases of this process."""
        self._watchers.setdefault(process, set()).add(watcher)

    def unwatch(self, process: Process, watcher: Watcher) -> None:
        """Tell it no more."""
        watchers = self._watchers.get(process, set())
        watchers.discard(watcher)
        if not watchers:
            self._watchers.pop(process, None)

    def watched(self, lease: Lease) -> bool:
        """Return whether anybody would hear that this lease is no longer what it was."""
        return lease.process in self._watchers

    def tell(self, lease: Lease, reason: Reason) -> None:
        """Tell whoever watches for the lease's process that it is no longer what it was."""
        if lease.process is not None:
            for watcher in tuple(self._watchers.get(lease.process, ())):
                watcher(LeaseChanged(accessor=lease.accessor, secret=lease.secret, reason=reason))

    def due(self, now: float) -> list[Renew | Replace]:
        """End what has expired; return what wants to be renewed or replaced."""
        wanted: list[Renew | Replace] = []
        for due in self._leases.due(now):
            match due:
                case Renew() | Replace():
                    wanted.append(due)
                case Expire(lease):
                    self._ended(lease, "lease/expired", "its time was over")
                    # What is over at its source by itself has another value there now.
                    self.tell(lease, "expiring" if lease.gone_by is None else "rotated")
        for accessor, intent in tuple(self.unknown.items()):
            if intent.gone_by <= now:
                del self.unknown[accessor]
                self._store.forget_soon([accessor])
        self.revoker.tick()
        return wanted

    def _process_ended(self, process: Process) -> None:
        for lease in self._leases.ended(process):
            self._ended(lease, "lease/ended", "its process has ended")

    def _ended(self, lease: Lease, event: str, reason: str, **facts: Any) -> None:  # noqa: ANN401 -- audit fields
        self._audit.note(event, **what(lease), reason=reason, **facts)
        self.forget(lease)
        if lease.backend_lease is not None and not self._sharing(lease):
            # Its process may live on, so that after a crash nothing else would tell that it is over.
            self._store.keep_soon([replace(lease, ended=True)])
            self.revoker.add(lease)
        else:
            self._store.forget_soon([lease.accessor])

    def _sharing(self, lease: Lease) -> tuple[Lease, ...]:
        """Return all leases in force that are about what this one is about at its backend."""
        return () if lease.backend_lease is None else self._leases.sharing(lease.backend, lease.backend_lease)

    async def _revoke(self, lease: Lease) -> None:
        assert lease.backend_lease is not None
        async with asyncio.timeout(REVOKE_DEADLINE):
            # One that says that it is gone already is as good as one that says yes.
            with suppress(LeaseGoneError):
                await self._backends[lease.backend].revoke(lease.backend_lease)

    def _revoked(self, lease: Lease, attempts: int) -> None:
        self._audit.note("lease/given-back", **what(lease), count=attempts)
        barred = self._leases.get(lease.accessor)
        if barred is None:
            self._store.forget_soon([lease.accessor])
        else:
            self._store.keep_soon([replace(barred, backend_lease=None)])

    def _not_revoked(self, lease: Lease, attempts: int, kind: str) -> None:
        event = "lease/irrevocable" if attempts >= IRREVOCABLE else "lease/not-given-back"
        self._audit.note(event, **what(lease), count=attempts, code=kind)
