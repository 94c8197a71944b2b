"""
The parameters and results of the verbs that unlock. This module holds types alone.
"""

from typing import Annotated

from msgspec import Meta

from broker.api.words import Name, Params, Result, Value


class LockRow(Result, frozen=True):
    """
    What is locked, and what opens it.

    ``usable`` says whether it can be unlocked at all now, ``takes_password``
    whether with a password from here, ``asking`` whether a prompt is open.
    """

    backend: str
    what: str
    takes_password: bool
    asking: bool
    usable: bool
    hint: str | None


class Locks(Result, frozen=True):
    """The backends that are locked."""

    locks: list[LockRow]


class BackendUnlock(Params, frozen=True):
    """Which backend to unlock, and with which password; without one it asks somebody itself."""

    backend: Name
    password: Annotated[Value, Meta(min_length=1, max_length=4096)] | None = None
