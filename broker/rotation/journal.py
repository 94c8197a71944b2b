"""
What of rotations must outlive the broker: which is at which step, and what is planned.

A SQLite file of its own, ``rotations.db`` (docs/adr/0003), written on a thread of
its own. A change has happened when the caller is told so, or the caller is told
that it may not have. This module refuses to hold a value, and to touch a file
that is damaged or a newer broker's.
"""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from backends.worker import Worker, settled
from broker.core.rotation import Rotation
from broker.core.schedule import Plan
from broker.errors import IntegrityError, UnavailableError

FORMAT: Final = 1
"""The format of ``rotations.db``. A file with a higher one is from a newer broker and is left alone."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS rotations (name TEXT PRIMARY KEY, record BLOB NOT NULL) STRICT, WITHOUT ROWID;
"""

_T = TypeVar("_T")


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """
    All that is kept of one credential that is replaced.

    Attributes:
        name: of the secret, or ``backends.NAME`` for a backend's own key or login.
        version: which was current when it was last looked at.
        plan: since when, and when the next one is due.
        rotation: the one that is under way, or None.
        outcome: how the last one ended: ``done``, ``abandoned``, ``followed``; empty for none yet.
        ended_at: when it did.

    """

    name: str
    version: int | None = None
    plan: Plan | None = None
    rotation: Rotation | None = None
    outcome: str = ""
    ended_at: float | None = None


class Journal:
    """The courses on disk."""

    def __init__(self, path: Path, *, deadline: float = 10.0) -> None:
        """Name the file; a change that is not on disk after ``deadline`` seconds counts as failed."""
        self._path = path
        self._deadline = deadline
        self._worker = Worker("rotations")
        self._connection: sqlite3.Connection | None = None
        self._decoder: msgspec.json.Decoder[Course] = msgspec.json.Decoder(Course)

    async def open(self) -> list[Course]:
        """
        Open or make the file and return what it holds.

        Raises:
            IntegrityError: it is damaged, or a newer broker's. It is not touched.
            UnavailableError: it cannot be opened now.

        """
        try:
            return await self._done(self._load)
        except sqlite3.OperationalError as error:
            message = f"{self._path} cannot be opened: {error}"
            raise UnavailableError(message, hint="is its directory there, writable, and not full?") from None
        except (sqlite3.DatabaseError, msgspec.MsgspecError) as error:
            message = f"{self._path} is damaged: {type(error).__name__}"
            hint = "put a backup in its place, or move it away: what is staged is found again, when each is due is not"
            raise IntegrityError(message, hint=hint) from None

    def _load(self) -> list[Course]:
        connection = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None, timeout=1.0)
        try:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version > FORMAT:
                message = f"{self._path} has format {version}, and this broker knows {FORMAT}"
                raise IntegrityError(message, hint="start the newer mcp-broker that wrote it")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.executescript(_SCHEMA)
            if version != FORMAT:
                connection.execute(f"PRAGMA user_version = {FORMAT}")
            found = [self._decoder.decode(row[0]) for row in connection.execute("SELECT record FROM rotations")]
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return found

    async def write(self, course: Course) -> None:
        """Have a course on disk, or raise ``UnavailableError``: then it may be there or not."""
        record = msgspec.json.encode(course)

        def write() -> None:
            assert self._connection is not None
            self._connection.execute("INSERT OR REPLACE INTO rotations VALUES (?, ?)", (course.name, record))

        try:
            await self._done(write)
        except sqlite3.Error as error:
            message = f"{self._path} cannot be written: {error}"
            raise UnavailableError(message, hint="mcp-broker status") from None

    async def close(self) -> None:
        """Let go of the file, within the deadline."""
        connection = self._connection
        self._connection = None
        closing = self._worker.submit(lambda: None if connection is None else connection.close())
        self._worker.stop()
        await settled(closing, self._deadline)

    async def _done(self, job: Callable[[], _T]) -> _T:
        future = self._worker.submit(job)
        if await settled(future, self._deadline):
            return future.result()
        future.cancel()
        message = f"{self._path} has not been written for {self._deadline:g} s"
        raise UnavailableError(message, hint="mcp-broker status")
