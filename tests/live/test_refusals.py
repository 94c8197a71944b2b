"""
What a client's user reads when a server cannot be started.

To the official client a server that ends at once is "Connection closed", and
nothing more. So that is what must not stand there.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import mcp_types
import pytest
from mcp import MCPError

from tests.live.programs import broker, session, table

pytestmark = pytest.mark.anyio

each_era = pytest.mark.parametrize("mode", ["legacy", "auto", "2026-07-28"])

SOMEBODY_ELSES = table("github", ["true"], 'env.TOKEN = "{token}"', 'selectors = ["uid:54321"]')
WITHOUT_ITS_SECRET = table("github", ["true"], 'env.TOKEN = "{token}"')
WITHOUT_ITS_PROGRAM = table("github", ["no-such-program"])
"""Configs, each with one thing wrong."""


def running(config: str) -> Callable[[Path], AbstractContextManager[object]]:
    """Return what runs a broker with a config."""

    @contextmanager
    def one(directory: Path) -> Iterator[object]:
        with broker(directory, config) as found:
            yield found

    return one


@contextmanager
def locked(directory: Path) -> Iterator[object]:
    """Run a broker whose master key has gone since the secret was stored."""
    with broker(directory, WITHOUT_ITS_SECRET, token="made up") as running:
        running.stop()
        (running.places.state / "master.key").unlink()
        running.launch()
        yield running


class Case(NamedTuple):
    """Something that is wrong, and what its user should read of it."""

    surroundings: Callable[[Path], AbstractContextManager[object]]
    code: int
    why: str
    mend: str


CASES = {
    "unknown": Case(running(""), -32001, "no server is called 'github'", "mcp-broker server list"),
    "somebody else's": Case(running(SOMEBODY_ELSES), -32001, "wants uid:54321", "selectors of [servers.github]"),
    "mistyped": Case(running(table("githup", ["true"])), -32001, "no server is called 'github'", "githup"),
    "locked": Case(locked, -32002, "master.key is missing", "mcp-broker init"),
    "no secret": Case(running(WITHOUT_ITS_SECRET), -32003, "'token'", "mcp-broker secret set token"),
    "no program": Case(running(WITHOUT_ITS_PROGRAM), -32008, "no-such-program", "command -v no-such-program"),
    "no broker": Case(nullcontext, -32003, "no broker answers", "mcp-broker init"),
}


@each_era
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_the_client_hears_why_and_what_to_do(mcp_broker: Path, directory: Path, mode: str, case: Case) -> None:
    """In both eras the first thing that a client asks is answered with the reason and the command that mends it."""
    with case.surroundings(directory):
        error = await refusal(mcp_broker, directory, mode)
    assert (case.code, True, True) == (error.code, case.why in error.message, case.mend in error.message), error.message


async def refusal(command: Path, directory: Path, mode: str) -> mcp_types.ErrorData:
    """Start the server; return the error that the client's user gets to read."""
    try:
        async with session(command, ["github", "--dir", str(directory)], mode=mode) as client:
            found = await client.list_tools()
    except (MCPError, ExceptionGroup) as caught:
        error: BaseException = caught
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        assert isinstance(error, MCPError)
        return error.error
    pytest.fail(f"the server has started: {found}")
