"""
Which line each key of a TOML file stands on, which ``tomllib`` does not tell.

This module refuses to judge: text that is no TOML gets lines as far as they
make sense and never an error. It reads in one pass without recursion, so it
also says first when something is nested too deeply for ``tomllib``.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from broker.config.problems import KeyPath

DEEPEST: Final = 32
"""Parts of a key path and open brackets: ``tomllib`` recurses on the one and takes quadratic time on the other."""

_TOKEN: Final = re.compile(
    r"""
      [ \t\r]*+
      (?: \#[^\n]*+ )?
      (?:
        (?P<end> \n )
      | (?P<long> \"{3} (?: \\. | [^\\] )*? \"{3,5} | '{3} .*? '{3,5} )
      | (?P<open> \"{3} | '{3} )
      | (?P<word> \"(?: \\. | [^"\\\n] )*+\" | '[^'\n]*+' | [A-Za-z0-9_-]++ )
      | (?P<mark> [\[\]{}=,.] )
      | (?P<other> ["'][^\n]*+ | . )
      )
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """
    Where things stand in one file.

    Attributes:
        lines: for every table, key and array element, the line where it first stands, counted from 1.
        deep: the first line on which something is nested too deeply; None where nothing is.

    """

    lines: Mapping[KeyPath, int]
    deep: int | None = None

    def line(self, path: KeyPath) -> int:
        """Return the line of ``path``, or of the nearest thing around it; 0 where there is none."""
        while path:
            found = self.lines.get(path)
            if found is not None:
                return found
            path = path[:-1]
        return 0


def scan(text: str) -> Layout:
    """Return where everything stands in ``text``."""
    scanner = _Scanner()
    for token in _TOKEN.finditer(text):
        kind = token.lastgroup
        if kind == "open":
            break  # A string without an end: nothing behind it means anything.
        scanner.take(kind, token[kind] if kind else "")
        if scanner.deep is not None:
            break
    return Layout(lines=scanner.lines, deep=scanner.deep)


@dataclass(slots=True)
class _Open:
    """An open bracket: of an inline table where ``index`` is None, else of an array."""

    path: KeyPath
    index: int | None = None


@dataclass(slots=True)
class _Scanner:
    """
    What the text so far has led to.

    Attributes:
        table: the path of the last ``[header]``.
        brackets: open brackets of the value that is being read.
        parts: of the key or header that is being read.
        place: ``key``, ``header`` or ``value``: what is being read.

    """

    lines: dict[KeyPath, int] = field(default_factory=dict)
    deep: int | None = None
    line: int = 1
    table: KeyPath = ()
    brackets: list[_Open] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    place: str = "key"
    path: KeyPath = ()

    def take(self, kind: str | None, text: str) -> None:
        """Go on by one token."""
        if kind == "end":
            self._end_line()
        elif self.place == "value":
            self._in_value(kind, text)
        elif kind == "word":
            self.parts.append(_plain(text))
            self._measure(len(self.parts))
        elif self.place == "header":
            if text == "]":
                self.table = tuple(self.parts)
                self._record(self.table)
        else:
            self._in_key(text)
        if kind == "long":
            self.line += text.count("\n")

    def _end_line(self) -> None:
        self.line += 1
        if not self.brackets:
            self.place = "key"
            self.parts.clear()

    def _in_key(self, mark: str) -> None:
        match mark:
            case "=":
                base = self.brackets[-1].path if self.brackets else self.table
                self.path = base + tuple(self.parts)
                self._record(self.path)
                self.place = "value"
            case "[" if not self.brackets and not self.parts:
                self.place = "header"
            case "}":
                self._close()

    def _in_value(self, kind: str | None, text: str) -> None:
        inner = self.brackets[-1] if self.brackets else None
        if inner is not None and inner.index is not None and (kind != "mark" or text in "[{"):
            self.path = (*inner.path, inner.index)
            self.lines.setdefault(self.path, self.line)
        if kind != "mark":
            return
        match text:
            case "[":
                self._open(_Open(self.path, 0))
            case "{":
                self._open(_Open(self.path))
                self._expect_key()
            case "]" | "}":
                self._close()
            case "," if inner is not None:
                if inner.index is None:
                    self._expect_key()
                else:
                    inner.index += 1

    def _open(self, bracket: _Open) -> None:
        self.brackets.append(bracket)
        self._measure(len(self.brackets))

    def _close(self) -> None:
        if self.brackets:
            self.brackets.pop()
        self.place = "value"

    def _expect_key(self) -> None:
        self.place = "key"
        self.parts.clear()

    def _record(self, path: KeyPath) -> None:
        self._measure(len(path))
        for length in range(1, min(len(path), DEEPEST) + 1):
            self.lines.setdefault(path[:length], self.line)

    def _measure(self, depth: int) -> None:
        if depth > DEEPEST and self.deep is None:
            self.deep = self.line


def _plain(word: str) -> str:
    """Return a key without its quotes."""
    if word[0] == "'":
        return word[1:-1]
    if word[0] != '"':
        return word
    if "\\" not in word:
        return word[1:-1]
    try:
        return str(tomllib.loads(f"key = {word}")["key"])
    except ValueError:
        return word[1:-1]
