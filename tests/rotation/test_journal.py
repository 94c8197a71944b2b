"""What of rotations is on disk."""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.core.rotation import begun, failed
from broker.core.schedule import Plan
from broker.errors import BrokerError, IntegrityError, UnavailableError
from broker.rotation.journal import FORMAT, Course, Journal

COURSE = Course(
    name="db",
    version=3,
    plan=Plan(since=1.5, lifetime=60.0, due_at=2.5, rule="every"),
    rotation=failed(begun("token", now=5.0, grace=6.0, shared=True), now=6.0, error="no", hint="do"),
    outcome="followed",
    ended_at=9.0,
)


def opened(path: Path) -> list[Course]:
    """Open the file, and return what it holds."""

    async def read() -> list[Course]:
        journal = Journal(path)
        try:
            return await journal.open()
        finally:
            await journal.close()

    return asyncio.run(read())


def written(path: Path, *courses: Course) -> None:
    """Write courses."""

    async def write() -> None:
        journal = Journal(path)
        await journal.open()
        for each in courses:
            await journal.write(each)
        await journal.close()

    asyncio.run(write())


def test_what_was_written_is_read(tmp_path: Path) -> None:
    """Everything of a course comes back, the latest of each name."""
    other = Course(name="other")
    written(tmp_path / "r.db", Course(name="db"), other, COURSE)
    assert [COURSE, other] == sorted(opened(tmp_path / "r.db"), key=lambda each: each.name)


def newer(path: Path) -> None:
    """Make a file of a newer broker."""
    written(path, COURSE)
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {FORMAT + 1}")
    connection.close()


def damaged(path: Path) -> None:
    """Make a file that is none."""
    path.write_bytes(b"this is no database, and it is long enough to be told from an empty one" * 20)


def strange(path: Path) -> None:
    """Make a file with a record that means nothing."""
    written(path, COURSE)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE rotations SET record = ?", (b'{"name": 5}',))
    connection.close()


@pytest.mark.parametrize("make", [newer, damaged, strange])
def test_a_file_that_is_not_ours_is_left_alone(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """A newer broker's and a damaged one are refused, and not changed."""
    path = tmp_path / "r.db"
    make(path)
    before = path.read_bytes()
    with pytest.raises(IntegrityError):
        opened(path)
    assert before == path.read_bytes()


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    """It cannot be opened now, and that is another error."""
    with pytest.raises(UnavailableError):
        opened(tmp_path / "none/r.db")


def test_a_write_that_fails_says_so(tmp_path: Path) -> None:
    """Another program holds the file: the caller is told, and may try again."""
    path = tmp_path / "r.db"

    async def write() -> tuple[str, list[Course]]:
        journal = Journal(path)
        await journal.open()
        other = sqlite3.connect(path)
        other.execute("BEGIN IMMEDIATE")
        try:
            await journal.write(COURSE)
        except BrokerError as error:
            said = error.code
        else:
            said = "written"
        other.close()
        await journal.write(COURSE)
        await journal.close()
        return said, opened_now(path)

    def opened_now(path: Path) -> list[Course]:
        with sqlite3.connect(path) as connection:
            rows = connection.execute("SELECT name FROM rotations").fetchall()
        connection.close()
        return [COURSE for (name,) in rows if name == "db"]

    assert ("unavailable", [COURSE]) == asyncio.run(write())
