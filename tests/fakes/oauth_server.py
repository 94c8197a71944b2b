"""
A token endpoint on this machine: client credentials, and refresh tokens that are good once.

It speaks HTTP on a port of 127.0.0.1 and can be told to refuse, to be slow of
mind, to redirect, or to lose an answer after it has done what was asked. This
module refuses to remember a token in any file.
"""

import http.server
import json
import secrets
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

CLIENT, CLIENT_SECRET = "the-client", "made-up-client-secret"


@dataclass
class TokenServer:
    """
    What the server knows, and how it behaves.

    Attributes:
        refresh: the one refresh token that is good now.
        rotates: whether each refresh token is good once only.
        lifetime: seconds that an access token is good for; None for not said.
        behaves: ``well``, ``lose`` (done, and the answer is lost), ``redirect``, ``garbage``, ``broken`` (status 500).
        issued: every access token, in order.
        asked: every form that came, without what is secret in it.

    """

    refresh: str = "made-up-first-refresh"
    rotates: bool = True
    lifetime: float | None = 3600.0
    behaves: str = "well"
    issued: list[str] = field(default_factory=list)
    asked: list[dict[str, str]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        """Return the address of its token endpoint."""
        return f"http://127.0.0.1:{self.port}/token"

    def answer(self, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        """Answer a form as RFC 6749 says."""
        hidden = {"refresh_token", "client_secret"}
        self.asked.append({name: value for name, value in form.items() if name not in hidden})
        if form.get("client_id") != CLIENT or form.get("client_secret", CLIENT_SECRET) != CLIENT_SECRET:
            return 401, {"error": "invalid_client"}
        body: dict[str, Any] = {"token_type": "Bearer"}
        if form.get("grant_type") == "refresh_token":
            if form.get("refresh_token") != self.refresh:
                return 400, {"error": "invalid_grant", "error_description": form.get("refresh_token")}
            if self.rotates:
                self.refresh = body["refresh_token"] = "refresh-" + secrets.token_hex(16)
        elif form.get("grant_type") != "client_credentials" or "client_secret" not in form:
            return 400, {"error": "unauthorized_client"}
        body["access_token"] = "access-" + secrets.token_hex(16)
        self.issued.append(body["access_token"])
        if self.lifetime is not None:
            body["expires_in"] = self.lifetime
        return 200, body


@contextmanager
def token_server() -> Iterator[TokenServer]:
    """Run a token endpoint for as long as the block lasts."""
    known = TokenServer()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            form = dict(urllib.parse.parse_qsl(self.rfile.read(length).decode()))
            match known.behaves:
                case "redirect":
                    self._say(307, {}, location="http://127.0.0.1:1/elsewhere")
                case "garbage":
                    self._say(200, {"access_token": None, "leak": form.get("refresh_token")})
                case "broken":
                    self._say(500, {"error": form.get("refresh_token")})
                case "lose":
                    known.answer(form)
                    self.close_connection = True
                    self.connection.shutdown(2)
                case _:
                    self._say(*known.answer(form))

        def _say(self, status: int, body: dict[str, Any], *, location: str = "") -> None:
            text = json.dumps(body).encode()
            self.send_response(status)
            if location:
                self.send_header("Location", location)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the name of the standard library's
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        known.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield known
        finally:
            server.shutdown()
            thread.join()
