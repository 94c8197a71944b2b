"""What the sealed store does beyond the contract: its file, its versions, its options."""

import asyncio
import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from backends.base import (
    ConflictError,
    CorruptError,
    MisconfiguredError,
    RefusedError,
    Surroundings,
    UnavailableError,
)
from backends.master_key import create_key_file
from backends.sealed import SealedBackend, from_config
from tests.backends.places import get, key_file, put, sealed, using
from tests.contract.backend import issue, secrets


def surroundings(directory: Path) -> Surroundings:
    """Return surroundings with everything in one directory."""
    return Surroundings(mode="user", config=directory, state=directory)


def test_its_files_are_its_owners_alone(tmp_path: Path) -> None:
    """Whatever the umask, every file of an open store has mode 0600."""

    async def modes(backend: SealedBackend) -> dict[str, int]:
        await backend.put("github", secrets(value="x"))
        return {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}  # noqa: ASYNC240

    before = os.umask(0)
    try:
        found = using(sealed(tmp_path), modes)
    finally:
        os.umask(before)
    assert {0o600} == set(found.values())


def test_no_value_and_no_key_stands_in_its_files(tmp_path: Path) -> None:
    """Neither a value nor the master key is found in any file but the key file, while it is open and after."""
    key = key_file(tmp_path / "..", f"{tmp_path.name}.key")
    canary = "canary-" * 50

    async def look(backend: SealedBackend) -> bytes:
        await backend.put("github", secrets(value=canary))
        await backend.put("github", secrets(value="newer"))
        return b"".join(path.read_bytes() for path in tmp_path.iterdir())  # noqa: ASYNC240

    while_open = using(sealed(tmp_path, key), look)
    after = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert (False, True) == (b"canary-" in while_open + after, b"github" in after)


def test_a_checked_write_is_over_what_the_writer_has_seen(tmp_path: Path) -> None:
    """Of two who have seen the same version one writes, and the other is told; None is for what is not there yet."""

    async def race(backend: SealedBackend) -> list[object]:
        wrote: list[object] = []
        for value, expected in (("a", None), ("b", None), ("b", 1), ("c", 1), ("c", 2)):
            try:
                wrote.append(await backend.put_if("github", secrets(value=value), expected=expected))
            except ConflictError:
                wrote.append("conflict")
        return [*wrote, await issue(backend, "github")]

    assert [1, "conflict", 2, "conflict", 3, {"value": "c"}] == using(sealed(tmp_path), race)


def test_the_wal_is_empty_after_every_change(tmp_path: Path) -> None:
    """What is on disk is in one file, where damage is found, and not in a WAL, where it is passed over."""

    async def wal(backend: SealedBackend) -> int:
        await backend.put("github", secrets(value="x"))
        return (tmp_path / "sealed.db-wal").stat().st_size

    assert 0 == using(sealed(tmp_path), wal)


def test_the_oldest_versions_go(tmp_path: Path) -> None:
    """Beyond the number that is kept the oldest version goes, and numbers are never used twice."""
    source = key_file(tmp_path)

    async def numbers(backend: SealedBackend) -> list[int]:
        for text in "abcde":
            await backend.put("github", secrets(value=text))
        return [version.number for version in await backend.versions("github")]

    async def later(backend: SealedBackend) -> list[int]:
        return [version.number for version in await backend.versions("github")]

    first = using(sealed(tmp_path, source, keep=3), numbers)
    assert ([5, 4, 3], [5, 4, 3]) == (first, using(sealed(tmp_path, source, keep=3), later))


def test_ten_versions_are_kept_by_default(tmp_path: Path) -> None:
    """Without being told otherwise the store keeps ten versions of a secret."""

    async def count(backend: SealedBackend) -> int:
        for number in range(12):
            await backend.put("github", secrets(value=str(number)))
        return len(await backend.versions("github"))

    assert 10 == using(sealed(tmp_path), count)


def test_versions_are_dated_by_the_clock(tmp_path: Path) -> None:
    """A version was created when the clock says so."""

    async def created(backend: SealedBackend) -> float:
        await backend.put("github", secrets(value="x"))
        (version,) = await backend.versions("github")
        return version.created_at

    assert 1_000_000_000.5 == using(sealed(tmp_path, clock=lambda: 1_000_000_000.5), created)


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    """While one has the store open, another cannot open it, and says who else has it."""

    async def second(backend: SealedBackend) -> int:
        await backend.put("github", secrets(value="x"))
        other = sealed(tmp_path)
        await other.open()
        with pytest.raises(UnavailableError, match="another process has"):
            await other.list()
        await other.close()
        return await backend.put("github", secrets(value="y"))

    assert 2 == using(sealed(tmp_path), second)


def test_what_another_program_writes_meanwhile_is_noticed(tmp_path: Path) -> None:
    """A row that somebody removes behind the store's back keeps it from writing; what it holds in memory it issues."""

    async def behind_its_back(backend: SealedBackend) -> Mapping[str, str]:
        await backend.put("github", secrets(value="x"))
        with closing(sqlite3.connect(tmp_path / "sealed.db", isolation_level=None)) as connection:
            connection.execute("DELETE FROM secrets")
        with pytest.raises(CorruptError):
            await backend.put("slack", secrets(value="y"))
        return await issue(backend, "github")

    assert {"value": "x"} == using(sealed(tmp_path), behind_its_back)


def test_a_file_that_is_no_longer_there_is_not_written_to(tmp_path: Path) -> None:
    """Where somebody has put another file in its place, nothing is written, and nothing is made anew."""

    async def replaced(backend: SealedBackend) -> Mapping[str, str]:
        await backend.put("github", secrets(value="x"))
        (tmp_path / "sealed.db").rename(tmp_path / "moved.db")
        for _ in range(2):
            with pytest.raises(UnavailableError, match="replaced or removed"):
                await backend.put("slack", secrets(value="y"))
        return await issue(backend, "github")

    found = using(sealed(tmp_path), replaced)
    assert ({"value": "x"}, False) == (found, (tmp_path / "sealed.db").exists())


def test_a_reader_from_outside_stops_nobody(tmp_path: Path) -> None:
    """While another program reads the file, a backup say, the store is written to all the same."""

    async def during_a_backup(backend: SealedBackend) -> int:
        await backend.put("github", secrets(value="x"))
        with closing(sqlite3.connect(tmp_path / "sealed.db", isolation_level=None)) as connection:
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM secrets").fetchone()
            return await backend.put("github", secrets(value="y"))

    assert (2, "y") == (using(sealed(tmp_path), during_a_backup), get(tmp_path, "github"))


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    """What is asked of a closed store is refused at once."""

    async def closed() -> None:
        backend = sealed(tmp_path)
        await backend.open()
        await backend.close()
        with pytest.raises(UnavailableError, match="was closed"):
            await backend.put("github", secrets(value="x"))

    assert None is asyncio.run(closed())


def test_params_are_refused(tmp_path: Path) -> None:
    """A secret in the store is what it is: params that the config sends along would be silently passed over."""

    async def with_params(backend: SealedBackend) -> None:
        await backend.put("github", secrets(value="x"))
        await backend.issue("github", params={"scope": "read"}, intent="i")

    with pytest.raises(MisconfiguredError, match="takes no params"):
        using(sealed(tmp_path), with_params)


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 513, "a\0b"], ids=["empty", "newline", "long", "nul"])
def test_a_name_that_could_not_be_printed_is_refused(tmp_path: Path, name: str) -> None:
    """Names stand in tables and in messages: 1 to 512 printable bytes."""
    with pytest.raises(RefusedError, match="printable bytes"):
        put(tmp_path, name, "x")


def test_there_is_nothing_to_renew_or_revoke(tmp_path: Path) -> None:
    """A stored secret has no lease at its source: revoking is done already, renewing is refused."""

    async def both(backend: SealedBackend) -> tuple[bool, None]:
        with pytest.raises(RefusedError):
            await backend.renew("none", increment=1.0)
        revoked: None = await backend.revoke("none")  # type: ignore[func-returns-value]
        return backend.mints("github"), revoked

    assert (False, None) == using(sealed(tmp_path), both)


def test_health_says_what_a_key_file_does_not_protect(tmp_path: Path) -> None:
    """Who looks at the status reads what a copy of the key file along with the store means."""
    health = using(sealed(tmp_path), lambda backend: backend.health())
    assert ("ok", True) == (health.state, "protects nothing that is copied along with it" in health.detail)


def test_a_store_without_its_directory_is_unavailable(tmp_path: Path) -> None:
    """Where there is no state directory, none is made behind anybody's back."""
    source = key_file(tmp_path)
    with pytest.raises(UnavailableError):
        put(tmp_path / "none", "github", "x", source)


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("local", {"kee": {}}, "backends.local.kee is not an option\nhint: did you mean key?"),
        ("local", {"key": "x"}, "backends.local.key must be a table"),
        ("local", {"versions": 0}, "backends.local.versions must be a whole number from 1 to 1000"),
        ("local", {"versions": True}, "backends.local.versions must be a whole number from 1 to 1000"),
        ("other", {}, "backends.other: the sealed store is called local, and there is one"),
    ],
    ids=["unknown", "type", "zero", "flag", "name"],
)
def test_its_options_are_read_strictly(tmp_path: Path, name: str, options: dict[str, Any], complaint: str) -> None:
    """What the config says and the store does not know is refused, with the key that it stands in."""
    with pytest.raises(MisconfiguredError) as caught:
        from_config(name, options, surroundings(tmp_path))
    assert str(caught.value).startswith(complaint)


def test_from_config_uses_the_key_file_that_init_makes(tmp_path: Path) -> None:
    """Without options the store is ``sealed.db`` in the state directory, with ``master.key`` beside it."""
    create_key_file(tmp_path / "master.key")
    backend = from_config("local", {}, surroundings(tmp_path))
    assert 1 == using(backend, lambda opened: opened.put("github", secrets(value="x")))
