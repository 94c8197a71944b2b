"""
An MCP session over the bare protocol, where the official SDK is not installed.

The newest version of the protocol alone, and of it what the tour needs. It
refuses to guess: an answer that is none ends the session.
"""

import itertools
import json
import os
import selectors
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TextIO

from broker.demo.session import ANSWER_WITHIN, Session, SessionError, passed_on

VERSION: Final = "2026-07-28"
ENVELOPE: Final = {
    "io.modelcontextprotocol/protocolVersion": VERSION,
    "io.modelcontextprotocol/clientInfo": {"name": "mcp-broker-demo", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
END_WITHIN: Final = 2.0
"""Seconds that a server has to end, once its input has."""


class BareSession:
    """A session that writes and reads the lines itself."""

    def __init__(self, to: int, back: int) -> None:
        """Speak to the server at the other ends of two pipes, and ask what it is."""
        self._to = to
        self._back = back
        self._numbers = itertools.count(1)
        self._rest = b""
        if VERSION not in self._ask("server/discover", {}).get("supportedVersions", ()):
            message = f"the server does not speak {VERSION}"
            raise SessionError(message)
        self.version = VERSION

    def tools(self) -> Sequence[str]:
        """Return the names of the server's tools."""
        return [tool["name"] for tool in self._ask("tools/list", {})["tools"]]

    def call(self, tool: str) -> str:
        """Call a tool without arguments; return what it says."""
        result = self._ask("tools/call", {"name": tool, "arguments": {}})
        said = "".join(part["text"] for part in result["content"] if part["type"] == "text")
        if result.get("isError"):
            raise SessionError(said)
        return said

    def _ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Send one request and return the result that comes back."""
        number = next(self._numbers)
        request = {"jsonrpc": "2.0", "id": number, "method": method, "params": params | {"_meta": ENVELOPE}}
        until = time.monotonic() + ANSWER_WITHIN
        try:
            os.write(self._to, json.dumps(request).encode() + b"\n")
            while (answer := json.loads(self._line(until))).get("id") != number:
                pass  # a notification
        except (OSError, ValueError):
            message = "the server ended, or does not speak the protocol"
            raise SessionError(message) from None
        if "error" in answer:
            raise SessionError(answer["error"]["message"])
        result: dict[str, Any] = answer["result"]
        return result

    def _line(self, until: float) -> bytes:
        """Return the next line of the server."""
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._back, selectors.EVENT_READ)
            while b"\n" not in self._rest:
                if not waiting.select(until - time.monotonic()):
                    message = "the server does not answer"
                    raise SessionError(message)
                more = os.read(self._back, 65536)
                if not more:
                    message = "the server ended"
                    raise SessionError(message)
                self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        return line


@contextmanager
def session(command: str, arguments: Sequence[str], errors: TextIO) -> Iterator[Session]:
    """Open a session in the newest version of the protocol."""
    server_in, to = os.pipe()
    back, server_out = os.pipe()
    try:
        server = subprocess.Popen(  # noqa: S603 - what the client's config says
            [command, *arguments], stdin=server_in, stdout=server_out, stderr=errors, env=dict(passed_on())
        )
    except OSError as error:
        close(to, back)
        raise SessionError(str(error)) from None
    finally:
        close(server_in, server_out)
    try:
        yield BareSession(to, back)
    finally:
        close(to, back)
        end(server)


def close(*descriptors: int) -> None:
    """Close them."""
    for descriptor in descriptors:
        os.close(descriptor)


def end(server: subprocess.Popen[bytes]) -> None:
    """Wait for a server whose input has ended, as the clients do, and only then use force."""
    for force in (server.terminate, server.kill):
        try:
            server.wait(END_WITHIN)
        except subprocess.TimeoutExpired:
            force()
    server.wait()
