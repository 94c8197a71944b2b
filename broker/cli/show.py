"""
What the commands print: tables and JSON, for a terminal or for a pipe.

On a terminal rich draws them; in a pipe they are plain columns that need no
library. This module refuses to let what is printed command the terminal.
"""

import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click

if TYPE_CHECKING:
    from rich.console import Console


class Cell(NamedTuple):
    """Some text and how it is drawn on a terminal: ``bold``, ``red``, ``dim``."""

    text: str
    style: str = ""


def safe(text: object) -> str:
    """Return text in which every character that a terminal would obey is spelled out."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in str(text))


def as_json(value: object) -> None:
    """Print JSON, laid out to be read."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def line(*cells: Cell | str, err: bool = False) -> None:
    """Print one line of several pieces."""
    pieces = [_cell(each) for each in cells]
    if _is_plain(err=err):
        click.echo("".join(safe(each.text) for each in pieces).rstrip(), err=err)
        return
    from rich.text import Text  # noqa: PLC0415 - only a terminal needs it

    _console(err=err).print(Text.assemble(*((safe(each.text), each.style) for each in pieces)), soft_wrap=True)


def table(columns: Sequence[str], rows: Sequence[Sequence[Cell | str]], *, empty: str) -> None:
    """Print a table, or ``empty`` where there are no rows."""
    if not rows:
        line(Cell(empty, "dim"))
        return
    cells = [[_cell(each) for each in row] for row in rows]
    if _is_plain(err=False):
        _columns([[Cell(name) for name in columns], *cells])
        return
    from rich.table import Table  # noqa: PLC0415 - only a terminal needs it
    from rich.text import Text  # noqa: PLC0415

    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        drawn.add_column(name, overflow="fold")
    for row in cells:
        drawn.add_row(*(Text(safe(each.text), each.style) for each in row))
    _console(err=False).print(drawn)


def _columns(rows: Sequence[Sequence[Cell]]) -> None:
    head, *body = rows
    texts = [[each.text for each in head], *([safe(each.text) or "-" for each in row] for row in body)]
    widths = [max(len(row[number]) for row in texts) for number in range(len(texts[0]))]
    for row in texts:
        click.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _cell(value: Cell | str) -> Cell:
    return value if isinstance(value, Cell) else Cell(value)


def is_terminal() -> bool:
    """Return whether somebody looks on."""
    return not _is_plain(err=False)


def is_asked() -> bool:
    """Return whether somebody sits at stdin who can be asked."""
    return sys.stdin is not None and sys.stdin.isatty()


def _is_plain(*, err: bool) -> bool:
    stream = sys.stderr if err else sys.stdout
    return not stream.isatty() or os.environ.get("TERM") == "dumb"


def _console(*, err: bool) -> "Console":
    from rich.console import Console  # noqa: PLC0415 - only a terminal needs it

    return Console(stderr=err, highlight=False, markup=False, emoji=False)


def fields(record: dict[str, Any], names: Sequence[str]) -> str:
    """Return some fields of a record as ``name=value``, those that it has."""
    return " ".join(f"{name}={record[name]}" for name in names if record.get(name) not in (None, "", []))
