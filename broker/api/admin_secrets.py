"""
The verbs for admins that are about secrets and the key that seals them.

A value goes in here and never comes out.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

from backends.base import BackendError, KeyedBackend, Secret, SecretNotFoundError, Version, WritableBackend
from broker.api import messages as m
from broker.api.times import utc
from broker.api.workload import Caller
from broker.config import SecretConfig
from broker.errors import BrokerError, RequestError
from broker.records import who
from broker.running import Running
from broker.translate import translated

Answer = TypeVar("Answer")

_DEADLINE: Final = 10.0
"""Seconds that a backend may take for an admin."""


async def secret_list(running: Running, _: Caller, __: m.Nothing) -> m.Secrets:
    """Return what the config declares and what the writable backends hold, without any value."""
    known = dict(running.service.config.known_secrets())
    kept: dict[str, list[str]] = {}
    for name, backend in running.backends.items():
        if isinstance(backend, WritableBackend):
            kept[name] = list(await _asked(backend.list()))
    declared = {(secret.backend, secret.path) for secret in known.values()}
    for path in kept.get("local", ()):
        if ("local", path) not in declared:
            known.setdefault(path, running.service.config.secret(path))
    return m.Secrets(secrets=[await _secret_row(running, known[name], kept) for name in sorted(known)])


async def _secret_row(running: Running, secret: SecretConfig, kept: dict[str, list[str]]) -> m.SecretRow:
    backend = running.backends[secret.backend]
    newest: Version | None = None
    if isinstance(backend, WritableBackend) and secret.path in kept.get(secret.backend, ()):
        newest = next(iter(await _asked(backend.versions(secret.path))), None)
    return m.SecretRow(
        name=secret.name,
        backend=secret.backend,
        path=secret.path,
        stored=newest is not None,
        fields=[] if newest is None else list(newest.fields),
        version=None if newest is None else newest.number,
        created_at=None if newest is None else utc(newest.created_at),
        ttl=secret.ttl,
        servers=[rule.name for rule in running.service.policy.granting.get(secret.name, ())],
    )


async def secret_set(running: Running, caller: Caller, params: m.SecretSet) -> m.SecretStored:
    """Write a new version of a secret; whoever watches a lease of it is told."""
    if not params.values:
        message = "a secret needs at least one field"
        raise RequestError(message, hint=f"mcp-broker secret set {params.name}")
    if "." in params.name:
        name, _, field = params.name.partition(".")
        message = f"a secret's name holds no dot: {{{params.name}}} means the field {field!r} of {name!r}"
        raise RequestError(message, hint=f"mcp-broker secret set {name} {field}")
    empty = sorted(field for field, value in params.values.items() if not value)
    if empty:
        message = f"the field {empty[0]!r} is empty"
        raise RequestError(message, hint="a secret that is not there is better removed: mcp-broker secret rm")
    secret, backend = _writable(running, params.name, params.backend)
    values = {field: Secret(value) for field, value in params.values.items()}
    async with _recorded(running, caller, "secret/set", secret=params.name, backend=backend.name) as outcome:
        version = outcome["version"] = await _asked(backend.put(secret.path, values))
    running.service.reading.forget(secret.backend, secret.path)
    for lease in running.leases.chosen(secret=params.name):
        running.endings.tell(lease, "rotated")
    return m.SecretStored(secret=params.name, backend=backend.name, version=version)


@asynccontextmanager
async def _recorded(running: Running, caller: Caller, event: str, **facts: Any) -> AsyncIterator[dict[str, Any]]:  # noqa: ANN401
    """
    Record that something is about to be changed, on disk before it is, and then what became of it.

    Yields a dict for facts that are known only afterwards.
    """
    await running.audit.record(event, **who(caller.peer), **facts, outcome="begun")
    found: dict[str, Any] = {}
    try:
        yield found
    except BrokerError as error:
        running.audit.note(event, **who(caller.peer), **facts, outcome="failed", code=error.code)
        raise
    running.audit.note(event, **who(caller.peer), **facts, **found, outcome="done")


async def secret_rm(running: Running, caller: Caller, params: m.SecretName) -> m.Done:
    """Remove a secret with all its versions."""
    secret, backend = _writable(running, params.name, params.backend)
    async with _recorded(running, caller, "secret/removed", secret=params.name, backend=backend.name):
        await _asked(backend.delete(secret.path))
    running.service.reading.forget(secret.backend, secret.path)
    return m.Done()


async def secret_versions(running: Running, _: Caller, params: m.SecretName) -> m.Versions:
    """Return the versions of a secret, newest first."""
    secret, backend = _writable(running, params.name, params.backend)
    return m.Versions(
        secret=params.name,
        backend=backend.name,
        versions=[
            m.VersionRow(
                number=each.number,
                created_at=utc(each.created_at),
                fields=list(each.fields),
                current=each.current,
            )
            for each in await _asked(backend.versions(secret.path))
        ],
    )


def _writable(running: Running, name: str, chosen: str | None) -> tuple[SecretConfig, WritableBackend]:
    secret = running.service.config.secret(name)
    if chosen not in {None, secret.backend}:
        if secret.declared:
            message = f"the config has {name!r} in backend {secret.backend!r}, not in {chosen!r}"
            raise RequestError(message, hint=f"leave --backend out, or change [secrets.{name}]")
        message = f"{name!r} is not declared, so it is in backend 'local'"
        raise RequestError(message, hint=f'add [secrets.{name}] with backend = "{chosen}" and path to the config first')
    backend = running.backends[secret.backend]
    if not isinstance(backend, WritableBackend):
        message = f"backend {secret.backend!r} keeps no secrets through the broker"
        raise RequestError(message, hint="write it where it is kept")
    return secret, backend


async def _asked(answer: Awaitable[Answer]) -> Answer:
    """Return what a backend answers, in time and with the broker's own errors."""
    try:
        async with asyncio.timeout(_DEADLINE):
            return await answer
    except SecretNotFoundError as error:
        # An admin named it. To a workload, which only asks for what the config names, it is "not available now".
        raise RequestError(error.message, hint=error.hint or "mcp-broker secret list") from None
    except (BackendError, TimeoutError) as error:
        raise translated(error) from None


async def key_rotate(running: Running, caller: Caller, params: m.KeyRotate) -> m.KeyRotated:
    """Wrap the data key of the sealed store with a new master key, and seal the values anew where asked."""
    store = running.backends["local"]
    if not isinstance(store, KeyedBackend):
        message = "the backend 'local' has no master key"
        raise RequestError(message, hint="mcp-broker status")
    async with _recorded(running, caller, "key/rotated", backend="local") as outcome:
        try:
            # It has a deadline of its own, which grows with what there is to seal.
            rotated = await store.rotate_key(reencrypt=params.reencrypt)
        except BackendError as error:
            raise translated(error) from None
        outcome |= {"source": rotated.source[:64], "generation": rotated.generation}
    return m.KeyRotated(
        backend="local",
        source=rotated.source,
        generation=rotated.generation,
        reencrypted=rotated.reencrypted,
        remains=rotated.remains,
    )
