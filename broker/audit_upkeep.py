"""
What the audit log needs besides being written: checkpoints, compressed segments, and room.

All of it happens on a thread of its own, so that a disk that hangs there holds
up no record. This module refuses to remove a segment before a checkpoint that
covers it is on the disk and its removal is on record.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, TypeVar, final

from backends.worker import Worker, settled
from broker import audit_packing
from broker.audit import AuditLog
from broker.audit_checkpoints import Checkpoints
from broker.audit_files import Disk, Files
from broker.audit_state import Mark
from broker.config.recording import AuditConfig
from broker.core import chain
from broker.core import checkpoint as c
from broker.core.retention import removable
from broker.errors import AuditError, UnavailableError

_log: Final = logging.getLogger("mcp_broker.audit")

DEADLINE: Final = 10.0
"""Seconds that a checkpoint may take before somebody who waits for it is told that it did not come."""

SETTLE: Final = 2.0
"""Seconds that the end waits for a segment that is being compressed."""

PATIENCE: Final = 600.0
"""Seconds that a segment may take to be compressed."""

WORTH_IT: Final = 1 << 20
"""Bytes from which on an earlier segment is compressed."""

_OWN: Final = 1
"""Records that a checkpoint itself leads to: they are no reason for another."""

_AGAIN: Final = 30.0
"""Seconds before something that failed is tried again."""

Found = TypeVar("Found")


@final
class Upkeep:
    """Keeps one log. Belongs to the event loop."""

    def __init__(
        self,
        audit: AuditLog,
        config: AuditConfig,
        *,
        directory: Path,
        keys: Path,
        clock: Callable[[], float],
        alarm: Callable[..., None],
        files: Files | None = None,
    ) -> None:
        """
        Begin nothing yet.

        Args:
            audit: the log.
            config: how it is kept.
            directory: where it is.
            keys: where the keys for checkpoints are.
            clock: Unix seconds.
            alarm: tells a person (``Alarms.tell``).
            files: the disk.

        """
        self._audit, self._config, self._directory = audit, config, directory
        self._clock, self._alarm, self._files = clock, alarm, files or Disk()
        self._checkpoints = Checkpoints(directory, keys, files=self._files, clock=clock)
        self._worker = Worker("audit upkeep")
        self._one = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._began: chain.Head | None = None
        self._next = 0.0
        self._said_removed = 0
        self.last: c.Signed | None = None
        """The last checkpoint."""
        self.trouble = ""
        """Why there is none, or something else could not be done; empty where all is well."""
        self.hint: str | None = None
        self.made: Callable[[c.Signed], None] = lambda _: None
        """Called in the loop with each new checkpoint."""
        self.taken: Callable[[], int] = lambda: 2**63
        """Returns the number of the last record that every sink has."""

    async def open(self) -> None:
        """Find the last checkpoint and compare the log with it; a disk that says no is no reason to fail."""
        self._next = self._clock() + self._config.checkpoint
        try:
            self.last = await self._on_thread(self._checkpoints.start, DEADLINE)
        except (AuditError, UnavailableError) as error:
            self._in_trouble(error)
            return
        if self._checkpoints.lost:
            text = (
                "the key that the last checkpoint names is gone: the next one is signed with a key nobody vouches for"
            )
            self._alarm("chain-broken", text)
        if self.last is not None and self.last.checkpoint.head.seq > self._audit.found.seq:
            known = self.last.checkpoint
            text = (
                f"the log ended with record {self._audit.found.seq}, and checkpoint {known.number} vouches for record "
            )
            self._audit.damaged(f"{text}{known.head.seq}: its end was cut off")
            self._alarm("chain-broken", f"{text}{known.head.seq}: its end was cut off")
        self._soon()

    def marked(self, mark: Mark) -> None:
        """Know how far the log is; each new segment begins with a checkpoint."""
        if mark.began:
            self._began = mark.head
            self._soon()

    def tick(self, now: float) -> None:
        """Do what is due, once a second."""
        if now >= self._next or self._next - now > self._config.checkpoint + _AGAIN:
            self._next = now + self._config.checkpoint
            self._soon()

    async def checkpoint(self) -> c.Signed:
        """
        Make a checkpoint of all that is recorded now.

        Raises:
            AuditError: it cannot be made; nothing was signed that counts.
            UnavailableError: the disk does not answer.

        """
        async with self._one:
            mark = self._audit.mark
            if mark is None:
                message = "there is no record yet"
                raise AuditError(message, hint="mcp-broker status")
            return await self._made(mark.head)

    async def close(self) -> None:
        """Make a last checkpoint, if there is anything new, and end."""
        for task in self._tasks:
            task.cancel()
        try:
            async with self._one, asyncio.timeout(DEADLINE):
                mark = self._audit.mark
                if mark is not None and self._news(mark.head):
                    await self._made(mark.head)
        except (AuditError, UnavailableError, TimeoutError) as error:
            _log.warning("no last checkpoint could be made: %s", error)
        # What is being compressed may take a moment; to leave it is safe, and to wait leaves less behind.
        await settled(self._worker.submit(lambda: None), SETTLE)
        self._worker.stop()

    # -- what happens --------------------------------------------------------

    def _soon(self) -> None:
        """Have all that is due done, beside everything else."""
        if not any(not task.done() for task in self._tasks):
            task = asyncio.get_running_loop().create_task(self._due())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _due(self) -> None:
        try:
            await self._checkpoint_if_news()
            await self._make_room()
            while self._began is not None:
                await self._checkpoint_if_news()
                await self._make_room()
        except (AuditError, UnavailableError) as error:
            self._in_trouble(error)
        except OSError as error:
            reason = (error.strerror or type(error).__name__).lower()
            self._in_trouble(AuditError(f"earlier segments: {reason}", hint=f"df -h {self._directory}"))
        except Exception as error:  # noqa: BLE001 -- the log is written whatever happens here
            self._in_trouble(AuditError(f"unexpected {type(error).__name__}", hint="mcp-broker status"))
        else:
            self.trouble, self.hint = "", None

    def _in_trouble(self, error: AuditError | UnavailableError) -> None:
        if self.trouble != error.message:
            _log.warning("audit log: %s", error.message)
        self.trouble, self.hint = error.message, error.hint
        self._next = self._clock() + min(_AGAIN, self._config.checkpoint)

    async def _checkpoint_if_news(self) -> None:
        async with self._one:
            began, self._began = self._began, None
            try:
                if began is not None and self._news(began):
                    await self._made(began)
            except BaseException:
                self._began = began
                raise
            mark = self._audit.mark
            if began is None and mark is not None and self._news(mark.head):
                await self._made(mark.head)

    def _news(self, head: chain.Head) -> bool:
        return self.last is None or head.seq > self.last.checkpoint.head.seq + _OWN

    async def _made(self, head: chain.Head) -> c.Signed:
        made = await self._on_thread(partial(self._checkpoints.make, head), DEADLINE)
        self.last = made
        number, records = made.checkpoint.number, made.checkpoint.head.seq
        self._audit.note(c.MADE, checkpoint=number, records=records)
        self.made(made)
        return made

    async def _make_room(self) -> None:
        """Remove what is too old, and compress what is left."""
        await self._remove_old()
        least = min(WORTH_IT, self._config.segment_bytes // 2)
        for name in await self._on_thread(partial(audit_packing.unpacked, self._directory, least=least), PATIENCE):
            await self._on_thread(partial(audit_packing.pack, self._directory, name, self._files), PATIENCE)

    async def _remove_old(self) -> None:
        keep, covered = self._config.keep, 0 if self.last is None else self.last.checkpoint.head.seq
        if keep is None:
            return
        segments = await self._on_thread(partial(audit_packing.earlier, self._directory), PATIENCE)
        old = removable(segments, now=self._clock(), keep=keep, covered=covered, taken=self.taken())
        for each in old:
            if each.number > self._said_removed:
                await self._audit.record(c.REMOVED, segment=each.number, records=each.last)
                self._said_removed = each.number
            await self._on_thread(partial(audit_packing.remove, self._directory, each.number, self._files), PATIENCE)

    async def _on_thread(self, job: Callable[[], Found], seconds: float) -> Found:
        future = self._worker.submit(job)
        if not await settled(future, seconds):
            message = "the disk does not answer"
            raise UnavailableError(message, hint=f"df {self._directory}")
        return future.result()
