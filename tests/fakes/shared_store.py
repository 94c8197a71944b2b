"""
A store that many brokers share, with versions and compare-and-set: K/V 2 without a server.

It implements ``StagingBackend``. Between any two lines of two brokers it lets the
other one in, so that whoever looks before it writes is overtaken. This module
refuses to tell anybody a value but by ``issue`` and ``staged``.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from backends.base import ConflictError, Credential, Health, RefusedError, Secret, SecretNotFoundError
from backends.rotating import Staged

Values = Mapping[str, Secret]


class Cupboard:
    """What is in the store, for all who share it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Begin with nothing."""
        self.clock = clock
        self.versions: dict[str, list[tuple[float, Values]]] = {}
        self.staged: dict[str, Staged] = {}
        self.conflicts = 0


class SharedStore:
    """One broker's way to the cupboard."""

    def __init__(self, name: str, cupboard: Cupboard) -> None:
        """Open nothing: it is always there."""
        self.name = name
        self.cupboard = cupboard

    async def open(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""

    def mints(self, path: str) -> bool:
        """Return False."""
        del path
        return False

    def at_hand(self, path: str) -> Credential | None:
        """Return None: it has to be asked."""
        del path
        return None

    async def issue(self, path: str, *, params: Mapping[str, Any], intent: str) -> Credential:
        """Return the current version."""
        del params, intent
        await asyncio.sleep(0)
        versions = self.cupboard.versions.get(path)
        if not versions:
            message = f"there is no secret {path}"
            raise SecretNotFoundError(message, hint="write it there")
        return Credential(values=versions[-1][1], version=len(versions))

    async def renew(self, backend_lease: str, *, increment: float) -> float:
        """Refuse: there is nothing to renew."""
        del backend_lease, increment
        message = "there are no leases here"
        raise RefusedError(message)

    async def revoke(self, backend_lease: str) -> None:
        """Do nothing."""

    async def health(self) -> Health:
        """Say that all is well."""
        return Health(state="ok")

    async def put(self, path: str, values: Values) -> int:
        """Write a version."""
        await asyncio.sleep(0)
        versions = self.cupboard.versions.setdefault(path, [])
        versions.append((self.cupboard.clock(), dict(values)))
        return len(versions)

    async def put_if(self, path: str, values: Values, *, expected: int | None) -> int:
        """Write a version over the one that is expected."""
        await asyncio.sleep(0)
        if len(self.cupboard.versions.get(path, ())) != (expected or 0):
            raise self._conflict()
        return await self.put(path, values)

    async def staged(self, path: str) -> Staged | None:
        """Return what is staged."""
        await asyncio.sleep(0)
        return self.cupboard.staged.get(path)

    async def stage(self, path: str, staged: Staged | None, *, instead_of: str | None) -> None:
        """Keep what is staged in the place of what is expected there."""
        await asyncio.sleep(0)
        there = self.cupboard.staged.get(path)
        if (None if there is None else there.token) != instead_of:
            raise self._conflict()
        if staged is None:
            del self.cupboard.staged[path]
        else:
            self.cupboard.staged[path] = staged

    def _conflict(self) -> ConflictError:
        self.cupboard.conflicts += 1
        message = "somebody else has written there"
        return ConflictError(message)
