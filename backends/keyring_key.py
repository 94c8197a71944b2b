"""
A master key that the OS keyring keeps: Secret Service, KWallet, the macOS keychain.

The entry is named after the store and the generation of its key, so that two
stores never share one and a rotation can be cut short anywhere. Which keyring
it is, the config says (``backends.keyring_ring``). This module refuses every
keyring that keeps a password in plaintext, nowhere, or in a place that it does
not know: a store sealed with a key that lies open beside it is not sealed.
"""

import secrets
from collections.abc import Iterator
from dataclasses import replace
from typing import Final, final

from backends.base import CorruptError, Lock, LockedError, Surroundings
from backends.envelope import Cipher, fresh_key
from backends.keyring_choice import chosen_kind, default_name, refuse_system_mode, ring
from backends.keyring_ring import MASTER_KEYS, Ring
from backends.master_key import MasterKey, Wrapping, decode_key, encode_key

_LABEL: Final = "the master key of a sealed store (mcp-broker)"


def from_option(chosen: str | bool, where: str, surroundings: Surroundings) -> "KeyringKey":  # noqa: FBT001 -- as TOML
    """Return the key source that ``keyring = true`` or ``keyring = "kwallet"`` asks for."""
    refuse_system_mode(surroundings)
    name = chosen if isinstance(chosen, str) else default_name()
    kind = chosen_kind(name, where, unsafe_plaintext=False)
    return KeyringKey(ring(name, kind, bus=None, surroundings=surroundings))


@final
class KeyringKey:
    """
    An entry of the OS keyring that holds the key as base64.

    Attributes:
        label: what and where it is.
        caution: what the keyring does not protect against.

    """

    __slots__ = ("_ring", "caution", "label")

    def __init__(self, ring: Ring) -> None:
        """Use this keyring of whoever runs the broker."""
        self._ring = ring
        self.label = "OS keyring"
        self.caution = ring.caution

    def first(self, coming: Wrapping) -> MasterKey:
        """Make a key and keep it."""
        return _make(self._ring, _entry(coming))

    def candidates(self, wrapping: Wrapping) -> Iterator[MasterKey]:
        """Yield the key of this generation."""
        yield _find(self._ring, _entry(wrapping))

    def next(self, coming: Wrapping) -> MasterKey:
        """Make the key of the next generation and keep it beside the current one."""
        return _make(self._ring, _entry(coming))

    def settle(self, wrapping: Wrapping, *, pending: bool) -> None:
        """Forget the key of the generation before."""
        del pending
        if wrapping.generation > 1:
            before = replace(wrapping, generation=wrapping.generation - 1)
            self._ring.remove(MASTER_KEYS, _entry(before), ask=True)

    def lock(self) -> Lock | None:
        """Return what is locked. Never blocks for long, and asks nobody."""
        if self._ring.prompting:
            return Lock(what=self._ring.where, takes_password=self._ring.takes_password, asking=True)
        return self._ring.lock()

    def unlock(self, password: str | None) -> None:
        """Unlock the keyring with its password, or have it ask somebody."""
        if password is None:
            self._ring.ask()
        else:
            self._ring.unlock(password)


def probe(surroundings: Surroundings) -> str:
    """
    Return the name of the keyring, after it has kept something and given it back.

    It blocks, for as long as a prompt stays unanswered. Raises what the source
    itself would raise.
    """
    found = from_option(chosen=True, where="key.keyring", surroundings=surroundings)
    used = found._ring  # noqa: SLF001 -- its own module
    entry = f"probe.{secrets.token_hex(8)}"
    _make(used, entry)
    used.remove(MASTER_KEYS, entry, ask=True)
    return used.title


def _entry(wrapping: Wrapping) -> str:
    return f"{wrapping.store.hex()}.{wrapping.generation}"


def _make(ring: Ring, entry: str) -> MasterKey:
    # An entry of a rotation that was cut short has never been in force; it is overwritten.
    ring.write(MASTER_KEYS, entry, encode_key(fresh_key()), label=_LABEL, ask=True)
    return _find(ring, entry)


def _find(ring: Ring, entry: str) -> MasterKey:
    text = ring.read(MASTER_KEYS, entry, ask=True)
    if text is None:
        message = "the OS keyring does not hold the key of this store"
        raise LockedError(message, hint="log in to the desktop whose keyring it is, or restore the keyring")
    try:
        return MasterKey(cipher=Cipher(decode_key(text.encode())))
    except ValueError:
        message = "what the OS keyring holds for this store is not a key"
        raise CorruptError(message) from None
