"""
When processes end, by the kernel's word.

One epoll descriptor holds the pidfds of all processes that have a lease, and
the event loop watches that one: ten thousand processes cost the loop nothing
until one of them ends.
"""

import asyncio
import select
from collections.abc import Callable

from broker.attest import Anchor
from broker.core.model import Process


class Lifelines:
    """The processes that hold a lease, and what to do when one ends."""

    def __init__(self, ended: Callable[[Process], None]) -> None:
        """Call ``ended`` once for each process that has, from the event loop."""
        self._ended = ended
        self._epoll = select.epoll()
        self._anchors: dict[Process, Anchor] = {}
        self._by_fd: dict[int, Process] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self) -> None:
        """Begin to watch, in the running loop."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._epoll.fileno(), self._wake)

    def close(self) -> None:
        """Let go of all of them; no process is told."""
        if self._loop is not None:
            self._loop.remove_reader(self._epoll.fileno())
            self._loop = None
        for process in tuple(self._anchors):
            self.release(process)
        self._epoll.close()

    def hold(self, anchor: Anchor) -> None:
        """Watch a process, by a hold of its own; where it is watched already, nothing happens."""
        if anchor.process in self._anchors:
            return
        own = anchor.copy()
        try:
            self._epoll.register(own.pidfd, select.EPOLLIN)
        except OSError:
            own.close()
            raise
        self._anchors[own.process] = own
        self._by_fd[own.pidfd] = own.process

    def release(self, process: Process) -> None:
        """Watch a process no more."""
        anchor = self._anchors.pop(process, None)
        if anchor is None:
            return
        del self._by_fd[anchor.pidfd]
        self._epoll.unregister(anchor.pidfd)
        anchor.close()

    def _wake(self) -> None:
        for fd, _ in self._epoll.poll(0):
            process = self._by_fd.get(fd)
            if process is not None:
                self.release(process)
                self._ended(process)
