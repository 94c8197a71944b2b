"""
Running a command and keeping all that it prints, as a terminal would show it.

Behind a terminal a command draws, in a pipe it does not. This module refuses to
touch the terminal that the tour itself has.
"""

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

PATIENCE: Final = 20.0
"""Seconds for one command."""


def transcript(
    command: Sequence[str], given: str, *, directory: Path, environment: Mapping[str, str], width: int | None
) -> tuple[int, str]:
    """Run a command with ``given`` on its stdin; return its exit status and its output, errors among it."""
    ours, theirs = os.pipe() if width is None else terminal(width)
    try:
        child = subprocess.Popen(  # noqa: S603 - a command of the tour
            command, stdin=subprocess.PIPE, stdout=theirs, stderr=theirs, cwd=directory, env=dict(environment)
        )
    finally:
        os.close(theirs)
    with child, open(ours, "rb", buffering=0) as output:  # noqa: PTH123 - a descriptor
        try:
            if child.stdin is not None:
                child.stdin.write(given.encode())
                child.stdin.close()
            printed = b"".join(pieces(output.fileno()))
        except BaseException:
            child.kill()
            raise
    return child.returncode, printed.decode(errors="replace").replace("\r\n", "\n")


def terminal(width: int) -> tuple[int, int]:
    """Open a terminal of so many columns; return our end and the command's."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    return ours, theirs


def pieces(descriptor: int) -> Iterator[bytes]:
    """
    Yield what is written to the other end until nobody holds it.

    Raises:
        TimeoutError: somebody holds it for too long.

    """
    until = time.monotonic() + PATIENCE
    while select.select([descriptor], [], [], max(0.0, until - time.monotonic()))[0]:
        try:
            piece = os.read(descriptor, 65536)
        except OSError:
            return  # how a terminal says that its other end is closed
        if not piece:
            return
        yield piece
    message = f"a command did not end within {PATIENCE:.0f} seconds"
    raise TimeoutError(message)
