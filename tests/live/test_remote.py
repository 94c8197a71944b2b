"""What docs/remote.md says: a header for a server over HTTP, in no config and no argument."""

import re
import tomllib
from pathlib import Path

import pytest

from tests import canary
from tests.cli.shell import shell
from tests.live.http_server import guarded
from tests.live.programs import ROOT, broker, installed

pytestmark = pytest.mark.live("npm-servers", commands=["node"])


def test_the_header_reaches_the_server_and_stands_nowhere_else(directory: Path) -> None:
    """With the config of the document, but for the address, the remote server's tools are listed."""
    (said,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs/remote.md").read_text(), re.DOTALL)
    program = installed("npm/node_modules/mcp-remote/package.json").removesuffix("package.json") + "dist/proxy.js"
    value = canary.made_up().expose().partition('"')[0]
    with guarded(f"Bearer {value}") as remote:
        config = said.replace('"npx", "-y", "mcp-remote"', f'"node", "{program}"')
        config = config.replace("https://mcp.example.com/mcp", remote.address)
        command = tomllib.loads(config)["servers"]["linear"]["command"]
        assert (["node", program, remote.address], True) == (command[:3], "{" in command[-1])
        with broker(directory, config, linear=value):
            where = ["--dir", str(directory)]
            done = shell(
                *("server", "add", "again", "--like", "linear", *where),
                HOME=str(directory),
            )
    assert (0, True) == (done.status, "1 tool: look" in done.err), done.err
    assert {f"Bearer {value}"} == set(remote.came)
    assert value not in done.out + done.err
