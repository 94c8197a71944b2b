"""
The audit log: a record is on the disk before anyone is told that it is.

Records that arrive while the disk is busy share the next write and the next
sync. One daemon thread does both; the loop hands it one job at a time and
decides alone what its answer means, so that a disk that hangs stops the thread
and nothing else. This module refuses to pass a record off as written that may
not be, and to write on after an error: it begins a new segment.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Final, Literal, final

from backends.base import Secret
from broker.audit_clerk import Clerk, Job
from broker.audit_files import Disk, Files
from broker.audit_gate import Gate
from broker.audit_state import CLOSED, DAMAGED, FAILED, OK, OPENING, AuditStatus, Mark, Notes, Outage, Settings
from broker.audit_writer import Journal, SegmentError, Written
from broker.core import chain
from broker.errors import AuditError

__all__ = ["AuditLog", "AuditStatus", "Settings"]

_OPENING: Final = 5.0
_SHORT_LIFE: Final = 10.0
_ROLL_AGAIN: Final = 1 << 20
_FINGERPRINT_BYTES: Final = 16

Kind = Literal["begin", "append", "roll", "inspect"]
Item = tuple[bytes, "asyncio.Future[int] | None"]


@dataclass(slots=True, kw_only=True)
class _Busy:
    """What the thread is at, since when (loop time), for whom, and whether the loop has given up on it."""

    kind: Kind
    since: float
    batch: Sequence[Item] = ()
    hung: bool = False


@final
class AuditLog:
    """One audit log, used from one event loop."""

    _loop: asyncio.AbstractEventLoop

    def __init__(
        self,
        directory: Path,
        *,
        clock: Callable[[], float] = time.time,
        settings: Settings | None = None,
        files: Files | None = None,
        changed: Callable[[AuditStatus], None] | None = None,
    ) -> None:
        """
        Touch nothing yet.

        Args:
            directory: where the segments are; made where it is missing.
            clock: Unix seconds.
            settings: how it behaves.
            files: the disk.
            changed: called in the loop whenever the state is another one.

        """
        self._directory = directory
        self._clock = clock
        self._settings = settings or Settings()
        self._changed = changed
        self._journal = Journal(directory, files=files or Disk(), clock=clock)
        self._clerk = Clerk(self._journal.close)
        self._busy: _Busy | None = None
        self._pending: list[Item] = []
        self._pending_since = 0.0
        self._flushing = False
        self._head = chain.GENESIS
        self._state = OPENING
        self._closing = False
        self._damaged = self._full = ""
        self._outage: Outage | None = None
        self._notes = Notes(room=self._settings.notes)
        self._roll_at = self._settings.segment_bytes
        self._retry = self._settings.tick
        self._began_at = self._looked_at = self._retry_at = self._armed_for = 0.0
        self._since = 0.0
        self.gate: Gate | None = None
        """Who else must have a record before anybody is told that it is written."""
        self.mark: Mark | None = None
        """How far the log is acknowledged; None before it is open."""
        self.marked: Callable[[Mark], None] = lambda _: None
        """Called in the loop whenever there is another mark."""
        self.counts: Counter[str] = Counter()
        """How many records of each event there were, those that were refused included."""
        self.found = chain.GENESIS
        """The last record that was there when this log was opened."""
        self._timer: asyncio.TimerHandle | None = None
        self._ready = asyncio.Event()
        self._ended = asyncio.Event()

    # -- what others call ----------------------------------------------------

    async def open(self) -> None:
        """
        Get ready to write. A disk that takes nothing is no reason to fail: the log refuses until it does.

        Raises:
            AuditError: another broker writes this log.

        """
        self._loop = asyncio.get_running_loop()
        self._clerk.begin(self._loop, done=self._done, ended=self._ended.set)
        self._hand("begin", self._journal.start)
        self._arm()
        try:
            async with asyncio.timeout(_OPENING):
                await self._ready.wait()
        except TimeoutError:
            return
        if self._outage is not None and self._outage.locked:
            outage = self._outage
            await self.close()
            raise AuditError(outage.detail, hint=outage.hint)

    def append(self, event: str, fields: Mapping[str, object] | chain.Facts) -> "asyncio.Future[int]":
        """
        Write a record; the future brings its number once it is on the disk, or ``AuditError``.

        Raises:
            AuditError: nothing can be written now.
            RecordError: not a record (``chain.body``).

        """
        record = chain.body(self._clock(), event, fields)
        self.counts[event] += 1
        if not self._writes or self._full or (self.gate is not None and self.gate.trouble):
            raise self._refusal()
        future: asyncio.Future[int] = self._loop.create_future()
        self._put((record, future))
        return future

    async def record(self, event: str, **fields: object) -> int:
        """Write a record and return its number once it is on the disk; raises what ``append`` does."""
        return await self.append(event, fields)

    def note(self, event: str, **fields: object) -> None:
        """
        Record what happens whether it can be recorded or not, as soon as it can be.

        Raises:
            RecordError: not a record (``chain.body``).

        """
        now = self._clock()
        record = chain.body(now, event, fields)
        self.counts[event] += 1
        if self._writes:
            self._put((record, None))
        else:
            self._notes.keep(record, now)

    def state(self) -> AuditStatus:
        """Say how the log is."""
        state, detail, hint = self._state, self._damaged, "mcp-broker audit verify" if self._damaged else None
        if self._outage is not None:
            detail, hint = self._outage.detail, self._outage.hint
        elif self._full and self._state in {OK, DAMAGED}:
            state, detail, hint = FAILED, self._full, f"df -h {self._directory}"
        elif self.gate is not None and self.gate.trouble and self._state in {OK, DAMAGED}:
            state, detail, hint = FAILED, self.gate.trouble, "mcp-broker status"
        return AuditStatus(
            state=state,
            detail=detail,
            hint=hint,
            segment=chain.CURRENT,
            records=self._head.seq,
            waiting=len(self._pending) + (len(self._busy.batch) if self._busy else 0) + len(self._notes.kept),
            noted=len(self._notes.kept),
            lost=self._notes.lost,
        )

    def damaged(self, detail: str) -> None:
        """Know that what was there before does not verify, from somebody who has looked; the log goes on."""
        self._damaged = self._damaged or detail
        if self._state == OK:
            self._state = DAMAGED
            self._tell_change()

    def fingerprint(self, secret: Secret) -> str:
        """
        Return a name for a value that tells nothing about it without the key in the log's directory.

        Raises:
            AuditError: the key could not be read yet.

        """
        key = self._journal.key
        if key is None:
            raise self._refusal()
        return blake2b(secret.expose().encode(), key=key, digest_size=_FINGERPRINT_BYTES).hexdigest()

    async def close(self) -> int:
        """
        Write what waits, then that the log was closed in peace, and let go of it; a disk that hangs is left behind.

        Returns:
            how many records of ``note`` were never written.

        """
        if self._closing or self._timer is None:
            return len(self._notes)
        try:
            async with asyncio.timeout(self._settings.deadline):
                last = self._last_record()
                self._closing = True
                if last is not None:
                    await last
                self._clerk.give(None)
                await self._ended.wait()
        except (TimeoutError, AuditError):
            self._clerk.give(None)
        self._timer.cancel()
        self._refuse_waiting(CLOSED)
        return len(self._notes)

    # -- the thread ----------------------------------------------------------

    def _hand(self, kind: Kind, job: Job, batch: Sequence[Item] = (), since: float | None = None) -> None:
        self._busy = _Busy(kind=kind, since=self._loop.time() if since is None else since, batch=batch)
        self._clerk.give(job)

    # -- the loop: writing ---------------------------------------------------

    @property
    def _writes(self) -> bool:
        return self._state in {OK, DAMAGED} and not self._closing

    def _put(self, item: Item) -> None:
        if not self._pending:
            self._pending_since = self._loop.time()
        self._pending.append(item)
        if self._busy is None and not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Hand the thread what waits: once for all records of one turn of the loop."""
        self._flushing = False
        if self._busy is not None or not self._pending:
            return
        batch, self._pending = self._pending[: chain.BATCH], self._pending[chain.BATCH :]
        records = [record for record, _ in batch]
        self._hand("append", partial(self._journal.append, self._head, records), batch, self._pending_since)
        # What is left over waits for a disk that does answer: its time begins with the batch before it.
        self._pending_since = self._loop.time()

    def _last_record(self) -> "asyncio.Future[int] | None":
        if not self._writes:
            return None
        future: asyncio.Future[int] = self._loop.create_future()
        self._put((chain.body(self._clock(), chain.CLOSED, {}), future))
        return future

    def _done(self, answer: Written | SegmentError) -> None:
        """Take the thread's answer. Nothing was acknowledged before this, everything is after."""
        busy, self._busy = self._busy, None
        if busy is None or self._state == CLOSED:
            return
        if isinstance(answer, SegmentError):
            self._failed(answer, busy)
        elif busy.kind == "begin":
            self._began(answer)
        elif busy.hung:
            self._recover_later()
        else:
            self._wrote(answer, busy)

    def _wrote(self, written: Written, busy: _Busy) -> None:
        """Hand the thread its next job first: it works while the loop wakes those who waited."""
        first = written.head.seq - len(busy.batch) + 1
        self._head, self._since = written.head, written.since
        self._measure(written)
        if busy.kind == "roll":
            full = self._settings.segment_bytes
            self._roll_at = full if written.size < full else written.size + _ROLL_AGAIN
        if written.size >= self._roll_at:
            self._hand("roll", partial(self._journal.roll, self._head))
        else:
            self._flush()
        self._tell_mark(written)
        for number, (_, future) in enumerate(busy.batch, first):
            if future is not None and not future.done():
                if self.gate is None or self._closing:
                    future.set_result(number)
                else:
                    self.gate.hold(number, future)

    def _tell_mark(self, written: Written) -> None:
        self.mark = Mark(head=written.head, segment=written.segment, size=written.size, began=written.began)
        self.marked(self.mark)

    def _measure(self, written: Written) -> None:
        """Keep what is left of a disk for what must be recorded."""
        before, self._full = self._full, ""
        if written.free < self._settings.reserve:
            self._full = f"the disk has {written.free} bytes left, and {self._settings.reserve} are for revocations"
        if bool(before) != bool(self._full):
            self._tell_change()

    # -- the loop: outages ---------------------------------------------------

    def _refusal(self) -> AuditError:
        status = self.state()
        reason = status.detail or f"it is {status.state}"
        return AuditError(f"audit log cannot be written: {reason}", hint=status.hint or "mcp-broker status")

    def _refuse_waiting(self, state: str) -> None:
        """Refuse everyone who waits; what was noted is kept for later, in its order."""
        self._state = state
        if self.gate is not None:
            self.gate.refuse(self._refusal)
        items = [*(self._busy.batch if self._busy else ()), *self._pending]
        if self._busy is not None:
            self._busy.batch = ()
        self._pending = []
        now = self._clock()
        for record, future in items:
            if future is None:
                self._notes.keep(record, now)
            elif not future.done():
                future.set_exception(self._refusal())
                if self._outage is not None:
                    self._outage.refused += 1

    def _failed(self, error: SegmentError, busy: _Busy) -> None:
        """The disk said no, or the file is not ours any more. What was in flight may be on the disk or not."""
        if self._outage is None:
            self._outage = Outage(why=error.why, detail=error.detail, hint=error.hint, since=self._clock())
        self._outage.detail, self._outage.hint, self._outage.locked = error.detail, error.hint, error.locked
        self._pending = [*busy.batch, *self._pending]
        changed = self._state != FAILED
        self._refuse_waiting(FAILED)
        self._ready.set()
        if changed:
            self._tell_change()
        if busy.kind == "begin":
            self._retry_at = self._loop.time() + self._settings.tick
        else:
            self._recover_later()

    def _recover_later(self) -> None:
        """
        Mend a segment that lived long at once, and one that did not later, each time.

        Otherwise a disk that takes a first record and fails on the second would
        be filled with segments of one record.
        """
        now = self._loop.time()
        lived = now - self._began_at
        self._retry = self._settings.tick if lived > _SHORT_LIFE else min(self._retry * 2, self._settings.patience)
        self._retry_at = now if lived > _SHORT_LIFE else now + self._retry
        self._recover()

    def _recover(self) -> None:
        """Try to begin a new segment, if it is time to."""
        outage = self._outage
        if self._busy is not None or self._closing or self._loop.time() < self._retry_at or outage is None:
            return
        if self._head == chain.GENESIS:
            self._hand("begin", self._journal.start)
        else:
            self._hand("begin", partial(self._journal.resume, self._head, outage.why, outage.fields))

    def _began(self, written: Written) -> None:
        """Everything is well again; what was noted in the meantime comes first."""
        self._head, self._damaged = written.head, written.damaged or self._damaged
        self._outage = None
        self._began_at = self._loop.time()
        self._roll_at = self._settings.segment_bytes
        self._since = written.since
        self.found = written.found or self.found
        self._ready.set()
        if self._closing:
            return
        self._state = DAMAGED if self._damaged else OK
        self._tell_mark(written)
        self._measure(written)
        for record in self._notes.take(self._clock()):
            self._put((record, None))
        self._tell_change()

    def _tell_change(self) -> None:
        status = self.state()
        level = logging.INFO if status.state == OK else logging.WARNING
        logging.getLogger(__name__).log(level, "audit log: %s", " ".join(filter(None, (status.state, status.detail))))
        if self._changed is not None:
            self._changed(status)

    # -- the loop: time ------------------------------------------------------

    def _arm(self) -> None:
        """Look again after a tick, or when the thread's time is up, if that is earlier."""
        now = self._loop.time()
        delay = self._settings.tick
        if self._busy is not None and not self._busy.hung:
            delay = min(delay, max(self._busy.since + self._settings.deadline - now, 0.001))
        self._armed_for = now + delay
        self._timer = self._loop.call_later(delay, self._tick)

    def _tick(self) -> None:
        """Look whether the disk answers; if it has nothing to do, mend what is broken or look at the file."""
        now = self._loop.time()
        busy = self._busy
        if busy is not None:
            late = now - self._armed_for
            if late > self._settings.tick:
                # A loop that stood still itself has no word about how long the disk took.
                busy.since += late
            if not busy.hung and now >= busy.since + self._settings.deadline:
                self._give_up(busy)
        elif self._state == FAILED:
            self._recover()
        elif self._writes and self._clock() - self._since >= self._settings.segment_age:
            self._hand("roll", partial(self._journal.roll, self._head))
        elif self._writes and now - self._looked_at >= self._settings.look:
            self._looked_at = now
            self._hand("inspect", partial(self._journal.inspect, self._head))
        self._arm()

    def _give_up(self, busy: _Busy) -> None:
        """Refuse, because the disk hangs. Its thread cannot be stopped; when it comes back, a new segment begins."""
        busy.hung = True
        detail = f"the disk has not answered for {self._settings.deadline} seconds"
        if self._outage is None:
            self._outage = Outage(why="hung", detail=detail, hint=f"df {self._directory}", since=self._clock())
        self._outage.detail = detail
        self._refuse_waiting(FAILED)
        self._ready.set()
        self._tell_change()
