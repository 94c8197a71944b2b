"""
A server from npm under the official client: what it finds in its environment, and what it holds.

It was written by others and shows all that it was given, so that nothing here
depends on what we think a server sees.
"""

import json
import os
from pathlib import Path

import pytest
from mcp.client.stdio import get_default_environment

from tests.live.programs import LEGACY, broker, everything, leases, program, session, table, text
from tests.running import until

pytestmark = [pytest.mark.anyio, pytest.mark.live("npm-servers", commands=["node"])]

VALUE = 'a "made up" value,\nof two lines'

each_era = pytest.mark.parametrize("mode", ["legacy", "auto"])


@each_era
async def test_it_finds_the_base_environment_its_secret_and_nothing_else(
    mcp_broker: Path, directory: Path, mode: str
) -> None:
    """What the server finds is what the client passes on to every server, and its own secret."""
    config = table("shown", everything(), 'env.TOKEN = "{token}"')
    with broker(directory, config, token=VALUE):
        async with session(mcp_broker, ["shown", "--dir", str(directory)], mode=mode) as client:
            found = json.loads(text(await client.call_tool("get-env")))
            version = client.protocol_version
    assert (LEGACY, get_default_environment() | {"TOKEN": VALUE}) == (version, found)


async def test_of_what_a_client_sets_only_what_the_config_names_goes_through(mcp_broker: Path, directory: Path) -> None:
    """Variables that the client's config sets reach the server where ``pass_env`` names them."""
    config = table("shown", everything(), 'env.TOKEN = "{token}"', 'pass_env = ["GRAFANA_*"]')
    set_by_client = {"GRAFANA_URL": "http://grafana", "AWS_PROFILE": "not for it", "NODE_OPTIONS": "--no-such-option"}
    with broker(directory, config, token=VALUE):
        words = ["shown", "--dir", str(directory)]
        async with session(mcp_broker, words, environment=set_by_client) as client:
            found = json.loads(text(await client.call_tool("get-env")))
    assert get_default_environment() | {"TOKEN": VALUE, "GRAFANA_URL": "http://grafana"} == found


async def test_a_file_in_memory_is_there_as_long_as_the_server(mcp_broker: Path, directory: Path) -> None:
    """A server finds its credential in a file that the variable names, and the file goes when it ends."""
    config = table("shown", everything(), 'files.CREDENTIALS = "{gcp}"')
    with broker(directory, config, gcp=VALUE):
        async with session(mcp_broker, ["shown", "--dir", str(directory)]) as client:
            path = Path(json.loads(text(await client.call_tool("get-env")))["CREDENTIALS"])
            held = kept(path)
        until(lambda: not os.path.lexists(path), said="the removal of the file")
    assert (VALUE, 0o600, os.getuid()) == held


def kept(path: Path) -> tuple[str, int, int]:
    """Return what stands in a file, its mode and its owner."""
    status = path.stat()
    return path.read_text(), status.st_mode & 0o777, status.st_uid


async def test_the_lease_hangs_on_the_server_and_ends_with_it(mcp_broker: Path, directory: Path) -> None:
    """While the session is open one lease hangs on the node process itself, and afterwards none."""
    with broker(directory, table("shown", everything(), 'env.TOKEN = "{token}"'), token=VALUE) as running:
        async with session(mcp_broker, ["shown", "--dir", str(directory)]) as client:
            text(await client.call_tool("echo", {"message": "hello"}))
            (lease,) = leases(running)
            found = program(lease)
        until(lambda: not leases(running), said="the end of the lease")
    assert "node" in found


async def test_a_restart_of_the_broker_does_not_touch_the_session(mcp_broker: Path, directory: Path) -> None:
    """The session goes on while the broker is killed and started again, and the lease is the same."""
    with broker(directory, table("shown", everything(), 'env.TOKEN = "{token}"'), token=VALUE) as running:
        async with session(mcp_broker, ["shown", "--dir", str(directory)]) as client:
            before = leases(running)
            running.kill()
            while_down = text(await client.call_tool("echo", {"message": "hello"}))
            running.launch()
            after = leases(running)
    assert (1, before, "Echo: hello") == (len(before), after, while_down)
