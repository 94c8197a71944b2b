"""
What every backend is made of: secrets, credentials, the protocol, the errors.

This module refuses to do I/O and to know any particular source.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, NoReturn, Protocol, final, runtime_checkable

import msgspec

_MARKER: Final = "<secret>"


@final
class Secret:
    """
    A value that shows itself only when asked to by name.

    ``repr``, ``str``, ``format`` and every error that quotes it show one fixed
    marker, the same for all values: no prefix, no length. It cannot be pickled
    or copied, because a copy is one more place to leak from.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        """Wrap ``value``."""
        self._value = value

    def expose(self) -> str:
        """Return the value itself: the only way to it."""
        return self._value

    def __repr__(self) -> str:
        """Return the marker."""
        return _MARKER

    def __format__(self, spec: str) -> str:
        """Return the marker, whatever the width asked for: padding would tell nothing, truncation might."""
        return _MARKER

    def __eq__(self, other: object) -> bool:
        """Compare by value, so that tests and rotations need not expose."""
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        """Refuse: a set or a dict of secrets is a place that keeps them."""
        message = "a secret cannot be hashed"
        raise TypeError(message)

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled."""
        message = "a secret cannot be pickled"
        raise TypeError(message)


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a backend issued, once.

    Attributes:
        values: the fields. A secret with one field calls it ``value``.
        version: which version of a versioned secret this is, counted from 1; None where there are none.
        backend_lease: the backend's own name for what it can renew and revoke; None where there is nothing to revoke.
        ttl: seconds for which the backend promises the credential; None where it promises nothing.
        renewable: whether ``renew`` can prolong it.

    """

    values: Mapping[str, Secret]
    version: int | None = None
    backend_lease: str | None = None
    ttl: float | None = None
    renewable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """
    How a backend is, in words for ``status``.

    Attributes:
        state: one of ``ok``, ``locked``, ``unavailable``, ``misconfigured``.
        detail: a sentence for a person, without any value.
        hint: the command that mends it, or None.
        facts: what else a person wants to know, in this order: ``address``, ``logged in as``, ``token until``.

    """

    state: str
    detail: str = ""
    hint: str | None = None
    facts: Mapping[str, str] = field(default_factory=dict)


class Drawer(Protocol):
    """A place where a backend keeps one value over a restart of the broker, sealed."""

    async def read(self) -> Secret | None:
        """Return what was kept last, or None. Raises a ``BackendError`` where the store is not open."""
        ...

    async def write(self, value: Secret | None) -> None:
        """Keep ``value``, and nothing of what was kept before; None for nothing. On disk when it returns."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """
    What a backend's factory may know of the broker that it works for.

    A factory is ``from_config(name, options, surroundings) -> Backend``. It
    validates ``options`` strictly, does no I/O, and raises ``MisconfiguredError``.

    Attributes:
        mode: ``user`` or ``system``.
        config: the directory that relative paths in the config start from.
        state: the directory for what must outlive a boot.
        drawer: where the backend may keep one value sealed; None where there is no such place.
        shared: what the backends of one broker have in common, by a name of their own: two that use the same
            keyring must not have it ask a person twice.

    """

    mode: str
    config: Path
    state: Path
    drawer: Drawer | None = None
    shared: MutableMapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Backend(Protocol):
    """
    A source of credentials.

    Every method may raise any ``BackendError`` and nothing else on purpose.
    No method blocks the event loop; each has a deadline of its own.
    """

    name: str

    async def open(self) -> None:
        """
        Get ready to answer. Called once, before anything else.

        A backend that cannot answer yet (locked, unreachable) opens all the
        same and says so in ``health`` and in the error of each call.
        """
        ...

    async def close(self) -> None:
        """Let go of everything held. Revokes nothing."""
        ...

    def mints(self, path: str) -> bool:
        """Return whether ``issue`` makes something new at the source that can be revoked."""
        ...

    def at_hand(self, path: str) -> Credential | None:
        """
        Return what can be issued without waiting for anything, or None where ``issue`` has to be asked.

        Never blocks and never mints. A backend that has nothing at hand returns None.
        """
        ...

    async def issue(self, path: str, *, params: Mapping[str, Any], intent: str) -> Credential:
        """
        Read or mint the credential at ``path``.

        Args:
            path: what the config says, in the backend's own terms.
            params: what the config wants sent along, as it stands there.
            intent: the broker's name for this attempt, already on disk, that
                the backend may use to find again what a crash left behind.

        """
        ...

    async def renew(self, backend_lease: str, *, increment: float) -> float:
        """Prolong a lease by ``increment`` seconds from now; return the seconds it really has."""
        ...

    async def revoke(self, backend_lease: str) -> None:
        """Make the credential worthless. Revoking what is already gone succeeds."""
        ...

    async def health(self) -> Health:
        """Say how it is, without changing anything."""
        ...


@runtime_checkable
class KeepingBackend(Backend, Protocol):
    """A backend in which others keep what has to outlive a restart."""

    def drawer(self, name: str) -> Drawer:
        """Return the place of the backend called ``name``."""
        ...


class Preparation(msgspec.Struct, frozen=True, kw_only=True):
    """
    What is known of a credential before it is minted.

    Attributes:
        handle: what ``revoke`` takes to take back whatever comes of this intent, even where the answer of the mint
            was lost; None where only time does that.
        longest: seconds that it may live at the source when nobody renews it; None where that is not known.

    """

    handle: str | None = None
    longest: float | None = None


@runtime_checkable
class PreparingBackend(Backend, Protocol):
    """A backend that can say beforehand how to take back what a lost answer leaves behind."""

    async def prepare(self, path: str, *, params: Mapping[str, Any], intent: str) -> Preparation:
        """Get ready for one ``issue`` with the same arguments. What it makes is worth nothing by itself."""
        ...


class Lack(msgspec.Struct, frozen=True):
    """What keeps a path from being issued, and the command that mends it."""

    message: str
    hint: str | None = None


@runtime_checkable
class ExaminingBackend(Backend, Protocol):
    """A backend that can say whether it would be let, without issuing anything."""

    async def examine(self, wanted: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Lack]:
        """Return what is missing for which of these paths, with their ``params``; nothing where nothing is."""
        ...

    async def policy(self, wanted: Mapping[str, Mapping[str, Any]]) -> str:
        """Return the policy, in the source's own language, that these paths with their ``params`` need."""
        ...


@runtime_checkable
class LoggedInBackend(Backend, Protocol):
    """A backend that has a login of its own at the source."""

    async def log_out(self) -> None:
        """Give the login back: whatever hangs on it is worthless then. Never fails."""
        ...


@runtime_checkable
class AlarmingBackend(Backend, Protocol):
    """A backend that may notice what a person has to look into."""

    @property
    def alarm(self) -> str | None:
        """Return what that is, without any value, or None."""
        ...


class Lock(msgspec.Struct, frozen=True, kw_only=True):
    """
    What keeps a backend locked, and what opens it.

    Attributes:
        what: what is locked, in words: ``the keyring 'Login'``.
        takes_password: whether ``unlock`` can open it with a password; without, it asks somebody itself.
        asking: whether it asks somebody now.

    """

    what: str
    takes_password: bool
    asking: bool = False


@runtime_checkable
class UnlockableBackend(Backend, Protocol):
    """A backend that a person can unlock through the broker."""

    async def lock(self) -> Lock | None:
        """Return what is locked, or None where nothing is. Asks nobody."""
        ...

    async def unlock(self, password: Secret | None) -> None:
        """
        Unlock it with a password, or have it ask somebody; it tries again, whatever was tried before.

        Raises ``RefusedError`` where the password is wrong, ``LockedError`` where nobody answers.
        """
        ...


@runtime_checkable
class UnhurriedBackend(Backend, Protocol):
    """A backend that costs something to look at: a library to load, somebody else's program to start."""

    @property
    def idle(self) -> bool:
        """Return whether nobody has needed it yet. Then the daemon does not look how it is at its start."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version of a stored secret: its number, when it was written (UTC, Unix seconds), the names of its fields."""

    number: int
    created_at: float
    fields: Sequence[str]
    current: bool


@runtime_checkable
class WritableBackend(Backend, Protocol):
    """A backend in which an admin can keep secrets through the broker."""

    async def put(self, path: str, values: Mapping[str, Secret]) -> int:
        """Write a new version and make it current; return its number. On disk when it returns."""
        ...

    async def delete(self, path: str) -> None:
        """Remove the secret with all its versions. Raises ``SecretNotFoundError`` where there is none."""
        ...

    async def list(self) -> Sequence[str]:
        """Return the paths that hold a secret, sorted."""
        ...

    async def versions(self, path: str) -> Sequence[Version]:
        """Return the versions of a secret, newest first. Raises ``SecretNotFoundError`` where there is none."""
        ...


class KeyRotation(Protocol):
    """What rotating a master key did: where the key is now, which one, what was sealed anew, what is left to do."""

    @property
    def source(self) -> str: ...  # noqa: D102 -- see above
    @property
    def generation(self) -> int: ...  # noqa: D102
    @property
    def reencrypted(self) -> int: ...  # noqa: D102
    @property
    def remains(self) -> str | None: ...  # noqa: D102


@runtime_checkable
class KeyedBackend(Backend, Protocol):
    """A backend that seals what it keeps under a master key of its own."""

    async def rotate_key(self, *, reencrypt: bool = False) -> KeyRotation:
        """Replace the master key, and seal the values anew where asked. A crash leaves a store that opens."""
        ...


class BackendError(Exception):
    """
    A backend could not do what it was asked.

    Attributes:
        message: lower case, no full stop, never a value, never an upstream body.
        hint: the command that mends it, or None.

    """

    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        """Say what failed and, where there is something to do, what mends it."""
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        """Return the message and the hint."""
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


class SecretNotFoundError(BackendError):
    """There is no secret at this path."""


class RefusedError(BackendError):
    """The source said no: a policy, a wrong login."""


class LockedError(BackendError):
    """The source is there but locked or sealed; somebody has to open it."""


class UnavailableError(BackendError):
    """The source does not answer, or not in time. Nothing was minted."""

    retryable = True


class LeaseGoneError(BackendError):
    """The source no longer knows the lease: somebody has revoked it there, or its time was over."""


class OutcomeUnknownError(BackendError):
    """The source may have minted something and its answer was lost. Never retried blindly."""


class ConflictError(BackendError):
    """Somebody else has changed it meanwhile. Nothing was written."""


class MisconfiguredError(BackendError):
    """The config asks for something the source cannot do."""


class CorruptError(BackendError):
    """What is stored does not verify: wrong key, moved, changed, or cut off. Nothing was overwritten."""
