"""
Threads that do one job after another, for libraries that block.

It refuses to be waited for at the end of the program: a thread that hangs in a
frozen file system, or in a keyring's prompt that nobody answers, must not keep
the broker from ending. That is why this is not a ``ThreadPoolExecutor``.
"""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar, final

_T = TypeVar("_T")


@final
class Worker:
    """Threads of its own, one where nothing else is said, and the queue before them. Each starts when it is needed."""

    __slots__ = ("_busy", "_jobs", "_lock", "_most", "_name", "_threads")

    def __init__(self, name: str, *, threads: int = 1) -> None:
        """Call the threads ``name``; with one of them, what is submitted is done in that order."""
        self._name = name
        self._most = threads
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads = 0
        self._busy = 0
        """Jobs that were submitted and are not done."""
        self._lock = threading.Lock()

    def submit(self, job: Callable[[], _T]) -> Future[_T]:
        """Do ``job``, begun after all that was submitted before it. After ``stop`` nothing is done any more."""
        future: Future[_T] = Future()
        with self._lock:
            self._busy += 1
            wanted = self._threads < min(self._busy, self._most)
            self._threads += wanted
        if wanted:
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
        self._jobs.put(lambda: _do(job, future))
        return future

    def stop(self) -> None:
        """End the threads when they have done what they have. Returns at once."""
        for _ in range(self._most):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            # What a job closed over may hold a key; it must not live until the next one comes.
            del job
            with self._lock:
                self._busy -= 1


def _do(job: Callable[[], _T], future: Future[_T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = job()
    except BaseException as error:  # noqa: BLE001  whoever waits gets it
        future.set_exception(error)
    else:
        future.set_result(result)


async def settled(future: Future[_T], seconds: float) -> bool:
    """
    Wait until ``future`` is done, but no longer than ``seconds``; return whether it is.

    Neither the deadline nor a cancelled caller stops the job: what has begun to
    write must end and tell what it wrote.
    """
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def wake() -> None:
        if not done.done():
            done.set_result(None)

    def tell(_: Future[_T]) -> None:
        # The loop may have ended while the thread was still at it.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(wake)

    future.add_done_callback(tell)
    try:
        async with asyncio.timeout(seconds):
            await done
    except TimeoutError:
        return future.done()
    return True
