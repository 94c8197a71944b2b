"""
The tour's MCP server: notes that a service keeps, which wants a token.

It has the token where every MCP server has its own, in the environment, and
speaks both eras of the protocol. It knows nothing of the broker, needs nothing
but the standard library, and refuses to pass on more than what the service
answers.
"""

import http.client
import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

TOKEN: Final = "NOTES_TOKEN"  # noqa: S105 - the variable's name
TOOL: Final = "read_notes"
MODERN: Final = "2026-07-28"
LEGACY: Final = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
IDENTITY: Final = {"name": "notes", "version": "1"}
VERSION_OF_REQUEST: Final = "io.modelcontextprotocol/protocolVersion"


class CannotAnswerError(Exception):
    """A request gets an error: its number in JSON-RPC, what it says, and what it carries."""

    def __init__(self, number: int, message: str, carried: object = None) -> None:
        """Make the error object."""
        super().__init__(message)
        self.error = {"code": number, "message": message} | ({"data": carried} if carried else {})


class Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        """Speak to what listens at ``path``."""
        super().__init__("localhost", timeout=5)
        self._path = path

    def connect(self) -> None:
        """Connect."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def read_notes(service: str, token: str) -> tuple[bool, str]:
    """Ask the service for the notes; return whether it gave them and what it said."""
    connection = Connection(service)
    try:
        connection.request("GET", "/notes", headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        said = answer.read().decode()
    except OSError as error:
        return False, f"the service does not answer: {error.strerror}"
    finally:
        connection.close()
    return answer.status == http.client.OK, said


class Server:
    """Answers requests, one by one."""

    def __init__(self, service: str, token: str) -> None:
        """Serve the notes that are kept by what listens at the path ``service``."""
        self._service = service
        self._token = token

    def answer(self, line: bytes) -> dict[str, Any] | None:
        """Return the answer to one line, or None where nothing is asked."""
        try:
            request = json.loads(line)
        except ValueError:
            return None
        if not isinstance(request, dict) or "id" not in request or "method" not in request:
            return None
        head = {"jsonrpc": "2.0", "id": request["id"]}
        try:
            return head | {"result": self._result(request["method"], table(request, "params"))}
        except CannotAnswerError as failure:
            return head | {"error": failure.error}

    def _result(self, method: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """Do what is asked. In the modern era every request names its version; in the other only the first."""
        version = table(params, "_meta").get(VERSION_OF_REQUEST)
        if version is None:
            return {"ping": {}, "initialize": initialized(params)}.get(method) or self._of_tools(method, params)
        if version != MODERN:
            message = "unsupported protocol version"
            raise CannotAnswerError(-32022, message, {"supported": [MODERN, *LEGACY], "requested": version})
        result = discovered() if method == "server/discover" else self._of_tools(method, params)
        kept = {} if method == "tools/call" else {"ttlMs": 0, "cacheScope": "private"}
        return {"resultType": "complete", "_meta": {"io.modelcontextprotocol/serverInfo": IDENTITY}, **kept, **result}

    def _of_tools(self, method: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """List the one tool, or call it."""
        if method == "tools/list":
            described = "Read your notes, with your token."
            return {"tools": [{"name": TOOL, "description": described, "inputSchema": {"type": "object"}}]}
        if method != "tools/call":
            message = f"there is no method {method}"
            raise CannotAnswerError(-32601, message)
        if params.get("name") != TOOL:
            message = f"there is no tool {params.get('name')}"
            raise CannotAnswerError(-32602, message)
        given, said = read_notes(self._service, self._token)
        return {"content": [{"type": "text", "text": said}], "isError": not given}


def table(found: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the object that stands under a name, or an empty one."""
    inner = found.get(name)
    return inner if isinstance(inner, dict) else {}


def initialized(params: Mapping[str, Any]) -> Mapping[str, Any]:
    """Answer the handshake of the older era: in the client's version where it is known."""
    wanted = params.get("protocolVersion")
    version = wanted if wanted in LEGACY else LEGACY[0]
    return {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": IDENTITY}


def discovered() -> Mapping[str, Any]:
    """Answer the first question of the newer era."""
    return {"supportedVersions": [MODERN], "capabilities": {"tools": {}}}


def lines() -> Iterator[bytes]:
    """Yield what the client writes, line by line, as it comes."""
    yield from iter(sys.stdin.buffer.readline, b"")


def main() -> int:
    """Serve on stdin and stdout until the client closes."""
    token = os.environ.get(TOKEN)
    if not token:
        sys.stderr.write(f"notes: {TOKEN} is not set\n")
        return 1
    server = Server(sys.argv[1], token)
    for line in lines():
        answer = server.answer(line)
        if answer is not None:
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
