"""
The one thread that writes the audit log: it does one job after the other and tells the loop what came of each.

A disk that hangs stops it and nothing else. This module refuses to decide what
an answer means, and to wait for a thread that hangs when the broker ends.
"""

import asyncio
import logging
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import final

from broker.audit_writer import SegmentError, Written

Job = Callable[[], Written]


@final
class Clerk:
    """Takes jobs from the loop, one at a time."""

    _loop: asyncio.AbstractEventLoop
    _done: Callable[[Written | SegmentError], None]
    _ended: Callable[[], None]

    def __init__(self, close: Callable[[], None]) -> None:
        """Start nothing yet; ``close`` is called on the thread when it ends."""
        self._close = close
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()

    def begin(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        done: Callable[[Written | SegmentError], None],
        ended: Callable[[], None],
    ) -> None:
        """Start the thread; ``done`` and ``ended`` are called in the loop."""
        self._loop, self._done, self._ended = loop, done, ended
        Thread(target=self._work, name="audit", daemon=True).start()

    def give(self, job: Job | None) -> None:
        """Have a job done; None ends the thread after those before it."""
        self._jobs.put(job)

    def _work(self) -> None:
        """Do one job after the other until there is None. The loop may be gone by the time a hung disk lets go."""
        while (job := self._jobs.get()) is not None:
            answer: Written | SegmentError
            try:
                answer = job()
            except SegmentError as error:
                answer = error
            except Exception as error:
                logging.getLogger(__name__).exception("audit log: a job failed in a way that nobody foresaw")
                answer = SegmentError(f"unexpected {type(error).__name__}", hint="mcp-broker status")
            if not self._tell(self._done, answer):
                break
        self._close()
        self._tell(self._ended)

    def _tell(self, what: Callable[..., object], *arguments: object) -> bool:
        """Call something in the loop, if there still is one."""
        try:
            self._loop.call_soon_threadsafe(what, *arguments)
        except RuntimeError:
            return False
        return True
