"""
A master key that the OS keyring keeps: Secret Service, KWallet, the macOS keychain.

The entry is named after the store and the generation of its key, so that two
stores never share one and a rotation can be cut short anywhere. This module
refuses every keyring that keeps a password in plaintext, nowhere, or in a
place that it does not know: a store sealed with a key that lies open beside it
is not sealed.
"""

import importlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar, final

from backends.base import BackendError, CorruptError, LockedError, MisconfiguredError
from backends.envelope import Cipher, fresh_key
from backends.master_key import MasterKey, Wrapping, decode_key, encode_key

_T = TypeVar("_T")

_SERVICE: Final = "mcp-broker"

_KNOWN: Final = (
    "keyring.backends.macOS:Keyring",
    "keyring.backends.SecretService:Keyring",
    "keyring.backends.kwallet:DBusKeyring",
    "keyring.backends.libsecret:Keyring",
)
"""The keyrings that encrypt what they keep, in the order in which they are tried."""

_UNLOCK: Final = "unlock the login keyring, or set [backends.local] key in broker.toml"


@final
class KeyringKey:
    """An entry of the OS keyring that holds the key as base64."""

    __slots__ = ("caution", "label")

    def __init__(self) -> None:
        """Use the keyring of whoever runs the broker."""
        self.label = "OS keyring"
        self.caution: str | None = None

    def first(self, coming: Wrapping) -> MasterKey:
        """Make a key and keep it."""
        return _asking(lambda ring: _make(ring, _entry(coming)))

    def candidates(self, wrapping: Wrapping) -> Iterator[MasterKey]:
        """Yield the key of this generation."""
        yield _asking(lambda ring: _find(ring, _entry(wrapping)))

    def next(self, coming: Wrapping) -> MasterKey:
        """Make the key of the next generation and keep it beside the current one."""
        return _asking(lambda ring: _make(ring, _entry(coming)))

    def settle(self, wrapping: Wrapping, *, pending: bool) -> None:
        """Forget the key of the generation before."""
        del pending
        if wrapping.generation > 1:
            before = replace(wrapping, generation=wrapping.generation - 1)
            _asking(lambda ring: _forget(ring, _entry(before)))


def probe() -> str:
    """
    Return the name of the keyring, after it has kept something and given it back.

    It blocks, for as long as a prompt stays unanswered. Raises what the source
    itself would raise.
    """

    def there_and_back(ring: Any) -> str:  # noqa: ANN401  keyring is loaded late and untyped
        entry = f"probe.{secrets.token_hex(8)}"
        _make(ring, entry)
        _forget(ring, entry)
        return str(ring.name)

    return _asking(there_and_back)


def _entry(wrapping: Wrapping) -> str:
    return f"{wrapping.store.hex()}.{wrapping.generation}"


def _make(ring: Any, entry: str) -> MasterKey:  # noqa: ANN401
    # An entry of a rotation that was cut short has never been in force; it is overwritten.
    ring.set_password(_SERVICE, entry, encode_key(fresh_key()))
    return _find(ring, entry)


def _find(ring: Any, entry: str) -> MasterKey:  # noqa: ANN401
    text = ring.get_password(_SERVICE, entry)
    if text is None:
        message = "the OS keyring does not hold the key of this store"
        raise LockedError(message, hint=_UNLOCK)
    try:
        return MasterKey(cipher=Cipher(decode_key(text.encode())))
    except ValueError:
        message = "what the OS keyring holds for this store is not a key"
        raise CorruptError(message) from None


def _forget(ring: Any, entry: str) -> None:  # noqa: ANN401
    if ring.get_password(_SERVICE, entry) is not None:
        ring.delete_password(_SERVICE, entry)


def _asking(question: Callable[[Any], _T]) -> _T:
    try:
        return question(_keyring())
    except BackendError:
        raise
    except Exception as error:  # noqa: BLE001  each keyring has errors of its own, D-Bus adds more
        # The kind alone: what a keyring says is not ours to repeat.
        message = f"the OS keyring does not answer: {type(error).__name__}"
        raise LockedError(message, hint=_UNLOCK) from None


def _keyring() -> Any:  # noqa: ANN401
    """
    Return the keyring that the user has chosen, else the first known one that works.

    ``keyring.get_keyring`` remembers for ever what it found first, and falls
    back to whatever there is: neither is what a key store wants.
    """
    _find_session_bus()
    core = importlib.import_module("keyring.core")
    chosen = core.load_env() or core.load_config()
    if chosen is not None:
        return _accepted(chosen)
    for name in _KNOWN:
        module, _, attribute = name.partition(":")
        kind = getattr(importlib.import_module(module), attribute)
        if kind.viable:
            return kind()
    message = "there is no OS keyring here that keeps a key encrypted"
    raise LockedError(message, hint=_UNLOCK)


def _accepted(ring: Any) -> Any:  # noqa: ANN401
    name = f"{type(ring).__module__}:{type(ring).__qualname__}"
    if name not in _KNOWN:
        message = f"the keyring that is configured, {name.replace(':', '.')}, is not one that is known to encrypt"
        raise MisconfiguredError(
            message,
            hint="set [backends.local] key in broker.toml, or unset PYTHON_KEYRING_BACKEND",
        )
    return ring


def _find_session_bus() -> None:
    """
    Name the session's bus where nobody has.

    MCP clients pass almost no environment on, so a broker that ``exec`` started
    does not know it; the kernel and systemd put it in one well-known place.
    """
    bus = Path(f"/run/user/{os.getuid()}/bus")
    if "DBUS_SESSION_BUS_ADDRESS" in os.environ:
        return
    try:
        status = bus.stat()
    except OSError:
        return
    if stat.S_ISSOCK(status.st_mode) and status.st_uid == os.getuid():
        os.environ["DBUS_SESSION_BUS_ADDRESS"] = f"unix:path={bus}"
