"""What a command says when it cannot do what it was asked, and the status it ends with."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.cli.main import COMMANDS
from broker.errors import MEANINGS
from tests import running
from tests.cli.shell import COMMAND, environment, shell
from tests.fakes.wire_broker import Refuse, WireBroker


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[WireBroker]:
    """Return a broker that says what it is told to."""
    with WireBroker(tmp_path / "b") as listening:
        yield listening


@pytest.mark.parametrize("code", MEANINGS)
def test_each_code_ends_with_its_status(fake: WireBroker, code: str) -> None:
    """An error of the broker is told with its message and hint, and has its exit status."""

    def refuse(_: dict[str, Any]) -> None:
        raise Refuse(code, message="it is so", hint="do this")

    fake.verbs["status"] = refuse
    done = shell("status", *fake.where)
    assert (MEANINGS[code].exit, "", "mcp-broker: it is so\nhint: do this\n") == (done.status, done.out, done.err)


def test_a_missing_broker_is_unavailable_and_the_hint_starts_it(tmp_path: Path) -> None:
    """Where nobody listens the status is 4 and the hint is the next command for this very broker."""
    for first in ("init", "serve"):
        done = shell("status", "--dir", str(tmp_path))
        assert (4, f"hint: mcp-broker {first} --dir {tmp_path}") == (done.status, done.err.splitlines()[1])
        (tmp_path / "config").mkdir(exist_ok=True)


def test_where_no_broker_runs_there_is_nothing_to_stop(tmp_path: Path) -> None:
    """Stopping one that has stopped already is status 4, and no advice to start it."""
    done = shell("stop", "--dir", str(tmp_path))
    said = f"mcp-broker: nothing to stop: no broker answers at {tmp_path}/run/admin.sock\n"
    assert (4, said) == (done.status, done.err)


@pytest.mark.parametrize("words", [["get"], ["secret", "set"], ["audit", "show"]])
def test_the_examples_in_a_help_text_stand_in_lines_of_their_own(words: list[str]) -> None:
    """A command to type is not run together with the one before it."""
    lines = shell(*words, "--help", COLUMNS="80").out.splitlines()
    assert 2 <= len([line for line in lines if line.startswith("      ") and f"mcp-broker {words[0]}" in line])


def test_a_broker_that_hangs_is_given_up(fake: WireBroker) -> None:
    """A broker that accepts and never answers ends the command with status 4."""
    fake.mute = True
    done = shell("status", *fake.where)
    assert (4, True) == (done.status, "accepts connections but does not answer" in done.err)


def test_a_broker_that_hangs_up_is_said(fake: WireBroker) -> None:
    """A connection that ends before the answer is told as such."""
    fake.hang_up = True
    assert "closed the connection" in shell("status", *fake.where).err


def test_what_is_no_broker_is_said(fake: WireBroker) -> None:
    """A line that is no JSON object is not taken for an answer."""
    fake.before = [b"SSH-2.0-OpenSSH\n"]
    assert (4, True) == (
        (done := shell("status", *fake.where)).status,
        "does not speak as a broker does" in done.err,
    )


def test_what_nobody_foresaw_is_one_line_without_values(fake: WireBroker) -> None:
    """An answer of an unknown shape makes no traceback, and the switch for more shows lines of code and no values."""
    fake.verbs["lease/list"] = lambda _: {"leases": [{"accessor": "canary-9"}]}
    done = shell("lease", "list", *fake.where)
    more = shell("lease", "list", *fake.where, MCP_BROKER_DEBUG="1")
    assert (1, "", 2) == (done.status, done.out, len(done.err.splitlines()))
    assert re.match(r"mcp-broker: something unexpected happened \(KeyError in leases\.py:\d+\)\nhint: ", done.err)
    assert (True, False) == ("leases.py" in more.err.splitlines()[-1], "canary" in done.err + more.err)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["no-such-command"], "no-such-command"),
        (["status", "--no-such-option"], "--no-such-option"),
        (["status", "--user", "--system"], "--user and --system name two brokers"),
        (["status", "--dir"], "--dir"),
        (["lease", "revoke"], "ACCESSOR"),
        (["serve", "--socket", "/x"], "--socket says where a broker listens"),
        (["audit", "show", "--since", "yesterday"], "write how long ago"),
    ],
)
def test_a_mistake_on_the_command_line_is_status_2(words: list[str], says: str) -> None:
    """It is told in our form, with the command that helps."""
    done = shell(*words)
    assert (2, "", True) == (done.status, done.out, says in done.err)
    assert re.fullmatch(r"mcp-broker: [^A-Z].*[^.]\nhint: mcp-broker.* --help\n", done.err)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    """Help is there for each, costs no broker, and holds no word that only its author knows."""
    done = shell(command, "--help")
    assert (0, "", True) == (done.status, done.err, done.out.startswith(f"Usage: mcp-broker {command}"))


def test_the_overview_lists_every_command() -> None:
    """The overview has a line for each command."""
    lines = [line.split() for line in shell("--help").out.splitlines()]
    assert set(COMMANDS) == {words[0] for words in lines if words and words[0] in COMMANDS}


def test_the_version_is_printed() -> None:
    """The version goes to stdout."""
    assert re.fullmatch(r"mcp-broker \d+\.\d+\.\d+\S*\n", shell("--version").out)


def test_a_terminal_cannot_be_commanded_by_what_is_printed(fake: WireBroker) -> None:
    """Control characters in what a broker says are spelled out."""
    row = {"name": "x\x1b]0;title\x07", "secrets": [], "selectors": [], "leases": 0, "command": ["[red]"]}
    fake.verbs["server/list"] = lambda _: {"servers": [row]}
    out = shell("server", "list", *fake.where).out
    assert (False, True, True) == ("\x1b" in out, "\\x1b]0;title\\x07" in out, "[red]" in out)


def test_a_broker_whose_directory_cannot_be_used_says_so(tmp_path: Path) -> None:
    """What stands in the way of the state is named, with the command that looks at it, and is no surprise."""
    (tmp_path / "state").touch()
    done = shell("serve", "--dir", str(tmp_path))
    assert (4, f"hint: ls -ld {tmp_path}/state") == (done.status, done.err.splitlines()[1])


@pytest.mark.parametrize(
    ("hint", "shown"),
    [
        ("mcp-broker secret set github", "mcp-broker secret set github --dir DIR"),
        ("did you mean 'app'? mcp-broker server list", "did you mean 'app'? mcp-broker server list --dir DIR"),
        ("mcp-broker stop, and start it again", "mcp-broker stop, and start it again"),
        ("mcp-broker audit verify --path DIR", "mcp-broker audit verify --path DIR"),
    ],
)
def test_a_hint_is_for_the_broker_that_gave_it(fake: WireBroker, hint: str, shown: str) -> None:
    """A command in a hint of the broker's gets the options by which it was reached; anything else stays as it is."""

    def refuse(_: dict[str, Any]) -> None:
        raise Refuse(code="denied", message="it is so", hint=hint)

    fake.verbs["status"] = refuse
    expected = shown.replace("--dir DIR", f"--dir {fake.directory}")
    assert f"mcp-broker: it is so\nhint: {expected}\n" == shell("status", *fake.where).err


def test_the_kill_switch_guesses_what_was_meant(tmp_path: Path) -> None:
    """A server whose name was mistyped is not there, and the nearest name is given."""
    with running.start(tmp_path / "b", config='[servers.github]\ncommand = ["true"]\n') as broker:
        done = shell("server", "revoke", "gihub", "--dir", str(broker.places.run.parent))
        assert (2, True) == (done.status, "hint: did you mean 'github'? mcp-broker server list --dir" in done.err)


def test_a_broker_that_is_started_before_init_says_so(tmp_path: Path) -> None:
    """Without a master key it starts, warns, and works once there is one: nothing has to be restarted."""
    where = ["--dir", str(tmp_path)]
    with subprocess.Popen([*COMMAND, "serve", *where], stderr=subprocess.PIPE, env=environment()) as child:
        assert child.stderr is not None
        said = child.stderr.readline() + child.stderr.readline()
        begun = shell("init", "--yes", *where)
        running.until(
            lambda: shell("secret", "set", "a", *where, send="made up").status == 0, said="a store that opens"
        )
        again = shell("reload", *where)
        child.terminate()
    assert b"master.key is missing; hint: mcp-broker init" in said
    assert (True, "nothing has changed\n") == (f"next: mcp-broker reload --dir {tmp_path}" in begun.out, again.out)
