"""
What a fault of the server's means to who asked, in our words and with what mends it. Pure.
"""

from backends.base import (
    BackendError,
    ConflictError,
    LeaseGoneError,
    MisconfiguredError,
    RefusedError,
    SecretNotFoundError,
    UnavailableError,
)
from backends.vault_wire import Fault, Kind


class WrongMethodError(MisconfiguredError):
    """What is at the path takes no read, or no write. Nothing was done."""


def meaning(fault: Fault, *, what: str, backend: str) -> BackendError:  # noqa: C901, PLR0911 -- a table
    """Return the error for an answer to a request about ``what``, a path or a thing."""
    match fault.kind:
        case Kind.ABSENT:
            return SecretNotFoundError(
                f"there is nothing at {what}", hint=f"bao kv put {what} NAME=-, or look: bao list"
            )
        case Kind.DELETED:
            return deleted(what)
        case Kind.NO_ROUTE:
            message = f"nothing is mounted at {what}, or the namespace does not exist"
            return SecretNotFoundError(message, hint="bao secrets list")
        case Kind.VERSIONED:
            message = f"it is K/V 2: {what} stands at MOUNT/data/…, and the server does not tell this login so"
            return SecretNotFoundError(message, hint=f"mcp-broker vault policy {backend}; bao kv get {what}")
        case Kind.UNKNOWN_ROLE:
            return SecretNotFoundError(f"there is no role for {what}, or it may not be used", hint=f"bao read {what}")
        case Kind.FORBIDDEN:
            message = f"the broker's policy does not allow {what}"
            return RefusedError(message, hint=f"mcp-broker vault policy {backend} | bao policy write mcp-broker -")
        case Kind.LEASE_GONE:
            return LeaseGoneError("the lease is not known any more: somebody has revoked it, or its token has ended")
        case Kind.NOT_RENEWABLE:
            return RefusedError("the lease cannot be renewed")
        case Kind.WRONG_METHOD:
            return WrongMethodError(f"{what} does not take this", hint="params make it a write, and none a read")
        case Kind.STALE:
            return ConflictError(f"somebody else has written {what} meanwhile")
        case Kind.REFUSED | Kind.TOO_LARGE | Kind.WRAPPING_USED:
            message = f"the request for {what} was refused (status {fault.status})"
            return MisconfiguredError(message, hint=f"check path and params; try it: bao read {what}")
        case _:
            return UnavailableError(f"{what}: {fault.kind.value} (status {fault.status})", hint="mcp-broker status")


def deleted(what: str) -> SecretNotFoundError:
    """Return the error for a version that is no longer there."""
    return SecretNotFoundError(f"this version of {what} was deleted", hint=f"bao kv undelete -versions=N {what}")
