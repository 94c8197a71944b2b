"""Rotating the master key: what it does, and that a crash at any step leaves a store that opens."""

import asyncio
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from backends.base import BackendError, CorruptError, MisconfiguredError, Secret, UnavailableError
from backends.master_key import Credential, KeyFile, KeySource, create_key_file
from backends.passphrase import PassphraseFile
from backends.sealed import SealedBackend
from backends.sealed_store import Rotated, SealedStore
from tests.backends.places import CHEAP, get, key_file, passphrase_file, put, sealed, using

STAGES = ("key made", "written", "committed", "cleaned", "settled")

CRASH = """
import asyncio, os, signal, sys
from pathlib import Path
from tests.backends.places import key_file, passphrase_file, sealed

kind, directory, at, reencrypt = sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4] == "True"

def stage(name):
    if name == at:
        os.kill(os.getpid(), signal.SIGKILL)

async def rotate():
    backend = sealed(directory, {"file": key_file, "passphrase": passphrase_file}[kind](directory))
    await backend.open()
    await backend.rotate_key(reencrypt=reencrypt, stage=stage)

asyncio.run(rotate())
"""


def rotate(directory: Path, source: KeySource | None = None, *, reencrypt: bool = False) -> Rotated:
    """Rotate the key of a store to the next one of its source."""
    return using(sealed(directory, source), lambda backend: backend.rotate_key(reencrypt=reencrypt))


def write_passphrase(path: Path, text: str) -> None:
    """Write a file of mode 0600."""
    path.touch(mode=0o600)
    path.write_text(text)


def crash(kind: str, directory: Path, stage: str, *, reencrypt: bool) -> None:
    """Rotate in a process that kills itself at one stage."""
    arguments = [kind, str(directory), stage, str(reencrypt)]
    done = subprocess.run([sys.executable, "-c", CRASH, *arguments], check=False, timeout=60)
    assert -signal.SIGKILL == done.returncode


@pytest.mark.parametrize("reencrypt", [False, True], ids=["rewrap", "reencrypt"])
class TestRotation:
    """What holds of a rotation, whether the values are sealed anew or not."""

    def test_the_values_stay_what_they_were(self, tmp_path: Path, reencrypt: bool) -> None:  # noqa: FBT001
        """After a rotation the same value is issued, by this store and by the next one that opens the file."""
        put(tmp_path, "github", "value")
        rotate(tmp_path, reencrypt=reencrypt)
        assert "value" == get(tmp_path, "github")

    def test_it_says_what_it_did(self, tmp_path: Path, reencrypt: bool) -> None:  # noqa: FBT001
        """The result names the source, counts the generations and the versions that were sealed anew."""
        put(tmp_path, "github", "old")
        put(tmp_path, "github", "new")
        expected = Rotated(
            source=f"key file {tmp_path / 'master.key'}", generation=2, reencrypted=2 if reencrypt else 0
        )
        assert expected == rotate(tmp_path, reencrypt=reencrypt)

    def test_the_old_key_opens_it_no_more(self, tmp_path: Path, reencrypt: bool) -> None:  # noqa: FBT001
        """Who kept the old key file cannot open the new store."""
        put(tmp_path, "github", "value")
        shutil.copy2(tmp_path / "master.key", tmp_path / "old.key")
        rotate(tmp_path, reencrypt=reencrypt)
        with pytest.raises(CorruptError):
            get(tmp_path, "github", KeyFile(tmp_path / "old.key"))

    def test_the_old_wrapping_is_not_in_the_file(self, tmp_path: Path, reencrypt: bool) -> None:  # noqa: FBT001
        """No byte of the data key as the old master key had wrapped it is left in the file or its WAL."""
        put(tmp_path, "github", "value")

        async def wrapped(backend: SealedBackend) -> bytes:
            view = backend._store.view  # noqa: SLF001 -- what is looked for is not public
            assert view is not None
            return view.header.data_key

        before = using(sealed(tmp_path), wrapped)
        there = before in (tmp_path / "sealed.db").read_bytes()
        rotate(tmp_path, reencrypt=reencrypt)
        left = b"".join(path.read_bytes() for path in sorted(tmp_path.glob("sealed.db*")))
        assert (True, False) == (there, before in left)

    def test_only_one_key_file_stays(self, tmp_path: Path, reencrypt: bool) -> None:  # noqa: FBT001
        """The new key has taken the place of the old one, with the same mode."""
        put(tmp_path, "github", "value")
        rotate(tmp_path, reencrypt=reencrypt)
        found = sorted(path.name for path in tmp_path.glob("*.key*"))
        assert (["master.key"], 0o600) == (found, (tmp_path / "master.key").stat().st_mode & 0o777)

    @pytest.mark.parametrize("stage", STAGES)
    @pytest.mark.parametrize("kind", ["file", "passphrase"])
    def test_a_crash_leaves_a_store_that_opens(self, tmp_path: Path, kind: str, stage: str, reencrypt: bool) -> None:  # noqa: FBT001
        """Killed after any step, the store opens with what is there, and can be rotated again."""
        source: KeySource = key_file(tmp_path) if kind == "file" else passphrase_file(tmp_path)
        put(tmp_path, "github", "value", source)
        write_passphrase(tmp_path / "passphrase.new", "the next long passphrase")
        crash(kind, tmp_path, stage, reencrypt=reencrypt)
        first = get(tmp_path, "github", source)
        write_passphrase(tmp_path / "passphrase.new", "and the one after it")
        rotate(tmp_path, source, reencrypt=reencrypt)
        assert ("value", "value") == (first, get(tmp_path, "github", source))


def test_nothing_that_the_old_key_sealed_is_in_the_file(tmp_path: Path) -> None:
    """After many changes and a rotation with new seals, no old seal is left in the slack of any page."""
    store = SealedStore(tmp_path / "sealed.db", key_file(tmp_path), keep=3)
    store.open()
    chance = random.Random(1)  # noqa: S311 -- the same pages each time
    old: set[bytes] = set()
    for _ in range(400):
        name = f"s{chance.randrange(60)}"
        if store.view and name in store.view.shelves and chance.random() < 0.15:
            store.delete(name)
        else:
            store.put(name, {"value": "x" * chance.choice([3, 30, 300, 3000, 20000])})
        old |= {shelf.sealed[:40] for shelf in store.view.shelves.values()} if store.view else set()
    store.rotate(None, reencrypt=True, stage=lambda _: None)
    store.close()
    whole = (tmp_path / "sealed.db").read_bytes()
    assert (True, []) == (len(old) > 200, [seal for seal in old if seal in whole])


def test_values_put_during_a_rotation_are_kept(tmp_path: Path) -> None:
    """A put that comes while the key is rotated is neither lost nor sealed with the wrong key."""

    async def both(backend: SealedBackend) -> None:
        puts = (backend.put(f"s{number}", {"value": Secret(str(number))}) for number in range(20))
        await asyncio.gather(backend.rotate_key(reencrypt=True), *puts, backend.rotate_key())

    using(sealed(tmp_path), both)
    assert [str(number) for number in range(20)] == [get(tmp_path, f"s{number}") for number in range(20)]


def test_a_rotation_without_room_for_the_new_key_changes_nothing(tmp_path: Path) -> None:
    """Where the new key cannot be written, the old one stays in force and an error says so."""
    keys = tmp_path / "keys"
    keys.mkdir()
    source = key_file(keys)
    put(tmp_path, "github", "value", source)
    (keys / "master.key.new").mkdir()
    with pytest.raises(BackendError, match=r"master\.key\.new"):
        rotate(tmp_path, source)
    (keys / "master.key.new").rmdir()
    assert "value" == get(tmp_path, "github", source)


def test_a_passphrase_rotates_to_the_one_beside_it(tmp_path: Path) -> None:
    """The passphrase in ``NAME.new`` comes into force and takes the place of the old one."""
    source = passphrase_file(tmp_path)
    put(tmp_path, "github", "value", source)
    write_passphrase(tmp_path / "passphrase.new", "the next long passphrase\n")
    rotate(tmp_path, source)
    found = (tmp_path / "passphrase").read_text(), (tmp_path / "passphrase.new").exists()
    assert (("the next long passphrase\n", False), "value") == (found, get(tmp_path, "github", source))


def test_a_passphrase_has_to_be_there_to_be_rotated_to(tmp_path: Path) -> None:
    """Without a next passphrase nothing is rotated, and the error says where it belongs."""
    source = passphrase_file(tmp_path)
    put(tmp_path, "github", "value", source)
    with pytest.raises(MisconfiguredError, match=r"passphrase\.new"):
        rotate(tmp_path, source)


def test_a_credential_rotates_to_the_one_beside_it(tmp_path: Path) -> None:
    """Both credentials open the store until the operator has put the new one in place."""
    for name in ("key", "key.new"):
        create_key_file(tmp_path / name)
    source = Credential("key", tmp_path)
    put(tmp_path, "github", "value", source)
    rotate(tmp_path, source)
    first = get(tmp_path, "github", source)
    (tmp_path / "key.new").rename(tmp_path / "key")
    assert ("value", "value") == (first, get(tmp_path, "github", source))


def test_a_credential_has_to_be_put_in_place_before_the_next_rotation(tmp_path: Path) -> None:
    """While ``NAME.new`` is in force there is no next key, and rotating to the same one is refused."""
    for name in ("key", "key.new"):
        create_key_file(tmp_path / name)
    source = Credential("key", tmp_path)
    put(tmp_path, "github", "value", source)
    rotate(tmp_path, source)
    with pytest.raises(UnavailableError, match=r"key\.new"):
        rotate(tmp_path, source)


def test_the_key_can_move_to_another_source(tmp_path: Path) -> None:
    """After a rotation to a passphrase, that opens the store, and the result says what is left of the key file."""
    put(tmp_path, "github", "value")
    there = passphrase_file(tmp_path)
    done = using(sealed(tmp_path), lambda backend: backend.rotate_key(there))
    assert (f"the old key is still there: key file {tmp_path / 'master.key'}", "value") == (
        done.remains,
        get(tmp_path, "github", there),
    )


def test_a_new_key_that_cannot_take_its_place_is_reported_and_used(tmp_path: Path) -> None:
    """Where the old passphrase cannot be replaced, the store works with the new one and the result says what to do."""
    source = PassphraseFile(tmp_path / "passphrase", cost=CHEAP)
    write_passphrase(tmp_path / "passphrase", "correct horse battery")
    put(tmp_path, "github", "value", source)
    write_passphrase(tmp_path / "passphrase.new", "the next long passphrase")

    def in_the_way(stage: str) -> None:
        if stage == "committed":
            (tmp_path / "passphrase").unlink()
            (tmp_path / "passphrase").mkdir()

    done = using(sealed(tmp_path, source), lambda backend: backend.rotate_key(stage=in_the_way))
    (tmp_path / "passphrase").rmdir()
    assert (True, "value") == ("passphrase.new" in (done.remains or ""), get(tmp_path, "github", source))


def test_the_only_key_that_opens_is_never_thrown_away(tmp_path: Path) -> None:
    """While the new key could not take its place, neither another program's write nor another rotation costs it."""
    keys = tmp_path / "keys"
    keys.mkdir()
    source = key_file(keys)

    def in_the_way(stage: str) -> None:
        if stage == "committed":
            (keys / "master.key").unlink()
            (keys / "master.key").mkdir()

    async def carry_on(backend: SealedBackend) -> str:
        await backend.put("github", {"value": Secret("value")})
        done = await backend.rotate_key(stage=in_the_way)
        with closing(sqlite3.connect(tmp_path / "sealed.db", isolation_level=None)) as connection:
            connection.execute("VACUUM")
        await backend.put("slack", {"value": Secret("other")})
        with pytest.raises(UnavailableError):
            await backend.rotate_key()
        return done.remains or ""

    remains = using(sealed(tmp_path, source), carry_on)
    (keys / "master.key").rmdir()
    assert (True, "value") == ("master.key.new" in remains, get(tmp_path, "github", source))


def test_the_old_key_stays_while_the_new_wrapping_is_in_the_wal_alone(tmp_path: Path) -> None:
    """Where another program reads the file, the old key is kept beside the new one until the next start."""
    source = key_file(tmp_path)

    async def during_a_backup(backend: SealedBackend) -> tuple[bool, bool]:
        await backend.put("github", {"value": Secret("value")})
        with closing(sqlite3.connect(tmp_path / "sealed.db", isolation_level=None)) as connection:
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM secrets").fetchone()
            done = await backend.rotate_key()
            return "another program reads" in (done.remains or ""), (tmp_path / "master.key.new").exists()

    during = using(sealed(tmp_path, source), during_a_backup)
    value = get(tmp_path, "github", source)
    assert ((True, True), "value", False) == (during, value, (tmp_path / "master.key.new").exists())
