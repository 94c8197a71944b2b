"""
What is done to a daemon that will not survive it, step by step, and the forked processes that it takes.

A step is a line of Python in any of our files, in any thread; the interpreter's own
trace says when the next one begins. This module refuses to judge what is left
afterwards: that is for ``crash``.
"""

import contextlib
import json
import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final

import backends
import broker
from tests.running import Connection, HungUpError

OURS: Final = tuple(str(Path(package.__file__ or "").parent) + os.sep for package in (broker, backends))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """
    Something that is done to a daemon that will not survive it.

    Attributes:
        name: for the report.
        trigger: the function with whose call the steps begin to count, by its qualified name.
        calls: with which of its calls.
        asks: what a new workload says on one connection.
        then: what happens once it has its answers.

    """

    name: str
    trigger: str
    asks: tuple[tuple[str, dict[str, Any]], ...]
    calls: int = 1
    then: str = ""


def issue(secret: str, **more: Any) -> tuple[str, dict[str, Any]]:  # noqa: ANN401
    """Return a request for one credential."""
    return ("credential/issue", {"secret": secret, **more})


BOTH: Final = (issue("db"), issue("static"))
SCENARIOS: Final = (
    Scenario(name="issue of a minted credential", trigger="Service.issue", asks=(issue("db"),)),
    Scenario(name="issue of a prepared credential", trigger="Minting._prepared", asks=(issue("prepared"),)),
    Scenario(
        name="issue of a shared credential", trigger="Minting.take", asks=(issue("shared"), issue("shared", fresh=True))
    ),
    Scenario(name="issue of a static credential", trigger="Service.issue", asks=(issue("static"),)),
    Scenario(name="opening of a server", trigger="Service.open_server", asks=(("server/open", {"server": "app"}),)),
    Scenario(name="asking again", trigger="Service.issue", calls=3, asks=(*BOTH, *BOTH)),
    Scenario(name="end of a process", trigger="Endings._process_ended", asks=BOTH, then="end"),
    Scenario(name="kill switch", trigger="Endings.bar", asks=BOTH, then="revoke"),
    Scenario(name="start", trigger="Endings.open", asks=BOTH, then="start"),
)
ANY_MOMENT: Final = Scenario(name="any moment", trigger="", asks=(issue("db"), issue("db", fresh=True)), then="moment")


@dataclass(slots=True)
class Steps:
    """Counts the steps of one daemon from a function's call on, and kills it at one of them."""

    scenario: Scenario
    at: int
    places: Path
    calls: int = 0
    count: int = 0

    def begin(self) -> None:
        """Watch this thread and all that it starts."""
        threading.settrace(self._called)
        sys.settrace(self._called)

    def _called(self, frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        code = frame.f_code
        if not code.co_filename.startswith(OURS) and not code.co_filename.endswith("minting_backend.py"):
            return None
        if event == "call" and code.co_qualname == self.scenario.trigger:
            # A coroutine is called each time that it goes on, too, but then not at its first line.
            self.calls += frame.f_lineno == code.co_firstlineno
        return self._step

    def _step(self, frame: FrameType, event: str, _: object) -> Callable[..., Any]:
        if event == "line" and self.calls >= self.scenario.calls:
            self.count += 1
            if self.count == self.at:
                where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}\n"
                file = os.open(self.places, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
                os.write(file, where.encode())
                os.kill(os.getpid(), signal.SIGKILL)
        return self._step


class Child:
    """A forked process: a daemon or a workload."""

    def __init__(self, work: Callable[[], object]) -> None:
        """Fork and do the work there; the child ends when it is done or when it fails."""
        self.pid = os.fork()
        if self.pid == 0:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 -- nothing of the parent may run in the child
                os.write(2, f"{type(error).__name__}: {error}\n".encode())
            finally:
                os._exit(0)
        self.pidfd = os.pidfd_open(self.pid)
        self.running = True

    def ended(self, within_seconds: float) -> bool:
        """Return whether it has ended, or does so soon."""
        if self.running and select.select([self.pidfd], [], [], within_seconds)[0]:
            os.waitpid(self.pid, 0)
            os.close(self.pidfd)
            self.running = False
        return not self.running

    def kill(self) -> None:
        """End it, where it has not ended."""
        if self.running:
            os.kill(self.pid, signal.SIGKILL)
            self.ended(15)


class Workload(Child):
    """
    A process that asks, keeps what it got and lives on.

    Attributes:
        answers: what it received, whole lines alone.

    """

    def __init__(self, path: Path, asks: tuple[tuple[str, dict[str, Any]], ...]) -> None:
        """Start it, and return when it is about to ask; ``collect`` waits for its answers."""
        self._source, sink = os.pipe()
        self.answers: list[dict[str, Any]] = []
        self._asks = asks
        super().__init__(lambda: self._ask(path, sink))
        os.close(sink)
        os.read(self._source, 1)

    def _ask(self, path: Path, sink: int) -> None:
        connection = None
        with contextlib.suppress(OSError, HungUpError):
            connection = Connection(path)
            os.write(sink, b"\n")
            for method, params in self._asks:
                connection.send(method, **params)
                answer = connection.receive()
                accessors = [answer["result"]["accessor"]] if "accessor" in answer.get("result", {}) else []
                accessors = answer.get("result", {}).get("leases", accessors)
                os.write(sink, json.dumps({"accessors": accessors, "ask": params}).encode() + b"\n")
        os.close(sink)
        # It holds its connection, as a server would, and ends when it is killed.
        signal.pause()

    def collect(self, deadline: float = 15.0) -> None:
        """Take what it got, until it gets no more."""
        text = b""
        while select.select([self._source], [], [], deadline)[0] and (piece := os.read(self._source, 1 << 16)):
            text += piece
        os.close(self._source)
        self.answers = [json.loads(line) for line in text.splitlines()]

    @property
    def accessors(self) -> set[str]:
        """Return the leases that it was told of."""
        return {accessor for answer in self.answers for accessor in answer["accessors"]}
