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
from zlib import crc32

from broker.core.model import Lease, Process

RENEW_AFTER: Final = 2 / 3
"""The part of a lease's life after which it is renewed (DESIGN: at two thirds)."""

RETRY_FLOOR: Final = 1.0
"""Seconds between two attempts to renew a lease at least."""

RETRY_CAP: Final = 300.0
"""Seconds between two attempts to renew a lease at most."""

LATE: Final = 30.0
"""Seconds that a lease gets to be renewed in where its time was over before anybody looked: the machine had slept."""


@dataclass(frozen=True, slots=True)
class Renew:
    """This lease's process lives and two thirds of its time are over, or an earlier renewal brought nothing."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class Expire:
    """This lease's time is over. It has left the table."""

    lease: Lease


Due = Renew | Expire


def renewal_at(lease: Lease) -> float:
    """Return when this lease wants attention next: its renewal, or its end where there is none."""
    return lease.expires_at - lease.ttl * (1 - RENEW_AFTER) if _renewable(lease) else lease.expires_at


def _renewable(lease: Lease) -> bool:
    return lease.process is not None and lease.renewable


def _retry_at(lease: Lease, now: float) -> float:
    """
    Return when to try again if the renewal that begins now brings nothing.

    A part of the time that is left, so that the attempts come closer as the end
    does; the part is the lease's own, so that ten thousand leases of a backend
    that was away do not come back to it in one second.
    """
    left = lease.expires_at - now
    if left <= 0:
        return now + LATE
    own = (1 + crc32(lease.accessor.encode()) / 2**32) / 2
    return min(lease.expires_at, now + max(min(left / 3, RETRY_CAP) * own, RETRY_FLOOR))


class LeaseTable:
    """The leases, found by accessor, by process and secret, and by time."""

    def __init__(self) -> None:
        """Begin with none."""
        self._leases: dict[str, Lease] = {}
        self._held: dict[tuple[Process, str], str] = {}
        self._of: dict[Process, dict[str, None]] = {}
        self._barred: dict[tuple[Process, str], int] = {}
        self._counts: dict[int, int] = {}
        self._queue: list[tuple[float, int, str, int]] = []
        """When, a number that says which entry of a lease is the valid one, the lease, and how often it came up."""
        self._turns: dict[str, int] = {}
        self._turn = 0

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

    def find(self, process: Process | None, secret: str, *, server: str | None = None) -> Lease | None:
        """Return the newest lease that this process holds for this secret, of this server, a barred one included."""
        if process is None:
            return None
        accessor = self._held.get((process, secret))
        if accessor is None:
            return None
        newest = self._leases[accessor]
        if server in {None, newest.server}:
            return newest
        held = reversed(self.of(process))
        return next((lease for lease in held if lease.secret == secret and lease.server == server), None)

    def chosen(self, *, server: str | None = None, secret: str | None = None) -> list[Lease]:
        """Return the leases of one server, of one secret, or all of them, oldest first."""
        return [lease for lease in self if server in {None, lease.server} and secret in {None, lease.secret}]

    def count(self, uid: int) -> int:
        """Return how many leases count for this user."""
        return self._counts.get(uid, 0)

    def of(self, process: Process) -> tuple[Lease, ...]:
        """Return all leases of this process, oldest first."""
        return tuple(self._leases[accessor] for accessor in self._of.get(process, ()))

    def barred(self, process: Process, secret: str) -> bool:
        """Return whether an admin has taken this secret from this process."""
        return bool(self._barred) and (process, secret) in self._barred

    def add(self, lease: Lease) -> None:
        """Take in a new lease. The newest of a process for a secret is the one that ``find`` returns."""
        self._leases[lease.accessor] = lease
        self._counts[lease.uid] = self._counts.get(lease.uid, 0) + 1
        if lease.process is not None:
            self._held[lease.process, lease.secret] = lease.accessor
            self._of.setdefault(lease.process, {})[lease.accessor] = None
            if lease.barred:
                self._count_barred(lease.process, lease.secret, 1)
        if not lease.barred:
            self._schedule(lease.accessor, renewal_at(lease))

    def renewed(self, accessor: str, *, now: float, expires_at: float, version: int | None) -> Lease | None:
        """
        Give a lease more time; return it as it is now, or None where it has ended meanwhile.

        It comes up again at two thirds of what it was really given, which may be
        less than was asked for.
        """
        lease = self._leases.get(accessor)
        if lease is None:
            return None
        after = replace(lease, expires_at=expires_at, version=version)
        self._leases[accessor] = after
        if expires_at != lease.expires_at and not after.barred:
            if _renewable(after) and expires_at > now:
                self._schedule(accessor, max(renewal_at(after), now + (expires_at - now) * RENEW_AFTER))
            else:
                self._schedule(accessor, expires_at, attempts=1)
        return after

    def shift(self, by: float) -> tuple[Lease, ...]:
        """
        Move every end by so many seconds, because the clock was set by as many; return the leases as they are now.

        What was promised is a length of time. A clock that was set back would
        make it longer here and not at the backend.
        """
        self._leases = {
            accessor: replace(lease, expires_at=lease.expires_at + by) for accessor, lease in self._leases.items()
        }
        self._queue = [(at + by, turn, accessor, attempts) for at, turn, accessor, attempts in self._queue]
        return tuple(self)

    def bar(self, accessor: str) -> Lease | None:
        """
        Mark a lease as revoked while its process lives; return it as it was.

        It stays in the table so that the process, asking again, is refused:
        a kill switch that the next request undoes is none.
        """
        lease = self._leases.get(accessor)
        if lease is None or lease.barred:
            return lease
        if lease.process is None:
            return self.remove(accessor)
        self._leases[accessor] = replace(lease, barred=True)
        self._count_barred(lease.process, lease.secret, 1)
        self._turns.pop(accessor, None)
        return lease

    def remove(self, accessor: str) -> Lease | None:
        """Let go of a lease; return it, or None where there was none."""
        lease = self._leases.pop(accessor, None)
        if lease is None:
            return None
        self._turns.pop(accessor, None)
        self._counts[lease.uid] -= 1
        if not self._counts[lease.uid]:
            del self._counts[lease.uid]
        if lease.process is not None:
            self._forget(lease, lease.process)
        return lease

    def _forget(self, lease: Lease, process: Process) -> None:
        if lease.barred:
            self._count_barred(process, lease.secret, -1)
        of = self._of[process]
        del of[lease.accessor]
        key = (process, lease.secret)
        if self._held[key] == lease.accessor:
            newest = next((other for other in reversed(of) if self._leases[other].secret == lease.secret), None)
            if newest is None:
                del self._held[key]
            else:
                self._held[key] = newest
        if not of:
            del self._of[process]

    def _count_barred(self, process: Process, secret: str, change: int) -> None:
        key = (process, secret)
        self._barred[key] = self._barred.get(key, 0) + change
        if not self._barred[key]:
            del self._barred[key]

    def ended(self, process: Process) -> tuple[Lease, ...]:
        """Take out all leases of a process that has ended; return them, to be revoked."""
        gone = self.of(process)
        for lease in gone:
            self.remove(lease.accessor)
        return gone

    def due(self, now: float) -> list[Due]:
        """
        Return what has to be done at ``now``, each thing once.

        A lease that is to be renewed stays in the table, and comes up again
        after a while as long as nobody reports a renewal; before its end it has
        come up at least once, however late that was. One that has expired leaves
        the table, and is due for revocation even if the backend has probably
        forgotten it: revoking twice is harmless, forgetting once is not.
        """
        found: list[Due] = []
        while self._queue and self._queue[0][0] <= now:
            _, turn, accessor, attempts = heappop(self._queue)
            if self._turns.get(accessor) != turn:
                continue
            lease = self._leases[accessor]
            if _renewable(lease) and (not attempts or lease.expires_at > now):
                self._schedule(accessor, _retry_at(lease, now), attempts=attempts + 1)
                found.append(Renew(lease))
            else:
                self.remove(accessor)
                found.append(Expire(lease))
        return found

    def _schedule(self, accessor: str, at: float, *, attempts: int = 0) -> None:
        """Have a lease come up, at this time and at no other."""
        self._turn += 1
        self._turns[accessor] = self._turn
        heappush(self._queue, (at, self._turn, accessor, attempts))
