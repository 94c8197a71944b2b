"""
The verbs for admins that are about secrets and the key that seals them.

A value goes in here and never comes out.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final, TypeVar

from backends.base import BackendError, KeyedBackend, Secret, SecretNotFoundError, Version, WritableBackend
from broker.api import messages as m
from broker.api.times import utc
from broker.api.workload import Caller
from broker.config import SecretConfig
from broker.config.model import LOCAL
from broker.errors import BrokerError, RequestError
from broker.records import who
from broker.running import Running
from broker.translate import translated

Answer = TypeVar("Answer")

_DEADLINE: Final = 10.0
"""Seconds that a backend may take for an admin."""


async def secret_list(running: Running, _: Caller, params: m.SecretList) -> m.Secrets:
    """Return what the config declares and what the writable backends hold, without any value."""
    config = running.service.config
    known = {
        name: secret for name, secret in config.known_secrets().items() if params.backend in {None, secret.backend}
    }
    kept, problems = await _kept(running, params.backend)
    declared = {(secret.backend, secret.path) for secret in known.values()}
    # Of what no config names, the sealed store's are secrets by that alone; another backend's only where it is meant.
    for path in kept.get(params.backend or LOCAL, ()):
        if (params.backend or LOCAL, path) not in declared:
            known.setdefault(path, _of(running, path, params.backend))
    rows = [await _secret_row(running, known[name], kept, problems) for name in sorted(known)]
    return m.Secrets(secrets=rows, problems=problems)


async def _kept(running: Running, chosen: str | None) -> tuple[dict[str, list[str]], list[str]]:
    """Return the paths that each writable backend holds, and why some do not say: one that is locked hides no other."""
    if chosen is not None and chosen not in running.backends:
        message = f"there is no backend {chosen!r}"
        raise RequestError(message, hint=f"there are: {', '.join(sorted(running.backends))}")
    kept: dict[str, list[str]] = {}
    problems: list[str] = []
    for name, backend in running.backends.items():
        if isinstance(backend, WritableBackend) and chosen in {None, name} and not _unneeded(running, name, chosen):
            try:
                kept[name] = list(await _asked(backend.list()))
            except BrokerError as error:
                problems.append(f"backend {name}: {error.message}" + (f" ({error.hint})" if error.hint else ""))
    return kept, problems


def _unneeded(running: Running, name: str, chosen: str | None) -> bool:
    """Return whether a list of all secrets has nothing to ask a backend for."""
    return chosen is None and name != LOCAL and all(s.backend != name for s in running.service.config.secrets.values())


async def _secret_row(
    running: Running, secret: SecretConfig, kept: dict[str, list[str]], problems: list[str]
) -> m.SecretRow:
    backend = running.backends[secret.backend]
    newest: Version | None = None
    told = secret.backend in kept
    writable = isinstance(backend, WritableBackend) and not secret.params
    # What a backend keeps under a name that the config has elsewhere, or nowhere, goes to no server.
    meant = running.service.config.secret(secret.name).backend == secret.backend
    if isinstance(backend, WritableBackend) and writable and secret.path in kept.get(secret.backend, ()):
        try:
            newest = next(iter(await _asked(backend.versions(secret.path))), None)
        except BrokerError as error:
            # Another program may have broken it, or taken it away just now: that hides no other secret.
            told = False
            problems.append(f"secret {secret.name} in backend {secret.backend}: {error.message}")
    return m.SecretRow(
        name=secret.name,
        backend=secret.backend,
        path=secret.path,
        stored=newest is not None if told and writable else None,
        fields=[] if newest is None else list(newest.fields),
        version=None if newest is None else newest.number,
        created_at=None if newest is None else utc(newest.created_at),
        ttl=secret.ttl,
        servers=[rule.name for rule in running.service.policy.granting.get(secret.name, ())] if meant else [],
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
        if lease.backend == secret.backend:
            running.endings.tell(lease, "rotated")
    declared = secret.declared or secret.backend == LOCAL
    return m.SecretStored(secret=params.name, backend=backend.name, version=version, declared=declared)


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


def _of(running: Running, name: str, chosen: str | None) -> SecretConfig:
    """Return a secret as it is declared, or else the one of that name in the backend that somebody chose."""
    secret = running.service.config.secret(name)
    return secret if secret.declared or chosen is None else replace(secret, backend=chosen)


def _writable(running: Running, name: str, chosen: str | None) -> tuple[SecretConfig, WritableBackend]:
    secret = _of(running, name, chosen)
    if chosen not in {None, secret.backend}:
        message = f"the config has {name!r} in backend {secret.backend!r}, not in {chosen!r}"
        raise RequestError(message, hint=f"leave --backend out, or change [secrets.{name}]")
    if secret.backend not in running.backends:
        message = f"there is no backend {secret.backend!r}"
        raise RequestError(message, hint=f"there are: {', '.join(sorted(running.backends))}")
    if secret.params:
        message = f"{name!r} is read with params, so it is not the broker's to write"
        raise RequestError(message, hint="write it with the program that it belongs to")
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
