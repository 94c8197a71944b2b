"""
Lengths of time, as people write them: ``90s``, ``10m``, ``1h30m``, ``30d``.

This module refuses what could mean two things, such as a number in quotes
without a unit.
"""

import math
import re
from typing import Final

MAXIMUM: Final = 10 * 365 * 86400.0
"""Ten years in seconds: more is a mistake, and dates would overflow sooner or later."""

_UNITS: Final = {"w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1}
_TEXT: Final = re.compile(
    r"(?:(?P<w>[0-9]{1,9})w)?(?:(?P<d>[0-9]{1,9})d)?(?:(?P<h>[0-9]{1,9})h)?(?:(?P<m>[0-9]{1,9})m)?"
    r"(?:(?P<s>[0-9]{1,9}(?:\.[0-9]{1,6})?)s)?"
)


def seconds(length: object) -> float:
    """
    Return a length of time in seconds.

    Args:
        length: text such as ``"1h30m"``, or a number of seconds.

    Raises:
        ValueError: it is neither, is negative, or is longer than ten years. The message never quotes it.

    """
    match length:
        case bool():
            result = math.nan
        case int() | float():
            # A whole number from a file can be too large for a float.
            result = float(length) if abs(length) <= MAXIMUM else math.inf
        case str():
            result = _parse(length)
        case _:
            result = math.nan
    if math.isnan(result):
        message = "not a length of time: write 90s, 10m, 1h30m, 30d, or a number of seconds"
        raise ValueError(message)
    if not 0 <= result <= MAXIMUM:
        message = "a length of time must be between 0 and ten years"
        raise ValueError(message)
    return result


def text(length: float) -> str:
    """Return a length of time in seconds as people write it; ``seconds`` reads it back."""
    whole, fraction = divmod(round(length * 1_000_000), 1_000_000)
    words = []
    for unit in ("d", "h", "m"):
        count, whole = divmod(whole, _UNITS[unit])
        if count:
            words.append(f"{count}{unit}")
    if fraction:
        words.append(f"{whole}.{fraction:06d}".rstrip("0") + "s")
    elif whole or not words:
        words.append(f"{whole}s")
    return "".join(words)


def _parse(written: str) -> float:
    match = _TEXT.fullmatch(written)
    if not match or not written:
        return math.nan
    length = math.fsum(float(number) * _UNITS[unit] for unit, number in match.groupdict().items() if number)
    return round(length, 6)
