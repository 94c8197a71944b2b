"""
All sinks of one broker, as its event loop sees them.

This module refuses to wait for any of them.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, final

from broker.audit_files import Disk
from broker.audit_gate import Gate
from broker.audit_state import Mark
from broker.config.recording import FILE, AuditConfig, SinkConfig
from broker.core import checkpoint as c
from broker.sinks.courier import Courier, SinkStatus
from broker.sinks.speaking import Speaker, speaker

ALARM_AFTER: Final = 600.0
"""Seconds after which a person is told of a sink that fails."""

LAST: Final = 2.0
"""Seconds that the end waits for what can still be sent."""


@final
class Copies:
    """Hands marks and checkpoints to the couriers. Belongs to the event loop."""

    def __init__(
        self,
        config: AuditConfig,
        *,
        directory: Path,
        cursors: Path,
        alarm: Callable[..., None],
        speak: Callable[[SinkConfig], Speaker] = speaker,
    ) -> None:
        """
        Start nothing yet.

        Args:
            config: which sinks there are, and which of them are required.
            directory: where the log is.
            cursors: where the cursors are.
            alarm: tells a person (``Alarms.tell``).
            speak: returns what speaks to a sink.

        """
        self.config = config
        self._alarm = alarm
        self._loop: asyncio.AbstractEventLoop | None = None
        needed = [name for name in config.required if name != FILE]
        self.gate = Gate(needed, within=config.within) if needed else None
        """What holds releases back until the required sinks have their record; None where none is required."""
        self._couriers = {
            name: Courier(
                sink,
                speak(sink),
                directory,
                cursors / f"{name}.json",
                Disk(),
                required=name in needed,
                took=self._took,
            )
            for name, sink in config.sinks.items()
        }
        self._listeners = [each for name, each in self._couriers.items() if config.sinks[name].send == "records"]

    def open(self, last: c.Signed | None) -> None:
        """Begin; ``last`` is the last checkpoint there is."""
        self._loop = asyncio.get_running_loop()
        for courier in self._couriers.values():
            if last is not None:
                courier.made(last.checkpoint.number)
            courier.start()

    def marked(self, mark: Mark) -> None:
        """Know how far the log is."""
        for courier in self._listeners:
            courier.marked(mark)

    def made(self, signed: c.Signed) -> None:
        """Know of another checkpoint."""
        for courier in self._couriers.values():
            courier.made(signed.checkpoint.number)

    def taken(self) -> int:
        """Return the number of the last record that every sink for records has."""
        return min((each.status.record for each in self._listeners), default=1 << 62)

    def status(self) -> dict[str, SinkStatus]:
        """Return how each sink is."""
        return {name: courier.status for name, courier in self._couriers.items()}

    def tick(self) -> None:
        """Tell a person of a sink that has failed for long."""
        now = time.monotonic()
        for name, status in self.status().items():
            if status.since is not None and now - status.since >= ALARM_AFTER:
                self._alarm("sink-behind", f"{name} takes no copies of the audit log: {status.detail}", sink=name)

    async def close(self) -> None:
        """Let what can be sent at once be sent; the rest is sent after the next start."""
        for courier in self._couriers.values():
            courier.stop()
        loop, end = asyncio.get_running_loop(), time.monotonic() + LAST
        for courier in self._couriers.values():
            await loop.run_in_executor(None, courier.join, max(0.0, end - time.monotonic()))

    def _took(self, name: str, number: int) -> None:
        """Take word from a courier's thread."""
        gate, loop = self.gate, self._loop
        if gate is not None and loop is not None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(gate.took, name, number)
