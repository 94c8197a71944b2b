"""
Which verb a method and a path mean.

Built once from the table of verbs. It refuses to normalise: a path is what
stands in the request, cut at its slashes, and each part is decoded alone, so
that an encoded slash never becomes a border.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

from broker.api.verbs import Verb

_MOST_PARTS: Final = 16
_MOST_KNOWN: Final = 1024
"""Paths whose meaning is remembered: a client asks for the same few again and again."""


@dataclass(frozen=True, slots=True)
class Found:
    """The verb that was meant, and the parameters that stood in the path."""

    verb: Verb
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class WrongMethod:
    """There is something at this path, for other methods."""

    allowed: tuple[str, ...]


@dataclass(slots=True)
class _Place:
    """One position in a path: what may follow it, and what it means if nothing does."""

    exact: dict[str, "_Place"] = field(default_factory=dict)
    other: "_Place | None" = None
    verbs: dict[str, tuple[Verb, tuple[str, ...]]] = field(default_factory=dict)

    def after(self, part: str) -> "_Place":
        """Return the place that ``part`` of a pattern leads to; make it where it is new."""
        if not part.startswith("{"):
            return self.exact.setdefault(part, _Place())
        if self.other is None:
            self.other = _Place()
        return self.other


class Routes:
    """Finds verbs by method and path."""

    def __init__(self, verbs: Iterable[Verb]) -> None:
        """Take the verbs that the HTTP dialect knows."""
        self._root = _Place()
        self._known: dict[tuple[str, str], Found] = {}
        for verb in verbs:
            if verb.http is None:
                continue
            method, path = verb.http
            parts = path.split("/")
            place = self._root
            for part in parts:
                place = place.after(part)
            place.verbs[method] = verb, tuple(part[1:-1] for part in parts if part.startswith("{"))

    def find(self, method: str, path: str) -> Found | WrongMethod | None:
        """Return what a request line means, or None where there is nothing at this path."""
        found = self._known.get((method, path)) or self._look(method, path)
        if isinstance(found, Found):
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[method, path] = found
        return found

    def _look(self, method: str, path: str) -> Found | WrongMethod | None:
        parts = [unquote(part) if "%" in part else part for part in path.split("/")]
        allowed: set[str] = set()
        for place, values in _matching(self._root, parts) if len(parts) <= _MOST_PARTS else ():
            if (known := place.verbs.get(method)) is not None:
                verb, names = known
                return Found(verb, dict(zip(names, values, strict=True)))
            allowed.update(place.verbs)
        return WrongMethod(tuple(sorted(allowed))) if allowed else None


def _matching(root: _Place, parts: list[str]) -> list[tuple[_Place, tuple[str, ...]]]:
    """Return every place that the parts lead to; what is named exactly comes before what stands for any."""
    here: list[tuple[_Place, tuple[str, ...]]] = [(root, ())]
    for part in parts:
        there = []
        for place, values in here:
            if (exact := place.exact.get(part)) is not None:
                there.append((exact, values))
            if place.other is not None and part:
                there.append((place.other, (*values, part)))
        here = there
    return here
