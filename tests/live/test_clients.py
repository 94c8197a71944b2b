"""
What ``client-config`` prints, read by the clients' own parsers.

They are too large to be pinned with the rest (Codex 400 MB, Gemini CLI and the
Inspector 100 each), so these tests run where somebody has installed them:

    cd .cache/live && mkdir -p clients && cd clients && npm init --yes && npm install --ignore-scripts
    @openai/codex @google/gemini-cli @modelcontextprotocol/inspector@2.12.0 (one line)
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.shell import shell
from tests.live.programs import PATIENCE, broker, everything, installed, table

pytestmark = pytest.mark.live("clients-own-parsers", commands=["node"])


@pytest.fixture
def where(directory: Path) -> Iterator[list[str]]:
    """Return the options of a broker that runs and has a server."""
    with broker(directory, table('"my.server"', everything(), 'env.TOKEN = "{token}"'), token="made up"):
        yield ["--dir", str(directory)]


def printed(client: str, where: list[str]) -> str:
    """Return the entry for a client."""
    return shell("client-config", "my.server", "--client", client, *where).out


def typed(client: str, where: list[str]) -> str:
    """Return the command that does the same."""
    found: str = shell("client-config", "my.server", "--client", client, "--json", *where).json["command"]
    return found


def run(program: str, *words: str, home: Path) -> str:
    """Run a client with a home of its own, and return what it says."""
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "GEMINI_CLI_TRUST_WORKSPACE": "true"}
    done = subprocess.run(
        [installed(f"clients/node_modules/.bin/{program}"), *words],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    return done.stdout + done.stderr


def transports(said: str) -> list[dict[str, Any]]:
    """Return how Codex would start each server."""
    listed = json.loads(said[said.index("[\n") : said.rindex("]") + 1])
    return [{"name": one["name"], **one["transport"]} for one in listed]


def test_codex_reads_the_file_and_takes_the_command(tmp_path: Path, where: list[str]) -> None:
    """Codex lists the server with our command, whether it was pasted or added by its own command."""
    (tmp_path / ".codex").mkdir()
    (tmp_path / ".codex/config.toml").write_text(printed("codex", where))
    pasted = transports(run("codex", "mcp", "list", "--json", home=tmp_path))
    assert [("my-server", ["exec", "my.server", *where])] == [(one["name"], one["args"]) for one in pasted]
    (tmp_path / ".codex/config.toml").unlink()
    _type(typed("codex", where), tmp_path)
    assert pasted == transports(run("codex", "mcp", "list", "--json", home=tmp_path))


def test_gemini_reads_the_file_and_takes_the_command(tmp_path: Path, where: list[str]) -> None:
    """Gemini CLI lists the server with our command and its arguments, by either way."""
    (tmp_path / ".gemini").mkdir()
    (tmp_path / ".gemini/settings.json").write_text(printed("gemini", where))
    expected = f"mcp-broker exec my.server {' '.join(where)} (stdio)"
    said = run("gemini", "mcp", "list", home=tmp_path)
    assert ("my-server" in said, expected in said) == (True, True), said
    (tmp_path / ".gemini/settings.json").unlink()
    _type(typed("gemini", where), tmp_path)
    assert json.loads(printed("gemini", where)) == json.loads((tmp_path / ".gemini/settings.json").read_text())


def test_the_inspector_starts_the_server(tmp_path: Path, where: list[str]) -> None:
    """The Inspector reads the entry, starts the server through the broker and lists its tools."""
    (tmp_path / "mcp.json").write_text(printed("inspector", where))
    words = ["--cli", "--config", str(tmp_path / "mcp.json"), "--server", "my-server", "--method", "tools/list"]
    assert '"get-env"' in run("mcp-inspector", *words, home=tmp_path)


def _type(command: str, home: Path) -> None:
    """Type a client's command into a shell."""
    programs = f"{installed('clients/node_modules/.bin')}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {"HOME": str(home), "PATH": programs, "GEMINI_CLI_TRUST_WORKSPACE": "true"}
    subprocess.run(["sh", "-c", command], env=environment, cwd=home, capture_output=True, timeout=PATIENCE, check=True)
