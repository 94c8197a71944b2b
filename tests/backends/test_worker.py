"""The thread that blocking libraries run on."""

import asyncio
import threading
from functools import partial

import pytest

from backends.worker import Worker, settled


def test_jobs_are_done_in_order_on_one_thread() -> None:
    """What was submitted first is done first, and all of it by the same thread."""
    worker = Worker("test")
    done = list[tuple[int, int]]()
    for number in range(100):
        worker.submit(partial(lambda n: done.append((n, threading.get_ident())), number))
    worker.submit(lambda: None).result(5)
    worker.stop()
    assert (list(range(100)), 1) == ([number for number, _ in done], len({ident for _, ident in done}))


def test_an_error_reaches_who_waits() -> None:
    """An exception of a job is the waiter's, and the thread goes on."""
    worker = Worker("test")
    failing = worker.submit(lambda: 1 // 0)
    good = worker.submit(lambda: 1)
    with pytest.raises(ZeroDivisionError):
        failing.result(5)
    worker.stop()
    assert 1 == good.result(5)


def test_what_was_cancelled_in_time_is_not_done() -> None:
    """A job that was cancelled while it waited is passed over."""
    worker = Worker("test")
    go, done = threading.Event(), list[int]()
    worker.submit(lambda: go.wait(5))
    waiting = worker.submit(lambda: done.append(1))
    cancelled = waiting.cancel()
    go.set()
    worker.submit(lambda: done.append(2)).result(5)
    worker.stop()
    assert (True, [2]) == (cancelled, done)


def test_a_deadline_leaves_the_job_alone() -> None:
    """Who stops waiting does not stop the work."""
    worker = Worker("test")
    go = threading.Event()

    async def wait() -> tuple[bool, bool, bool]:
        future = worker.submit(lambda: go.wait(5))
        early = await settled(future, 0.01)
        go.set()
        return early, await settled(future, 5), future.result()

    found = asyncio.run(wait())
    worker.stop()
    assert (False, True, True) == found


def test_an_answer_after_the_end_of_the_loop_is_harmless() -> None:
    """A job that ends when nobody is there any more disturbs nobody."""
    worker = Worker("test")
    go = threading.Event()
    future = worker.submit(lambda: go.wait(5))
    late = asyncio.run(settled(future, 0.01))
    go.set()
    worker.stop()
    assert (False, True) == (late, future.result(5))


def test_the_thread_ends_when_it_is_told_to() -> None:
    """After ``stop`` and what was there before it, there is no thread left."""
    worker = Worker("a-name-of-its-own")
    worker.submit(lambda: None).result(5)
    worker.stop()
    for thread in threading.enumerate():
        if thread.name == "a-name-of-its-own":
            thread.join(5)
    assert "a-name-of-its-own" not in {thread.name for thread in threading.enumerate()}
