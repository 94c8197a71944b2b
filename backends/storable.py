"""
What can be stored at all: names that can be printed, fields that are text.

It refuses to quote a value that it refuses.
"""

from collections.abc import Mapping
from typing import Final

from backends.base import RefusedError, Secret

_NAME_BYTES: Final = 512


def check_name(path: str) -> None:
    """Refuse a name that is empty, too long, or cannot be shown in one line."""
    if not path.isprintable() or not 0 < len(path.encode(errors="replace")) <= _NAME_BYTES:
        message = f"a secret's name is 1 to {_NAME_BYTES} printable bytes"
        raise RefusedError(message)


def exposed(path: str, values: Mapping[str, Secret]) -> dict[str, str]:
    """Return the fields as text, to be stored. Raises ``RefusedError`` for none at all, and for what is not text."""
    if not values:
        message = f"the secret {path} would have no field"
        raise RefusedError(message, hint=f"mcp-broker secret set {path}")
    found = {field: secret.expose() for field, secret in values.items()}
    for field, value in found.items():
        try:
            field.encode()
            value.encode()
        except UnicodeEncodeError:
            # The cause would hold the value.
            message = f"a value of the secret {path} is not text"
            raise RefusedError(message) from None
    return found
