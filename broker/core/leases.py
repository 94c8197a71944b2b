"""
Every lease there is, whose it is, and what is due.

The table changes its own state and returns what has to be done; the service
does it. A lease belongs to a process and lives as long as that process: time
alone ends only those that hang on no process, and those that could not be
renewed. What can be renewed no further is to be replaced before its end.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from typing import Final
from zlib import crc32

from broker.core.model import Lease, Process

RENEW_AFTER: Final = 2 / 3
"""The part of a lease's life after which it is renewed, a third of its grace later."""

RETRY_FLOOR: Final = 1.0
"""Seconds between two attempts to renew a lease at least."""

RETRY_CAP: Final = 300.0
"""Seconds between two attempts to renew a lease at most."""

GRACE: Final = (0.1, 0.2)
"""
The part of a lease's length, between these two, that is left when it is replaced instead of renewed.

Which part is the lease's own, so that those that were made together are not replaced together.
"""

LEAST_GRACE: Final = 3.0
"""Seconds that are left then at least, or a third of the length of a very short one: a replacement takes its time."""

LEAST_TIME: Final = 2.0
"""Seconds that are left for a renewal at least, where a third of the length is as much: what is due is seen later."""

MUCH: Final = 0.9
"""The part of the time that was asked for below which a renewal has given much less."""

GROWTH: Final = 0.2
"""The part of a lease's length by which a renewal has to move its end, or it grows no more."""

LATE: Final = 30.0
"""Seconds that a lease gets to be renewed in where its time was over before anybody looked: the machine had slept."""


@dataclass(frozen=True, slots=True)
class Renew:
    """This lease's process lives and most of its time is over, or an earlier renewal brought nothing."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class Replace:
    """This lease's process lives, little of its time is left, and it cannot be renewed, or that has failed so far."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class Expire:
    """This lease's time is over. It has left the table."""

    lease: Lease


Due = Renew | Replace | Expire


def renewal_at(lease: Lease) -> float:
    """Return when this lease wants attention next: its renewal, its replacement, or its end where there is neither."""
    if lease.process is None:
        return lease.expires_at
    if not lease.renewable:
        return replacement_at(lease)
    left = lease.ttl * (1 - RENEW_AFTER)
    return lease.expires_at - left + min(_grace(lease) / 3, max(0.0, left - LEAST_TIME))


def replacement_at(lease: Lease) -> float:
    """Return from when on another credential is better than this one, if it has not been renewed by then."""
    return lease.expires_at - max(_grace(lease), min(LEAST_GRACE, lease.ttl * (1 - RENEW_AFTER)))


def replaceable(lease: Lease, now: float) -> bool:
    """Return whether who asks again is better served with another credential: this one ends soon, for good."""
    return not lease.renewable and lease.process is not None and replacement_at(lease) <= now


def grows(lease: Lease, *, now: float, expires_at: float, asked: float) -> bool:
    """
    Return whether a lease that was renewed to ``expires_at`` can be expected to be renewed again.

    At the end of what a source allows, a renewal gives less than was asked for
    and the end stays where it was. Whoever goes on renewing then asks ever more
    often for ever less.
    """
    if lease.gone_by is not None and expires_at >= lease.gone_by:
        return False
    return expires_at - now >= asked * MUCH or expires_at - lease.expires_at >= lease.ttl * GROWTH


def _grace(lease: Lease) -> float:
    least, most = GRACE
    return lease.ttl * (least + (most - least) * _own(lease))


def _own(lease: Lease) -> float:
    """Return a number between 0 and 1 that is always the same for one lease, and another for each."""
    return crc32(lease.accessor.encode()) / 2**32


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
    own = (1 + _own(lease)) / 2
    return min(lease.expires_at, now + max(min(left / 3, RETRY_CAP) * own, RETRY_FLOOR))


class LeaseTable:
    """The leases, found by accessor, by process and secret, and by time."""

    def __init__(self) -> None:
        """Begin with none."""
        self._leases: dict[str, Lease] = {}
        self._held: dict[tuple[Process, str], str] = {}
        self._of: dict[Process, dict[str, None]] = {}
        self._barred: dict[tuple[Process, str], int] = {}
        """How many leases bar a process from a secret, or from all of a server: no secret's name has a colon in it."""
        self._sharing: dict[tuple[str, str], dict[str, None]] = {}
        """The leases that are about one and the same thing at a backend; barred ones are not."""
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

    def barred(self, process: Process, secret: str, server: str) -> bool:
        """Return whether an admin has taken this secret, or all of this server, from this process."""
        return bool(self._barred) and ((process, secret) in self._barred or (process, f":{server}") in self._barred)

    def sharing(self, backend: str, backend_lease: str) -> tuple[Lease, ...]:
        """Return the leases that are in force and about this one thing at this backend, oldest first."""
        return tuple(self._leases[accessor] for accessor in self._sharing.get((backend, backend_lease), ()))

    def add(self, lease: Lease) -> None:
        """Take in a new lease. The newest of a process for a secret is the one that ``find`` returns."""
        self._leases[lease.accessor] = lease
        self._counts[lease.uid] = self._counts.get(lease.uid, 0) + 1
        if lease.process is not None:
            self._held[lease.process, lease.secret] = lease.accessor
            self._of.setdefault(lease.process, {})[lease.accessor] = None
            if lease.barred:
                self._count_barred(lease, lease.process, 1)
        if not lease.barred:
            self._schedule(lease.accessor, renewal_at(lease))
            if lease.backend_lease is not None:
                self._sharing.setdefault((lease.backend, lease.backend_lease), {})[lease.accessor] = None

    def renewed(
        self, accessor: str, *, now: float, expires_at: float, version: int | None, asked: float | None = None
    ) -> Lease | None:
        """
        Give a lease more time; return it as it is now, or None where it has ended meanwhile.

        It comes up again at two thirds of what it was really given, which may be
        less than the seconds that were ``asked`` for. Where it grows no more it
        cannot be renewed from now on, and comes up to be replaced.
        """
        lease = self._leases.get(accessor)
        if lease is None:
            return None
        last = asked is not None and not grows(lease, now=now, expires_at=expires_at, asked=asked)
        after = replace(lease, expires_at=expires_at, version=version, renewable=lease.renewable and not last)
        self._leases[accessor] = after
        if after.barred or (expires_at == lease.expires_at and after.renewable == lease.renewable):
            return after
        if after.process is not None and after.renewable and expires_at > now:
            self._schedule(accessor, max(renewal_at(after), now + (expires_at - now) * RENEW_AFTER))
        else:
            self._schedule(accessor, min(max(renewal_at(after), now), expires_at), attempts=1)
        return after

    def shift(self, by: float) -> tuple[Lease, ...]:
        """
        Move every end by so many seconds, because the clock was set by as many; return the leases as they are now.

        What was promised is a length of time. A clock that was set back would
        make it longer here and not at the backend.
        """
        self._leases = {accessor: _moved(lease, by) for accessor, lease in self._leases.items()}
        self._queue = [(at + by, turn, accessor, attempts) for at, turn, accessor, attempts in self._queue]
        return tuple(self)

    def bar(self, accessor: str, *, killed: bool = False) -> Lease | None:
        """
        Mark a lease as revoked while its process lives; return it as it was.

        It stays in the table so that the process, asking again, is refused:
        a kill switch that the next request undoes is none. Where its whole
        server was ``killed``, the process is refused all that is that server's.
        """
        lease = self._leases.get(accessor)
        if lease is None or lease.barred:
            return lease
        if lease.process is None:
            return self.remove(accessor)
        barred = self._leases[accessor] = replace(lease, barred=True, killed=killed)
        self._count_barred(barred, lease.process, 1)
        self._turns.pop(accessor, None)
        self._share_no_more(lease)
        return lease

    def remove(self, accessor: str) -> Lease | None:
        """Let go of a lease; return it, or None where there was none."""
        lease = self._leases.pop(accessor, None)
        if lease is None:
            return None
        self._turns.pop(accessor, None)
        self._share_no_more(lease)
        self._counts[lease.uid] -= 1
        if not self._counts[lease.uid]:
            del self._counts[lease.uid]
        if lease.process is not None:
            self._forget(lease, lease.process)
        return lease

    def _forget(self, lease: Lease, process: Process) -> None:
        if lease.barred:
            self._count_barred(lease, process, -1)
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

    def _count_barred(self, lease: Lease, process: Process, change: int) -> None:
        for name in (lease.secret, f":{lease.server}") if lease.killed else (lease.secret,):
            key = (process, name)
            self._barred[key] = self._barred.get(key, 0) + change
            if not self._barred[key]:
                del self._barred[key]

    def _share_no_more(self, lease: Lease) -> None:
        if lease.backend_lease is None:
            return
        key = (lease.backend, lease.backend_lease)
        sharing = self._sharing.get(key, {})
        sharing.pop(lease.accessor, None)
        if not sharing:
            self._sharing.pop(key, None)

    def ended(self, process: Process) -> tuple[Lease, ...]:
        """Take out all leases of a process that has ended; return them, to be revoked."""
        gone = self.of(process)
        for lease in gone:
            self.remove(lease.accessor)
        return gone

    def due(self, now: float) -> list[Due]:
        """
        Return what has to be done at ``now``, each thing once.

        A lease that is to be renewed or replaced stays in the table, and comes
        up again after a while as long as nobody reports a renewal; before its end
        one that can be renewed has come up at least once, however late that was.
        One that has expired leaves the table, and is due for revocation even if
        the backend has probably forgotten it: revoking twice is harmless,
        forgetting once is not.
        """
        found: list[Due] = []
        while self._queue and self._queue[0][0] <= now:
            _, turn, accessor, attempts = heappop(self._queue)
            if self._turns.get(accessor) != turn:
                continue
            lease = self._leases[accessor]
            first = lease.renewable and not attempts
            if lease.process is None or (lease.expires_at <= now and not first):
                self.remove(accessor)
                found.append(Expire(lease))
                continue
            self._schedule(accessor, _retry_at(lease, now), attempts=attempts + 1)
            again = lease.renewable and now < replacement_at(lease)
            found.append(Renew(lease) if first or again else Replace(lease))
        return found

    def _schedule(self, accessor: str, at: float, *, attempts: int = 0) -> None:
        """Have a lease come up, at this time and at no other."""
        self._turn += 1
        self._turns[accessor] = self._turn
        heappush(self._queue, (at, self._turn, accessor, attempts))


def _moved(lease: Lease, by: float) -> Lease:
    gone_by = None if lease.gone_by is None else lease.gone_by + by
    return replace(lease, expires_at=lease.expires_at + by, gone_by=gone_by)
