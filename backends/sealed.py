"""
The broker's own store of secrets, sealed at rest.

Reading needs no file and no thread: what is current is in memory, sealed, and
is opened for the moment in which it is issued. Writing goes through one thread
and has happened when the caller is told so.

This backend refuses to show a value in any way but ``issue``, to overwrite what
does not verify, and to fall back to another key or another place.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar, final

from backends import sealed_file, sealed_rows
from backends.base import (
    BackendError,
    Credential,
    Health,
    Lock,
    LockedError,
    MisconfiguredError,
    OutcomeUnknownError,
    RefusedError,
    Secret,
    SecretNotFoundError,
    Surroundings,
    UnavailableError,
    Version,
)
from backends.envelope import OpenError
from backends.key_option import key_source
from backends.master_key import KeySource, UnlockableSource
from backends.options import Options
from backends.sealed_rows import Shelf, View
from backends.sealed_store import Rotated, SealedStore, Stage
from backends.storable import check_name, exposed
from backends.worker import Worker, settled

if TYPE_CHECKING:
    from concurrent.futures import Future

_T = TypeVar("_T")

KEEP: Final = 10
"""Versions of a secret that stay, where the config does not say."""

_MOST: Final = 1000
_RETRY_SECONDS: Final = 1.0
_DRAWER: Final = "\x1f"
"""What the names of other backends' drawers begin with. No secret's name does: it is printable."""


def from_config(name: str, options: Mapping[str, Any], surroundings: Surroundings) -> "SealedBackend":
    """Return the backend that ``[backends.NAME]`` describes: ``key``, and ``versions`` to keep."""
    if name != "local":
        message = f"backends.{name}: the sealed store is called local, and there is one"
        raise MisconfiguredError(message, hint=f"remove [backends.{name}]")
    chosen = Options(f"backends.{name}", options, known=("key", "versions"))
    keep = chosen.number("versions", default=KEEP, least=1, most=_MOST)
    source = key_source(chosen.table("key"), surroundings)
    return SealedBackend(name, path=surroundings.state / "sealed.db", source=source, keep=keep)


@final
class SealedBackend:
    """A ``WritableBackend`` over a ``SealedStore`` on a thread of its own."""

    def __init__(
        self,
        name: str,
        *,
        path: Path,
        source: KeySource,
        keep: int = KEEP,
        clock: Callable[[], float] = time.time,
        key_seconds: float = 5.0,
        disk_seconds: float = 10.0,
    ) -> None:
        """
        Describe a store; nothing is opened yet.

        Args:
            name: the backend's name in the config.
            path: the file.
            source: where its master key comes from.
            keep: how many versions of a secret stay.
            clock: Unix seconds, UTC.
            key_seconds: how long to wait for the store to open, its key included.
            disk_seconds: how long to wait for a change to be on disk.

        """
        self.name = name
        self._path = path
        self._store = SealedStore(path, source, keep=keep, clock=clock)
        self._worker = Worker(f"sealed-{name}")
        self._unlocker = Worker(f"unlock-{name}")
        self._opening: Future[None] | None = None
        self._fault: BackendError | None = None
        self._failed_at = 0.0
        self._closed = False
        self._key_seconds = key_seconds
        self._disk_seconds = disk_seconds

    async def open(self) -> None:
        """Open the store, or remember why it does not: then every call says so and tries again, once a second."""
        try:
            await self._opened()
        except BackendError:
            return

    async def close(self) -> None:
        """Close the store. A disk that hangs keeps the thread, and nobody waits for it for long."""
        if self._closed:
            return
        self._closed = True
        closing = self._worker.submit(self._store.close)
        self._worker.stop()
        self._unlocker.stop()
        await settled(closing, self._disk_seconds)

    def mints(self, path: str) -> bool:
        """Return False: what is stored is handed out, and nobody but an admin can make it worthless."""
        del path
        return False

    def at_hand(self, path: str) -> Credential | None:
        """Return the current version of the secret ``path``, opened from memory, or None before the store is open."""
        view = self._store.view
        shelf = None if view is None or path.startswith(_DRAWER) else view.shelves.get(path)
        if view is None or shelf is None:
            return None
        return self._unsealed(view, shelf, path)

    def _unsealed(self, view: View, shelf: Shelf, path: str) -> Credential:
        try:
            values = sealed_rows.unseal(view, shelf)
        except OpenError:
            # It did open when the file was read: this is memory that fails, or a bug.
            message = f"the secret {path} does not open any more"
            raise UnavailableError(message, hint="mcp-broker stop") from None
        return Credential(values={field: Secret(value) for field, value in values.items()}, version=shelf.version)

    async def issue(self, path: str, *, params: Mapping[str, Any], intent: str) -> Credential:
        """Return the current version of the secret ``path``, once the store is open."""
        del intent
        if self._store.view is None:
            await self._opened()
        if params:
            message = f"the sealed store takes no params, and the secret {path} has some"
            raise MisconfiguredError(message)
        found = self.at_hand(path)
        if found is None:
            raise _not_found(path)
        return found

    async def renew(self, backend_lease: str, *, increment: float) -> float:
        """Refuse: there is nothing to renew."""
        del backend_lease, increment
        message = "a sealed secret has no lease at its source"
        raise RefusedError(message)

    async def revoke(self, backend_lease: str) -> None:
        """Do nothing: there is nothing to revoke."""

    async def put(self, path: str, values: Mapping[str, Secret]) -> int:
        """Write a new version and make it current; return its number. On disk when it returns."""
        check_name(path)
        fields = exposed(path, values)
        await self._opened()
        return await self._written(lambda: self._store.put(path, fields))

    async def put_if(self, path: str, values: Mapping[str, Secret], *, expected: int | None) -> int:
        """Write as ``put`` does if the current version is ``expected``; raise ``ConflictError`` where it is not."""
        check_name(path)
        taken = exposed(path, values)
        await self._opened()
        return await self._written(lambda: self._store.put_if(path, taken, expected=expected))

    async def delete(self, path: str) -> None:
        """Remove the secret with all its versions."""
        await self._opened()
        await self._written(lambda: self._store.delete(path))

    async def list(self) -> Sequence[str]:
        """Return the names of all secrets, sorted."""
        view = await self._opened()
        return sorted(name for name in view.shelves if not name.startswith(_DRAWER))

    async def versions(self, path: str) -> Sequence[Version]:
        """Return the versions of a secret, newest first."""
        view = await self._opened()
        shelf = None if path.startswith(_DRAWER) else view.shelves.get(path)
        if shelf is None:
            raise _not_found(path)
        return shelf.history

    def drawer(self, name: str) -> "SealedDrawer":
        """Return where the backend ``name`` keeps a value that no config can name and no list shows."""
        return SealedDrawer(self, _DRAWER + name)

    async def keep_in_drawer(self, name: str, value: Secret | None) -> None:
        """Keep one value under a drawer's name, or none."""
        view = await self._opened()
        if value is not None:
            kept = {"value": value.expose()}
            await self._written(lambda: self._store.put(name, kept, keep=1))
        elif name in view.shelves:
            await self._written(lambda: self._store.delete(name))

    async def look_in_drawer(self, name: str) -> Secret | None:
        """Return what is kept under a drawer's name."""
        view = await self._opened()
        shelf = view.shelves.get(name)
        return None if shelf is None else self._unsealed(view, shelf, name[1:]).values["value"]

    async def rotate_key(
        self, source: KeySource | None = None, *, reencrypt: bool = False, stage: Stage = lambda _: None
    ) -> Rotated:
        """
        Replace the master key: by the next one of its source, or by that of another.

        A crash at any moment leaves a store that opens. Args as in ``SealedStore.rotate``.
        """
        await self._opened()
        # A thousand big secrets take longer to seal than one, and a keyring may ask somebody.
        patience = 10 * self._disk_seconds
        return await self._written(
            lambda: self._store.rotate(source, reencrypt=reencrypt, stage=stage), seconds=patience
        )

    async def lock(self) -> Lock | None:
        """Return what keeps the store closed, where that can be unlocked."""
        source = self._store.source
        if self._store.view is not None or not isinstance(source, UnlockableSource):
            return None
        looking = self._unlocker.submit(source.lock)
        if not await settled(looking, self._key_seconds):
            raise self._late()
        return looking.result()

    async def unlock(self, password: Secret | None) -> None:
        """Unlock the source of the master key, and open the store with it."""
        source = self._store.source
        if not isinstance(source, UnlockableSource):
            message = f"the {source.label} takes no password"
            raise RefusedError(message, hint="mcp-broker status")
        text = None if password is None else password.expose()
        # Not behind the store, which may be waiting for just that.
        unlocking = self._unlocker.submit(lambda: source.unlock(text))
        if not await settled(unlocking, self._disk_seconds):
            raise self._late()
        unlocking.result()
        if self._opening is not None:
            await settled(self._opening, self._key_seconds)
        self._fault = None
        await self._opened()

    async def health(self) -> Health:
        """Say whether the store is open, what it is sealed with, and what that does not protect."""
        view = self._store.view
        if view is not None:
            source = self._store.source
            count = sum(not name.startswith(_DRAWER) for name in view.shelves)
            detail = f"{count} secret{'' if count == 1 else 's'}, sealed with the {source.label}"
            return Health(state="ok", detail=f"{detail}; {source.caution}" if source.caution else detail)
        fault = self._fault or UnavailableError(f"{self._path} is not open yet")
        return Health(state=_state(fault), detail=fault.message, hint=fault.hint)

    async def _opened(self) -> View:
        """Return what is in the store, opening it first where it is not. Raises what keeps it from opening."""
        view = self._store.view
        if view is not None:
            return view
        if self._closed:
            message = f"{self._path} was closed"
            raise UnavailableError(message)
        now = asyncio.get_running_loop().time()
        hangs = self._opening is not None and not self._opening.done()
        if self._fault is not None and (hangs or now - self._failed_at < _RETRY_SECONDS):
            # Who hangs will be noticed when it is done; nobody else has to wait for it.
            _raise_again(self._fault)
        if self._opening is None or self._opening.done():
            self._opening = self._worker.submit(self._guarded(self._store.open))
        opening = self._opening
        try:
            if not await settled(opening, self._key_seconds):
                raise self._late()
            opening.result()
        except BackendError as error:
            self._fault = error.with_traceback(None)
            self._failed_at = asyncio.get_running_loop().time()
            _raise_again(error)
        self._fault = None
        view = self._store.view
        if view is None:
            message = f"{self._path} was closed"
            raise UnavailableError(message)
        return view

    def _guarded(self, job: Callable[[], _T]) -> Callable[[], _T]:
        """Return ``job`` with what SQLite and the file system raise put in our words."""

        def guarded() -> _T:
            with sealed_file.translated(self._path):
                return job()

        return guarded

    def _late(self) -> BackendError:
        if self._store.asking:
            return LockedError(
                f"the {self._store.source.label} has not answered for {self._key_seconds:g} seconds",
                hint="mcp-broker unlock",
            )
        return UnavailableError(
            f"{self._path} has not opened for {self._key_seconds:g} seconds", hint="mcp-broker status"
        )

    async def _written(self, job: Callable[[], _T], *, seconds: float | None = None) -> _T:
        """Do ``job`` on the thread, also when the caller goes away, and say what came of it as far as is known."""
        seconds = self._disk_seconds if seconds is None else seconds
        future = self._worker.submit(self._guarded(job))
        if await settled(future, seconds):
            return future.result()
        if future.cancel():
            message = f"the disk of {self._path} is busy; nothing was written"
            raise UnavailableError(message)
        message = f"the disk of {self._path} has not answered for {seconds:g} seconds"
        raise OutcomeUnknownError(message)


@final
class SealedDrawer:
    """A ``Drawer`` in a sealed store."""

    __slots__ = ("_name", "_store")

    def __init__(self, store: SealedBackend, name: str) -> None:
        """Take the store, and the drawer's name in it."""
        self._store = store
        self._name = name

    async def read(self) -> Secret | None:
        """Return what was kept last."""
        return await self._store.look_in_drawer(self._name)

    async def write(self, value: Secret | None) -> None:
        """Keep ``value`` alone."""
        await self._store.keep_in_drawer(self._name, value)


def _state(fault: BackendError) -> str:
    match fault:
        case LockedError():
            return "locked"
        case UnavailableError():
            return "unavailable"
        case _:
            return "misconfigured"


def _raise_again(fault: BackendError) -> NoReturn:
    # A new one each time: an exception that is raised again and again grows by a traceback each time.
    raise type(fault)(fault.message, hint=fault.hint) from None


def _not_found(path: str) -> SecretNotFoundError:
    return SecretNotFoundError(f"there is no secret {path}", hint=f"mcp-broker secret set {path}")
