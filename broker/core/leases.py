"""
Every lease there is, whose it is, and what is due.

The table changes its own state and returns what has to be done; the service
does it. A lease belongs to a process and lives as long as that process: time
alone ends only those that hang on no process, and those that could not be
renewed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from typing import Final

from broker.core.model import Lease, Process

RENEW_AFTER: Final = 2 / 3
"""The part of a lease's life after which it is renewed (DESIGN: at two thirds)."""


@dataclass(frozen=True, slots=True)
class Renew:
    """This lease's process lives and two thirds of its time are over."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class Expire:
    """This lease's time is over. It has left the table."""

    lease: Lease


Due = Renew | Expire


def renewal_at(lease: Lease) -> float:
    """Return when this lease wants attention next: its renewal, or its end where there is none."""
    if lease.process is not None and lease.renewable:
        return lease.expires_at - lease.ttl * (1 - RENEW_AFTER)
    return lease.expires_at


class LeaseTable:
    """The leases, found by accessor, by process and secret, and by time."""

    def __init__(self) -> None:
        """Begin with none."""
        self._leases: dict[str, Lease] = {}
        self._held: dict[tuple[Process, str], str] = {}
        self._of: dict[Process, set[str]] = {}
        self._counts: dict[int, int] = {}
        self._queue: list[tuple[float, str]] = []

    def __len__(self) -> int:
        """Return how many there are, barred ones included."""
        return len(self._leases)

    def __iter__(self) -> Iterator[Lease]:
        """Go over all of them, oldest first."""
        return iter(tuple(self._leases.values()))

    @property
    def processes(self) -> int:
        """Return how many processes hold a lease."""
        return len(self._of)

    def get(self, accessor: str) -> Lease | None:
        """Return the lease with this accessor."""
        return self._leases.get(accessor)

    def find(self, process: Process | None, secret: str) -> Lease | None:
        """Return the lease that this process already holds for this secret, a barred one included."""
        if process is None:
            return None
        accessor = self._held.get((process, secret))
        return None if accessor is None else self._leases[accessor]

    def count(self, uid: int) -> int:
        """Return how many leases count for this user."""
        return self._counts.get(uid, 0)

    def of(self, process: Process) -> tuple[Lease, ...]:
        """Return all leases of this process."""
        return tuple(self._leases[accessor] for accessor in sorted(self._of.get(process, ())))

    def add(self, lease: Lease) -> None:
        """Take in a new lease. The newest of a process for a secret is the one that ``find`` returns."""
        self._leases[lease.accessor] = lease
        self._counts[lease.uid] = self._counts.get(lease.uid, 0) + 1
        if lease.process is not None:
            self._held[lease.process, lease.secret] = lease.accessor
            self._of.setdefault(lease.process, set()).add(lease.accessor)
        self._schedule(lease)

    def renewed(self, accessor: str, *, expires_at: float, version: int | None) -> Lease | None:
        """Give a lease more time; return it as it is now, or None where it has ended meanwhile."""
        lease = self._leases.get(accessor)
        if lease is None:
            return None
        after = replace(lease, expires_at=expires_at, version=version)
        self._leases[accessor] = after
        if expires_at != lease.expires_at:
            self._schedule(after)
        return after

    def bar(self, accessor: str) -> Lease | None:
        """
        Mark a lease as revoked while its process lives; return it as it was.

        It stays in the table so that the process, asking again, is refused:
        a kill switch that the next request undoes is none.
        """
        lease = self._leases.get(accessor)
        if lease is not None and lease.process is not None:
            self._leases[accessor] = replace(lease, barred=True)
        elif lease is not None:
            self.remove(accessor)
        return lease

    def remove(self, accessor: str) -> Lease | None:
        """Let go of a lease; return it, or None where there was none."""
        lease = self._leases.pop(accessor, None)
        if lease is None:
            return None
        self._counts[lease.uid] -= 1
        if not self._counts[lease.uid]:
            del self._counts[lease.uid]
        if lease.process is not None:
            self._forget(lease, lease.process)
        return lease

    def _forget(self, lease: Lease, process: Process) -> None:
        if self._held.get((process, lease.secret)) == lease.accessor:
            del self._held[process, lease.secret]
        of = self._of[process]
        of.discard(lease.accessor)
        if not of:
            del self._of[process]

    def ended(self, process: Process) -> tuple[Lease, ...]:
        """Take out all leases of a process that has ended; return them, to be revoked."""
        gone = self.of(process)
        for lease in gone:
            self.remove(lease.accessor)
        return gone

    def due(self, now: float) -> list[Due]:
        """
        Return what has to be done at ``now``, each thing once.

        A lease that is to be renewed stays in the table and comes up again at
        its end if nobody reports a renewal. One that has expired leaves it, and
        is due for revocation even if the backend has probably forgotten it:
        revoking twice is harmless, forgetting once is not.
        """
        found: list[Due] = []
        while self._queue and self._queue[0][0] <= now:
            at, accessor = heappop(self._queue)
            lease = self._leases.get(accessor)
            if lease is None or lease.barred or at not in {renewal_at(lease), lease.expires_at}:
                continue
            if lease.expires_at <= now:
                self.remove(accessor)
                found.append(Expire(lease))
            else:
                heappush(self._queue, (lease.expires_at, accessor))
                found.append(Renew(lease))
        return found

    def next_due(self) -> float | None:
        """Return when ``due`` may have something to say, or None for never."""
        return self._queue[0][0] if self._queue else None

    def _schedule(self, lease: Lease) -> None:
        if not lease.barred:
            heappush(self._queue, (renewal_at(lease), lease.accessor))
