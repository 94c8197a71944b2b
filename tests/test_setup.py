"""What ``init`` makes, and that it never overwrites."""

import grp
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from backends.master_key import create_key_file
from broker.config import load
from broker.errors import BrokerError, ConfigError, IntegrityError
from broker.paths import Mode, Places, within
from broker.setup import CREDENTIAL, Choice, choices, initialise
from broker.starter import starting_config
from tests.backends.places import get, put
from tests.conftest import ROOT


def content(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Return the mode and the content of everything in a directory."""
    return {
        str(path.relative_to(directory)): (path.stat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in directory.rglob("*")
    }


def modes(directory: Path) -> dict[str, int]:
    """Return the mode of everything in a directory."""
    return {name: mode & 0o777 for name, (mode, _) in content(directory).items()}


def test_it_makes_a_config_a_state_directory_and_a_key(tmp_path: Path) -> None:
    """From nothing it makes all that a broker needs, for its owner's eyes alone."""
    initialise(within(tmp_path))
    expected = {
        "config": 0o700,
        "config/broker.d": 0o700,
        "config/broker.toml": 0o600,
        "state": 0o700,
        "state/master.key": 0o600,
    }
    assert expected == modes(tmp_path)


@pytest.mark.parametrize("mode", ["user", "system"])
def test_what_it_writes_is_a_config(tmp_path: Path, mode: Mode) -> None:
    """The first config is read without complaint, and is to a broker that began without one what it had assumed."""
    places = within(tmp_path, mode=mode)
    before = load(places).backends
    initialise(places)
    assert dict(before) == dict(load(places).backends)


@pytest.mark.parametrize("mode", ["user", "system"])
def test_the_example_in_it_is_a_config(tmp_path: Path, mode: Mode) -> None:
    """Who takes the # from the example has a server that works."""
    places = within(tmp_path, mode=mode)
    initialise(places)
    text = (places.config / "broker.toml").read_text()
    lines = [
        line.removeprefix("# ") for line in text.splitlines() if line.startswith(("# [", "# command", "# env", "# sel"))
    ]
    (places.config / "broker.d/example.toml").write_text("\n".join(lines))
    (places.config / "broker.d/example.toml").chmod(0o600)
    (server,) = load(places).servers.values()
    assert ("github", {"github"}) == (server.name, set(server.env["GITHUB_PERSONAL_ACCESS_TOKEN"].secrets))


def test_a_store_opens_with_the_key_that_it_made(tmp_path: Path) -> None:
    """After ``init`` a secret can be stored and read."""
    initialise(within(tmp_path))
    put(tmp_path / "state", "github", "value")
    assert "value" == get(tmp_path / "state", "github")


def test_a_second_time_changes_nothing_and_says_so(tmp_path: Path) -> None:
    """Run twice, the second run makes nothing, and everything is byte for byte what it was."""
    initialise(within(tmp_path))
    before = content(tmp_path)
    report = initialise(within(tmp_path))
    assert (False, before) == (report.changed, content(tmp_path))


def test_what_somebody_wrote_stays(tmp_path: Path) -> None:
    """A config that is there is not touched, and the key is made where that config says."""
    places = within(tmp_path)
    places.config.mkdir(mode=0o700)
    text = '[backends.local]\nkey.file = "my.key"\n'
    (places.config / "broker.toml").write_text(text)
    (places.config / "broker.toml").chmod(0o600)
    report = initialise(places)
    found = ((places.config / "broker.toml").read_text(), (places.config / "my.key").exists(), report.key)
    assert (text, True, f"key file {places.config / 'my.key'}") == found


def test_a_config_that_is_wrong_stops_it(tmp_path: Path) -> None:
    """Where the config does not say what it means, no key is made for it."""
    places = within(tmp_path)
    places.config.mkdir(mode=0o700)
    (places.config / "broker.toml").write_text("[backends.local]\nkey.fil = 'x'\n")
    (places.config / "broker.toml").chmod(0o600)
    with pytest.raises(ConfigError, match=r"key\.fil is not an option"):
        initialise(places)
    assert not (places.state / "master.key").exists()


def test_no_new_key_is_made_for_an_old_store(tmp_path: Path) -> None:
    """Where the key file of a store has gone, a new one would hide that: it is an error."""
    places = within(tmp_path)
    initialise(places)
    put(places.state, "github", "value")
    (places.state / "master.key").unlink()
    with pytest.raises(IntegrityError, match="was sealed with it"):
        initialise(places)
    assert not (places.state / "master.key").exists()


def test_a_run_that_was_cut_short_is_finished(tmp_path: Path) -> None:
    """With a key file and no config yet, the key that is there is used."""
    places = within(tmp_path)
    places.state.mkdir(mode=0o700)
    create_key_file(places.state / "master.key")
    before = (places.state / "master.key").read_bytes()
    report = initialise(places)
    assert (before, f"{places.state / 'master.key'} is there already") == (
        (places.state / "master.key").read_bytes(),
        report.why,
    )


def test_it_says_what_a_key_file_does_not_protect(tmp_path: Path) -> None:
    """Who gets a key file is told what a copy of it means."""
    report = initialise(within(tmp_path))
    assert any("protects nothing that is copied along with it" in warning for warning in report.warnings)


def test_a_state_directory_that_others_can_see_is_reported(tmp_path: Path) -> None:
    """What was there with too wide a mode is left alone and told, with the command that mends it."""
    places = within(tmp_path)
    places.state.mkdir(mode=0o755)
    report = initialise(places)
    assert f"others can look into {places.state}: chmod 700 {places.state}" in report.warnings


def test_who_chooses_is_obeyed(tmp_path: Path) -> None:
    """The choices are offered best first with what does not work, and the one that is chosen is taken."""
    offered: list[Choice] = []

    def choose(found: Sequence[Choice]) -> Choice:
        offered.extend(found)
        return found[0]

    places = within(tmp_path)
    initialise(places, choose=choose)
    expected = (["credential", "keyring", "file"], {"key": {"credential": CREDENTIAL}})
    assert expected == ([choice.kind for choice in offered], dict(load(places).backends["local"].options))


def test_something_in_the_way_is_an_error_with_its_name(tmp_path: Path) -> None:
    """Where a file has the name of a directory that is needed, the error says which."""
    (tmp_path / "config").write_text("in the way")
    with pytest.raises(BrokerError, match=f"{tmp_path}/config") as caught:
        initialise(within(tmp_path))
    assert ("internal", f"ls -ld {tmp_path}/config") == (caught.value.code, caught.value.hint)


SHOW = """
import sys
from pathlib import Path
from broker.paths import within
from broker.setup import choices
print([(choice.usable, choice.why) for choice in choices(within(Path(sys.argv[1]))) if choice.kind == "credential"])
"""


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (None, "[(False, 'systemd has no credential mcp-broker-master-key')]"),
        (b"", "[(False, 'the systemd credential mcp-broker-master-key is empty')]"),
        (b"A" * 43 + b"=\n", "[(True, 'systemd hands it to the unit and keeps it in no file')]"),
    ],
    ids=["none", "empty", "good"],
)
def test_a_credential_is_taken_only_where_it_holds_a_key(tmp_path: Path, key: bytes | None, expected: str) -> None:
    """A credential that systemd left empty is not chosen, and the reason is told."""
    if key is not None:
        (tmp_path / CREDENTIAL).write_bytes(key)
    environment = {"CREDENTIALS_DIRECTORY": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SHOW, str(tmp_path / "broker")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert expected == done.stdout.strip()


def test_a_service_is_not_offered_a_keyring(tmp_path: Path) -> None:
    """In system mode the key is a credential or a file."""
    found = [choice.usable for choice in choices(within(tmp_path, mode="system")) if choice.kind == "keyring"]
    assert [False] == found


@pytest.mark.parametrize(
    ("mode", "why"),
    [
        ("user", "a broker in a directory of its own keeps its key there, too"),
        ("system", "a service has no desktop, and so no keyring"),
    ],
)
def test_it_says_where_secrets_go(tmp_path: Path, mode: Mode, why: str) -> None:
    """Where no keyring is used, ``init`` says that it is the sealed store, and why."""
    report = initialise(within(tmp_path, mode=mode))
    assert f"secrets go into the sealed store; no keyring is used: {why}" in report.warnings


def test_without_a_desktop_it_takes_the_sealed_store_and_says_so(tmp_path: Path) -> None:
    """Where there is no session bus nothing crashes: the reason is told, and the key is in a file."""
    script = (
        "import sys\nfrom pathlib import Path\nfrom backends.base import BackendError, Surroundings\n"
        "from backends.keyring_key import probe\nhere = Path(sys.argv[1])\n"
        "try:\n    probe(Surroundings(mode='user', config=here, state=here))\n"
        "except BackendError as error:\n    print(error.message)\n"
    )
    nowhere = {"PYTHONPATH": str(ROOT), "DBUS_SESSION_BUS_ADDRESS": f"unix:path={tmp_path}/none"}
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path], env=nowhere, capture_output=True, text=True, check=True
    )
    assert ("the session bus does not answer: FileNotFoundError\n", "") == (done.stdout, done.stderr)


def test_the_systems_config_directory_is_open_whatever_the_umask(tmp_path: Path) -> None:
    """A careful umask of whoever runs it does not lock the broker out of its config."""
    before = os.umask(0o077)
    try:
        initialise(within(tmp_path, mode="system"))
    finally:
        os.umask(before)
    found = modes(tmp_path)
    assert (0o755, 0o755, 0o700) == (found["config"], found["config/broker.d"], found["state"])


@pytest.mark.root
def test_the_systems_config_can_be_read_by_its_broker_and_by_nobody_else(tmp_path: Path) -> None:
    """In system mode the config is root's; where the broker's user is there, its group may read it and nobody else."""
    places: Places = within(tmp_path, mode="system")
    report = initialise(places)
    status = (places.config / "broker.toml").stat()
    try:
        expected = (0o640, grp.getgrnam("mcp-broker").gr_gid, False)
    except KeyError:
        expected = (0o600, os.getgid(), True)
    warned = any("there is no user mcp-broker" in warning for warning in report.warnings)
    assert (*expected, 0) == (status.st_mode & 0o777, status.st_gid, warned, status.st_uid)


def test_a_path_with_quotes_is_written_as_toml() -> None:
    """A path that TOML would read otherwise is escaped."""
    assert 'key = { file = "/a \\"b\\" \\\\c/é" }' in starting_config({"file": '/a "b" \\c/é'}, "user")
