"""
Each session in this directory, from its first command to its last.

They are what a newcomer types. The README's first steps are one of them.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.running import as_user, room
from tests.transcripts.transcript import TranscriptError, read, session

HERE: Final = Path(__file__).parent

SESSIONS: Final = ["demo", "lifecycle", "mistakes", "secrets", "servers"]

AS_A_USER: Final = ["demo", "readme", "quickstart"]

NEWCOMER: Final = 54321
"""A uid without a name, and so with the home that HOME says."""


@pytest.fixture
def directory() -> Iterator[Path]:
    """Give a directory whose path is short enough for sockets."""
    with room() as found:
        yield found


@pytest.fixture
def environment(without_the_sdk: Path, directory: Path) -> Mapping[str, str]:
    """Return the environment of a person at a terminal, as far as the commands depend on it."""
    return {
        "HOME": str(directory),
        "LANG": "C.UTF-8",
        "PATH": f"{without_the_sdk.parent}:{os.environ['PATH']}",
        "SHELL": "/bin/sh",
        "TZ": "UTC",
    }


@pytest.mark.parametrize("name", SESSIONS)
def test_the_command_does_what_the_session_says(name: str, directory: Path, environment: Mapping[str, str]) -> None:
    """Every command prints and returns what the session says."""
    with session(directory, environment) as running:
        for command in read((HERE / f"{name}.txt").read_text()):
            running.run(command)


@pytest.mark.root
@pytest.mark.parametrize("name", AS_A_USER)
def test_a_user_who_has_nothing_yet(name: str, directory: Path, environment: Mapping[str, str]) -> None:
    """Who is not root and has no config yet can take the tour, and type what the README says first."""
    os.chown(directory, NEWCOMER, NEWCOMER)
    with session(directory, environment, prefix=as_user(NEWCOMER)) as running:
        for command in read((HERE / f"{name}.txt").read_text()):
            running.run(command)


def test_what_the_readme_says_first_is_what_is_typed(root: Path) -> None:
    """Every command of ours in the README's first steps is in the session, in the same order."""
    text = (root / "README.md").read_text()
    first = text[text.index("## Five minutes") :].partition("\n## ")[0]
    said = [line.partition("#")[0].strip() for line in first.splitlines() if line.startswith("mcp-broker ")]
    typed = [command.text for command in read((HERE / "readme.txt").read_text())]
    assert said
    assert said == [text for text in typed if text in said]


def test_every_session_is_run() -> None:
    """No session lies in the directory without being held to."""
    assert {path.stem for path in HERE.glob("*.txt")} == {*SESSIONS, *AS_A_USER}


@pytest.mark.parametrize(
    "text",
    [
        "$ echo one\ntwo",
        "$ echo one",
        "$ true\none",
        "$ echo one; echo two\none",
        "$ echo one; echo two\ntwo",
        "$ false",
        "$ true\n? 1",
        "$ cat\n< one\ntwo",
        "$ echo one &\ntwo",
        "$ sh -c 'exit 3' &\n? 0",
    ],
)
def test_what_is_not_so_is_found_out(text: str, directory: Path, environment: Mapping[str, str]) -> None:
    """A session that does not tell the truth fails."""
    with pytest.raises(TranscriptError), session(directory, environment) as running:  # noqa: PT012 - it may fail at its end
        for command in read(text):
            running.run(command)


@pytest.mark.parametrize(
    "text",
    [
        "$ echo one\none",
        "$ echo one; echo two; echo three\none\n...",
        "$ echo one; echo two; echo three\n...\nthree",
        "$ echo one; echo two; echo three\none\n...\nthree",
        "$ echo one\n...\none\n...",
        "$ echo one two three\none ... three",
        "$ cat\n< one\n< two\none\ntwo",
        "$ printf one; exit 3\none\n? 3",
        "# a comment\n$ echo one >&2\n# another\none\n\n",
        "$ sleep 60 &\n$ kill $LAST",
        "$ sh -c 'echo one; exec sleep 60' &\none\n? -15\n$ kill $LAST",
        "$ cat <<END\n> one\n> END\none",
    ],
)
def test_what_is_so_is_believed(text: str, directory: Path, environment: Mapping[str, str]) -> None:
    """A session that tells the truth does not fail."""
    with session(directory, environment) as running:
        for command in read(text):
            running.run(command)
