"""
The thread of one sink: reads what is ahead, hands it over, moves the cursor, and tries again where that fails.

It works little at a time and rests much longer, unless the sink is required:
copies must not cost those who wait for a record. This module refuses to give up.
"""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, final

import msgspec

from broker.audit_files import Files
from broker.audit_state import Mark
from broker.config.recording import SinkConfig
from broker.core import chain
from broker.core import checkpoint as c
from broker.sinks import cursor as k
from broker.sinks.ahead import Ahead
from broker.sinks.speaking import Message, SinkError, Speaker

REST: Final = 40.0
"""How many times longer it rests than it works: at most 2.5 % of one core go into copies."""

LEAST_REST: Final = 0.05
LONGEST_REST: Final = 2.0
FIRST_WAIT: Final = 0.5
LONGEST_WAIT: Final = 60.0
"""Seconds between two attempts at a sink that fails."""

SAVE_EVERY: Final = 1.0
"""Seconds between two moves of the cursor on the disk: what came meanwhile may come twice after a crash."""

_LINK: Final = msgspec.json.Decoder(chain.Link)


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkStatus:
    """
    How a sink is.

    Attributes:
        state: ``ok``, ``behind`` (it takes what it is sent, and there is more), ``failing``.
        detail: for a person.
        hint: the command that shows or mends it.
        checkpoint: the number of the last checkpoint that it has.
        record: the number of the last record that it has.
        since: since when it fails (monotonic seconds); None where it does not.

    """

    state: str = "ok"
    detail: str = ""
    hint: str | None = None
    checkpoint: int = 0
    record: int = 0
    since: float | None = None


@final
class Courier:
    """One sink. ``marked``, ``made`` and ``status`` are for the event loop, the rest is the thread's."""

    def __init__(
        self,
        config: SinkConfig,
        speaker: Speaker,
        directory: Path,
        cursor: Path,
        files: Files,
        *,
        required: bool,
        took: Callable[[str, int], None],
    ) -> None:
        """
        Start nothing yet.

        Args:
            config: what the sink is, and what it gets.
            speaker: speaks to it.
            directory: where the log is.
            cursor: the file of its cursor.
            files: the disk.
            required: whether releases wait for it.
            took: called on the thread with its name and the last record that it has.

        """
        self._config, self._speaker, self._path, self._files = config, speaker, cursor, files
        self._directory, self._required, self._took = directory, required, took
        self._mark: Mark | None = None
        self._durable = 0
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._saved_at = 0.0
        self._unsaved = False
        self.status = SinkStatus()
        self._thread = threading.Thread(target=self._work, name=f"sink {config.name}", daemon=True)

    def start(self) -> None:
        """Begin where the cursor says."""
        self._thread.start()

    def marked(self, mark: Mark) -> None:
        """Know how far the log is."""
        self._mark = mark
        if self._config.send == "records" and not self._wake.is_set():
            self._wake.set()

    def made(self, number: int) -> None:
        """Know which checkpoint is the last on the disk."""
        self._durable = number
        self._wake.set()

    def stop(self) -> None:
        """Have it end; it may be in the middle of something that takes a while."""
        self._stopping.set()
        self._wake.set()

    def join(self, seconds: float) -> None:
        """Wait a little for its end."""
        if self._thread.is_alive():
            self._thread.join(seconds)

    # -- the thread ----------------------------------------------------------

    def _work(self) -> None:
        cursor = k.load(self._path, self._config.address)
        ahead = Ahead(self._directory, cursor)
        self.status = replace(self.status, checkpoint=cursor.checkpoint, record=cursor.record)
        wait, more = FIRST_WAIT, True
        while not self._stopping.is_set():
            if not more:
                self._wake.wait(LONGEST_WAIT if not self._unsaved else SAVE_EVERY)
            self._wake.clear()
            began = time.thread_time()
            try:
                cursor, more = self._round(ahead, cursor)
                self._save(cursor)
            except SinkError as error:
                self._failing(error.detail, error.hint)
            except OSError as error:
                reason = (error.strerror or type(error).__name__).lower()
                self._failing(f"its cursor or the log: {reason}", f"df -h {self._directory}")
            else:
                wait = FIRST_WAIT
                self.status = replace(self.status, state="behind" if more else "ok", detail="", hint=None, since=None)
                self._rest(time.thread_time() - began)
                continue
            ahead.back()
            more = True
            self._stopping.wait(wait * random.uniform(0.75, 1.25))  # noqa: S311 -- so that hosts do not come at once
            wait = min(wait * 2, LONGEST_WAIT)
        self._end(ahead, cursor)

    def _end(self, ahead: Ahead, cursor: k.Cursor) -> None:
        """Take along what there is, if that goes at once, and put the cursor on the disk."""
        try:
            if self.status.state != "failing":
                cursor, _ = self._round(ahead, cursor)
            self._save(cursor, last=True)
        except (SinkError, OSError):
            pass
        ahead.close()
        self._speaker.close()

    def _round(self, ahead: Ahead, cursor: k.Cursor) -> tuple[k.Cursor, bool]:
        """Send some of what there is; return the cursor after it, and whether there is more."""
        new = list(ahead.checkpoints(cursor.checkpoint, self._durable)) if self._durable > cursor.checkpoint else []
        if new:
            self._speaker.send([checkpoint_message(each) for each in new])
            cursor = self._moved(msgspec.structs.replace(cursor, checkpoint=new[-1].checkpoint.number))
        mark = self._mark
        if self._config.send != "records" or mark is None:
            return cursor, False
        batch = ahead.records(mark)
        if batch is None:
            # Nothing more, whatever the numbers say: who waits for that has nothing to wait for.
            self._took(self._config.name, mark.head.seq)
            return cursor, self._mark is not mark
        self._speaker.send([record_message(line[:-1]) for line in batch.lines])
        ahead.took(batch)
        at = {"segment": batch.segment, "offset": batch.offset, "record": batch.record}
        cursor = self._moved(msgspec.structs.replace(cursor, **at))
        self._took(self._config.name, batch.record)
        return cursor, True

    def _moved(self, cursor: k.Cursor) -> k.Cursor:
        self._unsaved = True
        self.status = replace(self.status, checkpoint=cursor.checkpoint, record=cursor.record)
        return cursor

    def _save(self, cursor: k.Cursor, *, last: bool = False) -> None:
        """Put the cursor on the disk, now and then; each time costs a sync."""
        now = time.monotonic()
        if self._unsaved and (last or now - self._saved_at >= SAVE_EVERY):
            k.save(self._path, cursor, self._files)
            self._unsaved, self._saved_at = False, now

    def _failing(self, detail: str, hint: str | None) -> None:
        since = self.status.since
        self.status = replace(
            self.status, state="failing", detail=detail, hint=hint, since=time.monotonic() if since is None else since
        )

    def _rest(self, worked: float) -> None:
        """Leave the machine to those who wait."""
        if not self._required:
            self._stopping.wait(min(max(LEAST_REST, worked * REST), LONGEST_REST))


def checkpoint_message(made: c.Signed) -> Message:
    """Return a checkpoint as it is sent: one line of JSON that ``audit verify --expect`` can read."""
    said = {
        "checkpoint": made.checkpoint.number,
        "records": made.checkpoint.head.seq,
        "head": made.checkpoint.head.digest,
        "time": made.checkpoint.time,
        "note": made.note.decode(),
    }
    return Message(
        text=msgspec.json.encode(said), event=c.MADE, time=made.checkpoint.time, number=made.checkpoint.number
    )


def record_message(line: bytes) -> Message:
    """Return a record as it is sent: its line, as it stands; what is no record is sent all the same."""
    try:
        link = _LINK.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Message(text=line, event="damaged", time="-", number=0)
    return Message(text=line, event=link.event, time=link.time, number=link.seq)
