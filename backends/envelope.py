"""
How a value is sealed, and what the seal is bound to.

AES-256-GCM with a fresh random nonce of 96 bits each time. What a sealed value
is and where it belongs goes in as associated data, so that one moved to another
place does not open. This module refuses to do I/O and to keep a key as bytes
for longer than it takes to set up a cipher.
"""

import os
from typing import Final, final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12

_DOMAIN: Final = b"mcp-broker sealed store"


class OpenError(Exception):
    """The seal does not open: another key, another place, or changed."""


@final
class Cipher:
    """A key that can be used and not be read back."""

    __slots__ = ("_aead",)

    def __init__(self, key: bytes) -> None:
        """Take a key of 32 bytes."""
        if len(key) != KEY_BYTES:
            message = f"a key has {KEY_BYTES} bytes"
            raise ValueError(message)
        self._aead = AESGCM(key)

    def seal(self, plain: bytes, bound: bytes) -> bytes:
        """Return the nonce and the sealed ``plain``, which opens only together with ``bound``."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, plain, bound)

    def open(self, sealed: bytes, bound: bytes) -> bytes:
        """Return what was sealed. Raises ``OpenError``, which says no more than that it was not this key and place."""
        try:
            return self._aead.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound)
        except (InvalidTag, ValueError):
            raise OpenError from None


def fresh_key() -> bytes:
    """Return a new key from the kernel."""
    return os.urandom(KEY_BYTES)


def binding(kind: str, *parts: bytes | str | int) -> bytes:
    """
    Return associated data that names one place and no other.

    Every part is preceded by its length, so that ``("ab", "c")`` and ``("a",
    "bc")`` differ; ``kind`` keeps the purposes of one key apart.
    """
    encoded = [_DOMAIN, kind.encode(), *(_encode(part) for part in parts)]
    return b"".join(len(part).to_bytes(4, "big") + part for part in encoded)


def _encode(part: bytes | str | int) -> bytes:
    match part:
        case bytes():
            return part
        case str():
            return part.encode()
        case int():
            return part.to_bytes(8, "big")
