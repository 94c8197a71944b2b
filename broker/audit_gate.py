"""
Holds back the news that a record is written until those have it, too, who must.

The log's own file comes first, always: what arrives here is on the disk. This
module refuses to let a release wait for longer than the config says: it is
refused then, and so is every other until the sink takes records again.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import final

from broker.errors import AuditError


@final
class Gate:
    """Where records wait for the sinks that are required. Belongs to the event loop."""

    def __init__(self, names: Iterable[str], *, within: float) -> None:
        """
        Wait for the sinks with these names.

        Args:
            names: of the sinks that are required.
            within: seconds that a record may wait.

        """
        self._has = dict.fromkeys(names, 0)
        self._within = within
        self._waiting: deque[tuple[int, asyncio.Future[int], float]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.trouble = ""
        """Why nothing can pass now; empty where something can."""

    def hold(self, number: int, future: "asyncio.Future[int]") -> None:
        """Let ``future`` know of record ``number`` when every sink has it; in the order of the records."""
        if number <= min(self._has.values()):
            future.set_result(number)
            return
        loop = asyncio.get_running_loop()
        self._waiting.append((number, future, loop.time() + self._within))
        if self._timer is None:
            self._timer = loop.call_later(self._within, self._late)

    def took(self, name: str, number: int) -> None:
        """Know that a sink has all records up to this one."""
        if name not in self._has:
            return
        self._has[name] = max(number, self._has[name])
        low = min(self._has.values())
        while self._waiting and self._waiting[0][0] <= low:
            reached, future, _ = self._waiting.popleft()
            if not future.done():
                future.set_result(reached)
        if not self._waiting:
            self.trouble = ""

    def refuse(self, refusal: Callable[[], AuditError]) -> None:
        """Refuse all who wait: the log itself has failed, or ends."""
        while self._waiting:
            _, future, _ = self._waiting.popleft()
            if not future.done():
                future.set_exception(refusal())

    def _late(self) -> None:
        """Refuse those whose time is over, and whoever comes next."""
        loop, self._timer = asyncio.get_running_loop(), None
        now = loop.time()
        slow = ", ".join(name for name, number in self._has.items() if number == min(self._has.values()))
        while self._waiting and self._waiting[0][2] <= now:
            _, future, _ = self._waiting.popleft()
            self.trouble = f"{slow} has not taken a record for {self._within:g} s, and is required"
            if not future.done():
                future.set_exception(AuditError(f"audit log: {self.trouble}", hint="mcp-broker status"))
        if self._waiting:
            self._timer = loop.call_later(max(0.001, self._waiting[0][2] - now), self._late)
