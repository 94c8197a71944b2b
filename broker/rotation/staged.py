"""
The steps that are the same for all that is staged: claim, find again, make current.

Each looks first at what is there, so that it can be done twice. This module
refuses to overwrite what it has not seen.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from backends.base import ConflictError, Credential
from backends.rotating import Staged
from broker.errors import UnavailableError
from broker.rotation.staging import Staging

TAKEN_OVER_AFTER: Final = 3600.0
"""Seconds after which what another broker has begun, and not ended, is carried on by this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """
    What came of a step.

    Attributes:
        before: for ``create``, the version that is current.
        after: for ``promote``, the version that is current now.
        promoted: whether the pending credential was found to be the current one, whatever the step was.
        since: since when it is good; None for now.
        lifetime: seconds after that in which it ends by itself; None for never.

    """

    before: int | None = None
    after: int | None = None
    promoted: bool = False
    since: float | None = None
    lifetime: float | None = None


class FollowedError(Exception):
    """Another broker is at it, and was there first: this one follows."""


async def create(
    staging: Staging, token: str, make: Callable[[Credential], Awaitable[Staged]], *, now: float
) -> Outcome:
    """
    Have something staged under this token, made by ``make`` where nothing is there yet.

    What another rotation has left behind is carried on, not made anew: its value
    may be at the source already. Raises ``FollowedError`` where another broker is
    at it.
    """
    staged, untold = await staging.read(), True
    if staged is None:
        staged = replace(await make(await staging.current()), token=token)
        await _claim(staging, staged, instead_of=None)
    elif staged.token != token:
        if staging.shared and abs(now - staged.at) < TAKEN_OVER_AFTER:
            raise FollowedError
        left = None if staged.lifetime is None else max(0.0, staged.lifetime - (now - staged.at))
        before, staged = staged.token, replace(staged, token=token, at=now, lifetime=left)
        await _claim(staging, staged, instead_of=before)
        untold = False
    current = await staging.current()
    if current.values == staged.pending:
        return _promoted(staged, current.version)
    if untold and not staged.beside and not _as_seen(current, staged):
        # Between the look and the claim somebody has replaced it. The source has not heard of ours yet.
        await _claim(staging, None, instead_of=token)
        raise FollowedError
    return Outcome(before=staged.expected)


def _as_seen(current: Credential, staged: Staged) -> bool:
    return (current.version, current.values) == (staged.expected, staged.previous)


async def _claim(staging: Staging, staged: Staged | None, *, instead_of: str | None) -> None:
    try:
        await staging.write(staged, instead_of=instead_of)
    except ConflictError:
        raise FollowedError from None


async def mine(staging: Staging, token: str, name: str) -> Staged:
    """Return what is staged under this token. Raises ``FollowedError`` where another broker has taken it over."""
    staged = await staging.read()
    if staged is not None and staged.token == token:
        return staged
    if staging.shared:
        raise FollowedError
    message = "what was staged for it is gone"
    raise UnavailableError(message, hint=f"mcp-broker rotate {name} --abandon")


async def unchanged(staging: Staging, staged: Staged, name: str) -> Credential:
    """Return what is current, if it is what was seen or what is staged. Raises ``UnavailableError`` otherwise."""
    current = await staging.current()
    if current.values == staged.pending or _as_seen(current, staged):
        return current
    raise _changed(name)


async def promote(staging: Staging, staged: Staged, name: str) -> Outcome:
    """Make what is staged the current version, in the place of the one that was seen, once."""
    current = await unchanged(staging, staged, name)
    if current.values == staged.pending:
        return _promoted(staged, current.version)
    try:
        after = await staging.promote(staged.pending, expected=current)
    except ConflictError:
        raise _changed(name) from None
    return _promoted(staged, after)


def _changed(name: str) -> UnavailableError:
    message = "it was changed while it was being replaced"
    return UnavailableError(message, hint=f"mcp-broker rotate {name} --abandon, and begin again")


def _promoted(staged: Staged, after: int | None) -> Outcome:
    return Outcome(promoted=True, after=after, since=staged.at, lifetime=staged.lifetime)
