"""Rotations of a running broker, from the socket and the command line."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from backends.base import Secret
from tests.running import AnswerError, RunningBroker, start, until

CONFIG: Final = """
[secrets.app]
rotate = {{ every = "30d", grace = "1h", with = ["{program}", "an argument"] }}
[secrets.plain]
rotate = {{ generate = {{ length = 30, format = "t_{{}}" }} }}
[backends.local]
rotate = {{ every = "90d" }}
[servers.app]
command = ["true"]
env.APP = "{{app}}"
allow = ["plain"]
"""

PROGRAM: Final = f"""#!{sys.executable}
import json, os, sys
home = os.path.dirname(os.path.abspath(__file__))
asked = sys.stdin.read()
with open(home + "/calls", "a") as calls:
    print(json.dumps([json.loads(asked), sys.argv[1:], dict(os.environ)]), file=calls)
if os.path.exists(home + "/fail"):
    sys.exit(open(home + "/fail").read().replace("PENDING", str(json.loads(asked)["pending"])))
"""


def program(directory: Path) -> Path:
    """Make a program that writes down how it is called; it fails where there is a file that says so."""
    path = directory / "rotate-app"
    path.write_text(PROGRAM)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def calls(directory: Path) -> list[tuple[dict[str, Any], list[str], dict[str, str]]]:
    """Return how it was called."""
    return [json.loads(line) for line in (directory / "calls").read_text().splitlines()]


def row(broker: RunningBroker, name: str) -> Mapping[str, Any]:
    """Return how a rotation is."""
    found: list[dict[str, Any]] = broker.admin("rotation/list", name=name)["rotations"]
    return found[0]


def at(broker: RunningBroker, name: str, *states: str) -> Mapping[str, Any]:
    """Wait until a rotation is in one of these states, and return how it is."""

    def there() -> Mapping[str, Any] | None:
        now = row(broker, name)
        return now if now["state"] in states else None

    return until(there, said=f"{name} at {states}", deadline=60)


def test_a_secret_is_replaced_by_a_program(tmp_path: Path) -> None:
    """
    The program is told each step on its standard input, in an environment of few variables.

    Who holds the old version is known, whoever watches is told, and no value is in
    any file of the broker's, in its log or in an audit record.
    """
    config = CONFIG.format(program=program(tmp_path))
    with start(tmp_path / "b", config=config, secrets={"app": "old-value"}) as broker, broker.connect() as session:
        issued = session.call("credential/issue", secret="app")
        session.call("lease/watch")
        broker.admin("rotate", name="app")
        found = at(broker, "app", "grace")
        asked = [each for each, _, _ in calls(tmp_path)]
        told = session.receive()
        again = session.call("credential/issue", secret="app")
        files = b"".join(path.read_bytes() for path in (tmp_path / "b").rglob("*") if path.is_file())
        events = [each["event"] for each in broker.records() if each["event"].startswith("rotation/")]
    new = asked[0]["pending"]["value"]
    assert ["set", "test"] == [each["step"] for each in asked]
    assert {"step", "secret", "current", "pending", "previous", "token"} == set(asked[0])
    assert ("app", {"value": "old-value"}, None) == (asked[0]["secret"], asked[0]["current"], asked[0]["previous"])
    assert 1 == len({each["token"] for each in asked})
    assert [["an argument"]] * 2 == [arguments for _, arguments, _ in calls(tmp_path)]
    assert {name for _, _, env in calls(tmp_path) for name in env} <= {
        *("HOME", "USER", "LOGNAME", "PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")
    }
    assert ("lease/changed", "rotated") == (told["method"], told["params"]["reason"])
    assert (1, 2) == (issued["version"], again["version"])
    assert {"value": Secret(new)} == again["values"]
    assert (2, "grace", "") == (found["version"], found["stage"], row_says(found))
    assert [False, False] == [text.encode() in files for text in (new, "old-value")]
    assert ["rotation/begun", "rotation/promoted"] == events


def row_says(found: Mapping[str, Any]) -> str:
    """Return the sentence about who holds the old version, but for the one of this session."""
    text: str = found["says"]
    return text.removeprefix("1 session keeps version 1 until it is restarted or the grace ends")


def test_who_keeps_the_old_version_is_counted(tmp_path: Path, mcp_broker: Path) -> None:
    """Sessions that have not asked again are said to keep the version, and resuming ends the grace for them."""
    config = CONFIG.format(program=program(tmp_path))
    with start(tmp_path / "b", config=config, secrets={"app": "old-value"}) as broker, broker.connect() as session:
        session.call("server/open", server="app")
        would = broker.admin("rotate", name="app", dry_run=True)["rotations"][0]["would"]
        broker.admin("rotate", name="app")
        kept = at(broker, "app", "grace")
        said = [
            subprocess.run(
                [str(mcp_broker), word, "--dir", str(tmp_path / "b")], capture_output=True, text=True, check=False
            )
            for word in ("status", "check")
        ]
        broker.admin("rotate", name="app", resume=True)
        after = at(broker, "app", "idle")
        retired = calls(tmp_path)[-1][0]
    assert "1 session keeps version 1 until it is restarted or the grace of 1h ends" == would
    assert "1 session keeps version 1 until it is restarted or the grace ends" == kept["says"]
    assert [{"version": 1, "sessions": 1}] == kept["holders"]
    assert [True, True] == [str(kept["says"]) in each.stdout + each.stderr for each in said]
    assert "1 session keeps version 1 until it is restarted, and it may be worthless" == after["says"]
    assert ("retire", None, {"value": "old-value"}) == (retired["step"], retired["pending"], retired["previous"])


def test_what_fails_shows_and_goes_back(tmp_path: Path) -> None:
    """A failing step keeps the old value, is on record and in status, and says nothing that looks like a value."""
    config = CONFIG.format(program=program(tmp_path))
    (tmp_path / "fail").write_text("the new one is PENDING")
    with start(tmp_path / "b", config=config, secrets={"app": "old-value"}) as broker:
        broker.admin("rotate", name="app")
        failed = at(broker, "app", "failed")
        problems = str(broker.admin("status")["problems"])
        current = broker.call("credential/issue", secret="app")
        with pytest.raises(AnswerError) as again:
            broker.admin("rotate", name="app")
        (tmp_path / "fail").unlink()
        broker.admin("rotate", name="app", abandon=True)
        idle = at(broker, "app", "idle")
        events = [(each["event"], each.get("code")) for each in broker.records()]
        pending = calls(tmp_path)[0][0]["pending"]["value"]
        log = broker.log
    said = "rotate-app ended with status 1 in the step 'set': (what it says is not shown: part of a value is in it)"
    assert (said, {"value": Secret("old-value")}) == (failed["error"], current["values"])
    assert said in problems.replace('\\"', "").replace("\\'", "'")
    assert ("invalid_request", "mcp-broker rotate app --resume, or --abandon") == (again.value.code, again.value.hint)
    assert (1, None) == (idle["version"], idle["error"])
    assert ("rotation/failed", "unavailable") in events
    assert ("rotation/abandoned", None) in events
    assert pending not in log


def test_a_kill_in_the_middle_is_carried_on(tmp_path: Path) -> None:
    """Killed while a step fails, the broker goes on with the same token and the same value when it is back."""
    config = CONFIG.format(program=program(tmp_path))
    (tmp_path / "fail").write_text("not now")
    with start(tmp_path / "b", config=config, secrets={"app": "old-value"}) as broker:
        broker.admin("rotate", name="app")
        at(broker, "app", "failed")
        broker.kill()
        broker.launch()
        (tmp_path / "fail").unlink()
        broker.admin("rotate", name="app", resume=True)
        at(broker, "app", "grace")
        found = {(each["token"], each["pending"]["value"]) for each, _, _ in calls(tmp_path)}
        current = broker.call("credential/issue", secret="app")
    assert [current["values"]["value"]] == [Secret(value) for _, value in found]


def test_the_command_replaces_and_says_so(tmp_path: Path, mcp_broker: Path) -> None:
    """`rotate --all` replaces what has a rule, what has a program, and the master key, and waits for all of it."""
    config = CONFIG.format(program=program(tmp_path))
    with start(tmp_path / "b", config=config, secrets={"app": "old-value", "plain": "x"}) as broker:
        key = (tmp_path / "b/state/master.key").read_bytes()

        def run(*words: str) -> subprocess.CompletedProcess[str]:
            command = [str(mcp_broker), "rotate", *words, "--dir", str(tmp_path / "b")]
            return subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))

        dry, done, usage = run("--all", "--dry-run"), run("--all", "--json"), run()
        nothing, unknown = run("--due"), run("no-such")
        value = broker.call("credential/issue", secret="plain")["values"]["value"].expose()
        new = (tmp_path / "b/state/master.key").read_bytes()
    rows = {each["name"]: each for each in json.loads(done.stdout)["rotations"]}
    assert (0, 0, 2, 0) == (dry.returncode, done.returncode, usage.returncode, nothing.returncode), done.stderr
    assert "nobody holds it" in dry.stdout
    assert {"app": 2, "plain": 2, "backends.local": None} == {name: each["version"] for name, each in rows.items()}
    assert (True, 32) == (value.startswith("t_"), len(value))
    assert key != new
    assert (2, "nothing is to be replaced\n") == (unknown.returncode, nothing.stdout)
