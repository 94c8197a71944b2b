"""
The audit log and all that goes with it: checkpoints, copies, and the alarms that end up in it.

Put together in one place, because the order counts: the log is open before
anything is recorded, and closed after everything is. This module refuses to do
anything of that itself.
"""

from collections.abc import Callable
from typing import Self, final

from broker.alarms import Alarms
from broker.audit import AuditLog, Settings
from broker.audit_pages import Pages
from broker.audit_state import Mark
from broker.audit_upkeep import Upkeep
from broker.config import Config
from broker.paths import Places
from broker.sinks.copies import Copies

SIGNING: str = "signing"
"""The directory of the key for the next checkpoint, beside that of the log: who copies the log has no key along."""


@final
class Books:
    """
    All that is written down of one broker.

    Attributes:
        audit: the log.
        alarms: tells a person what needs one: ``alarms.tell(kind, text, **facts)``.
        upkeep: makes checkpoints, and room.
        pages: the log, for reading.
        copies: sends copies elsewhere.

    """

    def __init__(self, places: Places, config: Config, *, clock: Callable[[], float]) -> None:
        """Touch nothing yet."""
        kept = config.audit
        self.audit = AuditLog(places.audit, clock=clock, settings=Settings.of(kept))
        self.alarms = Alarms(config.notify, audit=self.audit, clock=clock)
        self.upkeep = Upkeep(
            self.audit,
            kept,
            directory=places.audit,
            keys=places.state / SIGNING,
            clock=clock,
            alarm=self.alarms.tell,
        )
        self.pages = Pages(places.audit)
        self.copies = Copies(kept, directory=places.audit, cursors=places.state / "copies", alarm=self.alarms.tell)
        self.audit.gate = self.copies.gate
        self.audit.marked = self._marked
        self.upkeep.made = self.copies.made
        self.upkeep.taken = self.copies.taken

    async def open(self) -> Self:
        """Get ready to write; raises ``AuditError`` where another broker writes this log."""
        await self.audit.open()
        await self.upkeep.open()
        self.copies.open(self.upkeep.last)
        return self

    def _marked(self, mark: Mark) -> None:
        self.upkeep.marked(mark)
        self.copies.marked(mark)

    def tick(self, now: float) -> None:
        """Do what is due, once a second."""
        self.upkeep.tick(now)
        self.copies.tick()

    async def close(self) -> None:
        """Write what waits, a last checkpoint, and that it was closed in peace."""
        self.alarms.close()
        await self.upkeep.close()
        await self.audit.close()
        await self.copies.close()
