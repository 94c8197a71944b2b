"""
How each rotation is, for ``status``, the metrics and the commands.

This module refuses to change anything, and to show a value.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from broker.config import duration
from broker.core.rotation import Rotation, state
from broker.core.schedule import Plan, too_old
from broker.rotation.journal import Course
from broker.rotation.rotations import Rotations
from broker.rotation.targets import Target

State = Literal["idle", "running", "failed", "grace"]

_NO_PLAN: Final = Plan(since=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """
    One credential that is replaced, as a person sees it. Times are Unix seconds.

    Attributes:
        name: of the secret, or ``backends.NAME``.
        backend: where it is.
        how: what replaces it, in words.
        state: how it is, in one word.
        stage: the step it is at; None where nothing is under way.
        version: the current one; None where there are none.
        since: since when it is that; None where nobody has looked yet.
        next_at: when the next rotation is due; None for never by itself.
        max_age: seconds that the config promises.
        too_old: whether that promise is broken.
        error: what failed last, and is not mended.
        hint: what mends it.
        attempts: how often it has failed.
        retry_at: when it is tried again.
        grace_until: when the previous version is retired at the latest.
        holders: how many sessions keep which version that is not the current one.
        says: who keeps what, in a sentence; empty where nobody does.

    """

    name: str
    backend: str
    how: str
    state: State
    stage: str | None
    version: int | None
    since: float | None
    next_at: float | None
    max_age: float | None
    too_old: bool
    error: str | None
    hint: str | None
    attempts: int
    retry_at: float | None
    grace_until: float | None
    holders: Mapping[int, int]
    says: str


def shown(rotations: Rotations, now: float) -> list[Shown]:
    """Return all that is replaced, by name."""
    return [_shown(rotations, target, now) for _, target in sorted(rotations.targets.items())]


def problems(rotations: Rotations, now: float) -> Iterator[tuple[str, str | None]]:
    """Yield what is wrong, a sentence each, with what mends it."""
    for row in shown(rotations, now):
        if row.error is not None:
            yield f"rotation of {row.name}: {row.error}", row.hint
        if row.too_old:
            yield f"rotation of {row.name}: it is older than the config promises", f"mcp-broker rotate {row.name}"
    for name, course in sorted(rotations.courses.items()):
        if course.rotation is not None and name not in rotations.targets:
            text = f"rotation of {name}: it is under way, and the config has no rotate for it any more"
            yield text, "put it back, and then mcp-broker rotate --abandon, or --resume"


def _shown(rotations: Rotations, target: Target, now: float) -> Shown:
    course = rotations.courses.get(target.name) or Course(name=target.name)
    rotation, plan = course.rotation, course.plan or _NO_PLAN
    trouble, mend = rotations.trouble.get(target.name, (None, None))
    error, hint = (trouble, mend) if rotation is None or rotation.error is None else (rotation.error, rotation.hint)
    holders = dict(sorted(rotations.holders(course).items()))
    grace_until = _grace_until(rotation)
    return Shown(
        name=target.name,
        backend=target.backend,
        how=_how(target),
        state="failed" if error is not None else "idle" if rotation is None else state(rotation),
        stage=None if rotation is None else rotation.stage,
        version=course.version,
        since=None if course.plan is None else plan.since,
        next_at=plan.due_at,
        max_age=target.timing.max_age,
        too_old=course.plan is not None and too_old(plan, target.timing, now),
        error=error,
        hint=hint,
        attempts=0 if rotation is None else rotation.attempts,
        retry_at=None if rotation is None or rotation.error is None else rotation.retry_at,
        grace_until=grace_until,
        holders=holders,
        says="; ".join(_says(count, version, course) for version, count in holders.items()),
    )


def _grace_until(rotation: Rotation | None) -> float | None:
    if rotation is None or rotation.promoted_at is None:
        return None
    return rotation.promoted_at + rotation.grace


def _says(count: int, version: int, course: Course) -> str:
    """Return who keeps a version, and until when."""
    who = "1 session keeps" if count == 1 else f"{count} sessions keep"
    restarted = "until it is restarted" if count == 1 else "until they are restarted"
    rotation = course.rotation
    if rotation is not None and rotation.stage == "grace" and version == rotation.before:
        return f"{who} version {version} {restarted} or the grace ends"
    return f"{who} version {version} {restarted}, and it may be worthless"


def would(rotations: Rotations, row: Shown) -> str:
    """Return what a rotation would mean now for who holds the current version, in a sentence."""
    if row.stage is not None:
        return f"it is being replaced already: {row.stage}"
    held = rotations.held(row.name)
    version = row.version if row.version is not None else max(held, default=0)
    if not held[version]:
        return "nobody holds it"
    who = "1 session keeps" if held[version] == 1 else f"{held[version]} sessions keep"
    restarted = "it is restarted" if held[version] == 1 else "they are restarted"
    grace = duration.text(rotations.targets[row.name].rotate.grace)
    return f"{who} version {version} until {restarted} or the grace of {grace} ends"


def _how(target: Target) -> str:
    if target.rotate.oauth2 is not None:
        return "token endpoint"
    if target.rotate.command:
        return "program"
    if target.rotate.generate is not None:
        return "rule"
    return "backend"
