"""
Giving back what a backend can revoke, until it is given back.

Revocation waits for nobody and is never dropped: an attempt that fails is made
again after a while that grows, with jitter, has a floor and a cap. Each backend
has attempts of its own, so that one that hangs holds up no other. The lease's
row stays in the store until the backend has said yes, so that a crash only
means that it is asked once more.
"""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from typing import Final

from broker.core.model import Lease

FLOOR: Final = 1.0
"""Seconds before the second attempt."""

CAP: Final = 300.0
"""Seconds between two attempts at most."""

AT_ONCE: Final = 8
"""Attempts under way at the same time at one backend."""


@dataclass(slots=True)
class _Pending:
    lease: Lease
    attempts: int = 0


@dataclass(slots=True)
class _Line:
    """What is to be given back at one backend now, in the order it came, and how much of it is under way."""

    waiting: deque[_Pending] = field(default_factory=deque)
    under_way: int = 0


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
        self._lines: dict[str, _Line] = {}
        self._later: list[tuple[float, int, _Pending]] = []
        self._order = count()
        self._tasks: set[asyncio.Task[None]] = set()
        self._now = 0.0
        self._settling = False

    def __len__(self) -> int:
        """Return how many are not given back yet."""
        return len(self._pending)

    def add(self, lease: Lease) -> None:
        """Take on a lease to give back, and begin if its backend has an attempt to spare."""
        if lease.accessor not in self._pending:
            pending = self._pending[lease.accessor] = _Pending(lease)
            line = self._lines.setdefault(lease.backend, _Line())
            line.waiting.append(pending)
            self._begin(line)

    def stuck(self, attempts: int = 6) -> list[Lease]:
        """Return those that have failed so often that a person should look."""
        return [each.lease for each in self._pending.values() if each.attempts >= attempts]

    def tick(self, now: float) -> None:
        """Begin the attempts that are due again, as many as each backend has to spare; others begin as those end."""
        self._now = now
        while self._later and self._later[0][0] <= now:
            _, _, pending = heappop(self._later)
            line = self._lines[pending.lease.backend]
            line.waiting.append(pending)
            self._begin(line)

    async def settle(self, deadline: float, *, everything: bool = False) -> None:
        """Wait for what is under way, or for ``everything`` that has not failed, ``deadline`` seconds at most."""
        self._settling = not everything
        try:
            async with asyncio.timeout(deadline):
                while self._tasks:
                    await asyncio.wait(tuple(self._tasks))
        except TimeoutError:
            self._settling = True
            for task in tuple(self._tasks):
                task.cancel()

    def _begin(self, line: _Line) -> None:
        while line.waiting and line.under_way < AT_ONCE and not self._settling:
            line.under_way += 1
            task = asyncio.create_task(self._attempt(line, line.waiting.popleft()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _attempt(self, line: _Line, pending: _Pending) -> None:
        pending.attempts += 1
        try:
            await self._revoke(pending.lease)
        except Exception as error:  # noqa: BLE001 -- whatever a backend raises, the next attempt comes
            if pending.attempts == 1:
                self._failed(pending.lease, pending.attempts, type(error).__name__)
            wait = wait_before(pending.attempts, jitter=random.random())  # noqa: S311 -- jitter
            heappush(self._later, (self._now + wait, next(self._order), pending))
        else:
            del self._pending[pending.lease.accessor]
            self._done(pending.lease, pending.attempts)
        finally:
            line.under_way -= 1
            self._begin(line)
