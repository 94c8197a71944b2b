"""
What a rotation asks of a backend, beyond what every backend does.

This module refuses to do I/O and to know any particular source: it holds protocols.
"""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import msgspec

from backends.base import Backend, Secret, WritableBackend


@runtime_checkable
class CheckedBackend(WritableBackend, Protocol):
    """A writable backend that writes only over what the writer has seen."""

    async def put_if(self, path: str, values: Mapping[str, Secret], *, expected: int | None) -> int:
        """
        Write as ``put`` does if the current version is ``expected``; None for a secret that is not there.

        Raises ``ConflictError`` where it is another one; then nothing was written.
        """
        ...


class Staged(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a rotation keeps beside the secret until it is over. Nobody is ever issued any of it.

    Attributes:
        token: the rotation's name.
        pending: the fields that are to be current.
        previous: those that were when it began; empty for none.
        expected: the version that was; None for none.
        at: when the pending ones were made, or taken over (UTC, Unix seconds).
        lifetime: seconds from then on after which they end by themselves; None for never.
        beside: what came along and belongs to another secret, such as a refresh token.

    """

    token: str
    pending: Mapping[str, Secret]
    previous: Mapping[str, Secret]
    expected: int | None
    at: float
    lifetime: float | None = None
    beside: Mapping[str, Secret] = msgspec.field(default_factory=dict)


@runtime_checkable
class StagingBackend(Backend, Protocol):
    """
    A backend that several brokers share, and that keeps what a rotation has staged where all of them see it.

    All writes are compare-and-set: of many brokers that begin at once, one wins.
    """

    async def put_if(self, path: str, values: Mapping[str, Secret], *, expected: int | None) -> int:
        """Write over the version ``expected``, as a ``CheckedBackend`` does."""
        ...

    async def staged(self, path: str) -> Staged | None:
        """Return what is staged for ``path``, or None."""
        ...

    async def stage(self, path: str, staged: Staged | None, *, instead_of: str | None) -> None:
        """
        Keep ``staged``, or nothing, in the place of what has the token ``instead_of`` (None: of nothing).

        Raises ``ConflictError`` where something else is staged; then nothing was written.
        """
        ...


@runtime_checkable
class RotatingBackend(Backend, Protocol):
    """A backend whose source replaces credentials by itself when told to."""

    async def rotate(self, path: str, *, token: str) -> None:
        """
        Have the source replace the credential at ``path``.

        It may come again with the same ``token``, where the answer was lost or
        the broker ended: it should then find out what happened the first time.
        """
        ...


@runtime_checkable
class RotatingLoginBackend(Backend, Protocol):
    """A backend that can replace what it logs in with itself."""

    async def rotate_login(self, *, token: str) -> None:
        """Get a new one, keep it, log in with it, and only then make the old one worthless. See ``rotate``."""
        ...
