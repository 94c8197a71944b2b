"""
What must outlive the broker: leases and intents.

One SQLite file, one thread that writes it. What waits while a commit is under
way goes into the next one together, so that a hundred leases cost one sync.
No value of a secret is ever in here.
"""

import asyncio
import contextlib
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
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

Change = tuple[str, Sequence[str | bytes]]
"""One SQL statement and its parameters."""


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
        self._waiting: deque[tuple[Sequence[Change], asyncio.Future[None] | None]] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection: sqlite3.Connection | None = None
        self._leases: msgspec.json.Decoder[Lease] = msgspec.json.Decoder(Lease)
        self._intents: msgspec.json.Decoder[Intent] = msgspec.json.Decoder(Intent)
        self.trouble: str | None = None

    async def open(self) -> tuple[list[Lease], list[Intent]]:
        """
        Open or make the file and return what it holds.

        Raises:
            IntegrityError: it is damaged, or a newer broker's. It is not touched.
            UnavailableError: it cannot be opened now.

        """
        self._loop = asyncio.get_running_loop()
        found = await asyncio.to_thread(self._load)
        self._thread = threading.Thread(target=self._write, name="store", daemon=True)
        self._thread.start()
        return found

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
        """Have on disk that a mint is about to happen, or raise ``UnavailableError``."""
        await self._durable([("INSERT INTO intents VALUES (?, ?)", (intent.accessor, msgspec.json.encode(intent)))])

    async def keep(self, lease: Lease) -> None:
        """Have a minted lease on disk in the place of its intent, or raise ``UnavailableError``."""
        await self._durable(_put(lease))

    def keep_soon(self, leases: Iterable[Lease]) -> None:
        """Write leases, in the place of their intents, that need not be on disk before anything else happens."""
        self._submit([change for lease in leases for change in _put(lease)], None)

    def forget_soon(self, accessors: Iterable[str]) -> None:
        """Remove leases and intents. If that is lost, they are revoked once more, which is harmless."""
        changes: list[Change] = []
        for accessor in accessors:
            changes.append(("DELETE FROM leases WHERE accessor = ?", (accessor,)))
            changes.append(("DELETE FROM intents WHERE accessor = ?", (accessor,)))
        self._submit(changes, None)

    async def settled(self) -> None:
        """Have on disk everything that was handed over so far, or raise ``UnavailableError``."""
        await self._durable([])

    async def _durable(self, changes: Sequence[Change]) -> None:
        assert self._loop is not None
        done: asyncio.Future[None] = self._loop.create_future()
        self._submit(changes, done)
        try:
            async with asyncio.timeout(self._deadline):
                await done
        except TimeoutError:
            self.trouble = f"{self._path} has not been written for {self._deadline:g} s"
            message = "leases cannot be stored: the disk does not answer"
            raise UnavailableError(message, hint="mcp-broker status") from None

    def _submit(self, changes: Sequence[Change], done: asyncio.Future[None] | None) -> None:
        if not changes and done is None:
            return
        with self._wake:
            self._waiting.append((changes, done))
            self._wake.notify()

    def _write(self) -> None:
        """Run in the thread until closed: take all that waits, commit it at once, say so."""
        assert self._connection is not None
        while True:
            with self._wake:
                while not self._waiting and not self._closing:
                    self._wake.wait()
                batch, self._waiting = self._waiting, deque()
            if not batch:
                break
            error = self._commit(self._connection, [change for changes, _ in batch for change in changes])
            self._tell([done for _, done in batch if done is not None], error)
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    def _commit(self, connection: sqlite3.Connection, changes: Iterable[Change]) -> str | None:
        try:
            connection.execute("BEGIN IMMEDIATE")
            for statement, parameters in changes:
                connection.execute(statement, parameters)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            return str(error)
        return None

    def _tell(self, waiters: list[asyncio.Future[None]], error: str | None) -> None:
        def tell() -> None:
            self.trouble = None if error is None else f"{self._path} cannot be written: {error}"
            for waiter in waiters:
                if waiter.done():
                    continue
                if error is None:
                    waiter.set_result(None)
                else:
                    message = f"leases cannot be stored: {error}"
                    waiter.set_exception(UnavailableError(message, hint="mcp-broker status"))

        assert self._loop is not None
        call: Callable[..., object] = self._loop.call_soon_threadsafe
        # The loop may have closed while the disk kept us.
        with contextlib.suppress(RuntimeError):
            call(tell)


def _put(lease: Lease) -> list[Change]:
    """Return what writes a lease, and takes away the intent that it came from."""
    return [
        ("INSERT OR REPLACE INTO leases VALUES (?, ?)", (lease.accessor, msgspec.json.encode(lease))),
        ("DELETE FROM intents WHERE accessor = ?", (lease.accessor,)),
    ]
