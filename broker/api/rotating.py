"""
The verbs for admins that replace credentials, and what they say on the wire.

None of them takes or releases a value.
"""

from datetime import datetime
from typing import Literal

from broker.api.times import utc
from broker.api.words import Name, Params, Result, Time
from broker.api.workload import Caller
from broker.core.schedule import due
from broker.errors import BrokerError, RequestError
from broker.rotation.shown import Shown, shown, would
from broker.running import Running


class Rotate(Params):
    """
    Replace one credential, all of them, or those that are due, now.

    ``resume`` goes on with what waits, be it for another attempt or for the end of
    a grace; ``abandon`` goes back to the credential that there was. With
    ``dry_run`` nothing is done.
    """

    name: Name | None = None
    all: bool = False
    due: bool = False
    resume: bool = False
    abandon: bool = False
    dry_run: bool = False


class RotationList(Params):
    """Which rotations to show."""

    name: Name | None = None


class Holding(Result):
    """How many sessions keep a version that is not the current one."""

    version: int
    sessions: int


class RotationRow(Result):
    """One credential that is replaced, for an admin."""

    name: str
    backend: str
    how: str
    state: Literal["idle", "running", "failed", "grace"]
    stage: str | None
    version: int | None
    since: Time | None
    next_at: Time | None
    max_age: float | None
    too_old: bool
    error: str | None
    hint: str | None
    attempts: int
    retry_at: Time | None
    grace_until: Time | None
    holders: list[Holding]
    says: str
    would: str


class RotationsFound(Result):
    """How each rotation is."""

    rotations: list[RotationRow]


async def rotation_list(running: Running, _: Caller, params: RotationList) -> RotationsFound:
    """Return how each rotation is."""
    return RotationsFound(rotations=rows(running, {params.name} if params.name is not None else None))


async def rotate(running: Running, caller: Caller, params: Rotate) -> RotationsFound:
    """Begin what is asked for; it goes on by itself, and ``rotation/list`` tells how far it is."""
    chosen, rotations = _chosen(running, params), running.rotations
    uid = caller.peer.workload.uid
    failed: dict[str, BrokerError] = {}
    for name in [] if params.dry_run else chosen:
        try:
            if params.abandon:
                await rotations.abandon(name, uid=uid)
            elif params.resume:
                await rotations.resume(name, uid=uid)
            else:
                await rotations.start(name, uid=uid)
        except BrokerError as error:
            if params.name is not None:
                raise
            # One that cannot be replaced now must not keep the others from being.
            failed[name] = error
    return RotationsFound(rotations=rows(running, set(chosen), failed=failed))


def _chosen(running: Running, params: Rotate) -> list[str]:
    """Return the names that are meant. Raises ``RequestError`` where that cannot be told."""
    if [params.name is not None, params.all, params.due].count(True) != 1:
        message = "say one of a name, all, or due"
        raise RequestError(message, hint="mcp-broker rotate NAME, or --all, or --due")
    if params.resume and params.abandon:
        message = "it goes on or back, not both"
        raise RequestError(message, hint="mcp-broker rotate NAME --resume, or --abandon")
    if (params.resume or params.abandon) and params.due:
        message = "what is due has not begun yet"
        raise RequestError(message, hint="mcp-broker rotate --all --resume")
    rotations, now = running.rotations, running.clock()
    if params.name is not None:
        if params.name not in rotations.targets:
            message = f"nothing in the config says how {params.name!r} is replaced"
            raise RequestError(message, hint=f'add rotate = {{ with = ["PROGRAM"] }} to [secrets.{params.name}]')
        return [params.name]
    found = {row.name: row for row in shown(rotations, now)}
    if params.resume or params.abandon:
        return [name for name, row in found.items() if row.stage is not None and row.stage != "grace"]
    if params.all:
        return [name for name, row in found.items() if row.stage is None]
    return [name for name, row in found.items() if row.stage is None and (row.too_old or _is_due(running, name, now))]


def _is_due(running: Running, name: str, now: float) -> bool:
    course = running.rotations.courses.get(name)
    timing = running.rotations.targets[name].timing
    return course is not None and course.plan is not None and due(course.plan, timing, now)


def rows(
    running: Running, names: set[str] | None = None, *, failed: dict[str, BrokerError] | None = None
) -> list[RotationRow]:
    """Return how each rotation is, or those that are named."""
    found = shown(running.rotations, running.clock())
    return [_row(running, each, (failed or {}).get(each.name)) for each in found if names is None or each.name in names]


def _row(running: Running, found: Shown, error: BrokerError | None) -> RotationRow:
    return RotationRow(
        name=found.name,
        backend=found.backend,
        how=found.how,
        state="failed" if error is not None else found.state,
        stage=found.stage,
        version=found.version,
        since=_time(found.since),
        next_at=_time(found.next_at),
        max_age=found.max_age,
        too_old=found.too_old,
        error=found.error if error is None else error.message,
        hint=found.hint if error is None else error.hint,
        attempts=found.attempts,
        retry_at=_time(found.retry_at),
        grace_until=_time(found.grace_until),
        holders=[Holding(version=version, sessions=count) for version, count in found.holders.items()],
        says=found.says,
        would=would(running.rotations, found),
    )


def _time(moment: float | None) -> datetime | None:
    return None if moment is None else utc(moment)
