"""
Where a process is: its systemd unit by its cgroup, its namespaces, and a pid that is used again.

The cgroups are real ones, in the hierarchy that systemd keeps or would keep here.
All of it needs root. This module refuses to leave a cgroup behind.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final, Literal

import pytest

from tests.fakes import old_kernel
from tests.puppets import Puppet
from tests.running import AnswerError, HungUpError, RunningBroker, room, start, until

pytestmark = pytest.mark.root

BROKER: Final = 12345
SERVICE: Final = 12346
STRANGER: Final = 12350
"""Nobody else is refused as this user, so that each refusal has a record of its own."""

CONFIG: Final = """
[servers.app]
selectors = ["unit:mcp-test-app.service"]
allow = ["plain"]

[servers.instance]
selectors = ["unit:mcp-test-many@3.service"]
allow = ["third"]

[servers.instances]
selectors = ["unit:mcp-test-many@.service"]
allow = ["any"]

[servers.both]
selectors = ["unit:mcp-test-app.service", "uid:12346"]
allow = ["both"]
"""
SECRETS: Final = dict.fromkeys(("plain", "third", "any", "both"), "made up")

PLACES: Final = {
    "the unit": ("system.slice/mcp-test-app.service", ["plain", "both"]),
    "the unit, in a cgroup of its own below": ("system.slice/mcp-test-app.service/worker", ["plain", "both"]),
    "the instance": ("system.slice/mcp-test-many@3.service", ["third", "any"]),
    "another instance": ("system.slice/system-mcp.slice/mcp-test-many@4-1-0.service", ["any"]),
    "another unit": ("system.slice/mcp-test-other.service", []),
    "a unit of a like name": ("system.slice/mcp-test-app.service.d.service", []),
    "a user's manager that imitates the system": (
        "user.slice/user-12346.slice/user@12346.service/system.slice/mcp-test-app.service",
        [],
    ),
    "a container in a scope": ("machine.slice/docker-mcp-test.scope/system.slice/mcp-test-app.service", []),
    "a container without a slice": ("mcp-test-docker/0123/system.slice/mcp-test-app.service", []),
    "a unit inside another": ("system.slice/mcp-test-other.service/mcp-test-app.service", []),
    "nowhere": ("", []),
}


@pytest.fixture(scope="module", params=["this", "old"], ids=["this kernel", "a kernel before 6.5"])
def broker(request: pytest.FixtureRequest) -> Iterator[RunningBroker]:
    """Run a system broker as a user of its own."""
    if request.param == "old" and not old_kernel.known():
        pytest.skip("nobody has written down the numbers of this machine's system calls")
    kernel: Literal["old", "this"] = request.param
    with (
        room() as place,
        start(place, config=CONFIG, mode="system", uid=BROKER, secrets=SECRETS, kernel=kernel) as running,
    ):
        yield running


def hierarchy() -> Path:
    """Return where the hierarchy is mounted that says which unit a process is in."""
    found: dict[str, Path] = {}
    for line in Path("/proc/self/mountinfo").read_text("utf-8").splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ")[:3]
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options):
            found[kind] = Path(before.split(" ")[4])
    if not found:
        pytest.skip("no cgroup hierarchy is mounted")
    return found.get("cgroup") or found["cgroup2"]


@contextmanager
def cgroup(path: str) -> Iterator[Path]:
    """Make a cgroup, and take away in the end what was made."""
    root = hierarchy()
    made = []
    for part in [*reversed((root / path).relative_to(root).parents), Path(path)]:
        directory = root / part
        if not directory.exists():
            try:
                directory.mkdir()
            except OSError as error:
                pytest.skip(f"{directory} cannot be made: {error.strerror}")
            made.append(directory)
    try:
        yield root / path
    finally:
        for directory in reversed(made):
            until(partial(_removed, directory), said=f"the end of {directory}")


def _removed(directory: Path) -> bool:
    with suppress(OSError):
        directory.rmdir()
    return not directory.exists()


def outcome(puppet: Puppet, secret: str) -> str:
    """Return ``issued``, the code of a refusal, or ``hung up``."""
    try:
        puppet.call("credential/issue", secret=secret)
    except AnswerError as error:
        return error.code
    except HungUpError:
        return "hung up"
    return "issued"


@pytest.mark.parametrize(("path", "granted"), PLACES.values(), ids=PLACES)
def test_a_unit_is_granted_what_it_is_granted(
    stage: Puppet, broker: RunningBroker, path: str, granted: list[str]
) -> None:
    """A process in a cgroup gets what the config grants to the unit that this cgroup is of, and nothing else."""
    with cgroup(path) as directory:
        puppet = stage.fork()
        try:
            (directory / "cgroup.procs").write_text(str(puppet.pid), "ascii")
            puppet.become(SERVICE)
            puppet.connect(broker.places.broker_socket)
            found = [secret for secret in SECRETS if outcome(puppet, secret) == "issued"]
        finally:
            puppet.kill()
    assert sorted(granted) == sorted(found)


def test_a_unit_is_told_and_explained(stage: Puppet, broker: RunningBroker) -> None:
    """The unit is in what a process is told of itself, in its records, and in what the admin is told of its refusal."""
    with cgroup("system.slice/mcp-test-other@7.service") as directory:
        puppet = stage.fork()
        try:
            (directory / "cgroup.procs").write_text(str(puppet.pid), "ascii")
            puppet.become(STRANGER)
            puppet.connect(broker.places.broker_socket)
            seen = puppet.call("whoami")
            outcome(puppet, "plain")
            explained = broker.admin("explain", last=True)
            units = until(
                lambda: [each["unit"] for each in broker.records() if each.get("pid") == puppet.pid], said="a record"
            )
        finally:
            puppet.kill()
    unit = "mcp-test-other@7.service"
    assert (unit, [unit], unit) == (seen["unit"], units, explained["unit"])
    assert {f"unit:{unit}", "unit:mcp-test-other@.service"} <= set(seen["selectors"])
    assert ("app", ["unit:mcp-test-app.service"]) == (explained["rule"], explained["wants"])


def test_a_unit_counts_as_it_was_when_the_process_connected(stage: Puppet, broker: RunningBroker) -> None:
    """A process that is moved into a granted unit after it has connected has to connect anew."""
    with cgroup("system.slice/mcp-test-app.service") as directory:
        puppet = stage.fork()
        try:
            puppet.connect(broker.places.broker_socket)
            puppet.call("whoami")
            (directory / "cgroup.procs").write_text(str(puppet.pid), "ascii")
            before = outcome(puppet, "plain")
            puppet.hang_up()
            puppet.connect(broker.places.broker_socket)
            after = outcome(puppet, "plain")
        finally:
            puppet.kill()
    assert ("denied", "issued") == (before, after)


ONE_USER: Final = """
[servers.app]
selectors = ["uid:12346"]
unsafe_user_selector = true
allow = ["plain"]
"""


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["unshare", "--user", "--map-root-user"], "another user namespace hides the user that connected"),
        (["unshare", "--pid", "--fork", "--mount-proc"], "another pid namespace hides the process that connected"),
    ],
    ids=["user namespace", "pid namespace"],
)
def test_whom_a_namespace_hides_is_refused(stage: Puppet, words: list[str], reason: str) -> None:
    """A broker in a namespace of its own refuses those whom it cannot see for what they are, and records why."""
    # With a filter for the descendants of ``unshare``: it ends with its child, and takes no signal for it.
    with (
        room() as place,
        start(
            place, config=ONE_USER, mode="system", inside=[*words, "--kill-child"] if "--fork" in words else words
        ) as broker,
    ):
        puppet = stage.fork()
        puppet.become(SERVICE)
        puppet.connect(broker.places.broker_socket)
        codes = [outcome(puppet, "plain")]
        said = until(
            lambda: [each["reason"] for each in broker.records() if each["event"] == "connection/refused"],
            said="the record",
        )
        broker.kill()
    assert (["denied"], {reason}) == (codes, set(said))


@pytest.mark.parametrize("kernel", ["this", "old"])
@pytest.mark.parametrize("case", ["held", "queued", "restart"])
def test_a_pid_that_is_used_again_is_another_process(case: str, kernel: str) -> None:
    """Whoever gets the pid of a process that has ended gets no connection, no lease and no place in the queue of it."""
    if kernel == "old" and not old_kernel.known():
        pytest.skip("nobody has written down the numbers of this machine's system calls")
    with room() as place:
        words = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-m"]
        command = [*words, "tests.integration.pid_again", str(place), case, kernel]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (0, "") == (ran.returncode, ran.stderr)
