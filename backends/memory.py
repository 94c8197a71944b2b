"""
What was read from a keyring or a Vault a moment ago.

It stays in memory as the sealed store's values do: sealed, under a key that
lives and dies with this process, and opened for the moment in which it is
issued. This module refuses to remember beyond the time that it was told.
"""

import time
from typing import Final, final

import msgspec

from backends.base import Credential, Secret
from backends.envelope import Cipher, binding, fresh_key

_KIND: Final = "memory"
_FIELDS: Final = msgspec.json.Decoder(dict[str, str])

Key = tuple[str, str]


@final
class Memory:
    """Credentials by service and account, or by path and parameters, each until a time of the monotonic clock."""

    __slots__ = ("_cipher", "_kept")

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._cipher = Cipher(fresh_key())
        self._kept: dict[Key, tuple[bytes, bytes, int | None, float]] = {}

    def keep(self, key: Key, credential: Credential, *, until: float) -> None:
        """Remember what was read."""
        fields = {field: secret.expose() for field, secret in credential.values.items()}
        bound = binding(_KIND, *key)
        self._kept[key] = self._cipher.seal(msgspec.json.encode(fields), bound), bound, credential.version, until

    def find(self, key: Key) -> Credential | None:
        """Return what is remembered, or None."""
        found = self._kept.get(key)
        if found is None:
            return None
        sealed, bound, version, until = found
        if time.monotonic() >= until:
            del self._kept[key]
            return None
        fields = _FIELDS.decode(self._cipher.open(sealed, bound))
        return Credential(values={field: Secret(value) for field, value in fields.items()}, version=version)

    def forget(self, key: Key) -> None:
        """Forget one."""
        self._kept.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
