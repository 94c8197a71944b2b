"""
What can go wrong between a workload and its credential, as the caller sees it.

Each class has one stable ``code``. The table at the end says what a code is in
HTTP, in JSON-RPC and as an exit status; a test proves it complete. This module
refuses to know backends: ``broker.service`` translates their errors.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Final


class BrokerError(Exception):
    """
    The broker refused or failed, for a reason that the caller may know.

    Attributes:
        code: stable, for programs.
        message: lower case, no full stop, never a value.
        hint: the command that mends it, or None.

    """

    code: ClassVar[str] = "internal"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        """Say what is wrong and, where there is something to do, what mends it."""
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        """Return the message and the hint."""
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


class ConfigError(BrokerError):
    """The config does not say what it means; the running one stays in force."""

    code = "config"


class RequestError(BrokerError):
    """The request is not one: malformed, unknown verb, wrong type, out of range."""

    code = "invalid_request"


class AttestationError(BrokerError):
    """The kernel does not say, or no longer says, who is asking."""

    code = "denied"


class DeniedError(BrokerError):
    """The policy does not allow it."""

    code = "denied"


class LeaseNotFoundError(BrokerError):
    """There is no such lease, it is not the caller's, or it has ended."""

    code = "expired"


class RateLimitedError(BrokerError):
    """This uid asks more than its share; others are not concerned."""

    code = "rate_limited"


class LockedError(BrokerError):
    """What holds the secret is locked; somebody has to open it."""

    code = "locked"


class UnavailableError(BrokerError):
    """What is needed does not answer now; asking again later may help."""

    code = "unavailable"


class OutcomeUnknownError(UnavailableError):
    """The backend may have minted something and its answer was lost; it is listed, and never tried again blindly."""


class AuditError(BrokerError):
    """The release cannot be recorded, so there is none."""

    code = "audit_unavailable"


class IntegrityError(BrokerError):
    """Something stored does not verify: changed, moved, cut off, or the wrong key."""

    code = "integrity"


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What one code is on each of the three ways out."""

    http: int
    jsonrpc: int
    exit: int


MEANINGS: Final[Mapping[str, Meaning]] = MappingProxyType(
    {
        "denied": Meaning(http=403, jsonrpc=-32001, exit=3),
        "locked": Meaning(http=423, jsonrpc=-32002, exit=4),
        "unavailable": Meaning(http=503, jsonrpc=-32003, exit=4),
        "rate_limited": Meaning(http=429, jsonrpc=-32004, exit=4),
        "audit_unavailable": Meaning(http=503, jsonrpc=-32005, exit=4),
        "expired": Meaning(http=410, jsonrpc=-32006, exit=1),
        "integrity": Meaning(http=500, jsonrpc=-32007, exit=5),
        "config": Meaning(http=409, jsonrpc=-32008, exit=78),
        "invalid_request": Meaning(http=400, jsonrpc=-32602, exit=2),
        "internal": Meaning(http=500, jsonrpc=-32603, exit=1),
    }
)
"""
Every code and its meaning. JSON-RPC numbers below -32000 are the broker's own;
-32602 and -32603 are those of JSON-RPC 2.0. Exit statuses follow the README;
78 is ``EX_CONFIG`` of sysexits.h.
"""
