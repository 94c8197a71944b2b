"""
Giving back what a backend can revoke, until it is given back.

Revocation waits for nobody and is never dropped: an attempt that fails is made
again after a while that grows, with jitter, has a floor and a cap. The lease's
row stays in the store until the backend has said yes, so that a crash only
means that it is asked once more.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from broker.core.model import Lease

FLOOR: Final = 1.0
"""Seconds before the second attempt."""

CAP: Final = 300.0
"""Seconds between two attempts at most."""

AT_ONCE: Final = 8
"""Attempts under way at the same time, over all backends."""


@dataclass(slots=True)
class _Pending:
    lease: Lease
    attempts: int = 0
    next_at: float = 0.0
    under_way: bool = False


def wait_before(attempts: int, *, jitter: float) -> float:
    """Return the seconds to wait after so many failed attempts; ``jitter`` is between 0 and 1."""
    span = min(CAP, FLOOR * 2.0 ** min(attempts - 1, 32))
    return max(FLOOR, span * (0.5 + jitter / 2))


class Revoker:
    """The leases that have ended here and not yet at their backend."""

    def __init__(
        self,
        revoke: Callable[[Lease], Awaitable[None]],
        done: Callable[[Lease, int], None],
        failed: Callable[[Lease, int, str], None],
    ) -> None:
        """
        Keep what to call.

        Args:
            revoke: asks the backend; raises where it did not work.
            done: told once, with the number of attempts.
            failed: told of the first failure of each lease, with the kind of error.

        """
        self._revoke = revoke
        self._done = done
        self._failed = failed
        self._pending: dict[str, _Pending] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """Return how many are not given back yet."""
        return len(self._pending)

    def add(self, lease: Lease) -> None:
        """Take on a lease to give back; ``tick`` begins."""
        self._pending.setdefault(lease.accessor, _Pending(lease))

    def stuck(self, attempts: int = 6) -> list[Lease]:
        """Return those that have failed so often that a person should look."""
        return [each.lease for each in self._pending.values() if each.attempts >= attempts]

    def tick(self, now: float) -> None:
        """Begin the attempts that are due, as many as may be under way."""
        for pending in tuple(self._pending.values()):
            if len(self._tasks) >= AT_ONCE:
                return
            if not pending.under_way and pending.next_at <= now:
                pending.under_way = True
                task = asyncio.create_task(self._attempt(pending, now))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def settle(self, deadline: float) -> None:
        """Wait for what is under way, ``deadline`` seconds at most."""
        if self._tasks:
            await asyncio.wait(tuple(self._tasks), timeout=deadline)
        for task in tuple(self._tasks):
            task.cancel()

    async def _attempt(self, pending: _Pending, now: float) -> None:
        pending.attempts += 1
        try:
            await self._revoke(pending.lease)
        except Exception as error:  # noqa: BLE001 -- whatever a backend raises, the next attempt comes
            if pending.attempts == 1:
                self._failed(pending.lease, pending.attempts, type(error).__name__)
            pending.next_at = now + wait_before(pending.attempts, jitter=random.random())  # noqa: S311 -- jitter
        else:
            self._pending.pop(pending.lease.accessor, None)
            self._done(pending.lease, pending.attempts)
        finally:
            pending.under_way = False
