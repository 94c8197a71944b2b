"""
Secrets that a person keeps in the keyring of their system.

A keyring blocks, prompts and hangs, so that it is asked on one thread, one
question after another, each with a deadline. Whoever asks for a secret while it
is locked waits for a few seconds; one prompt is open meanwhile, however many
wait, and stays open when they have gone. What was read is remembered for a
short while, and forgotten at once where the keyring says that something in it
has changed.

This backend refuses to use another keyring than the one it was told to, to ask
somebody again who has just said no, and to work in the host's broker: a service
has no desktop.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar, final

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
    Surroundings,
    UnavailableError,
    Version,
)
from backends.keyring_choice import chosen_kind, default_name, refuse_system_mode, ring
from backends.keyring_ring import SECRETS, UNLOCK, Ring
from backends.keyring_store import KeyringStore, lock_file
from backends.memory import Memory
from backends.options import Options
from backends.storable import check_name, exposed
from backends.worker import Worker, settled

if TYPE_CHECKING:
    from concurrent.futures import Future

_T = TypeVar("_T")

CACHE_SECONDS: Final = 30
"""How long a value is remembered where the config does not say."""

PATIENCE: Final = 4.0
"""Seconds that somebody waits for the keyring. A client waits for its server, and the least patient for 5."""

_ADMIN_SECONDS: Final = 9.0
_GRACE: Final = 10.0
_MOST_CACHE: Final = 3600
_KNOWN: Final = ("keyring", "unsafe_plaintext", "cache", "bus")
_PARAMS: Final = ("service", "username")


def from_config(name: str, options: Mapping[str, Any], surroundings: Surroundings) -> "KeyringBackend":
    """Return the backend of ``[backends.NAME]``: ``keyring``, ``unsafe_plaintext``, ``cache`` in seconds, ``bus``."""
    where = f"backends.{name}"
    chosen = Options(where, options, known=_KNOWN)
    refuse_system_mode(surroundings)
    unsafe = "unsafe_plaintext" in options and chosen.flag("unsafe_plaintext")
    kind_name = chosen.text("keyring") if "keyring" in options else default_name()
    kind = chosen_kind(kind_name, f"{where}.keyring", unsafe_plaintext=unsafe)
    bus = chosen.text("bus") if "bus" in options else None
    if bus is not None and not bus.startswith("unix:"):
        message = f"{where}.bus is not the address of a local bus"
        raise MisconfiguredError(message, hint=f"unix:path=/run/user/UID/bus, or without {where}.bus the user's own")
    cache = chosen.number("cache", default=CACHE_SECONDS, least=0, most=_MOST_CACHE)
    found = ring(kind_name, kind, bus=bus, surroundings=surroundings)
    return KeyringBackend(name, found, kind_name, lock_file=lock_file(surroundings.state), bus=bus, cache=cache)


@dataclass(frozen=True, slots=True)
class _Reading:
    """A read that is under way, the epoch in which it began, and until when what it finds may be remembered."""

    future: "Future[Credential]"
    epoch: int
    until: float

    def over(self, now: float) -> bool:
        """Return whether it has ended without anything that may be issued now."""
        return self.future.done() and (self.future.exception() is not None or now >= self.until)


@final
class KeyringBackend:
    """A ``WritableBackend`` and an ``UnlockableBackend`` over one keyring."""

    def __init__(
        self,
        name: str,
        ring: Ring,
        kind: str,
        *,
        lock_file: Path,
        bus: str | None = None,
        cache: float = CACHE_SECONDS,
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        Describe it; nothing is opened, and no library loaded.

        Args:
            name: the backend's name in the config.
            ring: the keyring.
            kind: the keyring's name in the config.
            lock_file: by which the brokers of one user take turns.
            bus: the address of the session bus; None for the user's own.
            cache: seconds for which a value is remembered.
            patience: seconds that somebody waits for the keyring.
            clock: Unix seconds, UTC.

        """
        self.name = name
        self._ring = ring
        self._kind = kind
        self._bus = bus
        self._store = KeyringStore(ring, lock_file, clock=clock)
        self._worker = Worker(f"keyring-{name}")
        self._unlocker = Worker(f"unlock-{name}")
        self._cache_seconds = cache
        self._patience = patience
        self._memory = Memory()
        self._reading: dict[tuple[str, str], _Reading] = {}
        self._epoch = 0
        """Goes up with every change that is heard of: what was read before it is not remembered after it."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opened = False
        self._needed = False

    @property
    def idle(self) -> bool:
        """Return whether nobody has needed the keyring yet."""
        return not self._needed

    async def open(self) -> None:
        """Do nothing yet: the keyring is asked, and its library loaded, when it is first needed."""
        self._opened = True
        self._loop = asyncio.get_running_loop()

    async def close(self) -> None:
        """Let go of the keyring, and of every value. A prompt that is open is taken back."""
        if not self._opened:
            return
        self._opened = False
        self._forget()
        self._ring.forgo(self._changed)
        self._ring.dismiss()
        if self._needed:
            closing = self._worker.submit(self._ring.close)
            self._worker.stop()
            self._unlocker.stop()
            await settled(closing, self._patience)

    def mints(self, path: str) -> bool:
        """Return False: what is kept is handed out, and nobody here can make it worthless."""
        del path
        return False

    def at_hand(self, path: str) -> Credential | None:
        """Return the secret ``path`` where it was read a moment ago."""
        return self._memory.find((SECRETS, path))

    async def issue(self, path: str, *, params: Mapping[str, Any], intent: str) -> Credential:
        """Return a secret of ours, or, with ``service`` and ``username``, the item of another program as it is."""
        del intent
        key, read = (SECRETS, path), self._store.read
        if params:
            key = foreign(path, params)
            return await self._read(key, lambda: self._store.read_foreign(*key))
        return await self._read(key, lambda: read(path))

    async def renew(self, backend_lease: str, *, increment: float) -> float:
        """Refuse: there is nothing to renew."""
        del backend_lease, increment
        message = "a secret in a keyring has no lease there"
        raise RefusedError(message)

    async def revoke(self, backend_lease: str) -> None:
        """Do nothing: there is nothing to revoke."""

    async def put(self, path: str, values: Mapping[str, Secret]) -> int:
        """Write a new version and make it current; return its number."""
        check_name(path)
        fields = exposed(path, values)
        try:
            return await self._written(lambda: self._store.put(path, fields))
        finally:
            self._forget()

    async def delete(self, path: str) -> None:
        """Remove a secret with what is known of its versions."""
        try:
            await self._written(lambda: self._store.delete(path))
        finally:
            self._forget()

    async def list(self) -> Sequence[str]:
        """Return the paths that hold a secret of ours, sorted."""
        return await self._asked(self._store.list, seconds=_ADMIN_SECONDS)

    async def versions(self, path: str) -> Sequence[Version]:
        """Return the versions of a secret, newest first: when they were written, not what they were."""
        return await self._asked(lambda: self._store.versions(path), seconds=_ADMIN_SECONDS)

    async def lock(self) -> Lock | None:
        """Return what is locked."""
        if self._ring.prompting:
            return Lock(what=self._ring.where, takes_password=self._ring.takes_password, asking=True)
        return await self._asked(self._ring.lock, seconds=self._patience)

    async def unlock(self, password: Secret | None) -> None:
        """Unlock the keyring with its password, or have it ask somebody, whatever became of that before."""
        if password is None:
            await self._asked(self._ring.ask, seconds=_ADMIN_SECONDS)
        else:
            # Not behind what waits at the prompt: that is what it is to set free.
            text = password.expose()
            work = self._begun(lambda: self._ring.unlock(text), _ADMIN_SECONDS, self._unlocker)
            await self._answer(work, _ADMIN_SECONDS)

    async def health(self) -> Health:
        """Say which keyring it is, and whether it is open. Asks nobody."""
        facts = {"keyring": self._kind} | ({} if self._bus is None else {"bus": self._bus})
        if not self._opened:
            return Health(state="unavailable", detail="it is not open yet", facts=facts)
        try:
            found = await self.lock()
        except LockedError as error:
            return Health(state="locked", detail=error.message, hint=error.hint, facts=facts)
        except MisconfiguredError as error:
            return Health(state="misconfigured", detail=error.message, hint=error.hint, facts=facts)
        except BackendError as error:
            return Health(state="unavailable", detail=error.message, hint=error.hint, facts=facts)
        title = self._ring.title if self._ring.where == self._ring.title else f"{self._ring.title}, {self._ring.where}"
        if found is not None:
            asks = ", and asks for its password" if self._ring.prompting else ""
            return Health(state="locked", detail=f"{title}: it is locked{asks}", hint=UNLOCK, facts=facts)
        detail = f"{title}; {self._ring.caution}" if self._ring.caution else title
        return Health(state="ok", detail=detail, facts=facts)

    def _forget(self) -> None:
        self._epoch += 1
        self._memory.clear()
        # Whoever asks from now on wants what is there now.
        self._reading.clear()

    async def _read(self, key: tuple[str, str], read: Callable[[], Credential]) -> Credential:
        """Return what ``read`` returns; where it is under way for somebody else already, that is waited for."""
        if (found := self._memory.find(key)) is not None:
            return found
        reading = self._reading.get(key)
        if reading is None or reading.over(time.monotonic()):
            future = self._begun(lambda: self._listening(read), self._patience)
            # It is as old as the question, whatever became of it on the way.
            until = time.monotonic() + self._cache_seconds
            reading = self._reading[key] = _Reading(future, self._epoch, until)
        try:
            credential = await self._answer(reading.future, self._patience)
        finally:
            if reading.future.done() and self._reading.get(key) is reading:
                del self._reading[key]
        if reading.epoch == self._epoch and time.monotonic() < reading.until:
            self._memory.keep(key, credential, until=reading.until)
        return credential

    def _listening(self, read: Callable[[], Credential]) -> Credential:
        """Read, having begun to hear of changes before; where they cannot be heard of, time has to do."""
        if self._cache_seconds:
            with contextlib.suppress(BackendError):
                self._ring.listen(self._changed)
        return read()

    def _changed(self) -> None:
        """Hear of a change, on whatever thread."""
        if self._loop is not None:
            # The loop may have ended while the thread was still at it.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._forget)

    async def _asked(self, job: Callable[[], _T], *, seconds: float) -> _T:
        return await self._answer(self._begun(job, seconds), seconds)

    async def _written(self, job: Callable[[], _T]) -> _T:
        """Do ``job``, also when the caller goes away, and say what came of it as far as is known."""
        future = self._begun(job, _ADMIN_SECONDS)
        if not await settled(future, _ADMIN_SECONDS) and not future.cancel():
            message = f"{self._ring.title} has not answered for {_ADMIN_SECONDS:g} seconds"
            raise OutcomeUnknownError(message)
        return self._result(future, _ADMIN_SECONDS)

    def _begun(self, job: Callable[[], _T], seconds: float, worker: Worker | None = None) -> "Future[_T]":
        """Have the thread do ``job``, unless whoever asked has given up by the time it is its turn."""
        if not self._opened:
            message = f"the backend {self.name} is not open"
            raise UnavailableError(message)
        self._needed = True
        until = time.monotonic() + seconds

        def in_time() -> _T:
            if time.monotonic() > until:
                raise self._late(seconds)
            return job()

        return (worker or self._worker).submit(in_time)

    async def _answer(self, future: "Future[_T]", seconds: float) -> _T:
        await settled(future, seconds)
        return self._result(future, seconds)

    def _result(self, future: "Future[_T]", seconds: float) -> _T:
        if not future.done() or future.cancelled():
            raise self._late(seconds)
        try:
            return future.result()
        except BackendError as error:
            _raise_again(error)

    def _late(self, seconds: float) -> BackendError:
        if self._ring.prompting:
            return LockedError(f"{self._ring.where} waits for somebody to answer its prompt", hint=UNLOCK)
        return UnavailableError(
            f"{self._ring.title} has not answered for {seconds:g} seconds", hint="mcp-broker status"
        )


def foreign(path: str, params: Mapping[str, Any]) -> tuple[str, str]:
    """Return the service and the username of another program's item. Raises ``MisconfiguredError``."""
    wanted = Options(f"secrets.{path}.params", params, known=_PARAMS)
    service, account = wanted.text("service"), wanted.text("username")
    if service.startswith(SECRETS):
        message = f"secrets.{path}.params.service is one of the broker's own"
        raise MisconfiguredError(message, hint='name the secret by path = "…" instead')
    return service, account


def _raise_again(fault: BackendError) -> NoReturn:
    # A new one each time: an exception that is raised again and again grows by a traceback each time.
    raise type(fault)(fault.message, hint=fault.hint) from None
