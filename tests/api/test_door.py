"""
The door, where it turns people away: those whom the kernel does not name, and when a dialect cannot be loaded.
"""

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from broker.api.door import Entrance
from broker.api.verbs import WORKLOAD
from tests.api.wire import GET, WHOAMI
from tests.fuzz.in_process import Pipe, running
from tests.fuzz.promises import answers

if TYPE_CHECKING:
    from broker.api.http import HttpDialect


class WithoutHttp(Entrance):
    """An entrance on a machine where the HTTP dialect cannot be loaded."""

    async def http(self) -> "HttpDialect":
        """Fail as an import does that names what it could not find."""
        message = "hunter2"
        raise ImportError(message)


async def heard(entrance: Entrance, end: socket.socket, said: bytes) -> tuple[bytes, bool]:
    """Return what is answered to the first thing said, and whether the connection ends."""
    pipe, door = Pipe(end), entrance.protocol()
    pipe.lost = lambda: door.connection_lost(None)
    door.connection_made(pipe)
    door.data_received(said)
    for _ in range(50):
        await asyncio.sleep(0)
    ended = pipe.is_closing()
    pipe.close()
    await asyncio.sleep(0)
    return bytes(pipe.said), ended


def test_who_cannot_be_served_is_not_left_waiting(caplog: pytest.LogCaptureFixture) -> None:
    """Where the dialect cannot be loaded the client is told that it is our fault; the log says what kind, not more."""

    async def steps() -> tuple[bytes, bool]:
        one, other = socket.socketpair(socket.AF_UNIX)
        with one, other:
            return await heard(WithoutHttp("broker", running(), WORKLOAD), one, GET)

    said, ended = asyncio.run(steps())
    assert (True, True, True) == (said.startswith(b"HTTP/1.1 500 "), b'"code":"internal"' in said, ended)
    assert ("ImportError" in caplog.text, "hunter2" in caplog.text + said.decode()) == (True, False)


@pytest.mark.parametrize("said", [WHOAMI, GET], ids=["lines", "HTTP"])
def test_whom_the_kernel_does_not_name_is_denied(said: bytes) -> None:
    """A connection of which the kernel says nothing is turned away, in its dialect."""

    async def steps() -> tuple[bytes, bool]:
        # What comes over a network has no process that the kernel could name.
        with socket.socket(socket.AF_INET) as nobody:
            return await heard(Entrance("broker", running(), WORKLOAD), nobody, said)

    answer, ended = asyncio.run(steps())
    assert (True, True) == (b'"code":"denied"' in answer, ended)


def test_a_stranger_at_the_admins_socket_is_denied() -> None:
    """Where the entrance is for some uids, another one is turned away."""

    async def steps() -> tuple[bytes, bool]:
        one, other = socket.socketpair(socket.AF_UNIX)
        with one, other:
            entrance = Entrance("admin", running(), WORKLOAD, owners=frozenset({4_000_000}))
            return await heard(entrance, one, WHOAMI)

    answer, ended = asyncio.run(steps())
    assert ("denied", True) == (answers(answer)[0]["error"]["data"]["code"], ended)
