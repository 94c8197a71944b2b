"""
What does the steps of a rotation: a rule and the admin's program, or the source itself.

This module refuses to decide which step comes next, and to try anything again.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from backends.base import Credential, Secret
from backends.rotating import Staged
from broker.config.replacing import GenerateConfig
from broker.core.rotation import AT_SOURCE, STAGED, Step
from broker.rotation import generate
from broker.rotation.program import Asked, Run
from broker.rotation.staged import Outcome, create, mine, promote, unchanged
from broker.rotation.staging import Staging

NOTHING_SPECIAL: Final = Outcome()


class Rotator(Protocol):
    """Does the steps for one credential."""

    @property
    def steps(self) -> tuple[Step, ...]:
        """Return which steps there are."""
        ...

    @property
    def shared(self) -> bool:
        """Return whether brokers that we do not see use the credential, too."""
        ...

    async def do(self, step: Step, token: str) -> Outcome:
        """Do a step. Raises ``BrokerError``, ``BackendError`` or ``FollowedError``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """
    A new value by a rule, applied by a program of the admin's, or by nobody.

    Attributes:
        secret: its name in the config.
        staging: where it is, and what is staged for it.
        rule: what a new value looks like.
        command: the program and its arguments; empty for none.
        lock: the file that a running program holds locked.
        run: runs it.
        clock: Unix seconds, UTC.

    """

    secret: str
    staging: Staging
    rule: GenerateConfig
    command: tuple[str, ...]
    lock: Path
    run: Run
    clock: Callable[[], float]

    @property
    def steps(self) -> tuple[Step, ...]:
        """Return all of them, or where there is no program those that need none."""
        return STAGED if self.command else ("create", "promote", "retire")

    @property
    def shared(self) -> bool:
        """Return whether the backend is shared."""
        return self.staging.shared

    async def do(self, step: Step, token: str) -> Outcome:
        """Do a step."""
        match step:
            case "create":
                return await create(self.staging, token, self._made, now=self.clock())
            case "set" | "test":
                staged = await mine(self.staging, token, self.secret)
                # What somebody has put in since may be what the source has now: it is not to be undone blindly.
                await unchanged(self.staging, staged, self.secret)
                await self._run(step, token, current=staged.previous, pending=staged.pending)
                return NOTHING_SPECIAL
            case "promote":
                return await promote(self.staging, await mine(self.staging, token, self.secret), self.secret)
            case "retire" | "abandon":
                return await self._let_go(step, token)

    async def _made(self, current: Credential) -> Staged:
        pending = generate.pending(current.values, self.rule)
        return Staged(token="", pending=pending, previous=current.values, expected=current.version, at=self.clock())

    async def _let_go(self, step: Step, token: str) -> Outcome:
        """Make worthless what is not current, and forget what was staged."""
        staged = await self.staging.read()
        if staged is None or staged.token != token:
            # It was forgotten before the broker ended, or another broker has taken over.
            return NOTHING_SPECIAL
        current = await self.staging.current()
        if step == "retire":
            # Not what was promoted but what is current: an admin may have gone back to the user who is to be retired.
            if staged.previous and staged.previous != current.values:
                await self._run(step, token, current=current.values, previous=staged.previous)
        elif current.values == staged.pending:
            return Outcome(promoted=True, after=current.version)
        else:
            await self._run(step, token, current=current.values, pending=staged.pending)
        await self.staging.write(None, instead_of=token)
        return NOTHING_SPECIAL

    async def _run(
        self,
        step: Step,
        token: str,
        *,
        current: Mapping[str, Secret],
        pending: Mapping[str, Secret] | None = None,
        previous: Mapping[str, Secret] | None = None,
    ) -> None:
        if not self.command:
            return
        asked = Asked(
            step=step,
            secret=self.secret,
            token=token,
            current=current,
            pending=pending,
            previous=previous,
            public=frozenset(self.rule.alternate),
        )
        await self.run(self.command, asked, self.lock)


@dataclass(frozen=True, slots=True)
class AtSource:
    """
    Something that is replaced where it is, by one call that can be made twice.

    Attributes:
        call: makes it, given the rotation's token.

    """

    call: Callable[[str], Awaitable[object]]

    @property
    def steps(self) -> tuple[Step, ...]:
        """Return the one step that there is."""
        return AT_SOURCE

    @property
    def shared(self) -> bool:
        """Return False: nothing of ours is retired."""
        return False

    async def do(self, step: Step, token: str) -> Outcome:
        """Do it."""
        assert step == "set"
        await self.call(token)
        return NOTHING_SPECIAL
