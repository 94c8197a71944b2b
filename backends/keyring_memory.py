"""
What was read from a keyring a moment ago.

It stays in memory as the sealed store's values do: sealed, under a key that
lives and dies with this process, and opened for the moment in which it is
issued. This module refuses to remember beyond the time that it was told.
"""

import json
import time
from typing import Final, final

from backends.base import Credential, Secret
from backends.envelope import Cipher, binding, fresh_key

_KIND: Final = "keyring memory"

Key = tuple[str, str]


@final
class Memory:
    """Credentials by service and account, each until a time of the monotonic clock."""

    __slots__ = ("_cipher", "_kept")

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._cipher = Cipher(fresh_key())
        self._kept: dict[Key, tuple[bytes, int | None, float]] = {}

    def keep(self, key: Key, credential: Credential, *, until: float) -> None:
        """Remember what was read."""
        fields = {field: secret.expose() for field, secret in credential.values.items()}
        sealed = self._cipher.seal(json.dumps(fields).encode(), binding(_KIND, *key))
        self._kept[key] = sealed, credential.version, until

    def find(self, key: Key) -> Credential | None:
        """Return what is remembered, or None."""
        found = self._kept.get(key)
        if found is None:
            return None
        sealed, version, until = found
        if time.monotonic() >= until:
            del self._kept[key]
            return None
        fields = json.loads(self._cipher.open(sealed, binding(_KIND, *key)))
        return Credential(values={field: Secret(value) for field, value in fields.items()}, version=version)

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
