"""
The example program for PostgreSQL against a real one, and crashes of the broker around it.

PostgreSQL is the judge: does what the broker hands out log in? This module refuses
to take the program's word for anything.
"""

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from tests.live import postgres
from tests.live.postgres import Postgres
from tests.running import AnswerError, HungUpError, RunningBroker, start, until

pytestmark = pytest.mark.live("postgresql")

KILLS: Final = 10
"""Ends of the broker by SIGKILL, for each of the two ways; more of them only take longer."""

CONFIG: Final = """
[secrets.db]
rotate = {{ grace = "1h", with = {command}{rule} }}
[servers.app]
allow = ["db"]
"""
TURNS: Final = ', generate = { alternate = { username = ["app_a", "app_b"] } }'


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """Start one server for all of these tests."""
    with postgres.running() as found:
        yield found


@pytest.fixture
def database(server: Postgres) -> Postgres:
    """Return it with two users, of whom the first can log in."""
    for user in ("app_a", "app_b"):
        server.sql(f"drop role if exists {user}; create role {user} nologin")
    server.sql("alter role app_a login password 'old'")
    return server


def command(database: Postgres, root: Path, *, admin: bool) -> list[str]:
    """Return the words that run the example."""
    words = [sys.executable, str(root / "examples/rotate-postgresql")]
    # The socket is the superuser's; everybody is asked for a password on the port.
    host = str(database.directory) if admin else "127.0.0.1"
    words += ["--host", host, "--port", str(database.port)]
    return [*words, "--admin", postgres.SUPERUSER] if admin else words


def logs_in(database: Postgres, credential: Mapping[str, str]) -> bool:
    """Say whether PostgreSQL takes a credential."""
    return database.can_log_in(credential["username"], credential["password"])


def asked(words: list[str], step: str, **parts: Any) -> subprocess.CompletedProcess[str]:  # noqa: ANN401 -- credentials
    """Run the program for one step."""
    said = {"step": step, "secret": "db", "current": None, "pending": None, "previous": None, "token": "t"} | parts
    return subprocess.run(words, input=json.dumps(said), capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("turns", [True, False], ids=["two users", "one user"])
def test_the_example_does_each_step_twice(database: Postgres, root: Path, *, turns: bool) -> None:
    """Set, tested, retired, each as often as one likes; with two users the first gets in until it is retired."""
    words = command(database, root, admin=turns)
    old = {"username": "app_a", "password": "old"}
    new = {"username": "app_b" if turns else "app_a", "password": 'it\'s: a\\ new "one"'}
    early = asked(words, "test", current=old, pending=new).returncode
    done = [asked(words, step, current=old, pending=new) for step in ("set", "set", "test", "test")]
    between = (logs_in(database, old), logs_in(database, new))
    done += [asked(words, "retire", current=new, previous=old) for _ in range(2)]
    assert (1, [(0, "")] * 6) == (early, [(each.returncode, each.stderr) for each in done])
    assert ((turns, True), (False, True)) == (between, (logs_in(database, old), logs_in(database, new)))


@pytest.mark.parametrize("turns", [True, False], ids=["two users", "one user"])
def test_the_example_goes_back(database: Postgres, root: Path, *, turns: bool) -> None:
    """Abandoned before and after it was set, the old credential is good and the new one is not."""
    words = command(database, root, admin=turns)
    old = {"username": "app_a", "password": "old"}
    new = {"username": "app_b" if turns else "app_a", "password": "new"}
    done = [asked(words, step, current=old, pending=new) for step in ("abandon", "set", "abandon", "abandon")]
    assert [0] * 4 == [each.returncode for each in done], done
    assert (True, False) == (logs_in(database, old), logs_in(database, new))


def test_what_the_example_says_of_trouble_holds_no_password(database: Postgres, root: Path) -> None:
    """Refused, unreachable, asked for what it does not know: a sentence and a status, and nothing of a password."""
    words = command(database, root, admin=False)
    old, new = ({"username": "app_a", "password": each} for each in ("made-up-old", "made-up-new"))
    said = [
        asked(words, "set", current=old, pending=new),
        asked([*words, "--port", "1"], "set", current=old, pending=new),
        asked(words, "promote", current=old, pending=new),
        asked(words, "set", current=old, pending=new | {"password": "nöt ascii"}),
    ]
    assert [1] * 4 == [each.returncode for each in said]
    assert all(each.stderr.strip() for each in said)
    assert not [each.stderr for each in said if "made-up" in each.stderr or "nöt" in each.stderr]


def test_nothing_of_a_password_reaches_the_server_log(database: Postgres, root: Path) -> None:
    """Even a server that logs every statement does not learn the new password from it."""
    database.sql("alter system set log_statement = 'all'")
    database.sql("select pg_reload_conf()")
    words = command(database, root, admin=True)
    new = {"username": "app_b", "password": "not-for-the-log"}
    assert 0 == asked(words, "set", current={"username": "app_a", "password": "old"}, pending=new).returncode
    database.sql("alter system reset log_statement")
    database.sql("select pg_reload_conf()")
    log = (database.directory / "log").read_text()
    assert (True, False) == ("alter role" in log, "not-for-the-log" in log)


def issued(broker: RunningBroker) -> dict[str, str]:
    """Return what the broker hands out now."""
    values = broker.call("credential/issue", secret="db", bind="none", ttl="10s")["values"]
    return {field: value.expose() for field, value in values.items()}


def state(broker: RunningBroker) -> str:
    """Return how the rotation is."""
    found: str = broker.admin("rotation/list", name="db")["rotations"][0]["state"]
    return found


def over(broker: RunningBroker) -> None:
    """Wait until a rotation is over, ending its pauses and its grace."""

    def idle() -> bool:
        try:
            if state(broker) != "idle":
                broker.admin("rotate", name="db", resume=True)
        except AnswerError:
            pass
        return state(broker) == "idle"

    until(idle, deadline=120, said="the end of the rotation")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("turns", [True, False], ids=["two users", "one user"])
def test_kills_at_any_moment(tmp_path: Path, database: Postgres, root: Path, *, turns: bool) -> None:
    """
    Killed at random moments of a rotation, the broker carries it on to an end that logs in.

    With two users whatever the broker hands out logs in, at every moment at which
    somebody looks; with one there is the gap between the new password and its use.
    """
    chance = random.SystemRandom()
    text = CONFIG.format(command=json.dumps(command(database, root, admin=turns)), rule=TURNS if turns else "")
    first = {"username": "app_a", "password": "old"}
    refused: list[str] = []
    with start(tmp_path / "b", config=text, secrets={"db": first}) as broker:
        stop = threading.Event()

        def look() -> None:
            while not stop.is_set():
                try:
                    credential = issued(broker)
                    # What is refused and is not handed out any more was retired between the two.
                    if not logs_in(database, credential) and issued(broker) == credential:
                        refused.append(credential["username"])
                except (AnswerError, HungUpError, OSError):
                    time.sleep(0.05)
                time.sleep(0.02)

        watcher = threading.Thread(target=look)
        watcher.start()
        try:
            for _ in range(KILLS):
                if state(broker) == "idle":
                    broker.admin("rotate", name="db")
                time.sleep(chance.uniform(0.0, 0.8))
                broker.kill()
                broker.launch()
                if chance.random() < 0.4:
                    over(broker)
            over(broker)
        finally:
            stop.set()
            watcher.join(60)
        last = issued(broker)
        staged = broker.admin("rotation/list", name="db")["rotations"][0]
    assert (True, "idle", None) == (logs_in(database, last), staged["state"], staged["stage"])
    if turns:
        assert [] == refused
        assert database.logins() == {last["username"]}
