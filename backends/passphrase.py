"""
A master key that is made from a passphrase in a file, by Argon2id.

Salt and cost stand in the store in clear; they are no secret, and without them
the passphrase alone opens nothing. This module refuses an empty passphrase, a
short one where a store is to be sealed with it, and a cost that a changed file
could stop the machine with.
"""

import base64
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from backends import private_file
from backends.base import CorruptError, LockedError, MisconfiguredError
from backends.envelope import KEY_BYTES, Cipher
from backends.master_key import MasterKey, Wrapping

SHORTEST: Final = 12
"""Bytes in the shortest passphrase that a store is sealed with."""

_SALT_BYTES: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """
    What one guess costs. The defaults are the second choice that RFC 9106 recommends.

    Attributes:
        passes: over the memory.
        kibibytes: of memory.
        lanes: that can be computed at the same time.

    """

    passes: int = 3
    kibibytes: int = 64 * 1024
    lanes: int = 4


_HIGHEST: Final = Cost(passes=64, kibibytes=4 * 1024 * 1024, lanes=64)


@final
class PassphraseFile:
    """
    A file of mode 0600 that holds a passphrase.

    To rotate, write the next passphrase to ``NAME.new``; it takes the place of
    the old one where the directory can be written.
    """

    __slots__ = ("_cost", "_path", "_pending", "caution", "label")

    def __init__(self, path: Path, *, cost: Cost | None = None) -> None:
        """Use the file at ``path``, and ``cost`` for what is sealed from now on."""
        self._path = path
        self._pending = path.with_name(f"{path.name}.new")
        self._cost = cost or Cost()
        self.label = f"passphrase file {path}"
        self.caution: str | None = (
            "a passphrase file protects nothing that is copied along with it: keep it out of the backup of sealed.db"
        )

    def first(self, coming: Wrapping) -> MasterKey:
        """Return the key of the passphrase, with a salt of its own."""
        del coming
        return self._fresh(self._path, pending=False)

    def candidates(self, wrapping: Wrapping) -> Iterator[MasterKey]:
        """Yield the key of the passphrase, then that of the one beside it."""
        if wrapping.kdf is None:
            message = "the store is not sealed with a passphrase"
            raise LockedError(message)
        salt, cost = _decode(wrapping.kdf)
        pending = os.path.lexists(self._pending)
        if os.path.lexists(self._path) or not pending:
            yield MasterKey(cipher=_derive(_read(self._path), salt, cost), kdf=wrapping.kdf)
        if pending:
            yield MasterKey(cipher=_derive(_read(self._pending), salt, cost), kdf=wrapping.kdf, pending=True)

    def next(self, coming: Wrapping) -> MasterKey:
        """Return the key of the passphrase in ``NAME.new``."""
        del coming
        if not os.path.lexists(self._pending):
            message = f"there is no next passphrase in {self._pending}"
            raise MisconfiguredError(
                message,
                hint=f"write it to {self._pending}, chmod 600, then: mcp-broker key rotate",
            )
        return self._fresh(self._pending, pending=True)

    def settle(self, wrapping: Wrapping, *, pending: bool) -> None:
        """Put the next passphrase in the place of the old one."""
        del wrapping
        if pending:
            private_file.put_in_place(self._pending, self._path)

    def _fresh(self, path: Path, *, pending: bool) -> MasterKey:
        passphrase = _read(path)
        if len(passphrase) < SHORTEST:
            message = f"the passphrase in {path} is shorter than {SHORTEST} bytes"
            raise MisconfiguredError(message)
        salt = os.urandom(_SALT_BYTES)
        return MasterKey(cipher=_derive(passphrase, salt, self._cost), kdf=_encode(salt, self._cost), pending=pending)


def _read(path: Path) -> bytes:
    hint = f"restore {path}: without the passphrase the store cannot be opened"
    content = private_file.read(path, "passphrase file", hint=hint)
    passphrase = content.removesuffix(b"\n").removesuffix(b"\r")
    if not passphrase:
        message = f"the passphrase file {path} is empty"
        raise LockedError(message, hint=hint)
    return passphrase


def _derive(passphrase: bytes, salt: bytes, cost: Cost) -> Cipher:
    # 10 ms that only who has a passphrase need pay.
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id  # noqa: PLC0415

    kdf = Argon2id(salt=salt, length=KEY_BYTES, iterations=cost.passes, lanes=cost.lanes, memory_cost=cost.kibibytes)
    return Cipher(kdf.derive(passphrase))


def _encode(salt: bytes, cost: Cost) -> str:
    named = {"kdf": "argon2id", "salt": base64.b64encode(salt).decode()}
    return json.dumps({**named, "t": cost.passes, "m": cost.kibibytes, "p": cost.lanes})


def _decode(text: str) -> tuple[bytes, Cost]:
    """Read what ``_encode`` wrote. It is not yet authenticated here, so nothing in it is believed without limits."""
    try:
        fields = json.loads(text)
        salt = base64.b64decode(fields["salt"], validate=True)
        cost = Cost(passes=int(fields["t"]), kibibytes=int(fields["m"]), lanes=int(fields["p"]))
        known = fields["kdf"] == "argon2id"
    except (ValueError, KeyError, TypeError):
        raise _damaged() from None
    sane = (
        1 <= cost.passes <= _HIGHEST.passes
        and 1 <= cost.lanes <= _HIGHEST.lanes
        and 8 * cost.lanes <= cost.kibibytes <= _HIGHEST.kibibytes
        and len(salt) == _SALT_BYTES
    )
    if not (known and sane):
        raise _damaged()
    return salt, cost


def _damaged() -> CorruptError:
    return CorruptError("what the store says about its passphrase makes no sense")
