"""
What a keyring is to those who keep something in one.

Shapes alone: which keyring it is, ``backends.keyring_choice`` says. This module
refuses to do anything.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from backends.base import Lock

SECRETS: Final = "mcp-broker"
"""The ``service`` of the items that hold secrets; ``username`` is the secret's path."""

LEDGERS: Final = "mcp-broker versions"
MASTER_KEYS: Final = "mcp-broker master key"

UNLOCK: Final = "mcp-broker unlock"
"""The command that mends a keyring that is locked."""


class Ring(Protocol):
    """
    A keyring. Its methods block, and may be called from several threads: it does one thing at a time.

    Each raises ``LockedError`` where the keyring is locked, ``UnavailableError`` where it
    does not answer, and no other error on purpose.

    Attributes:
        title: what a person calls it.
        caution: what it does not protect against, or None.

    """

    title: str
    caution: str | None

    @property
    def prompting(self) -> bool:
        """Return whether it waits for somebody to answer its prompt. Never blocks."""
        ...

    @property
    def takes_password(self) -> bool:
        """Return whether ``unlock`` can open it with a password, as far as is known. Never blocks."""
        ...

    @property
    def where(self) -> str:
        """Return which keyring it is, in words: ``the keyring 'Login'``. Never blocks."""
        ...

    def read(self, service: str, account: str, *, ask: bool) -> str | None:
        """Return the text of an item, None where there is none; a locked keyring asks somebody where ``ask`` is."""
        ...

    def write(self, service: str, account: str, text: str, *, label: str, ask: bool) -> None:
        """Put an item in the place of whatever was there; ``label`` is what a person reads."""
        ...

    def remove(self, service: str, account: str, *, ask: bool) -> bool:
        """Remove an item; return whether there was one."""
        ...

    def accounts(self, service: str) -> frozenset[str]:
        """Return the accounts of all items of a service. Asks nobody."""
        ...

    def lock(self) -> Lock | None:
        """Return what is locked, or None where it is open or cannot tell. Asks nobody."""
        ...

    def unlock(self, password: str) -> None:
        """Unlock it with a password, also while it asks somebody. Raises ``RefusedError`` for a wrong one."""
        ...

    def ask(self) -> None:
        """Have it ask somebody to unlock it, whatever became of that before."""
        ...

    def listen(self, changed: Callable[[], None]) -> None:
        """Have ``changed`` called, on another thread, when something in it changes; nothing where it cannot tell."""
        ...

    def forgo(self, changed: Callable[[], None]) -> None:
        """Call ``changed`` no more. Never blocks."""
        ...

    def dismiss(self) -> None:
        """Have it ask no longer, where it does. Never blocks."""
        ...

    def close(self) -> None:
        """Let go of whatever is held."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """
    A kind of keyring.

    Attributes:
        title: what a person calls it.
        module: where the keyring library has it; None for the Secret Service, which is spoken to directly.
        attribute: what it is called there.
        most: bytes of UTF-16 that one item can hold; None for no limit that matters.
        unsafe: whether it is not known to encrypt.

    """

    title: str
    module: str | None = None
    attribute: str = ""
    most: int | None = None
    unsafe: bool = False
