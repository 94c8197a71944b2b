"""
``exec`` and files: where the server finds them, who else can, and when they go.

The directories are real ones in memory. Those of root's uid on this machine
are used, as a server that runs as root would; each test removes what it made.
"""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.launch.files import started
from tests.fakes.wire_broker import WireBroker, opened
from tests.integration.exec_run import CLIENT_ENVIRONMENT, PREFIX, run

SHOW = "import os; p = os.environ['KEY_FILE']; print(p, oct(os.stat(p).st_mode), open(p).read(), sep='|')"
SHOWING = [sys.executable, "-I", "-S", "-c", SHOW]


@pytest.fixture
def memory() -> Iterator[Path]:
    """Return a directory in memory that is given to ``exec`` as a service's runtime directory."""
    directory = Path(f"/dev/shm/mcp-broker-test-{os.getpid()}")  # noqa: S108 - removed below
    directory.mkdir(mode=0o755)
    yield directory
    subprocess.run(["rm", "-r", str(directory)], check=True)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[WireBroker]:
    """Return a broker that opens a server with one file."""
    verbs = {"server/open": lambda _: opened(command=SHOWING, files={"KEY_FILE": "canary-✓\n"})}
    with WireBroker(tmp_path / "b", verbs) as listening:
        yield listening


def under(memory: Path) -> dict[str, str]:
    """Return the environment of a service whose runtime directory is ``memory``."""
    return {**CLIENT_ENVIRONMENT, "RUNTIME_DIRECTORY": f"{memory}:/run/another"}


def test_a_file_holds_the_value_and_its_variable_names_it(broker: WireBroker, memory: Path) -> None:
    """The server reads the value, byte for byte, from the path that the variable holds."""
    done = run(["x", *broker.where], environment=under(memory))
    assert ["0o100600", "canary-✓\n\n"] == done.stdout.decode().split("|")[1:]


def test_the_directory_is_private_and_named_after_the_process(broker: WireBroker, memory: Path) -> None:
    """The file lies in a directory that only its owner enters and whose name is the pid and the start time."""
    code = f"{SHOW}; import sys; sys.stdin.read()"
    command = [sys.executable, "-I", "-S", "-u", "-c", code]
    broker.verbs["server/open"] = lambda _: opened(command=command, files={"KEY_FILE": "v"})
    pipe = subprocess.PIPE
    with subprocess.Popen([*PREFIX, "x", *broker.where], stdin=pipe, stdout=pipe, env=under(memory)) as child:
        assert child.stdout is not None
        path = Path(child.stdout.readline().split(b"|")[0].decode())
        names = path.parent.name.split(".")[:2]
        modes = [stat.S_IMODE(each.stat().st_mode) for each in (path.parent, path.parent.parent)]
        assert ([str(child.pid), str(started(child.pid))], [0o700, 0o700]) == (names, modes)
        child.communicate(timeout=60)


def test_what_a_dead_process_left_is_swept_by_the_next(broker: WireBroker, memory: Path) -> None:
    """A second start removes the files of the first, which has ended, and leaves those of a living process."""
    first = Path(run(["x", *broker.where], environment=under(memory)).stdout.decode().split("|")[0]).parent
    ending = "".join(f".{part}" for part in first.name.split(".")[2:])
    ours = first.parent / f"{os.getpid()}.{started(os.getpid())}{ending}"
    foreign = first.parent / "1.1.999"
    for each in (ours, foreign):
        each.mkdir(mode=0o700)
    assert first.exists()
    run(["x", *broker.where], environment=under(memory))
    assert [False, True, True] == [each.exists() for each in (first, ours, foreign)]


def test_files_go_when_the_server_cannot_be_started(broker: WireBroker, memory: Path) -> None:
    """A command that does not exist leaves no file behind."""
    broker.verbs["server/open"] = lambda _: opened(command=["/nowhere/server"], files={"KEY_FILE": "v"})
    run(["x", *broker.where], environment=under(memory))
    assert [] == list((memory / "mcp-broker-files").iterdir())


def spoil_by_mode(base: Path) -> None:
    """Let others enter."""
    base.mkdir(mode=0o755)


def spoil_by_link(base: Path) -> None:
    """Put a symbolic link there that leads to a directory that would do."""
    (base.parent / "elsewhere").mkdir(mode=0o700)
    base.symlink_to(base.parent / "elsewhere")


def spoil_by_owner(base: Path) -> None:
    """Give it to somebody else."""
    base.mkdir(mode=0o700)
    os.chown(base, 65534, 65534)


@pytest.mark.root
@pytest.mark.parametrize("spoil", [spoil_by_mode, spoil_by_link, spoil_by_owner])
def test_a_directory_that_others_could_use_is_passed_over(broker: WireBroker, memory: Path, spoil: object) -> None:
    """Where the directory is open to others, a link, or not ours, the file is written to the next place."""
    assert callable(spoil)
    spoil(memory / "mcp-broker-files")
    path = run(["x", *broker.where], environment=under(memory)).stdout.decode().split("|")[0]
    assert not path.startswith(str(memory))
    assert path.endswith("/KEY_FILE")


@pytest.mark.root
def test_a_disk_is_refused(broker: WireBroker, tmp_path: Path) -> None:
    """Where no place is in memory the server does not start, and the message names each place and why."""
    hide = f'mount --bind {tmp_path} /dev/shm; mount --bind {tmp_path} /run; exec "$@"'
    prefix = ["unshare", "--mount", "/bin/sh", "-c", hide, "sh", *PREFIX]
    environment = {**CLIENT_ENVIRONMENT, "RUNTIME_DIRECTORY": str(tmp_path)}
    done = run(["x", *broker.where], prefix=prefix, environment=environment)
    lines = done.stderr.decode().splitlines()
    assert (4, b"", True) == (done.returncode, done.stdout, f"{tmp_path}/mcp-broker-files: is on" in lines[0])
    assert [] == list(tmp_path.rglob("KEY_FILE"))
