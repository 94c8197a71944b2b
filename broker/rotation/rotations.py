"""
Drives all rotations: looks what is due, begins it, carries it on, and keeps what came of it.

One task for each credential at a time. What the state machine returns is on disk
before it is acted upon, so that ending this process at any moment loses nothing
but time. This module refuses to decide: ``broker.core`` does, and to see a value.
"""

import asyncio
import dataclasses
import logging
import random
import secrets
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Literal, Protocol

from msgspec.structs import replace

from backends.base import BackendError, SecretNotFoundError, WritableBackend
from backends.rotating import StagingBackend
from broker.config import Config
from broker.core import rotation as staged
from broker.core.leases import LeaseTable
from broker.core.model import Lease
from broker.core.rotation import Do, Over, Rotation, Step
from broker.core.schedule import Plan, due, planned, stands
from broker.errors import BrokerError, RequestError, UnavailableError
from broker.rotation.journal import Course, Journal
from broker.rotation.staged import FollowedError, Outcome
from broker.rotation.targets import Target, Workshop, targets
from broker.translate import translated

_log: Final = logging.getLogger("mcp_broker.rotation")

LOOK: Final = 60.0
"""Seconds between two looks at whether somebody else has changed a secret."""

FOLLOWING: Final = 60.0
"""Seconds after which it is looked again whether another broker that is at it has ended."""

STEP_DEADLINE: Final = 900.0
"""Seconds that a step may take in all; sealing every value anew takes longest."""

_LOOK_DEADLINE: Final = 10.0
_PAUSE: Final = 15.0
"""Seconds before anything is tried again whose failure could not be written down."""


class Record(Protocol):
    """What of the audit log is needed here."""

    async def record(self, event: str, **fields: Any) -> object:  # noqa: ANN401 -- audit fields
        """Have it on disk, or raise ``AuditError``."""
        ...

    def note(self, event: str, **fields: Any) -> None:  # noqa: ANN401
        """Write it as soon as that can be."""
        ...


class Rotations:
    """All rotations of a broker."""

    def __init__(
        self,
        *,
        config: Callable[[], Config],
        workshop: Workshop,
        journal: Journal,
        audit: Record,
        leases: LeaseTable,
        tell: Callable[[Lease, Literal["rotated"]], None],
        clock: Callable[[], float],
        draw: Callable[[], float] = random.random,
    ) -> None:
        """Take the parts; ``open`` reads what was under way."""
        self._config = config
        self._workshop = workshop
        self._journal = journal
        self._audit = audit
        self._leases = leases
        self._tell = tell
        self._clock = clock
        self._draw = draw
        self._known: tuple[Config, Mapping[str, Target]] | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._looked: dict[str, float] = {}
        self._held_off: dict[str, float] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.courses: dict[str, Course] = {}
        """What is known of each credential that is replaced, as it is on disk."""
        self.trouble: dict[str, tuple[str, str | None]] = {}
        """Why something could not even begin, and what mends it."""

    async def open(self) -> None:
        """Read what was under way. Raises ``IntegrityError`` and ``UnavailableError``."""
        self.courses = {course.name: course for course in await self._journal.open()}

    async def close(self) -> None:
        """Stop where everything is; the next start goes on from there."""
        tasks = self.tasks
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._journal.close()

    @property
    def targets(self) -> Mapping[str, Target]:
        """Return everything that the config in force has replaced, by name."""
        config = self._config()
        if self._known is None or self._known[0] is not config:
            self._known = (config, targets(config))
        return self._known[1]

    @property
    def tasks(self) -> tuple[asyncio.Task[None], ...]:
        """Return what is being done."""
        return tuple(self._tasks.values())

    def tick(self, now: float) -> None:
        """Do what is due. Called each second; returns at once."""
        for name, target in self.targets.items():
            if name not in self._tasks and self._wants(target, now):
                self._tasks[name] = asyncio.get_running_loop().create_task(self._attend_to(target))

    def _wants(self, target: Target, now: float) -> bool:
        if 0 < self._held_off.get(target.name, 0.0) - now <= FOLLOWING:
            return False
        course = self.courses.get(target.name)
        if course is None or course.plan is None or course.plan.rule != target.rule:
            return True
        if course.rotation is not None:
            return isinstance(self._move(course, course.rotation, now)[1], Do)
        if due(course.plan, target.timing, now) or not stands(course.plan, target.timing, now):
            return True
        return not 0 <= now - self._looked.get(target.name, now + 1) < LOOK

    async def _attend_to(self, target: Target) -> None:
        """Attend to one credential; whatever goes wrong is remembered, and tried again a little later."""
        name = target.name
        try:
            await self._attend(target)
            self.trouble.pop(name, None)
        except (BrokerError, BackendError, TimeoutError) as error:
            found = error if isinstance(error, BrokerError) else translated(error)
            self._hold_off(name, found.message, found.hint)
        except Exception as error:  # noqa: BLE001 -- one that goes wrong must not stop the others; it may quote a value
            self._hold_off(name, f"it failed unexpectedly: {type(error).__name__}", "mcp-broker status")
        finally:
            self._tasks.pop(name, None)

    def _hold_off(self, name: str, message: str, hint: str | None) -> None:
        if self.trouble.get(name) != (message, hint):
            _log.warning("rotation of %s: %s", name, message)
        self.trouble[name] = (message, hint)
        self._held_off[name] = self._clock() + _PAUSE

    async def _attend(self, target: Target) -> None:
        """Look at one credential, begin what is due, and carry on what has begun."""
        async with self._locks[target.name]:
            course = await self._look(target)
            if course.rotation is None and course.plan and due(course.plan, target.timing, self._clock()):
                course = await self._begin(target, course, why="schedule")
            await self._carry_on(target, course)

    async def _look(self, target: Target) -> Course:
        """Return what is known of a credential, looked up anew, with the time at which it is due next."""
        now, course = self._clock(), self.courses.get(target.name) or Course(name=target.name)
        if course.rotation is not None:
            return course
        version, created_at = await self._newest(target)
        self._looked[target.name] = now
        plan = course.plan or Plan(since=now if created_at is None else created_at)
        if course.plan is not None and version != course.version:
            # Somebody has set it, or another broker has replaced it: it is as old as that.
            plan = Plan(since=now if created_at is None else created_at)
        elif course.plan is not None and plan.rule == target.rule and stands(plan, target.timing, now):
            return course
        plan = planned(dataclasses.replace(plan, rule=target.rule), target.timing, now=now, draw=self._draw())
        if target.rotate.oauth2 is not None and plan.lifetime is None and (version is None or plan.due_at is None):
            # There is none yet, or nobody knows when it ends.
            plan = dataclasses.replace(plan, due_at=now)
        return await self._keep(replace(course, version=version, plan=plan))

    async def _newest(self, target: Target) -> tuple[int | None, float | None]:
        """Return the current version and when it was written, as far as the backend knows."""
        backend = self._workshop.backends.get(target.backend)
        if target.secret is None or not (target.rotate.command or target.rotate.generate or target.rotate.oauth2):
            return None, None
        try:
            async with asyncio.timeout(_LOOK_DEADLINE):
                if isinstance(backend, WritableBackend):
                    versions = await backend.versions(target.secret.path)
                    current = next((each for each in versions if each.current), None)
                    return (None, None) if current is None else (current.number, current.created_at)
                if isinstance(backend, StagingBackend):
                    found = await backend.issue(target.secret.path, params={}, intent="rotation")
                    return found.version, None
        except SecretNotFoundError:
            pass
        return None, None

    async def _begin(self, target: Target, course: Course, *, why: str, uid: int | None = None) -> Course:
        """Have it on record and on disk that a rotation begins. Nothing is changed yet."""
        rotator, token = self._workshop.rotator(target), secrets.token_urlsafe(15)
        await self._audit.record(
            "rotation/begun", **_facts(target), rotation=token, why=why, version=course.version, uid=uid
        )
        begun = staged.begun(
            token, now=self._clock(), steps=rotator.steps, grace=target.rotate.grace, shared=rotator.shared
        )
        return await self._keep(replace(course, rotation=begun))

    async def _carry_on(self, target: Target, course: Course) -> None:
        """Do step after step until there is something to wait for, or nothing left."""
        while (rotation := course.rotation) is not None:
            moved, wanted = self._move(course, rotation, self._clock())
            if moved != rotation:
                course = await self._keep(replace(course, rotation=moved))
            if not isinstance(wanted, Do):
                return
            course = await self._keep(await self._step(target, course, moved, wanted.step))

    def _move(self, course: Course, rotation: Rotation, now: float) -> tuple[Rotation, staged.Move]:
        holders = sum(self.holders(course).values()) if rotation.stage == "grace" else 0
        return staged.move(rotation, now, holders=holders)

    def holders(self, course: Course) -> Counter[int]:
        """Return how many leases have which version that is not the current one."""
        held = self.held(course.name)
        # Where nobody has looked yet, the newest that is out counts as the current one.
        current = course.version if course.version is not None else max(held, default=None)
        return Counter({version: count for version, count in held.items() if version != current})

    def held(self, name: str) -> Counter[int]:
        """Return how many leases of a secret have which version."""
        versions = (lease.version for lease in self._leases.chosen(secret=name) if not lease.barred)
        return Counter(version for version in versions if version is not None)

    async def _step(self, target: Target, course: Course, rotation: Rotation, step: Step) -> Course:
        """Do one step; return what is known then."""
        try:
            rotator = self._workshop.rotator(target)
            async with asyncio.timeout(STEP_DEADLINE):
                outcome = await rotator.do(step, rotation.token)
        except FollowedError:
            return self._followed(target, course, rotation)
        except (BrokerError, BackendError, TimeoutError) as error:
            return self._failed(target, course, rotation, error)
        except Exception as error:  # noqa: BLE001 -- whatever a backend does, it is a step that failed; it may quote a value
            unexpected = UnavailableError(f"it failed unexpectedly: {type(error).__name__}", hint="mcp-broker status")
            return self._failed(target, course, rotation, unexpected)
        return self._went_well(target, course, rotation, step, outcome)

    def _failed(
        self, target: Target, course: Course, rotation: Rotation, error: BrokerError | BackendError | TimeoutError
    ) -> Course:
        found = error if isinstance(error, BrokerError) else translated(error)
        after = staged.failed(rotation, now=self._clock(), error=found.message, hint=found.hint)
        self._note("rotation/failed", target, rotation, step=rotation.stage, code=found.code, count=after.attempts)
        _log.warning("rotation of %s, step %s: %s", target.name, rotation.stage, found.message)
        return replace(course, rotation=after)

    def _followed(self, target: Target, course: Course, rotation: Rotation) -> Course:
        """Leave it to another broker, and look again in a while."""
        self._note("rotation/followed", target, rotation, step=rotation.stage)
        now = self._clock()
        plan = (
            None
            if course.plan is None
            else dataclasses.replace(course.plan, due_at=now + FOLLOWING * (1 + self._draw()))
        )
        return replace(course, rotation=None, plan=plan, outcome="followed", ended_at=now)

    def _went_well(self, target: Target, course: Course, rotation: Rotation, step: Step, outcome: Outcome) -> Course:
        now, after = self._clock(), rotation
        became: Rotation | Over
        if outcome.promoted:
            became = after = staged.promoted(rotation, now=now, after=outcome.after)
        else:
            became = staged.done(rotation, step, now=now, before=outcome.before)
        if outcome.promoted or (isinstance(became, Over) and became.promoted and rotation.promoted_at is None):
            plan = Plan(since=now if outcome.since is None else outcome.since, lifetime=outcome.lifetime)
            course = replace(course, version=outcome.after, plan=self._planned(target, plan, now))
            self._note("rotation/promoted", target, after, version=outcome.after)
            for lease in self._leases.chosen(secret=target.name):
                self._tell(lease, "rotated")
        if isinstance(became, Rotation):
            return replace(course, rotation=became)
        ended = "done" if became.promoted else "abandoned"
        self._note(f"rotation/{ended}", target, rotation, version=course.version)
        if not became.promoted and course.plan is not None:
            # Not at once again, as if nothing had been: in a period, as if it had been replaced now.
            later = self._planned(target, Plan(since=now), now).due_at
            course = replace(course, plan=dataclasses.replace(course.plan, due_at=later))
        return replace(course, rotation=None, outcome=ended, ended_at=now)

    def _planned(self, target: Target, plan: Plan, now: float) -> Plan:
        return planned(dataclasses.replace(plan, rule=target.rule), target.timing, now=now, draw=self._draw())

    def _note(self, event: str, target: Target, rotation: Rotation, **facts: Any) -> None:  # noqa: ANN401 -- audit fields
        self._audit.note(event, **_facts(target), rotation=rotation.token, **facts)

    async def _keep(self, course: Course) -> Course:
        """Have a course on disk, and then in memory."""
        await self._journal.write(course)
        self.courses[course.name] = course
        return course

    async def start(self, name: str, *, uid: int) -> None:
        """Begin a rotation by an admin's word; it goes on by itself. Raises what keeps it from beginning."""
        target = self._require(name)
        async with self._alone(name):
            course = await self._look(target)
            if course.rotation is not None:
                what = "in its grace" if course.rotation.stage == "grace" else f"at the step {course.rotation.stage!r}"
                message = f"{name!r} is being replaced already: it is {what}"
                back = "" if course.rotation.promoted_at is not None else ", or --abandon"
                raise RequestError(message, hint=f"mcp-broker rotate {name} --resume{back}")
            await self._begin(target, course, why="admin", uid=uid)

    async def resume(self, name: str, *, uid: int) -> None:
        """Go on without waiting: neither for a pause nor for the rest of the grace."""
        target = self._require(name)
        async with self._alone(name):
            course, rotation = self._under_way(name)
            await self._audit.record("rotation/resumed", **_facts(target), rotation=rotation.token, uid=uid)
            await self._keep(replace(course, rotation=staged.resumed(rotation)))

    async def abandon(self, name: str, *, uid: int) -> None:
        """Go back to the credential that there was. Raises ``RequestError`` where the new one is current already."""
        target = self._require(name)
        async with self._alone(name):
            course, rotation = self._under_way(name)
            back = staged.abandoned(rotation)
            if back is None:
                message = f"the new {name!r} is in use already, so that there is no way back"
                raise RequestError(message, hint=f"mcp-broker rotate {name} --resume ends the grace")
            await self._audit.record("rotation/abandoning", **_facts(target), rotation=rotation.token, uid=uid)
            await self._keep(replace(course, rotation=back))

    def _under_way(self, name: str) -> tuple[Course, Rotation]:
        course = self.courses.get(name)
        if course is None or course.rotation is None:
            message = f"no rotation of {name!r} is under way"
            raise RequestError(message, hint=f"mcp-broker rotate {name}")
        return course, course.rotation

    @asynccontextmanager
    async def _alone(self, name: str) -> AsyncIterator[None]:
        """Let an admin's word in between two steps; then have what it wants done at once."""
        lock = self._locks[name]
        try:
            async with asyncio.timeout(_LOOK_DEADLINE):
                await lock.acquire()
        except TimeoutError:
            message = f"a step of the rotation of {name!r} is being done"
            raise UnavailableError(message, hint="mcp-broker status, and again in a while") from None
        try:
            yield
        finally:
            lock.release()
        self._held_off.pop(name, None)
        self.tick(self._clock())

    def _require(self, name: str) -> Target:
        target = self.targets.get(name)
        if target is None:
            message = f"nothing in the config says how {name!r} is replaced"
            raise RequestError(message, hint=f'add rotate = {{ with = ["PROGRAM"] }} to [secrets.{name}]')
        return target


def _facts(target: Target) -> dict[str, Any]:
    """Return what every record of a rotation says."""
    if target.secret is None:
        return {"backend": target.backend}
    return {"secret": target.name, "backend": target.backend}
