"""
What stands behind the tour's MCP server: a notes service that knows one token.

HTTP on a Unix socket, in a thread. It refuses everybody who has another token
or none, and never says what the right one is.
"""

import hmac
import http.server
import secrets
import socketserver
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

NOTES: Final = "signed in as ada. Notes: water the plants; call Grace back"
REFUSED: Final = "401: not signed in"


class Notes:
    """
    The service, while in use.

    Attributes:
        path: where it listens.
        token: the one that it accepts, new each time.
        asked: how often it was asked with the right token.

    """

    def __init__(self, path: Path) -> None:
        """Prepare to listen at ``path``."""
        self.path = str(path)
        self.token = f"notes-{secrets.token_urlsafe(24)}"
        self.asked = 0
        self._server = socketserver.ThreadingUnixStreamServer(self.path, self._reader())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        """Listen."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def accepts(self, authorization: str) -> bool:
        """Say whether somebody has the token, and count it."""
        right = hmac.compare_digest(authorization, f"Bearer {self.token}")
        self.asked += right
        return right

    def _reader(self) -> type[http.server.BaseHTTPRequestHandler]:
        """Return what reads one connection: the library wants a class."""
        notes = self

        class Reader(http.server.BaseHTTPRequestHandler):
            """Reads one request and answers it."""

            def do_GET(self) -> None:
                """Answer with the notes, or refuse."""
                accepted = notes.accepts(self.headers.get("Authorization", ""))
                said = (NOTES if accepted else REFUSED).encode()
                self.send_response(200 if accepted else 401)
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401 - as the library has it
                """Write no log: the tour's screen is for the tour."""

        return Reader
