"""
What one connection may do before others have their turn, seen step by step.
"""

import asyncio
import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import pytest

from broker.api.door import MOST_TURNED_AWAY, Entrance
from broker.api.lines import MOST_A_TURN, MOST_AT_ONCE
from broker.api.messages import Done
from broker.api.verbs import WORKLOAD
from broker.core.model import Limits
from tests.api.wire import WHOAMI
from tests.fuzz.in_process import Pipe, running

MANY: Final = 1000
BAD: Final = b"{\n"
SLOW: Final = WHOAMI.replace(b"whoami", b"slow")


@pytest.fixture
def end() -> Iterator[socket.socket]:
    """Give one end of a pair of sockets, so that the kernel can be asked who is at the other."""
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        yield one


def connected(entrance: Entrance, end: socket.socket) -> tuple[Pipe, asyncio.Protocol]:
    """Return a new connection: what the broker says on it, and what it hears with."""
    pipe, door = Pipe(end), entrance.protocol()
    pipe.lost = lambda: door.connection_lost(None)
    door.connection_made(pipe)
    return pipe, door


async def turns(count: int) -> None:
    """Let the loop turn."""
    for _ in range(count):
        await asyncio.sleep(0)


async def hang_up(*pipes: Pipe) -> None:
    """End the connections."""
    for pipe in pipes:
        pipe.close()
    await turns(1)


def test_of_many_lines_a_few_are_read_a_turn(end: socket.socket) -> None:
    """A thousand lines that come at once are read a few at a time, and nothing more is taken meanwhile."""

    async def steps() -> list[tuple[int, bool]]:
        pipe, door = connected(Entrance("broker", running(), WORKLOAD), end)
        seen = []
        door.data_received(BAD * MANY)
        for wait in (0, 1, MANY):
            await turns(wait)
            seen.append((pipe.said.count(b"\n"), pipe.paused))
        await hang_up(pipe)
        return seen

    assert [(MOST_A_TURN, True), (2 * MOST_A_TURN, True), (MANY, False)] == asyncio.run(steps())


def test_of_many_requests_some_are_worked_on_at_a_time(end: socket.socket) -> None:
    """Requests that take their time are begun until there are enough of them, and the rest when those are done."""

    async def steps() -> list[tuple[int, int, bool]]:
        begun, go_on = [0], asyncio.Event()

        async def slow(*_: object) -> Done:
            begun[0] += 1
            await go_on.wait()
            return Done()

        verbs = {"slow": replace(WORKLOAD["whoami"], name="slow", call=slow)}
        pipe, door = connected(Entrance("broker", running(), verbs), end)
        door.data_received(SLOW * MANY)
        await turns(MANY)
        seen = [(begun[0], pipe.said.count(b"\n"), pipe.paused)]
        go_on.set()
        await turns(MANY)
        seen.append((begun[0], pipe.said.count(b"\n"), pipe.paused))
        await hang_up(pipe)
        return seen

    assert [(MOST_AT_ONCE, 0, True), (MANY, MANY, False)] == asyncio.run(steps())


def test_nothing_is_read_from_who_does_not_read(end: socket.socket) -> None:
    """While the answers of a connection are not read nothing more is taken, and what was taken waits."""

    async def steps() -> list[tuple[int, bool]]:
        pipe, door = connected(Entrance("broker", running(), WORKLOAD), end)
        door.data_received(BAD)
        door.pause_writing()
        seen = [(pipe.said.count(b"\n"), pipe.paused)]
        door.data_received(BAD * MANY)
        await turns(MANY)
        seen.append((pipe.said.count(b"\n"), pipe.paused))
        door.resume_writing()
        await turns(MANY)
        seen.append((pipe.said.count(b"\n"), pipe.paused))
        await hang_up(pipe)
        return seen

    assert [(1, True), (1, True), (1 + MANY, False)] == asyncio.run(steps())


def test_what_was_said_before_a_half_close_is_all_answered(end: socket.socket) -> None:
    """The connection stays until the last of many lines has its answer, and ends then."""

    async def steps() -> tuple[bool, int, bool]:
        pipe, door = connected(Entrance("broker", running(), WORKLOAD), end)
        door.data_received(BAD * MANY)
        stays = bool(door.eof_received())
        await turns(MANY)
        return stays, pipe.said.count(b"\n"), pipe.is_closing()

    assert (True, MANY, True) == asyncio.run(steps())


def test_of_those_turned_away_a_few_may_wait(end: socket.socket) -> None:
    """Over the limit some connections are kept until they can be told why, and the others end at once."""

    async def steps() -> tuple[int, int, bool]:
        parts = running()
        parts.service.policy = replace(parts.service.policy, limits=Limits(connections=1))
        entrance = Entrance("broker", parts, WORKLOAD)
        pipes = [connected(entrance, end)[0] for _ in range(1 + MOST_TURNED_AWAY + 10)]
        kept, ended = sum(not pipe.is_closing() for pipe in pipes), sum(pipe.is_closing() for pipe in pipes)
        await hang_up(*pipes[1:])
        later, _ = connected(entrance, end)
        kept_again = not later.is_closing()
        await hang_up(later, pipes[0])
        return kept, ended, kept_again

    assert (1 + MOST_TURNED_AWAY, 10, True) == asyncio.run(steps())
