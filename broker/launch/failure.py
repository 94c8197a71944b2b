"""
Why a server cannot be started, in the three forms it is told in.

This module refuses to hold a value: what it says goes to a model.
"""

MEANINGS = {
    "denied": (-32001, 3),
    "locked": (-32002, 4),
    "unavailable": (-32003, 4),
    "rate_limited": (-32004, 4),
    "audit_unavailable": (-32005, 4),
    "expired": (-32006, 1),
    "integrity": (-32007, 5),
    "config": (-32008, 78),
    "invalid_request": (-32602, 2),
    "internal": (-32603, 1),
}
"""JSON-RPC number and exit status of every code: ``broker.errors.MEANINGS`` again, and a test says so."""


class CannotStartError(Exception):
    """
    The server cannot be started.

    Attributes:
        code: stable, for programs.
        message: lower case, no full stop, never a value.
        hint: the command that mends it, or None.

    """

    def __init__(self, message: str, *, code: str, hint: "str | None" = None) -> None:
        """Say what is wrong and, where there is something to do, what mends it."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        """Return what stderr says."""
        return f"mcp-broker: {self.message}" + (f"\nhint: {self.hint}" if self.hint else "")

    @property
    def number(self) -> int:
        """Return the code as JSON-RPC has it."""
        return MEANINGS[self.code][0]

    @property
    def status(self) -> int:
        """Return the code as an exit status."""
        return MEANINGS[self.code][1]
