"""What the live tests share. They are asynchronous, because the official client is."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running import room


@pytest.fixture
def anyio_backend() -> str:
    """Return the event loop that the official client is run on."""
    return "asyncio"


@pytest.fixture
def directory() -> Iterator[Path]:
    """Give a directory whose path is short enough for sockets."""
    with room() as found:
        yield found
