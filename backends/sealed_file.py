"""
The file of a sealed store: SQLite, with everything in it that a reader needs.

Reading is done with a connection that cannot write, so that a file that does
not verify is still the same file afterwards, its WAL included. A connection
that writes is made only then. This module knows no key: what it hands out is
sealed, and whether it is genuine is for ``backends.sealed_store`` to find out.

It refuses to make a store where there are traces of one, to open one that
another process has open, and to guess at a format newer than its own.
"""

import contextlib
import fcntl
import os
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from backends import private_file
from backends.base import BackendError, CorruptError, MisconfiguredError, UnavailableError
from backends.master_key import Wrapping

FORMAT: Final = 1
"""The format that this code writes, and the newest that it reads."""

_APPLICATION: Final = 0x4D435042  # "MCPB"

_SCHEMA: Final = """
CREATE TABLE header (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    store BLOB NOT NULL,
    generation INTEGER NOT NULL,
    source TEXT NOT NULL,
    kdf TEXT,
    data_key BLOB NOT NULL,
    manifest BLOB NOT NULL
);
CREATE TABLE secrets (
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    created_at REAL NOT NULL,
    fields TEXT NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (name, version)
) WITHOUT ROWID;
"""

_BUSY_MILLISECONDS: Final = 2000
_CHECKPOINT_MILLISECONDS: Final = 100

_UNREADABLE: Final = frozenset(
    {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_SCHEMA}
)
"""What SQLite says of a file that is not what it was; everything else is about the disk or about others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """
    The one row that says how the store is sealed.

    Attributes:
        wrapping: which master key.
        source: where that came from, in words.
        data_key: the data key, sealed with the master key.
        manifest: the digest of all rows, sealed with the data key.

    """

    wrapping: Wrapping
    source: str
    data_key: bytes
    manifest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One version of one secret. ``fields`` is a JSON list of names, ``sealed`` their values."""

    name: str
    version: int
    created_at: float
    fields: str
    sealed: bytes


def lock(path: Path) -> int:
    """
    Make sure that no other process has the store open; return what holds the lock until it is closed.

    The lock is on a file of its own: closing any descriptor of a file that
    SQLite has open would drop SQLite's own locks.
    """
    beside = path.with_name(f"{path.name}.lock")
    with translated(path):
        descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        message = f"another process has {path} open"
        raise UnavailableError(message, hint="mcp-broker status") from None
    return descriptor


def create(path: Path, header: Header) -> None:
    """
    Make a store that holds nothing yet. It appears under its name when it is whole and on disk.

    Raises ``CorruptError`` where the WAL of a store that has gone is still there:
    SQLite would play it into the new one.
    """
    draft = path.with_name(f"{path.name}.new")
    with translated(path):
        wal = path.with_name(f"{path.name}-wal")
        if wal.exists() and wal.stat().st_size:
            message = f"{path} has gone and {wal.name} is still there"
            raise CorruptError(message, hint=_restore(path))
        for suffix in ("", "-journal", "-wal", "-shm"):
            draft.with_name(draft.name + suffix).unlink(missing_ok=True)
        os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        with contextlib.closing(_connect(draft, "rw")) as connection:
            connection.execute("PRAGMA synchronous = EXTRA")
            connection.executescript(
                f"BEGIN; PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {FORMAT}; {_SCHEMA} COMMIT;"
            )
            write_header(connection, header)
            connection.execute("PRAGMA journal_mode = WAL")
        draft.replace(path)
        private_file.sync_directory(path.parent)


def read(path: Path) -> tuple[Header, list[Row]]:
    """
    Return all that is in the file, without changing a byte of it.

    Raises:
        CorruptError: it is not a store, not a whole one, or one of a newer format.
        MisconfiguredError: others than its owner have access to it.
        UnavailableError: the file system does not let us read it.

    """
    with translated(path):
        status = path.stat()
        if stat.S_IMODE(status.st_mode) & 0o077:
            message = f"others than its owner have access to {path}"
            raise MisconfiguredError(message, hint=f"chmod 600 {path}")
        if status.st_size == 0:
            message = f"{path} is empty"
            raise CorruptError(message, hint=_restore(path))
        with contextlib.closing(_connect(path, "ro")) as connection:
            _check_format(connection, path)
            (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            if verdict != "ok":
                message = f"{path} is damaged"
                raise CorruptError(message, hint=_restore(path))
            return _read_header(connection, path), [_row(row, path) for row in connection.execute(_ROWS)]


def connect(path: Path) -> sqlite3.Connection:
    """Return a connection that writes, to a store that has been read and found good."""
    with translated(path), contextlib.ExitStack() as failing:
        connection = failing.enter_context(contextlib.closing(_connect(path, "rw")))
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")
        checkpoint(connection)
        failing.pop_all()
    return connection


def checkpoint(connection: sqlite3.Connection) -> bool:
    """
    Bring everything from the WAL into the file and cut the WAL off; return whether that is done.

    A WAL that is damaged while nobody looks is taken for one that ends earlier;
    an empty one has nothing to lose. Another program that reads may be in the
    way; it is not waited for long, the next checkpoint does it.
    """
    connection.execute(f"PRAGMA busy_timeout = {_CHECKPOINT_MILLISECONDS}").fetchone()
    (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}").fetchone()
    return not busy


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of it, on disk, or none of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # SQLite may have rolled back by itself, and after an error of the disk it may be unable to.
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def write_header(connection: sqlite3.Connection, header: Header) -> None:
    """Put ``header`` in the place of the one there is."""
    wrapping = header.wrapping
    connection.execute(
        "INSERT OR REPLACE INTO header (one, store, generation, source, kdf, data_key, manifest)"
        " VALUES (1, ?, ?, ?, ?, ?, ?)",
        (wrapping.store, wrapping.generation, header.source, wrapping.kdf, header.data_key, header.manifest),
    )


def write_rows(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """Put ``rows`` in the place of those of the same name and version."""
    connection.executemany(
        "INSERT OR REPLACE INTO secrets (name, version, created_at, fields, sealed) VALUES (?, ?, ?, ?, ?)",
        [(row.name, row.version, row.created_at, row.fields, row.sealed) for row in rows],
    )


def remove_rows(connection: sqlite3.Connection, places: Sequence[tuple[str, int]]) -> None:
    """Remove the rows of these names and versions."""
    connection.executemany("DELETE FROM secrets WHERE name = ? AND version = ?", places)


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Say in our own words what SQLite and the file system say."""
    try:
        yield
    except BackendError:
        raise
    except UnicodeDecodeError:
        # What SQLite quotes of a damaged schema need not be UTF-8, and Python wants to show it.
        raise damaged(path, "is damaged, or is not a sealed store") from None
    except sqlite3.Error as error:
        # Python's own, about text that is not UTF-8, have no code.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
        if code & 0xFF in _UNREADABLE:
            message = f"{path} is damaged, or is not a sealed store"
            raise CorruptError(message, hint=_restore(path)) from None
        name = getattr(error, "sqlite_errorname", "an error")
        message = f"{path} cannot be used: {name}"
        raise UnavailableError(message, hint=f"ls -l {path}; df {path}") from None
    except OSError as error:
        message = f"{path} cannot be used: {error.strerror}"
        raise UnavailableError(message, hint=f"ls -l {path}; df {path}") from None


def damaged(path: Path, how: str) -> CorruptError:
    """Return the error for a store that does not verify."""
    return CorruptError(f"{path} {how}", hint=_restore(path))


_ROWS: Final = "SELECT name, version, created_at, fields, sealed FROM secrets ORDER BY name, version"


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(str(path))}?mode={mode}",
        uri=True,
        isolation_level=None,
        timeout=_BUSY_MILLISECONDS / 1000,
        cached_statements=16,
    )


def _check_format(connection: sqlite3.Connection, path: Path) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != _APPLICATION or version < 1:
        raise damaged(path, "is not a sealed store")
    if version > FORMAT:
        message = f"{path} has format {version}, and this broker knows no format after {FORMAT}"
        raise CorruptError(
            message,
            hint="pipx upgrade mcp-secrets-broker",
        )


def _read_header(connection: sqlite3.Connection, path: Path) -> Header:
    rows = connection.execute("SELECT store, generation, source, kdf, data_key, manifest FROM header").fetchall()
    match rows:
        case [(bytes(store), int(generation), str(source), str() | None as kdf, bytes(data_key), bytes(manifest))]:
            if generation < 1:
                raise damaged(path, "is damaged")
            wrapping = Wrapping(store=store, generation=generation, kdf=kdf)
            return Header(wrapping=wrapping, source=source, data_key=data_key, manifest=manifest)
        case _:
            raise damaged(path, "has no header")


def _row(row: Any, path: Path) -> Row:  # noqa: ANN401  whatever a damaged file holds
    match row:
        case (str(name), int(version), float(created_at), str(fields), bytes(sealed)) if version > 0:
            return Row(name=name, version=version, created_at=created_at, fields=fields, sealed=sealed)
        case _:
            raise damaged(path, "is damaged")


def _restore(path: Path) -> str:
    return f"restore {path} from a backup; nothing was overwritten"
