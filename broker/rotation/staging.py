"""
Where pending and previous values are while a rotation is under way.

Beside the secret, never as one of its versions: so nobody is issued a pending
value, however the broker ends. A backend that several brokers share keeps them
itself; for all others they are in a drawer of the sealed store. This module
refuses to know what the values are for.
"""

from collections.abc import Mapping
from typing import Protocol

import msgspec

from backends.base import Backend, ConflictError, Credential, Drawer, Secret, SecretNotFoundError, WritableBackend
from backends.rotating import CheckedBackend, Staged, StagingBackend
from broker.errors import ConfigError, IntegrityError

NOTHING: Credential = Credential(values={})
"""What is current where there is no secret yet."""


class Staging(Protocol):
    """One secret, and what is staged for it."""

    shared: bool
    """Whether brokers that we do not see use it, too."""

    async def read(self) -> Staged | None:
        """Return what is staged."""
        ...

    async def write(self, staged: Staged | None, *, instead_of: str | None) -> None:
        """Keep it in the place of what has this token. Raises ``ConflictError``."""
        ...

    async def current(self) -> Credential:
        """Return what is issued now; no values where there is no secret."""
        ...

    async def promote(self, values: Mapping[str, Secret], *, expected: Credential) -> int | None:
        """Make the values current in the place of ``expected``. Raises ``ConflictError``."""
        ...


def staging(backend: Backend, path: str, drawer: Drawer | None) -> Staging:
    """Return where what is staged for a secret is kept. Raises ``ConfigError`` where there is no such place."""
    if isinstance(backend, StagingBackend):
        return _AtBackend(backend, path)
    if isinstance(backend, WritableBackend) and drawer is not None:
        return _InDrawer(backend, path, drawer)
    message = f"backend {backend.name!r} keeps no secrets through the broker, so the broker cannot make new ones for it"
    raise ConfigError(message, hint="leave with and generate out of rotate, where the source makes them itself")


async def _current(backend: Backend, path: str) -> Credential:
    try:
        return await backend.issue(path, params={}, intent="rotation")
    except SecretNotFoundError:
        return NOTHING


class _AtBackend:
    """Staged where the secret is, for all who share it."""

    shared = True

    def __init__(self, backend: StagingBackend, path: str) -> None:
        self._backend = backend
        self._path = path

    async def read(self) -> Staged | None:
        return await self._backend.staged(self._path)

    async def write(self, staged: Staged | None, *, instead_of: str | None) -> None:
        await self._backend.stage(self._path, staged, instead_of=instead_of)

    async def current(self) -> Credential:
        return await _current(self._backend, self._path)

    async def promote(self, values: Mapping[str, Secret], *, expected: Credential) -> int | None:
        return await self._backend.put_if(self._path, values, expected=expected.version)


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in a drawer: ``Staged`` with its values as text, so never shown."""

    token: str
    pending: dict[str, str]
    previous: dict[str, str]
    expected: int | None
    at: float
    lifetime: float | None = None
    beside: dict[str, str] = {}


class _InDrawer:
    """Staged in the sealed store of this broker, for a secret that is there, or in a keyring."""

    shared = False

    def __init__(self, backend: WritableBackend, path: str, drawer: Drawer) -> None:
        self._backend = backend
        self._path = path
        self._drawer = drawer

    async def read(self) -> Staged | None:
        text = await self._drawer.read()
        if text is None:
            return None
        try:
            kept = msgspec.json.decode(text.expose(), type=_Kept)
        except msgspec.MsgspecError:
            # The cause would quote it.
            message = f"what is staged for {self._path} cannot be read"
            raise IntegrityError(message, hint="start the newer mcp-broker that wrote it") from None
        return Staged(
            token=kept.token,
            pending=_wrapped(kept.pending),
            previous=_wrapped(kept.previous),
            expected=kept.expected,
            at=kept.at,
            lifetime=kept.lifetime,
            beside=_wrapped(kept.beside),
        )

    async def write(self, staged: Staged | None, *, instead_of: str | None) -> None:
        # One broker, and one task for each secret: nobody else writes here.
        del instead_of
        if staged is None:
            await self._drawer.write(None)
            return
        kept = _Kept(
            token=staged.token,
            pending=_bare(staged.pending),
            previous=_bare(staged.previous),
            expected=staged.expected,
            at=staged.at,
            lifetime=staged.lifetime,
            beside=_bare(staged.beside),
        )
        await self._drawer.write(Secret(msgspec.json.encode(kept).decode()))

    async def current(self) -> Credential:
        return await _current(self._backend, self._path)

    async def promote(self, values: Mapping[str, Secret], *, expected: Credential) -> int | None:
        if isinstance(self._backend, CheckedBackend):
            return await self._backend.put_if(self._path, values, expected=expected.version)
        now = await self.current()
        if (now.version, now.values) != (expected.version, expected.values):
            message = f"the secret {self._path} was changed meanwhile"
            raise ConflictError(message)
        return await self._backend.put(self._path, values)


def _wrapped(values: Mapping[str, str]) -> dict[str, Secret]:
    return {field: Secret(value) for field, value in values.items()}


def _bare(values: Mapping[str, Secret]) -> dict[str, str]:
    return {field: value.expose() for field, value in values.items()}
