"""
A sealed store in its file: opened, verified, changed, its master key rotated.

Everything here blocks and runs on one thread. What others read is ``view``, a
snapshot that is never changed, only replaced, once what it shows is on disk.

This module refuses to write to a file that did not verify, that somebody else
has changed, or that is no longer the one it opened. What it cannot promise:
that a disk forgets. After ``rotate`` the old key and what it sealed are gone
from the file and its WAL, and may live on in blocks that the file system has
freed, in snapshots, and in copies that somebody has made.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, final

from backends import sealed_file, sealed_rows
from backends.base import BackendError, ConflictError, CorruptError, SecretNotFoundError, UnavailableError
from backends.envelope import Cipher, OpenError, fresh_key
from backends.master_key import KeySource, MasterKey, Wrapping
from backends.sealed_file import Header
from backends.sealed_rows import Change, View, wrapping_bound

_STORE_BYTES: Final = 16

Stage = Callable[[str], None]
"""Called between the steps of a rotation with the name of the one that is done: there a test can end the process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotated:
    """
    What a rotation of the master key did.

    Attributes:
        source: where the key is that is in force now.
        generation: which one it is.
        reencrypted: how many versions of secrets were sealed anew.
        remains: what is left for a person to do, in words; None where nothing is.

    """

    source: str
    generation: int
    reencrypted: int
    remains: str | None = None


@final
class SealedStore:
    """
    The store in the file at ``path``.

    Attributes:
        view: what is in it; None before it is open.
        asking: whether it is waiting for the source of its master key.
        source: that source.

    """

    def __init__(
        self, path: Path, source: KeySource, *, keep: int = 10, clock: Callable[[], float] = time.time
    ) -> None:
        """Keep ``keep`` versions of each secret, dated by ``clock`` (Unix seconds, UTC)."""
        self.view: View | None = None
        self.asking = False
        self.source = source
        self._path = path
        self._keep = keep
        self._clock = clock
        self._lock: int | None = None
        self._connection: sqlite3.Connection | None = None
        self._opened: os.stat_result | None = None
        self._seen = 0
        self._unsettled = False

    def open(self) -> None:
        """
        Read, verify, and get ready to write; make a store where there is none. Opening what is open does nothing.

        Raises any ``BackendError``; then no byte of the file has changed.
        """
        if self._connection is not None:
            return
        if self._lock is None:
            self._lock = sealed_file.lock(self._path)
        try:
            if self.view is None and not os.path.lexists(self._path):
                self._create()
            self._load()
        except BaseException:
            # While something is served from memory, the file stays ours alone.
            if self.view is None:
                self._unlock()
            raise

    def close(self) -> None:
        """Let go of the file and of everything read from it."""
        self.view = None
        self._disconnect()
        self._unlock()

    def put(self, name: str, values: Mapping[str, str], *, keep: int | None = None) -> int:
        """Write a new version and return its number; ``keep`` so many of this secret, not as many as of all."""
        view = self._ready()
        change = sealed_rows.add(view, name, values, now=self._clock(), keep=keep or self._keep)
        self._make(change)
        return change.view.shelves[name].version

    def put_if(self, name: str, values: Mapping[str, str], *, expected: int | None) -> int:
        """Write a new version if the current one is ``expected``, None for none; return its number."""
        shelf = self._ready().shelves.get(name)
        if (None if shelf is None else shelf.version) != expected:
            message = f"the secret {name} was changed meanwhile"
            raise ConflictError(message)
        return self.put(name, values)

    def delete(self, name: str) -> None:
        """Remove a secret with all its versions."""
        view = self._ready()
        if name not in view.shelves:
            message = f"there is no secret {name}"
            raise SecretNotFoundError(message, hint="mcp-broker secret list")
        self._make(sealed_rows.drop(view, name))

    def rotate(self, source: KeySource | None, *, reencrypt: bool, stage: Stage) -> Rotated:
        """
        Wrap the data key with a new master key, or make a new data key and seal everything with it.

        Without ``reencrypt`` the data key stays: who had the old master key and
        a copy of the file can read what is put in later, too. With it they can
        read what was in their copy, and no more.

        Args:
            source: where the new key comes from; None for the next one of the same source.
            reencrypt: whether to seal the values anew.
            stage: called after each step.

        """
        view = self._ready()
        before = self.source
        if self._unsettled:
            # Or the next key would be made in the place of the only one that opens the store.
            self._settle(pending=True)
        coming = replace(view.header.wrapping, generation=view.header.wrapping.generation + 1, kdf=None)
        data_key = fresh_key() if reencrypt else self._unwrap(view.header)[0]
        key = before.next(coming) if source is None else source.first(coming)
        stage("key made")
        after = source or before
        header = _wrap(coming, key, data_key, after.label)
        change = self._resealed(view, header, data_key) if reencrypt else _rewrapped(view, header)
        del data_key
        self._make(change, before_commit=lambda: stage("written"))
        # From here on the pending key is the one in force, wherever it is: nothing may make way for another.
        self.source, self._unsettled = after, key.pending
        stage("committed")
        remains = self._clean()
        stage("cleaned")
        remains = self._try_to_settle(pending=key.pending) or remains
        if source is not None:
            remains = remains or f"the old key is still there: {before.label}"
        stage("settled")
        return Rotated(
            source=self.source.label,
            generation=coming.generation,
            reencrypted=len(change.write),
            remains=remains,
        )

    def _create(self) -> None:
        wrapping = Wrapping(store=os.urandom(_STORE_BYTES), generation=1)
        with self._asking():
            key = self.source.first(wrapping)
        data_key = fresh_key()
        header = _wrap(wrapping, key, data_key, self.source.label)
        sealed_file.create(self._path, sealed_rows.empty(header, Cipher(data_key)).header)

    def _load(self) -> None:
        header, rows = sealed_file.read(self._path)
        cipher, pending = self._cipher(header)
        try:
            view = sealed_rows.genuine(header, cipher, rows)
        except OpenError:
            raise sealed_file.damaged(self._path, "was changed by somebody else, or is damaged") from None
        self._connection = sealed_file.connect(self._path)
        try:
            with sealed_file.translated(self._path):
                self._opened = self._path.stat()
                self._seen = self._data_version()
        except BackendError:
            self._disconnect()
            raise
        self.view = view
        self._try_to_settle(pending=pending)

    def _cipher(self, header: Header) -> tuple[Cipher, bool]:
        known = self.view
        if known is not None and known.header.data_key == header.data_key:
            return known.cipher, self._unsettled
        data_key, pending = self._unwrap(header)
        return Cipher(data_key), pending

    def _unwrap(self, header: Header) -> tuple[bytes, bool]:
        """Return the data key, and whether it was the pending master key that opened it."""
        bound = wrapping_bound(header.wrapping, header.source)
        with self._asking():
            for key in self.source.candidates(header.wrapping):
                with contextlib.suppress(OpenError):
                    return key.cipher.open(header.data_key, bound), key.pending
        message = (
            f"the key from the {self.source.label} does not open {self._path}, which was sealed with the"
            f" {header.source}: it is another key, or the file is damaged"
        )
        raise CorruptError(
            message,
            hint="set [backends.local] key in broker.toml to where the right one is; nothing was overwritten",
        )

    def _resealed(self, view: View, header: Header, data_key: bytes) -> Change:
        _, rows = sealed_file.read(self._path)
        try:
            return sealed_rows.reseal(view, rows, header, Cipher(data_key))
        except OpenError:
            raise sealed_file.damaged(self._path, "was changed by somebody else, or is damaged") from None

    def _ready(self) -> View:
        """Return what there is, once the file is known to be the one it was."""
        if self.view is None or self._connection is None:
            self.open()
        with sealed_file.translated(self._path):
            if self._data_version() != self._seen:
                self._disconnect()
                self._load()
            self._same_file()
        view = self.view
        if view is None:
            message = f"{self._path} is not open"
            raise UnavailableError(message)
        return view

    def _same_file(self) -> None:
        try:
            now = self._path.stat()
        except FileNotFoundError:
            now = None
        if now is None or self._opened is None or not os.path.samestat(now, self._opened):
            message = f"{self._path} was replaced or removed while the broker had it open"
            raise UnavailableError(message, hint="mcp-broker stop")

    def _make(self, change: Change, *, before_commit: Callable[[], None] = lambda: None) -> None:
        """Put a change on disk, then show it."""
        connection = self._connected()
        try:
            with sealed_file.translated(self._path), sealed_file.transaction(connection):
                sealed_file.write_rows(connection, change.write)
                sealed_file.remove_rows(connection, change.remove)
                sealed_file.write_header(connection, change.view.header)
                before_commit()
        except BackendError:
            # What the disk has now is unknown. Before the next change it is read and verified again.
            self._disconnect()
            raise
        self.view = change.view
        # It is on disk. Whether the WAL is empty is another question, and the next change asks it again.
        with contextlib.suppress(sqlite3.Error):
            sealed_file.checkpoint(connection)

    def _clean(self) -> str | None:
        """Take what was overwritten out of the file; return what to do where that failed."""
        connection = self._connected()
        try:
            connection.execute("VACUUM")
            sealed_file.checkpoint(connection)
        except sqlite3.Error:
            return f"{self._path} may still hold what the old key sealed: free some space and rotate again"
        return None

    def _settle(self, *, pending: bool) -> None:
        """
        Let go of every key but the one in force. Raises ``BackendError`` where that fails; the store works on.

        The old key goes when the new wrapping is in the file itself: a commit
        that is in the WAL alone may be gone after a power cut, if the disk lied.
        """
        self._unsettled = pending
        if not sealed_file.checkpoint(self._connected()):
            message = f"another program reads {self._path}: the new key stays beside the old one"
            raise UnavailableError(message, hint="mcp-broker key rotate")
        if self.view is not None:
            self.source.settle(self.view.header.wrapping, pending=pending)
        self._unsettled = False

    def _try_to_settle(self, *, pending: bool) -> str | None:
        """Return what is left to do, or None. Whatever is wrong, the store is open."""
        try:
            with sealed_file.translated(self._path):
                self._settle(pending=pending)
        except BackendError as error:
            return error.message
        return None

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            message = f"{self._path} is not open"
            raise UnavailableError(message)
        return self._connection

    def _data_version(self) -> int:
        (version,) = self._connected().execute("PRAGMA data_version").fetchone()
        return int(version)

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        self.asking = True
        try:
            yield
        finally:
            self.asking = False

    def _disconnect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _wrap(wrapping: Wrapping, key: MasterKey, data_key: bytes, label: str) -> Header:
    """Return a header that lacks its manifest yet."""
    wrapping = replace(wrapping, kdf=key.kdf)
    sealed = key.cipher.seal(data_key, wrapping_bound(wrapping, label))
    return Header(wrapping=wrapping, source=label, data_key=sealed, manifest=b"")


def _rewrapped(view: View, header: Header) -> Change:
    # The manifest is sealed with the data key, which stays.
    return Change(view=replace(view, header=replace(header, manifest=view.header.manifest)))
