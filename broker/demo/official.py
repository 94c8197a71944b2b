"""
An MCP session with the official SDK, which the extra ``demo`` installs.

It refuses to be imported before somebody knows that the SDK is there.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

import mcp_types
from anyio.from_thread import BlockingPortal, start_blocking_portal
from mcp import Client, MCPError
from mcp.client.stdio import StdioServerParameters, stdio_client

from broker.demo.session import ANSWER_WITHIN, Session, SessionError


class OfficialSession:
    """A session that the SDK's client holds, on a thread of its own."""

    def __init__(self, portal: BlockingPortal, client: Client) -> None:
        """Speak through ``client``, which lives behind ``portal``."""
        self._portal = portal
        self._client = client
        self.version = client.protocol_version

    def tools(self) -> Sequence[str]:
        """Return the names of the server's tools."""
        return [tool.name for tool in self._portal.call(self._client.list_tools).tools]

    def call(self, tool: str) -> str:
        """Call a tool without arguments; return what it says."""
        try:
            result = self._portal.call(self._client.call_tool, tool)
        except MCPError as error:
            raise SessionError(str(error)) from None
        said = "".join(part.text for part in result.content if isinstance(part, mcp_types.TextContent))
        if result.is_error:
            raise SessionError(said)
        return said


@contextmanager
def session(command: str, arguments: Sequence[str], errors: TextIO) -> Iterator[Session]:
    """Open a session in the newest version that both sides speak."""
    server = StdioServerParameters(command=command, args=list(arguments))
    client = Client(stdio_client(server, errlog=errors), read_timeout_seconds=ANSWER_WITHIN)
    with start_blocking_portal() as portal:
        opened = portal.wrap_async_context_manager(client)
        try:  # by hand, because what goes wrong while it is open is none of the SDK's business
            connected = opened.__enter__()
        except (MCPError, OSError, ExceptionGroup) as error:
            raise SessionError(said(error)) from None
        try:
            yield OfficialSession(portal, connected)
        finally:
            opened.__exit__(None, None, None)


def said(error: BaseException) -> str:
    """Return what the SDK's error says: it comes wrapped in what the SDK was doing."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error)
