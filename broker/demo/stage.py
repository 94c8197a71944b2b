"""
The tour's throwaway directory, the shell in it, and the broker that lives there.

What is printed is what is run, by the shell that would run it. This module
refuses to leave anything behind: no process, no file.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from broker.client import ADMIN, Client
from broker.demo.terminal import transcript
from broker.errors import UnavailableError

COMMAND: Final = "mcp-broker"
START_WITHIN: Final = 10.0
END_WITHIN: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A command that has ended, and all that it printed."""

    status: int
    output: str


class Stage:
    """
    A directory with a broker in it.

    Attributes:
        directory: where everything is.
        program: the command ``mcp-broker``.

    """

    def __init__(self, directory: Path, program: Path, *, width: int | None) -> None:
        """Play in ``directory``; commands see a terminal of ``width`` columns, or a pipe."""
        self.directory = directory
        self.program = program
        self._width = width
        self._broker: subprocess.Popen[bytes] | None = None

    @property
    def way_in(self) -> str:
        """Return the command that takes a person to where the commands work."""
        found = shutil.which(COMMAND)
        ours = found is not None and Path(found).resolve() == self.program.resolve()
        path = "" if ours else f"\nPATH={shlex.quote(str(self.program.parent))}:$PATH"
        return f"cd {shlex.quote(str(self.directory))}{path}"

    def run(self, command: str, *, token: str) -> Done:
        """
        Run a command in the shell.

        It may say ``$TOKEN``, which is a variable of that shell and never one
        of a process: it is in no environment and no argument.
        """
        reading = "IFS= read -r TOKEN\nexec </dev/null\n"
        shell = ["/bin/sh", "-c", reading + command]
        status, output = transcript(
            shell, f"{token}\n", directory=self.directory, environment=self._environment(), width=self._width
        )
        return Done(status=status, output=output)

    def serve(self) -> int:
        """
        Start the broker; return its pid once it answers.

        Raises:
            UnavailableError: it does not.

        """
        # In a session of its own: Ctrl-C is for the tour, which then ends the broker.
        with (self.directory / "broker.log").open("ab") as log:
            self._broker = subprocess.Popen(  # noqa: S603 - our own command
                [self.program, "serve", "--dir", "."],
                cwd=self.directory,
                env=dict(self._environment()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self.ask("status")
        except UnavailableError as error:
            said = (self.directory / "broker.log").read_text("utf-8")
            message = f"{error.message}; it says: {said}"
            raise UnavailableError(message, hint=error.hint) from None
        return self._broker.pid

    def ask(self, method: str, **params: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
        """Ask the broker itself, to check what the commands have shown."""
        with Client(("--dir", str(self.directory)), socket=ADMIN, within=START_WITHIN) as client:
            return client.call(method, **params)

    def kill(self) -> None:
        """End the broker as a crash does."""
        self._end(signal.SIGKILL)

    def end(self) -> int | None:
        """Make sure that the broker has ended; return the exit status of the last one."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int | None:
        if self._broker is None:
            return None
        if self._broker.poll() is None:
            self._broker.send_signal(number)
            try:
                self._broker.wait(END_WITHIN)
            except subprocess.TimeoutExpired:
                self._broker.kill()
        return self._broker.wait()

    def wait(self) -> int | None:
        """Wait for a broker that was told to stop; return its exit status, or None where it goes on."""
        if self._broker is None:
            return None
        try:
            return self._broker.wait(END_WITHIN)
        except subprocess.TimeoutExpired:
            return None

    def _environment(self) -> Mapping[str, str]:
        """Return the environment of a shell that finds our command."""
        return os.environ | {"PATH": f"{self.program.parent}:{os.environ.get('PATH', os.defpath)}"}


def installed() -> Path:
    """
    Return the command as it is installed beside this Python.

    Raises:
        UnavailableError: it is not.

    """
    program = Path(sys.executable).with_name(COMMAND)
    if not program.exists():
        message = f"the tour uses the installed command, and there is none at {program}"
        raise UnavailableError(message, hint="make demo, or pip install mcp-secrets-broker")
    return program


@contextmanager
def stage(*, width: int | None) -> Iterator[Stage]:
    """Give a directory for a while; afterwards its broker has ended and it has gone."""
    program = installed()
    # Not where TMPDIR says: the path of a socket may have 107 bytes, and on some systems TMPDIR alone has them.
    short = Path("/tmp")  # noqa: S108 - mkdtemp makes it ours alone
    where = short if os.access(short, os.W_OK) else None
    directory = Path(tempfile.mkdtemp(prefix="mcp-broker-demo-", dir=where))
    played = Stage(directory, program, width=width)
    try:
        yield played
    finally:
        # Who presses Ctrl-C twice still wants nothing left behind.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        played.end()
        shutil.rmtree(directory)
        signal.signal(signal.SIGINT, before)
