"""
The daemon's log waits for nobody, and says what it lost.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import TextIO

import pytest

from broker.logs import MOST, Outlet


@pytest.fixture
def pipe() -> Iterator[tuple[TextIO, TextIO]]:
    """Return both ends of a pipe, the one to read first."""
    ends = os.pipe()
    reading, writing = os.fdopen(ends[0]), os.fdopen(ends[1], "w")
    yield reading, writing
    # In this order: a writer that is stuck comes free when nobody reads any more.
    reading.close()
    with suppress(OSError):
        writing.close()


def line(text: str) -> logging.LogRecord:
    """Return what a logger hands to an outlet."""
    return logging.LogRecord("broker", logging.INFO, __file__, 1, text, None, None)


def test_a_line_comes_through(pipe: tuple[TextIO, TextIO]) -> None:
    """A line that is logged is written."""
    reading, writing = pipe
    outlet = Outlet(writing)
    outlet.emit(line("ready"))
    outlet.close()
    assert "ready\n" == reading.readline()


def test_a_reader_that_does_not_read_holds_up_nobody(pipe: tuple[TextIO, TextIO]) -> None:
    """More lines than a pipe and the queue hold are logged without waiting, and the reader hears of the loss."""
    reading, writing = pipe
    outlet = Outlet(writing)
    for number in range(3 * MOST):
        outlet.emit(line(f"{number} " + "x" * 200))
    read: list[str] = []
    while not read or not read[-1].startswith("mcp-broker: "):
        read.append(reading.readline())
    assert (" lines of this log were lost\n" in read[-1], True) == (True, len(read) < 2 * MOST)


def test_a_reader_that_has_gone_ends_nobody(pipe: tuple[TextIO, TextIO]) -> None:
    """When nobody reads any more, logging goes on to nowhere."""
    reading, writing = pipe
    outlet = Outlet(writing)
    reading.close()
    for _ in range(3):
        outlet.emit(line("unheard"))
    outlet.close()
    assert writing.writable()
