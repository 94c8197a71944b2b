"""
Secrets with versions, kept in a keyring. Everything here blocks, and runs on one thread.

Each secret is one item, and beside it another with the ledger of its versions,
which holds no value. The item comes first: where a crash or another program
leaves the two apart, the ledger is what is made to follow. Brokers of one user
that write at the same time take turns by a lock on a file.

This module refuses to write to an item of another program.
"""

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, final

from backends import keyring_text
from backends.base import (
    BackendError,
    Credential,
    RefusedError,
    Secret,
    SecretNotFoundError,
    UnavailableError,
    Version,
)
from backends.keyring_ring import LEDGERS, SECRETS, Ring
from backends.keyring_text import Ledger
from backends.storable import check_name

_SALT_BYTES: Final = 16
_LOCK_SECONDS: Final = 4.0
_CATCH_UP_SECONDS: Final = 0.5
_TURN: Final = 0.02


@final
class KeyringStore:
    """
    What a broker keeps in one keyring.

    Attributes:
        ring: the keyring.

    """

    def __init__(self, ring: Ring, lock_file: Path, *, clock: Callable[[], float] = time.time) -> None:
        """Keep secrets in ``ring``; whoever writes holds ``lock_file``. ``clock`` is Unix seconds, UTC."""
        self.ring = ring
        self._lock_file = lock_file
        self._clock = clock

    def read(self, path: str) -> Credential:
        """Return the current version of a secret, asking somebody where the keyring is locked."""
        text, ledger = self._current(path, ask=True)
        values = {field: Secret(value) for field, value in keyring_text.unpacked(text).items()}
        return Credential(values=values, version=ledger.newest.number)

    def read_foreign(self, service: str, account: str) -> Credential:
        """Return an item that another program has written, as it is. It has no versions."""
        text = self.ring.read(service, account, ask=True)
        if text is None:
            message = f"the keyring holds no item with service {service!r} and username {account!r}"
            raise SecretNotFoundError(message, hint="secret-tool search --all service NAME")
        return Credential(values={"value": Secret(text)})

    def put(self, path: str, values: Mapping[str, str]) -> int:
        """Write a new version and return its number."""
        text = keyring_text.packed(values)
        with self._turn():
            before = self.ring.read(SECRETS, path, ask=False)
            ledger = self._ledger(path)
            if before is not None:
                # What another program has put there meanwhile was a version, too.
                ledger = keyring_text.noted(ledger, before, now=self._clock(), salt=_salt())
            ledger = keyring_text.added(ledger, text, now=self._clock(), salt=_salt())
            self.ring.write(SECRETS, path, text, label=f"{path} (mcp-broker)", ask=False)
            # It is written. A ledger that cannot be now is made to follow when the item is looked at next.
            with contextlib.suppress(BackendError):
                self._keep(path, ledger)
        return ledger.newest.number

    def delete(self, path: str) -> None:
        """Remove a secret and its ledger."""
        with self._turn():
            there = self.ring.remove(SECRETS, path, ask=False)
            self.ring.remove(LEDGERS, path, ask=False)
        if not there:
            raise _not_found(path)

    def list(self) -> Sequence[str]:
        """Return the paths that hold a secret, sorted; what another program has put under no name of ours is none."""
        return sorted(filter(_is_name, self.ring.accounts(SECRETS)))

    def versions(self, path: str) -> Sequence[Version]:
        """Return what is known of a secret's versions, newest first."""
        return self._current(path, ask=False)[1].versions

    def _current(self, path: str, *, ask: bool) -> tuple[str, Ledger]:
        text = self.ring.read(SECRETS, path, ask=ask)
        if text is None:
            raise _not_found(path)
        known = self._ledger(path)
        ledger = keyring_text.noted(known, text, now=self._clock(), salt=_salt())
        if ledger is known:
            return text, ledger
        with contextlib.suppress(BackendError):
            return self._caught_up(path)
        # It cannot be written down now. It will be, when it is looked at again.
        return text, ledger

    def _caught_up(self, path: str) -> tuple[str, Ledger]:
        """Write down that another program has changed something; return what is there now."""
        # Whoever waits for a value does not wait long for this.
        with self._turn(_CATCH_UP_SECONDS):
            # Again: what looked like another program's may have been the middle of a put.
            text, known = self.ring.read(SECRETS, path, ask=False), self._ledger(path)
            if text is None:
                raise _not_found(path)
            ledger = keyring_text.noted(known, text, now=self._clock(), salt=_salt())
            if ledger is not known:
                self._keep(path, ledger)
            return text, ledger

    def _ledger(self, path: str) -> Ledger | None:
        return keyring_text.decode(self.ring.read(LEDGERS, path, ask=False))

    def _keep(self, path: str, ledger: Ledger) -> None:
        label = f"{path} (mcp-broker, its versions)"
        self.ring.write(LEDGERS, path, keyring_text.encode(ledger), label=label, ask=False)

    @contextlib.contextmanager
    def _turn(self, seconds: float = _LOCK_SECONDS) -> Iterator[None]:
        """Hold the lock that every broker of this user takes to write."""
        try:
            descriptor = os.open(self._lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            message = f"{self._lock_file} cannot be locked: {error.strerror}"
            raise UnavailableError(message, hint=f"ls -l {self._lock_file}") from None
        try:
            _wait_for(descriptor, seconds)
            yield
        finally:
            os.close(descriptor)


def _wait_for(descriptor: int, seconds: float) -> None:
    until = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                message = "another broker of yours is writing to the keyring, and does not finish"
                raise UnavailableError(message, hint="try again") from None
            time.sleep(_TURN)
        else:
            return


def lock_file(state: Path, runtime: Path = Path("/run/user")) -> Path:
    """Return the file by which the brokers of this user take turns: in their runtime directory where there is one."""
    own = runtime / str(os.getuid())
    try:
        mine = own.stat().st_uid == os.getuid()
    except OSError:
        mine = False
    return (own if mine else state) / "mcp-broker-keyring.lock"


def _is_name(path: str) -> bool:
    try:
        check_name(path)
    except RefusedError:
        return False
    return True


def _salt() -> str:
    return secrets.token_hex(_SALT_BYTES)


def _not_found(path: str) -> SecretNotFoundError:
    return SecretNotFoundError(f"there is no secret {path} in the keyring", hint=f"mcp-broker secret set {path}")
