"""
What must outlive the broker: leases and intents.

One SQLite file, one thread that writes it. What waits while a commit is under
way goes into the next one together, so that a hundred leases cost one sync.
What waits is the latest word on each accessor, and a commit that fails puts it
back: nothing is lost by a disk that fails for a while, and no more is kept than
there are leases. No value of a secret is ever in here.
"""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from broker.core.model import Intent, Lease
from broker.errors import IntegrityError, UnavailableError

FORMAT: Final = 1
"""The format of ``state.db``. A file with a higher one is from a newer broker and is left alone."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS leases  (accessor TEXT PRIMARY KEY, record BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS intents (accessor TEXT PRIMARY KEY, record BLOB NOT NULL) STRICT, WITHOUT ROWID;
"""

Row = tuple[bytes | None, bytes | None]
"""What is to be on disk of one accessor: its lease and its intent, either of them encoded, or None for none."""

GONE: Final[Row] = (None, None)

RETRY: Final = (0.1, 1.0)
"""Seconds before a failed commit is tried again: the first time, and at most."""


class Store:
    """Leases and intents on disk."""

    def __init__(self, path: Path, *, deadline: float = 5.0) -> None:
        """
        Name the file; ``open`` opens it.

        Args:
            path: of ``state.db``.
            deadline: seconds that a caller waits for its change to be on disk.

        """
        self._path = path
        self._deadline = deadline
        self._unwritten: dict[str, Row] = {}
        self._waiters: list[asyncio.Future[None]] = []
        self._on_disk: set[str] = set()
        """Accessors of which the file may hold something; the forgetting of any other costs nothing."""
        self._wake = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection: sqlite3.Connection | None = None
        self._leases: msgspec.json.Decoder[Lease] = msgspec.json.Decoder(Lease)
        self._intents: msgspec.json.Decoder[Intent] = msgspec.json.Decoder(Intent)
        self.trouble: str | None = None
        """Why what was handed over is not on disk, or None."""

    async def open(self) -> tuple[list[Lease], list[Intent]]:
        """
        Open or make the file and return what it holds.

        Raises:
            IntegrityError: it is damaged, or a newer broker's. It is not touched.
            UnavailableError: it cannot be opened now.

        """
        self._loop = asyncio.get_running_loop()
        leases, intents = await asyncio.to_thread(self._load)
        self._on_disk = {lease.accessor for lease in leases} | {intent.accessor for intent in intents}
        self._thread = threading.Thread(target=self._write, name="store", daemon=True)
        self._thread.start()
        return leases, intents

    def _load(self) -> tuple[list[Lease], list[Intent]]:
        try:
            connection = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None, timeout=1.0)
            try:
                leases, intents = self._read(connection)
            except BaseException:
                connection.close()
                raise
        except sqlite3.OperationalError as error:
            message = f"{self._path} cannot be opened: {error}"
            raise UnavailableError(message, hint="is its directory there, writable, and not full?") from None
        except (sqlite3.DatabaseError, msgspec.MsgspecError) as error:
            message = f"{self._path} is damaged: {type(error).__name__}"
            hint = "put a backup in its place, or move it away: leases that were out are then unknown to the broker"
            raise IntegrityError(message, hint=hint) from None
        self._connection = connection
        return leases, intents

    def _read(self, connection: sqlite3.Connection) -> tuple[list[Lease], list[Intent]]:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > FORMAT:
            message = f"{self._path} has format {version}, and this broker knows {FORMAT}"
            raise IntegrityError(message, hint="start the newer mcp-broker that wrote it")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(_SCHEMA)
        connection.execute(f"PRAGMA user_version = {FORMAT}")
        leases = [self._leases.decode(row[0]) for row in connection.execute("SELECT record FROM leases")]
        intents = [self._intents.decode(row[0]) for row in connection.execute("SELECT record FROM intents")]
        return leases, intents

    async def close(self) -> None:
        """Write what waits and let go of the file, within the deadline."""
        if self._thread is None:
            return
        with self._wake:
            self._closing = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join, self._deadline)

    async def intend(self, intent: Intent) -> None:
        """
        Have on disk that a mint is about to happen.

        Raises:
            UnavailableError: it is not, so nothing may be minted. Whatever of it gets there later is taken away again.

        """
        if self.trouble is not None:
            raise self._unavailable(self.trouble)
        try:
            await self._durable({intent.accessor: (None, msgspec.json.encode(intent))})
        except BaseException:
            self.forget_soon([intent.accessor])
            raise

    async def keep(self, lease: Lease) -> None:
        """Have a minted lease on disk in the place of its intent, or raise ``UnavailableError``."""
        await self._durable({lease.accessor: (msgspec.json.encode(lease), None)})

    def keep_soon(self, leases: Iterable[Lease]) -> None:
        """Write leases, in the place of their intents, that need not be on disk before anything else happens."""
        self._submit({lease.accessor: (msgspec.json.encode(lease), None) for lease in leases}, None)

    def forget_soon(self, accessors: Iterable[str]) -> None:
        """Remove leases and intents. If a crash comes before, they are revoked once more, which is harmless."""
        self._submit(dict.fromkeys(accessors, GONE), None)

    async def settled(self) -> None:
        """Have on disk everything that was handed over so far, or raise ``UnavailableError``."""
        await self._durable({})

    async def _durable(self, rows: Mapping[str, Row]) -> None:
        assert self._loop is not None
        done: asyncio.Future[None] = self._loop.create_future()
        self._submit(rows, done)
        try:
            async with asyncio.timeout(self._deadline):
                await done
        except TimeoutError:
            self.trouble = f"{self._path} has not been written for {self._deadline:g} s"
            raise self._unavailable(self.trouble) from None

    def _unavailable(self, why: str) -> UnavailableError:
        return UnavailableError(f"leases cannot be stored: {why}", hint="mcp-broker status")

    def _submit(self, rows: Mapping[str, Row], done: asyncio.Future[None] | None) -> None:
        with self._wake:
            for accessor, row in rows.items():
                if row == GONE and accessor not in self._on_disk:
                    self._unwritten.pop(accessor, None)
                else:
                    self._unwritten[accessor] = row
            if done is not None:
                self._waiters.append(done)
            if self._unwritten or self._waiters:
                self._wake.notify()

    def _write(self) -> None:
        """Run in the thread until closed: take all that waits, commit it at once, say so; put back what failed."""
        assert self._connection is not None
        pause = 0.0
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._closing, pause)
                while not (self._unwritten or self._waiters or self._closing):
                    self._wake.wait()
                rows, self._unwritten = self._unwritten, {}
                waiters, self._waiters = self._waiters, []
                self._on_disk.update(rows)
            if not rows and not waiters:
                break
            error = self._commit(self._connection, rows)
            with self._wake:
                if error is None:
                    self._on_disk.difference_update(
                        accessor for accessor, row in rows.items() if row == GONE and accessor not in self._unwritten
                    )
                else:
                    self._unwritten = rows | self._unwritten
                pause = 0.0 if error is None else min(max(RETRY[0], pause * 2), RETRY[1])
                last = self._closing and error is not None
            self._tell(waiters, error)
            if last:
                break
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    def _commit(self, connection: sqlite3.Connection, rows: Mapping[str, Row]) -> str | None:
        try:
            connection.execute("BEGIN IMMEDIATE")
            for table, column in (("leases", 0), ("intents", 1)):
                connection.executemany(
                    f"DELETE FROM {table} WHERE accessor = ?",  # noqa: S608 -- one of the two names above
                    [(accessor,) for accessor, row in rows.items() if row[column] is None],
                )
                connection.executemany(
                    f"INSERT OR REPLACE INTO {table} VALUES (?, ?)",  # noqa: S608
                    [(accessor, row[column]) for accessor, row in rows.items() if row[column] is not None],
                )
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            return str(error)
        return None

    def _tell(self, waiters: Sequence[asyncio.Future[None]], error: str | None) -> None:
        def tell() -> None:
            self.trouble = None if error is None else f"{self._path} cannot be written: {error}"
            for waiter in waiters:
                if waiter.done():
                    continue
                if error is None:
                    waiter.set_result(None)
                else:
                    waiter.set_exception(self._unavailable(error))

        assert self._loop is not None
        call: Callable[..., object] = self._loop.call_soon_threadsafe
        # The loop may have closed while the disk kept us.
        with contextlib.suppress(RuntimeError):
            call(tell)
