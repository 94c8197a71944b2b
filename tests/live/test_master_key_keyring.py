"""The master key in a real Secret Service: gnome-keyring in a D-Bus session of its own."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.live.desktop import users_own_session
from tests.running import room, until

pytestmark = pytest.mark.live("keyring", commands=["dbus-run-session", "dbus-send", "gnome-keyring-daemon"])

SESSION = """
printf %s 'the password of the keyring' | gnome-keyring-daemon --unlock --components=secrets >/dev/null || exit 99
exec "$@"
"""


def session(tmp_path: Path, what: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Do something in a session with an unlocked keyring."""
    home, runtime, store = (tmp_path / name for name in ("home", "run", "store"))
    for directory in (home, runtime, store):
        directory.mkdir(mode=0o700)
    clean = {"PATH": os.environ["PATH"], "HOME": str(home), "XDG_RUNTIME_DIR": str(runtime), "PYTHONPATH": str(ROOT)}
    script = [sys.executable, "-W", "error", "-m", "tests.live.keyring_session", what, str(store)]
    return subprocess.run(
        ["dbus-run-session", "--", "sh", "-c", SESSION, "sh", *script],
        env=clean | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def in_session(tmp_path: Path, what: str) -> str:
    """Do something in a session with an unlocked keyring, and return what it printed."""
    done = session(tmp_path, what)
    # The session's own noise (limits, portals) is on stderr as well: it is shown only where something failed.
    assert 0 == done.returncode, done.stderr
    return done.stdout.strip()


def test_a_key_in_the_keyring_opens_the_store_and_rotates(tmp_path: Path) -> None:
    """The store opens with the key that the keyring keeps, over two rotations, and one entry stays."""
    assert "[2, 3] [None, None] True 1" == in_session(tmp_path, "round_trip")


def test_a_locked_keyring_locks_the_store(tmp_path: Path) -> None:
    """Where nobody can be asked for the password, the store is locked at once."""
    assert "locked True" == in_session(tmp_path, "dismissed")


def test_a_prompt_that_nobody_answers_hangs_nothing(tmp_path: Path) -> None:
    """While the keyring waits for somebody, the store is locked after its deadline and says what it waits for."""
    expected = "locked the OS keyring has not answered for 2 seconds True"
    assert expected == in_session(tmp_path, "unanswered")


def test_unlocking_the_keyring_opens_the_store(tmp_path: Path) -> None:
    """``unlock`` takes the keyring's password, refuses a wrong one, and the store is open without a restart."""
    assert "mcp-broker unlock the keyring 'Login' True refused ok" == in_session(tmp_path, "unlocked")


def test_a_key_that_is_not_in_the_keyring_locks_the_store(tmp_path: Path) -> None:
    """Without its entry the store is locked, and nothing is made in its place."""
    assert "locked the OS keyring does not hold the key of this store" == in_session(tmp_path, "foreign")


def test_trying_the_keyring_leaves_nothing_in_it(tmp_path: Path) -> None:
    """What ``init`` writes to see whether the keyring works has gone afterwards."""
    assert "Secret Service 0" == in_session(tmp_path, "probed")


def test_init_offers_no_keyring_that_the_broker_would_not_find(tmp_path: Path) -> None:
    """A bus that the environment alone names is not the daemon's, and a broker in a directory leaves keyrings alone."""
    assert "[False]\n[False]" == in_session(tmp_path, "chosen")


@pytest.mark.root
def test_init_offers_the_keyring_on_the_users_own_bus() -> None:
    """With the session where a login has it, it is offered for the user's own broker alone."""
    with room() as directory, users_own_session(directory / "home") as (there, words):
        environment = there.environment | {"PYTHONPATH": str(ROOT)}

        def said(*command: str) -> str:
            options: dict[str, Any] = {"env": environment, "cwd": ROOT, "timeout": 60}
            done = subprocess.run([*words, *command], capture_output=True, text=True, check=False, **options)
            return str(done.stdout).strip()

        bus = "org.freedesktop.DBus"
        asking = ["dbus-send", "--session", "--print-reply", f"--dest={bus}", "/", f"{bus}.NameHasOwner"]
        until(lambda: "true" in said(*asking, "string:org.freedesktop.secrets"), said="the start of the keyring")
        script = [sys.executable, "-W", "error", "-m", "tests.live.keyring_session", "chosen", str(there.directory)]
        assert "[True]\n[False]" == said(*script)


@pytest.mark.parametrize("name", ["null", "fail"])
def test_the_environment_does_not_choose_the_keyring(tmp_path: Path, name: str) -> None:
    """Whatever the environment says of the keyring library, the keyring is the one of the platform."""
    done = session(tmp_path, "probed", PYTHON_KEYRING_BACKEND=f"keyring.backends.{name}.Keyring")
    assert (0, "Secret Service 0") == (done.returncode, done.stdout.strip())
