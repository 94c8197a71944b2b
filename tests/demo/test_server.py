"""
The tour's own server, service and client, each against the real other side.

The server under the official client in both eras; our own small client against
servers that misbehave.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import anyio
import pytest
from mcp import Client, MCPError
from mcp.client.stdio import StdioServerParameters

from broker.demo import bare, official, server, service
from broker.demo.service import Notes
from broker.demo.session import Opener, SessionError
from tests.running import room

PATIENCE: Final = 60.0


@pytest.fixture
def anyio_backend() -> str:
    """Return the event loop that the official client is run on."""
    return "asyncio"


@pytest.fixture
def notes() -> Iterator[Notes]:
    """Run the service behind the server."""
    with room() as directory, Notes(directory / "notes.sock") as found:
        yield found


def words(notes: Notes, token: str) -> list[str]:
    """Return what follows ``env`` to start the server with a token. It is made up: it may be seen."""
    return [f"{server.TOKEN}={token}", sys.executable, "-I", "-S", server.__file__, notes.path]


each_client = pytest.mark.parametrize("opener", [bare.session, official.session], ids=["bare", "official"])


@pytest.mark.anyio
@pytest.mark.parametrize(("mode", "version"), [("legacy", "2025-11-25"), ("auto", "2026-07-28")])
async def test_the_server_speaks_both_eras(notes: Notes, mode: str, version: str) -> None:
    """Under the official client the tool works in the newest era and in the one before."""
    with anyio.fail_after(PATIENCE):
        async with Client(StdioServerParameters(command="env", args=words(notes, notes.token)), mode=mode) as client:
            tools = [tool.name for tool in (await client.list_tools()).tools]
            said = (await client.call_tool(server.TOOL)).content[0].model_dump()["text"]
            spoken = client.protocol_version
            with pytest.raises(MCPError, match="there is no tool other"):
                await client.call_tool("other")
    assert (version, [server.TOOL], service.NOTES, 1) == (spoken, tools, said, notes.asked)


@each_client
def test_the_service_knows_one_token(notes: Notes, opener: Opener) -> None:
    """With another token the tool fails, and says what the service said."""
    with opener("env", words(notes, "wrong"), sys.stderr) as session, pytest.raises(SessionError, match="401"):
        session.call(server.TOOL)
    assert notes.asked == 0


@each_client
def test_both_clients_see_the_same(notes: Notes, opener: Opener) -> None:
    """The official client and our own settle on the same version, and get the same answers."""
    with opener("env", words(notes, notes.token), sys.stderr) as session:
        found = (session.version, list(session.tools()), session.call(server.TOOL))
    assert ("2026-07-28", [server.TOOL], service.NOTES) == found


@each_client
@pytest.mark.parametrize(
    "command",
    [["false"], ["/no/such/program"], ["sh", "-c", "read line; exit 0"], ["sh", "-c", "read line; echo no JSON"]],
    ids=["ends at once", "is not there", "ends when asked", "speaks something else"],
)
def test_a_server_that_is_none_is_an_error(opener: Opener, command: list[str]) -> None:
    """What does not speak the protocol is told to the tour as such, by both clients."""
    with pytest.raises(SessionError), opener(command[0], command[1:], sys.stderr):
        pass


ANSWERS: Final = server.Server("/no/such/service", "made up").answer


def ask(method: str, **params: object) -> bytes:
    """Return a request as it comes in."""
    return json.dumps({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}).encode()


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (ask("resources/list"), -32601),
        (b'{"id": 7, "method": "tools/call", "params": [1]}', -32602),
        (ask("tools/call", _meta=1, name=server.TOOL + "s"), -32602),
        (ask("resources/list", _meta={server.VERSION_OF_REQUEST: server.MODERN}), -32601),
        (ask("tools/list", _meta={server.VERSION_OF_REQUEST: "2099-01-01"}), -32022),
    ],
)
def test_what_the_server_does_not_know_is_an_error(line: bytes, code: int) -> None:
    """An unknown method and an unknown version get the protocol's own errors."""
    answer = ANSWERS(line)
    assert answer
    assert (7, code) == (answer["id"], answer["error"]["code"])


@pytest.mark.parametrize(
    "line", [b"", b"no JSON", b"[]", b"1", b'{"method": "notifications/initialized"}', b'{"id": 1, "result": {}}']
)
def test_what_asks_nothing_gets_no_answer(line: bytes) -> None:
    """Notifications, answers and noise are passed over."""
    assert ANSWERS(line) is None


def test_a_service_that_is_not_there_is_told(tmp_path: Path) -> None:
    """Without the service the tool fails with a reason, and not with an exception's text."""
    given, said = server.read_notes(str(tmp_path / "nothing"), "made up")
    assert (False, "the service does not answer: No such file or directory") == (given, said)
