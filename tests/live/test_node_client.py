"""
The official client for Node, which in its newer mode starts every server twice.

The first process is asked only what it is, and ended at once by closing its
input and a signal. It must not be in the way of the second, nor leave anything.
"""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.live import test_refusals as refusals
from tests.live.programs import INSTALLED, LEGACY, MODERN, PATIENCE, broker, everything, installed, leases, table
from tests.running import until

pytestmark = pytest.mark.live("node-client", commands=["node"])

SCRIPT = Path(__file__).with_name("node_client.mjs")

each_mode = pytest.mark.parametrize("mode", ["legacy", "auto"])


def seen(command: Path, words: Sequence[str], mode: str, *calls: dict[str, Any]) -> dict[str, Any]:
    """Start a server through exec under the client for Node; return what it saw."""
    installed("npm/node_modules/@modelcontextprotocol/client")
    wanted = json.dumps({"command": str(command), "args": ["exec", *words], "mode": mode, "calls": calls})
    node = ["node", str(SCRIPT), str(INSTALLED / "npm"), wanted]
    done = subprocess.run(node, check=True, capture_output=True, text=True, timeout=PATIENCE)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@each_mode
def test_a_server_from_npm(mcp_broker: Path, directory: Path, mode: str) -> None:
    """A server of the older era works in both modes, with its secret, and leaves no lease behind."""
    with broker(directory, table("shown", everything(), 'env.TOKEN = "{token}"'), token="made up") as running:
        found = seen(mcp_broker, ["shown", "--dir", str(directory)], mode, {"name": "get-env"})
        until(lambda: not leases(running), said="the end of every lease")
    said = [json.loads(text)["TOKEN"] for text in found["said"]]
    assert (LEGACY, ["made up"], None) == (found["version"], said, found.get("error"))


@pytest.mark.live("pypi-servers")
@pytest.mark.parametrize(("mode", "version"), [("legacy", LEGACY), ("auto", MODERN), ({"pin": MODERN}, MODERN)])
def test_a_server_from_pypi(mcp_broker: Path, directory: Path, mode: str, version: str) -> None:
    """A server of the newer era works in every mode, and leaves no lease behind."""
    config = table("time", [installed("python/bin/mcp-server-time")], 'env.TOKEN = "{token}"')
    with broker(directory, config, token="made up") as running:
        found = seen(mcp_broker, ["time", "--dir", str(directory)], mode)
        until(lambda: not leases(running), said="the end of every lease")
        opened = [record["pid"] for record in running.records() if record["event"] == "server/opened"]
    # In the legacy mode nobody has to find out what the server is.
    assert (version, None, 1 if mode == "legacy" else 2) == (found["version"], found.get("error"), len(set(opened)))


@each_mode
def test_its_user_reads_why_a_server_does_not_start(mcp_broker: Path, directory: Path, mode: str) -> None:
    """
    What stands in the client's error is the reason and the command that mends it.

    But not where a version is pinned: then the client says that the server does not speak it, whatever it said.
    """
    with broker(directory, ""):
        error = seen(mcp_broker, ["github", "--dir", str(directory)], mode)["error"]
    assert "no server is called 'github'" in error["message"]
    assert "mcp-broker server list" in error["message"]


@each_mode
@pytest.mark.parametrize("case", refusals.CASES.values(), ids=refusals.CASES)
def test_its_user_reads_every_reason(mcp_broker: Path, directory: Path, mode: str, case: refusals.Case) -> None:
    """Locked, denied, missing or mistyped: what the client shows is that, and not that a connection was closed."""
    with case.surroundings(directory):
        error = seen(mcp_broker, ["github", "--dir", str(directory)], mode)["error"]
    assert (case.code, True, True) == (error["code"], case.why in error["message"], case.mend in error["message"]), (
        error
    )
