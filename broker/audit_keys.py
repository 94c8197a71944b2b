"""
Ed25519 for checkpoints: make a key, sign, check.

The library is imported when it is first needed, by whoever can wait for it.
This module refuses to keep a key, and to know what is signed.
"""

import secrets

from broker.core.checkpoint import KEY_BYTES


def fresh() -> bytes:
    """Return a new private key."""
    return secrets.token_bytes(KEY_BYTES)


def public(private: bytes) -> bytes:
    """Return the public key of a private one."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 -- see above

    return Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def sign(private: bytes, text: bytes) -> bytes:
    """Return the signature of a text."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 -- see above

    return Ed25519PrivateKey.from_private_bytes(private).sign(text)


def signed(key: bytes, signature: bytes, text: bytes) -> bool:
    """Return whether a signature is that of this public key on this text."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 -- see above
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, text)
    except (InvalidSignature, ValueError):
        return False
    return True
