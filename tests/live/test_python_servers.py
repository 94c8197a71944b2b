"""
Servers from PyPI under the official client, in the newest era of the protocol and in the one before.

They run in an environment of their own, as pipx and uvx make it.
"""

import json
import subprocess
from pathlib import Path

import pytest

from tests.live.programs import LEGACY, MODERN, broker, installed, leases, session, table, text

pytestmark = [pytest.mark.anyio, pytest.mark.live("pypi-servers", commands=["git"])]

each_era = pytest.mark.parametrize(("mode", "version"), [("legacy", LEGACY), ("auto", MODERN)])


@each_era
async def test_the_time_server_takes_arguments_from_its_client(
    mcp_broker: Path, directory: Path, mode: str, version: str
) -> None:
    """What the client writes after the double dash reaches the server, where the config allows it."""
    command = [installed("python/bin/mcp-server-time")]
    config = table("time", command, "client_args = true", 'env.TOKEN = "{token}"')
    with broker(directory, config, token="made up"):
        words = ["time", "--dir", str(directory), "--", "--local-timezone", "Asia/Kathmandu"]
        async with session(mcp_broker, words, mode=mode) as client:
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            asked = {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Kathmandu"}
            answer = json.loads(text(await client.call_tool("convert_time", asked)))
            spoken = client.protocol_version
    described = tools["get_current_time"].input_schema["properties"]["timezone"]["description"]
    assert (version, True) == (spoken, "Asia/Kathmandu" in described)
    assert "17:45" in answer["target"]["datetime"]


@pytest.fixture
def repository(directory: Path) -> Path:
    """Return a git repository with one file that is not committed yet."""
    path = directory / "repository"
    subprocess.run(["git", "init", "--quiet", path], check=True)
    (path / "file").write_text("text")
    return path


@each_era
async def test_the_git_server_uses_its_secrets(
    mcp_broker: Path, directory: Path, repository: Path, mode: str, version: str
) -> None:
    """The git server commits in the name and with the address that only the broker knows."""
    command = [installed("python/bin/mcp-server-git"), "--repository", str(repository)]
    lines = [f'env.GIT_{who}_{what} = "{{ada.{what.lower()}}}"' for who in ("AUTHOR", "COMMITTER") for what in WHO]
    with broker(directory, table("git", command, *lines), ada=WHO_SHE_IS) as running:
        async with session(mcp_broker, ["git", "--dir", str(directory)], mode=mode) as client:
            place = {"repo_path": str(repository)}
            text(await client.call_tool("git_add", place | {"files": ["file"]}))
            text(await client.call_tool("git_commit", place | {"message": "First"}))
            (lease,) = leases(running)
            spoken = client.protocol_version
    assert (version, "ada", 1) == (spoken, lease["secret"], lease["version"])
    assert "Ada <ada@example.org>" == author(repository)


WHO = ("NAME", "EMAIL")
WHO_SHE_IS = {"name": "Ada", "email": "ada@example.org"}


def author(repository: Path) -> str:
    """Return who made the last commit."""
    shown = ["git", "-C", str(repository), "log", "-1", "--format=%an <%ae>"]
    return subprocess.run(shown, check=True, capture_output=True, text=True).stdout.strip()
