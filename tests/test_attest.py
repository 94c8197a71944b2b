"""
What the kernel says of a process, and what is made of it.

The processes are real. Users, namespaces and cgroups, which need root, are in
``integration/test_identity.py``. This module refuses to stand in for a kernel.
"""

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import asdict, replace

from broker.attest import (
    Attestor,
    ancestor,
    boot_id,
    find,
    overflow_uid,
    parent_of,
    process_now,
    start_time,
    uids_of,
    unit_of,
)
from broker.core.model import Process
from broker.errors import AttestationError, RequestError
from tests.puppets import Puppet, theatre
from tests.running import until

UNIFIED = [
    ("a service", "/system.slice/mcp-app.service", "mcp-app.service"),
    ("an instance", "/system.slice/mcp-app@3.service", "mcp-app@3.service"),
    (
        "an instance in slices of its own",
        r"/system.slice/system-mcp\x2dserver.slice/mcp-server@0-51-1000.service",
        "mcp-server@0-51-1000.service",
    ),
    ("a service that keeps cgroups of its own", "/system.slice/mcp-app.service/worker", "mcp-app.service"),
    ("a service that a service made below itself", "/system.slice/a.service/b.service", "a.service"),
    ("a name that had to be escaped", "/system.slice/_cgroup.service", "cgroup.service"),
    ("a service in no slice", "/init.service", "init.service"),
    ("a user's session", "/user.slice/user-1000.slice/session-3.scope", None),
    ("a user's manager", "/user.slice/user-1000.slice/user@1000.service/app.slice/mcp-app.service", None),
    (
        "a user who imitates the system",
        "/user.slice/user-1000.slice/user@1000.service/system.slice/mcp-app.service",
        None,
    ),
    (
        "a user's scope that imitates a service",
        "/user.slice/user-1000.slice/x.scope/system.slice/mcp-app.service",
        None,
    ),
    ("a container in a scope", "/machine.slice/docker-0123.scope/system.slice/mcp-app.service", None),
    ("a container without systemd around it", "/docker/0123/system.slice/mcp-app.service", None),
    ("a container in a service", "/system.slice/docker.service/0123/system.slice/mcp-app.service", "docker.service"),
    ("a cgroup of another cgroup namespace", "/../../system.slice/mcp-app.service", None),
    ("a unit that has been removed", "/system.slice/mcp-app.service (deleted)", None),
    ("the root", "/", None),
    ("pid 1", "/init.scope", None),
    ("a slice alone", "/system.slice", None),
    ("a name that only ends like one", "/system.slice/mcp-app.servicex", None),
]


@pytest.mark.parametrize(("path", "unit"), [case[1:] for case in UNIFIED], ids=[case[0] for case in UNIFIED])
def test_the_unit_is_the_first_service_under_slices_alone(path: str, unit: str | None) -> None:
    """In the unified hierarchy the unit is the first service from the root, and there is none below anything else."""
    assert unit == unit_of(f"0::{path}\n")


MIXED = [
    ("systemd's own beside the unified one", "9:name=systemd:/system.slice/a.service\n0::/\n", "a.service"),
    ("systemd's own goes before the unified one", "0::/system.slice/b.service\n1:name=systemd:/user.slice\n", None),
    ("controllers of others count for nothing", "4:memory:/system.slice/a.service\n0::/\n", None),
    ("a named hierarchy of somebody else", "2:name=mine:/system.slice/a.service\n0::/\n", None),
    ("a path with a colon", "0::/system.slice/a:b@1:2.service\n", "a:b@1:2.service"),
    ("nothing at all", "", None),
]


@pytest.mark.parametrize(("text", "unit"), [case[1:] for case in MIXED], ids=[case[0] for case in MIXED])
def test_the_hierarchy_is_the_one_that_systemd_keeps(text: str, unit: str | None) -> None:
    """Where systemd has a hierarchy of its own that one counts, else the unified one, and no other ever."""
    assert unit == unit_of(text)


@given(below=st.lists(st.sampled_from(["system.slice", "a.service", "user@1.service", "x.scope", "y"]), max_size=5))
def test_nobody_makes_a_unit_below_what_they_were_given(below: list[str]) -> None:
    """Whatever is made below a scope or a user's manager names no unit, and whatever is below a service that one."""
    for given_away, unit in (
        ("/user.slice/user@1000.service", None),
        ("/x.scope", None),
        ("/system.slice/a.service", "a.service"),
    ):
        assert unit == unit_of("0::" + "/".join([given_away, *below]))


@pytest.fixture(scope="module")
def stage() -> Iterator[Puppet]:
    """Give the puppet of which all others are forked."""
    with theatre() as first:
        yield first


@pytest.fixture(params=[True, False], ids=["pidfd of the socket", "pid and start time"])
def attestor(request: pytest.FixtureRequest) -> Attestor:
    """Return an attestor that takes the way of this kernel, and one that takes that of older ones."""
    return Attestor(boot=boot_id(), hidden_uid=overflow_uid(), use_peerpidfd=request.param)


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[socket.socket]:
    """Listen at ``s`` in the test's own directory."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "s"))
        sock.listen()
        yield sock


def descriptors() -> int:
    """Return how many descriptors this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def test_who_connected_is_known(stage: Puppet, attestor: Attestor, listening: socket.socket) -> None:
    """Pid, start time, user, group and groups are those of the process that connected."""
    puppet = stage.fork()
    puppet.connect(Path(listening.getsockname()))
    with listening.accept()[0] as sock:
        peer = attestor.attest(sock)
        expected = Process(boot=boot_id(), pid=puppet.pid, start=start_time(puppet.pid), uid=os.getuid())
        facts = (peer.workload.process, peer.workload.gid, peer.workload.groups, peer.anchor.alive())
        peer.close()
    assert (expected, os.getgid(), frozenset(os.getgroups()), True) == facts


def test_who_has_ended_before_it_was_looked_at_is_refused(
    stage: Puppet, attestor: Attestor, listening: socket.socket
) -> None:
    """A process that connected and ended is refused, though another still holds its socket."""
    puppet = stage.fork()
    puppet.connect(Path(listening.getsockname()))
    puppet.fork()
    puppet.kill()
    with listening.accept()[0] as sock, pytest.raises(AttestationError):
        attestor.attest(sock)


def test_who_ends_after_it_was_looked_at_is_noticed(
    stage: Puppet, attestor: Attestor, listening: socket.socket
) -> None:
    """A process that ends after its attestation is known to have ended, though another still holds its socket."""
    puppet = stage.fork()
    puppet.connect(Path(listening.getsockname()))
    puppet.fork()
    with listening.accept()[0] as sock:
        peer = attestor.attest(sock)
        puppet.kill()
        with pytest.raises(AttestationError):
            peer.require_alive()
        peer.close()


def test_no_descriptor_is_lost_on_a_refusal(stage: Puppet, attestor: Attestor, listening: socket.socket) -> None:
    """A thousand refusals leave as many open descriptors as there were before."""
    puppet = stage.fork()
    puppet.connect(Path(listening.getsockname()))
    puppet.fork()
    puppet.kill()
    with listening.accept()[0] as sock:
        before = descriptors()
        for _ in range(1000):
            with pytest.raises(AttestationError):
                attestor.attest(sock)
        assert before == descriptors()


def test_a_name_is_the_processs_own_choice(stage: Puppet) -> None:
    """A process that calls itself something with spaces and parentheses is read as what it is."""
    puppet = stage.fork()
    before = (start_time(puppet.pid), parent_of(puppet.pid))
    puppet.run('open("/proc/self/comm", "w").write(") R 1 (x) 7 7")')
    assert (before, stage.pid) == ((start_time(puppet.pid), parent_of(puppet.pid)), parent_of(puppet.pid))


def test_a_process_is_found_again(stage: Puppet) -> None:
    """A remembered process that lives is found, and held."""
    puppet = stage.fork()
    process = process_now(puppet.pid, boot=boot_id()).process
    anchor = find(process, boot=boot_id())
    assert anchor is not None
    alive = anchor.alive()
    puppet.kill()
    ended = anchor.alive()
    anchor.close()
    assert (True, False) == (alive, ended)


@pytest.mark.parametrize("wrong", [{"boot": "another"}, {"start": 1}], ids=["boot", "start time"])
def test_a_process_is_not_found_by_its_pid_alone(stage: Puppet, wrong: dict[str, Any]) -> None:
    """Of another boot or with another start time it is another process."""
    process = replace(process_now(stage.pid, boot=boot_id()).process, **wrong)
    assert None is find(process, boot=boot_id())


@pytest.mark.root
def test_a_process_that_drops_its_privileges_stays_the_same(stage: Puppet) -> None:
    """A process that has become another user since is found."""
    puppet = stage.fork()
    process = process_now(puppet.pid, boot=boot_id()).process
    puppet.become(12345)
    anchor = find(process, boot=boot_id())
    assert anchor is not None
    anchor.close()


def test_a_process_that_has_ended_is_not_found(stage: Puppet) -> None:
    """A remembered process that has ended is none."""
    puppet = stage.fork()
    process = process_now(puppet.pid, boot=boot_id()).process
    puppet.kill()
    until(lambda: not Path(f"/proc/{puppet.pid}").exists(), said="its end")
    assert None is find(process, boot=boot_id())


def test_what_cannot_be_looked_at_has_not_ended(stage: Puppet) -> None:
    """Where the kernel has no descriptor left, a remembered process is not taken for one that has ended."""
    process = process_now(stage.pid, boot=boot_id()).process
    source = """
import resource
from broker.attest import find
from broker.core.model import Process
process = Process(**facts)
resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, 4096))
try:
    find(process, boot=facts["boot"])
except OSError as error:
    result = error.errno
"""
    assert errno.EMFILE == stage.fork().run(source, facts=asdict(process))


def test_an_ancestor_is_held(stage: Puppet, attestor: Attestor, listening: socket.socket) -> None:
    """The grandparent of who connected can be held, with its own start time."""
    grandparent = stage.fork()
    puppet = grandparent.fork().fork()
    puppet.connect(Path(listening.getsockname()))
    with listening.accept()[0] as sock:
        peer = attestor.attest(sock)
        anchor = ancestor(peer, grandparent.pid)
        found = anchor.process
        anchor.close()
        peer.close()
    assert process_now(grandparent.pid, boot=boot_id()).process == found


def test_who_is_no_ancestor_is_not_held(stage: Puppet, attestor: Attestor, listening: socket.socket) -> None:
    """A sibling, a child, pid 1 and a pid that nobody has are no ancestors, and no descriptor is lost over them."""
    puppet, sibling = stage.fork(), stage.fork()
    child = puppet.fork()
    puppet.connect(Path(listening.getsockname()))
    with listening.accept()[0] as sock:
        peer = attestor.attest(sock)
        before = descriptors()
        for pid in (sibling.pid, child.pid, 1, 0, -5, 2**22 + 1):
            with pytest.raises(RequestError):
                ancestor(peer, pid)
        after = descriptors()
        peer.close()
    assert before == after


def test_the_users_of_a_process_are_all_four(stage: Puppet) -> None:
    """Real, effective, saved and file-system user of a process are read."""
    assert frozenset({os.getuid()}) == uids_of(stage.pid)


def test_a_process_that_is_not_there_cannot_be_explained() -> None:
    """What a process would be attested as cannot be said of one that is not there."""
    with pytest.raises(AttestationError):
        process_now(2**22 + 1, boot=boot_id())
