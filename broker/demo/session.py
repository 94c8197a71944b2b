"""
An MCP session as the tour needs it, whoever speaks the protocol.

It starts what a client's config names, with as little of an environment as the
clients pass on. It refuses to wait for an answer without a deadline.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Final, Protocol, TextIO

PASSED_ON: Final = ("HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER")
"""The variables that the official clients pass on to a server."""

ANSWER_WITHIN: Final = 15.0
"""Seconds for one answer."""


class SessionError(Exception):
    """The server answered with an error, or not at all."""


class Session(Protocol):
    """
    A client's connection to one MCP server.

    Attributes:
        version: of the protocol, as the two have settled it.

    """

    version: str

    def tools(self) -> Sequence[str]:
        """Return the names of the server's tools."""
        ...

    def call(self, tool: str) -> str:
        """
        Call a tool without arguments; return what it says.

        Raises:
            SessionError: it failed.

        """
        ...


Opener = Callable[[str, Sequence[str], TextIO], AbstractContextManager[Session]]
"""Starts a command with arguments as a server, whose stderr goes to a file. At the end of the context it has ended."""


def passed_on() -> Mapping[str, str]:
    """Return the environment that a client gives to a server."""
    return {name: os.environ[name] for name in PASSED_ON if name in os.environ}
