"""
The broker's name for what a Vault has made: a lease, a token, the serial number of a certificate.

It holds nothing that opens anything. Pure.
"""

from typing import final

import msgspec

from backends.base import CorruptError


@final
class VaultLease(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    What has to be revoked.

    Attributes:
        id: of the lease.
        token: the accessor of the token that it was minted under, and dies with.
        child: the accessor of a token that was made for it alone.
        serial: of a certificate that has no lease.
        path: where that is revoked.

    """

    id: str | None = None
    token: str = ""
    child: str | None = None
    serial: str | None = None
    path: str = ""


def encoded(lease: VaultLease) -> str:
    """Return it as text."""
    return msgspec.json.encode(lease).decode()


def decoded(text: str) -> VaultLease:
    """Return it from text. Raises ``CorruptError``."""
    try:
        return msgspec.json.decode(text, type=VaultLease)
    except msgspec.MsgspecError:
        message = "what was stored of a lease cannot be read"
        raise CorruptError(message) from None
