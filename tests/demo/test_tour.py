"""
The tour as a newcomer sees it: the installed command, to its end and to an early one.

What a step of it shows is checked by the step itself. Here it is whether the
tour tells the truth about them, and leaves nothing behind.
"""

import os
import pty
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

PATIENCE: Final = 120.0
FIRST: Final = re.compile(r"^\$ cd (/\S+)$", re.MULTILINE)
COMMANDS: Final = re.compile(r"^\$ (?:.* \| )?mcp-broker (\w+(?: (?:set|list|show|verify))?)", re.MULTILINE)


def tour(command: Path, **environment: str) -> subprocess.Popen[str]:
    """Start the tour in a pipe."""
    return subprocess.Popen(
        [command, "demo"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **environment},
        text=True,
        start_new_session=True,
    )


def whole(command: Path, **environment: str) -> tuple[int, str]:
    """Take the tour to its end; return its exit status and what it showed."""
    with tour(command, **environment) as running:
        shown, _ = running.communicate(timeout=PATIENCE)
    return running.returncode, shown


def stage(shown: str) -> Path:
    """Return the directory that a tour said it is in."""
    found = FIRST.search(shown)
    assert found
    return Path(found[1])


def processes(directory: Path) -> list[str]:
    """Return the command lines of the processes that stand in a directory or name it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
            here = (process / "cwd").readlink()
        except OSError:
            continue
        if str(directory) in words or str(here).startswith(str(directory)):
            found.append(words)
    return found


@pytest.fixture(scope="module")
def taken(mcp_broker: Path) -> tuple[int, str]:
    """Return how a tour with the official SDK ended, and what it showed."""
    return whole(mcp_broker)


def test_the_tour_comes_to_its_end(taken: tuple[int, str]) -> None:
    """With the official SDK every step does what it says, and none of them fails."""
    status, shown = taken
    assert (0, "", True) == (status, "".join(re.findall("^✗.*", shown, re.MULTILINE)), "the official SDK" in shown)


def test_every_command_of_the_tour_can_be_typed(taken: tuple[int, str]) -> None:
    """The tour shows the commands that make it up."""
    wanted = {"init", "serve", "status", "secret set", "reload", "lease list", "exec", "explain", "audit show"}
    assert wanted | {"audit verify", "stop"} == set(COMMANDS.findall(taken[1]))


def test_nothing_is_left_behind(taken: tuple[int, str]) -> None:
    """After the tour its directory has gone, and every process that it started."""
    directory = stage(taken[1])
    assert (False, []) == (directory.exists(), processes(directory))


@pytest.mark.parametrize(
    ("number", "send", "after"),
    [
        (signal.SIGINT, os.killpg, "7. See"),
        (signal.SIGTERM, os.kill, "2. Start"),
        (signal.SIGHUP, os.killpg, "12. Kill"),
    ],
    ids=["ctrl-c", "kill", "closed terminal"],
)
def test_whoever_ends_it_early_has_nothing_to_clear_away(
    mcp_broker: Path, number: signal.Signals, send: Callable[[int, int], None], after: str
) -> None:
    """A signal ends the tour, the broker and the server, and removes the directory, at any step."""
    with tour(mcp_broker) as running:
        assert running.stdout
        shown = ""
        while not shown.endswith("\n") or after not in shown:
            shown += running.stdout.read(1)
        send(running.pid, number)
        running.communicate(timeout=PATIENCE)
    directory = stage(shown)
    assert (1, False, []) == (running.returncode, directory.exists(), processes(directory))


def test_a_step_that_does_not_do_what_it_says_is_named(mcp_broker: Path, tmp_path: Path) -> None:
    """Where a step fails the tour says which, ends with status 1 and still leaves nothing behind."""
    (tmp_path / "dd").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / "dd").chmod(0o755)
    status, shown = whole(mcp_broker, PATH=f"{tmp_path}:{os.environ['PATH']}")
    failed = re.findall(
        r"^✗ step \d+ failed \(Change the audit log\): exit status 0 and not 5: .*verify", shown, re.MULTILINE
    )
    assert (1, 1, False) == (status, len(failed), stage(shown).exists())


def drawn(command: Path, variable: str) -> str:
    """Take the tour on a terminal; return every byte it was sent."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", variable: "1"}
    with subprocess.Popen([command, "demo"], stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as running:
        os.close(theirs)
        pieces = []
        while True:
            try:
                pieces.append(os.read(ours, 65536))
            except OSError:
                break
        os.close(ours)
        running.wait(PATIENCE)
    return b"".join(pieces).decode()


def test_a_terminal_gets_colours_unless_somebody_wants_none(mcp_broker: Path) -> None:
    """On a terminal the tour draws; with NO_COLOR it draws without colours."""
    colour = re.compile(r"\x1b\[[0-9;]*3[0-7]m")
    found = [
        ("╭─" in text, bool(colour.search(text))) for text in map(drawn, [mcp_broker] * 2, ["COLOURS", "NO_COLOR"])
    ]
    assert [(True, True), (True, False)] == found


def test_a_pipe_gets_plain_lines(taken: tuple[int, str]) -> None:
    """In a pipe there is nothing that only a terminal understands."""
    assert [] == re.findall(r"[\x1b\r]|[╭│╰─]", taken[1])
