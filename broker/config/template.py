"""
Templates: text with references to secrets, ``postgresql://{db.username|url}:{db.password|url}@host``.

Only ``{name}``, ``{name.field}`` and their filters are references; ``{{`` and
``}}`` are braces. This module refuses to guess: what is missing is an error and
never an empty string.
"""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from backends.base import Secret
from broker.config.problems import WrongTextError
from broker.errors import ConfigError

SECRET_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
"""A secret's name holds no dot: in ``{name.field}`` the first dot ends the name."""

FIELD_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")

FILTERS: Final = ("url", "json", "base64")

LONGEST_VARIABLE: Final = 131072
"""Bytes of one ``NAME=value`` with its final NUL that Linux lets a program start with (MAX_ARG_STRLEN)."""

_WHOLE: Final = "value"
_TOKEN: Final = re.compile(r"\{\{|\}\}|\{(?P<inside>[^{}]*)\}|[{}]")
_BRACE_HINT: Final = "write {{ and }} for braces that are no reference"


class TemplateError(WrongTextError):
    """The text is no template. The message names the character."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """
    One place in a template where a value goes.

    Attributes:
        secret: the name of the secret.
        field: which of its fields; None for the one called ``value``.
        filters: what is done to the value, in this order.

    """

    secret: str
    field: str | None = None
    filters: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the reference as a template writes it."""
        name = self.secret if self.field is None else f"{self.secret}.{self.field}"
        return "{" + "|".join((name, *self.filters)) + "}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """
    Text with references.

    Attributes:
        parts: literal text and references in turn; braces in literal text are single.
        variable: the environment variable that it is for; None where it fills a file.

    """

    parts: tuple[str | Reference, ...]
    variable: str | None = None

    @property
    def references(self) -> frozenset[tuple[str, str | None]]:
        """Return every secret and field that it needs; the field is None for ``value``."""
        return frozenset((part.secret, part.field) for part in self.parts if isinstance(part, Reference))

    @property
    def secrets(self) -> frozenset[str]:
        """Return the name of every secret that it needs."""
        return frozenset(part.secret for part in self.parts if isinstance(part, Reference))

    @property
    def source(self) -> str:
        """Return the template as the config writes it."""
        return "".join(_braced(part) if isinstance(part, str) else str(part) for part in self.parts)

    def render(self, values: Mapping[str, Mapping[str, Secret]]) -> Secret:
        """
        Return the text with the values in it.

        Args:
            values: for every secret in ``secrets``, its fields.

        Raises:
            ConfigError: a secret or a field is not there or is empty, or the result cannot be what it is for.

        """
        try:
            text = "".join(part if isinstance(part, str) else _value(part, values) for part in self.parts)
            size = len(text.encode())
        except UnicodeEncodeError:
            text, size = "", -1
        if size < 0:
            # Raised out here because the error of the encoding holds the value, and would travel on as its context.
            message = f"a value is not Unicode text, of one of these secrets: {', '.join(sorted(self.secrets))}"
            raise ConfigError(message, hint="store what is not text in base64")
        if self.variable is not None:
            _check_variable(self.variable, text, size)
        return Secret(text)


def parse(text: str, *, variable: str | None = None) -> Template:
    """
    Read a template.

    Args:
        text: as the config has it.
        variable: the environment variable that it is for; None where it fills a file.

    Raises:
        TemplateError: a brace or a reference that is none.

    """
    parts: list[str | Reference] = []
    literal = ""
    position = 0
    for token in _TOKEN.finditer(text):
        literal += text[position : token.start()]
        position = token.end()
        if token["inside"] is not None:
            if literal:
                parts.append(literal)
            literal = ""
            parts.append(_reference(token["inside"], token.start() + 1))
        elif token[0] in ("{{", "}}"):
            literal += token[0][0]
        else:
            message = f"a single brace at character {token.start() + 1}"
            raise TemplateError(message, hint=_BRACE_HINT)
    literal += text[position:]
    if literal:
        parts.append(literal)
    return Template(parts=tuple(parts), variable=variable)


def _braced(literal: str) -> str:
    return literal.replace("{", "{{").replace("}", "}}")


def _reference(inside: str, at: int) -> Reference:
    name, *filters = inside.split("|")
    secret, dot, field = name.partition(".")
    if not SECRET_NAME.fullmatch(secret) or (dot and not FIELD_NAME.fullmatch(field)):
        message = f"what stands in braces at character {at} is no reference to a secret"
        raise TemplateError(message, hint="write {name} or {name.field}, without spaces; " + _BRACE_HINT)
    if not set(filters) <= set(FILTERS):
        message = f"an unknown filter in the reference at character {at}"
        raise TemplateError(message, hint="the filters are " + ", ".join(f"|{name}" for name in FILTERS))
    return Reference(secret=secret, field=field if dot else None, filters=tuple(filters))


def _value(reference: Reference, values: Mapping[str, Mapping[str, Secret]]) -> str:
    name = reference.secret
    field = _WHOLE if reference.field is None else reference.field
    fields = values.get(name, {})
    if reference.field is None and len(fields) == 1:
        # Who has written it in another place may call the only field what they like.
        field = next(iter(fields))
    if field not in fields:
        raise _absent(reference, fields)
    text = fields[field].expose()
    if not text:
        message = f'field "{field}" of secret "{name}" is empty'
        raise ConfigError(message, hint=f"mcp-broker secret set {_as_arguments(name, field)}")
    for one in reference.filters:
        text = _filtered(one, text)
    return text


def _absent(reference: Reference, fields: Mapping[str, Secret]) -> ConfigError:
    name, field = reference.secret, reference.field
    listed = ", ".join(sorted(fields))
    if field is None and fields:
        first = min(fields)
        return ConfigError(f'secret "{name}" has several fields, say which: {listed}', hint=f"write {{{name}.{first}}}")
    missing = f'secret "{name}" has no value' if field is None else f'secret "{name}" has no field "{field}"'
    has = f"; it has: {listed}" if listed else ""
    names = sorted({*fields, field or _WHOLE})
    return ConfigError(missing + has, hint=f"mcp-broker secret set {_as_arguments(name, *names)}")


def _as_arguments(secret: str, *fields: str) -> str:
    return secret if fields == (_WHOLE,) else " ".join((secret, *fields))


def _filtered(name: str, text: str) -> str:
    match name:
        case "url":
            return quote(text, safe="")
        case "json":
            return json.dumps(text)[1:-1]
        case _:
            return base64.b64encode(text.encode()).decode("ascii")


def _check_variable(name: str, text: str, size: int) -> None:
    """Refuse what no environment can carry. Line breaks are fine there: keys in PEM have them."""
    if "\0" in text:
        message = f"{name} would hold a NUL character, and an environment cannot"
        raise ConfigError(message, hint=f"write it to a file instead, files.{name}, or use the filter |base64")
    whole = len(name) + len("=") + size + len("\0")
    if whole > LONGEST_VARIABLE:
        message = f"{name} would have {whole} bytes, and Linux starts no program with more than {LONGEST_VARIABLE}"
        raise ConfigError(message, hint=f"write it to a file instead, files.{name}")
