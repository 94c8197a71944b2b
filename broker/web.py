"""
One POST to a web endpoint, from a thread that may wait.

The standard library's client: what is sent is a few lines now and then, and a
client in the event loop would have the broker wait for its import. This module
refuses redirects (a record must not follow one to somewhere else), proxies of
the environment, and an answer that does not end.
"""

import http.client
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final, final
from urllib.parse import urlsplit

from backends.base import BackendError
from backends.private_file import read

_LONGEST_ANSWER: Final = 65536


class PostError(Exception):
    """What was posted was not taken; ``detail`` says why, for a person."""

    def __init__(self, detail: str, *, hint: str) -> None:
        """Say what happened."""
        super().__init__(detail)
        self.detail = detail
        self.hint = hint


@final
class Endpoint:
    """One URL, and a connection to it while that is used. One thread at a time."""

    def __init__(self, address: str, *, ca_file: Path | None, token_file: Path | None, deadline: float) -> None:
        """Connect to nothing yet. ``deadline`` in seconds, for each step of a POST."""
        self._parts = urlsplit(address)
        self._ca_file = ca_file
        self._token_file = token_file
        self._deadline = deadline
        self._connection: http.client.HTTPConnection | None = None

    def post(self, body: bytes, kind: str) -> None:
        """
        Send ``body`` of this content type.

        Raises:
            PostError: it was not taken, or nobody said that it was.

        """
        host = self._parts.hostname or ""
        try:
            headers = {"Content-Type": kind, "User-Agent": "mcp-broker", **self._authorization()}
            connection = self._connection = self._connection or self._connected(host)
            path = self._parts.path or "/"
            connection.request("POST", f"{path}?{self._parts.query}" if self._parts.query else path, body, headers)
            answer = connection.getresponse()
            rest = answer.read(_LONGEST_ANSWER)
        except BackendError as error:
            self.close()
            raise PostError(error.message, hint=error.hint or "mcp-broker check") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            reason = getattr(error, "strerror", None) or type(error).__name__
            message = f"{host} cannot be reached: {reason}"
            raise PostError(message, hint=f"curl -v {self._shown}") from None
        if answer.will_close or len(rest) >= _LONGEST_ANSWER:
            self.close()
        if not http.client.OK <= answer.status < http.client.MULTIPLE_CHOICES:
            message = f"{host} answered {answer.status}"
            raise PostError(message, hint=f"curl -v {self._shown}")

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    def _shown(self) -> str:
        return f"{self._parts.scheme}://{self._parts.netloc}{self._parts.path}"

    def _authorization(self) -> Mapping[str, str]:
        """Read the token anew each time: whoever rotates it replaces the file."""
        if self._token_file is None:
            return {}
        token = read(self._token_file, "token file", hint=f"ls -l {self._token_file}").decode("ascii", "replace")
        return {"Authorization": f"Bearer {token.strip()}"}

    def _connected(self, host: str) -> http.client.HTTPConnection:
        if self._parts.scheme == "http":
            return http.client.HTTPConnection(host, self._parts.port, timeout=self._deadline)
        context = ssl.create_default_context(cafile=None if self._ca_file is None else str(self._ca_file))
        return http.client.HTTPSConnection(host, self._parts.port, timeout=self._deadline, context=context)
