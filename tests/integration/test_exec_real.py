"""``exec`` and the real broker: the values arrive, the leases hang on the server, and refusals are told."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import running
from tests.integration.exec_run import CLIENT_ENVIRONMENT, PREFIX, run, teller, told
from tests.running import RunningBroker, until

INITIALIZE = b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}\n'


@pytest.fixture(scope="module")
def broker() -> Iterator[RunningBroker]:
    """Return a broker with servers that say what they were given."""
    config = f"""
[servers.env]
command = {json.dumps(teller("own"))}
client_args = true
env.GITHUB_TOKEN = "Bearer {{github}}"
pass_env = ["GRAFANA_*"]

[servers.file]
command = ["/bin/sh", "-c", 'cat "$KEY_FILE"; read line']
files.KEY_FILE = "{{github}}"

[servers.stranger]
command = ["true"]
selectors = ["uid:4242"]

[servers.missing]
command = ["true"]
env.T = "{{never-stored}}"

[servers.nowhere]
command = ["no-such-program"]
env.T = "{{github}}"
"""
    with running.room() as room, running.start(room, config=config, secrets={"github": "canary-ü"}) as started:
        yield started


@pytest.fixture
def where(broker: RunningBroker) -> list[str]:
    """Return the options that lead exec to the broker."""
    return ["--dir", str(broker.places.run.parent)]


def test_the_server_has_its_credential_and_the_base_and_nothing_else(where: list[str]) -> None:
    """The environment is exactly what is written down, what passes and what the config names."""
    caller = {**CLIENT_ENVIRONMENT, "GRAFANA_URL": "u", "AWS_SECRET_ACCESS_KEY": "x"}
    found = told(run(["env", *where, "--", "--more"], environment=caller))
    assert {**CLIENT_ENVIRONMENT, "GRAFANA_URL": "u", "GITHUB_TOKEN": "Bearer canary-ü"} == found["environment"]
    assert (["own", "--more"], [0, 1, 2]) == (found["argv"], found["descriptors"])


def test_the_lease_hangs_on_the_server_and_ends_with_it(broker: RunningBroker, where: list[str]) -> None:
    """While the server runs its lease is listed under its pid; when it has ended the lease is gone, and so the file."""
    pipe = subprocess.PIPE
    with subprocess.Popen([*PREFIX, "file", *where], stdin=pipe, stdout=pipe, env=dict(CLIENT_ENVIRONMENT)) as server:
        assert server.stdout is not None
        assert "canary-ü" == server.stdout.read(len("canary-ü".encode())).decode()
        leases = [each for each in broker.admin("lease/list")["leases"] if each["pid"] == server.pid]
        assert [("github", "file")] == [(each["secret"], each["server"]) for each in leases]
        server.communicate(timeout=15)
    until(lambda: server.pid not in {each["pid"] for each in broker.admin("lease/list")["leases"]})


def test_the_file_of_a_server_that_was_killed_is_swept(where: list[str]) -> None:
    """A server that had no time to clean up leaves no file in memory for long."""
    pipe = subprocess.PIPE
    with subprocess.Popen([*PREFIX, "file", *where], stdin=pipe, stdout=pipe, env=dict(CLIENT_ENVIRONMENT)) as server:
        assert server.stdout is not None
        server.stdout.read(len("canary-ü".encode()))
        environment = Path(f"/proc/{server.pid}/environ").read_bytes().split(b"\0")
        path = next(Path(each.partition(b"=")[2].decode()) for each in environment if each.startswith(b"KEY_FILE="))
        assert path.exists()
        server.kill()
    until(lambda: not path.exists(), said="the sweep")


@pytest.mark.parametrize(
    ("server", "status", "says"),
    [
        ("unheard-of", 3, "unheard-of"),
        ("stranger", 3, "stranger"),
        ("missing", 4, "mcp-broker secret set never-stored"),
        ("nowhere", 78, "no-such-program"),
    ],
)
def test_a_server_that_cannot_start_is_told_to_the_client(
    broker: RunningBroker, where: list[str], server: str, status: int, says: str
) -> None:
    """The client's first request is answered with what is wrong, and no lease is left behind."""
    done = run([server, *where], send=INITIALIZE)
    answer = json.loads(done.stdout)
    assert (status, 1, True) == (done.returncode, answer["id"], says in answer["error"]["message"])
    assert (b"canary" in done.stdout + done.stderr, []) == (False, broker.admin("lease/list", server=server)["leases"])


def test_a_broker_that_has_stopped_is_told_to_the_client(tmp_path: Path) -> None:
    """Where the broker was stopped the answer names the command that starts it."""
    with running.start(tmp_path / "b") as broker:
        broker.stop()
        done = run(["gh", "--dir", str(tmp_path / "b")], send=INITIALIZE)
        assert (4, f"mcp-broker serve --dir {tmp_path}/b") == (
            done.returncode,
            json.loads(done.stdout)["error"]["data"]["hint"],
        )
