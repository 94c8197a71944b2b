"""
The lock of a state directory: one broker at a time, for the whole life of its process.

It names the process and where it listens, for people and for error messages.
This module refuses to break a lock: the kernel does, when its holder has ended.
"""

import fcntl
import os
import time
from pathlib import Path
from typing import Final, final

from broker.errors import UnavailableError

_PAUSE: Final = 0.05


@final
class Lock:
    """
    Held from its making until ``release`` or the end of the process.

    Attributes:
        descriptor: of the file, to be handed on when the process becomes another program.

    """

    def __init__(self, state: Path, *, patience: float = 0.0, inherited: int | None = None) -> None:
        """
        Take the lock.

        Args:
            state: the directory.
            patience: seconds to wait for who holds it, because it may be ending.
            inherited: the descriptor with which this process holds it already.

        Raises:
            UnavailableError: another process has it.

        """
        if inherited is not None:
            os.set_inheritable(inherited, False)  # noqa: FBT003 -- its only form
            self.descriptor = inherited
            return
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self.descriptor = os.open(state / "daemon.lock", flags, 0o600)
        until = time.monotonic() + patience
        while not self._taken():
            if time.monotonic() >= until:
                pid, at = (*os.pread(self.descriptor, 4096, 0).decode("utf-8", "replace").split("\n"), "", "")[:2]
                os.close(self.descriptor)
                message = f"another broker, process {pid or '?'}, runs on {state}"
                message += f" and listens at {at}" if at else ""
                raise UnavailableError(message, hint="mcp-broker status, or mcp-broker stop")
            time.sleep(_PAUSE)

    def _taken(self) -> bool:
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def name(self, socket: Path) -> None:
        """Write down who holds it and where that one listens. A full disk takes no name; it is held all the same."""
        try:
            os.ftruncate(self.descriptor, 0)
            os.pwrite(self.descriptor, f"{os.getpid()}\n{socket}\n".encode(), 0)
        except OSError:
            return

    def release(self) -> None:
        """Let the next one have it."""
        os.close(self.descriptor)
