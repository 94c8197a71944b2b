"""
The options of one backend, read strictly.

A factory asks for each by name and type. It refuses what nobody asked for, and
names the nearest that there is: a misspelt option that is passed over is an
option that somebody believes in.
"""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, final

from backends.base import MisconfiguredError

_PART: Final = re.compile(r"([0-9]{1,9})(d|h|m|s)")
_LENGTH: Final = re.compile(rf"(?:{_PART.pattern})+")
_UNITS: Final[Mapping[str, int]] = MappingProxyType({"d": 86400, "h": 3600, "m": 60, "s": 1})


@final
class Options:
    """What stands in one table of the config."""

    __slots__ = ("_options", "where")

    def __init__(self, where: str, options: Mapping[str, Any], *, known: Sequence[str]) -> None:
        """Take the table called ``where``. Raises ``MisconfiguredError`` for a key that is not ``known``."""
        self.where = where
        self._options = options
        for key in options:
            if key not in known:
                message = f"{where}.{key} is not an option"
                raise MisconfiguredError(message, hint=_nearest(key, known))

    def given(self) -> Sequence[str]:
        """Return the keys that are there."""
        return tuple(self._options)

    def text(self, key: str) -> str:
        """Return a string that is not empty."""
        value = self._options.get(key)
        if not isinstance(value, str) or not value:
            raise self._wrong(key, "a string")
        return value

    def flag(self, key: str) -> bool:
        """Return true or false."""
        value = self._options.get(key)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value

    def number(self, key: str, *, default: int, least: int, most: int) -> int:
        """Return a whole number within bounds."""
        value = self._options.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self._wrong(key, f"a whole number from {least} to {most}")
        return value

    def seconds(self, key: str, *, default: float, least: float, most: float) -> float:
        """Return a length of time: ``"10s"``, ``"5m"``, ``"1h"``, or a number of seconds."""
        value = self._options.get(key, default)
        found = _seconds(value)
        if found is None or not least <= found <= most:
            raise self._wrong(key, f"a length of time from {least:g}s to {most:g}s, such as {default:g}s")
        return found

    def texts(self, key: str) -> Sequence[str]:
        """Return a list of strings, none of them empty; an empty list where there is none."""
        value = self._options.get(key, ())
        if not isinstance(value, (list, tuple)) or not all(isinstance(each, str) and each for each in value):
            raise self._wrong(key, "a list of strings")
        return tuple(value)

    def table(self, key: str) -> Mapping[str, Any]:
        """Return a table; an empty one where there is none."""
        value = self._options.get(key, {})
        if not isinstance(value, Mapping):
            raise self._wrong(key, "a table")
        return value

    def _wrong(self, key: str, expected: str) -> MisconfiguredError:
        # What stands there is not repeated: somebody may have put a value where a name belongs.
        return MisconfiguredError(f"{self.where}.{key} must be {expected}")


def _seconds(value: object) -> float | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str) and _LENGTH.fullmatch(value) and value:
        return sum(int(count) * _UNITS[unit] for count, unit in _PART.findall(value))
    return None


def _nearest(key: str, known: Sequence[str]) -> str:
    # A few milliseconds that only who has misspelt something pays.
    import difflib  # noqa: PLC0415

    close = difflib.get_close_matches(key, known, n=1)
    return f"did you mean {close[0]}?" if close else f"there is {', '.join(known)}"
