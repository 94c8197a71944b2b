"""
The time of a fake server: the true time, plus what a test has let pass.

It refuses to go backward.
"""

import threading
import time


class Clock:
    """A clock that a test can put forward."""

    def __init__(self) -> None:
        """Begin with the true time."""
        self._ahead = 0.0
        self._lock = threading.Lock()

    def now(self) -> float:
        """Return Unix seconds."""
        with self._lock:
            return time.time() + self._ahead

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        if seconds < 0:
            message = "time does not go backward"
            raise ValueError(message)
        with self._lock:
            self._ahead += seconds
