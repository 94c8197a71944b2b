"""
The keyrings that there are, by name, and the one that the config has chosen.

Both who keeps secrets in a keyring and who keeps a master key there come this
way. Which keyring it is follows from the config, and where that says nothing
from the platform alone: never from what happens to answer, from the
environment, or from the keyring library's own config. This module refuses a
keyring that is not known to encrypt, unless it is told to in so many words, and
one that keeps nothing or that tries one store after another in any case.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol

from backends.base import Lock, MisconfiguredError, Surroundings

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


KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "secret-service": Kind(title="Secret Service"),
        "kwallet": Kind(title="KWallet", module="keyring.backends.kwallet", attribute="DBusKeyring"),
        "macos": Kind(title="macOS Keychain", module="keyring.backends.macOS", attribute="Keyring"),
        # CRED_MAX_CREDENTIAL_BLOB_SIZE of wincred.h, 5 * 512.
        "windows": Kind(
            title="Windows Credential Locker",
            module="keyring.backends.Windows",
            attribute="WinVaultKeyring",
            most=2560,
        ),
    }
)
"""The keyrings that encrypt what they keep, by the name that the config has for them."""

_NEVER: Final = ("keyring.backends.null", "keyring.backends.fail", "keyring.backends.chainer")


def default_name(platform: str = sys.platform) -> str:
    """Return the name of the keyring of a platform, whether it is there or not."""
    return {"darwin": "macos", "win32": "windows"}.get(platform, "secret-service")


def chosen_kind(name: str, where: str, *, unsafe_plaintext: bool) -> Kind:
    """Return the kind called ``name``. Raises ``MisconfiguredError`` for one that is not to be used."""
    if name in KINDS:
        return KINDS[name]
    module, _, attribute = name.rpartition(".")
    if module in _NEVER:
        message = f"{where}: {name} keeps nothing, or not in one place"
        raise MisconfiguredError(message, hint=f"keyring is one of {', '.join(KINDS)}")
    if not module:
        message = f"{where}: there is no keyring {name!r}"
        raise MisconfiguredError(message, hint=f"it is one of {', '.join(KINDS)}, or the dotted name of a class")
    if not unsafe_plaintext:
        message = f"{where}: {name} is not a keyring that is known to encrypt what it keeps"
        raise MisconfiguredError(message, hint=f"one of {', '.join(KINDS)}, or unsafe_plaintext = true beside it")
    return Kind(title=name, module=module, attribute=attribute, unsafe=True)


def refuse_system_mode(where: str, surroundings: Surroundings) -> None:
    """Raise ``MisconfiguredError`` for the host's broker: a keyring is a person's, and opens when they log in."""
    if surroundings.mode == "system":
        message = f"{where}: a service has no desktop, no session bus, and so no keyring"
        raise MisconfiguredError(
            message, hint="keep it in the sealed store, or run your own broker: mcp-broker init --user"
        )


def ring(name: str, kind: Kind, *, bus: str | None, surroundings: Surroundings) -> Ring:
    """Return the ring of that name on that bus: one for all backends of the broker. Does no I/O."""
    key = f"keyring {name} {bus}"
    if key not in surroundings.shared:
        surroundings.shared[key] = _make(kind, bus)
    found: Ring = surroundings.shared[key]
    return found


def _make(kind: Kind, bus: str | None) -> Ring:
    if kind.module is None:
        from backends.secret_service import SecretService  # noqa: PLC0415 -- where it is wanted alone

        return SecretService(bus)
    from backends.library_ring import LibraryRing  # noqa: PLC0415

    return LibraryRing(kind, bus)
