"""
Where ``secret set`` takes values from: the terminal without echo, stdin, a file; never the command line.

What stands on a command line is in the shell's history and in the list of
processes. This module refuses it, and does not repeat it.
"""

import getpass
import json
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import click

from broker.config.plaintext import looks_secret
from broker.errors import RequestError

ONE: Final = "value"
"""What a secret with one field calls it."""

_TERMINAL_LINE: Final = 4095
"""Bytes that a terminal hands over of one line; the rest of a longer one is lost (termios(3), MAX_CANON)."""


def refuse_values(name: str, fields: Sequence[str]) -> None:
    """
    Refuse a value among the arguments.

    Raises:
        RequestError: there is one, or what looks like one.

    """
    if "=" in name or any("=" in field or looks_secret(field) for field in fields):
        message = "a value does not belong on the command line: it is now in your shell's history, and ps showed it"
        safe = name.partition("=")[0]
        hint = f"take it out of the history, replace it where it came from, then: mcp-broker secret set {safe}"
        raise RequestError(message, hint=hint)


def from_json() -> dict[str, str]:
    """Return the fields of a JSON object on stdin."""
    try:
        found = json.loads(_stdin(), parse_constant=str)
    except ValueError:
        message = "what came on stdin is not JSON"
        raise RequestError(message, hint='{"username": "…", "password": "…"}') from None
    if not isinstance(found, dict) or not found or not all(isinstance(value, str) for value in found.values()):
        message = "what came on stdin is not an object of texts"
        raise RequestError(message, hint='{"username": "…", "password": "…"}')
    return _none_empty(found)


def from_file(path: Path, field: str) -> dict[str, str]:
    """Return what a file holds, to the last byte: some keys need their final newline."""
    try:
        found = path.read_bytes()
    except OSError as error:
        message = f"{path}: {(error.strerror or 'cannot be read').lower()}"
        raise RequestError(message, hint=f"ls -l {path}") from None
    value = _utf8(found, str(path))
    if value.count("\n") == 1 and value.endswith("\n"):
        click.echo("note: the file ends with a newline, and so does the value now; stdin would drop it", err=True)
    return _none_empty({field: value})


def from_stdin_or_terminal(name: str, fields: Sequence[str]) -> dict[str, str]:
    """Ask for each field on a terminal; without one, stdin is the value, less one final newline."""
    if sys.stdin is not None and sys.stdin.isatty():
        return _none_empty({field: _asked(name, field) for field in fields})
    if len(fields) > 1:
        message = "stdin is one value, and several fields were named"
        raise RequestError(message, hint=f'echo \'{{"username": "…"}}\' | mcp-broker secret set {name} --json')
    return _none_empty({fields[0]: _stdin().removesuffix("\n")})


def password(what: str) -> str:
    """Ask for the password of something on a terminal; without one, stdin is the password, less one final newline."""
    if sys.stdin is not None and sys.stdin.isatty():
        found = _typed(f"password of {what}: ", "mcp-broker unlock < FILE")
    else:
        found = _stdin().removesuffix("\n")
    if not found:
        message = "the password is empty"
        raise RequestError(message, hint="mcp-broker unlock")
    return found


def _asked(name: str, field: str) -> str:
    prompt = f"{name}: " if field == ONE else f"{name}, {field}: "
    return _typed(prompt, f"mcp-broker secret set {name} --file PATH")


def _typed(prompt: str, otherwise: str) -> str:
    """Return what is typed, unseen; ``otherwise`` is the command for where that cannot be."""
    with warnings.catch_warnings():
        # getpass would fall back to echoing what is typed, with a warning.
        warnings.simplefilter("error", getpass.GetPassWarning)
        try:
            value = getpass.getpass(prompt)
        except getpass.GetPassWarning:
            message = "this terminal cannot hide what is typed"
            raise RequestError(message, hint=otherwise) from None
        except EOFError:
            raise click.Abort from None
    if len(value.encode("utf-8", "surrogateescape")) >= _TERMINAL_LINE:
        message = "a terminal cuts off a line as long as this"
        raise RequestError(message, hint=otherwise)
    return value


def _stdin() -> str:
    if sys.stdin is None:
        return ""
    return _utf8(sys.stdin.buffer.read(), "stdin")


def _utf8(found: bytes, where: str) -> str:
    try:
        return found.decode()
    except UnicodeDecodeError:
        message = f"{where} is not text in UTF-8, as every value is"
        raise RequestError(message, hint="base64 it, and have the server decode it") from None


def _none_empty(values: dict[str, str]) -> dict[str, str]:
    for field, value in values.items():
        if not value:
            message = f"the value of {field!r} is empty" if field != ONE else "the value is empty"
            raise RequestError(message, hint="mcp-broker secret rm NAME removes a secret")
    return values


def of_variables(kept: Mapping[str, str], hint: str) -> dict[str, str]:
    """
    Ask for the value of each variable; without a terminal stdin is the one, or a JSON object of all.

    Args:
        kept: each variable, and where its value will be kept, in words.
        hint: what to do where a terminal cannot be asked.

    """
    if not kept:
        return {}
    if sys.stdin is not None and sys.stdin.isatty():
        found = {name: _typed(f"{name} ({where}): ", hint) for name, where in kept.items()}
    elif len(kept) == 1:
        found = dict.fromkeys(kept, _stdin().removesuffix("\n"))
    else:
        found = from_json()
    if found.keys() != kept.keys():
        message = f"the JSON on stdin has to have a value for each of {', '.join(kept)}, and nothing else"
        raise RequestError(message, hint=hint)
    empty = next((name for name, value in found.items() if not value), None)
    if empty is not None:
        message = f"the value of {empty} is empty"
        raise RequestError(message, hint="the same again, with the value typed, or on stdin where there is no terminal")
    return found
