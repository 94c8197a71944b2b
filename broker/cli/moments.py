"""
Times, as people say them.

This module refuses to know what time it is, except where nobody says.
"""

from datetime import UTC, datetime

import click

_STEPS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def read(text: str) -> datetime:
    """Return the moment of an answer of the broker, which is RFC 3339."""
    return datetime.fromisoformat(text)


def distance(seconds: float) -> str:
    """Return a length of time in its largest unit: ``3 hours``."""
    for step, unit in _STEPS:
        count = round(seconds / step) if seconds >= step else 0
        if count:
            return f"{count} {unit}" + ("s" if count > 1 else "")
    return "a moment"


def relative(text: str | None, *, now: datetime | None = None) -> str:
    """Return a moment as its distance from now: ``3 hours ago``, ``in 5 minutes``."""
    if text is None:
        return "-"
    seconds = (read(text) - (now or datetime.now(UTC))).total_seconds()
    return f"in {distance(seconds)}" if seconds > 0 else f"{distance(-seconds)} ago"


def local(text: str) -> str:
    """Return a moment as a clock on the wall shows it."""
    return read(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")


class Moment(click.ParamType[float]):
    """A moment on the command line: a time, or how long ago. Unix seconds."""

    name = "WHEN"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it, or fail with what would do."""
        if isinstance(value, float):
            return value
        from broker.config import duration  # noqa: PLC0415 - all of the config comes along

        try:
            return datetime.now(UTC).timestamp() - duration.seconds(str(value))
        except ValueError:
            pass
        try:
            return datetime.fromisoformat(str(value)).astimezone().timestamp()
        except ValueError:
            return self.fail("write how long ago, as in 2h or 7d, or a time, as in 2026-11-23T09:00", param, ctx)
