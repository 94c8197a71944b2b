"""
The daemon's log on stderr, without waiting for whoever takes it.

A pager that nobody scrolls, a terminal that is stopped and a disk that hangs take
no line; the broker goes on, and says later how many lines were lost. This module
refuses to know what is logged: that no value is, is for those who log.
"""

import logging
import queue
import threading
import time
from typing import Final, TextIO, final

MOST: Final = 1000
"""Lines that wait at most."""

LAST: Final = 0.5
"""Seconds that the end waits for the last lines."""


@final
class Outlet(logging.Handler):
    """Hands lines to a thread that writes them."""

    def __init__(self, stream: TextIO) -> None:
        """Begin to write to ``stream``."""
        super().__init__()
        self._stream = stream
        self._waiting: queue.Queue[str] = queue.Queue(MOST)
        self._lost = 0
        threading.Thread(target=self._write, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Have a line written, or count it where too many wait."""
        try:
            self._waiting.put_nowait(self.format(record))
        except queue.Full:
            self._lost += 1

    def close(self) -> None:
        """Wait a little for what waits."""
        end = time.monotonic() + LAST
        while self._waiting.unfinished_tasks and time.monotonic() < end:
            time.sleep(0.002)
        super().close()

    def _write(self) -> None:
        while True:
            line = self._waiting.get()
            lost, self._lost = self._lost, 0
            try:
                if lost:
                    self._stream.write(f"mcp-broker: {lost} lines of this log were lost\n")
                self._stream.write(f"{line}\n")
                self._stream.flush()
            except (OSError, ValueError):
                # Nobody takes it any more: a closed pipe must not end the broker.
                pass
            finally:
                self._waiting.task_done()


def begin(stream: TextIO) -> None:
    """Log to ``stream`` from now on."""
    outlet = Outlet(stream)
    outlet.setFormatter(logging.Formatter("mcp-broker: %(message)s"))
    root = logging.getLogger()
    root.addHandler(outlet)
    root.setLevel(logging.INFO)
