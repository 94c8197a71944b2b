"""
One figure: what came out, and what should.
"""

import statistics
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that was measured: what came out, from least to most, and what it should be."""

    name: str
    unit: str
    values: list[float]
    wanted: float
    at_least: bool
    note: str = ""

    @property
    def median(self) -> float:
        """Return the middle one."""
        return statistics.median(self.values)

    @property
    def reached(self) -> bool:
        """Return whether the median is as good as it should be."""
        return self.median >= self.wanted if self.at_least else self.median <= self.wanted
