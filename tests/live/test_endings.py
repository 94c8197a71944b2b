"""
How sessions end, as clients and their users end them: by signals, at any moment, with a second process in between.

A server that outlives its client, or a lease that outlives its server, is what
nobody sees until it has become many.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pytest
from mcp import MCPError

from tests.live.programs import broker, everything, installed, leases, session, table, text
from tests.running import RunningBroker, until

TERMINATE_AFTER: Final = 1.0
"""Seconds that the client for Node gives a server between SIGTERM and SIGKILL."""

DISCOVER: Final = (
    b'{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{"_meta":'
    b'{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}\n'
)


@pytest.mark.anyio
@pytest.mark.live("npm-servers", commands=["node"])
async def test_a_server_that_is_killed_holds_nothing_any_more(mcp_broker: Path, directory: Path) -> None:
    """When the server is killed in the middle of a session its lease ends, and the client hears of it."""
    with broker(directory, table("shown", everything(), 'env.TOKEN = "{token}"'), token="made up") as running:
        async with session(mcp_broker, ["shown", "--dir", str(directory)]) as client:
            text(await client.call_tool("echo", {"message": "hello"}))
            (lease,) = leases(running)
            os.kill(lease["pid"], signal.SIGKILL)
            until(lambda: not leases(running), said="the end of the lease")
            with pytest.raises(MCPError, match="Connection closed"):
                await client.call_tool("echo", {"message": "hello"})
        ended = until(lambda: ended_leases(running), said="the record of the end")
    assert [lease["accessor"]] == ended


def ended_leases(running: RunningBroker) -> list[str]:
    """Return the accessors of the leases whose end is on record."""
    return [record["accessor"] for record in running.records() if record["event"] == "lease/ended"]


def started(command: Path, directory: Path, name: str) -> subprocess.Popen[bytes]:
    """Start a server through exec, as the clients do."""
    words = [str(command), "exec", name, "--dir", str(directory)]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)


def discovered(server: subprocess.Popen[bytes]) -> bytes:
    """Ask a server what it is; return its answer."""
    assert server.stdin
    assert server.stdout
    server.stdin.write(DISCOVER)
    server.stdin.flush()
    return server.stdout.readline()


def ended(server: subprocess.Popen[bytes]) -> None:
    """End a server as the client for Node ends the one that it only asked what it is."""
    assert server.stdin
    server.stdin.close()
    server.terminate()


@pytest.mark.live("pypi-servers")
@pytest.mark.parametrize("milliseconds", [0, 5, 10, 20, 40, 80, 160, 640])
def test_whenever_it_is_ended_it_ends_at_once_and_holds_nothing(
    mcp_broker: Path, directory: Path, milliseconds: int
) -> None:
    """Ended at any moment of its start it is gone before the client would use force, and no lease is left."""
    config = table("time", [installed("python/bin/mcp-server-time")], 'env.TOKEN = "{token}"')
    with broker(directory, config, token="made up") as running, started(mcp_broker, directory, "time") as server:
        time.sleep(milliseconds / 1000)
        ended(server)
        status = server.wait(TERMINATE_AFTER)
        until(lambda: not leases(running), said="the end of the lease")
    assert status in {-signal.SIGTERM, 0}


@pytest.mark.live("pypi-servers")
def test_a_process_that_is_only_asked_what_it_is_leaves_the_other_alone(mcp_broker: Path, directory: Path) -> None:
    """Of two that a client starts at the same time one is ended at once, and the other keeps its lease."""
    config = table("time", [installed("python/bin/mcp-server-time")], 'env.TOKEN = "{token}"')
    with (
        broker(directory, config, token="made up") as running,
        started(mcp_broker, directory, "time") as first,
        started(mcp_broker, directory, "time") as second,
    ):
        answers = [b"2026-07-28" in discovered(server) for server in (first, second)]
        held = {lease["pid"] for lease in leases(running)}
        ended(first)
        until(lambda: len(leases(running)) == 1, said="the end of one lease")
        left = [lease["pid"] for lease in leases(running)]
        ended(second)
        both, other = {first.pid, second.pid}, [second.pid]
    assert ([True, True], both, other) == (answers, held, left)


@pytest.mark.parametrize("milliseconds", [0, 10, 30, 100, 300])
def test_one_that_cannot_start_ends_as_fast(mcp_broker: Path, directory: Path, milliseconds: int) -> None:
    """An exec that stays to say what is wrong ends with its input, and by the signal, like any server."""
    with broker(directory, "") as running, started(mcp_broker, directory, "nobody") as server:
        time.sleep(milliseconds / 1000)
        ended(server)
        status = server.wait(TERMINATE_AFTER)
        held = leases(running)
    assert (True, []) == (status in {-signal.SIGTERM, 3}, held)


def test_the_whole_group_may_be_ended(mcp_broker: Path, directory: Path) -> None:
    """A signal to the process group, as the official client sends it, reaches what the server has started."""
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(input())'])"
    config = table("parent", [sys.executable, "-c", script], 'env.TOKEN = "{token}"')
    with broker(directory, config, token="made up") as running, started(mcp_broker, directory, "parent") as server:
        (lease,) = until(lambda: leases(running), said="the lease")
        children = Path(f"/proc/{server.pid}/task/{server.pid}/children")
        (child,) = until(lambda: children.read_text().split(), said="the server's own child")
        os.killpg(server.pid, signal.SIGTERM)
        status = server.wait(TERMINATE_AFTER)
        until(lambda: gone(int(child)), said="the end of the child")
        until(lambda: not leases(running), said="the end of the lease")
    assert (-signal.SIGTERM, server.pid) == (status, lease["pid"])


def gone(pid: int) -> bool:
    """Return whether a process has ended, whoever has yet to hear of it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
