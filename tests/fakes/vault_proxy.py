"""
What stands in front of any Vault, fake or real: it counts the requests, passes them on, and fails as it is told.

It refuses to understand what it passes on, and to follow a redirect.
"""

import ssl
from pathlib import Path
from typing import Final

import aiohttp

from tests.fakes.faulty_http import Asked, FaultyServer, Said

_OWN: Final = frozenset({"host", "content-length", "connection", "transfer-encoding"})
_OF_THE_WAY: Final = frozenset({"content-length", "connection", "transfer-encoding", "content-encoding"})


class VaultProxy(FaultyServer):
    """A server that asks another one."""

    def __init__(
        self,
        upstream: str,
        *,
        trust: ssl.SSLContext | None = None,
        tls: ssl.SSLContext | None = None,
        path: Path | None = None,
        port: int = 0,
    ) -> None:
        """Prepare to pass on to ``upstream``, an address that may be moved while it listens."""
        super().__init__(self._pass_on, tls=tls, path=path, port=port)
        self.upstream = upstream
        self._trust = trust
        self._session: aiohttp.ClientSession | None = None

    async def _pass_on(self, asked: Asked) -> Said:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0, ssl=self._trust or True)
            self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
            self.at_the_end(self._session.close)
        headers = {name: text for name, text in asked.headers.items() if name not in _OWN}
        url = f"{self.upstream}{asked.target}"
        try:
            async with self._session.request(
                asked.method, url, data=asked.body or None, headers=headers, allow_redirects=False
            ) as answer:
                body = await answer.read()
                kept = {name: text for name, text in answer.headers.items() if name.lower() not in _OF_THE_WAY}
                return Said(status=answer.status, headers=kept, body=body)
        except aiohttp.ClientError as error:
            # Whoever asked sees what a client of a dead server sees: the connection ends.
            raise ConnectionResetError from error
