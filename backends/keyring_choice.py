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
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from backends.base import MisconfiguredError, Surroundings
from backends.keyring_ring import Kind, Ring

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


def refuse_system_mode(surroundings: Surroundings) -> None:
    """Raise ``MisconfiguredError`` for the host's broker: a keyring is a person's, and opens when they log in."""
    if surroundings.mode == "system":
        message = "a service has no desktop, no session bus, and so no keyring"
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
