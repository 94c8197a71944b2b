"""
The audit log: a record is on the disk before anyone is told that it is.

Records that arrive while the disk is busy share the next write and the next
sync. One daemon thread does both; the loop hands it one job at a time and
decides alone what its answer means, so that a disk that hangs stops the thread
and nothing else. This module refuses to pass a record off as written that may
not be, and to write on after an error: it begins a new segment.
"""

import asyncio
import hmac
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Final, final

from backends.base import Secret
from broker.audit_files import Disk, Files
from broker.audit_writer import Journal, SegmentError, Written
from broker.core import chain
from broker.errors import AuditError

_LOOK: Final = 0.5
_OPENING: Final = 5.0
_SLOWEST_RETRY: Final = 8.0
_SHORT_LIFE: Final = 10.0
_ROLL_AGAIN: Final = 1 << 20
_FINGERPRINT_BYTES: Final = 16

Job = Callable[[], Written]
Item = tuple[bytes, "asyncio.Future[int] | None"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """
    How the log behaves.

    Attributes:
        deadline: seconds that a record may wait for the disk before it is refused.
        tick: seconds between two attempts to mend, and between two looks at the clock.
        segment_bytes: the length at which a new segment begins.
        reserve: bytes of disk kept for what must be recorded (``note``); with less than this, releases are refused.
        notes: how many records are kept in memory while the disk takes none.

    """

    deadline: float = 0.8
    tick: float = 0.25
    segment_bytes: int = 64 << 20
    reserve: int = 4 << 20
    notes: int = 32768


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditStatus:
    """
    How the log is, for ``status``.

    Attributes:
        state: ``opening``, ``ok``, ``damaged`` (it is written to, but what was there before does not verify),
            ``failed`` (everything is refused), ``closed``.
        detail: for a person; empty where all is well.
        hint: the command that shows or mends it.
        segment: the file that is written to.
        records: the number of the last record that is on the disk.
        waiting: how many records wait for the disk.
        noted: how many of those are kept because the disk takes none.
        lost: how many could not even be kept.

    """

    state: str
    detail: str
    hint: str | None
    segment: str
    records: int
    waiting: int
    noted: int
    lost: int

    @property
    def accepts(self) -> bool:
        """Return whether a record would be taken now."""
        return self.state in {"ok", "damaged"}


@dataclass(slots=True, kw_only=True)
class _Busy:
    """What the thread is at: since when (loop time), for whom, and whether the loop has given up on it."""

    kind: str
    since: float
    batch: Sequence[Item] = ()
    hung: bool = False


@dataclass(slots=True, kw_only=True)
class _Outage:
    """Why nothing can be written, since when, and how many waited in vain."""

    why: str
    detail: str
    hint: str
    since: float
    refused: int = 0


@dataclass(slots=True, kw_only=True)
class _Lost:
    """What could not even be kept: how many, from when to when."""

    count: int = 0
    first: float = 0.0
    last: float = 0.0


@dataclass(slots=True, kw_only=True)
class _Notes:
    """What has to be recorded and could not be yet."""

    room: int
    kept: deque[bytes] = field(default_factory=deque)
    lost: _Lost = field(default_factory=_Lost)

    def keep(self, record: bytes, now: float) -> None:
        """Keep a record, or count it."""
        if len(self.kept) < self.room:
            self.kept.append(record)
            return
        if not self.lost.count:
            self.lost.first = now
        self.lost.count += 1
        self.lost.last = now

    def take(self, now: float) -> list[Item]:
        """Give up everything that was kept, and one record of what was not."""
        items: list[Item] = [(record, None) for record in self.kept]
        self.kept.clear()
        if self.lost.count:
            lost = {"count": self.lost.count, "first": self.lost.first, "last": self.lost.last}
            items.append((chain.body(now, chain.LOST, lost), None))
            self.lost = _Lost()
        return items


@final
class AuditLog:
    """One audit log, used from one event loop."""

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
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._state = "opening"
        self._head: chain.Head | None = None
        self._damaged = ""
        self._full = ""
        self._pending: list[Item] = []
        self._pending_since = 0.0
        self._flushing = False
        self._notes = _Notes(room=self._settings.notes)
        self._busy: _Busy | None = None
        self._outage: _Outage | None = None
        self._roll_at = self._settings.segment_bytes
        self._began_at = self._looked_at = self._retry_at = self._armed_for = 0.0
        self._retry = self._settings.tick
        self._timer: asyncio.TimerHandle | None = None
        self._ready: asyncio.Event = asyncio.Event()
        self._ended: asyncio.Event = asyncio.Event()

    # -- what others call ----------------------------------------------------

    async def open(self) -> None:
        """
        Get ready to write. A disk that takes nothing is no reason to fail: the log refuses until it does.

        Raises:
            AuditError: another broker writes this log.

        """
        self._loop = asyncio.get_running_loop()
        Thread(target=self._work, name="audit", daemon=True).start()
        self._hand("begin", self._journal.start)
        self._arm()
        try:
            async with asyncio.timeout(_OPENING):
                await self._ready.wait()
        except TimeoutError:
            return
        if self._outage is not None and self._outage.why == "locked":
            outage = self._outage
            await self.close()
            raise AuditError(outage.detail, hint=outage.hint)

    def append(self, event: str, fields: Mapping[str, object]) -> "asyncio.Future[int]":
        """
        Write a record; the future brings its number once it is on the disk, or ``AuditError``.

        Raises:
            AuditError: nothing can be written now.
            RecordError: not a record (``chain.body``).

        """
        record = chain.body(self._clock(), event, fields)
        if self._loop is None or self._state not in {"ok", "damaged"} or self._full:
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
        if self._state in {"ok", "damaged"}:
            self._put((record, None))
        else:
            self._notes.keep(record, now)

    def state(self) -> AuditStatus:
        """Say how the log is."""
        outage, state, detail, hint = self._outage, self._state, self._damaged, None
        if outage is not None:
            detail, hint = outage.detail, outage.hint
        elif self._full and state in {"ok", "damaged"}:
            state, detail, hint = "failed", self._full, f"df -h {self._directory}"
        elif detail:
            hint = "mcp-broker audit verify"
        return AuditStatus(
            state=state,
            detail=detail,
            hint=hint,
            segment=chain.CURRENT,
            records=self._head.seq if self._head else 0,
            waiting=len(self._pending) + (len(self._busy.batch) if self._busy else 0) + len(self._notes.kept),
            noted=len(self._notes.kept),
            lost=self._notes.lost.count,
        )

    def fingerprint(self, secret: Secret) -> str:
        """
        Return a name for a value that tells nothing about it without the key in the log's directory.

        Raises:
            AuditError: the key could not be read yet.

        """
        key = self._journal.key
        if key is None:
            raise self._refusal()
        return hmac.digest(key, secret.expose().encode(), "sha256")[:_FINGERPRINT_BYTES].hex()

    async def close(self) -> int:
        """
        Write what waits, then that the log was closed in peace, and let go of it; a disk that hangs is left behind.

        Returns:
            how many records of ``note`` were never written.

        """
        if self._loop is None or self._state == "closed":
            return self._unwritten()
        try:
            async with asyncio.timeout(self._settings.deadline):
                if self._state in {"ok", "damaged"}:
                    last: asyncio.Future[int] = self._loop.create_future()
                    self._put((chain.body(self._clock(), chain.CLOSED, {}), last))
                    self._state = "closing"
                    await last
                self._jobs.put(None)
                await self._ended.wait()
        except (TimeoutError, AuditError):
            self._jobs.put(None)
        if self._timer is not None:
            self._timer.cancel()
        self._refuse_waiting("closed")
        self._state = "closed"
        return self._unwritten()

    # -- the thread ----------------------------------------------------------

    def _work(self) -> None:
        """Do one job after the other until there is None; the loop may be gone by the time a hung disk lets go."""
        assert self._loop is not None  # noqa: S101
        while (job := self._jobs.get()) is not None:
            answer: Written | SegmentError
            try:
                answer = job()
            except SegmentError as error:
                answer = error
            except Exception as error:  # noqa: BLE001 - whatever it is, the loop has to hear of it
                answer = SegmentError("error", f"unexpected {type(error).__name__}", hint="mcp-broker status")
            if not self._tell(self._done, answer):
                break
        self._journal.close()
        self._tell(self._ended.set)

    def _tell(self, what: Callable[..., object], *arguments: object) -> bool:
        assert self._loop is not None  # noqa: S101
        try:
            self._loop.call_soon_threadsafe(what, *arguments)
        except RuntimeError:
            return False
        return True

    def _hand(self, kind: str, job: Job, batch: Sequence[Item] = (), since: float | None = None) -> None:
        assert self._loop is not None  # noqa: S101
        self._busy = _Busy(kind=kind, since=self._loop.time() if since is None else since, batch=batch)
        self._jobs.put(job)

    # -- the loop: writing ---------------------------------------------------

    def _put(self, item: Item) -> None:
        assert self._loop is not None  # noqa: S101
        if not self._pending:
            self._pending_since = self._loop.time()
        self._pending.append(item)
        if self._busy is None and not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Hand the thread what waits. Called once for all records of one turn of the loop."""
        self._flushing = False
        if self._busy is not None or not self._pending or self._head is None:
            return
        batch, self._pending = self._pending[: chain.BATCH], self._pending[chain.BATCH :]
        records = [record for record, _ in batch]
        self._hand("append", partial(self._journal.append, self._head, records), batch, self._pending_since)

    def _done(self, answer: Written | SegmentError) -> None:
        """Take the thread's answer. Nothing was acknowledged before this, everything is after."""
        busy, self._busy = self._busy, None
        assert busy is not None  # noqa: S101
        if isinstance(answer, SegmentError):
            self._failed(answer, busy)
        elif busy.kind == "begin":
            self._began(answer)
        elif busy.hung:
            self._recover()
        else:
            self._wrote(answer, busy)

    def _wrote(self, written: Written, busy: _Busy) -> None:
        first = written.head.seq - len(busy.batch) + 1
        self._head = written.head
        self._measure(written)
        if written.size >= self._roll_at and busy.kind != "roll":
            self._hand("roll", partial(self._journal.roll, self._head), since=self._pending_since)
        else:
            if busy.kind == "roll":
                self._roll_at = max(self._settings.segment_bytes, written.size + _ROLL_AGAIN)
            self._flush()
        for number, (_, future) in enumerate(busy.batch, first):
            if future is not None and not future.done():
                future.set_result(number)

    def _measure(self, written: Written) -> None:
        """Keep what is left of a disk for what must be recorded."""
        full = ""
        if written.free < self._settings.reserve:
            full = f"the disk has {written.free} bytes left and {self._settings.reserve} are kept for revocations"
        if bool(full) != bool(self._full):
            self._full = full
            self._tell_change()
        self._full = full

    # -- the loop: outages ---------------------------------------------------

    def _refusal(self) -> AuditError:
        status = self.state()
        reason = status.detail or f"it is {status.state}"
        return AuditError(f"audit log cannot be written: {reason}", hint=status.hint or "mcp-broker status")

    def _refuse_waiting(self, state: str) -> None:
        """Refuse everyone who waits; what was noted is kept for later, in its order."""
        self._state = state
        items = [*(self._busy.batch if self._busy else ()), *self._pending]
        if self._busy is not None:
            self._busy.batch = ()
        self._pending = []
        now = self._clock()
        refused = 0
        for record, future in items:
            if future is None:
                self._notes.keep(record, now)
            elif not future.done():
                future.set_exception(self._refusal())
                refused += 1
        if self._outage is not None:
            self._outage.refused += refused

    def _failed(self, error: SegmentError, busy: _Busy) -> None:
        assert self._loop is not None  # noqa: S101
        closing = self._state == "closing"
        if busy.kind == "begin":
            self._retry_at = self._loop.time() + self._settings.tick
        why = "locked" if error.locked else error.why
        if self._outage is None:
            self._outage = _Outage(why=why, detail=error.detail, hint=error.hint, since=self._clock())
        else:
            self._outage.detail, self._outage.hint = error.detail, error.hint
            if self._head is None:
                self._outage.why = why
        self._busy = busy
        self._refuse_waiting("closing" if closing else "failed")
        self._busy = None
        self._ready.set()
        if closing:
            return
        if busy.kind != "begin":
            self._tell_change()
            self._soon()
            self._recover()

    def _soon(self) -> None:
        """A segment that lived for long is mended at once; one that did not is waited for, longer each time."""
        assert self._loop is not None  # noqa: S101
        now = self._loop.time()
        lived = now - self._began_at
        self._retry = self._settings.tick if lived > _SHORT_LIFE else min(self._retry * 2, _SLOWEST_RETRY)
        self._retry_at = now if lived > _SHORT_LIFE else now + self._retry

    def _recover(self) -> None:
        """Try to begin a new segment, if it is time to."""
        assert self._loop is not None  # noqa: S101
        outage = self._outage
        if self._busy is not None or self._loop.time() < self._retry_at or self._state != "failed":
            return
        if self._head is None or outage is None:
            self._hand("begin", self._journal.start)
            return
        fields: dict[str, object] = {"detail": outage.detail, "refused": outage.refused, "since": outage.since}
        self._hand("begin", partial(self._journal.resume, self._head, outage.why, fields))

    def _began(self, written: Written) -> None:
        assert self._loop is not None  # noqa: S101
        self._head, self._damaged = written.head, written.damaged or self._damaged
        self._outage = None
        self._began_at = self._loop.time()
        self._roll_at = self._settings.segment_bytes
        self._ready.set()
        if self._state == "closing":
            return
        self._state = "damaged" if self._damaged else "ok"
        self._measure(written)
        for item in self._notes.take(self._clock()):
            self._put(item)
        self._tell_change()

    def _tell_change(self) -> None:
        status = self.state()
        logging.getLogger(__name__).warning("audit log: %s %s", status.state, status.detail)
        if self._changed is not None:
            self._changed(status)

    # -- the loop: time ------------------------------------------------------

    def _arm(self) -> None:
        assert self._loop is not None  # noqa: S101
        now = self._loop.time()
        delay = self._settings.tick
        if self._busy is not None and not self._busy.hung:
            delay = min(delay, max(self._busy.since + self._settings.deadline - now, 0.001))
        self._armed_for = now + delay
        self._timer = self._loop.call_later(delay, self._tick)

    def _tick(self) -> None:
        """Look whether the disk answers, and if it has nothing to do, at the file and at what can be mended."""
        assert self._loop is not None  # noqa: S101
        now = self._loop.time()
        busy = self._busy
        if busy is not None:
            late = now - self._armed_for
            if late > self._settings.tick:
                # A loop that stood still itself has no word about how long the disk took.
                busy.since += late
            if not busy.hung and now >= busy.since + self._settings.deadline:
                self._give_up(busy)
        elif self._state == "failed":
            self._recover()
        elif self._head is not None and now - self._looked_at >= _LOOK:
            self._looked_at = now
            self._hand("inspect", partial(self._journal.inspect, self._head))
        self._arm()

    def _give_up(self, busy: _Busy) -> None:
        """The disk hangs: refuse. The thread cannot be stopped; when it comes back, a new segment begins."""
        busy.hung = True
        detail = f"the disk has not answered for {self._settings.deadline} seconds"
        hint = f"df {self._directory}"
        if self._outage is None:
            self._outage = _Outage(why="hung", detail=detail, hint=hint, since=self._clock())
        else:
            self._outage.detail = detail
        self._refuse_waiting("closing" if self._state == "closing" else "failed")
        self._tell_change()

    def _unwritten(self) -> int:
        return len(self._notes.kept) + self._notes.lost.count
