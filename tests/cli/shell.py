"""
Commands as a shell runs them, on a pipe or on a terminal.

It refuses to call into the commands: what is tested is what people and scripts see.
"""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent.parent
COMMAND: Final = [sys.executable, "-m", "broker"]
DEADLINE: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What became of a command."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401 - any JSON
        """Return stdout, read as JSON."""
        return json.loads(self.out)


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of this process without what colours or widens output, and with ``changes``."""
    left_out = {"NO_COLOR", "FORCE_COLOR", "COLUMNS", "TERM", "MCP_BROKER_DEBUG"}
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    return {**kept, "PYTHONPATH": str(ROOT), "TERM": "xterm", **changes}


def shell(*words: str, send: str | bytes = "", directory: Path | None = None, **changes: str) -> Done:
    """Run ``mcp-broker`` with ``words``, its streams on pipes."""
    done = subprocess.run(
        [*COMMAND, *words],
        input=send.encode() if isinstance(send, str) else send,
        capture_output=True,
        env=environment(**changes),
        cwd=directory,
        timeout=DEADLINE,
        check=False,
    )
    return Done(status=done.returncode, out=done.stdout.decode(), err=done.stderr.decode())


def terminal(*words: str, typed: Mapping[str, str] | None = None, **changes: str) -> Done:
    """
    Run ``mcp-broker`` with ``words`` on a terminal of its own; ``out`` is all that the terminal shows.

    Args:
        words: the command.
        typed: what to type, with the Enter, when the terminal shows some text.
        changes: to the environment.

    """
    master, slave = pty.openpty()
    child = subprocess.Popen(
        [*COMMAND, *words],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment(**{"COLUMNS": "100", **changes}),
        start_new_session=True,
    )
    os.close(slave)
    shown = b""
    waiting = list((typed or {}).items())
    while True:
        try:
            piece = os.read(master, 65536)
        except OSError:
            break  # the last holder of the terminal has closed it
        if not piece:
            break
        shown += piece
        if waiting and waiting[0][0].encode() in shown:
            os.write(master, waiting.pop(0)[1].encode() + b"\n")
    os.close(master)
    return Done(status=child.wait(DEADLINE), out=shown.decode().replace("\r\n", "\n"), err="")
