"""
The verbs for admins: what is there, what is out, and how to take it back.

None of them releases a value.
"""

import asyncio
import os
from collections.abc import Awaitable, Iterable
from typing import Final, TypeVar

import broker
from backends.base import BackendError, KeyedBackend, Secret, SecretNotFoundError, Version, WritableBackend
from broker.api import messages as m
from broker.api.times import utc
from broker.api.workload import Caller, row
from broker.attest import process_now
from broker.audit_pages import listed, page
from broker.config import SecretConfig
from broker.core import chain
from broker.core.leases import LeaseTable
from broker.core.model import Lease, Workload
from broker.core.policy import Allowed, Ask, decide
from broker.errors import AttestationError, LeaseNotFoundError, RequestError, UnavailableError
from broker.records import who
from broker.running import Running
from broker.translate import translated

Answer = TypeVar("Answer")

_STATUS_REFUSALS: Final = 20
_DEADLINE: Final = 10.0
"""Seconds that a backend may take for an admin."""


async def status(running: Running, _: Caller, __: m.Nothing) -> m.Status:
    """Return what a person wants to know first."""
    backends = await _backend_rows(running)
    audit = _audit_state(running)
    problems = [f"backend {each.name}: {each.detail or each.state}" for each in backends if each.state != "ok"]
    if audit.state != "ok":
        problems.append(f"audit log: {audit.detail or audit.state}")
    if running.store.trouble:
        problems.append(running.store.trouble)
    if running.config_error:
        problems.append("the config on disk is not the one in force")
    problems += [f"lease {each.accessor} cannot be given back" for each in running.endings.revoker.stuck()]
    config = running.service.config
    return m.Status(
        version=broker.__version__,
        mode=running.places.mode,
        pid=os.getpid(),
        uid=os.getuid(),
        started_at=utc(running.started_at),
        directory=str(running.places.state),
        healthy=not problems,
        problems=problems,
        config=m.ConfigState(
            files=[str(path) for path in config.files],
            loaded_at=utc(running.loaded_at),
            error=running.config_error,
        ),
        audit=audit,
        backends=backends,
        servers=len(config.servers),
        secrets=len(config.known_secrets()),
        leases=len(running.leases),
        processes=running.leases.processes,
        connections=sum(running.connections.values()),
        pending_revocations=len(running.endings.revoker),
        unknown=[
            m.IntentRow(
                secret=intent.secret,
                backend=intent.backend,
                started_at=utc(intent.started_at),
                gone_by=utc(intent.gone_by),
            )
            for intent in running.endings.unknown.values()
        ],
        refusals=[
            m.Refusal(
                at=utc(each.at),
                uid=each.workload.uid,
                pid=each.workload.process.pid,
                server=each.ask.server,
                secret=each.ask.secret,
                code=each.code,
                reason=each.reason,
                hint=each.hint,
                count=each.count,
            )
            for each in running.refusals.latest()[:_STATUS_REFUSALS]
        ],
    )


def _audit_state(running: Running) -> m.AuditState:
    found = running.audit.state()
    return m.AuditState(
        state=found.state,
        detail=found.detail,
        hint=found.hint,
        segment=found.segment,
        records=found.records,
        waiting=found.waiting,
    )


async def _backend_rows(running: Running) -> list[m.BackendRow]:
    rows = []
    for name, backend in running.backends.items():
        try:
            async with asyncio.timeout(_DEADLINE):
                health = await backend.health()
        except TimeoutError:
            rows.append(m.BackendRow(name=name, type="", state="unavailable", detail="it does not answer", hint=None))
            continue
        except BackendError as error:
            rows.append(
                m.BackendRow(name=name, type="", state="unavailable", detail=error.message, hint=error.hint),
            )
            continue
        configured = running.service.config.backends[name].type
        rows.append(
            m.BackendRow(name=name, type=configured, state=health.state, detail=health.detail, hint=health.hint),
        )
    return rows


async def lease_list(running: Running, _: Caller, params: m.LeaseList) -> m.Leases:
    """Return what is out."""
    chosen = _chosen(running.leases, server=params.server, secret=params.secret)
    return m.Leases(leases=[row(lease) for lease in chosen])


async def lease_revoke(running: Running, caller: Caller, params: m.LeaseRevoke) -> m.Revoked:
    """Revoke one lease; its process gets that secret no more."""
    lease = running.leases.get(params.accessor)
    if lease is None:
        message = f"there is no lease {params.accessor!r}"
        raise LeaseNotFoundError(message, hint="mcp-broker lease list")
    return m.Revoked(revoked=await _revoke(running, caller, [lease]))


async def server_list(running: Running, _: Caller, __: m.Nothing) -> m.Servers:
    """Return the servers that the config names."""
    return m.Servers(
        servers=[
            m.ServerRow(
                name=name,
                command=list(server.command),
                selectors=sorted(server.selectors),
                secrets=sorted(server.grants),
                leases=sum(1 for _ in _chosen(running.leases, server=name)),
            )
            for name, server in sorted(running.service.config.servers.items())
        ],
    )


async def server_revoke(running: Running, caller: Caller, params: m.ServerName) -> m.Revoked:
    """Revoke everything that a server holds now: the kill switch."""
    if params.server not in running.service.config.servers:
        message = f"no server is called {params.server!r}"
        raise RequestError(message, hint="mcp-broker server list")
    return m.Revoked(revoked=await _revoke(running, caller, list(_chosen(running.leases, server=params.server))))


def _chosen(leases: LeaseTable, *, server: str | None = None, secret: str | None = None) -> Iterable[Lease]:
    for lease in leases:
        if server in {None, lease.server} and secret in {None, lease.secret}:
            yield lease


async def _revoke(running: Running, caller: Caller, leases: Iterable[Lease]) -> int:
    """Revoke leases, which waits for nobody; the answer waits until a restart would know of it."""
    count = 0
    for lease in leases:
        if not lease.barred:
            running.endings.bar(lease, f"by admin uid {caller.peer.workload.uid}")
            count += 1
    running.endings.revoker.tick(running.clock())
    try:
        await running.store.settled()
    except UnavailableError as error:
        message = f"{count} leases were revoked, but a restart would forget it: {error.message}"
        raise UnavailableError(message, hint=error.hint) from None
    return count


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
    empty = sorted(field for field, value in params.values.items() if not value)
    if empty:
        message = f"the field {empty[0]!r} is empty"
        raise RequestError(message, hint="a secret that is not there is better removed: mcp-broker secret rm")
    secret, backend = _writable(running, params.name, params.backend)
    values = {field: Secret(value) for field, value in params.values.items()}
    version = await _asked(backend.put(secret.path, values))
    await running.audit.record(
        "secret/set", **who(caller.peer), secret=params.name, backend=backend.name, version=version
    )
    for lease in _chosen(running.leases, secret=params.name):
        running.endings.tell(lease, "rotated")
    return m.SecretStored(secret=params.name, backend=backend.name, version=version)


async def secret_rm(running: Running, caller: Caller, params: m.SecretName) -> m.Done:
    """Remove a secret with all its versions."""
    secret, backend = _writable(running, params.name, params.backend)
    await _asked(backend.delete(secret.path))
    await running.audit.record("secret/removed", **who(caller.peer), secret=params.name, backend=backend.name)
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


async def explain(running: Running, caller: Caller, params: m.Explain) -> m.Explained:
    """Say what the policy says of a workload, by the same code that decides."""
    workload, ask, at = _question(running, caller, params)
    holds = workload.selectors
    decision = decide(running.service.policy, holds, ask)
    rule = running.service.policy.servers.get(ask.server or "")
    hint: str | None = None
    name: str | None
    if isinstance(decision, Allowed):
        wants, name = decision.rule.selectors, decision.rule.name
    else:
        hint, name = decision.hint, decision.rule
        wants = decision.wants or (frozenset() if rule is None else rule.selectors)
    return m.Explained(
        allowed=isinstance(decision, Allowed),
        reason=decision.reason,
        rule=name,
        hint=hint,
        server=ask.server,
        secret=ask.secret,
        uid=workload.uid,
        pid=workload.process.pid or None,
        unit=workload.unit,
        holds=sorted(holds),
        wants=sorted(wants),
        at=None if at is None else utc(at),
    )


def _question(running: Running, caller: Caller, params: m.Explain) -> tuple[Workload, Ask, float | None]:
    """Return the workload in question and what it asks for."""
    ask = Ask(server=params.server, secret=params.secret)
    if params.last:
        latest = running.refusals.latest()
        chosen = [
            each for each in latest if ask == Ask() or (each.ask.server, each.ask.secret) == (ask.server, ask.secret)
        ]
        if not chosen:
            message = "nothing was refused in the last day"
            raise RequestError(message, hint="mcp-broker status")
        return chosen[0].workload, chosen[0].ask, chosen[0].at
    if ask == Ask():
        message = "say which server or which secret"
        raise RequestError(message, hint="mcp-broker explain SERVER [SECRET], or --last")
    if params.pid is not None:
        try:
            return process_now(params.pid, boot=caller.peer.workload.process.boot), ask, None
        except AttestationError as error:
            raise RequestError(error.message, hint=error.hint) from None
    workload = caller.peer.workload
    if params.unit is not None:
        workload = Workload(process=workload.process, gid=workload.gid, groups=workload.groups, unit=params.unit)
    return workload, ask, None


async def reload(running: Running, _: Caller, __: m.Nothing) -> m.Reloaded:
    """Read the config again and put it in force as a whole, or say why not."""
    return m.Reloaded(changed=running.reload())


async def audit_segments(running: Running, _: Caller, __: m.Nothing) -> m.Segments:
    """Return the files of the audit log, oldest first."""
    found = await asyncio.to_thread(listed, running.places.audit)
    return m.Segments(
        segments=[m.Segment(name=each.name, bytes=each.length, current=each.name == chain.CURRENT) for each in found],
    )


async def audit_read(running: Running, _: Caller, params: m.AuditRead) -> m.AuditText:
    """Return whole lines of one file of the audit log; what is not UTF-8 in it is shown as escapes."""
    found = await asyncio.to_thread(page, running.places.audit, params.segment, params.offset, params.limit)
    return m.AuditText(text=found.text.decode("utf-8", "backslashreplace"), next=found.next, end=found.end)


async def key_rotate(running: Running, caller: Caller, params: m.KeyRotate) -> m.KeyRotated:
    """Wrap the data key of the sealed store with a new master key, and seal the values anew where asked."""
    store = running.backends["local"]
    if not isinstance(store, KeyedBackend):
        message = "the backend 'local' has no master key"
        raise RequestError(message, hint="mcp-broker status")
    try:
        # It has a deadline of its own, which grows with what there is to seal.
        rotated = await store.rotate_key(reencrypt=params.reencrypt)
    except BackendError as error:
        raise translated(error) from None
    await running.audit.record(
        "key/rotated", **who(caller.peer), backend="local", source=rotated.source, generation=rotated.generation
    )
    return m.KeyRotated(
        backend="local",
        source=rotated.source,
        generation=rotated.generation,
        reencrypted=rotated.reencrypted,
        remains=rotated.remains,
    )


async def stop(running: Running, _: Caller, params: m.Stop) -> m.Done:
    """End the daemon; what is out stays out unless ``revoke`` says otherwise."""
    running.stop(params.revoke)
    return m.Done()
