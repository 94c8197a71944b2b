"""
What needs a person, and how often that person is told of it.

An alarm that is raised again and again is told once and then counted, so that
whoever reads them goes on reading. This module refuses to send anything.
"""

from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

HOUR: Final = 3600.0

_REMEMBERED: Final = 1024
"""Different alarms of which it is remembered when they were told last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """
    One thing that needs a person.

    Attributes:
        kind: stable, for programs: ``rotation-failed``, ``chain-broken``.
        text: for the person: lower case, no full stop, never a value.
        facts: names and what they are: ``secret``, ``backend``. Never a value.
        at: when it was raised (Unix seconds).
        before: how often the same was raised since it was told last, and not told.

    """

    kind: str
    text: str
    facts: Mapping[str, str]
    at: float
    before: int = 0


@dataclass(slots=True, kw_only=True)
class Pacing:
    """
    Decides which alarms are told.

    Attributes:
        again: seconds before the same (kind and facts) is told again.
        most: how many are told in an hour, whatever they are.

    """

    again: float
    most: int
    _told: OrderedDict[tuple[str, frozenset[tuple[str, str]]], float] = field(default_factory=OrderedDict)
    _held: dict[tuple[str, frozenset[tuple[str, str]]], int] = field(default_factory=dict)
    _lately: deque[float] = field(default_factory=deque)

    def offer(self, now: float, kind: str, text: str, facts: Mapping[str, str]) -> Alarm | None:
        """Return the alarm if it is to be told now; else count it."""
        key = (kind, frozenset(facts.items()))
        while self._lately and self._lately[0] <= now - HOUR:
            self._lately.popleft()
        last = self._told.get(key)
        if (last is not None and 0 <= now - last < self.again) or len(self._lately) >= self.most:
            self._held[key] = self._held.get(key, 0) + 1
            if len(self._held) > _REMEMBERED:
                del self._held[next(iter(self._held))]
            return None
        self._told[key] = now
        self._told.move_to_end(key)
        if len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)
        self._lately.append(now)
        return Alarm(kind=kind, text=text, facts=facts, at=now, before=self._held.pop(key, 0))
