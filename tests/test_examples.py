"""
The examples, read and run as they are.

An example that does not work teaches the wrong thing.
"""

import http.server
import json
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from broker.config import load_file
from broker.config.advice import advice
from broker.paths import Mode
from tests.running import RunningBroker, room, start, until

SCRIPTS = '[servers.scripts]\nallow = ["deploy"]\n'
VALUE = "made up"


@pytest.mark.parametrize(("mode", "warned"), [("user", []), ("system", ["servers.legacy.unsafe_user_selector"])])
def test_a_config_is_what_check_accepts(mcp_broker: Path, root: Path, mode: Mode, warned: list[str]) -> None:
    """The commented configs are valid, and warned of for nothing but what says unsafe."""
    path = root / f"examples/{mode}/broker.toml"
    words = [str(mcp_broker), "check", f"--{mode}", "--config", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    found = [each.key for each in advice(load_file(path, mode)) if each.severity == "warning"]
    assert (0, warned) == (done.returncode, found), done.stderr


def test_the_unit_has_what_files_need(root: Path) -> None:
    """The example's server with files has a unit that says what ``exec`` demands of it, and starts that server."""
    servers = load_file(root / "examples/system/broker.toml", "system").servers
    with_files = [name for name, server in servers.items() if server.files]
    unit = (root / "examples/system/mcp-app.service").read_text().splitlines()
    starts = "ExecStart=/opt/mcp-broker/bin/mcp-broker exec --system app"
    assert (["app"], True, True) == (with_files, starts in unit, "RuntimeDirectory=mcp-app" in unit)


def test_the_clients_servers_are_in_the_config(root: Path) -> None:
    """What the client's config starts is what the broker's config names."""
    wanted = json.loads((root / "examples/client.json").read_text())["mcpServers"]
    servers = load_file(root / "examples/user/broker.toml", "user").servers
    assert {} == {name: entry for name, entry in wanted.items() if entry["args"][1] not in servers}


@pytest.fixture
def broker() -> Iterator[RunningBroker]:
    """Run a broker that lets scripts have the secret."""
    with room() as directory, start(directory, config=SCRIPTS, secrets={"deploy": VALUE}) as running:
        yield running


@contextmanager
def listening(seen: list[str]) -> Iterator[str]:
    """Listen for HTTP and keep who said to be who; give the address."""

    class Reader(http.server.BaseHTTPRequestHandler):
        """Reads one request."""

        def do_GET(self) -> None:
            """Keep what it brings."""
            seen.append(self.headers["Authorization"])
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"deployed")

    with http.server.HTTPServer(("127.0.0.1", 0), Reader) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/deploy"
        server.shutdown()
        thread.join()


def run(script: Path, *words: str, environment: Mapping[str, str]) -> str:
    """Run a script to its good end; return its output."""
    done = subprocess.run([script, *words], env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.live("curl", commands=["curl"])
def test_the_script_that_uses_get(mcp_broker: Path, root: Path, broker: RunningBroker) -> None:
    """The script signs in with the credential, and its lease ends when it does."""
    seen: list[str] = []
    path = f"{mcp_broker.parent}:{os.environ['PATH']}"
    with listening(seen) as address:
        environment = {**os.environ, "PATH": path, "DEPLOY_URL": address, "no_proxy": "127.0.0.1"}
        words = ["--dir", str(broker.places.run.parent)]
        said = run(root / "examples/with-get.sh", *words, environment=environment)
    until(lambda: not broker.admin("lease/list")["leases"], said="the end of the lease")
    assert ("deployed", [f"Bearer {VALUE}"]) == (said, seen)


@pytest.mark.live("curl", commands=["curl"])
def test_the_script_that_uses_curl(root: Path, broker: RunningBroker) -> None:
    """The script gets told who it is, and the credential with a lease of a minute."""
    said = run(root / "examples/with-curl.sh", str(broker.places.broker_socket), environment=os.environ)
    whoami, issued = map(json.loads, said.splitlines())
    (lease,) = broker.admin("lease/list")["leases"]
    assert (os.getuid(), {"value": VALUE}) == (whoami["uid"], issued["values"])
    assert (issued["accessor"], None) == (lease["accessor"], lease["pid"])
