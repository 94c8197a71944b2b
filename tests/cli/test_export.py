"""``secret export``: to a terminal, what the policy gives, and on record."""

import json
import os
import pty
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.running import RunningBroker, room, start

CONFIG: Final = """
[servers.gh]
command = ["true"]
env.GITHUB_TOKEN = "{github}"
env.URL = "postgresql://{db.username}:{db.password}@db"
"""


@pytest.fixture(scope="module")
def broker() -> Iterator[RunningBroker]:
    """Return a broker with two secrets that a server has, and one that nobody has."""
    secrets: dict[str, str | dict[str, str]] = {
        "github": "made up\x1b[2J",
        "db": {"username": "u", "password": "p"},
        "nobody-s": "canary",
    }
    with room() as directory, start(directory / "b", config=CONFIG, secrets=secrets) as running:
        yield running


def export(command: Path, broker: RunningBroker, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command with a pipe for its output."""
    arguments = [str(command), "secret", "export", "--dir", str(broker.places.run.parent), *words]
    return subprocess.run(arguments, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=60)


def test_a_pipe_gets_nothing(mcp_broker: Path, broker: RunningBroker) -> None:
    """Where stdout is no terminal, no value is asked for, and the hint names the danger."""
    before = len(broker.records())
    done = export(mcp_broker, broker)
    assert (2, "", True) == (done.returncode, done.stdout, "--unsafe-stdout" in done.stderr)
    assert not [record for record in broker.records()[before:] if record["event"].startswith("credential/")]


def test_a_terminal_gets_them(mcp_broker: Path, broker: RunningBroker) -> None:
    """On a terminal every field of what is named is printed, in characters that command nothing."""
    master, slave = pty.openpty()
    words = [str(mcp_broker), "secret", "export", "github", "--dir", str(broker.places.run.parent)]
    done = subprocess.run(words, stdout=slave, stdin=slave, stderr=subprocess.PIPE, check=False, timeout=60)
    os.close(slave)
    said = os.read(master, 65536)
    os.close(master)
    assert (0, {"github": {"value": "made up\x1b[2J"}}, False) == (done.returncode, json.loads(said), b"\x1b" in said)


def test_what_is_asked_for_by_its_name_is_given(mcp_broker: Path, broker: RunningBroker) -> None:
    """With the dangerous option a pipe gets them, each release on record, and what no server may have is denied."""
    done = export(mcp_broker, broker, "--unsafe-stdout")
    expected = {"github": {"value": "made up\x1b[2J"}, "db": {"username": "u", "password": "p"}}
    released = {record["secret"] for record in broker.records() if record["event"] == "credential/authorised"}
    assert (3, expected, {"github", "db"}) == (done.returncode, json.loads(done.stdout), released)
    assert ("nobody-s" in done.stderr, "canary" in done.stdout + done.stderr) == (True, False)


def test_a_name_that_is_not_there_is_said(mcp_broker: Path, broker: RunningBroker) -> None:
    """What is not stored cannot be exported."""
    assert 2 == export(mcp_broker, broker, "nothing", "--unsafe-stdout").returncode
