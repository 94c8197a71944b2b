"""
An upgrade in place, under a running broker and under load: another wheel takes the place of the first.

What runs is the program as pip installs it, in an environment of its own.
"""

import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

import broker
from backends.master_key import create_key_file
from broker.paths import Places, within
from tests.integration.test_launcher import built, installed, put
from tests.running import AnswerError, Connection, HungUpError, room, until

pytestmark = pytest.mark.slow

NEXT: Final = "9.8.7"
LOADS: Final = 6
"""Clients that ask all the time."""

CONFIG: Final = """
[servers.waits]
command = ["sleep", "600"]
env.TOKEN = "{github}"
allow = ["github"]
"""


class Load:
    """Clients that connect, ask twice and go, again and again, as ``exec`` does."""

    def __init__(self, places: Places) -> None:
        """Begin."""
        self.seen: Counter[str] = Counter()
        self.failed: list[str] = []
        self._places = places
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(LOADS)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        while not self._over.is_set():
            try:
                with Connection(self._places.broker_socket) as connection:
                    self.seen[connection.call("whoami")["version"]] += 1
                    connection.call("credential/issue", secret="github", bind="none", ttl="1s")
            except (OSError, HungUpError, AnswerError) as error:
                self.failed.append(repr(error))
            time.sleep(0.01)

    def end(self) -> None:
        """Stop asking."""
        self._over.set()
        for thread in self._threads:
            thread.join()


def ask(places: Places, method: str, **params: Any) -> dict[str, Any]:  # noqa: ANN401
    """Ask the broker as its admin."""
    with Connection(places.admin_socket) as connection:
        return connection.call(method, **params)


@pytest.fixture(scope="module")
def environment() -> Iterator[tuple[Path, Path]]:
    """Return the command of an installation, and the wheel of the next version."""
    with room() as directory:
        yield installed(directory), built(directory / "next", version=NEXT)


@contextmanager
def serving(command: Path, places: Places) -> Iterator[subprocess.Popen[bytes]]:
    """Run the broker of an installation."""
    base = places.run.parent
    for directory in (places.config, places.state):
        directory.mkdir(parents=True, mode=0o700)
    (places.config / "broker.toml").write_text(CONFIG)
    create_key_file(places.state / "master.key")
    with (base / "daemon.log").open("wb") as log:
        child = subprocess.Popen([command, "serve", "--dir", base], stderr=log, stdin=subprocess.DEVNULL, cwd="/")
    try:
        until(places.admin_socket.exists, said="the start of the broker")
        ask(places, "secret/set", name="github", values={"value": "made up"})
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        assert 0 == child.wait(30), (base / "daemon.log").read_text()


def test_an_upgrade_under_load_is_noticed_by_nobody(environment: Sequence[Path]) -> None:
    """The broker becomes the new version: no request fails, no server ends, no lease is lost, its pid stays."""
    command, wheel = environment
    with room() as directory:
        places = within(directory / "b")
        with serving(command, places) as child:
            server = subprocess.Popen([command, "exec", "waits", "--dir", places.run.parent], stdin=subprocess.DEVNULL)
            try:
                (held,) = until(lambda: ask(places, "lease/list", server="waits")["leases"])
                load = Load(places)
                try:
                    put(wheel, command.with_name("python"))
                    until(lambda: load.seen[NEXT] > LOADS, deadline=60, said="the start of the new version")
                finally:
                    load.end()
                out = {lease["accessor"]: lease["state"] for lease in ask(places, "lease/list")["leases"]}
                status = ask(places, "status")
            finally:
                server.kill()
                server.wait()
        assert [] == load.failed
        assert ("active", child.pid, NEXT) == (out.get(held["accessor"]), status["pid"], status["version"])
        assert {broker.__version__, NEXT} == set(load.seen)
        assert not places.broker_socket.exists()


@pytest.mark.live("curl", commands=["curl"])
def test_a_version_that_does_not_load_is_not_started(environment: Sequence[Path]) -> None:
    """Where what was installed is broken, the old program goes on, says so, and imports nothing of it."""
    command, _ = environment
    (packages,) = (command.parent.parent / "lib").glob("python3*/site-packages")
    with room() as directory:
        places = within(directory / "b")
        log = places.run.parent / "daemon.log"
        with serving(command, places) as child:
            daemon, about = packages / "broker/daemon.py", packages / "broker/__init__.py"
            whole = daemon.read_text(), about.read_text()
            try:
                daemon.write_text("import nowhere_to_be_found\n")
                about.write_text(whole[1] + "\n")
                # HTTP is loaded when it is first asked for: now it would be another version's.
                unheard = subprocess.run(
                    ["curl", "--silent", "--unix-socket", places.broker_socket, "http://b/v1/whoami"],
                    capture_output=True,
                    text=True,
                    check=False,
                    timeout=60,
                )
                until(lambda: "does not load" in log.read_text(), deadline=60)
                status = ask(places, "status")
            finally:
                daemon.write_text(whole[0])
                about.write_text(whole[1])
        assert (child.pid, True) == (status["pid"], "nowhere_to_be_found" in log.read_text())
        assert "the broker was upgraded" in unheard.stdout
