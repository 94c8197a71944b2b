"""A whole broker with a real gnome-keyring: a hundred servers, the commands, one leak nowhere."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from backends.base import Secret
from tests import canary as c
from tests.cli.shell import Done, shell, terminal
from tests.conftest import ROOT
from tests.live.desktop import COMMANDS, PASSWORD, Desktop, Prompter, desktop, users_own_session
from tests.running import AnswerError, Connection, RunningBroker, room, start, until

pytestmark = pytest.mark.live("keyring", commands=COMMANDS)

SERVERS = 100

CONFIG = """
[backends.desktop]
type = "keyring"
bus = "{address}"

[secrets.kept]
backend = "desktop"

[secrets.theirs]
backend = "desktop"
params = {{ service = "gh:x", username = "me" }}

[servers.keeper]
command = ["{python}", "-c", "import sys; print('ready', flush=True); sys.stdin.read()"]
env.KEPT = "{{kept}}"
files.KEPT_FILE = "{{kept}}"
allow = ["theirs"]
"""

MANY = "".join(
    f'[secrets.s{n}]\nbackend = "desktop"\n[servers.s{n}]\ncommand = ["true"]\nenv.TOKEN = "{{s{n}}}"\n'
    for n in range(SERVERS)
)


@pytest.fixture
def directory() -> Iterator[Path]:
    """Return a directory with a short path."""
    with room() as found:
        yield found


@pytest.fixture
def there(directory: Path) -> Iterator[Desktop]:
    """Return a session of its own for each test."""
    with desktop(directory / "home") as found:
        yield found


@pytest.fixture
def broker(directory: Path, there: Desktop) -> Iterator[RunningBroker]:
    """Return a broker whose backend ``desktop`` is that session's keyring."""
    config = CONFIG.format(address=there.address, python=sys.executable) + MANY
    with start(directory / "broker", config=config) as running:
        yield running


def run(broker: RunningBroker, *words: str, send: str = "") -> Done:
    """Run a command against the broker."""
    return shell(*words, "--dir", str(broker.places.run.parent), send=send)


def health(broker: RunningBroker, name: str) -> str:
    """Return the state of a backend."""
    return next(str(row["state"]) for row in broker.admin("status")["backends"] if row["name"] == name)


def opened(broker: RunningBroker) -> list[str]:
    """Have a hundred servers ask for what they need at once; return what became of each."""
    with ExitStack() as stack:
        connections = [stack.enter_context(Connection(broker.places.broker_socket)) for _ in range(SERVERS)]
        for number, connection in enumerate(connections):
            connection.send("server/open", server=f"s{number}")
        answers = [connection.receive() for connection in connections]
    return [
        answer["result"]["env"]["TOKEN"].expose()
        if "result" in answer
        else f"{answer['error']['data']['code']}: {answer['error']['data']['hint']}"
        for answer in answers
    ]


def test_a_hundred_servers_that_start_while_it_is_locked(broker: RunningBroker, there: Desktop) -> None:
    """They cause one prompt; each gets the error with the command; after ``unlock`` all start."""
    for number in range(SERVERS):
        broker.admin("secret/set", name=f"s{number}", values={"value": f"made up {number}"})
    there.lock()
    with Prompter(there.address, declines=False) as prompter:
        locked = opened(broker)
        status = run(broker, "status")
        unlocked = run(broker, "unlock", send=f"{PASSWORD}\n")
        assert ({"locked: mcp-broker unlock"}, 1) == (set(locked), prompter.asked)
        assert (True, 0) == ("it is locked, and asks for its password" in status.out, unlocked.status)
        assert ([f"made up {number}" for number in range(SERVERS)], 1) == (opened(broker), prompter.asked)


def test_exec_stays_with_the_error_and_the_next_start_works(broker: RunningBroker, there: Desktop) -> None:
    """A client is told what to type, by a server that answers; when that was done, the server itself starts."""
    broker.admin("secret/set", name="kept", values={"value": "made up"})
    there.lock()
    with Prompter(there.address, declines=True):
        said = run(broker, "exec", "keeper", send='{"jsonrpc":"2.0","id":1,"method":"initialize"}\n')
    assert (4, True, True) == (said.status, "mcp-broker unlock" in said.out, "mcp-broker unlock" in said.err)
    there.unlock()
    assert "ready\n" == run(broker, "exec", "keeper").out


def test_unlock_asks_on_the_terminal_without_echo(broker: RunningBroker, there: Desktop) -> None:
    """The password is typed and not shown; a wrong one is asked for again."""
    broker.admin("secret/set", name="kept", values={"value": "made up"})
    there.lock()
    where = ["--dir", str(broker.places.run.parent)]
    first = "password of the keyring 'Login': "
    again = f"that is not the password of the keyring 'Login'\r\n{first}"
    with Prompter(there.address, declines=True):
        shown = terminal("unlock", *where, typed={first: "wrong one", again: PASSWORD})
    assert (0, False, False) == (shown.status, PASSWORD in shown.out, there.locked())
    assert "the keyring 'Login' is unlocked" in shown.out
    assert "nothing is locked\n" == run(broker, "unlock").out


def test_a_keyring_that_is_not_there_keeps_no_other_locked(directory: Path, there: Desktop) -> None:
    """``unlock`` opens what it can, and then says what it could not; a backend that does not exist is a mistake."""
    lost = f'[backends.a]\ntype = "keyring"\nbus = "unix:path={directory}/none"\n'
    with start(directory / "broker", config=lost + CONFIG.format(address=there.address, python="true")) as broker:
        there.lock()
        said = run(broker, "unlock", send=f"{PASSWORD}\n")
        wrong = run(broker, "unlock", "--backend", "desktp")
    assert (4, "the keyring 'Login' is unlocked\n", False) == (said.status, said.out, there.locked())
    assert (True, 2) == ("backend a: the session bus does not answer" in said.err, wrong.status)


def test_a_wrong_password_is_denied_and_goes_nowhere(broker: RunningBroker, there: Desktop) -> None:
    """It is on record that somebody tried, and the password is in no file, no answer and no process."""
    broker.admin("secret/set", name="kept", values={"value": "made up"})
    there.lock()
    wrong = c.made_up()
    with Prompter(there.address, declines=True):
        said = run(broker, "unlock", send=wrong.expose())
    outcomes = [record["outcome"] for record in broker.records() if record["event"] == "backend/unlock"]
    assert (3, ["begun", "failed"]) == (said.status, outcomes)
    assert [] == c.in_bytes(wrong, (said.out + said.err).encode())
    assert [] == c.in_files(wrong, [broker.places.run.parent, there.directory]) + c.in_processes(wrong)


def test_the_commands_work_on_it(broker: RunningBroker, there: Desktop) -> None:
    """``secret set``, ``list``, ``versions`` and ``rm`` keep a secret there, named by the config or not."""
    first = run(broker, "secret", "set", "kept", "--backend", "desktop", send="made up\n")
    other = run(broker, "secret", "set", "other", "--backend", "desktop", send="made up\n")
    listed = run(broker, "secret", "list", "--backend", "desktop", "--json").json["secrets"]
    versions = run(broker, "secret", "versions", "other", "--backend", "desktop", "--json").json["versions"]
    removed = run(broker, "secret", "rm", "other", "--backend", "desktop", "--yes")
    stored = [(row["name"], row["stored"], row["version"]) for row in listed if not row["name"].startswith("s")]
    assert (0, "", True) == (first.status, first.err, '[secrets.other]\n    backend = "desktop"' in other.err)
    assert [("kept", True, 1), ("other", True, 1), ("theirs", None, None)] == [
        *(row for row in stored if row[0] != "theirs"),
        *(row for row in stored if row[0] == "theirs"),
    ]
    assert ([1], 0) == ([version["number"] for version in versions], removed.status)
    assert ["kept (mcp-broker)", "kept (mcp-broker, its versions)"] == there.labels()


def test_a_locked_keyring_hides_no_other_store(broker: RunningBroker, there: Desktop) -> None:
    """``secret list`` shows what the sealed store keeps, and says of the keyring that it is locked."""
    broker.admin("secret/set", name="local-one", values={"value": "made up"})
    there.lock()
    shown = run(broker, "secret", "list")
    assert (0, True, True) == (shown.status, "local-one" in shown.out, "mcp-broker unlock" in shown.err)


def test_an_item_that_somebody_has_broken_hides_no_other(broker: RunningBroker, there: Desktop) -> None:
    """``secret list`` shows all others, and says which one cannot be read and why."""
    broker.admin("secret/set", name="s0", values={"value": "made up"})
    words = ["secret-tool", "store", "--label=x", "service", "mcp-broker", "username", "kept"]
    subprocess.run(words, env=there.environment, input=b"\xff\xfe", check=True)
    found = run(broker, "secret", "list", "--json").json
    stored = {row["name"]: row["stored"] for row in found["secrets"] if row["name"] in {"kept", "s0", "s1"}}
    why = "secret kept in backend desktop: an item of the keyring is not text in UTF-8, as every value is"
    assert ({"kept": None, "s0": True, "s1": False}, [why]) == (stored, found["problems"])


def test_what_another_program_keeps_is_not_written(broker: RunningBroker) -> None:
    """A secret that is read with ``params`` is refused to ``secret set``."""
    with pytest.raises(AnswerError) as caught:
        broker.admin("secret/set", name="theirs", values={"value": "made up"})
    assert ("invalid_request", "write it with the program that it belongs to") == (caught.value.code, caught.value.hint)


def test_a_value_is_nowhere_but_in_its_child(broker: RunningBroker, there: Desktop) -> None:
    """What was read from the keyring is in the server's environment, and in no file, process, record or output."""
    kept, theirs = c.made_up(), c.made_up()
    broker.admin("secret/set", name="kept", values={"value": kept.expose()})
    there.secret_tool("store", "--label=gh", "service", "gh:x", "username", "me", said=theirs.expose())
    broker.call("credential/issue", secret="kept")
    assert Secret(theirs.expose()) == broker.call("credential/issue", secret="theirs")["values"]["value"]
    words = [sys.executable, "-m", "broker", "exec", "keeper", "--dir", str(broker.places.run.parent)]
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert b"ready\n" == child.stdout.readline()
        held = c.in_bytes(kept, Path(f"/proc/{child.pid}/environ").read_bytes())
        elsewhere = [
            *c.in_processes(kept, allowed=[child.pid]),
            *c.in_processes(theirs),
            *c.in_files(kept, [broker.places.run.parent, there.directory]),
            *c.in_files(theirs, [broker.places.run.parent, there.directory]),
        ]
        child.kill()
    shown = "".join(
        done.out + done.err
        for done in (run(broker, "status"), run(broker, "secret", "list"), run(broker, "audit", "show"))
    )
    assert (True, [], []) == ("as it is" in held, elsewhere, c.in_bytes(kept, shown.encode()))


@pytest.mark.root
def test_the_bus_is_found_by_the_uid_alone(directory: Path) -> None:
    """A broker with no environment finds the keyring of the user that it runs as."""
    config = '[backends.desktop]\ntype = "keyring"\n[secrets.github]\nbackend = "desktop"\n'
    with (
        users_own_session(directory / "home"),
        start(directory / "broker", config=config, uid=1, environment={}) as running,
    ):
        until(lambda: health(running, "desktop") == "ok", said="the keyring's unlocking")
        stored = running.admin("secret/set", name="github", values={"value": "made up"})
    assert 1 == stored["version"]


def test_the_hosts_broker_refuses_it(directory: Path) -> None:
    """``check`` says why a service has no keyring, with the file and the line, and the daemon does not start."""
    file = directory / "broker.toml"
    file.write_text('[backends.desktop]\ntype = "keyring"\n')
    file.chmod(0o600)
    checked = shell("check", "--system", "--config", str(file))
    reason = "a service has no desktop, no session bus, and so no keyring"
    assert (78, True) == (checked.status, f"{file}:1: backends.desktop: {reason}" in checked.err)
    with (
        pytest.raises(ChildProcessError, match=reason),
        start(directory / "broker", config=file.read_text(), mode="system"),
    ):
        pass
