"""``audit``: from a running broker, from a stopped one, and from a copy."""

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import running
from tests.cli.conftest import CANARY, CONFIG, SECRETS
from tests.cli.shell import COMMAND, environment, shell
from tests.running import RunningBroker, until


@pytest.fixture(scope="module")
def spoken(broker: RunningBroker) -> RunningBroker:
    """Return the broker after something was released and something refused."""
    broker.call("credential/issue", secret="github")
    broker.call("credential/issue", secret="app-db")
    with pytest.raises(running.AnswerError):
        broker.call("credential/issue", secret="nothing")
    return broker


@pytest.fixture
def copy(spoken: RunningBroker, tmp_path: Path) -> Path:
    """Return a copy of the log."""
    shutil.copytree(spoken.places.audit, tmp_path / "copy")
    return tmp_path / "copy"


def test_verify_of_a_log_that_is_as_it_was(spoken: RunningBroker, where: list[str]) -> None:
    """An intact log is called so, with its head, and the status is 0."""
    done = shell("audit", "verify", *where)
    found = shell("audit", "verify", "--json", *where).json
    assert (0, "intact") == (done.status, done.out[:6])
    assert (True, [], len(spoken.records())) == (found["intact"], found["findings"], found["head"]["seq"])


def test_verify_names_the_first_line_that_was_changed(copy: Path) -> None:
    """A changed byte in a copy ends with status 5 and the file and line."""
    lines = (copy / "audit.jsonl").read_bytes().split(b"\n")
    lines[2] = lines[2].replace(b'"uid":', b'"uid": ', 1)
    (copy / "audit.jsonl").write_bytes(b"\n".join(lines))
    done = shell("audit", "verify", "--path", str(copy))
    assert (5, True, True) == (done.status, "audit.jsonl:3: " in done.out, "not intact" in done.out)
    assert 5 == shell("audit", "verify", "--json", "--path", str(copy)).status


def test_a_copy_is_intact_too(copy: Path, spoken: RunningBroker) -> None:
    """A copy needs no broker to be verified and read."""
    assert 0 == shell("audit", "verify", "--path", str(copy)).status
    shown = shell("audit", "show", "--json", "--path", str(copy)).out.splitlines()
    assert spoken.records()[: len(shown)] == [json.loads(line) for line in shown]


@pytest.mark.parametrize("path", ["/nowhere", "/"])
def test_a_directory_without_a_log_is_said(path: str) -> None:
    """A path that holds no log is a mistake of the caller."""
    done = shell("audit", "verify", "--path", path)
    assert (2, True) == (done.status, done.err.startswith(f"mcp-broker: {path}"))


def test_the_log_of_a_broker_that_does_not_run_is_read_from_its_directory(tmp_path: Path) -> None:
    """One's own broker need not run for its log to be verified."""
    with running.start(tmp_path / "b", config=CONFIG) as broker:
        broker.stop()
        done = shell("audit", "verify", "--dir", str(tmp_path / "b"))
        assert (0, "intact") == (done.status, done.out[:6])


@pytest.mark.parametrize(
    ("words", "events"),
    [
        (["--secret", "github"], {"secret/set", "credential/authorised"}),
        (["--secret", "github", "--event", "credential"], {"credential/authorised"}),
        (["--server", "app", "--event", "credential/authorised"], {"credential/authorised"}),
        (["--since", "0s"], set()),
        (["--until", "2020-01-01"], set()),
        (["--since", "2020-01-01T00:00:00Z", "--until", "2020-01-02"], set()),
        (["--uid", "4242"], set()),
        (["--unit", "x.service"], set()),
    ],
)
def test_show_lets_through_what_the_filters_ask_for(
    spoken: RunningBroker, where: list[str], words: list[str], events: set[str]
) -> None:
    """Every record that is shown has what each filter asks for, and where none has, none is shown."""
    assert spoken.pid
    shown = [json.loads(line) for line in shell("audit", "show", "--json", *words, *where).out.splitlines()]
    assert events == {record["event"] for record in shown}


def test_show_refused_shows_refusals_alone(spoken: RunningBroker, where: list[str]) -> None:
    """Each record has a code, and the refusal that happened is there."""
    assert spoken.pid
    found = shell("audit", "show", "--refused", "--json", *where).out.splitlines()
    assert {"denied"} == {json.loads(line)["code"] for line in found}


def test_show_for_people_is_a_line_each_without_values(spoken: RunningBroker, where: list[str]) -> None:
    """A line has the time, the event and who asked for what, and no value."""
    assert spoken.pid
    out = shell("audit", "show", "--secret", "github", *where).out
    assert "  credential/authorised  " in out.splitlines()[-1]
    assert "server=app secret=github " in out
    assert CANARY not in out


@pytest.mark.parametrize("count", [0, 1, 3])
def test_tail_shows_the_newest(spoken: RunningBroker, where: list[str], count: int) -> None:
    """As many records as were asked for, the newest last."""
    shown = [json.loads(line) for line in shell("audit", "tail", "-n", str(count), "--json", *where).out.splitlines()]
    assert spoken.records()[len(spoken.records()) - count :] == shown


def test_tail_takes_the_newest_of_those_that_the_filters_let_through(spoken: RunningBroker, where: list[str]) -> None:
    """The newest refusal is found, though it is not the newest record."""
    spoken.call("credential/issue", secret="github")
    (line,) = shell("audit", "tail", "-n", "1", "--refused", "--json", *where).out.splitlines()
    assert [each for each in spoken.records() if "code" in each][-1] == json.loads(line)


@pytest.mark.parametrize("words", [["show"], ["tail", "-n", "1000"]])
def test_an_event_that_does_not_exist_is_told_from_one_that_did_not_happen(
    spoken: RunningBroker, where: list[str], words: list[str]
) -> None:
    """Where nothing matches that is said beside the output, with the events whose names come near."""
    assert spoken.pid
    done = shell("audit", *words, "--event", "credential/authorized", *where)
    assert (0, "", True) == (done.status, done.out, "no record matches" in done.err)
    assert "credential/authorised" in done.err


@pytest.fixture
def tailing(tmp_path: Path) -> Iterator[tuple[RunningBroker, Path, "subprocess.Popen[bytes]"]]:
    """Return a broker, a file that follows its log, and the command that writes it."""
    out = tmp_path / "followed"
    with running.start(tmp_path / "b", config=CONFIG, secrets=SECRETS) as broker, out.open("wb") as file:
        words = [*COMMAND, "audit", "tail", "-n", "1", "--follow", "--json", "--dir", str(tmp_path / "b")]
        with subprocess.Popen(words, stdout=file, stderr=subprocess.PIPE, env=environment()) as child:
            until(lambda: out.read_bytes().count(b"\n") == 1, said="the first record")
            yield broker, out, child
            child.kill()


def test_tail_follows_over_new_records_until_interrupted(
    tailing: tuple[RunningBroker, Path, "subprocess.Popen[bytes]"],
) -> None:
    """Each new record appears once, in order, and an interrupt ends the command without a traceback."""
    broker, out, child = tailing
    for _ in range(3):
        broker.call("credential/issue", secret="github", fresh=True)
    last = len(broker.records())
    until(lambda: out.read_bytes().count(b'"event":"credential/authorised"') == 3, said="the new records")
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=15)
    numbers = [json.loads(line)["seq"] for line in out.read_bytes().splitlines()]
    assert list(range(numbers[0], numbers[0] + len(numbers))) == numbers
    assert (True, False) == (numbers[-1] <= last + 5, b"Traceback" in errors)


def test_tail_goes_on_when_the_broker_is_restarted(
    tailing: tuple[RunningBroker, Path, "subprocess.Popen[bytes]"], tmp_path: Path
) -> None:
    """What is recorded after a restart is followed too, and the gap is told beside the output."""
    broker, out, child = tailing
    broker.stop()
    with running.start(tmp_path / "b") as again:
        again.call("credential/issue", secret="github")
        until(lambda: b'"event":"credential/authorised"' in out.read_bytes(), said="the record after the restart")
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=15)
    assert b"the broker is back" in errors


def test_who_held_a_secret_is_shown_as_a_table_and_as_json(spoken: RunningBroker, where: list[str]) -> None:
    """A lease that is still out is held until its time is over; one of another time is not shown."""
    table = shell("audit", "show", "--held", "--secret", "github", *where).out.splitlines()
    assert table[0].split()[:3] == ["SECRET", "SERVER", "WHO"]
    assert table[1].split()[0] == "github"
    found = [json.loads(line) for line in shell("audit", "show", "--held", "--json", *where).out.splitlines()]
    leases = {row["accessor"] for row in spoken.admin("lease/list")["leases"]}
    assert leases <= {one["accessor"] for one in found}
    assert "nobody held it then" in shell("audit", "show", "--held", "--until", "2020-01-01", *where).out
    assert 2 == shell("audit", "show", "--held", "--refused", *where).status


@pytest.mark.usefixtures("spoken")
def test_a_checkpoint_that_was_kept_elsewhere_shows_a_log_that_was_cut(where: list[str]) -> None:
    """What a checkpoint vouches for and a copy of the log does not hold is named, by a file and by its head alone."""
    done = shell("audit", "checkpoint", *where)
    assert (0, True) == (done.status, done.out.startswith("mcp-broker.audit/"))
    found = shell("audit", "checkpoint", "--json", *where).json
    assert 0 == shell("audit", "verify", "--expect", "-", *where, send=done.out).status
    assert 0 == shell("audit", "verify", "--expect", f"{found['records']}:{found['head']}", *where).status
    wrong = shell("audit", "verify", "--expect", f"{found['records']}:{'0' * 64}", *where)
    assert (5, True) == (wrong.status, "rewritten" in wrong.out)
    later = shell("audit", "verify", "--expect", f"{found['records'] + 99}:{'0' * 64}", *where)
    assert (5, True) == (later.status, "cut-off" in later.out)
    assert 2 == shell("audit", "verify", "--expect", "/nowhere", *where).status
