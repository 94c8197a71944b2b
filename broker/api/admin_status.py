"""
How the broker is, and what each of its backends lacks.

Whatever a backend does, the others are shown as ever, and in time. None of
these verbs releases a value.
"""

import asyncio
import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

import broker
from backends.base import Backend, BackendError, ExaminingBackend, Lack
from broker.api import messages as m
from broker.api.admin_audit import audit_problems, audit_state
from broker.api.times import utc
from broker.api.workload import Caller
from broker.config import SecretConfig
from broker.config.problems import nearest
from broker.core.chain import rfc3339
from broker.core.leases import replaceable
from broker.errors import RequestError
from broker.rotation.shown import problems as rotation_problems
from broker.running import Running
from broker.translate import answered

_REFUSALS: Final = 20
_OF_ONE_KIND: Final = 20
"""Problems of one kind that are said one by one."""

_DEADLINE: Final = 10.0
"""Seconds that a backend may take for an admin."""

_GLANCE: Final = 3.0
"""Seconds that a backend may take to say what it lacks: nobody waits longer for a glance."""


async def status(running: Running, _: Caller, __: m.Nothing) -> m.Status:
    """Return what a person wants to know first."""
    named = running.backends.items()
    backends, lacking = await asyncio.gather(
        asyncio.gather(*(backend_row(running, *each) for each in named)),
        asyncio.gather(*(_lacking(running, *each) for each in named)),
    )
    audit = audit_state(running)
    problems = [*_problems(running, backends), *(problem for each in lacking for problem in each)]
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
        backends=list(backends),
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
        refusals=_refusals(running),
    )


def _refusals(running: Running) -> list[m.Refusal]:
    return [
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
        for each in running.refusals.shown(_REFUSALS)
    ]


def _problems(running: Running, backends: Iterable[m.BackendRow]) -> Iterator[m.Problem]:
    """Yield what is wrong, each with what mends it."""
    for row in backends:
        if row.state != "ok":
            yield m.Problem(text=f"backend {row.name}: {row.detail or row.state}", hint=row.hint)
    yield from audit_problems(running)
    if running.store.trouble:
        yield m.Problem(text=running.store.trouble, hint=f"df {running.places.state}")
    if running.config_error:
        yield m.Problem(text="the config on disk is not the one in force", hint="mcp-broker reload")
    for text, hint in rotation_problems(running.rotations, running.clock()):
        yield m.Problem(text=text, hint=hint)
    for some in (_stale(running), _ending(running), _irrevocable(running)):
        yield from islice(some, _OF_ONE_KIND)
        if more := sum(1 for _ in some):
            yield m.Problem(text=f"and {more} more of that kind", hint="mcp-broker lease list --all")


def _stale(running: Running) -> Iterator[m.Problem]:
    service = running.service
    for secret in service.config.known_secrets().values():
        found = service.reading.stale(secret)
        if found is not None:
            text = (
                f"secret {secret.name!r}: backend {secret.backend!r} does not answer; "
                f"its value of {_at(found.since)} is served until {_at(found.until)}"
            )
            yield m.Problem(text=text, hint=found.trouble.hint)


def _ending(running: Running) -> Iterator[m.Problem]:
    now = running.clock()
    for lease in running.leases:
        if not lease.barred and replaceable(lease, now) and not running.endings.watched(lease):
            text = (
                f"lease {lease.accessor} of {lease.secret!r} for server {lease.server!r} "
                f"ends at {_at(lease.expires_at)} and cannot be prolonged"
            )
            yield m.Problem(text=text, hint="start the server anew before that")


def _irrevocable(running: Running) -> Iterator[m.Problem]:
    for each in running.endings.revoker.irrevocable():
        lease = each.leases[0]
        text = (
            f"lease {lease.accessor} of {lease.secret!r} could not be given back to backend {lease.backend!r} "
            f"since {_at(each.since or 0.0)}: {each.attempts} attempts, the last one ended in {each.error}"
        )
        yield m.Problem(text=text, hint="revoke it there by hand; it is tried again all the same")


def _at(when: float) -> str:
    return f"{rfc3339(when)[:19]}Z"


async def backend_row(running: Running, name: str, backend: Backend) -> m.BackendRow:
    """Ask a backend how it is; whatever it does, the others are shown as ever."""
    state, detail, hint = "unavailable", "it does not answer", None
    facts: Mapping[str, str] = {}
    try:
        async with asyncio.timeout(_DEADLINE):
            health = await backend.health()
        state, detail, hint, facts = health.state, health.detail, health.hint, health.facts
    except TimeoutError:
        pass
    except BackendError as error:
        detail, hint = error.message, error.hint
    except Exception as error:  # noqa: BLE001 -- see above; its text may hold anything
        detail, hint = f"it failed unexpectedly: {type(error).__name__}", "mcp-broker status, and the log"
    kind = running.service.config.backends[name].type
    return m.BackendRow(name=name, type=kind, state=state, detail=detail, hint=hint, facts=dict(facts))


async def _lacking(running: Running, name: str, backend: Backend) -> list[m.Problem]:
    """Return which of the configured secrets a backend would not issue, where it can say so."""
    if not isinstance(backend, ExaminingBackend):
        return []
    secrets = _kept_in(running, name)
    found = await lacks(running, name, backend, secrets)
    return [
        m.Problem(text=f"secret {secret.name!r}: {lack.message}", hint=lack.hint)
        for secret in secrets
        if (lack := found.get(secret.path)) is not None
    ]


async def lacks(
    running: Running, name: str, backend: ExaminingBackend, secrets: Iterable[SecretConfig]
) -> Mapping[str, Lack]:
    """Return what is missing for which path; nothing where the backend does not say in time: ``health`` says why."""
    del running, name
    try:
        async with asyncio.timeout(_GLANCE):
            return await backend.examine(_wanted(secrets))
    except Exception:  # noqa: BLE001 -- a glance at one backend must not hide the others
        return {}


def _kept_in(running: Running, name: str) -> list[SecretConfig]:
    return [secret for secret in running.service.config.known_secrets().values() if secret.backend == name]


def _wanted(secrets: Iterable[SecretConfig]) -> dict[str, dict[str, Any]]:
    """Return the paths with their parameters; where two secrets share a path, with those of both."""
    wanted: dict[str, dict[str, Any]] = {}
    for secret in secrets:
        wanted.setdefault(secret.path, {}).update(secret.params)
    return wanted


async def backend_policy(running: Running, _: Caller, params: m.BackendPolicy) -> m.PolicyText:
    """Return the policy that the config needs at a backend."""
    examining = {name: each for name, each in running.backends.items() if isinstance(each, ExaminingBackend)}
    name = params.backend
    if name is None:
        if len(examining) != 1:
            message = "no backend has policies" if not examining else "several backends have policies"
            raise RequestError(message, hint=_which(examining))
        name = next(iter(examining))
    if name not in running.backends:
        near = nearest(name, running.backends)
        guess = "" if near is None else f"did you mean {near!r}? "
        message = f"no backend is called {name!r}"
        raise RequestError(message, hint=guess + _which(examining))
    if name not in examining:
        message = f"backend {name!r} has no policies"
        raise RequestError(message, hint=_which(examining))
    secrets = _kept_in(running, name)
    text = await answered(examining[name].policy(_wanted(secrets)), within=_DEADLINE)
    return m.PolicyText(backend=name, policy=text, secrets=len(secrets))


def _which(examining: Iterable[str]) -> str:
    names = sorted(examining)
    if not names:
        return 'a backend of type "vault" has them: [backends.NAME], type = "vault"'
    return "mcp-broker vault policy " + (names[0] if len(names) == 1 else f"NAME, one of {', '.join(names)}")
