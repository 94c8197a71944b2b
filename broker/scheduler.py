"""
What happens by itself: renewals, expiries, counts, sweeps, health.

Once a second it asks each part what is due at the time it is, and does it. The
wall clock says what is due and the monotonic one how long to wait, so that
neither a suspended machine nor a clock that was set makes it miss anything.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

from broker.config import SecretConfig
from broker.core.leases import Renew, Replace, replaceable
from broker.core.model import Lease
from broker.core.policy import Ask, Refused, decide
from broker.errors import BrokerError
from broker.records import what
from broker.running import Running

_log: Final = logging.getLogger("mcp_broker.scheduler")

TICK: Final = 1.0
"""Seconds between two looks at what is due."""

SET_BACK: Final = 2.0
"""Seconds by which the wall clock falls behind in a tick before that is taken for a clock that was set."""

RENEWALS_AT_ONCE: Final = 8
"""Renewals under way at the same time at one backend; one that hangs holds up no other."""


class Scheduler:
    """Drives the parts of a running broker by time."""

    def __init__(
        self,
        running: Running,
        *,
        each_tick: Sequence[Callable[[float], None]] = (),
        sweeps: Sequence[Callable[[float], None]] = (),
    ) -> None:
        """Take the parts; each second ``each_tick`` is called with the wall time, ``sweeps`` with the monotonic."""
        self._running = running
        self._sweeps = sweeps
        self._each_tick = each_tick
        self._offset = running.clock() - time.monotonic()
        self._renewals: dict[str, asyncio.Semaphore] = {}
        self._renewing: set[str] = set()
        self._in_trouble: set[str] = set()
        """Leases whose failed renewal is on record already; it is tried again often, and recorded once."""

    async def run(self) -> None:
        """Tick until cancelled. A part that fails is logged and does not stop the others."""
        async with asyncio.TaskGroup() as group:
            while True:
                for due in self._tick():
                    name = _name(due.lease)
                    if name not in self._renewing:
                        self._renewing.add(name)
                        group.create_task(self._renew(due, name))
                await asyncio.sleep(TICK)

    def _tick(self) -> list[Renew | Replace]:
        running, now = self._running, self._running.clock()
        self._mind_the_clock(now)
        wanted: list[Renew | Replace] = []
        for part in (running.refusals.tick, *self._each_tick):
            self._safely(part, now)
        for part in self._sweeps:
            self._safely(part, time.monotonic())
        try:
            wanted = running.endings.due(now)
            self._in_trouble = {each for each in self._in_trouble if running.leases.get(each) is not None}
        except Exception as error:  # noqa: BLE001 -- the next tick must come
            _log.error("what is due could not be done: %s", type(error).__name__)
        return wanted

    def _mind_the_clock(self, now: float) -> None:
        """
        Notice a wall clock that was set back, and move what hangs on it along.

        One that was set forward, or ran on while the machine slept, needs
        nothing: what is due then is done.
        """
        offset = now - time.monotonic()
        if self._offset - offset > SET_BACK:
            self._running.endings.clock_moved(offset - self._offset)
        self._offset = offset

    def _safely(self, part: Callable[[float], None], now: float) -> None:
        try:
            part(now)
        except Exception as error:  # noqa: BLE001 -- see _tick
            _log.error("%s failed: %s", getattr(part, "__qualname__", "a part"), type(error).__name__)

    async def _renew(self, due: Renew | Replace, name: str) -> None:
        try:
            async with self._renewals.setdefault(due.lease.backend, asyncio.Semaphore(RENEWALS_AT_ONCE)):
                await self._prolong(due)
        except Exception as error:  # noqa: BLE001 -- one lease must not end the renewal of all others
            _log.error("a lease could not be renewed: %s", type(error).__name__)
        finally:
            self._renewing.discard(name)

    async def _prolong(self, due: Renew | Replace) -> None:
        """Renew or replace a lease whose process lives, as long as the config still grants it."""
        running, service = self._running, self._running.service
        # While it waited for its turn it may have ended, or have been renewed along with another.
        lease = running.leases.get(due.lease.accessor)
        if lease is None or lease.barred or lease.expires_at > due.lease.expires_at:
            return
        if isinstance(decide(service.policy, lease.holds, Ask(server=lease.server, secret=lease.secret)), Refused):
            if lease.expires_at <= running.clock():
                # However late it was looked at: nothing will renew it.
                running.endings.end(lease, "lease/expired", "its time was over")
                running.endings.tell(lease, "expiring")
            return
        secret = service.config.secret(lease.secret)
        try:
            if lease.renewable:
                await self._more_time(lease, secret, last=isinstance(due, Replace))
            elif running.endings.watched(lease):
                # For nobody who hears of it nothing is minted: it would live in vain.
                await service.renewals.replace(lease, secret)
        except BrokerError as error:
            if running.leases.get(lease.accessor) is not None and lease.accessor not in self._in_trouble:
                self._in_trouble.add(lease.accessor)
                running.audit.note("lease/not-renewed", **what(lease), code=error.code)
                running.endings.tell(lease, "expiring")
        else:
            self._in_trouble.discard(lease.accessor)

    async def _more_time(self, lease: Lease, secret: SecretConfig, *, last: bool) -> None:
        """Renew a lease; where that fails and little time is left, replace it for who hears of it."""
        running, renewals = self._running, self._running.service.renewals
        try:
            renewed = await renewals.prolong(lease, min(lease.ttl, secret.ttl))
        except BrokerError:
            if not last or running.leases.get(lease.accessor) is None or not running.endings.watched(lease):
                raise
            await renewals.replace(lease, secret)
        else:
            running.audit.note("lease/renewed", **what(renewed))
            if replaceable(renewed, running.clock()) and running.endings.watched(renewed):
                await renewals.replace(renewed, secret)


def _name(lease: Lease) -> str:
    """Return what is renewed at once: leases that are about one thing at a backend are renewed together."""
    return lease.accessor if lease.backend_lease is None else f"{lease.backend} {lease.backend_lease}"
