"""The sealed store when something does not answer, goes away, or is killed."""

import asyncio
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import final

import pytest

from backends.base import (
    BackendError,
    Credential,
    LockedError,
    OutcomeUnknownError,
    Secret,
    UnavailableError,
)
from backends.master_key import KeySource, MasterKey, Wrapping
from backends.sealed import SealedBackend
from tests.backends.places import get, key_file, put, sealed, using
from tests.contract.backend import issue, secrets


@final
class SlowSource:
    """A key source that answers when a test lets it."""

    def __init__(self, source: KeySource) -> None:
        """Answer what ``source`` answers, later."""
        self.label = "slow keyring"
        self.caution: str | None = None
        self._source = source
        self.answer = threading.Event()

    def first(self, coming: Wrapping) -> MasterKey:
        """Return the key for a new store."""
        self.answer.wait(30)
        return self._source.first(coming)

    def candidates(self, wrapping: Wrapping) -> Iterator[MasterKey]:
        """Yield the keys."""
        self.answer.wait(30)
        yield from self._source.candidates(wrapping)

    def next(self, coming: Wrapping) -> MasterKey:
        """Return the next key."""
        return self._source.next(coming)

    def settle(self, wrapping: Wrapping, *, pending: bool) -> None:
        """Let go of the old key."""
        self._source.settle(wrapping, pending=pending)


def test_a_store_that_was_locked_opens_when_the_key_is_there(tmp_path: Path) -> None:
    """A backend that opened locked says so, and works a second after its key has come, without a restart."""
    path = tmp_path / "late" / "master.key"
    path.parent.mkdir()
    source = key_file(path.parent)
    put(tmp_path, "github", "value", source)
    path.rename(tmp_path / "away.key")

    async def later(backend: SealedBackend) -> tuple[str, Mapping[str, str], str]:
        locked = await backend.health()
        with pytest.raises(LockedError):
            await issue(backend, "github")
        (tmp_path / "away.key").rename(path)
        await asyncio.sleep(1.05)
        return locked.state, await issue(backend, "github"), (await backend.health()).state

    assert ("locked", {"value": "value"}, "ok") == using(sealed(tmp_path, source), later)


def test_a_store_that_does_not_open_is_tried_once_a_second(tmp_path: Path) -> None:
    """However many ask meanwhile, they get the same answer and the disk is left alone."""
    source = key_file(tmp_path)
    (tmp_path / "master.key").rename(tmp_path / "away.key")

    async def at_once(backend: SealedBackend) -> set[str]:
        with pytest.raises(LockedError):
            await backend.list()
        (tmp_path / "away.key").rename(tmp_path / "master.key")
        answers = await asyncio.gather(*(backend.list() for _ in range(50)), return_exceptions=True)
        return {type(answer).__name__ for answer in answers}

    assert {"LockedError"} == using(sealed(tmp_path, source), at_once)


def test_a_keyring_that_waits_for_somebody_hangs_nobody(tmp_path: Path) -> None:
    """A source that does not answer is given up after the deadline, as locked; its late answer still counts."""
    source = SlowSource(key_file(tmp_path))

    async def slow(backend: SealedBackend) -> tuple[str, list[str], int]:
        health = await backend.health()
        errors = await asyncio.gather(backend.list(), issue(backend, "x"), return_exceptions=True)
        source.answer.set()
        async with asyncio.timeout(10):
            while (await backend.health()).state != "ok":  # noqa: ASYNC110 -- nobody tells when a thread is done
                await asyncio.sleep(0.01)
        return health.state, [type(error).__name__ for error in errors], await backend.put("x", secrets(value="x"))

    expected = ("locked", ["LockedError", "LockedError"], 1)
    assert expected == using(sealed(tmp_path, source, key_seconds=0.05), slow)


def test_who_comes_while_the_keyring_hangs_is_told_at_once(tmp_path: Path) -> None:
    """Only those who came first wait out the deadline; the others get the same answer without a wait."""
    source = SlowSource(key_file(tmp_path))

    async def later(backend: SealedBackend) -> tuple[bool, str]:
        await asyncio.sleep(1.05)
        asking = asyncio.create_task(backend.list())
        await asyncio.sleep(0)
        answered = asking.done()
        with pytest.raises(LockedError) as caught:
            await asking
        source.answer.set()
        return answered, caught.value.message

    expected = (True, "the slow keyring has not answered for 0.5 seconds")
    assert expected == using(sealed(tmp_path, source, key_seconds=0.5), later)


def test_a_change_that_takes_too_long_is_of_unknown_outcome(tmp_path: Path) -> None:
    """A put that the disk has not answered in time may have happened, and one behind it has not."""

    async def hanging(backend: SealedBackend) -> tuple[str, str, int]:
        await backend.put("github", secrets(value="1"))
        with closing(sqlite3.connect(tmp_path / "sealed.db", isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            answers = await asyncio.gather(
                backend.put("github", secrets(value="2")),
                backend.put("github", secrets(value="3")),
                return_exceptions=True,
            )
            connection.execute("ROLLBACK")
        async with asyncio.timeout(10):
            while (await backend.issue("github", params={}, intent="i")).version != 2:  # noqa: ASYNC110 -- as above
                await asyncio.sleep(0.01)
        first, second = (type(answer).__name__ for answer in answers)
        return first, second, await backend.put("github", secrets(value="4"))

    expected = (OutcomeUnknownError.__name__, UnavailableError.__name__, 3)
    assert expected == using(sealed(tmp_path, disk_seconds=0.2), hanging)


def test_a_caller_that_goes_away_takes_nothing_back(tmp_path: Path) -> None:
    """A put whose caller was cancelled is either not there or whole, and the next one counts on."""

    async def cancelled(backend: SealedBackend) -> Credential:
        task = asyncio.create_task(backend.put("github", secrets(value="1")))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await backend.put("github", secrets(value="2"))
        return await backend.issue("github", params={}, intent="i")

    found = using(sealed(tmp_path), cancelled)
    assert (Secret("2"), True) == (found.values["value"], found.version in {1, 2})


WRITER = """
import asyncio, sys
from pathlib import Path
from backends.base import Secret
from tests.backends.places import sealed

async def write():
    backend = sealed(Path(sys.argv[1]))
    await backend.open()
    for number in range(1000000):
        print(await backend.put("github", {"a": Secret(str(number)), "b": Secret(str(number))}), flush=True)

asyncio.run(write())
"""


@pytest.mark.parametrize("milliseconds", range(1, 80, 8))
def test_what_was_acknowledged_survives_a_kill(tmp_path: Path, milliseconds: int) -> None:
    """Killed while it writes, the store opens with every version that somebody was told of, and none is half."""
    key_file(tmp_path)
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        told = [int(writer.stdout.readline())]
        time.sleep(milliseconds / 1000)
        writer.send_signal(signal.SIGKILL)
        told += [int(line) for line in writer.stdout if line.endswith("\n")]

    async def found(backend: SealedBackend) -> tuple[bool, bool]:
        credential = await backend.issue("github", params={}, intent="i")
        return (credential.version or 0) >= told[-1], credential.values["a"] == credential.values["b"]

    assert (True, True) == using(sealed(tmp_path), found)


@pytest.fixture
def open_files() -> Callable[[], int]:
    """Return what counts the descriptors of this process."""
    return lambda: len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to count descriptors")
def test_an_attempt_that_fails_keeps_nothing_open(tmp_path: Path, open_files: Callable[[], int]) -> None:
    """However often a damaged store is tried, no descriptor and no lock is left behind."""
    put(tmp_path, "github", "x")
    (tmp_path / "sealed.db").write_bytes(b"nothing")
    before = open_files()
    for _ in range(5):
        with pytest.raises(BackendError):
            get(tmp_path, "github")
    assert before == open_files()
