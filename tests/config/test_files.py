"""Finding and reading files."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.config import files
from broker.config.problems import InvalidConfigError
from broker.paths import Places, within

UID = os.geteuid()


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """Return places whose config directory is there and empty."""
    found = within(tmp_path)
    found.config.mkdir(mode=0o700)
    return found


def refusal(path: Path, *, trusted: bool = True) -> tuple[str, str | None]:
    """Return why a file is not read, without its path, and the hint."""
    with pytest.raises(InvalidConfigError) as caught:
        files.read(path, uid=UID, trusted=trusted)
    return caught.value.problems[0].text, caught.value.problems[0].hint


def test_finds_nothing_where_nothing_is(tmp_path: Path) -> None:
    """Without a config directory there are no files."""
    assert () == files.find(within(tmp_path))


def test_finds_files_in_order(places: Places) -> None:
    """The main file comes first, then those of the directory by name, without what editors leave."""
    parts = places.config / "broker.d"
    parts.mkdir()
    for name in ("b.toml", "a.toml", "10.toml", ".#a.toml", ".hidden.toml", "a.toml~", "README"):
        (parts / name).touch()
    (places.config / "broker.toml").touch()
    (places.config / "other.toml").touch()
    expected = (places.config / "broker.toml", parts / "10.toml", parts / "a.toml", parts / "b.toml")
    assert expected == files.find(places)


def test_finds_a_link_that_leads_nowhere(places: Places) -> None:
    """A broken link is found, so that reading it fails, rather than taken for no config."""
    main = places.config / "broker.toml"
    main.symlink_to("nowhere")
    assert (main,) == files.find(places)
    assert ("cannot be read: no such file or directory", f"ls -l {main}") == refusal(main)


def test_refuses_a_file_in_place_of_the_directory(places: Places) -> None:
    """A file called broker.d is a mistake and not an empty directory."""
    (places.config / "broker.d").touch()
    with pytest.raises(InvalidConfigError, match=r"broker\.d: cannot be listed: not a directory"):
        files.find(places)


def test_reads_text(places: Places) -> None:
    """A file is its text, also behind a link of one's own, and without the mark that some editors put first."""
    (places.config / "real").write_bytes(b"\xef\xbb\xbfa = 1\r\n")
    main = places.config / "broker.toml"
    main.symlink_to("real")
    assert "a = 1\r\n" == files.read(main, uid=UID, trusted=True)


def make_pipe(path: Path) -> None:
    """Make a named pipe that nobody writes to."""
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    """Make a socket."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.fspath(path))


def make_circle(path: Path) -> None:
    """Make a link to itself."""
    path.symlink_to(path)


def make_device(path: Path) -> None:
    """Make a link to a device that never ends."""
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (Path.mkdir, "a directory where a file should be"),
        (make_pipe, "a pipe where a file should be"),
        (make_socket, "cannot be read: no such device or address"),
        (make_circle, "cannot be read: its links lead in a circle"),
        (make_device, "a device where a file should be"),
    ],
)
def test_refuses_what_is_no_file(tmp_path: Path, make: Callable[[Path], None], text: str) -> None:
    """What is no plain file is refused at once, and a pipe without waiting for a writer."""
    path = tmp_path / "x"
    make(path)
    hint = f"ls -l {path}" if text.startswith("cannot be read") else None
    assert (text, hint) == refusal(path, trusted=False)


@pytest.mark.parametrize(
    ("content", "text", "hint"),
    [
        (b"a = '\xff'", "not UTF-8", "save the file as UTF-8"),
        (b"a\0b", "a NUL character, so this is no TOML", None),
        (b"#" * (files.LARGEST + 1), "larger than 1048576 bytes", "split it into several files in broker.d"),
    ],
)
def test_refuses_what_is_no_text(tmp_path: Path, content: bytes, text: str, hint: str | None) -> None:
    """Bytes that are no text, and too many of them, are refused."""
    path = tmp_path / "x"
    path.write_bytes(content)
    assert (text, hint) == refusal(path)


def test_names_the_line_of_what_is_no_text(tmp_path: Path) -> None:
    """A wrong byte is on a line, and the error carries nothing of the file along."""
    path = tmp_path / "x"
    path.write_bytes(b"a = 'canary'\nb = '\xff'\n")
    with pytest.raises(InvalidConfigError) as caught:
        files.read(path, uid=UID, trusted=True)
    assert f"{path}:2: not UTF-8" == caught.value.message
    assert (None, None) == (caught.value.__cause__, caught.value.__context__)


def test_reads_the_largest_file(tmp_path: Path) -> None:
    """A file of exactly the limit is read."""
    path = tmp_path / "x"
    path.write_bytes(b"#" * files.LARGEST)
    assert files.LARGEST == len(files.read(path, uid=UID, trusted=True))


def test_says_why_reading_failed() -> None:
    """A file that opens and then cannot be read is named with the system's reason."""
    assert ("cannot be read: input/output error", "ls -l /proc/self/mem") == refusal(
        Path("/proc/self/mem"), trusted=False
    )


@pytest.mark.parametrize("trusted", [True, False])
def test_refuses_a_file_that_all_can_write(tmp_path: Path, *, trusted: bool) -> None:
    """A file open to everybody is refused, with the command that closes it, also when it is only checked."""
    path = tmp_path / "x"
    path.touch()
    path.chmod(0o666)
    assert ("everybody can write it", f"chmod o-w {path}") == refusal(path, trusted=trusted)


@pytest.mark.root
def test_refuses_a_file_of_somebody_else(tmp_path: Path) -> None:
    """A file that another user owns is refused, unless it is only checked."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    path = tmp_path / "x"
    path.touch(mode=0o644)
    os.chown(path, 12345, 12345)
    expected = (f"it belongs to uid 12345, not to uid {UID} or root", f"chown {UID} {path}")
    assert expected == refusal(path)
    assert "" == files.read(path, uid=UID, trusted=False)


@pytest.mark.root
def test_says_that_a_file_is_not_ours_to_read(tmp_path: Path) -> None:
    """What the system does not let us read is named with its reason."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    path = tmp_path / "x"
    path.touch(mode=0o600)
    tmp_path.chmod(0o755)
    child = os.fork()
    if child == 0:
        os.setuid(12345)
        try:
            files.read(path, uid=12345, trusted=True)
        except InvalidConfigError as error:
            os._exit(0 if "permission denied" in error.message else 1)
        os._exit(2)
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_leaves_no_file_open(tmp_path: Path) -> None:
    """Whether a file is read or refused, it is closed again."""
    (tmp_path / "good").write_text("")
    before = len(list(Path("/proc/self/fd").iterdir()))
    files.read(tmp_path / "good", uid=UID, trusted=False)
    refusal(tmp_path, trusted=False)
    assert before == len(list(Path("/proc/self/fd").iterdir()))


def directory_refusal(path: Path) -> tuple[str, str | None] | None:
    """Return why the directories of a file are not trusted, without the path; None where they are."""
    try:
        files.check_directories([path], uid=UID)
    except InvalidConfigError as error:
        return error.problems[0].text, error.problems[0].hint
    return None


@pytest.mark.parametrize(
    ("mode", "fine"), [(0o700, True), (0o755, True), (0o1777, True), (0o777, False), (0o757, False)]
)
@pytest.mark.parametrize("inner", ["", "between/config"])
def test_looks_at_all_directories_above(tmp_path: Path, mode: int, inner: str, *, fine: bool) -> None:
    """A directory that everybody can write, however far above, would let anybody put another config in its place."""
    top = tmp_path / "top"
    (top / inner).mkdir(parents=True)
    top.chmod(mode)
    expected = None if fine else ("everybody can write it, and it leads to the config", f"chmod o-w {top}")
    assert expected == directory_refusal(top / inner / "broker.toml")


@pytest.mark.root
def test_directories_further_above_may_be_anybodys(tmp_path: Path) -> None:
    """A user namespace hides who owns what is above; the config's own directory must be ours or root's."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    config = tmp_path / "above/config"
    config.mkdir(parents=True)
    os.chown(tmp_path / "above", 12345, 12345)
    assert None is directory_refusal(config / "broker.toml")
    os.chown(config, 12345, 12345)
    expected = f"it belongs to uid 12345, not to uid {UID} or root, and it leads to the config"
    assert (expected, f"chown {UID} {config}") == directory_refusal(config / "broker.toml")


def test_looks_at_both_ends_of_a_link(tmp_path: Path) -> None:
    """Behind a link it is the directory of the file itself that counts as well."""
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "open/real.toml").touch()
    (tmp_path / "config").mkdir()
    (tmp_path / "config/broker.toml").symlink_to(tmp_path / "open/real.toml")
    expected = ("everybody can write it, and it leads to the config", f"chmod o-w {tmp_path}/open")
    assert expected == directory_refusal(tmp_path / "config/broker.toml")


def test_refuses_a_directory_that_is_not_there(tmp_path: Path) -> None:
    """A directory that went away in between is an error and not a crash."""
    expected = ("cannot be looked at: no such file or directory", None)
    assert expected == directory_refusal(tmp_path / "gone/broker.toml")


def test_stamp_follows_the_files(places: Places) -> None:
    """A new file, other content, a file that went, and a link that leads nowhere each make another stamp."""
    main = places.config / "broker.toml"
    stamps = [files.stamp(places)]
    main.write_text("a = 1")
    stamps.append(files.stamp(places))
    main.write_text("a = 1000")
    stamps.append(files.stamp(places))
    main.unlink()
    main.symlink_to("nowhere")
    stamps.append(files.stamp(places))
    assert 4 == len(set(stamps))
    assert ((str(main), 0, 0, 0),) == stamps[-1]


def test_stamp_stays_while_nothing_changes(places: Places) -> None:
    """The same files have the same stamp."""
    (places.config / "broker.toml").touch()
    assert files.stamp(places) == files.stamp(places)
