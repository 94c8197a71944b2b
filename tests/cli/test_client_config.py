"""``client-config``: what is printed can be read by what the client reads it with, and leads to our command."""

import json
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.clients.entry import Start, entry
from broker.clients.known import ALIASES, CLIENTS
from broker.clients.launcher import launcher
from broker.errors import UnavailableError
from tests.cli.shell import shell

START = Start(server="a.b", command='/opt/my "own"/mcp-broker', arguments=["exec", "a.b"], env={"PATH": "/x:/y"})
NOT_JSON = ("codex", "continue", "goose", "librechat")


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the options of a broker that does not run and has a config."""
    directory = tmp_path_factory.mktemp("broker")
    (directory / "config").mkdir(mode=0o700)
    config = '[servers.app]\ncommand = ["no-such-program"]\n[servers.grant]\nallow = ["s"]\n'
    (directory / "config/broker.toml").write_text(config)
    (directory / "config/broker.toml").chmod(0o600)
    return ["--dir", str(directory)]


def leaves(value: object) -> Iterator[object]:
    """Yield all that is in JSON or TOML, at any depth."""
    if isinstance(value, dict):
        for one in value.values():
            yield from leaves(one)
    elif isinstance(value, list):
        for one in value:
            yield from leaves(one)
    else:
        yield value


@pytest.mark.parametrize("name", [name for name in CLIENTS if name not in NOT_JSON])
def test_an_entry_is_json(name: str) -> None:
    """It holds the command, its arguments and the variable as they are, under a name that every client takes."""
    found: dict[str, Any] = json.loads(entry(CLIENTS[name], START).text)
    ((top, servers),) = found.items()
    assert (["a-b"], True) == (list(servers), top in {"mcpServers", "servers", "context_servers", "mcp"})
    assert {START.command, "exec", "a.b", "/x:/y"} <= set(leaves(servers))


def test_the_entry_of_codex_is_toml() -> None:
    """It is a table of its own, so that it can be appended to the file."""
    found = tomllib.loads(entry(CLIENTS["codex"], START).text)
    expected = {"command": START.command, "args": ["exec", "a.b"], "env": {"PATH": "/x:/y"}}
    assert {"mcp_servers": {"a-b": expected}} == found


@pytest.mark.parametrize("name", NOT_JSON[1:])
def test_an_entry_in_yaml_quotes_what_it_holds(name: str) -> None:
    """Texts are written as JSON writes them, which YAML reads."""
    text = entry(CLIENTS[name], START).text
    assert all(json.dumps(one) in text for one in (START.command, "a-b", "/x:/y"))
    assert json.dumps(["exec", "a.b"]) in text


def test_other_names_lead_to_clients() -> None:
    """Every alias is of a client, and of one alone."""
    assert (set(), set()) == (set(ALIASES.values()) - CLIENTS.keys(), ALIASES.keys() & CLIENTS.keys())


@pytest.mark.parametrize("client", ["claude-code", "Claude Desktop", "gemini-cli", "codex", "vscode"])
def test_the_entry_alone_goes_to_stdout(where: list[str], client: str) -> None:
    """It can be piped; where it belongs, and a program that cannot be found, are told on stderr."""
    done = shell("client-config", "app", "--client", client, *where)
    read = tomllib.loads if client == "codex" else json.loads
    assert {"exec", "app", *where} <= set(leaves(read(done.out)))
    assert (0, True, True) == (done.status, ": into " in done.err, "no-such-program is not in" in done.err)


def test_programs_get_all_of_it(where: list[str]) -> None:
    """``--json`` has the entry, its format, where it belongs, and the command that does the same."""
    found = shell("client-config", "app", "--client", "claude", "--json", *where).json
    assert ("claude-code", "json") == (found["client"], found["format"])
    assert found["command"].startswith("claude mcp add --scope user app -- /")


def test_the_path_of_a_shell_can_go_along(where: list[str]) -> None:
    """``--with-path`` is for servers whose program only the shell finds."""
    done = shell("client-config", "app", "--client", "cursor", "--with-path", *where)
    assert os.environ["PATH"] == json.loads(done.out)["mcpServers"]["app"]["env"]["PATH"]


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["app"], 2, "no client is named"),
        (["app", "--client", "cursr"], 2, "is cursor meant"),
        (["ap", "--client", "cursor"], 2, "is 'app' meant"),
        (["grant", "--client", "cursor"], 78, "has no command"),
        (["app", "--client", "cursor", "--socket", "/x"], 2, "--socket says where a broker listens"),
    ],
)
def test_what_cannot_be_printed_is_explained(where: list[str], words: list[str], status: int, says: str) -> None:
    """A mistake ends with a sentence and nothing on stdout."""
    done = shell("client-config", *words, *([] if "--socket" in words else where))
    assert (status, "", True) == (done.status, done.out, says in done.err), done.err


def test_the_link_of_an_installer_is_preferred(tmp_path: Path) -> None:
    """Where pipx or uv linked to our launcher, the link is named, which stays when what it leads to is replaced."""
    own = tmp_path / "venv/bin/mcp-broker"
    own.parent.mkdir(parents=True)
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    assert own == launcher(tmp_path / "venv", home=tmp_path).path
    link = tmp_path / ".local/bin/mcp-broker"
    link.parent.mkdir(parents=True)
    link.symlink_to(own)
    assert link == launcher(tmp_path / "venv", home=tmp_path).path


def test_the_link_of_another_installation_is_not_ours(tmp_path: Path) -> None:
    """A command of the same name that leads elsewhere is not named."""
    for name in ("venv/bin/mcp-broker", ".local/bin/mcp-broker"):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    assert tmp_path / "venv/bin/mcp-broker" == launcher(tmp_path / "venv", home=tmp_path).path


def test_without_a_launcher_there_is_no_path(tmp_path: Path) -> None:
    """A checkout that was never installed has no command to name."""
    with pytest.raises(UnavailableError, match="there is no launcher"):
        launcher(tmp_path, home=tmp_path)
