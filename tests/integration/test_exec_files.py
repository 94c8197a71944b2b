"""
``exec`` and files: where the server finds them, who else can, and when they go.

The directories are real ones in memory. Those of root's uid on this machine
are used, as a server that runs as root would; each test removes what it made.
"""

import os
import shlex
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.launch.files import started, sweep
from tests import running
from tests.fakes.wire_broker import WireBroker, opened
from tests.integration.exec_run import CLIENT_ENVIRONMENT, PREFIX, run
from tests.running import until

SHOW = "import os; p = os.environ['KEY_FILE']; print(p, oct(os.stat(p).st_mode), open(p).read(), sep='|')"
SHOWING = [sys.executable, "-I", "-S", "-c", SHOW]

DEAD = f"{1 << 22}.1"
"""The directory of a process that cannot be: pids end below four million."""

ELSEWHERE = 12399
"""The uid of somebody else."""


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


@pytest.fixture
def ours() -> Iterator[Path]:
    """Return a directory of this user in the shared memory, under a name that was not to be guessed."""
    directory = Path(f"/dev/shm/mcp-broker-{os.getuid()}-test{os.getpid()}")  # noqa: S108 - removed below
    directory.mkdir(mode=0o700)
    yield directory
    subprocess.run(["rm", "-r", str(directory)], check=True)


def leave(base: Path) -> Path:
    """Leave what a server that wrote into its own directory leaves; return the directory."""
    dead = base / DEAD
    deep = dead / "a" / "b" / "c"
    deep.mkdir(parents=True)
    for directory in (dead, *deep.parents[:2], deep):
        (directory / "file").write_text("canary")
    return dead


def test_what_a_server_put_into_its_directory_goes_too(ours: Path, tmp_path: Path) -> None:
    """A sweep removes directories in it, and a link but not what it leads to."""
    (tmp_path / "kept").write_text("kept")
    dead = leave(ours)
    for place in (dead, dead / "a"):
        (place / "link").symlink_to(tmp_path)
    sweep()
    assert ([], "kept") == (list(ours.iterdir()), (tmp_path / "kept").read_text())


def _swept(base: Path) -> bool:
    sweep()
    return not list(base.iterdir())


def test_a_very_deep_directory_goes_too(ours: Path) -> None:
    """Neither Python's stack nor the table of descriptors limits how deep a sweep goes."""
    made = "os.mkdir(sys.argv[1]); os.chdir(sys.argv[1]); [(os.mkdir('d'), os.chdir('d')) for _ in range(3000)]"
    subprocess.run([sys.executable, "-c", f"import os, sys; {made}", str(ours / DEAD)], check=True)
    # Any broker of this user that runs here sweeps as well, and two that sweep the same need a second time.
    until(lambda: _swept(ours), said="the sweep of a very deep directory")
    assert [] == list(ours.iterdir())


@pytest.mark.root
def test_what_cannot_go_keeps_nothing_else(ours: Path) -> None:
    """A sweep that may not remove one thing removes the others, what its owner had locked too, and leaks nothing."""
    dead = leave(ours)
    other = ours / f"{DEAD}1"
    other.mkdir()
    for path in (ours, *ours.rglob("*")):
        os.chown(path, ELSEWHERE, ELSEWHERE)
    theirs = Path(f"/dev/shm/mcp-broker-{ELSEWHERE}-test{os.getpid()}")  # noqa: S108 - removed below
    ours.rename(theirs)
    dead = theirs / DEAD
    (dead / "of root" / "full").mkdir(parents=True)
    (dead / "of root").chmod(0o700)
    (dead / "a").chmod(0)
    dead.chmod(0o500)
    code = (
        "import os; from broker.launch.files import sweep; sweep(); before = len(os.listdir('/proc/self/fd'));"
        " [sweep() for _ in range(5)]; print(len(os.listdir('/proc/self/fd')) - before)"
    )
    here = shlex.quote(str(Path(__file__).resolve().parent.parent.parent))
    swept = subprocess.run(
        [*running.as_user(ELSEWHERE), "sh", "-c", f'cd {here} && exec "$@"', "sh", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
    )
    theirs.rename(ours)
    left = sorted(str(each.relative_to(ours)) for each in ours.rglob("*"))
    assert ("0\n", [DEAD, f"{DEAD}/of root", f"{DEAD}/of root/full"]) == (swept.stdout, left), swept.stderr


@pytest.mark.root
def test_what_others_left_under_our_name_is_let_alone(ours: Path) -> None:
    """A directory that begins with our name and belongs to somebody else is not swept."""
    dead = leave(ours)
    os.chown(ours, 65534, 65534)
    sweep()
    assert (dead / "file").exists()


@pytest.mark.root
@pytest.mark.parametrize(
    "squat",
    [
        "mkdir -m 700 {}; chown 65534 {}",
        "mkdir -m 777 {}",
        "touch {}",
        "ln -s /run {}",
        "mkdir -m 700 {} {}-1; chown 65534 {} {}-1",
    ],
)
def test_who_takes_our_name_first_keeps_no_server_from_starting(broker: WireBroker, tmp_path: Path, squat: str) -> None:
    """Where somebody else has our name in the shared memory, a name that nobody can guess is used, again and again."""
    taken = squat.replace("{}", f"/dev/shm/mcp-broker-{os.getuid()}")  # noqa: S108 - of a mount namespace
    hide = f"mount -t tmpfs -o mode=1777 none /dev/shm; mount --bind {tmp_path} /run; {taken}"
    twice = f'{hide}; "$@" && "$@"; ls /dev/shm'
    done = run(["x", *broker.where], prefix=["unshare", "--mount", "/bin/sh", "-c", twice, "sh", *PREFIX])
    lines = done.stdout.decode().splitlines()
    shown = [line.split("|")[0] for line in lines if "|" in line]
    bases = {Path(path).parent.parent for path in shown}
    assert (2, 1) == (len(shown), len(bases)), done.stderr
    assert bases.pop().name.startswith(f"mcp-broker-{os.getuid()}-")


def of_the_host(_: object) -> dict[str, str]:
    """Answer ``whoami`` as the host's broker does."""
    return {"version": "0.1.0", "mode": "system"}


def test_the_host_s_broker_leaves_files_to_systemd(broker: WireBroker, memory: Path) -> None:
    """In system mode the files lie in what systemd made for the service, and nowhere else."""
    broker.verbs["whoami"] = of_the_host
    good = run(["x", *broker.where], environment=under(memory))
    (memory / "mcp-broker-files").chmod(0o755)
    bad = run(["x", *broker.where], environment=under(memory))
    assert (0, True) == (good.returncode, good.stdout.decode().startswith(str(memory)))
    why = (
        f"there is no directory in memory for the server's files ({memory}/mcp-broker-files: can be entered by others)"
    )
    assert (4, f"mcp-broker: {why}") == (bad.returncode, bad.stderr.decode().splitlines()[0])


@pytest.mark.parametrize("mode", ["system", "", "unheard-of"])
def test_files_that_nobody_would_remove_are_not_written(broker: WireBroker, mode: str) -> None:
    """Without a directory of systemd's a server with files is refused, unless the broker is the user's own."""
    broker.verbs["whoami"] = lambda _: {"version": "0.1.0", "mode": mode} if mode else {}
    done = run(["x", *broker.where])
    assert (78, b"", True) == (done.returncode, done.stdout, b"RuntimeDirectory=NAME" in done.stderr)


@pytest.mark.root
def test_a_real_host_s_broker_has_exec_refuse_files(memory: Path) -> None:
    """What the daemon in system mode says of itself is what ``exec`` goes by."""
    config = f"""
[servers.x]
command = {SHOWING!r}
selectors = ["uid:{ELSEWHERE}"]
unsafe_user_selector = true
files.KEY_FILE = "{{a}}"
"""
    os.chown(memory, ELSEWHERE, ELSEWHERE)
    with running.room() as room, running.start(room / "b", config=config, mode="system", secrets={"a": "v"}) as broker:
        (room / "b").chmod(0o711)
        (room / "b" / "run").chmod(0o755)
        where = ["x", "--socket", str(broker.places.broker_socket)]
        prefix = [*running.as_user(ELSEWHERE), *PREFIX]
        refused, shown = (run(where, prefix=prefix, environment=e) for e in (CLIENT_ENVIRONMENT, under(memory)))
    assert (78, b"") == (refused.returncode, refused.stdout)
    assert shown.stdout.decode().startswith(f"{memory}/mcp-broker-files/"), shown.stderr
