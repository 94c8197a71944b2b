"""
The verbs for admins by which a person unlocks what a backend keeps its secrets in.

A password goes in here, to the one backend it is for, and into nothing else: no
record, no log, no error.
"""

import asyncio
from typing import Final

from backends.base import BackendError, Secret, UnlockableBackend
from broker.api import locks
from broker.api import messages as m
from broker.api.workload import Caller
from broker.errors import BrokerError, RequestError
from broker.records import who
from broker.running import Running
from broker.translate import translated

_DEADLINE: Final = 20.0
"""Seconds that a backend may take to be unlocked. Where a person has to answer first, it says so before."""


async def backend_locks(running: Running, _: Caller, __: m.Nothing) -> locks.Locks:
    """Return which backends are locked, and what opens them. Asks nobody."""
    found = [
        _lock_row(name, backend) for name, backend in running.backends.items() if isinstance(backend, UnlockableBackend)
    ]
    return locks.Locks(locks=[row for row in await asyncio.gather(*found) if row is not None])


async def _lock_row(name: str, backend: UnlockableBackend) -> locks.LockRow | None:
    try:
        async with asyncio.timeout(_DEADLINE):
            lock = await backend.lock()
    except (BackendError, TimeoutError) as error:
        failure = translated(error)
        return locks.LockRow(
            backend=name, what=failure.message, takes_password=False, asking=False, usable=False, hint=failure.hint
        )
    if lock is None:
        return None
    return locks.LockRow(
        backend=name,
        what=lock.what,
        takes_password=lock.takes_password,
        asking=lock.asking,
        usable=True,
        hint=None,
    )


async def backend_unlock(running: Running, caller: Caller, params: locks.BackendUnlock) -> m.Done:
    """Unlock a backend with a password, or without one have it ask somebody, again if somebody has declined."""
    backend = running.backends.get(params.backend)
    if not isinstance(backend, UnlockableBackend):
        message = f"there is no backend {params.backend!r} that can be unlocked"
        raise RequestError(message, hint="mcp-broker status")
    password = None if params.password is None else Secret(params.password)
    how = "password" if password is not None else "prompt"
    facts = {**who(caller.peer), "backend": params.backend, "reason": f"by {how}"}
    await running.audit.record("backend/unlock", **facts, outcome="begun")
    try:
        async with asyncio.timeout(_DEADLINE):
            await backend.unlock(password)
    except (BackendError, TimeoutError) as error:
        failure: BrokerError = translated(error)
        running.audit.note("backend/unlock", **facts, outcome="failed", code=failure.code)
        raise failure from None
    running.audit.note("backend/unlock", **facts, outcome="done")
    return m.Done()
