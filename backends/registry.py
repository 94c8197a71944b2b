"""
Which factory makes a backend of which type.

Ours are looked up in a table, because asking the installed packages takes
longer than the rest of a start. It refuses to let another package take the
name of one of ours.
"""

import importlib
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from backends.base import Backend, MisconfiguredError, Surroundings

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP: Final = "mcp_broker.backends"
"""The entry-point group in which others add theirs."""

BUILT_IN: Final[Mapping[str, str]] = MappingProxyType(
    {
        "sealed": "backends.sealed:from_config",
        "keyring": "backends.os_keyring:from_config",
        "vault": "backends.vault:from_config",
    },
)

Factory = Callable[[str, Mapping[str, Any], Surroundings], Backend]


def make(kind: str, name: str, options: Mapping[str, Any], surroundings: Surroundings) -> Backend:
    """Return the backend ``name`` of type ``kind``. Raises ``MisconfiguredError``."""
    return factory(kind)(name, options, surroundings)


def factory(kind: str) -> Factory:
    """Return what makes backends of type ``kind``. Raises ``MisconfiguredError`` where there is none."""
    if kind in BUILT_IN:
        module, _, attribute = BUILT_IN[kind].partition(":")
        found: Factory = getattr(importlib.import_module(module), attribute)
        return found
    for entry in _entries():
        if entry.name == kind:
            return _load(kind, entry)
    message = f"there is no backend of type {kind}"
    raise MisconfiguredError(message, hint=_nearest(kind))


def kinds() -> tuple[str, ...]:
    """Return every type that there is, sorted."""
    return tuple(sorted({*BUILT_IN, *(entry.name for entry in _entries())}))


def _entries() -> "Iterable[EntryPoint]":
    # 20 ms of imports, and a look at every installed package.
    from importlib import metadata  # noqa: PLC0415

    return metadata.entry_points(group=GROUP)


def _load(kind: str, entry: "EntryPoint") -> Factory:
    try:
        found: Factory = entry.load()
    except (ImportError, AttributeError) as error:
        message = f"the backend of type {kind} cannot be loaded from {entry.value}: {type(error).__name__}"
        raise MisconfiguredError(message) from error
    return found


def _nearest(kind: str) -> str:
    import difflib  # noqa: PLC0415

    known = kinds()
    close = difflib.get_close_matches(kind, known, n=1)
    return f"did you mean {close[0]}?" if close else f"there is {', '.join(known)}"
