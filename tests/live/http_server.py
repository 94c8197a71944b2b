"""
An MCP server over HTTP that lets in who has the right header, and remembers every header that came.

It speaks as much of the protocol as a client asks that lists its tools: one
answer in JSON for one POST. It refuses everybody else with 401.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

_ABOUT: Final = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}}
_TOOLS: Final = {"tools": [{"name": "look", "inputSchema": {"type": "object"}}]}


class Guarded(ThreadingHTTPServer):
    """The server, its header and what came instead."""

    def __init__(self, header: str) -> None:
        """Listen on a port of the loopback that is free."""
        super().__init__(("127.0.0.1", 0), _Request)
        self.header = header
        self.came: list[str] = []

    @property
    def address(self) -> str:
        """Return where it listens."""
        return f"http://127.0.0.1:{self.server_port}/mcp"


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Answer one message."""
        assert isinstance(self.server, Guarded)
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        given = self.headers.get("authorization", "")
        self.server.came.append(given)
        if given != self.server.header:
            self._answer(401)
        elif "id" not in asked:
            self._answer(202)
        else:
            result = (
                _TOOLS
                if asked["method"] == "tools/list"
                else {**_ABOUT, "serverInfo": {"name": "remote", "version": "1"}}
            )
            self._answer(200, {"jsonrpc": "2.0", "id": asked["id"], "result": result})

    def do_GET(self) -> None:
        """Have no stream to offer."""
        self._answer(405)

    def _answer(self, status: int, message: dict[str, Any] | None = None) -> None:
        body = b"" if message is None else json.dumps(message).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - its own name for it
        """Write nothing: what came is kept."""


@contextmanager
def guarded(header: str) -> Iterator[Guarded]:
    """Run such a server."""
    with Guarded(header) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
