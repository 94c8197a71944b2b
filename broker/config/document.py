"""
One config file as TOML: its tables, and the line of everything in them.

This module refuses to pass on what ``tomllib`` quotes: where a file is broken,
a piece of it may be a credential that somebody pasted.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from broker.config.layout import DEEPEST, Layout, scan
from broker.config.problems import InvalidConfigError, KeyPath, Location, Problem

_POSITION: Final = re.compile(r"\(at line ([0-9]+), column ([0-9]+)\)\Z")

_WORDS: Final = (
    ("Invalid statement", "neither a [table], nor a key = value, nor a # comment"),
    ("Invalid initial character for a key part", "a key must be letters, digits, - and _, or stand in quotes"),
    ("Expected '=' after a key", "a key without = and a value behind it"),
    ("Expected ']", "a table's name must end with ]"),
    ("Expected newline or end of document", "something more behind a value; is a quote or a comma missing"),
    ("Invalid value", "no TOML value; text needs quotes"),
    ("Invalid date", "no such date or time"),
    ("Cannot declare", "this table stands in the file before"),
    ("Cannot overwrite", "this key stands in the file before"),
    ("Cannot redefine", "this table stands in the file before"),
    ("Cannot mutate", "what stands in { } or [ ] cannot be added to later"),
    ("Duplicate inline table key", "this key stands in the same { } before"),
    ("Unclosed array", "an array without its ]"),
    ("Unclosed inline table", "an inline table without its }; in TOML 1.0 it must stand on one line"),
    ("Unescaped", "a backslash that is no escape; write \\\\ or use 'single quotes'"),
    ("Invalid hex", "no hexadecimal digits behind \\u or \\U"),
    ("Escaped character", "no character has this number"),
    ("Unterminated string", "text without its closing quote"),
    ("Illegal character", "a character that may not stand there; is a quote missing before the end of the line"),
    ("Found invalid character", "a character that may not stand there"),
    ("Expected", "something is missing there"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """
    One file.

    Attributes:
        file: its path.
        rows: its top-level table, as ``tomllib`` makes it.
        layout: the lines of everything.

    """

    file: Path
    rows: Mapping[str, object]
    layout: Layout

    def where(self, path: KeyPath) -> Location:
        """Return the place of a table or key."""
        return Location(file=self.file, line=self.layout.line(path))


def parse(text: str, file: Path) -> Document:
    """
    Read a file's text.

    Raises:
        InvalidConfigError: it is no TOML, or more deeply nested than any config.

    """
    layout = scan(text)
    if layout.deep is not None:
        raise _refusal(file, layout.deep, f"nested more than {DEEPEST} levels deep")
    # Raised behind the handlers, so that no cause or context travels along: tomllib's errors hold the whole text.
    try:
        return Document(file=file, rows=tomllib.loads(text), layout=layout)
    except tomllib.TOMLDecodeError as error:
        line, words = _explained(str(error), text)
    except (ValueError, OverflowError):
        line, words = 0, "a number with too many digits"
    except RecursionError:
        line, words = 0, "nested too deeply"
    raise _refusal(file, line, words)


def _explained(message: str, text: str) -> tuple[int, str]:
    """Return the line of a syntax error, and what is wrong in our words, with the column."""
    position = _POSITION.search(message)
    words = next((ours for theirs, ours in _WORDS if message.startswith(theirs)), "not valid TOML")
    if position is None:
        return text.rstrip("\n").count("\n") + 1, f"{words} (at the end of the file)"
    return int(position[1]), f"{words} (column {position[2]})"


def _refusal(file: Path, line: int, text: str) -> InvalidConfigError:
    hint = f"sed -n {line}p {file}" if line else None
    return InvalidConfigError([Problem(where=Location(file=file, line=line), key="", text=text, hint=hint)])
