"""
Giving back what a backend can revoke, until it is given back.

Revocation waits for nobody and is never dropped: an attempt that fails is made
again after a while that grows, with jitter, has a floor and a cap. What has
failed often is called irrevocable, so that a person looks at it, and tried all
the same. Each backend has attempts of its own, so that one that hangs holds up
no other, and leases that are about one and the same thing there are given back
together. The lease's row stays in the store until the backend has said yes, so
that a crash only means that it is asked once more.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from typing import Final

from broker.core.model import Lease

FLOOR: Final = 1.0
"""Seconds before the second attempt."""

CAP: Final = 300.0
"""Seconds between two attempts at most."""

GROWTH: Final = 4.0
"""How many times as long as before each further attempt is waited for."""

IRREVOCABLE: Final = 6
"""Attempts that have failed before a person should look: three minutes to six after the first."""

AT_ONCE: Final = 8
"""Attempts under way at the same time at one backend."""


@dataclass(slots=True)
class Pending:
    """
    What is to be given back.

    Attributes:
        leases: those that are about it, the first one first.
        attempts: how often that was tried.
        since: when it failed first, in Unix seconds; None before that.
        error: the kind of the error that came last.

    """

    leases: list[Lease]
    attempts: int = 0
    since: float | None = None
    error: str = ""

    @property
    def irrevocable(self) -> bool:
        """Return whether it has failed so often that a person should look."""
        return self.attempts >= IRREVOCABLE and self.since is not None


@dataclass(slots=True)
class _Line:
    """What is to be given back at one backend now, in the order it came, and how much of it is under way."""

    waiting: deque[Pending] = field(default_factory=deque)
    under_way: int = 0


def wait_before(attempts: int, *, jitter: float) -> float:
    """Return the seconds to wait after so many failed attempts; ``jitter`` is between 0 and 1."""
    span = min(CAP, FLOOR * GROWTH ** min(attempts - 1, 16))
    return max(FLOOR, span * (0.5 + jitter / 2))


class Revoker:
    """The leases that have ended here and not yet at their backend."""

    def __init__(
        self,
        revoke: Callable[[Lease], Awaitable[None]],
        done: Callable[[Lease, int], None],
        failed: Callable[[Lease, int, str], None],
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Keep what to call.

        Args:
            revoke: asks the backend; raises where it did not work.
            done: told of each lease once, with the number of attempts.
            failed: told of the first failure and of that which makes it irrevocable, with the kind of error.
            clock: the wall clock, by which a failure is dated.
            monotonic: the clock by which is waited.

        """
        self._revoke = revoke
        self._done = done
        self._failed = failed
        self._clock = clock
        self._monotonic = monotonic
        self._pending: dict[tuple[str, str], Pending] = {}
        self._lines: dict[str, _Line] = {}
        self._later: list[tuple[float, int, Pending]] = []
        self._order = count()
        self._tasks: set[asyncio.Task[None]] = set()
        self._settling = False

    def __len__(self) -> int:
        """Return how many are not given back yet."""
        return len(self._pending)

    def __iter__(self) -> Iterator[Pending]:
        """Go over what is not given back yet, oldest first."""
        return iter(tuple(self._pending.values()))

    def add(self, lease: Lease) -> None:
        """Take on a lease to give back, and begin if its backend has an attempt to spare."""
        assert lease.backend_lease is not None
        key = (lease.backend, lease.backend_lease)
        if key not in self._pending:
            pending = self._pending[key] = Pending([lease])
            line = self._lines.setdefault(lease.backend, _Line())
            line.waiting.append(pending)
            self._begin(line)
        elif all(each.accessor != lease.accessor for each in self._pending[key].leases):
            self._pending[key].leases.append(lease)

    def irrevocable(self) -> list[Pending]:
        """Return those that have failed so often that a person should look."""
        return [each for each in self if each.irrevocable]

    def tick(self) -> None:
        """Begin the attempts that are due again, as many as each backend has to spare; others begin as those end."""
        now = self._monotonic()
        while self._later and self._later[0][0] <= now:
            _, _, pending = heappop(self._later)
            line = self._lines[pending.leases[0].backend]
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

    async def _attempt(self, line: _Line, pending: Pending) -> None:
        lease = pending.leases[0]
        pending.attempts += 1
        try:
            await self._revoke(lease)
        except Exception as error:  # noqa: BLE001 -- whatever a backend raises, the next attempt comes
            pending.error = type(error).__name__
            pending.since = pending.since or self._clock()
            if pending.attempts in {1, IRREVOCABLE}:
                self._failed(lease, pending.attempts, pending.error)
            wait = wait_before(pending.attempts, jitter=random.random())  # noqa: S311 -- jitter
            heappush(self._later, (self._monotonic() + wait, next(self._order), pending))
        else:
            del self._pending[lease.backend, lease.backend_lease or ""]
            for each in pending.leases:
                self._done(each, pending.attempts)
        finally:
            line.under_way -= 1
            self._begin(line)
