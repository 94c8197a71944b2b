"""
What the daemon does to its own process, done to a puppet, and looked at from outside.

That a plain process of the same user can be read is shown beside it: a lock on a
door that was never open proves nothing.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.hygiene import KEPT_VARIABLES, clean_environment
from tests.puppets import Puppet, theatre

HARDEN = """
from broker import hygiene
hygiene.harden()
"""


@pytest.fixture(scope="module")
def stage() -> Iterator[Puppet]:
    """Give the puppet of which all others are forked."""
    with theatre() as first:
        yield first


@pytest.fixture
def hardened(stage: Puppet) -> Puppet:
    """Return a process that has done to itself what the daemon does."""
    puppet = stage.fork()
    puppet.run(HARDEN)
    return puppet


def limit(pid: int, name: str) -> list[str]:
    """Return the soft and the hard limit of a process."""
    lines = Path(f"/proc/{pid}/limits").read_text("ascii").splitlines()
    return next(line for line in lines if line.startswith(name))[len(name) :].split()[:2]


def test_it_leaves_no_core(hardened: Puppet) -> None:
    """The limit of a core file is 0 and cannot be raised again."""
    assert ["0", "0"] == limit(hardened.pid, "Max core file size")


def test_it_may_open_as_many_files_as_it_can(stage: Puppet, hardened: Puppet) -> None:
    """The limit of open files is the highest that it may set, because each process with a lease takes one."""
    most = limit(stage.pid, "Max open files")[1]
    assert [most, most] == limit(hardened.pid, "Max open files")


def test_what_it_makes_is_its_owners(hardened: Puppet, tmp_path: Path) -> None:
    """A file that it makes can be read by nobody else."""
    hardened.run("open(path, 'w').close()", path=str(tmp_path / "made"))
    assert 0o600 == (tmp_path / "made").stat().st_mode & 0o777


def test_it_is_not_dumpable(stage: Puppet, hardened: Puppet) -> None:
    """The kernel is told to make no dump of it, and to let nobody of its user look into it."""
    ask = "result = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)"
    assert [1, 0] == [stage.fork().run(ask), hardened.run(ask)]


@pytest.mark.root
def test_nobody_of_its_user_reads_it(stage: Puppet) -> None:
    """Of two processes of one user the hardened one shows no other its memory, maps and environment."""
    read = """
result = []
for name in ("mem", "maps", "environ"):
    try:
        open(f"/proc/{pid}/{name}", "rb").read(1 if name == "maps" else 0)
        result.append(name)
    except PermissionError:
        pass
"""
    plain, hardened, reader = (stage.fork() for _ in range(3))
    hardened.run("from broker import hygiene")  # which it could not as the user that it becomes
    for puppet in (plain, hardened, reader):
        puppet.become(12345)
        # Whoever has changed its user is not dumpable until it says so, or becomes another program.
        puppet.run("ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)")
    hardened.run("from broker import hygiene; hygiene.harden()")
    assert [["mem", "maps", "environ"], []] == [reader.run(read, pid=each.pid) for each in (plain, hardened)]


def test_it_closes_what_it_inherited(stage: Puppet) -> None:
    """Every descriptor but the standard ones and those that are wanted is closed, gaps and all."""
    left, kept = stage.fork().run(
        """
from broker import hygiene
import json
descriptors = [os.open("/dev/null", os.O_RDONLY) for _ in range(50)]
reading, writing = os.pipe()
if os.fork() == 0:
    kept = [descriptors[3], descriptors[40], writing]
    hygiene.close_inherited(kept)
    # The directory that is listed has a descriptor too, the lowest that is free.
    left = sorted(int(name) for name in os.listdir("/proc/self/fd"))
    os.write(writing, json.dumps([left, [0, 1, 2, 3, *kept]]).encode())
    os._exit(0)
os.close(writing)
result = json.loads(os.read(reading, 65536))
"""
    )
    assert sorted(kept) == left


def test_it_keeps_no_variable_that_it_does_not_need() -> None:
    """Of an environment it keeps what it needs, and no token that somebody has exported."""
    environment = {
        "HOME": "/h",
        "PATH": "/bin",
        "INVOCATION_ID": "of a unit",
        "VAULT_TOKEN": "made up",
        "AWS_SECRET_ACCESS_KEY": "x",
        "LD_PRELOAD": "y",
    }
    clean_environment(environment)
    assert {"HOME": "/h", "PATH": "/bin", "INVOCATION_ID": "of a unit"} == environment


def test_no_kept_variable_sounds_like_a_secret() -> None:
    """None of the variables that are kept is one that people put secrets into."""
    words = ("TOKEN", "SECRET", "PASSWORD", "KEY", "VAULT", "AWS")
    assert [] == [name for name in sorted(KEPT_VARIABLES) if any(word in name for word in words)]
