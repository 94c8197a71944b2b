"""
Reading static values, and serving them for a while when their backend answers no more.

Only for secrets whose config says so (``stale``): the value that was read last
is kept in memory for as long as it may be served, and no longer. What a backend
denies or no longer has is never papered over: only silence is. A backend that
was silent a moment ago is left alone for another moment, so that one that hangs
does not make everybody wait who could be served at once. Who asks for the same
value at the same time waits for one answer.
"""

import asyncio
import json
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from backends import base
from backends.base import Backend, Credential
from broker.config import SecretConfig
from broker.core.freshness import Confirmed, Moment, quiet_for
from broker.errors import BrokerError
from broker.release import BACKEND_DEADLINE
from broker.translate import translated

PATIENCE: Final = 2.0
"""Seconds that a backend has to answer where there is a value to serve in its place."""

JOINED: Final = 0.25
"""Seconds for which who asks for the same waits for the answer that is under way; what is older may be too old."""

Which = tuple[str, str, str]
"""What was read: the backend, the path, the parameters."""

_SILENT: Final = (base.UnavailableError, base.LockedError, base.OutcomeUnknownError, TimeoutError)
"""What a backend raises that says nothing of the value."""


@dataclass(slots=True)
class _Kept:
    """A value, when it was confirmed, and what a backend that could not confirm it raised since."""

    credential: Credential
    confirmed: Confirmed
    trouble: BrokerError | None = None


@dataclass(slots=True)
class _Silence:
    """A backend that says nothing: how often in a row, what came instead, until when it is left alone by whom."""

    failures: int
    error: base.BackendError | TimeoutError
    until: float
    asked_until: float = 0.0
    """One asks whether it is back; until then, by the monotonic clock, the others need not wait for that."""


@dataclass(frozen=True, slots=True)
class Stale:
    """A secret that is served without its backend: when that last confirmed it, until when, and what is wrong."""

    secret: SecretConfig
    since: float
    until: float
    trouble: BrokerError


class Reading:
    """Reads values that nobody has to revoke."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        patience: float = PATIENCE,
    ) -> None:
        """Begin with nothing kept."""
        self._clock = clock
        self._monotonic = monotonic
        self._patience = patience
        self._wanted: dict[Which, float] = {}
        """For how long the config in force lets each value be served."""
        self._kept: dict[Which, _Kept] = {}
        self._silent: dict[str, _Silence] = {}
        self._asked: dict[Which, tuple[float, asyncio.Task[Credential]]] = {}
        self._tasks: set[asyncio.Task[Credential]] = set()

    def adopt(self, secrets: Iterable[SecretConfig]) -> None:
        """Know which values may be served without their backend, and drop all others."""
        wanted: dict[Which, float] = {}
        for secret in secrets:
            if secret.stale > 0:
                wanted[_which(secret)] = max(secret.stale, wanted.get(_which(secret), 0.0))
        self._wanted = wanted
        self._kept = {which: kept for which, kept in self._kept.items() if which in wanted}

    def tick(self, _: float = 0.0) -> None:
        """Drop what may be served no more."""
        now = self._now()
        for which, kept in tuple(self._kept.items()):
            if not kept.confirmed.servable(now, self._wanted[which]):
                del self._kept[which]

    def close(self) -> None:
        """Ask nobody any more, and keep nothing."""
        for task in tuple(self._tasks):
            task.cancel()
        self._kept.clear()

    def took(self, secret: SecretConfig, credential: Credential) -> None:
        """Know a value that a backend gave which did not know before that nobody has to revoke it."""
        which = _which(secret)
        if which in self._wanted:
            self._kept[which] = _Kept(credential, Confirmed(self._now(), credential.ttl))

    def forget(self, backend: str, path: str) -> None:
        """Know that a value was changed through us: neither what was read nor what is being read counts any more."""
        for known in (self._kept, self._asked):
            for which in [each for each in known if each[:2] == (backend, path)]:
                del known[which]

    def stale(self, secret: SecretConfig) -> Stale | None:
        """Return whether a secret is served without its backend now: the one place that says so."""
        kept = self._kept.get(_which(secret)) if secret.stale > 0 else None
        if kept is None or kept.trouble is None or not kept.confirmed.servable(self._now(), secret.stale):
            return None
        since = kept.confirmed.at.wall
        return Stale(secret, since, since + kept.confirmed.length(secret.stale), kept.trouble)

    async def read(self, backend: Backend, secret: SecretConfig, intent: str) -> tuple[Credential, bool]:
        """
        Return the values of a secret, and whether they are those that its backend gave last.

        Raises:
            BrokerError: the backend says no, or nothing, and there is nothing that may be served in its place.

        """
        at_hand = None if secret.params else backend.at_hand(secret.path)
        if at_hand is not None:
            return at_hand, False
        which = _which(secret)
        kept = self._servable(which, secret)
        silence = self._silent.get(backend.name)
        if kept is not None and silence is not None and self._monotonic() < max(silence.until, silence.asked_until):
            return self._instead(which, secret, silence.error), True
        asked = self._ask(which, backend, secret, intent)
        await asyncio.wait([asked], timeout=None if kept is None else self._patience)
        if not asked.done():
            self._was_silent(backend.name, TimeoutError())
            return self._instead(which, secret, TimeoutError()), True
        try:
            return asked.result(), False
        except _SILENT as error:
            return self._instead(which, secret, error), True
        except base.BackendError as error:
            raise translated(error, secret=secret) from None

    def _instead(self, which: Which, secret: SecretConfig, error: base.BackendError | TimeoutError) -> Credential:
        """Return what may be served in the place of an answer, or raise what the silence means to the caller."""
        trouble = translated(error, secret=secret)
        kept = self._servable(which, secret)
        if kept is None:
            raise trouble from None
        kept.trouble = trouble
        return kept.credential

    def _servable(self, which: Which, secret: SecretConfig) -> _Kept | None:
        kept = self._kept.get(which) if secret.stale > 0 else None
        return kept if kept is not None and kept.confirmed.servable(self._now(), secret.stale) else None

    def _ask(self, which: Which, backend: Backend, secret: SecretConfig, intent: str) -> asyncio.Task[Credential]:
        """Return what asks the backend: who asks for the same a moment later waits for the same answer."""
        now = self._monotonic()
        began, under_way = self._asked.get(which, (0.0, None))
        if under_way is not None and not under_way.done() and now - began <= JOINED:
            return under_way
        if (silence := self._silent.get(backend.name)) is not None:
            silence.asked_until = now + self._patience
        task = asyncio.get_running_loop().create_task(self._answer(which, backend, secret, intent))
        self._asked[which] = now, task
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Credential]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Whoever asked may have gone on without the answer.
            task.exception()

    async def _answer(self, which: Which, backend: Backend, secret: SecretConfig, intent: str) -> Credential:
        """Ask the backend, and take note of what its answer says."""
        began, me = self._now(), asyncio.current_task()
        try:
            async with asyncio.timeout(BACKEND_DEADLINE):
                credential = await backend.issue(secret.path, params=secret.params, intent=intent)
        except _SILENT as error:
            self._was_silent(backend.name, error)
            raise
        except base.BackendError:
            # It says that there is no such value, or that we may not have it: what it said before counts no more.
            self._silent.pop(backend.name, None)
            self._kept.pop(which, None)
            raise
        finally:
            current = self._asked.get(which, (0.0, None))[1] is me
            if current:
                del self._asked[which]
        self._silent.pop(backend.name, None)
        if current and which in self._wanted:
            self._kept[which] = _Kept(credential, Confirmed(began, credential.ttl))
        return credential

    def _was_silent(self, backend: str, error: base.BackendError | TimeoutError) -> None:
        """Leave a backend alone for a moment, which grows with each time; what was noticed together counts once."""
        now, before = self._monotonic(), self._silent.get(backend)
        if before is None or before.until <= now:
            failures = 1 if before is None else before.failures + 1
            wait = quiet_for(failures, jitter=random.random())  # noqa: S311 -- jitter
            self._silent[backend] = _Silence(failures, error, now + wait)

    def _now(self) -> Moment:
        return Moment(self._clock(), self._monotonic())


def _which(secret: SecretConfig) -> Which:
    params = json.dumps(dict(secret.params), sort_keys=True, default=str) if secret.params else ""
    return secret.backend, secret.path, params
