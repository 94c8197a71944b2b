"""
A server's table as text, into a file of the config and out of it again.

Pure: text goes in and text comes out, and all that stands around the table stays
as it is, comments and blank lines too. This module refuses to give out a text
that does not mean what it should: it is read again before.
"""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_HEADER: Final = re.compile(r"\s*\[")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """
    A server that is to be in the config.

    Attributes:
        name: as the config will call it.
        command: program and arguments; empty where another server's is taken.
        like: that other server.
        env: variables and the references in them, with their braces.
        files: the same for variables that hold a file's path.
        allow: secrets that it may ask for over the socket.
        selectors: who may start it, where that is said.
        client_args: whether the client's arguments go through.
        kept: secrets that are declared along with it, and the backend of each.

    """

    name: str
    command: Sequence[str] = ()
    like: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    allow: Sequence[str] = ()
    selectors: Sequence[str] = ()
    client_args: bool = False
    kept: Mapping[str, str] = field(default_factory=dict)


def table(wanted: Wanted) -> str:
    """Return what declares a server, and the secrets along with it."""
    lines = []
    for secret, backend in wanted.kept.items():
        lines += [f"[secrets.{_key(secret)}]", f"backend = {_text(backend)}", ""]
    lines.append(f"[servers.{_key(wanted.name)}]")
    if wanted.like is not None:
        lines.append(f"like = {_text(wanted.like)}")
    if wanted.command:
        lines.append(f"command = {_texts(wanted.command)}")
    if wanted.client_args:
        lines.append("client_args = true")
    if wanted.selectors:
        lines.append(f"selectors = {_texts(wanted.selectors)}")
    lines += [f"env.{_key(name)} = {_text(value)}" for name, value in wanted.env.items()]
    lines += [f"files.{_key(name)} = {_text(value)}" for name, value in wanted.files.items()]
    if wanted.allow:
        lines.append(f"allow = {_texts(wanted.allow)}")
    return "\n".join(lines) + "\n"


def added(text: str, wanted: Wanted) -> str:
    """Return the text of a file with a server at its end."""
    gap = "" if not text.strip() else "\n" if text.endswith("\n") else "\n\n"
    return f"{text}{gap}{table(wanted)}"


def removed(text: str, paths: Sequence[tuple[str, str]]) -> str | None:
    """
    Return the text of a file without some tables, such as ``("servers", "github")``.

    None where they are written in a way that cannot be cut out safely, as inside
    of another table's braces.
    """
    before = tomllib.loads(text)
    lines: list[str] = []
    waiting: list[str] = []  # comments and blanks: they belong to what comes below them
    gone = False
    for line in text.splitlines(keepends=True):
        if _HEADER.match(line) and (path := _path_of(line)) is not None:
            gone = path[:2] in paths
            if not gone:
                lines += waiting
            waiting = []
        if gone and (not line.strip() or line.lstrip().startswith("#")):
            waiting.append(line)
        elif gone:
            waiting = []
        else:
            lines.append(line)
    after = "".join([*lines, *waiting]).rstrip()
    after = f"{after}\n" if after else ""
    try:
        same = tomllib.loads(after) == _without(before, paths)
    except tomllib.TOMLDecodeError:
        same = False
    return after if same else None


def is_bare(text: str) -> bool:
    """Return whether nothing is said in a file: it is empty, or all comments."""
    return not tomllib.loads(text)


def _path_of(line: str) -> tuple[str, ...] | None:
    """Return what a table's header names; None where the line is none."""
    try:
        inner: Any = tomllib.loads(line)
    except tomllib.TOMLDecodeError:
        return None
    found: list[str] = []
    while isinstance(inner, dict) and len(inner) == 1:
        ((name, inner),) = inner.items()
        found.append(name)
    return tuple(found)


def _without(rows: Mapping[str, Any], paths: Sequence[tuple[str, str]]) -> dict[str, Any]:
    kept = {}
    for section, inside in rows.items():
        if isinstance(inside, dict) and any(path[0] == section for path in paths):
            rest = {name: one for name, one in inside.items() if (section, name) not in paths}
            if rest:
                kept[section] = rest
        else:
            kept[section] = inside
    return kept


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _text(name)


def _text(value: str) -> str:
    # JSON's strings are TOML's, but that TOML wants DEL spelled out, too.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _texts(values: Sequence[str]) -> str:
    return f"[{', '.join(_text(value) for value in values)}]"
