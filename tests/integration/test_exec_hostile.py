"""
The installed command where a client really starts it: surroundings that could break it, or get into it.

Each with a broker that runs, and a server that says what it was given.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from tests.integration.exec_run import CLIENT_ENVIRONMENT, TELL, teller
from tests.integration.test_launcher import installed
from tests.running import RunningBroker, room, start

SPRING: Final = "import os\nos.write(1, b'trapped\\n')\nos._exit(66)\n"
TRAPS: Final = ("broker", "backends", "json", "os", "site", "sitecustomize", "usercustomize", "_socket", "encodings")

GIVEN: Final = {"TOKEN": "made up"}
"""What the config says that the server gets."""

RUNNERS: Final = ("npx", "uvx", "node", "python", "docker")


def config(room: Path) -> str:
    """Return a config with a server for each way in which servers are started, all of which say what they got."""
    tables = [_table("tells", teller("argument"))]
    words = {
        "npx": ["npx", "-y", "@modelcontextprotocol/server-github"],
        "uvx": ["uvx", "mcp-server-git"],
        "node": ["node", str(room / "index.js")],
        "python": ["python", "-m", "a_server"],
        "docker": ["docker", "run", "-i", "--rm", "-e", "TOKEN", "image"],
    }
    return "\n".join([*tables, *(_table(name, words[name]) for name in RUNNERS)])


def _table(name: str, command: Sequence[str]) -> str:
    return f'[servers.{name}]\ncommand = {json.dumps(list(command))}\nenv.TOKEN = "{{github}}"\n'


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """Return a directory with an installation in it, and a broker beside it."""
    with room() as directory:
        yield directory


@pytest.fixture(scope="module")
def command(place: Path) -> Path:
    """Return the command as the wheel installs it."""
    return installed(place)


@pytest.fixture(scope="module")
def broker(place: Path) -> Iterator[RunningBroker]:
    """Return a broker that runs."""
    with start(place / "b", config=config(place), secrets={"github": GIVEN["TOKEN"]}) as running:
        yield running


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """Return a directory in which everything that could be picked up is a trap, broker/ among it."""
    for name in TRAPS:
        (tmp_path / f"{name}.py").write_text(SPRING)
    (tmp_path / "broker").mkdir()
    for name in ("__init__", "exec", "__main__"):
        (tmp_path / "broker" / f"{name}.py").write_text(SPRING)
    return tmp_path


def asked(
    command: Path,
    broker: RunningBroker,
    server: str = "tells",
    *,
    directory: Path = Path("/"),
    environment: Mapping[str, str] = CLIENT_ENVIRONMENT,
) -> dict[str, Any]:
    """Start a server by the installed command and return what it says."""
    done = subprocess.run(
        [command, "exec", server, "--dir", broker.places.run.parent],
        cwd=directory,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_with_six_variables_the_server_gets_them_and_its_own(command: Path, broker: RunningBroker) -> None:
    """All that the SDKs pass on is enough, and all that the server sees besides what the config says."""
    assert {**CLIENT_ENVIRONMENT, **GIVEN} == asked(command, broker)["environment"]


def test_with_no_variable_at_all_it_starts(command: Path, broker: RunningBroker) -> None:
    """Neither HOME nor PATH is needed to find the broker and a server with a whole path."""
    assert GIVEN == asked(command, broker, environment={})["environment"]


@pytest.mark.parametrize("home", ["/nonexistent", "", "relative/and/gone"])
def test_home_may_be_anything(command: Path, broker: RunningBroker, home: str) -> None:
    """Where HOME leads nowhere, the server is started, with that HOME."""
    assert home == asked(command, broker, environment={**CLIENT_ENVIRONMENT, "HOME": home})["environment"]["HOME"]


def test_nothing_around_it_gets_in(command: Path, broker: RunningBroker, trap: Path) -> None:
    """Modules in the client's directory and whatever its variables point at are not run, and not passed on."""
    hostile = {
        **CLIENT_ENVIRONMENT,
        "PYTHONPATH": f"{trap}:.",
        "PYTHONHOME": str(trap),
        "PYTHONSTARTUP": str(trap / "os.py"),
        "PYTHONUSERBASE": str(trap),
        "PYTHONINSPECT": "1",
        "BASH_ENV": str(trap / "os.py"),
        "ENV": str(trap / "os.py"),
        "NODE_OPTIONS": f"--require {trap}/os.js",
        "LD_LIBRARY_PATH": str(trap),
    }
    found = asked(command, broker, directory=trap, environment=hostile)
    assert ({**CLIENT_ENVIRONMENT, **GIVEN}, str(trap)) == (found["environment"], found["directory"])


def test_the_trap_would_spring(trap: Path) -> None:
    """A Python that looks around itself runs what lies there: the test above can fail."""
    exposed = {"PYTHONPATH": str(trap), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [shutil.which("python3") or "python3", "-c", "import json"], env=exposed, capture_output=True, check=False
    )
    assert 66 == done.returncode


@pytest.mark.parametrize("closed", ["0", "1", "2", "0 1 2"])
def test_closed_descriptors_are_nobody_s(command: Path, broker: RunningBroker, closed: str, tmp_path: Path) -> None:
    """Where the client has closed what a program expects to be open, no socket of ours takes the place."""
    out = tmp_path / "out"
    words = " ".join(f"{number}>&-" for number in closed.split())
    tell = TELL.replace("sys.stdout", "open(sys.argv[1], 'w')")
    text = _table("closed", [*teller()[:-1], tell, str(out)]) + config(tmp_path)
    broker.write_config(text)
    broker.admin("reload")
    script = f'exec "$0" exec closed --dir "$1" {words}'
    subprocess.run(
        ["sh", "-c", script, command, broker.places.run.parent],
        env=dict(CLIENT_ENVIRONMENT),
        check=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    found = json.loads(out.read_text())
    # The file that it writes this to, and the directory that it lists, are its own.
    assert ([0, 1, 2], "made up") == (found["descriptors"][:3], found["environment"]["TOKEN"])
    assert not [line for line in found["descriptors"] if line > 5]


@pytest.mark.parametrize("runner", RUNNERS)
def test_every_way_to_start_a_server_gets_the_base_environment(
    command: Path, broker: RunningBroker, tmp_path: Path, runner: str
) -> None:
    """npx, uvx, node, python and docker find proxies, certificates and docker's variables, and nothing unasked."""
    broker.write_config(config(broker.places.run.parent.parent))
    broker.admin("reload")
    # A stand-in under the runner's name says what it was started with.
    stand_in = tmp_path / runner
    python = teller()
    body = "\n".join([f"#!{python[0]} -IS", TELL])
    stand_in.write_text(body)
    stand_in.chmod(0o755)
    passed = {
        **CLIENT_ENVIRONMENT,
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "HTTPS_PROXY": "http://proxy.example:3128",
        "NODE_EXTRA_CA_CERTS": "/etc/ssl/ca.pem",
        "SSL_CERT_FILE": "/etc/ssl/ca.pem",
        "DOCKER_HOST": "unix:///run/docker.sock",
        "XDG_CACHE_HOME": "/home/p/.cache",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
    }
    found = asked(command, broker, runner, environment={**passed, "GITHUB_TOKEN": "the caller's", "AWS_PROFILE": "x"})
    assert {**passed, **GIVEN} == found["environment"]
    assert GIVEN["TOKEN"] not in " ".join(found["argv"])


def test_a_runner_in_the_client_s_directory_is_not_started(
    command: Path, broker: RunningBroker, tmp_path: Path
) -> None:
    """A ``npx`` of the repository that the client stands in is passed over, whatever PATH says of it."""
    (tmp_path / "npx").write_text("#!/bin/sh\necho trapped\n")
    (tmp_path / "npx").chmod(0o755)
    done = subprocess.run(
        [command, "exec", "npx", "--dir", broker.places.run.parent],
        cwd=tmp_path,
        env={**CLIENT_ENVIRONMENT, "PATH": ".::relative:/nonexistent"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (78, False, True) == (done.returncode, "trapped" in done.stdout, "whole path" in done.stderr)
