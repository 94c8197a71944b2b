"""
The broker that nobody started: one is there when it is needed, and one only.

On a desk of its own (``tests/integration/desk.py``), because there it may be started.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from broker.launch import autostart
from tests.integration.desk import PERSON, Desk, desk, finished, prepare, race
from tests.running import room, until
from tests.volumes import volume

pytestmark = [pytest.mark.root, pytest.mark.slow]

RACERS: Final = 100
GOT: Final = (0, b"got 7\n", b"")


@pytest.fixture(scope="module")
def account(mcp_broker: Path) -> Iterator[Desk]:
    """Return an account with a config and a secret."""
    with room() as directory, desk(directory, mcp_broker) as found:
        yield found


@pytest.fixture
def quiet(account: Desk) -> Desk:
    """Return the account when no broker runs."""
    account.end()
    return account


def starts(account: Desk) -> int:
    """Return how often a broker has got as far as to be ready."""
    return (account.state / "daemon.log").read_text().count(" ready: ")


def test_a_command_starts_the_broker(quiet: Desk) -> None:
    """Who asks while no broker runs is answered, and it runs on."""
    assert (GOT[1].decode(), 1) == (quiet.do("exec", "gh"), len(quiet.daemons()))


def test_it_is_apart_from_who_started_it(quiet: Desk) -> None:
    """It has a session of its own, and none of the caller's pipes, directory or variables."""
    script = f"cd {quiet.home}; exec {quiet.broker()[-1]} status"
    command = quiet.words("env", "CANARY=1", "sh", "-c", script)
    subprocess.run(command, check=True, capture_output=True, timeout=60, cwd="/")
    (pid,) = quiet.daemons()
    place = Path(f"/proc/{pid}")
    stat = (place / "stat").read_text().rpartition(")")[2].split()
    names = [(place / "fd" / str(number)).readlink().name for number in range(3)]
    # Its root is the one of the desk, and that is where it stands.
    same = (place / "cwd").readlink() == (place / "root").readlink()
    assert (False, True) == (b"CANARY" in (place / "environ").read_bytes(), same)
    assert (["null", "daemon.log", "daemon.log"], True) == (names, stat[3] != str(os.getsid(0)))


def test_a_hundred_clients_at_once_start_one(quiet: Desk) -> None:
    """However many come at once, one broker is started, and everybody is answered."""
    before = starts(quiet)
    ended = finished(race([quiet.broker("exec", "gh")] * RACERS))
    assert ([GOT] * RACERS, before + 1, 1) == (ended, starts(quiet), len(quiet.daemons()))


def test_it_is_killed_in_the_middle(quiet: Desk) -> None:
    """Where something kills the broker while a hundred ask, another takes its place, and everybody is answered."""
    racers = race([quiet.broker("exec", "gh")] * RACERS)
    first = until(quiet.kill)
    second = until(lambda: pid if (pid := quiet.pid) not in {None, first} else None)
    assert second is not None
    os.kill(second, signal.SIGKILL)
    assert ({GOT}, True) == (set(finished(racers)), len(quiet.daemons()) <= 1)


def test_what_a_dead_one_left_is_in_nobody_s_way(quiet: Desk) -> None:
    """A socket that nobody listens at, and locks that name a process of somebody else's, are not believed."""
    quiet.do("exec", "gh")
    quiet.kill()
    until(lambda: not quiet.daemons(), said="the end of the broker")
    for name in ("daemon.lock", "start.lock"):
        (quiet.state / name).write_text("1\n/nowhere\n")
    assert (True, "got 7\n") == ((quiet.state / "run/broker.sock").exists(), quiet.do("exec", "gh"))


def test_a_broken_config_is_said_by_everybody_and_tried_by_few(quiet: Desk) -> None:
    """Where it cannot start, every client hears why, with file and line, and not each of them starts one."""
    broken = quiet.home / ".config/mcp-broker/broker.d/broken.toml"
    broken.write_text("comand = 1\n")
    os.chown(broken, PERSON, PERSON)
    begun = time.monotonic()
    ended = finished(race([quiet.broker("exec", "gh")] * 20))
    broken.unlink()
    assert {(78, True)} == {(status, b"broken.toml:1" in said) for status, _, said in ended}
    # A start takes a third of a second; forty of them, one after the other, would take longer.
    assert time.monotonic() - begun < 60
    assert "got 7\n" == quiet.do("exec", "gh")


@pytest.mark.parametrize(
    ("arrange", "tidy"),
    [
        ("mkdir /etc/mcp-broker", "rmdir /etc/mcp-broker"),
        ("touch /.dockerenv", "rm /.dockerenv"),
        ("mkdir -p /run/systemd; echo podman > /run/systemd/container", "rm -r /run/systemd"),
    ],
)
def test_there_are_hosts_on_which_none_is_started(quiet: Desk, arrange: str, tidy: str) -> None:
    """A host with a broker of its own, and a container, get none."""
    quiet.as_root(arrange)
    done = quiet.run("exec", "gh")
    quiet.as_root(tidy)
    assert (4, True, set()) == (done.returncode, "no broker answers" in done.stderr, quiet.daemons())


@pytest.mark.parametrize("uid", [0, 998, 61200, 65534, 100000])
def test_there_are_users_for_whom_none_is_started(tmp_path: Path, uid: int) -> None:
    """Who is no person gets none."""
    assert f"uid {uid} is not a person's" == autostart.obstacle(uid, str(tmp_path))


def test_one_may_forbid_it(quiet: Desk) -> None:
    """With ``autostart = false`` a command says that none runs, as does ``stop`` in any case."""
    stopped = quiet.run("stop")
    config = quiet.home / ".config/mcp-broker/broker.toml"
    before = config.read_text()
    config.write_text("autostart = false\n" + before)
    done = quiet.run("exec", "gh")
    config.write_text(before)
    assert (4, 4, set()) == (stopped.returncode, done.returncode, quiet.daemons())


def test_it_ends_when_nobody_needs_it_and_not_before(quiet: Desk) -> None:
    """While something is out it stays; some time after the last lease it is gone, with its sockets."""
    serving = subprocess.Popen(quiet.broker("serve", "--user", "--idle", "2s"), cwd="/")
    until(lambda: quiet.pid == serving.pid)
    (waiting,) = race([quiet.broker("exec", "waits")])
    until(lambda: any(record["server"] == "waits" for record in quiet.records("server/opened")))
    time.sleep(4)
    held = serving.poll()
    waiting.kill()
    waiting.communicate()
    assert (None, 0) == (held, serving.wait(60))
    assert not (quiet.state / "run/broker.sock").exists()


class TestTheDirectoryOfALogin:
    """``/run/user/UID`` may come late, go, or be somebody else's: there is one broker, and everybody finds it."""

    RUNTIME = f"/run/user/{PERSON}"

    def make(self, quiet: Desk, owner: int) -> None:
        """Make the directory."""
        quiet.as_root(f"install -d /run/user; install -d -m 0700 -o {owner} {self.RUNTIME}")

    @pytest.fixture(autouse=True)
    def tidy(self, account: Desk) -> Iterator[None]:
        """Take the directory away in the end."""
        yield
        account.as_root(f"rm -rf {self.RUNTIME}")

    def test_it_comes_late(self, quiet: Desk) -> None:
        """A broker that was started before stays the only one."""
        quiet.do("exec", "gh")
        self.make(quiet, PERSON)
        before = quiet.daemons()
        assert ("got 7\n", before) == (quiet.do("exec", "gh"), quiet.daemons())

    def test_it_goes_and_comes_again(self, quiet: Desk) -> None:
        """A broker that listened there is found elsewhere when it has gone, and is the same."""
        self.make(quiet, PERSON)
        quiet.do("exec", "gh")
        before = quiet.daemons()
        quiet.as_root(f"rm -rf {self.RUNTIME}")
        gone = quiet.do("exec", "gh")
        assert ("got 7\n", True) == (gone, (quiet.state / "run/broker.sock").exists())
        # Who found nobody for a moment has started another, which waits for the lock in vain.
        until(lambda: quiet.daemons() == before)

    def test_it_is_somebody_else_s(self, quiet: Desk) -> None:
        """Where it belongs to root, as on WSL, the broker listens in its state directory."""
        self.make(quiet, 0)
        assert ("got 7\n", True) == (quiet.do("exec", "gh"), (quiet.state / "run/broker.sock").exists())


def test_a_full_disk_is_said_and_passes(mcp_broker: Path) -> None:
    """Where nothing can be written, who asks hears so; when there is room again, the next one is answered."""
    with room() as directory, volume(directory) as disk, desk(directory, mcp_broker, ready=False) as account:
        (account.home / ".local/state").mkdir(parents=True)
        account.state.symlink_to(disk.path)
        for path in (account.home / ".local", account.home / ".local/state", disk.path):
            os.chown(path, PERSON, PERSON)
        prepare(account)
        for name in ("state.db-wal", "state.db-shm", "start.lock", "daemon.lock", "daemon.log"):
            (disk.path / name).unlink(missing_ok=True)
        disk.fill()
        full = account.run("exec", "gh")
        none = account.daemons()
        disk.empty()
        assert (4, b"hint: " in full.stderr.encode(), set()) == (full.returncode, True, none)
        assert "got 7\n" == account.do("exec", "gh")
