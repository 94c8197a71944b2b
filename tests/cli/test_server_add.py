"""``server add`` and ``server rm``: all of it or nothing, and no value anywhere but in the store and the server."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.base import Secret
from tests import canary, running
from tests.cli.shell import Done, shell, terminal
from tests.running import RunningBroker

SERVER = """
import json, os, sys
print("TOKEN is", os.environ.get("TOKEN"), file=sys.stderr, flush=True)
mode = sys.argv[1]
if mode == "dies":
    sys.exit(3)
for line in sys.stdin:
    asked = json.loads(line)
    if "id" not in asked:
        continue
    answer = {"jsonrpc": "2.0", "id": asked["id"]}
    modern = "_meta" in asked["params"]
    if (mode == "modern") != modern:
        answer["error"] = {"code": -32601, "message": "what is " + os.environ.get("TOKEN", "nothing")}
    elif asked["method"] == "tools/list":
        first = "cursor" not in asked["params"]
        names = ["look", "say " + os.environ.get("TOKEN", "")] if first else ["go"]
        answer["result"] = {"tools": [{"name": name} for name in names], **({"nextCursor": "2"} if first else {})}
    else:
        answer["result"] = {
            "protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "made up"},
        }
    print("a line that does not belong here", flush=True)
    print(json.dumps(answer), flush=True)
"""
"""A server that shows its token wherever it can: on stderr, in errors and in the names of its tools."""


@pytest.fixture
def broker() -> Iterator[RunningBroker]:
    """Return a broker whose config names nothing yet."""
    with running.room() as directory, running.start(directory, config="# mine\n") as started:
        (directory / "server.py").write_text(SERVER)
        yield started


@pytest.fixture
def where(broker: RunningBroker) -> list[str]:
    """Return the options that lead a command to the broker."""
    return ["--dir", str(broker.places.run.parent)]


def command(broker: RunningBroker, mode: str = "legacy") -> list[str]:
    """Return what starts the server."""
    return ["--", sys.executable, str(broker.places.run.parent / "server.py"), mode]


def parts(broker: RunningBroker) -> list[str]:
    """Return the names of the files in ``broker.d``."""
    return sorted(path.name for path in (broker.places.config / "broker.d").glob("*"))


def names(where: list[str]) -> list[str]:
    """Return the names of what is stored."""
    return [one["name"] for one in shell("secret", "list", "--json", *where).json["secrets"]]


def shows(value: Secret, done: Done) -> list[str]:
    """Return the forms of a value that a command has shown."""
    return canary.in_bytes(value, (done.out + done.err).encode())


@pytest.mark.parametrize("mode", ["legacy", "modern"])
def test_one_step_leads_from_a_token_to_a_running_server(broker: RunningBroker, where: list[str], mode: str) -> None:
    """In both eras the value is stored, the file written, the tools shown and the entry printed, without the value."""
    value = canary.made_up()
    done = shell("server", "add", "app", "--secret", "TOKEN", *where, *command(broker, mode), send=value.expose())
    path = broker.places.config / "broker.d/app.toml"
    assert (0, 0o100600, ["app"]) == (done.status, path.stat().st_mode, names(where)), done.err
    assert "3 tools: look, say [hidden], go" in done.err
    entry = json.loads(done.out)["mcpServers"]["app"]
    assert ["exec", "app", *where] == entry["args"]
    assert Path(entry["command"]).name == "mcp-broker"
    assert [] == shows(value, done)
    assert [] == canary.in_files(value, [broker.places.config, broker.places.state])


@pytest.mark.parametrize("mode", ["dies", "refuses"])
def test_a_server_that_does_not_start_leaves_nothing(broker: RunningBroker, where: list[str], mode: str) -> None:
    """Secret and file are gone again, the reason is told, and the value is not."""
    value = canary.made_up()
    words = command(broker, mode) if mode == "dies" else ["--", "no-such-program"]
    done = shell("server", "add", "app", "--secret", "TOKEN", *where, *words, send=value.expose())
    assert ([], [], True) == (parts(broker), names(where), "taken back" in done.err)
    assert (1, "", []) == (done.status, done.out, shows(value, done))
    assert ("[hidden]" in done.err) == (mode == "dies")


def test_a_terminal_asks_for_each_value(broker: RunningBroker, where: list[str]) -> None:
    """What is typed is not on the screen."""
    done = terminal(
        *("server", "add", "app", "--secret", "TOKEN", "--secret", "OTHER=shared.key", "--no-start"),
        *(*where, *command(broker)),
        typed={"TOKEN (kept": "canary-one", "OTHER (kept": "canary-two"},
    )
    assert (0, False, ["app-token", "shared"]) == (done.status, "canary" in done.out, names(where))


def test_nothing_typed_at_the_prompt_adds_nothing(broker: RunningBroker, where: list[str]) -> None:
    """An Enter alone is no value."""
    words = ("server", "add", "app", "--secret", "TOKEN", *where, *command(broker))
    done = terminal(*words, typed={"TOKEN (kept": ""})
    assert (2, True, [], []) == (done.status, "the value of TOKEN is empty" in done.out, parts(broker), names(where))


def test_several_values_come_as_json(broker: RunningBroker, where: list[str]) -> None:
    """On stdin several values are an object by variable, all of them and no other."""
    words = ("server", "add", "app", "--secret", "A", "--secret", "B", "--no-start", *where, *command(broker))
    assert (2, []) == (shell(*words, send='{"A": "canary"}').status, parts(broker))
    assert 0 == shell(*words, send='{"A": "canary", "B": "canary"}').status
    assert ["app-a", "app-b"] == names(where)


def test_a_second_account_is_like_the_first(broker: RunningBroker, where: list[str]) -> None:
    """``--like`` takes the command over and has a secret of its own."""
    shell("server", "add", "app", "--secret", "TOKEN", *where, *command(broker), send="canary-first")
    done = shell("server", "add", "work", "--like", "app", "--secret", "TOKEN", *where, send="canary-second")
    assert (0, ["app", "work"], False) == (done.status, names(where), "canary" in done.out + done.err), done.err
    assert (2, True) == _ended(shell("server", "rm", "app", *where, "--yes"), "there is no such server")


def _ended(done: Done, says: str) -> tuple[int, bool]:
    return (2 if done.status == 78 else done.status), says in done.err


def test_what_is_stored_already_is_used_and_kept(broker: RunningBroker, where: list[str]) -> None:
    """A stored secret is not asked for, is told of, and outlives a server that fails; what that says is not shown."""
    value = canary.made_up()
    shell("secret", "set", "app", *where, send=value.expose())
    done = shell("server", "add", "app", "--secret", "TOKEN", *where, *command(broker, "dies"))
    assert (1, True, []) == (done.status, "app is stored already" in done.err, shows(value, done))
    assert (["app"], []) == (names(where), parts(broker))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["app", "--secret", "TOKEN=ghp_canary1Abcdefghijklmnopqrstuvwxyz01"], "in your shell's history"),
        (["app", "--secret", "TOKEN=canary 2"], "in your shell's history"),
        (["app", "--secret", "ghp_canary1Abcdefghijklmnopqrstuvwxyz01"], "in your shell's history"),
        (["app", "--secret", "no variable"], "the name of a variable"),
        (["app", "--secret", "A", "--file", "A"], "A is there twice"),
        (["../app", "--secret", "A"], "a server's name is"),
        (["app", "--like", "nosuch"], "there is no such server"),
        (["app", "--backend", "nosuch", "--secret", "A"], "no such backend"),
        (["app", "--client", "cluade-code"], "is claude-code meant"),
        (["app", "--selector", "nonsense"], "selectors"),
    ],
)
def test_a_mistake_is_found_before_a_value_is_asked_for(
    broker: RunningBroker, where: list[str], words: list[str], says: str
) -> None:
    """Nothing is asked, stored, written or repeated of what was wrong."""
    done = shell("server", "add", *words, *where, *command(broker), send="canary-3")
    assert (True, True, False) == (done.status in {2, 78}, says in done.err, "canary" in done.out + done.err), done.err
    assert ([], []) == (parts(broker), names(where))


def test_without_a_command_there_is_nothing_to_add(where: list[str]) -> None:
    """Somebody has to say what starts it."""
    assert (2, True) == _ended(shell("server", "add", "app", *where), "there is no command that starts it")


def test_a_name_is_given_once(broker: RunningBroker, where: list[str]) -> None:
    """A server that is there stays as it is."""
    shell("server", "add", "app", "--no-start", *where, *command(broker))
    done = shell("server", "add", "app", "--no-start", *where, *command(broker))
    assert (2, True) == _ended(done, "the config names app already")


def test_a_dry_run_does_nothing(broker: RunningBroker, where: list[str]) -> None:
    """It prints the table, and neither asks nor writes."""
    done = shell("server", "add", "app", "--secret", "TOKEN", "--dry-run", *where, *command(broker), send="canary")
    assert (0, True, [], []) == (done.status, 'env.TOKEN = "{app}"' in done.out, parts(broker), names(where))


def test_a_file_cannot_be_typed(broker: RunningBroker, where: list[str]) -> None:
    """A pasted file would go to the shell from its second line on: who has a terminal stores it before."""
    done = terminal("server", "add", "app", "--file", "CREDENTIALS", *where, *command(broker))
    assert (2, True) == (done.status, "mcp-broker secret set app --file PATH" in done.out)


def test_what_stood_in_its_file_stays(broker: RunningBroker, where: list[str]) -> None:
    """Comments and other tables outlive both commands, to the byte."""
    path = broker.places.config / "broker.d/app.toml"
    path.parent.mkdir(exist_ok=True)
    before = '# why it is so\n[secrets.app]\nttl = "5m"  # short\n'
    path.write_text(before)
    path.chmod(0o600)
    shell("server", "add", "app", "--secret", "TOKEN", *where, *command(broker), send="canary")
    assert path.read_text().startswith(before)
    shell("server", "rm", "app", *where)
    assert before == path.read_text()


def test_rm_asks_before_it_purges(broker: RunningBroker, where: list[str]) -> None:
    """Without a yes nothing goes; with one the file, the secret and what is held do."""
    shell("server", "add", "app", "--secret", "TOKEN", *where, *command(broker), send="canary")
    assert (2, True) == _ended(shell("server", "rm", "app", "--purge", *where), "needs a yes")
    refused = terminal("server", "rm", "app", "--purge", *where, typed={"[y/N]": "n"})
    assert (1, ["app.toml"], ["app"]) == (refused.status, parts(broker), names(where))
    assert 0 == terminal("server", "rm", "app", "--purge", *where, typed={"[y/N]": "y"}).status
    assert ([], []) == (parts(broker), names(where))


def test_purge_leaves_what_others_use(broker: RunningBroker, where: list[str]) -> None:
    """A secret that another server is granted stays."""
    shell("server", "add", "app", "--secret", "TOKEN", *where, *command(broker), send="canary")
    shell("server", "add", "too", "--secret", "TOKEN=app", *where, *command(broker))
    assert 0 == shell("server", "rm", "app", "--purge", "--yes", *where).status
    assert (["too.toml"], ["app"]) == (parts(broker), names(where))


def test_rm_of_what_is_not_there(where: list[str]) -> None:
    """It says so."""
    assert (2, True) == _ended(shell("server", "rm", "nosuch", *where), "no such server")
