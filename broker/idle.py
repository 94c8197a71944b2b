"""
When a broker that was started because somebody needed it may end: when nobody does.

This module refuses to count anybody out: whatever may still have to be done keeps it.
"""

import time
from collections.abc import Callable
from typing import final

from broker.running import Running


def needed(running: Running) -> bool:
    """Return whether somebody is connected, something is out or to be given back, or something is due by itself."""
    return bool(
        any(running.connections.values())
        or len(running.leases)
        or len(running.endings.revoker)
        or running.rotations.targets
        or running.rotations.tasks
        # What was refused is kept in memory for a day, for who looks why their client shows nothing.
        or running.refusals.latest()
        or running.audit.state().waiting
    )


@final
class Idle:
    """Counts the seconds in which nobody needs the broker."""

    def __init__(self, running: Running, seconds: float, end: Callable[[], None]) -> None:
        """Call ``end`` after so many seconds in a row."""
        self._running = running
        self._seconds = seconds
        self._end = end
        self._since = time.monotonic()

    def tick(self, _: float) -> None:
        """Look. Called each second."""
        if needed(self._running):
            self._since = time.monotonic()
        elif time.monotonic() - self._since >= self._seconds:
            self._since = time.monotonic()
            self._end()
