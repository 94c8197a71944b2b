"""
What is counted and timed, and how Prometheus reads it.

Counting is a number in a dict, so that the way of a credential does not notice.
This module refuses to know the time, and a name that could be a value: labels
are names of verbs, events, codes, secrets, backends and sinks.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

BOUNDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Seconds."""

TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""The content type of what ``text`` returns."""

PREFIX: Final = "mcp_broker_"


@dataclass(slots=True)
class Histogram:
    """How long something took, in seconds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    total: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one more."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds


@dataclass(slots=True)
class Timings:
    """How long each verb took."""

    of: dict[str, Histogram] = field(default_factory=dict)

    def add(self, name: str, seconds: float) -> None:
        """Count one more."""
        found = self.of.get(name)
        if found is None:
            found = self.of[name] = Histogram()
        found.add(seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """
    One family.

    Attributes:
        name: without the prefix.
        kind: ``counter`` or ``gauge``.
        about: what it is, in a sentence.
        values: label names and values, and the number.

    """

    name: str
    kind: str
    about: str
    values: Iterable[tuple[Mapping[str, str], float]]


def text(metrics: Iterable[Metric], timings: Timings) -> str:
    """Return the text format of Prometheus, version 0.0.4."""
    return "\n".join([*_families(metrics), *_timings(timings), ""])


def _families(metrics: Iterable[Metric]) -> Iterator[str]:
    for metric in metrics:
        name = PREFIX + metric.name
        yield f"# HELP {name} {metric.about}"
        yield f"# TYPE {name} {metric.kind}"
        for labels, value in metric.values:
            yield f"{name}{_labels(labels)} {_number(value)}"


def _timings(timings: Timings) -> Iterator[str]:
    name = f"{PREFIX}request_seconds"
    yield f"# HELP {name} How long requests took, from when they were read to their answer."
    yield f"# TYPE {name} histogram"
    for verb, found in sorted(timings.of.items()):
        seen = 0
        for bound, count in zip((*BOUNDS, float("inf")), found.counts, strict=True):
            seen += count
            yield f"{name}_bucket{_labels({'verb': verb, 'le': _number(bound)})} {seen}"
        yield f"{name}_sum{_labels({'verb': verb})} {_number(found.total)}"
        yield f"{name}_count{_labels({'verb': verb})} {seen}"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    if value == float("inf"):
        return "+Inf"
    return str(int(value)) if value == int(value) else repr(round(value, 6))
