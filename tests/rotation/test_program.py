"""Running the admin's program: what it gets, how long it has, and what of its words is repeated."""

import asyncio
import base64
import json
import stat
import sys
import time
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.base import Secret
from broker.errors import UnavailableError
from broker.rotation.program import Asked, fit_to_show, run

VALUE: Final = "Xy7!pending/value+of=the-test"


def asked(step: str = "set") -> Asked:
    """Return a step with two users who take turns."""
    assert step == "set"
    return Asked(
        step="set",
        secret="db",
        token="token",
        current={"username": Secret("app_a"), "password": Secret("the-old-password")},
        pending={"username": Secret("app_b"), "password": Secret(VALUE)},
        public=frozenset({"username"}),
    )


def script(directory: Path, text: str) -> list[str]:
    """Make a program."""
    path = directory / "program"
    path.write_text(f"#!{sys.executable}\nimport json, os, subprocess, sys, time\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return [str(path)]


def trouble(command: list[str], lock: Path, *, deadline: float = 30.0) -> str:
    """Run a program that fails; return what is said."""
    with pytest.raises(UnavailableError) as caught:
        asyncio.run(run(command, asked(), lock, deadline=deadline))
    assert "--resume" in (caught.value.hint or "") or "status" in (caught.value.hint or "")
    return caught.value.message


def test_it_is_told_on_its_standard_input(tmp_path: Path) -> None:
    """One line of JSON, nothing in arguments and environment, its own session, no descriptor but the lock's."""
    found = tmp_path / "found"
    text = f"""
said = sys.stdin.read()
open({str(found)!r}, "w").write(json.dumps([said, sys.argv[1:], sorted(os.environ), os.getsid(0) == os.getpid(),
    os.getcwd(), sorted(map(int, os.listdir("/proc/self/fd")))]))
print("to nobody: " + said)
"""
    asyncio.run(run([*script(tmp_path, text), "a b", "$HOME; true"], asked(), tmp_path / "locks/db"))
    said, arguments, variables, leads, directory, descriptors = json.loads(found.read_text())
    assert (1, ["a b", "$HOME; true"], True, "/") == (said.count("\n"), arguments, leads, directory)
    assert set(variables) <= {"HOME", "USER", "LOGNAME", "PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR"}
    assert {
        "step": "set",
        "secret": "db",
        "token": "token",
        "current": {"username": "app_a", "password": "the-old-password"},
        "pending": {"username": "app_b", "password": VALUE},
        "previous": None,
    } == json.loads(said)
    # Standard input, output and error, the lock, and the two that it has opened itself.
    assert 6 == len(descriptors)


def test_what_it_says_shows_its_last_line(tmp_path: Path) -> None:
    """A failure has the status, the step and the last line of standard error, without what a terminal obeys."""
    command = script(tmp_path, 'sys.stderr.write("first\\nthe server said \\x1b[31mno\\n"); sys.exit(3)')
    assert "program ended with status 3 in the step 'set': the server said ?[31mno" == trouble(
        command, tmp_path / "l/db"
    )


def test_a_program_that_hangs_ends_with_all_it_started(tmp_path: Path) -> None:
    """At its deadline it is killed together with its children, so that the next attempt finds the lock free."""
    command = script(tmp_path, 'subprocess.Popen(["sleep", "600"]); time.sleep(600)')
    lock = tmp_path / "l/db"
    began = time.monotonic()
    said = trouble(command, lock, deadline=2.0)
    assert "program has not done the step 'set' in 2 seconds" == said
    assert time.monotonic() - began < 60
    asyncio.run(run(script(tmp_path, ""), asked(), lock))


def open_here() -> int:
    """Return how many descriptors are open in this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("reads", [True, False], ids=["reads", "does not read"])
def test_what_a_program_leaves_running_costs_the_broker_nothing(tmp_path: Path, *, reads: bool) -> None:
    """A step that was done is done though a child holds all its ends but the lock, and no descriptor stays here."""
    text = f"""
if {reads}:
    sys.stdin.read()
subprocess.Popen(["sleep", "20"], start_new_session=True)
"""
    command = script(tmp_path, text)
    big = Asked(step="set", secret="db", token="token", current={"value": Secret("x" * 300_000)})

    async def often() -> tuple[set[int], float]:
        began, counts = time.monotonic(), set()
        for _ in range(2):
            await run(command, big, tmp_path / "locks" / "db")
            await asyncio.sleep(0)
            counts.add(open_here())
        return counts, time.monotonic() - began

    counts, took = asyncio.run(often())
    assert (1, True) == (len(counts), took < 50)


def test_an_earlier_run_that_goes_on_is_waited_for(tmp_path: Path) -> None:
    """What a killed broker left running holds the lock: it is not started beside it."""
    lock = tmp_path / "l/db"
    command = script(tmp_path, 'subprocess.Popen(["sleep", "5"], close_fds=False, stderr=subprocess.DEVNULL)')
    asyncio.run(run(command, asked(), lock))
    assert "an earlier run of program has not ended yet" == trouble(command, lock)


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    """It cannot be started, and that is what is said."""
    assert "none cannot be started: No such file or directory" == trouble([str(tmp_path / "none")], tmp_path / "l/db")


def test_a_program_that_does_not_read_is_judged_by_its_status(tmp_path: Path) -> None:
    """Closing its standard input is no failure."""
    asyncio.run(run(script(tmp_path, "os.close(0)"), asked(), tmp_path / "l/db"))


def test_a_program_ended_by_a_signal(tmp_path: Path) -> None:
    """The signal is named."""
    said = trouble(script(tmp_path, "os.kill(os.getpid(), 9)"), tmp_path / "l/db")
    assert "program ended by signal 9 in the step 'set'" == said


def test_a_program_that_writes_without_end(tmp_path: Path) -> None:
    """Megabytes to standard error hold nobody up, and are not kept."""
    command = script(tmp_path, 'sys.stderr.write("x" * 30_000_000); sys.exit(1)')
    assert len(trouble(command, tmp_path / "l/db")) < 300


@pytest.mark.parametrize(
    "said",
    [
        VALUE,
        f'password "{VALUE}" is bad',
        f"...{VALUE[8:16]}...",
        VALUE[::-1],
        VALUE.encode().hex(),
        VALUE.encode().hex().upper(),
        json.dumps({"password": VALUE}),
        base64.b64encode(VALUE.encode()).decode(),
        base64.b64encode(b"app:" + VALUE.encode()).decode(),
        base64.urlsafe_b64encode(b"a:" + VALUE.encode()).decode(),
        "Xy7%21pending%2Fvalue%2Bof%3Dthe-test",
        "the-old-password",
    ],
)
def test_a_line_with_part_of_a_value_is_not_repeated(said: str) -> None:
    """A value as it is, a part of it, or in the forms in which programs print: nothing of the text is shown."""
    shown = fit_to_show(said.encode(), asked().values())
    assert "(what it says is not shown: part of a value is in it)" == shown


def test_a_line_with_what_stands_in_the_config_is_repeated() -> None:
    """The names of the users who take turns are no secret."""
    said = 'FATAL: role "app_b" is not permitted to log in'
    assert said == fit_to_show(said.encode(), asked().values())


@settings(max_examples=200)
@given(st.text(alphabet="abcdefgh0123", min_size=12, max_size=60), st.binary(max_size=7), st.binary(max_size=7))
def test_no_value_hides_in_base64(value: str, before: bytes, after: bytes) -> None:
    """Whatever stands before and after it, a value in base64 is found."""
    said = base64.b64encode(before + value.encode() + after)
    assert "(what" == fit_to_show(said, [value])[:5]


def test_silence_is_nothing() -> None:
    """A program that fails without a word has no word to repeat."""
    assert "" == fit_to_show(b" \n", [VALUE])
