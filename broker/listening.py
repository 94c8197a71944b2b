"""
Where the broker listens, and that it goes on listening.

A socket's file can vanish under a running broker: /run/user/UID goes with the
last login, and comes again with the next. Then it listens anew where clients
look. This module refuses to take the place of another listener, and to take
away a file that is not its own.
"""

import asyncio
import dataclasses
import logging
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, final

from broker import paths, sockets
from broker.api.door import Entrance
from broker.errors import BrokerError
from broker.paths import Places

_log: Final = logging.getLogger("mcp_broker")

OWN: Final = "own-"
"""Before the name of a socket that an earlier program of this process has bound and handed over."""

QUIET: Final = 0.3
"""Seconds without a request after which who had connected has been served."""

_PAUSE: Final = 0.02

Identity = tuple[int, int]


@final
class Listening:
    """
    The sockets of one broker, and what accepts on them.

    Attributes:
        places: where it is now; the directory of the sockets can change.

    """

    def __init__(self, places: Places, passed: Mapping[str, int], entrances: Sequence[Entrance]) -> None:
        """Take the sockets that were ``passed``, and make the others. Raises ``ConfigError``."""
        self.places = places
        self.entrances = entrances
        self._sockets = sockets.listening(places, {name.removeprefix(OWN): each for name, each in passed.items()})
        if any(name.startswith(OWN) for name in passed):
            # Where they are and not where they would be now: an earlier program has bound them.
            self.places = dataclasses.replace(places, run=Path(self._sockets[0].getsockname()).parent)
        self._own: dict[str, Identity | None] = {
            name: _identity(path) for name, path in self._paths().items() if name not in passed
        }
        self._servers: dict[str, asyncio.Server] = {}
        self._withdrawn = False

    async def open(self) -> None:
        """Begin to accept."""
        for entrance in self.entrances:
            await self._accept(entrance)

    async def look(self) -> Path | None:
        """Listen anew where a file of ours has vanished; return where, if so."""
        moved = None
        for entrance in self.entrances:
            name = entrance.name
            if not self._withdrawn and name in self._own and _identity(self._paths()[name]) is None:
                moved = await self._anew(entrance) or moved
        return moved

    async def withdraw(self) -> None:
        """Be found by nobody who comes from now on, and serve who has come."""
        self._withdrawn = True
        self._remove()
        await asyncio.sleep(QUIET)

    def stay(self) -> None:
        """Be found again, as soon as it is looked."""
        self._withdrawn = False

    def handed_over(self) -> dict[str, int]:
        """Return descriptors of the sockets, by name, on which clients may wait until somebody accepts again."""
        return {
            (OWN if name in self._own else "") + name: os.dup(each.fileno())
            for name, each in zip(("broker", "admin"), self._sockets, strict=True)
        }

    async def drain(self, within: float) -> None:
        """Accept nobody any more, and answer what was asked already. Who comes now waits in the sockets."""
        for server in self._servers.values():
            server.close()
        end = time.monotonic() + within
        quiet_since = time.monotonic()
        while time.monotonic() < end and time.monotonic() - quiet_since < QUIET:
            await asyncio.sleep(_PAUSE)
            if any(entrance.busy for entrance in self.entrances):
                quiet_since = time.monotonic()

    async def close(self, *, keep: bool) -> None:
        """Close every connection, and take the files of ours away unless somebody is to ``keep`` them."""
        for server in self._servers.values():
            server.close()
        for entrance in self.entrances:
            await entrance.close()
        if not keep:
            self._remove()

    def _paths(self) -> dict[str, Path]:
        return {"broker": self.places.broker_socket, "admin": self.places.admin_socket}

    def _remove(self) -> None:
        for name, path in self._paths().items():
            if name in self._own and self._own[name] == _identity(path):
                path.unlink(missing_ok=True)

    async def _accept(self, entrance: Entrance) -> None:
        sock = self._sockets[("broker", "admin").index(entrance.name)]
        loop = asyncio.get_running_loop()
        # From Python 3.13 on the loop would take the file away with the server, be it systemd's or handed over.
        keep: dict[str, Any] = {"cleanup_socket": False}
        server = await loop.create_unix_server(entrance.protocol, sock=sock, backlog=sockets.BACKLOG, **keep)
        self._servers[entrance.name] = server

    async def _anew(self, entrance: Entrance) -> Path | None:
        self.places = dataclasses.replace(self.places, run=paths.run_now(self.places))
        try:
            made = sockets.bound(self.places, entrance.name)
        except (BrokerError, OSError) as error:
            _log.warning("cannot listen in %s: %s", self.places.run, getattr(error, "message", type(error).__name__))
            return None
        self._servers[entrance.name].close()
        pair: list[socket.socket] = list(self._sockets)
        pair[("broker", "admin").index(entrance.name)] = made
        self._sockets = (pair[0], pair[1])
        path = self._paths()[entrance.name]
        self._own[entrance.name] = _identity(path)
        await self._accept(entrance)
        return path


def _identity(path: Path) -> Identity | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
