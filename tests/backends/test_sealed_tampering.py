"""A sealed store that somebody or something has changed: a clear error, never another value, nothing overwritten."""

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends.base import BackendError, CorruptError, LockedError, MisconfiguredError, Secret, UnavailableError
from backends.master_key import KeyFile
from backends.sealed import SealedBackend
from tests.backends.places import get, key_file, passphrase_file, put, sealed, using


@dataclass(frozen=True, slots=True)
class Store:
    """A store with two secrets, one of them in two versions."""

    directory: Path

    @property
    def file(self) -> Path:
        """Return its file."""
        return self.directory / "sealed.db"

    def sql(self, statement: str, *values: object) -> None:
        """Change it as somebody with an editor for databases would."""
        with closing(sqlite3.connect(self.file, isolation_level=None)) as connection:
            connection.execute(statement, values)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def failure(self) -> BackendError:
        """Return why it does not open. Fails where it does, and where the attempt changes a byte."""
        before = self.file.read_bytes()
        backend = sealed(self.directory, KeyFile(self.directory / "master.key"))
        with pytest.raises(BackendError) as caught:
            using(backend, lambda opened: opened.list())
        assert before == self.file.read_bytes()
        return caught.value


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Make a store."""
    key_file(tmp_path)
    put(tmp_path, "github", "old")
    put(tmp_path, "github", "new")
    put(tmp_path, "slack", "other")
    return Store(tmp_path)


def swap(store: Store) -> None:
    """Put one secret's sealed value in the place of another's."""
    store.sql("UPDATE secrets SET sealed = (SELECT sealed FROM secrets WHERE name = 'slack') WHERE name = 'github'")


def rename(store: Store) -> None:
    """Give a secret another name."""
    store.sql("UPDATE secrets SET name = 'gitlab' WHERE name = 'github'")


def renumber(store: Store) -> None:
    """Make the old version look like the newest."""
    store.sql("UPDATE secrets SET version = 3 WHERE name = 'github' AND version = 1")


def remove(store: Store) -> None:
    """Take the newest version away, so that the old one would be current again."""
    store.sql("DELETE FROM secrets WHERE name = 'github' AND version = 2")


def copy(store: Store) -> None:
    """Add a row."""
    store.sql("INSERT INTO secrets SELECT 'twin', version, created_at, fields, sealed FROM secrets WHERE name='slack'")


def predate(store: Store) -> None:
    """Change when a version was written."""
    store.sql("UPDATE secrets SET created_at = created_at - 1")


def relabel(store: Store) -> None:
    """Change the names of the fields that are listed."""
    store.sql("""UPDATE secrets SET fields = '["password"]'""")


def shorten(store: Store) -> None:
    """Cut a sealed value off."""
    store.sql("UPDATE secrets SET sealed = substr(sealed, 1, 8)")


def retype(store: Store) -> None:
    """Put text where bytes belong."""
    store.sql("UPDATE secrets SET sealed = 'plain'")


def unfield(store: Store) -> None:
    """Put nonsense where the fields are listed."""
    store.sql("UPDATE secrets SET fields = '{'")


def behead(store: Store) -> None:
    """Take the header away."""
    store.sql("DELETE FROM header")


def regenerate(store: Store) -> None:
    """Claim another generation of the master key."""
    store.sql("UPDATE header SET generation = generation + 1")


def resource(store: Store) -> None:
    """Claim that the master key came from somewhere else."""
    store.sql("UPDATE header SET source = 'OS keyring'")


def restore_identity(store: Store) -> None:
    """Claim to be another store."""
    store.sql("UPDATE header SET store = zeroblob(16)")


def forget_table(store: Store) -> None:
    """Take a table away."""
    store.sql("DROP TABLE secrets")


def other_application(store: Store) -> None:
    """Claim to be another program's database."""
    store.sql("PRAGMA application_id = 1")


def no_format(store: Store) -> None:
    """Claim no format at all."""
    store.sql("PRAGMA user_version = 0")


def newer_format(store: Store) -> None:
    """Claim the format of a later release."""
    store.sql("PRAGMA user_version = 2")


def other_key(store: Store) -> None:
    """Put another master key in the place of the right one."""
    (store.directory / "master.key").unlink()
    key_file(store.directory)


def scramble_schema(store: Store) -> None:
    """Make SQLite's own words about the damage no UTF-8."""
    store.file.write_bytes(store.file.read_bytes().replace(b"CREATE TABLE header", b"CREATE T\xc1BLE header"))


def miscount_free_pages(store: Store) -> None:
    """Damage what no row depends on, and the next write would."""
    with store.file.open("r+b") as file:
        file.seek(36)
        file.write((7).to_bytes(4, "big"))


def truncate(store: Store) -> None:
    """Cut the file off in the middle."""
    os.truncate(store.file, store.file.stat().st_size // 2)


def truncate_a_little(store: Store) -> None:
    """Cut the last byte off."""
    os.truncate(store.file, store.file.stat().st_size - 1)


def empty(store: Store) -> None:
    """Leave nothing of the file."""
    os.truncate(store.file, 0)


def no_database(store: Store) -> None:
    """Put something else in the place of the file."""
    store.file.write_text("[secrets]\n" * 500)


DAMAGE: list[Callable[[Store], None]] = [
    swap, rename, renumber, remove, copy, predate, relabel, shorten, retype, unfield, behead, regenerate,
    resource, restore_identity, forget_table, other_application, no_format, newer_format, other_key,
    scramble_schema, miscount_free_pages, truncate, truncate_a_little, empty, no_database,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_what_was_changed_does_not_open_and_is_not_overwritten(store: Store, damage: Callable[[Store], None]) -> None:
    """Each kind of damage is called damage, with a hint, and no byte of the file changes."""
    damage(store)
    failure = store.failure()
    assert (CorruptError, True) == (type(failure), bool(failure.hint))


def test_a_newer_format_is_said_to_be_newer(store: Store) -> None:
    """Who went back to an older release reads that the store is ahead of it."""
    newer_format(store)
    assert "has format 2, and this broker knows no format after 1" in store.failure().message


def test_a_wrong_key_is_told_with_where_the_right_one_was(store: Store) -> None:
    """Another key's error names both the source that was tried and the one that the store was sealed with."""
    (store.directory / "master.key").rename(store.directory / "moved.key")
    before = store.file.read_bytes()
    with pytest.raises(CorruptError, match=r"passphrase|other\.key") as caught:
        get(store.directory, "github", key_file(store.directory, "other.key"))
    assert (True, before) == (f"key file {store.directory}/master.key" in caught.value.message, store.file.read_bytes())


def test_a_missing_key_locks_the_store(store: Store) -> None:
    """Without its key file the store is locked, and the hint says what makes one."""
    (store.directory / "master.key").unlink()
    failure = store.failure()
    assert (LockedError, "mcp-broker init") == (type(failure), failure.hint)


def test_another_kind_of_key_locks_the_store(store: Store) -> None:
    """A passphrase does not open what a key file has sealed."""
    with pytest.raises(LockedError, match="not sealed with a passphrase"):
        get(store.directory, "github", passphrase_file(store.directory))


def test_the_store_of_another_directory_is_not_taken_for_this_one(store: Store, tmp_path: Path) -> None:
    """Rows that another store sealed with the same master key do not open in this one."""
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(store.directory / "master.key", other / "master.key")
    put(other, "github", "forged")
    put(other, "github", "forged too")
    with closing(sqlite3.connect(store.file, isolation_level=None)) as connection:
        connection.execute("ATTACH ? AS other", (str(other / "sealed.db"),))
        connection.execute("DELETE FROM secrets WHERE name = 'github'")
        connection.execute("INSERT INTO secrets SELECT * FROM other.secrets")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert CorruptError is type(store.failure())


def test_a_file_that_others_can_read_is_refused(store: Store) -> None:
    """A store whose file is open to the group is not opened until somebody has looked."""
    store.file.chmod(0o640)
    failure = store.failure()
    assert (MisconfiguredError, f"chmod 600 {store.file}") == (type(failure), failure.hint)


def test_a_directory_in_its_place_is_no_store(store: Store) -> None:
    """Something that is no file at all is an error like any other."""
    store.file.unlink()
    store.file.mkdir(mode=0o700)
    with pytest.raises((CorruptError, UnavailableError)):
        get(store.directory, "github")


def test_the_wal_of_a_store_that_has_gone_is_not_played_into_a_new_one(store: Store) -> None:
    """Where only the WAL is left, no store is made beside it."""
    store.file.with_name("sealed.db-wal").write_bytes(b"what is left")
    store.file.unlink()
    with pytest.raises(CorruptError, match="is still there"):
        get(store.directory, "github")
    assert not store.file.exists()


@pytest.fixture
def interrupted(store: Store, tmp_path: Path) -> Store:
    """Copy a store at a moment in which its newest version is in the WAL alone, as after a power cut."""
    copied = Store(tmp_path / "copied")
    copied.directory.mkdir()

    async def during_a_backup(backend: SealedBackend) -> None:
        with closing(sqlite3.connect(store.file, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM secrets").fetchone()
            await backend.put("github", {"value": Secret("in the wal")})
            for name in ("master.key", "sealed.db", "sealed.db-wal"):
                shutil.copy2(store.directory / name, copied.directory / name)

    using(sealed(store.directory), during_a_backup)
    return copied


def test_what_is_in_the_wal_alone_is_found(interrupted: Store) -> None:
    """After a power cut the newest version is there, though the file itself does not have it yet."""
    assert "in the wal" == get(interrupted.directory, "github")


def test_a_damaged_store_keeps_its_wal(interrupted: Store) -> None:
    """Where the key is the wrong one, the WAL is not played into the file: both stay as they are."""
    other_key(interrupted)
    wal = interrupted.file.with_name("sealed.db-wal")
    before = wal.read_bytes()
    assert (CorruptError, True, before) == (type(interrupted.failure()), bool(before), wal.read_bytes())


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Make a small store once, for many flips."""
    directory = tmp_path_factory.mktemp("pristine")
    key_file(directory)
    put(directory, "github", "old")
    put(directory, "github", "the value")
    return Store(directory)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(min_value=0, max_value=2**20), bit=st.integers(min_value=0, max_value=7))
def test_no_flipped_bit_ever_yields_another_value(pristine: Store, position: int, bit: int) -> None:
    """Whichever bit of the file is flipped, what comes is the value that was stored, or an error and no change."""
    whole = pristine.file.read_bytes()
    flipped = bytearray(whole)
    flipped[position % len(whole)] ^= 1 << bit
    pristine.file.write_bytes(flipped)
    try:
        found = get(pristine.directory, "github", KeyFile(pristine.directory / "master.key"))
    except BackendError:
        assert bytes(flipped) == pristine.file.read_bytes()
    else:
        assert "the value" == found
    finally:
        pristine.file.write_bytes(whole)
        for leftover in ("sealed.db-wal", "sealed.db-shm"):
            (pristine.directory / leftover).unlink(missing_ok=True)
