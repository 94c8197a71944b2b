"""
Reads a command session from a text file and holds the real command to it.

    # a comment
    $ echo one; cat
    < two
    one
    ...
    ? 0

``$`` begins a command for the shell, which goes on behind ``>``; ``<`` is a line
of its stdin, ``?`` its exit status (0 where nothing is said), and all other lines
are what it prints, errors among it. ``...`` stands for anything: on its own for
any lines, inside of a line for any text; two blanks or more are the space between
columns. A command that ends with ``&`` runs until the session ends: it has to
print what is said, and where there is a ``?`` to end by itself. ``$LAST`` is the
pid of the last of these. This module refuses to interpret more than that.
"""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PATIENCE: Final = 60.0
"""Seconds for one command."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """
    One command of a session.

    Attributes:
        line: where it stands in the file.
        text: the command.
        given: its stdin.
        printed: what it should print.
        status: what it should end with; None where nothing is said.

    """

    line: int
    text: str
    given: str
    printed: str
    status: int | None

    @property
    def background(self) -> bool:
        """Return whether the session goes on without waiting for its end."""
        return self.text.endswith("&")


class TranscriptError(AssertionError):
    """A command did not do what the session says."""


def read(text: str) -> list[Command]:
    """Read a session."""
    blocks: list[tuple[int, list[str]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("$ "):
            blocks.append((number, [line]))
        elif blocks and not line.startswith("#"):
            blocks[-1][1].append(line)
    return [command(number, lines) for number, lines in blocks]


def command(number: int, lines: Sequence[str]) -> Command:
    """Read one command of a session."""
    text = [lines[0][2:]]
    rest = list(lines[1:])
    while rest and (rest[0] == ">" or rest[0].startswith("> ")):
        text.append(rest.pop(0)[2:])
    given = [line[2:] for line in rest if line.startswith("< ")]
    statuses = [int(line[2:]) for line in rest if line.startswith("? ")]
    printed = [line for line in rest if not line.startswith(("< ", "? "))]
    return Command(
        line=number,
        text="\n".join(text),
        given="".join(f"{line}\n" for line in given),
        printed="\n".join(printed).strip("\n"),
        status=statuses[-1] if statuses else None,
    )


def pattern(printed: str) -> re.Pattern[str]:
    """Return what matches the output that a session describes."""
    pieces = []
    for line in printed.splitlines():
        if line.strip() == "...":
            pieces.append(r"(?:.*\n)*?")
        else:
            text = ".*?".join(map(re.escape, line.split("...")))
            pieces.append(re.sub(r"(\\ ){2,}", "[ ]+", text) + "\n")
    return re.compile("".join(pieces))


class Session:
    """Commands that are run one after the other, in one directory."""

    def __init__(self, directory: Path, environment: Mapping[str, str], *, prefix: Sequence[str] = ()) -> None:
        """Run commands in ``directory``, each after the words of ``prefix``, which may make it another user's."""
        self._directory = directory
        self._environment = dict(environment)
        self._prefix = list(prefix)
        self._left: list[tuple[Command, subprocess.Popen[bytes], Path]] = []

    def run(self, wanted: Command) -> None:
        """
        Run one command.

        Raises:
            TranscriptError: it did something else than it should.

        """
        if wanted.background:
            self._start(wanted)
            return
        done = subprocess.run(
            self._shell(wanted.text),
            input=wanted.given.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self._directory,
            env=self._environment,
            timeout=PATIENCE,
            check=False,
        )
        compare(wanted, done.stdout.decode(), done.returncode)

    def _shell(self, text: str) -> list[str]:
        return [*self._prefix, "/bin/sh", "-c", text]

    def _start(self, wanted: Command) -> None:
        """Start a command that goes on, and wait until it has printed what it should."""
        log = self._directory / f"background-{wanted.line}.log"
        with log.open("wb") as output:
            running = subprocess.Popen(
                self._shell("exec " + wanted.text.removesuffix("&")),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._directory,
                env=self._environment,
                start_new_session=True,
            )
        self._left.append((wanted, running, log))
        self._environment["LAST"] = str(running.pid)
        until = time.monotonic() + PATIENCE
        while not pattern(wanted.printed).match(log.read_text()):
            if running.poll() is not None or time.monotonic() > until:
                compare(wanted, log.read_text(), running.poll())
                return
            time.sleep(0.02)

    def end(self) -> None:
        """
        Hold what runs in the background to how it should end.

        Raises:
            TranscriptError: it runs on, or ended otherwise.

        """
        for wanted, running, log in self._left:
            if wanted.status is not None:
                try:
                    status: int | None = running.wait(PATIENCE)
                except subprocess.TimeoutExpired:
                    status = None
                if status != wanted.status:
                    raise TranscriptError(told(wanted, log.read_text(), status))

    def clear(self) -> None:
        """End what still runs, however the session went."""
        for _, running, _ in self._left:
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGKILL)
            running.wait()


def compare(wanted: Command, printed: str, status: int | None) -> None:
    """Hold what a command did to what it should have done."""
    whole = printed if not printed or printed.endswith("\n") else f"{printed}\n"
    if not pattern(wanted.printed).fullmatch(whole) or status != (wanted.status or 0):
        raise TranscriptError(told(wanted, printed, status))


def told(wanted: Command, printed: str, status: int | None) -> str:
    """Return what was expected and what came, one below the other."""
    return "\n".join(
        [
            f"line {wanted.line}: $ {wanted.text}",
            "--- expected:",
            wanted.printed,
            f"? {wanted.status or 0}",
            "--- found:",
            printed.rstrip("\n"),
            f"? {status}",
        ]
    )


@contextmanager
def session(directory: Path, environment: Mapping[str, str], *, prefix: Sequence[str] = ()) -> Iterator[Session]:
    """Run a session; whatever it left running has ended afterwards."""
    with ExitStack() as stack:
        found = Session(directory, environment, prefix=prefix)
        stack.callback(found.clear)
        yield found
        found.end()
