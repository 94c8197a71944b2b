"""
Looks for what needs a person and tells that person: what others only show to whoever asks.

It refuses to mend anything. What goes on being wrong is told again after a
while, by the pace of ``broker.core.alarms``.
"""

from typing import Final, final

from backends.base import AlarmingBackend
from broker.rotation.shown import shown
from broker.running import Running

EVERY: Final = 5.0
"""Seconds between two looks."""


@final
class Watch:
    """Looks at one broker, once in a while."""

    def __init__(self, running: Running) -> None:
        """Look at nothing yet."""
        self._running = running
        self._next = 0.0

    def tick(self, now: float) -> None:
        """Look, if it is time to."""
        if now < self._next <= now + 2 * EVERY:
            return
        self._next = now + EVERY
        self._look_at_rotations(now)
        self._look_at_the_log()
        for name, backend in self._running.backends.items():
            if isinstance(backend, AlarmingBackend) and backend.alarm is not None:
                self._running.alarms.tell("backend-alarm", f"backend {name}: {backend.alarm}", backend=name)

    def _look_at_rotations(self, now: float) -> None:
        tell = self._running.alarms.tell
        for row in shown(self._running.rotations, now):
            if row.error is not None:
                tell("rotation-failed", f"the rotation of {row.name} failed: {row.error}", secret=row.name)
            if row.too_old:
                tell("too-old", f"{row.name} is older than the config promises", secret=row.name)

    def _look_at_the_log(self) -> None:
        running = self._running
        found = running.audit.state()
        if found.state == "damaged":
            running.alarms.tell("chain-broken", f"the audit log: {found.detail}")
        elif not found.accepts:
            running.alarms.tell("audit-failed", "nothing is released: the audit log takes no record")
        if running.books.upkeep.trouble:
            running.alarms.tell("checkpoint-failed", running.books.upkeep.trouble)
