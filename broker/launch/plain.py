"""
JSON in as little time as can be.

The standard library's scanner is in C, but the module around it imports ``re``
and ``enum``, which takes longer than all the rest of a start. This module
refuses to be a JSON library: it reads one value and writes one string.
"""

import _json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

quoted = _json.encode_basestring_ascii
"""Write a string as JSON, in ASCII."""


class Number(str):
    """A number as it was written, so that an ``id`` goes back exactly as it came."""

    __slots__ = ()


class _Reading:
    """How the scanner reads what JSON leaves open."""

    strict = False
    object_hook = None
    object_pairs_hook = None
    parse_int = Number
    parse_float = Number
    parse_constant = Number


def decoded(line: str) -> "Any":  # noqa: ANN401 - it is whatever was sent
    """
    Read one JSON value; numbers stay as they were written.

    Raises:
        ValueError: it is none.
        RecursionError: it is nested deeper than Python goes.

    """
    try:
        value, _ = _json.make_scanner(_Reading)(line.strip(), 0)  # type: ignore[arg-type]  # any class with these names
    except (StopIteration, SystemError):
        # Where the module json was never imported, the scanner does not find its own error and has none to raise.
        message = "not a JSON value"
        raise ValueError(message) from None
    return value


def flattened(line: str) -> str:
    """
    Return a message with ``null`` in place of what its members, or those of a batch's, are made of.

    For what is nested deeper than Python goes: an id never is.

    Raises:
        ValueError: a string in it has no end.

    """
    deepest = 3 if line.lstrip().startswith("[") else 2
    kept: list[str] = []
    depth = at = 0
    while at < len(line):
        letter, end = line[at], at + 1
        if letter == '"':
            _, end = _json.scanstring(line, end, False)  # noqa: FBT003 - positional in C
        elif letter in "{[":
            depth += 1
            if depth == deepest:
                kept.append("null")
        if depth < deepest:
            kept.append(line[at:end])
        if letter in "}]":
            depth -= 1
        at = end
    return "".join(kept)
