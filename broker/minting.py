"""
Having a backend make what can be revoked, so that nothing that was made is ever forgotten.

    intent → handle → backend → lease

Each is on disk before the next. What was made is kept in memory for who asks
again, since a backend says it once. One that is shared is made once for all who
ask, at the same time or later. This module refuses to try again what may have
been made already.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from backends.base import Backend, Credential, PreparingBackend
from broker.config import SecretConfig
from broker.core.leases import LeaseTable, replaceable
from broker.core.model import Intent, Lease
from broker.endings import Endings
from broker.errors import BrokerError, OutcomeUnknownError, UnavailableError
from broker.release import BACKEND_DEADLINE, as_issued, intent_of
from broker.store import Store
from broker.translate import answered

Hang = Callable[[Lease], None]
"""Hangs a lease that is in the table on its process; raises where that cannot be, and then the lease has ended."""

Which = tuple[str, str, str, str]
"""What is shared: the secret, its backend, its path and its parameters."""


class StaticError(Exception):
    """What was to be minted has turned out to be static: nothing was made, and it is to be read instead."""


@dataclass(slots=True)
class _Shared:
    """What is made once for all: its values, the lease that it was made for, and which leases are about it."""

    which: Which
    credential: Credential
    first: Lease
    holders: set[str] = field(default_factory=set)


class Minting:
    """Makes credentials, and knows those that are out."""

    def __init__(self, *, store: Store, endings: Endings, leases: LeaseTable, clock: Callable[[], float]) -> None:
        """Begin with none."""
        self._store = store
        self._endings = endings
        self._leases = leases
        self._clock = clock
        self.values: dict[str, Credential] = {}
        """By lease: a backend does not say them twice, and who asks again gets the same."""
        self.instead: dict[str, str] = {}
        """For leases that were made in the place of others that end soon: which, to be ended on the release."""
        self._shared: dict[Which, _Shared] = {}
        self._of: dict[str, _Shared] = {}
        self._making: dict[Which, asyncio.Future[BrokerError | None]] = {}

    async def take(
        self, backend: Backend, secret: SecretConfig, promised: Lease, *, hang: Hang, fresh: bool = False
    ) -> tuple[Lease, Credential]:
        """
        Return a lease, on disk and in the table, and what it is about, made for it or shared.

        Args:
            backend: what makes it.
            secret: what is to be made.
            promised: the lease as it will be if the backend agrees.
            hang: hangs it on its process.
            fresh: whether another one is wanted, even where one is shared; it is that which is shared from then on.

        Raises:
            OutcomeUnknownError: it may have been made. It is revoked by its handle, or listed until it is gone.
            StaticError: the backend knows by now that there is nothing to be made.

        """
        if not secret.share:
            return self._held(*await self._mint(backend, secret, promised), hang)
        which = (secret.name, secret.backend, secret.path, _said(secret.params))
        if fresh:
            return await self._share(which, backend, secret, promised, hang)
        while True:
            if not backend.mints(secret.path):
                raise StaticError
            shared = self._shared.get(which)
            joined = None if shared is None else self._joined(shared, promised)
            if shared is not None and joined is not None:
                return await self._join(shared, joined, hang)
            making = self._making.get(which)
            if making is None:
                return await self._share(which, backend, secret, promised, hang)
            await asyncio.wait([making])
            if not making.cancelled() and (error := making.result()) is not None:
                raise type(error)(error.message, hint=error.hint)

    def forget(self, lease: Lease) -> None:
        """Drop what is kept for a lease that has ended."""
        self.values.pop(lease.accessor, None)
        self.instead.pop(lease.accessor, None)
        shared = self._of.pop(lease.accessor, None)
        if shared is None:
            return
        shared.holders.discard(lease.accessor)
        if not shared.holders and self._shared.get(shared.which) is shared:
            del self._shared[shared.which]

    def _held(self, lease: Lease, credential: Credential, hang: Hang) -> tuple[Lease, Credential]:
        if lease.backend_lease is not None or lease.gone_by is not None:
            self.values[lease.accessor] = credential
        self._leases.add(lease)
        hang(lease)
        return lease, credential

    async def _share(
        self, which: Which, backend: Backend, secret: SecretConfig, promised: Lease, hang: Hang
    ) -> tuple[Lease, Credential]:
        """Make what is shared from now on; who asks for it meanwhile waits, and gets it or the same error."""
        mine = asyncio.get_running_loop().create_future()
        self._making[which] = mine
        error: BrokerError | None = None
        try:
            lease, credential = await self._mint(backend, secret, promised)
            shared = self._shared[which] = _Shared(which, credential, lease)
            self._include(shared, lease)
            return self._held(lease, credential, hang)
        except BrokerError as caught:
            error = caught
            raise
        except BaseException:
            mine.cancel()
            raise
        finally:
            if self._making.get(which) is mine:
                del self._making[which]
            if not mine.done():
                mine.set_result(error)

    def _include(self, shared: _Shared, lease: Lease) -> None:
        shared.holders.add(lease.accessor)
        self._of[lease.accessor] = shared

    def _joined(self, shared: _Shared, promised: Lease) -> Lease | None:
        """Return the promised lease as one of what is shared, or None where that ends soon or has ended."""
        held = [lease for name in shared.holders if (lease := self._leases.get(name)) and not lease.barred]
        now = self._clock()
        if not held or any(replaceable(lease, now) for lease in held):
            return None
        longest = max(held, key=lambda each: each.expires_at)
        if longest.expires_at <= now:
            return None
        ttl = shared.credential.ttl
        return replace(
            promised,
            version=longest.version,
            backend_lease=longest.backend_lease,
            renewable=longest.renewable,
            gone_by=longest.gone_by,
            expires_at=min(promised.expires_at, longest.expires_at),
            ttl=promised.ttl if ttl is None else min(promised.ttl, ttl),
        )

    async def _join(self, shared: _Shared, lease: Lease, hang: Hang) -> tuple[Lease, Credential]:
        """
        Have one more lease of what is there, on disk before it is released.

        It is in the table before that, so that the end of all others meanwhile
        does not revoke what it is about.
        """
        self._include(shared, lease)
        self._held(lease, shared.credential, hang)
        try:
            await self._store.keep(lease)
        except BaseException as error:
            self._endings.end(lease, "credential/withheld", getattr(error, "code", "internal"))
            raise
        return lease, shared.credential

    async def _mint(self, backend: Backend, secret: SecretConfig, promised: Lease) -> tuple[Lease, Credential]:
        """
        Have the backend make something, and the lease of it on disk.

        Where the outcome is unknown, what may exist is revoked by its handle;
        without one the intent stays, and is listed until that is gone by itself.
        """
        intent = intent_of(promised)
        await self._store.intend(intent)
        if isinstance(backend, PreparingBackend):
            intent = await self._prepared(backend, secret, intent)
            if not backend.mints(secret.path):
                self._never(intent)
                raise StaticError
        try:
            issuing = backend.issue(secret.path, params=secret.params, intent=intent.accessor)
            credential = await answered(issuing, secret=secret, within=BACKEND_DEADLINE)
        except BaseException as error:
            if isinstance(error, BrokerError) and not isinstance(error, OutcomeUnknownError):
                self._never(intent)
            else:
                # Whatever nobody expected may have happened after the mint.
                self._endings.lost(intent)
            raise
        lease = as_issued(promised, credential)
        try:
            await self._store.keep(lease)
        except BaseException:
            self._endings.give_back(lease)
            raise
        return lease, credential

    async def _prepared(self, backend: PreparingBackend, secret: SecretConfig, intent: Intent) -> Intent:
        """Return the intent with what the backend knows of it beforehand, on disk."""
        try:
            preparing = backend.prepare(secret.path, params=secret.params, intent=intent.accessor)
            known = await answered(preparing, secret=secret, within=BACKEND_DEADLINE)
        except BaseException as error:
            self._store.forget_soon([intent.accessor])
            if isinstance(error, OutcomeUnknownError):
                # What it may have made is worth nothing by itself.
                raise UnavailableError(error.message, hint=error.hint) from None
            raise
        if known.handle is None and known.longest is None:
            return intent
        gone_by = intent.gone_by if known.longest is None else self._clock() + BACKEND_DEADLINE + known.longest
        intent = replace(intent, handle=known.handle, gone_by=gone_by)
        try:
            await self._store.intend(intent)
        except BaseException:
            self._never(intent)
            raise
        return intent

    def _never(self, intent: Intent) -> None:
        """Know that nothing has come of an intent; what was prepared for it is let go."""
        if intent.handle is None:
            self._store.forget_soon([intent.accessor])
        else:
            self._endings.take_back(intent)


def _said(params: Mapping[str, Any]) -> str:
    return json.dumps(dict(params), sort_keys=True, default=str)
