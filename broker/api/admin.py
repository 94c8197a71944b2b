"""
The verbs for admins: what is there, what is out, and how to take it back.

None of them releases a value.
"""

import asyncio
from collections.abc import Iterable
from typing import Final

from backends.base import BackendError, ExaminingBackend, WritableBackend
from broker.api import messages as m
from broker.api.admin_status import lacks
from broker.api.times import utc
from broker.api.workload import Caller, row
from broker.attest import process_now
from broker.config.problems import nearest
from broker.core.model import Lease, Workload
from broker.core.policy import Allowed, Ask, decide
from broker.errors import AttestationError, LeaseNotFoundError, RequestError, UnavailableError
from broker.records import who
from broker.refusals import LatestRefusal
from broker.running import Running
from broker.translate import translated

_DEADLINE: Final = 10.0
"""Seconds that a backend may take for an admin."""


async def lease_list(running: Running, _: Caller, params: m.LeaseList) -> m.Leases:
    """Return what is out."""
    service = running.service
    known = {lease.secret: service.config.secret(lease.secret) for lease in running.leases}
    stale = {name for name, secret in known.items() if service.reading.stale(secret) is not None}
    chosen = running.leases.chosen(server=params.server, secret=params.secret)
    rows = [row(lease, "stale" if lease.secret in stale and not lease.barred else None) for lease in chosen]
    for each in running.endings.revoker if params.all else ():
        ended = [lease for lease in each.leases if running.leases.get(lease.accessor) is None]
        rows += [
            row(lease, "irrevocable" if each.irrevocable else "ended")
            for lease in ended
            if params.server in {None, lease.server} and params.secret in {None, lease.secret}
        ]
    return m.Leases(leases=rows)


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
                leases=len(running.leases.chosen(server=name)),
            )
            for name, server in sorted(running.service.config.servers.items())
        ],
    )


async def server_revoke(running: Running, caller: Caller, params: m.ServerName) -> m.Revoked:
    """Revoke everything that a server holds now: the kill switch."""
    if params.server not in running.service.config.servers:
        message = f"no server is called {params.server!r}"
        near = nearest(params.server, running.service.config.servers)
        guess = "" if near is None else f"did you mean {near!r}? "
        raise RequestError(message, hint=f"{guess}mcp-broker server list")
    running.service.kill(params.server)
    return m.Revoked(revoked=await _revoke(running, caller, running.leases.chosen(server=params.server), killed=True))


async def _revoke(running: Running, caller: Caller, leases: Iterable[Lease], *, killed: bool = False) -> int:
    """Revoke leases, which waits for nobody; the answer waits until a restart would know of it."""
    count = running.endings.bar(leases, f"by admin uid {caller.peer.workload.uid}", killed=killed)
    try:
        await running.store.settled()
    except UnavailableError as error:
        message = f"{count} leases were revoked, but a restart would forget it: {error.message}"
        raise UnavailableError(message, hint=error.hint) from None
    return count


async def explain(running: Running, caller: Caller, params: m.Explain) -> m.Explained:
    """
    Say what the policy says of a workload, by the same code that decides.

    A refusal that was not the policy's is told as it was: what the policy says is not why.
    """
    workload, ask, last = _question(running, caller, params)
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
    other = None if last is None or last.by_policy else last
    reason = decision.reason
    if isinstance(decision, Allowed) and other is None:
        lack, hint = await _lack(running, decision, ask)
        reason += lack
    return m.Explained(
        allowed=isinstance(decision, Allowed) and other is None,
        reason=reason if other is None else f"{other.reason} ({other.code})",
        rule=name,
        hint=hint if other is None else other.hint,
        server=ask.server,
        secret=ask.secret,
        uid=workload.uid,
        pid=workload.process.pid or None,
        unit=workload.unit,
        holds=sorted(holds),
        wants=sorted(wants),
        at=None if last is None else utc(last.at),
    )


async def _lack(running: Running, decision: Allowed, ask: Ask) -> tuple[str, str | None]:
    """Return what keeps an allowed request from being answered, as far as a look at the stores shows, and a hint."""
    config = running.service.config
    wanted = {ask.secret} if ask.secret is not None else config.servers[decision.rule.name].needs
    for name in sorted(wanted):
        secret = config.secret(name)
        backend = running.backends.get(secret.backend)
        if isinstance(backend, ExaminingBackend):
            lack = (await lacks(running, secret.backend, backend, [secret])).get(secret.path)
            if lack is not None:
                return f", but {lack.message}", lack.hint
        if not isinstance(backend, WritableBackend) or secret.params:
            continue
        try:
            async with asyncio.timeout(_DEADLINE):
                kept = await backend.list()
        except (BackendError, TimeoutError) as error:
            found = translated(error)
            return f", but {found.message}", found.hint
        if secret.path not in kept:
            return f", but the secret {name!r} is not stored", f"mcp-broker secret set {name}"
    return "", None


def _question(running: Running, caller: Caller, params: m.Explain) -> tuple[Workload, Ask, LatestRefusal | None]:
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
        return chosen[0].workload, chosen[0].ask, chosen[0]
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


async def reload(running: Running, caller: Caller, __: m.Nothing) -> m.Reloaded:
    """Read the config again and put it in force as a whole, or say why not."""
    running.audit.note("config/reload", **who(caller.peer))
    return m.Reloaded(changed=await running.reload())


async def stop(running: Running, caller: Caller, params: m.Stop) -> m.Done:
    """End the daemon; what is out stays out unless ``revoke`` says otherwise."""
    running.audit.note("broker/stop", **who(caller.peer), outcome="revoke all" if params.revoke else "keep leases")
    running.stop(params.revoke)
    return m.Done()
