"""``status``, ``lease``, ``server``, ``explain``, ``key``, ``reload``, ``stop``: what an admin sees and does."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.paths import within
from tests import running
from tests.cli.conftest import CANARY, CONFIG, SECRETS
from tests.cli.shell import shell, terminal
from tests.running import Connection, RunningBroker


@pytest.fixture
def held(broker: RunningBroker) -> Iterator[str]:
    """Return the accessor of a lease that this process holds."""
    with broker.connect() as connection:
        yield _issued(connection)


def _issued(connection: Connection) -> str:
    found: str = connection.call("credential/issue", secret="github", fresh=True)["accessor"]
    return found


EVERY = [
    ["status"],
    ["lease", "list"],
    ["server", "list"],
    ["secret", "list"],
    ["secret", "versions", "github"],
    ["explain", "app"],
    ["explain", "other"],
    ["reload"],
    ["check"],
    ["audit", "verify"],
    ["key", "rotate"],
]


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_every_report_comes_for_people_and_for_programs(where: list[str], held: str, words: list[str]) -> None:
    """Each of them prints text, and with --json an object; neither holds a value."""
    assert held
    text, structure = shell(*words, *where), shell(*words, "--json", *where)
    assert (0, 0, True) == (text.status, structure.status, isinstance(structure.json, dict))
    assert CANARY not in text.out + text.err + structure.out + structure.err


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_a_pipe_gets_no_colours_and_a_terminal_without_colours_none_either(where: list[str], words: list[str]) -> None:
    """There is no escape sequence in a pipe, and none that colours where NO_COLOR is set."""
    assert "\x1b" not in shell(*words, *where).out
    assert "\x1b[3" not in terminal(*words, *where, NO_COLOR="1").out


def test_status_on_a_terminal_says_that_all_is_well(where: list[str]) -> None:
    """A terminal shows the health first, coloured."""
    done = terminal("status", *where)
    assert (0, "\x1b[1;32mhealthy\x1b[0m") == (done.status, done.out[: len("\x1b[1;32mhealthy\x1b[0m")])


def test_status_names_the_broker_that_it_is_about(where: list[str]) -> None:
    """The socket that was asked is named, to people and to programs."""
    path = f"{where[1]}/run/admin.sock"
    assert (True, path) == (path in shell("status", *where).out, shell("status", "--json", *where).json["socket"])


def test_status_says_what_was_refused_and_what_mends_it(where: list[str]) -> None:
    """A refusal is listed with its reason and its hint, and repeated ones are counted."""
    for _ in range(2):
        shell("get", "unheard-of", *where)
    line = next(each for each in shell("status", *where).out.splitlines() if "unheard-of" in each)
    assert (True, True) == ("2x" in line, "mcp-broker" in line)


def test_status_says_what_is_wrong_with_its_mend(tmp_path: Path) -> None:
    """A config that is no longer right on the disk is a problem, with its line."""
    with running.start(tmp_path / "b", config=CONFIG) as broker:
        where = ["--dir", str(tmp_path / "b")]
        broker.write_config("[servers.app]\ncomand = 1\n")
        assert 78 == shell("reload", *where).status
        out = shell("status", *where).out
        assert ("not well", True, True) == (out[:8], "\nproblems\n" in out, "broker.toml:2" in out)


def test_a_lease_is_listed_with_who_holds_it(where: list[str], held: str) -> None:
    """The list has the accessor, and the filters choose."""
    assert held in shell("lease", "list", "--server", "app", "--secret", "github", *where).out
    assert held not in shell("lease", "list", "--server", "other", *where).out


def test_a_lease_is_revoked_by_its_accessor(where: list[str], held: str) -> None:
    """A revoked lease is barred, and an unknown one is an error."""
    assert (0, "1 lease revoked\n") == _brief("lease", "revoke", held, *where)
    leases = shell("lease", "list", "--json", *where).json["leases"]
    assert ["active"] != [each["state"] for each in leases if each["accessor"] == held]
    assert (1, "") == _brief("lease", "revoke", "no-such", *where)


def test_the_kill_switch_takes_back_all_of_a_server(tmp_path: Path) -> None:
    """Revoking a server revokes each of its leases, and an unknown one is an error."""
    with running.start(tmp_path / "b", config=CONFIG, secrets=SECRETS) as broker, broker.connect() as connection:
        where = ["--dir", str(tmp_path / "b")]
        _issued(connection)
        _issued(connection)
        assert {"revoked": 2} == shell("server", "revoke", "app", "--json", *where).json
        assert (2, "") == _brief("server", "revoke", "no-such", *where)


def _brief(*words: str) -> tuple[int, str]:
    done = shell(*words)
    return done.status, done.out


@pytest.mark.parametrize(
    ("words", "verdict"),
    [
        (["app"], "allowed: "),
        (["app", "github"], "allowed: "),
        (["other"], "denied: "),
        (["other", "--unit", "x.service"], "denied: "),
        (["nowhere"], "denied: "),
        (["app", "nothing"], "denied: "),
    ],
)
def test_explain_says_what_would_be_decided(where: list[str], words: list[str], verdict: str) -> None:
    """The verdict comes first, and a denial names what mends it where there is something."""
    done = shell("explain", *words, *where)
    assert (0, verdict) == (done.status, done.out[: len(verdict)])


def test_explain_says_what_would_be_missing(tmp_path: Path) -> None:
    """What the policy allows and no store has is said, with the command that stores it."""
    with running.start(tmp_path / "b", config=CONFIG) as broker:
        where = ["--dir", str(broker.places.run.parent)]
        found = shell("explain", "app", "--json", *where).json
        assert (True, "mcp-broker secret set github") == (found["allowed"], found["hint"])
        assert found["reason"].endswith(", but the secret 'github' is not stored")
        assert "mcp-broker secret set cloud" == shell("explain", "app", "cloud", "--json", *where).json["hint"]


def test_explain_last_is_about_what_was_refused(where: list[str]) -> None:
    """The last refusal is explained without naming it."""
    shell("exec", "other", *where)
    found = shell("explain", "--last", "--json", *where).json
    assert (False, "other") == (found["allowed"], found["server"])


@pytest.mark.parametrize("words", [[], ["app", "--unit", "u.service", "--pid", "1"], ["app", "--pid", "0"]])
def test_explain_refuses_what_is_no_question(where: list[str], words: list[str]) -> None:
    """A question without a subject, or about two workloads, is a mistake."""
    assert 2 == shell("explain", *words, *where).status


def test_reload_says_what_changed_or_why_not(where: list[str], broker: RunningBroker) -> None:
    """Each change is a line; a config that is wrong changes nothing and ends with 78."""
    broker.write_config(CONFIG + '[servers.new]\ncommand = ["true"]\n')
    assert (0, True) == (shell("reload", *where).status, "new" in shell("server", "list", *where).out)
    broker.write_config("[servers.new]\ncommand = 1\n")
    done = shell("reload", *where)
    assert (78, True) == (done.status, "broker.toml:2" in done.err)
    broker.write_config(CONFIG)
    assert 0 == shell("reload", *where).status


def test_stop_waits_until_it_has_stopped(tmp_path: Path) -> None:
    """When the command returns nobody listens any more, and a lease has survived without --revoke alone."""
    with running.start(tmp_path / "b", config=CONFIG, secrets=SECRETS) as broker:
        where = ["--dir", str(tmp_path / "b")]
        with broker.connect() as connection:
            accessor = _issued(connection)
        assert 0 == shell("stop", *where).status
        assert 0 == broker.wait()
        assert 4 == shell("status", *where).status
        broker.launch()
        assert accessor in shell("lease", "list", *where).out
        assert (0, 0) == (shell("stop", "--revoke", *where).status, broker.wait())
        broker.launch()
        assert "nothing is out\n" == shell("lease", "list", *where).out


def test_serve_runs_until_a_signal(tmp_path: Path) -> None:
    """The daemon that the command starts answers, refuses a second one, and ends in order."""
    with running.start(tmp_path / "b", config=CONFIG) as broker:
        done = shell("serve", "--dir", str(tmp_path / "b"))
        assert (4, True) == (done.status, f"process {broker.pid}" in done.err)
        broker.signal(signal.SIGTERM)
        assert 0 == broker.wait()


def test_serve_refuses_a_wrong_config(tmp_path: Path) -> None:
    """A config that is wrong ends the start with 78 and the line."""
    running.prepare(within(tmp_path), "[servers.app]\ncomand = 1\n")
    done = shell("serve", "--dir", str(tmp_path))
    assert (78, True) == (done.status, "broker.toml:2" in done.err)
