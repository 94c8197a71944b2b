"""
What is wrong with the parameters of a request, in words.

This module refuses to quote them: one of them may be a value.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, get_args

from broker.api import words
from broker.api.audit_messages import AuditRead

_PLACE: Final = re.compile(r" - at `(\$|key)?\.?(?P<place>[^`]*)`(?: in `\$\.(?P<inside>[^`]*)`)?$")


def _pattern(kind: Any) -> str:  # noqa: ANN401 - an annotated type is no type to the type checker
    """Return the pattern that texts of this kind have."""
    _, *metas = get_args(kind)
    return str(metas[0].pattern)


_IN_WORDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        _pattern(words.Name): "letters, digits and . _ -, with a letter or digit at the beginning",
        _pattern(words.Field): "letters, digits and . _ -, with a letter, digit or _ at the beginning",
        _pattern(words.Accessor): "letters, digits, _ and -, as lease list shows it",
        AuditRead.__annotations__["segment"].__metadata__[0].pattern: "the name of a segment, such as audit.jsonl",
    }
)
"""What each pattern means to a person."""


def in_words(error: Exception) -> str:
    """Return what a decoding error says: it names types and places and quotes no value."""
    if isinstance(error, UnicodeDecodeError):
        return "the parameters are not UTF-8"
    text = str(error).rstrip(".")
    for pattern, said in _IN_WORDS.items():
        text = text.replace(f"`str` matching regex {pattern!r}", said)
    found = _PLACE.search(text)
    if text.startswith("Expected ") and found is not None:
        inside = found["inside"]
        place = found["place"] if inside is None else f"a name in {inside}"
        wanted = text[len("Expected ") : found.start()]
        return f"{place or 'params'}: expected {wanted}"
    return text[:1].lower() + text[1:]
