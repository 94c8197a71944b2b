"""A value goes to the server that it is for and nowhere else, whatever happens on the way."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.base import Secret
from tests import canary as c
from tests.running import AnswerError, RunningBroker, room, start, until

CONFIG = f"""
[servers.keeper]
command = ["{sys.executable}", "-c", "import sys; print('ready', flush=True); sys.stdin.read()"]
env.KEPT = "{{kept}}"
env.IN_A_URL = "postgresql://me:{{kept|url}}@db/app"
files.KEPT_FILE = "{{kept}}"

[servers.wanting]
command = ["true"]
env.WANTED = "{{kept.password}}"

[servers.other]
command = ["true"]
selectors = ["uid:4242"]
env.KEPT = "{{kept}}"
"""

ENVIRONMENT = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONPATH": str(Path(__file__).parents[2])}

COMMANDS = [
    ["status"],
    ["lease", "list"],
    ["server", "list"],
    ["secret", "list"],
    ["secret", "versions", "kept"],
    ["explain", "keeper"],
    ["explain", "other"],
    ["explain", "keeper", "kept"],
    ["audit", "verify"],
    ["audit", "show"],
    ["audit", "tail"],
    ["check"],
]


@pytest.fixture
def kept() -> Secret:
    """A canary of its own for each test."""
    return c.made_up()


@pytest.fixture
def broker(kept: Secret) -> Iterator[RunningBroker]:
    """A broker that has issued the canary in every way, and has failed to in some."""
    with room() as directory, start(directory, config=CONFIG, secrets={"kept": kept.expose()}) as running:
        running.call("credential/issue", secret="kept")
        running.call("credential/issue", secret="kept", bind="none", ttl=5)
        for server in ("wanting", "other", "nowhere"):
            with pytest.raises(AnswerError):
                running.call("server/open", server=server)
        with pytest.raises(AnswerError):
            running.call("credential/issue", secret=kept.expose()[:40])
        yield running


def run(broker: RunningBroker, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    """Type a command at the broker."""
    command = [sys.executable, "-m", "broker", *arguments, "--dir", str(broker.places.run.parent)]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, check=False, timeout=60)


@pytest.fixture
def keeper(broker: RunningBroker) -> Iterator["subprocess.Popen[bytes]"]:
    """A server that was started by ``exec`` and holds the canary."""
    command = [sys.executable, "-m", "broker", "exec", "keeper", "--dir", str(broker.places.run.parent)]
    with subprocess.Popen(command, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        yield child
        child.kill()


def test_the_search_finds_what_is_there(kept: Secret, tmp_path: Path) -> None:
    """Each form of a value is found where it stands: a search that finds nothing proves nothing."""
    for number, form in enumerate(c.forms(kept).values()):
        (tmp_path / str(number)).write_bytes(b"before " + form + b" after")
    assert set(range(len(c.forms(kept)))) == {int(line.partition(":")[0]) for line in c.in_files(kept, [tmp_path])}


def test_it_is_in_the_environment_of_its_server(kept: Secret, keeper: "subprocess.Popen[bytes]") -> None:
    """The server has it, raw and as the part of a URL."""
    content = Path(f"/proc/{keeper.pid}/environ").read_bytes()
    assert ["as it is", "its plain part", "URL"] == c.in_bytes(kept, content)


def test_it_is_in_no_other_process(kept: Secret, keeper: "subprocess.Popen[bytes]") -> None:
    """No other process has it in its arguments or its environment, the broker's own included."""
    assert [] == c.in_processes(kept, allowed=[keeper.pid])


def test_it_is_in_no_file(kept: Secret, broker: RunningBroker, keeper: "subprocess.Popen[bytes]") -> None:
    """No file of the broker holds it: store, WAL, leases, audit log, config, its own log."""
    assert keeper.poll() is None
    assert [] == c.in_files(kept, [broker.places.run.parent])


def test_it_is_in_no_file_after_rotations_and_a_removal(kept: Secret, broker: RunningBroker) -> None:
    """New versions, a new master key, sealing anew and removal leave it in no file either."""
    broker.admin("secret/set", name="kept", values={"value": c.made_up().expose()})
    broker.admin("key/rotate", reencrypt=True)
    broker.admin("secret/rm", name="kept")
    assert [] == c.in_files(kept, [broker.places.run.parent])


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_prints_it(kept: Secret, broker: RunningBroker, command: list[str]) -> None:
    """No command prints it, neither for people nor for programs."""
    for shown in (run(broker, *command), run(broker, *command, "--json")):
        assert [] == c.in_bytes(kept, shown.stdout + shown.stderr)


def test_get_prints_it(kept: Secret, broker: RunningBroker) -> None:
    """The one command that is asked for a value prints it: the commands above did reach the broker."""
    assert "as it is" in c.in_bytes(kept, run(broker, "get", "kept").stdout)


def test_a_failing_exec_prints_nothing_of_it(kept: Secret, broker: RunningBroker) -> None:
    """``exec`` that cannot start a server says so without any value that it was given."""
    for server in ("wanting", "other"):
        shown = run(broker, "exec", server)
        assert (True, []) == (shown.returncode != 0, c.in_bytes(kept, shown.stdout + shown.stderr))


def test_a_value_as_an_argument_is_not_repeated(kept: Secret, broker: RunningBroker) -> None:
    """Who types a value where a name belongs gets an error that does not say it again, here and in the log."""
    shown = run(broker, "secret", "set", f"kept={kept.expose()}")
    assert (True, []) == (shown.returncode != 0, c.in_bytes(kept, shown.stdout + shown.stderr))
    assert [] == c.in_files(kept, [broker.places.run.parent])


def test_no_error_on_the_wire_repeats_it(kept: Secret, broker: RunningBroker) -> None:
    """A request that has it in the wrong place gets an error that does not say it again."""
    for params in ({"secret": kept.expose()}, {"secret": "kept", "ttl": kept.expose()}, {"secrets": kept.expose()}):
        with pytest.raises(AnswerError) as raised:
            broker.call("credential/issue", **params)
        assert [] == c.in_bytes(kept, str(raised.value).encode())
    assert [] == c.in_files(kept, [broker.places.run.parent])


def test_its_file_in_memory_goes_with_its_server(kept: Secret, keeper: "subprocess.Popen[bytes]") -> None:
    """The file that holds it is in memory, its owner's alone, and gone soon after its server."""
    variables = Path(f"/proc/{keeper.pid}/environ").read_bytes().split(b"\0")
    path = Path(next(each.partition(b"=")[2].decode() for each in variables if each.startswith(b"KEPT_FILE=")))
    assert (0o600, kept.expose()) == (path.stat().st_mode & 0o777, path.read_text("utf-8"))
    keeper.kill()
    keeper.wait()
    until(lambda: not path.exists(), said="the file's end")


def test_a_crash_leaves_no_core(kept: Secret, broker: RunningBroker) -> None:
    """A broker that aborts leaves no core file, because its limit is 0 and it is not dumpable."""
    limits = Path(f"/proc/{broker.pid}/limits").read_text()
    broker.signal(signal.SIGABRT)
    assert -signal.SIGABRT == broker.wait()
    (core,) = (line.split()[4:6] for line in limits.splitlines() if line.startswith("Max core file size"))
    assert (["0", "0"], []) == (core, c.in_files(kept, [broker.places.run.parent]))


def test_audit_records_are_what_was_searched(broker: RunningBroker) -> None:
    """The log that was searched has the releases in it: a search of an empty log proves nothing."""
    until(lambda: "credential/denied" in _events(broker), said="the record of a refusal")
    assert _events(broker).count("credential/authorised") >= 2


def _events(broker: RunningBroker) -> list[str]:
    return [record["event"] for record in broker.records()]


@pytest.mark.root
class TestTheProcessItself:
    """What the daemon does to its own process, seen by another process of the same user."""

    @pytest.fixture
    def left_open(self) -> Iterator[int]:
        """One end of a pipe."""
        reading, writing = os.pipe()
        yield reading
        os.close(reading)
        os.close(writing)

    @pytest.fixture
    def hardened(self, left_open: int) -> Iterator[RunningBroker]:
        """A broker that runs as uid 12345, with a variable and a descriptor that somebody left behind."""
        left = {"LEFT_BEHIND": "1", "VAULT_TOKEN": "made up"}
        with room() as directory, start(directory, uid=12345, environment=left, pass_fds=[left_open]) as running:
            yield running

    def test_its_memory_is_nobodys(self, hardened: RunningBroker) -> None:
        """Another process of the same user cannot open its memory or its environment."""
        script = (
            "import sys\n"
            "for name in ('mem', 'environ', 'maps'):\n"
            "    try:\n        open(f'/proc/{sys.argv[1]}/{name}', 'rb').read(1)\n"
            "    except PermissionError:\n        print(name)\n"
        )
        command = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", "/usr/bin/python3", "-c", script]
        shown = subprocess.run([*command, str(hardened.pid)], capture_output=True, text=True, check=True, timeout=30)
        assert ["mem", "environ", "maps"] == shown.stdout.split()

    def test_it_inherits_no_descriptor(self, hardened: RunningBroker, left_open: int) -> None:
        """A pipe that was left open for it is closed."""
        held = {str(each.readlink()) for each in Path(f"/proc/{hardened.pid}/fd").iterdir()}
        assert str(Path(f"/proc/self/fd/{left_open}").readlink()) not in held

    def test_its_files_are_its_owners(self, hardened: RunningBroker) -> None:
        """No file or directory of its state can be read by anybody else."""
        wide = [
            path.name
            for path in hardened.places.state.rglob("*")
            if not path.is_socket() and path.lstat().st_mode & 0o077 and not path.is_symlink()
        ]
        assert [] == wide
