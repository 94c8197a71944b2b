"""
Noes: recorded, counted where they storm, and kept for ``status`` to show.

A caller in system mode learns that it was denied and nothing else, whether
what it asked for exists or not; the admin learns why from ``explain``. In user
mode the caller is the admin and gets the reason.
"""

import math
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from broker.audit import AuditLog
from broker.core.model import Workload
from broker.core.policy import Ask, Refused
from broker.core.storm import Storm
from broker.errors import BrokerError, DeniedError
from broker.paths import Mode

KEPT: Final = 256
"""Refusals that ``status`` can show, the latest."""

KEPT_OF_ONE: Final = 64
"""Of these, the most that one uid may have."""

KEPT_FOR: Final = 86400.0
"""Seconds that they are shown."""

_LONGEST_NAME: Final = 128

NOBODY: Final = 0xFFFFFFFF
"""The uid that counts for those whom the kernel does not name; no user has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatestRefusal:
    """One kind of refusal: when it last happened, to whom, why, whether the policy said so, and how often."""

    at: float
    workload: Workload
    ask: Ask
    code: str
    reason: str
    hint: str | None
    by_policy: bool
    count: int


class Refusals:
    """Remembers who was refused what."""

    def __init__(self, *, mode: Mode, audit: AuditLog, clock: Callable[[], float] = time.time) -> None:
        """Begin with none."""
        self._mode = mode
        self._audit = audit
        self._clock = clock
        self.counts: Counter[str] = Counter()
        """How many there were since the start, by their code."""
        self._storm = Storm()
        self._guesses = Storm()
        """Denials of names that no config has: whoever makes up names must not hide who asks for real ones."""
        self._latest: OrderedDict[tuple[int, Ask, str], LatestRefusal] = OrderedDict()

    def refuse(self, workload: Workload, ask: Ask, refused: Refused) -> DeniedError:
        """Record a no of the policy and return it as the error that this caller may see."""
        self.noted(workload, ask, refused, code="denied", reason=refused.reason, hint=refused.hint)
        if self._mode == "system":
            return DeniedError("denied", hint="ask the admin: mcp-broker explain --last")
        return DeniedError(refused.reason, hint=refused.hint)

    def noted(
        self,
        workload: Workload,
        ask: Ask,
        refused: Refused | None = None,
        *,
        code: str,
        reason: str,
        hint: str | None = None,
    ) -> None:
        """Record that a workload did not get what it asked for."""
        self.counts[code] += 1
        now = self._clock()
        asked = Ask(server=_cut(ask.server), secret=_cut(ask.secret))
        key = (workload.uid, asked, code)
        before = self._latest.pop(key, None)
        self._latest[key] = LatestRefusal(
            at=now,
            workload=workload,
            ask=asked,
            code=code,
            reason=reason,
            hint=hint,
            by_policy=refused is not None,
            count=1 if before is None else before.count + 1,
        )
        self._forget_one_of(workload.uid)
        storm = self._guesses if refused is not None and not refused.known else self._storm
        if storm.offer(now, workload.uid, code):
            rule = None if refused is None else refused.rule
            facts = {"server": asked.server, "secret": asked.secret, "unit": workload.unit, "rule": rule}
            self._audit.note(
                _event(code),
                uid=workload.uid,
                gid=workload.gid,
                pid=workload.process.pid,
                start=workload.process.start,
                code=code,
                reason=reason,
                **{name: value for name, value in facts.items() if value is not None},
            )

    def _forget_one_of(self, uid: int) -> None:
        """Keep each uid to its share of what is shown, and all of them to the whole."""
        own = [key for key in self._latest if key[0] == uid]
        if len(own) > KEPT_OF_ONE:
            del self._latest[own[0]]
        elif len(self._latest) > KEPT:
            self._latest.popitem(last=False)

    def unattested(self, workload: Workload | None, error: BrokerError) -> None:
        """Record that a connection was turned away before it asked anything."""
        if workload is not None:
            self.noted(workload, Ask(), code=error.code, reason=error.message, hint=error.hint)
        elif self._storm.offer(self._clock(), NOBODY, error.code):
            self._audit.note("connection/refused", code=error.code, reason=error.message)

    def tick(self, now: float) -> None:
        """Write the counts of what was too much to be written one by one, and forget what is old."""
        for counted in (*self._storm.due(now), *self._guesses.due(now)):
            self._audit.note(
                _event(counted.code),
                uid=counted.uid,
                code=counted.code,
                count=counted.count,
                first=counted.first,
                last=counted.last,
            )
        while self._latest and next(iter(self._latest.values())).at < now - KEPT_FOR:
            self._latest.popitem(last=False)

    def close(self) -> None:
        """Write every count that has no record yet: the broker ends."""
        self.tick(math.inf)

    def latest(self) -> list[LatestRefusal]:
        """Return what was refused, the latest first."""
        return list(reversed(self._latest.values()))

    def shown(self, most: int) -> list[LatestRefusal]:
        """Return so many of them at most, the latest first: each uid's latest, then each one's second, and so on."""
        seen: Counter[int] = Counter()
        ranked = list[tuple[int, int, LatestRefusal]]()
        for place, each in enumerate(self.latest()):
            ranked.append((seen[each.workload.uid], place, each))
            seen[each.workload.uid] += 1
        ranked.sort(key=lambda one: one[:2])
        return [each for _, _, each in sorted(ranked[:most], key=lambda one: one[1])]


def _cut(name: str | None) -> str | None:
    """Return a name that cannot grow the log: a client may send any."""
    return name if name is None else name[:_LONGEST_NAME]


def _event(code: str) -> str:
    """Return the event of a refusal: a denial is the policy's, anything else is not."""
    return "credential/denied" if code == "denied" else "credential/refused"
