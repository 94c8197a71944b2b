"""
How one credential takes the place of another: the staged state machine.

    create → set → test → promote → (grace) → retire

``create`` has the pending credential on disk, ``set`` makes it good at the
source, ``test`` tries it, ``promote`` makes it the current one, and once nobody
needs the one before it, ``retire`` makes that worthless. The machine says what to
do and is told what came of it. What it returns has to be on disk before anything
is done, so that a crash at any point does the same step again, with the same
token: each step must be one that can be done twice.

This module refuses to hold a value, to do anything, and to know what time it is.
"""

from dataclasses import dataclass, replace
from typing import Final, Literal, assert_never
from zlib import crc32

Step = Literal["create", "set", "test", "promote", "retire", "abandon"]
Stage = Literal["create", "set", "test", "promote", "grace", "retire", "abandon"]
State = Literal["running", "failed", "grace"]

STAGED: Final[tuple[Step, ...]] = ("create", "set", "test", "promote", "retire")
"""What it takes where the broker makes the value."""

AT_SOURCE: Final[tuple[Step, ...]] = ("set",)
"""What it takes where the source makes it, and there is nothing of ours to promote."""

RETRY_FLOOR: Final = 5.0
"""Seconds between two attempts at a step at least."""

RETRY_CAP: Final = 3600.0
"""Seconds between two attempts at a step at most."""

SETTLING: Final = 60.0
"""
Seconds after a promotion in which the previous version is not retired, whoever holds it.

A request that had read it just before may not have its lease yet.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """
    One replacement of one credential, under way.

    Attributes:
        token: its name, the same in every attempt at every step.
        steps: what this rotation consists of, in order.
        stage: the step that is being done, or ``grace``.
        began_at: when.
        grace: seconds for which the previous version stays good after the promotion.
        shared: whether brokers that we do not see hold the same credential, so that nobody here knows who holds it.
        attempts: how often the step has failed.
        retry_at: when it is tried again; 0 for at once.
        error: why it failed last, without a value; None where it has not.
        hint: what mends that.
        before: the version that was current when it began; None where there was none, or there are no versions.
        after: the version that it made current.
        promoted_at: when it did.

    """

    token: str
    steps: tuple[Step, ...]
    stage: Stage
    began_at: float
    grace: float = 0.0
    shared: bool = False
    attempts: int = 0
    retry_at: float = 0.0
    error: str | None = None
    hint: str | None = None
    before: int | None = None
    after: int | None = None
    promoted_at: float | None = None


@dataclass(frozen=True, slots=True)
class Do:
    """Do this step now, once the rotation as it is returned is on disk."""

    step: Step


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing is to be done before this time."""

    until: float


@dataclass(frozen=True, slots=True)
class Over:
    """The rotation has ended."""

    promoted: bool


Move = Do | Wait


def begun(
    token: str, *, now: float, steps: tuple[Step, ...] = STAGED, grace: float = 0.0, shared: bool = False
) -> Rotation:
    """Return a rotation that has its first step before it."""
    return Rotation(token=token, steps=steps, stage=steps[0], began_at=now, grace=grace, shared=shared)


def move(rotation: Rotation, now: float, *, holders: int) -> tuple[Rotation, Move]:
    """
    Return what to do now, and the rotation as it has to be on disk before that is done.

    Args:
        rotation: as it is on disk.
        now: the time.
        holders: how many leases still have the version before.

    """
    stage = rotation.stage
    if stage == "grace":
        return _in_grace(rotation, now, holders)
    if rotation.retry_at - now > RETRY_CAP:
        # No pause is that long: the clock was set back.
        rotation = replace(rotation, retry_at=now + RETRY_CAP)
    if rotation.retry_at > now:
        return rotation, Wait(rotation.retry_at)
    return rotation, Do(stage)


def _in_grace(rotation: Rotation, now: float, holders: int) -> tuple[Rotation, Move]:
    """Wait until nobody holds the previous version any more or the grace is over, whichever is first."""
    promoted_at = rotation.promoted_at
    if promoted_at is None or promoted_at > now:
        # The clock was set back. The grace is a length of time, not a moment.
        promoted_at = now
        rotation = replace(rotation, promoted_at=now)
    over = promoted_at + rotation.grace
    unheld = not holders and not rotation.shared and now >= promoted_at + SETTLING
    if now >= over or unheld:
        return replace(rotation, stage="retire", retry_at=0.0), Do("retire")
    return rotation, Wait(over if holders or rotation.shared else min(over, promoted_at + SETTLING))


def done(
    rotation: Rotation, step: Step, *, now: float, before: int | None = None, after: int | None = None
) -> Rotation | Over:
    """
    Return what follows a step that was done.

    Args:
        rotation: as it is.
        step: what was done. A word on another step than the one it is at comes too late, and changes nothing.
        now: the time.
        before: for ``create``, the version that is current.
        after: for ``promote``, the version that is current now.

    """
    if step != rotation.stage:
        return rotation
    rotation = replace(rotation, attempts=0, retry_at=0.0, error=None, hint=None)
    match step:
        case "create" | "set" | "test":
            rotation = replace(rotation, before=before if step == "create" else rotation.before)
            following = _next(rotation, step)
            return Over(promoted=True) if following is None else replace(rotation, stage=following)
        case "promote":
            return promoted(rotation, now=now, after=after)
        case "retire":
            return Over(promoted=True)
        case "abandon":
            return Over(promoted=False)
        case _:
            assert_never(step)


def promoted(rotation: Rotation, *, now: float, after: int | None) -> Rotation:
    """Return the rotation whose credential has been found to be the current one, whatever step was being done."""
    rotation = replace(rotation, attempts=0, retry_at=0.0, error=None, hint=None)
    return replace(rotation, stage="grace", promoted_at=now, after=after)


def failed(rotation: Rotation, *, now: float, error: str, hint: str | None = None) -> Rotation:
    """
    Return the rotation after a step that failed, or of which nobody knows what came of it.

    What failed its test is made good at the source again before it is tested
    again; it never goes on from there by itself.
    """
    attempts = rotation.attempts + 1
    stage: Stage = "set" if rotation.stage == "test" else rotation.stage
    pause = _pause(rotation.token, attempts)
    return replace(rotation, stage=stage, attempts=attempts, retry_at=now + pause, error=error, hint=hint)


def _pause(token: str, attempts: int) -> float:
    """Double with each attempt, between a floor and a cap; each rotation has its own, so that many do not meet."""
    own = (1 + crc32(f"{token} {attempts}".encode()) / 2**32) / 2
    doubled = RETRY_FLOOR * 2.0 ** min(attempts, 16)
    return max(RETRY_FLOOR, min(doubled, RETRY_CAP) * own)


def resumed(rotation: Rotation) -> Rotation:
    """Return the rotation with nothing to wait for: neither a pause nor the rest of the grace."""
    if rotation.stage == "grace":
        return replace(rotation, grace=0.0)
    return replace(rotation, retry_at=0.0)


def abandoned(rotation: Rotation) -> Rotation | None:
    """Return the rotation on its way back, or None where there is none: it has been promoted, or happens elsewhere."""
    if "promote" not in rotation.steps or rotation.promoted_at is not None:
        return None
    return replace(rotation, stage="abandon", attempts=0, retry_at=0.0, error=None, hint=None)


def state(rotation: Rotation) -> State:
    """Return how it is, in one word."""
    if rotation.error is not None:
        return "failed"
    return "grace" if rotation.stage == "grace" else "running"


def _next(rotation: Rotation, step: Step) -> Step | None:
    """Return the step after this one; None where it was the last."""
    following = rotation.steps[rotation.steps.index(step) + 1 :]
    return following[0] if following else None
