"""
What is wrong with a config: everything that was found, and where it stands.

This module refuses to quote a value: what stands in a config by mistake may be
a credential that somebody pasted. It names files, lines and keys.
"""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from broker.errors import ConfigError

KeyPath = tuple[str | int, ...]
"""Where something stands in a file: names of tables and keys, numbers of array elements."""

MOST: Final = 20
"""How many problems are worth reading at once; the rest shows once these are mended."""

_BARE: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
_LONGEST_COMPARED: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """A line of a file, counted from 1; line 0 is the file as a whole."""

    file: Path
    line: int = 0

    def __str__(self) -> str:
        """Return ``file:line``, fit to be printed whatever the file is called."""
        name = os.fsencode(self.file).decode("utf-8", "replace")
        return f"{name}:{self.line}" if self.line else name


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """
    One thing that is wrong.

    Attributes:
        where: file and line.
        key: the key in question, dotted; empty where it is the whole file.
        text: what is wrong, in lower case, without a full stop.
        hint: what mends it, or None.

    """

    where: Location
    key: str
    text: str
    hint: str | None = None

    def __str__(self) -> str:
        """Return file, line, key and what is wrong, on one line."""
        return f"{self.where}: {self.key}: {self.text}" if self.key else f"{self.where}: {self.text}"


class WrongTextError(ValueError):
    """
    A piece of text in the config does not mean anything; who knows where it stands makes a problem of it.

    Attributes:
        message: what is wrong; never the text itself.
        hint: what mends it.

    """

    def __init__(self, message: str, *, hint: str) -> None:
        """Say what is wrong and what mends it."""
        super().__init__(message)
        self.message = message
        self.hint = hint


class InvalidConfigError(ConfigError):
    """
    The config has these problems, in the order in which they stand there.

    Attributes:
        problems: each of them, for programs.

    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        """Put all problems into one message; a single one keeps its hint apart."""
        self.problems = tuple(problems)
        if len(self.problems) == 1:
            super().__init__(str(self.problems[0]), hint=self.problems[0].hint)
        else:
            super().__init__("\n".join(_lines(self.problems)))


class Problems:
    """The problems found so far."""

    __slots__ = ("_found",)

    def __init__(self) -> None:
        """Begin with none."""
        self._found: list[Problem] = []

    def add(self, problem: Problem) -> None:
        """
        Keep a problem.

        Raises:
            InvalidConfigError: there are as many now as anybody wants to read at once.

        """
        self._found.append(problem)
        if len(self._found) >= MOST:
            self.settle()

    def settle(self) -> None:
        """Raise ``InvalidConfigError`` if there are any, in the order in which they stand in the files."""
        if self._found:
            raise InvalidConfigError(sorted(self._found, key=_place))


def dotted(path: KeyPath) -> str:
    """Return the key as one would write it: ``servers.app.selectors[1]``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{_key(part)}" if text else _key(part)
    return text


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that was probably meant, or None."""
    import difflib  # noqa: PLC0415 - only a config with a mistake in it pays for this

    if len(name) > _LONGEST_COMPARED:
        return None
    by_lower = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else None


def meant(name: str, known: Iterable[str]) -> str:
    """Return the end of a sentence that names the nearest known name, or nothing."""
    near = nearest(name, known)
    return "" if near is None else f', the nearest known one is "{near}"'


def _place(problem: Problem) -> tuple[str, int]:
    return str(problem.where.file), problem.where.line


def _key(part: str) -> str:
    if _BARE.fullmatch(part):
        return part
    # A key can hold anything, terminal commands included, and be as long as the file.
    return ascii(part[:_LONGEST_COMPARED])


def _lines(problems: Sequence[Problem]) -> Iterable[str]:
    yield f"{len(problems)} problems" if len(problems) < MOST else f"the first {MOST} problems"
    for problem in problems:
        yield str(problem)
        if problem.hint:
            yield f"  hint: {problem.hint}"
