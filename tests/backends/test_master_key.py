"""Where a master key comes from, and which files are refused as one."""

import base64
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from backends.base import BackendError, CorruptError, LockedError, MisconfiguredError, Surroundings
from backends.envelope import Cipher, OpenError
from backends.key_option import key_source
from backends.master_key import (
    Credential,
    KeyFile,
    KeySource,
    Wrapping,
    create_key_file,
    decode_key,
    encode_key,
)
from backends.passphrase import PassphraseFile
from backends.sealed import SealedBackend
from tests.backends.places import get, passphrase_file, put, sealed, using

WRAPPING = Wrapping(store=bytes(16), generation=1)
KEY = bytes(range(32))


def private(path: Path, content: bytes, mode: int = 0o600) -> Path:
    """Write a file with a mode."""
    path.write_bytes(content)
    path.chmod(mode)
    return path


def opens(source: KeySource, key: bytes) -> bool:
    """Return whether the first candidate of a source is ``key``."""
    sealed_with = Cipher(key).seal(b"x", b"")
    try:
        return b"x" == next(source.candidates(WRAPPING)).cipher.open(sealed_with, b"")
    except OpenError:
        return False


class TestKeyFile:
    """A key file."""

    def test_it_is_made_for_its_owner_alone(self, tmp_path: Path) -> None:
        """A new key file has mode 0600, whatever the umask, and nothing is left beside it."""
        before = os.umask(0)
        try:
            create_key_file(tmp_path / "master.key")
        finally:
            os.umask(before)
        assert [("master.key", 0o100600)] == [(path.name, path.stat().st_mode) for path in tmp_path.iterdir()]

    def test_it_says_what_it_is(self, tmp_path: Path) -> None:
        """Who finds it reads what it is before the key."""
        create_key_file(tmp_path / "master.key")
        assert (tmp_path / "master.key").read_text().startswith("# The master key of mcp-broker's sealed store.\n")

    def test_two_are_never_the_same(self, tmp_path: Path) -> None:
        """Each key file holds a key of its own."""
        for name in ("a", "b"):
            create_key_file(tmp_path / name)
        assert (tmp_path / "a").read_bytes() != (tmp_path / "b").read_bytes()

    def test_it_is_never_overwritten(self, tmp_path: Path) -> None:
        """A key file that is there stays as it is, also where it is a link that leads nowhere."""
        private(tmp_path / "there", b"mine")
        (tmp_path / "link").symlink_to(tmp_path / "nowhere")
        for name in ("there", "link"):
            with pytest.raises(FileExistsError):
                create_key_file(tmp_path / name)
        assert (b"mine", ["link", "there"]) == (
            (tmp_path / "there").read_bytes(),
            sorted(path.name for path in tmp_path.iterdir()),
        )

    @pytest.mark.parametrize(
        "text",
        [base64.b64encode(KEY), base64.b64encode(KEY) + b"\n", b"# a\n\n  " + base64.b64encode(KEY) + b"\r\n# b\n"],
        ids=["bare", "line", "comments"],
    )
    def test_it_is_one_line_of_base64_among_comments(self, tmp_path: Path, text: bytes) -> None:
        """What `openssl rand -base64 32` prints is a key, with or without comments."""
        assert opens(KeyFile(private(tmp_path / "key", text)), KEY)

    @pytest.mark.parametrize(
        "text",
        [b"hello", base64.b64encode(KEY[:31]), base64.b64encode(KEY) * 2, base64.b64encode(KEY) + b"\nx", KEY, b"\xff"],
        ids=["no base64", "short", "long", "two lines", "raw", "no text"],
    )
    def test_what_is_no_key_is_refused_without_being_quoted(self, tmp_path: Path, text: bytes) -> None:
        """Anything but 32 bytes as base64 is no key, and the error does not repeat it."""
        source = KeyFile(private(tmp_path / "key", text))
        with pytest.raises(CorruptError) as caught:
            next(source.candidates(WRAPPING))
        assert (True, None) == (repr(text)[2:-1] not in str(caught.value), caught.value.__cause__)

    def test_an_empty_one_locks(self, tmp_path: Path) -> None:
        """An empty file is no key, and no key of zeros either."""
        with pytest.raises(LockedError, match="is empty"):
            next(KeyFile(private(tmp_path / "key", b"\n")).candidates(WRAPPING))

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660, 0o644, 0o601])
    def test_one_that_others_can_touch_is_refused(self, tmp_path: Path, mode: int) -> None:
        """Any permission for the group or for others is refused, with the command that takes it away."""
        path = private(tmp_path / "key", base64.b64encode(KEY), mode)
        with pytest.raises(MisconfiguredError) as caught:
            next(KeyFile(path).candidates(WRAPPING))
        assert f"chmod 600 {path}" == caught.value.hint

    @pytest.mark.root
    def test_one_of_somebody_else_is_refused(self, tmp_path: Path) -> None:
        """A key file of another user is one that they know."""
        path = private(tmp_path / "key", base64.b64encode(KEY))
        os.chown(path, 12345, 12345)
        with pytest.raises(MisconfiguredError, match="belongs to uid 12345"):
            next(KeyFile(path).candidates(WRAPPING))

    def test_something_that_never_ends_is_refused(self, tmp_path: Path) -> None:
        """A FIFO that nobody writes to does not hang the broker."""
        os.mkfifo(tmp_path / "key", 0o600)
        with pytest.raises(MisconfiguredError, match="is not a plain file"):
            next(KeyFile(tmp_path / "key").candidates(WRAPPING))

    def test_a_link_to_a_good_one_is_followed(self, tmp_path: Path) -> None:
        """A symlink to one's own key file is fine."""
        private(tmp_path / "key", base64.b64encode(KEY))
        (tmp_path / "link").symlink_to("key")
        assert opens(KeyFile(tmp_path / "link"), KEY)


class TestCredential:
    """A systemd credential."""

    def test_it_is_read_from_the_units_directory(self, tmp_path: Path) -> None:
        """The key is the content of the credential of that name, whatever mode systemd gave the file."""
        private(tmp_path / "key", base64.b64encode(KEY), 0o440)
        assert opens(Credential("key", tmp_path), KEY)

    @pytest.mark.parametrize("content", [b"", b"\n", None], ids=["empty", "blank", "missing"])
    def test_one_that_is_empty_or_missing_locks(self, tmp_path: Path, content: bytes | None) -> None:
        """A credential that systemd could not decrypt locks the store, and the hint says how to make one."""
        if content is not None:
            private(tmp_path / "key", content)
        with pytest.raises(LockedError) as caught:
            next(Credential("key", tmp_path).candidates(WRAPPING))
        assert "systemd-creds encrypt --name=key" in (caught.value.hint or "")

    def test_without_a_unit_there_is_none(self) -> None:
        """A broker that no unit started says so."""
        with pytest.raises(LockedError, match="not started by a unit"):
            next(Credential("key", None).candidates(WRAPPING))


class TestPassphrase:
    """A passphrase in a file."""

    @pytest.mark.parametrize("end", ["", "\n", "\r\n"], ids=["bare", "lf", "crlf"])
    def test_one_final_newline_does_not_count(self, tmp_path: Path, end: str) -> None:
        """With and without the newline that an editor adds it is the same passphrase."""
        put(tmp_path, "github", "value", passphrase_file(tmp_path, "correct horse battery"))
        (tmp_path / "passphrase").write_bytes(f"correct horse battery{end}".encode())
        assert "value" == get(tmp_path, "github", passphrase_file(tmp_path))

    @pytest.mark.parametrize("text", ["correct horse batter", "correct horse battery ", "correct horse battery\n\n"])
    def test_another_one_does_not_open(self, tmp_path: Path, text: str) -> None:
        """Every character of a passphrase counts, a space at the end and a second newline among them."""
        put(tmp_path, "github", "value", passphrase_file(tmp_path))
        (tmp_path / "passphrase").write_text(text)
        with pytest.raises(CorruptError):
            get(tmp_path, "github", passphrase_file(tmp_path))

    def test_a_short_one_seals_nothing(self, tmp_path: Path) -> None:
        """A new store is not sealed with a passphrase of eleven bytes."""
        with pytest.raises(MisconfiguredError, match="shorter than 12 bytes"):
            put(tmp_path, "github", "value", passphrase_file(tmp_path, "elevenbytes"))

    def test_an_empty_one_locks(self, tmp_path: Path) -> None:
        """An empty file is no passphrase."""
        put(tmp_path, "github", "value", passphrase_file(tmp_path))
        (tmp_path / "passphrase").write_text("\n")
        with pytest.raises(LockedError, match="is empty"):
            get(tmp_path, "github", passphrase_file(tmp_path))

    def test_two_stores_with_one_passphrase_have_two_salts(self, tmp_path: Path) -> None:
        """The same passphrase makes another key for each store."""
        source = passphrase_file(tmp_path)
        assert source.first(WRAPPING).kdf != source.first(WRAPPING).kdf

    def test_the_cost_is_what_rfc_9106_recommends(self, tmp_path: Path) -> None:
        """Without being told otherwise a guess costs three passes over 64 MiB in four lanes."""
        passphrase_file(tmp_path)
        kdf = PassphraseFile(tmp_path / "passphrase").first(WRAPPING).kdf or ""
        assert kdf.endswith('"t": 3, "m": 65536, "p": 4}')

    def test_the_cost_of_a_store_stays_its_own(self, tmp_path: Path) -> None:
        """A store that was sealed at another cost opens at that cost."""
        put(tmp_path, "github", "value", passphrase_file(tmp_path))
        assert "value" == get(tmp_path, "github", PassphraseFile(tmp_path / "passphrase"))

    @pytest.mark.parametrize(
        "kdf",
        [
            "",
            "[]",
            "{}",
            '{"kdf": "scrypt", "salt": "AAAAAAAAAAAAAAAAAAAAAA==", "t": 1, "m": 64, "p": 1}',
            '{"kdf": "argon2id", "salt": "AAAA", "t": 1, "m": 64, "p": 1}',
            '{"kdf": "argon2id", "salt": "AAAAAAAAAAAAAAAAAAAAAA==", "t": 1, "m": 99999999999, "p": 1}',
            '{"kdf": "argon2id", "salt": "AAAAAAAAAAAAAAAAAAAAAA==", "t": 99999999, "m": 64, "p": 1}',
            '{"kdf": "argon2id", "salt": "AAAAAAAAAAAAAAAAAAAAAA==", "t": 1, "m": 64, "p": 9999}',
            '{"kdf": "argon2id", "salt": "AAAAAAAAAAAAAAAAAAAAAA==", "t": null, "m": 64, "p": 1}',
        ],
        ids=["empty", "list", "nothing", "other", "salt", "memory", "passes", "lanes", "type"],
    )
    def test_a_cost_that_makes_no_sense_is_not_paid(self, tmp_path: Path, kdf: str) -> None:
        """A changed store can neither stop the machine with its cost nor choose another function."""
        source = passphrase_file(tmp_path)
        with pytest.raises(CorruptError):
            next(source.candidates(Wrapping(store=bytes(16), generation=1, kdf=kdf)))


class TestOption:
    """``[backends.local] key``."""

    @pytest.fixture
    def surroundings(self, tmp_path: Path) -> Surroundings:
        """Return a config and a state directory."""
        return Surroundings(mode="user", config=tmp_path / "config", state=tmp_path / "state")

    @pytest.mark.parametrize(
        ("key", "label"),
        [
            ({}, "key file {}/state/master.key"),
            ({"file": "my.key"}, "key file {}/config/my.key"),
            ({"file": "/etc/my.key"}, "key file /etc/my.key"),
            ({"credential": "key"}, "systemd credential key"),
            ({"passphrase_file": "phrase"}, "passphrase file {}/config/phrase"),
            ({"keyring": True}, "OS keyring"),
        ],
        ids=["none", "relative", "absolute", "credential", "passphrase", "keyring"],
    )
    def test_it_names_a_source(self, key: dict[str, Any], label: str, surroundings: Surroundings) -> None:
        """Each kind of key is taken from where it says; without one, from the file that ``init`` makes."""
        assert label.format(surroundings.state.parent) == key_source(key, surroundings).label

    @pytest.mark.parametrize(
        ("key", "complaint"),
        [
            ({"fil": "x"}, "backends.local.key.fil is not an option\nhint: did you mean file?"),
            ({"zzz": "x"}, "backends.local.key.zzz is not an option"),
            ({"file": 1}, "backends.local.key.file must be a string"),
            ({"file": ""}, "backends.local.key.file must be a string"),
            ({"keyring": "yes"}, "backends.local.key.keyring: there is no keyring 'yes'"),
            ({"keyring": 1}, "backends.local.key.keyring must be true or false"),
            ({"keyring": False}, "backends.local.key names keyring"),
            ({"file": "x", "credential": "y"}, "backends.local.key names file and credential"),
            ({"credential": "../shadow"}, "backends.local.key.credential is a name, not a path"),
        ],
        ids=["near", "far", "type", "empty", "ring", "flag", "false", "two", "path"],
    )
    def test_what_it_does_not_mean_is_refused(
        self, key: dict[str, Any], complaint: str, surroundings: Surroundings
    ) -> None:
        """A mistake is told with the key that it is in."""
        with pytest.raises(MisconfiguredError) as caught:
            key_source(key, surroundings)
        assert str(caught.value).startswith(complaint)


def test_a_key_survives_being_text() -> None:
    """What is written as text is read as the same key."""
    assert KEY == decode_key(encode_key(KEY).encode())


@pytest.mark.parametrize("make", [KeyFile, PassphraseFile], ids=["key", "passphrase"])
def test_a_missing_file_locks(tmp_path: Path, make: Callable[[Path], KeySource]) -> None:
    """A file that is not there locks the store: it may come back, and nothing is made in its place."""
    with pytest.raises(LockedError, match="is missing"):
        make(tmp_path / "none").first(WRAPPING)


def test_a_new_store_is_not_sealed_with_a_key_that_others_know(tmp_path: Path) -> None:
    """Where the key file is open to others, no store is made."""
    path = private(tmp_path / "key", base64.b64encode(KEY), 0o644)
    with pytest.raises(BackendError):
        put(tmp_path, "github", "value", KeyFile(path))
    assert not (tmp_path / "sealed.db").exists()


def test_an_open_store_needs_its_passphrase_no_more(tmp_path: Path) -> None:
    """The master key is asked for when the store is opened, and not kept or asked for again."""
    source = passphrase_file(tmp_path)
    put(tmp_path, "github", "value", source)

    async def without(backend: SealedBackend) -> Sequence[str]:
        (tmp_path / "passphrase").unlink()
        return await backend.list()

    assert ["github"] == using(sealed(tmp_path, source), without)
