"""
What one run of the tour has at hand: the stage, the screen, the service, the session.

A step looks at what happened and says what should have; this module turns that
into an end of the tour where it did not. It refuses to go on after that.
"""

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from broker.demo.screen import Screen
from broker.demo.service import Notes
from broker.demo.session import Opener, Session
from broker.demo.stage import Done, Stage

PATIENCE: Final = 5.0
"""Seconds for what happens by itself."""

HIDDEN: Final = "[the token]"


class StepFailedError(Exception):
    """Something did not happen as the tour says it does."""


@dataclass(slots=True, kw_only=True)
class Play:
    """
    One run of the tour.

    Attributes:
        stage: the directory and the broker.
        screen: where it is shown.
        notes: the service behind the MCP server.
        opener: opens MCP sessions.
        speaker: who speaks the protocol in them, in words.
        session: the one MCP session, once it is open.
        server: the pid of its server.
        accessor: of its lease.
        held: ends the session.

    """

    stage: Stage
    screen: Screen
    notes: Notes
    opener: Opener
    speaker: str
    session: Session | None = None
    server: int = 0
    accessor: str = ""
    held: ExitStack = field(default_factory=ExitStack)

    def run(self, command: str, *, status: int = 0) -> Done:
        """Show a command, run it, show what it printed; it must end with ``status``."""
        self.screen.command(command)
        done = self.stage.run(command, token=self.notes.token)
        # It must not be there. If it is, the tour says so and does not repeat it.
        self.screen.output(done.output.replace(self.notes.token, HIDDEN))
        self.expect("the token is in what a command prints", self.notes.token not in done.output)
        if done.status != status:
            message = f"exit status {done.status} and not {status}: {command}"
            raise StepFailedError(message)
        if status:
            self.screen.output(f"(exit status {status})")
        return done

    def write(self, name: str, text: str, language: str) -> None:
        """Show a file and write it, for its owner alone."""
        path = self.stage.directory / name
        self.screen.file(name, text, language)
        path.write_text(text, "utf-8")
        path.chmod(0o600)

    def ask(self, method: str, **params: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
        """Ask the broker itself."""
        return self.stage.ask(method, **params)

    def leases(self) -> list[dict[str, Any]]:
        """Return what is out."""
        found: list[dict[str, Any]] = self.ask("lease/list")["leases"]
        return found

    def call(self, tool: str) -> str:
        """Call a tool in the session, and show both directions."""
        if self.session is None:
            message = "there is no session"
            raise StepFailedError(message)
        self.screen.output(f"→ tools/call {tool}")
        said = self.session.call(tool)
        self.expect("the token is in what the tool says", self.notes.token not in said)
        self.screen.output(f"← {said}")
        return said

    def expect(self, otherwise: str, found: bool) -> None:  # noqa: FBT001 - it reads as a sentence
        """
        Go on if something is as it should be.

        Raises:
            StepFailedError: it is not, which is what ``otherwise`` says.

        """
        if not found:
            raise StepFailedError(otherwise)

    def wait_for(self, otherwise: str, found: Callable[[], bool]) -> None:
        """Go on once something has become as it should be."""
        until = time.monotonic() + PATIENCE
        while not found():
            self.expect(otherwise, time.monotonic() < until)
            time.sleep(0.05)

    @property
    def client_config(self) -> Path:
        """Return the file that an MCP client would read."""
        return self.stage.directory / "client.json"

    def entry(self) -> dict[str, Any]:
        """Return what the client's config says of the server ``notes``, read from that file."""
        found: dict[str, Any] = json.loads(self.client_config.read_text("utf-8"))["mcpServers"]["notes"]
        return found
