"""Another user of the same machine, at somebody else's broker."""

import subprocess

import pytest

from tests import running
from tests.cli.shell import COMMAND, DEADLINE, environment

STRANGER = 4242

pytestmark = pytest.mark.root


@pytest.mark.parametrize("words", [["status"], ["get", "github"], ["exec", "gh"], ["stop"]], ids=" ".join)
def test_a_stranger_is_not_let_in(words: list[str]) -> None:
    """Somebody else's commands end with status 3 and say which socket is closed to them."""
    with running.room() as room, running.start(room, secrets={"github": "canary"}):
        command = [*running.as_user(STRANGER), *COMMAND, *words, "--dir", str(room)]
        done = subprocess.run(
            command, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, timeout=DEADLINE, check=False
        )
        assert (3, b"", False) == (done.returncode, done.stdout, b"canary" in done.stderr)
        assert f"you may not connect to the broker at {room}/run/".encode() in done.stderr
