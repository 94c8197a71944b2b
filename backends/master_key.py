"""
Where the master key comes from: the key that opens the data key of a sealed store.

A source finds the key, makes the next one, and lets go of the one before. Every
step of that can be cut short by a crash: ``next`` has the new key on disk before
the store is wrapped with it, ``candidates`` tries the one in force and then the
one that may have come into force, ``settle`` clears up. Passphrases and the OS
keyring have modules of their own, because of what they import.

This module refuses to read a key that others can read, to take an empty one for
a key, and to show one.
"""

import base64
import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, final, runtime_checkable

from backends import private_file
from backends.base import CorruptError, Lock, LockedError, UnavailableError
from backends.envelope import KEY_BYTES, Cipher, fresh_key

_COMMENT: Final = """\
# The master key of mcp-broker's sealed store.
# Who has this file and sealed.db has every secret in it: never keep copies of both in one place.
"""

_CREDENTIAL_LIMIT: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrapping:
    """
    What a store says in clear about the key that it is wrapped with.

    Attributes:
        store: the store's own random name.
        generation: which master key this is, counted from 1.
        kdf: what a passphrase becomes a key with; None where the key is a key already.

    """

    store: bytes
    generation: int
    kdf: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MasterKey:
    """
    A key that may open the store.

    Attributes:
        cipher: the key, ready to be used.
        pending: whether it was made to come into force after the current one.
        kdf: what the store has to remember to find it again.

    """

    cipher: Cipher
    pending: bool = False
    kdf: str | None = None


class KeySource(Protocol):
    """
    A place that a master key comes from. Its methods block: they run on a thread.

    Attributes:
        label: what and where it is, for messages. It stands in the store in clear.
        caution: what this source does not protect against, or None.

    """

    label: str
    caution: str | None

    def first(self, coming: Wrapping) -> MasterKey:
        """Return the key for a store that is new, or new to this source."""
        ...

    def candidates(self, wrapping: Wrapping) -> Iterator[MasterKey]:
        """Yield the keys that may open the store: the one in force, then one that may have come into force."""
        ...

    def next(self, coming: Wrapping) -> MasterKey:
        """Return the key that will be the one of ``coming``; a crash from now on does not lose it."""
        ...

    def settle(self, wrapping: Wrapping, *, pending: bool) -> None:
        """
        Let go of every key but the one in force. Doing it twice is harmless.

        Args:
            wrapping: what the store says now.
            pending: whether the key that opens it was the pending one.

        """
        ...


@runtime_checkable
class UnlockableSource(Protocol):
    """A source that a person can unlock. Its methods may be called while others are under way."""

    def lock(self) -> Lock | None:
        """Return what is locked, or None where nothing is. Asks nobody."""
        ...

    def unlock(self, password: str | None) -> None:
        """Unlock it with a password, or have it ask somebody. Raises ``RefusedError`` for a wrong one."""
        ...


@final
class KeyFile:
    """
    A file of mode 0600 that holds the key as base64.

    The next key is written beside it, as ``NAME.new``, and takes its place when
    the store is wrapped with it.
    """

    __slots__ = ("_path", "_pending", "caution", "label")

    def __init__(self, path: Path) -> None:
        """Use the file at ``path``."""
        self._path = path
        self._pending = path.with_name(f"{path.name}.new")
        self.label = f"key file {path}"
        self.caution: str | None = (
            "a key file protects nothing that is copied along with it: keep it out of the backup that has sealed.db"
        )

    def first(self, coming: Wrapping) -> MasterKey:
        """Return the key in the file, which ``init`` has made."""
        del coming
        return MasterKey(cipher=_read_key_file(self._path))

    def candidates(self, wrapping: Wrapping) -> Iterator[MasterKey]:
        """Yield the key in the file, then the one beside it."""
        del wrapping
        pending = os.path.lexists(self._pending)
        if os.path.lexists(self._path) or not pending:
            yield MasterKey(cipher=_read_key_file(self._path))
        if pending:
            yield MasterKey(cipher=_read_key_file(self._pending), pending=True)

    def next(self, coming: Wrapping) -> MasterKey:
        """Write a new key beside the file."""
        del coming
        # One that was left here never came into force: `settle` has seen to that.
        with _unavailable(self._pending):
            self._pending.unlink(missing_ok=True)
            create_key_file(self._pending)
        return MasterKey(cipher=_read_key_file(self._pending), pending=True)

    def settle(self, wrapping: Wrapping, *, pending: bool) -> None:
        """Put the new key in the place of the old one, or away where it never came into force."""
        del wrapping
        if pending:
            private_file.put_in_place(self._pending, self._path)
        else:
            with _unavailable(self._pending):
                self._pending.unlink(missing_ok=True)


@final
class Credential:
    """
    A credential that systemd hands to the unit, the key as base64.

    Only an operator can change it. To rotate, the unit loads the next one as
    ``NAME.new``; from then on either of the two may be the one in force.
    """

    __slots__ = ("_directory", "_name", "caution", "label")

    def __init__(self, name: str, directory: Path | None) -> None:
        """Use the credential ``name`` in ``directory``, which is ``$CREDENTIALS_DIRECTORY``; None where it is unset."""
        self._name = name
        self._directory = directory
        self.label = f"systemd credential {name}"
        self.caution: str | None = None

    def first(self, coming: Wrapping) -> MasterKey:
        """Return the key in the credential."""
        del coming
        return MasterKey(cipher=credential_key(self._name, self._directory))

    def candidates(self, wrapping: Wrapping) -> Iterator[MasterKey]:
        """Yield the key in the credential, then the one in ``NAME.new`` where the unit has one."""
        del wrapping
        yield MasterKey(cipher=credential_key(self._name, self._directory))
        if self._directory is not None and os.path.lexists(self._directory / f"{self._name}.new"):
            yield MasterKey(cipher=credential_key(f"{self._name}.new", self._directory), pending=True)

    def next(self, coming: Wrapping) -> MasterKey:
        """Return the key in ``NAME.new``."""
        del coming
        return MasterKey(cipher=credential_key(f"{self._name}.new", self._directory), pending=True)

    def settle(self, wrapping: Wrapping, *, pending: bool) -> None:
        """Ask for the operator, who alone can put a credential in place. Raises ``UnavailableError``."""
        del wrapping
        if pending:
            message = f"the {self.label}.new is in force: put it in the place of {self._name}"
            hint = f"mv /etc/credstore.encrypted/{self._name}.new /etc/credstore.encrypted/{self._name}"
            raise UnavailableError(message, hint=hint)


def credential_key(name: str, directory: Path | None) -> Cipher:
    """Return the key in a systemd credential. Raises ``LockedError``, ``CorruptError``."""
    what = f"systemd credential {name}"
    hint = f"openssl rand -base64 32 | systemd-creds encrypt --name={name} - /etc/credstore.encrypted/{name}"
    if directory is None:
        message = f"there is no {what}: the broker was not started by a unit that loads it"
        raise LockedError(message, hint=hint)
    try:
        with (directory / name).open("rb") as file:
            content = file.read(_CREDENTIAL_LIMIT)
    except OSError as error:
        message = f"the {what} cannot be read: {error.strerror}"
        raise LockedError(message, hint=hint) from None
    # systemd can start a unit with a credential that is there and empty (systemd issue 31194).
    return _parse(content, what, hint=hint)


def create_key_file(path: Path, *, owner: tuple[int, int] | None = None) -> None:
    """Write a new random key to a file that did not exist. Raises ``FileExistsError``."""
    content = _COMMENT.encode() + base64.b64encode(fresh_key()) + b"\n"
    private_file.create(path, content, owner=owner)


def encode_key(key: bytes) -> str:
    """Return a key as text."""
    return base64.b64encode(key).decode()


def decode_key(text: bytes) -> bytes:
    """Return the key in a text of comments and one line of base64. Raises ``ValueError`` without the text in it."""
    lines = (line.strip() for line in text.splitlines())
    try:
        (line,) = (line for line in lines if line and not line.startswith(b"#"))
        key = base64.b64decode(line, validate=True)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        message = "not a key"
        raise ValueError(message)
    return key


def _parse(content: bytes, what: str, *, hint: str) -> Cipher:
    if not content.strip():
        message = f"the {what} is empty"
        raise LockedError(message, hint=hint)
    try:
        return Cipher(decode_key(content))
    except ValueError:
        message = f"the {what} holds no key: it has to be {KEY_BYTES} bytes as base64"
        raise CorruptError(message) from None


def _read_key_file(path: Path) -> Cipher:
    content = private_file.read(path, "key file", hint="mcp-broker init")
    return _parse(content, f"key file {path}", hint=f"restore {path} from your backup of it")


@contextlib.contextmanager
def _unavailable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = f"the key file {path} cannot be written: {error.strerror}"
        raise UnavailableError(message, hint=f"ls -ld {path.parent}") from None


def credentials_directory() -> Path | None:
    """Return where systemd has put the unit's credentials, or None."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    return Path(directory) if directory else None
