"""
Who is asking, by the kernel's word: two users, stolen sockets, and every forgery that is known.

In system mode, with the broker as a user of its own, on this kernel and on one that
knows no ``SO_PEERPIDFD``. All of it needs root, to make processes of several users.
This module refuses to trust a name: what it forges, it forges for real.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.fakes import minting, old_kernel
from tests.puppets import Puppet
from tests.running import AnswerError, HungUpError, RunningBroker, room, start, until

pytestmark = pytest.mark.root

BROKER: Final = 12345
MAY: Final = 12346
MAY_NOT: Final = 12347
STRANGER: Final = 12350
"""Nobody else is refused as this user, so that each refusal has a record of its own."""
GROUP: Final = 23456

CONFIG: Final = f"""
[backends.mint]
type = "minting"
source = "../source"
roles = ["db"]

[secrets.db]
backend = "mint"
path = "db"

[servers.app]
selectors = ["uid:{MAY}"]
unsafe_user_selector = true
allow = ["one", "db"]

[servers.team]
selectors = ["gid:{GROUP}"]
unsafe_user_selector = true
allow = ["shared"]

[servers.root]
selectors = ["uid:0"]
unsafe_user_selector = true
allow = ["roots"]
"""

SECRETS: Final = {name: f"made up for {name}" for name in ("one", "shared", "roots", "ungranted")}


@pytest.fixture(scope="module", params=["this", "old"], ids=["this kernel", "a kernel before 6.5"])
def kernel(request: pytest.FixtureRequest) -> str:
    """Return which kernel the broker thinks it runs on."""
    if request.param == "old" and not old_kernel.known():
        pytest.skip("nobody has written down the numbers of this machine's system calls")
    return str(request.param)


@pytest.fixture(scope="module")
def broker(kernel: str) -> Iterator[RunningBroker]:
    """Run a system broker as a user of its own."""
    with room() as place:
        minting.Source(place / "source")
        packages = [minting.install(place / "packages")]
        with start(
            place,
            config=CONFIG,
            mode="system",
            uid=BROKER,
            secrets=SECRETS,
            packages=packages,
            kernel="old" if kernel == "old" else "this",
        ) as running:
            yield running


@pytest.fixture(scope="module")
def source(broker: RunningBroker) -> minting.Source:
    """Return the source behind the minting backend."""
    return minting.Source(broker.places.run.parent / "source")


@pytest.fixture
def may(stage: Puppet, broker: RunningBroker) -> Puppet:
    """Return a connected process of the user who is granted something."""
    return connected(stage, broker, MAY)


@pytest.fixture
def may_not(stage: Puppet, broker: RunningBroker) -> Puppet:
    """Return a connected process of a user who is granted nothing."""
    return connected(stage, broker, MAY_NOT)


def connected(stage: Puppet, broker: RunningBroker, uid: int, **more: Any) -> Puppet:  # noqa: ANN401
    """Return a process of this user that is connected to the broker."""
    puppet = stage.fork()
    puppet.become(uid, **more)
    puppet.connect(broker.places.broker_socket)
    return puppet


def outcome(puppet: Puppet, method: str = "credential/issue", **params: Any) -> str:  # noqa: ANN401
    """Return ``issued``, the code of a refusal, or ``hung up``."""
    try:
        puppet.call(method, **params)
    except AnswerError as error:
        return error.code
    except HungUpError:
        return "hung up"
    return "issued"


def denials(broker: RunningBroker, puppet: Puppet) -> list[dict[str, Any]]:
    """Return the records that say that this process was refused, as soon as there is one."""
    return until(
        lambda: [
            each for each in broker.records() if each["event"] == "credential/denied" and each["pid"] == puppet.pid
        ],
        said="the record of a refusal",
    )


class TestTwoUsers:
    """One can, the other cannot."""

    def test_one_can(self, may: Puppet) -> None:
        """The user whom the config names gets the secret."""
        assert "made up for one" == may.call("credential/issue", secret="one")["values"]["value"].expose()

    def test_the_other_cannot(self, may_not: Puppet) -> None:
        """Another user is refused."""
        assert "denied" == outcome(may_not, secret="one")

    def test_root_cannot_either(self, stage: Puppet, broker: RunningBroker) -> None:
        """Root is a user like others: what it is not granted it does not get."""
        assert ["denied", "issued"] == [outcome(connected(stage, broker, 0), secret=name) for name in ("one", "roots")]

    def test_a_refusal_is_on_record(self, stage: Puppet, broker: RunningBroker) -> None:
        """The audit log says who was refused what, by which rule, and why."""
        stranger = connected(stage, broker, STRANGER)
        outcome(stranger, secret="one")
        record = denials(broker, stranger)[0]
        expected = {"uid": STRANGER, "gid": STRANGER, "secret": "one", "rule": "app", "code": "denied"}
        assert expected == {name: record[name] for name in expected}
        assert f"server 'app' wants uid:{MAY}, which the caller does not hold" == record["reason"]

    def test_explain_names_the_rule(self, may: Puppet, may_not: Puppet, broker: RunningBroker) -> None:
        """The admin is told, of a process and of the last refusal, which rule decided and what was missing."""
        outcome(may_not, secret="one")
        by_pid = [broker.admin("explain", secret="one", pid=each.pid) for each in (may, may_not)]
        last = broker.admin("explain", last=True)
        assert [(True, "app"), (False, "app")] == [(each["allowed"], each["rule"]) for each in by_pid]
        assert (False, "app", [f"uid:{MAY}"], MAY_NOT) == (last["allowed"], last["rule"], last["wants"], last["uid"])

    def test_absent_and_denied_look_alike(self, may_not: Puppet) -> None:
        """On the wire nothing tells a secret or server that is not granted from one that is not there."""
        asked: list[tuple[str, dict[str, str]]] = [
            ("credential/issue", {"secret": "one"}),
            ("credential/issue", {"secret": "ungranted"}),
            ("credential/issue", {"secret": "no-such-secret"}),
            ("server/open", {"server": "app"}),
            ("server/open", {"server": "no-such-server"}),
        ]
        said = set()
        for method, params in asked:
            with pytest.raises(AnswerError) as caught:
                may_not.call(method, **params)
            said.add((caught.value.number, caught.value.message, caught.value.code, caught.value.hint))
        assert {(-32001, "denied", "denied", "ask the admin: mcp-broker explain --last")} == said

    def test_the_admins_socket_is_closed_to_others(self, may: Puppet, broker: RunningBroker) -> None:
        """A user who is no admin cannot connect to the admins' socket."""
        found = may.run(
            """
sock = socket.socket(socket.AF_UNIX)
try:
    sock.connect(path)
except PermissionError:
    result = "refused by the kernel"
""",
            path=str(broker.places.admin_socket),
        )
        assert "refused by the kernel" == found

    def test_supplementary_groups_count(self, stage: Puppet, broker: RunningBroker) -> None:
        """A grant to a group holds for a user who is in it by any of its groups, and for no other."""
        inside = connected(stage, broker, MAY_NOT, groups=[4, GROUP, 27])
        primary = connected(stage, broker, MAY_NOT, gid=GROUP)
        outside = connected(stage, broker, MAY_NOT, groups=[4, 27])
        found = [outcome(each, secret="shared") for each in (inside, primary, outside)]
        assert ["issued", "issued", "denied"] == found

    def test_nobody_touches_another_users_lease(self, may: Puppet, may_not: Puppet, broker: RunningBroker) -> None:
        """To another user a lease looks as if it were not there."""
        accessor = may.call("credential/issue", secret="one")["accessor"]
        codes = [
            outcome(may_not, method, accessor=name)
            for method in ("lease/renew", "lease/release")
            for name in (accessor, "no-such-lease")
        ]
        there = [row["accessor"] for row in broker.admin("lease/list")["leases"]]
        assert (["expired"] * 4, True) == (codes, accessor in there)


class TestStolenSockets:
    """A socket is good for as long as the process that connected it lives, and not a moment longer."""

    def test_who_inherited_it_gets_nothing(self, may: Puppet) -> None:
        """A grandchild that holds the socket of a process that has ended is refused, though of the right user."""
        grandchild = may.fork().fork()
        may.kill()
        assert "denied" == outcome(grandchild, secret="one")

    def test_who_was_passed_it_gets_nothing(self, may: Puppet, may_not: Puppet) -> None:
        """Another user, who was sent the socket of a process that has ended, is refused."""
        descriptor = may.take()
        may_not.give(descriptor)
        os.close(descriptor)
        may.kill()
        assert "denied" == outcome(may_not, secret="one")

    def test_who_was_passed_it_in_time_gets_what_the_connector_gets(self, may: Puppet, may_not: Puppet) -> None:
        """While the process that connected lives its socket is a bearer token; that is how far the promise goes."""
        descriptor = may.take()
        may_not.give(descriptor)
        os.close(descriptor)
        assert MAY == may_not.call("whoami")["uid"]

    def test_the_end_in_the_middle_of_a_request_is_noticed(
        self, may: Puppet, broker: RunningBroker, source: minting.Source
    ) -> None:
        """Where the process ends while the backend is at work, nobody gets the value, and it is revoked."""
        before = set(source.minted())
        source.behave(issue={"wait": 0.5})
        try:
            child = may.fork()
            may.send("credential/issue", secret="db")
            until(lambda: broker.admin("status")["connections"] >= 2, said="the request")
            may.kill()
            with pytest.raises(AnswerError) as caught:
                child.receive()
        finally:
            source.behave()
        made = until(lambda: set(source.minted()) - before, said="the mint")
        until(lambda: made.isdisjoint(source.valid()), said="the revocation")
        assert "denied" == caught.value.code

    def test_the_end_before_a_request_is_read_is_noticed(
        self, stage: Puppet, broker: RunningBroker, source: minting.Source
    ) -> None:
        """A request whose sender is gone before the broker has read it gets nothing either."""
        puppet = connected(stage, broker, MAY)
        child = puppet.fork()
        before = set(source.valid())
        broker.signal(signal.SIGSTOP)
        try:
            puppet.send("credential/issue", secret="db")
            puppet.kill()
        finally:
            broker.signal(signal.SIGCONT)
        with pytest.raises((AnswerError, HungUpError)):
            child.receive()
        until(lambda: set(source.valid()) <= before, said="the revocation")
        assert set() == {row["pid"] for row in broker.admin("lease/list")["leases"]} & {puppet.pid}

    def test_who_connected_and_ended_before_it_was_accepted_gets_nothing(
        self, stage: Puppet, broker: RunningBroker
    ) -> None:
        """A connection that waited in the queue until its process had ended is refused when it is accepted."""
        broker.signal(signal.SIGSTOP)
        try:
            puppet = connected(stage, broker, MAY)
            child = puppet.fork()
            puppet.kill()
        finally:
            broker.signal(signal.SIGCONT)
        assert "denied" == outcome(child, secret="one")

    def test_over_http_it_is_the_same(self, may: Puppet) -> None:
        """The HTTP dialect gives a stolen socket nothing either."""
        ask = """
sock = connections["c"].socket
sock.sendall(b"POST /v1/secrets/one/issue HTTP/1.1\\r\\nHost: localhost\\r\\nContent-Length: 0\\r\\n\\r\\n")
result = sock.recv(65536).decode("latin-1").split(" ")[1]
"""
        child = may.fork()
        before = may.run(ask)
        may.kill()
        assert ("200", "403") == (before, child.run(ask))


class TestForgeries:
    """What a process says of itself changes nothing."""

    def test_its_arguments_and_executable_change_nothing(self, may_not: Puppet) -> None:
        """A process that lets its parent become a trusted program, under a trusted name, is who it was before."""
        before = may_not.call("whoami")
        holder = may_not.fork()
        may_not.execute("/bin/sleep", "60")
        until(lambda: b"sleep" in Path(f"/proc/{may_not.pid}/cmdline").read_bytes(), said="execve")
        after = holder.call("whoami")
        assert (before, "denied") == (after, outcome(holder, secret="one"))

    def test_its_name_changes_nothing(self, may_not: Puppet, broker: RunningBroker) -> None:
        """A process that writes another name and other numbers where the kernel shows its own is not believed."""
        before = may_not.call("whoami")
        may_not.run("ctypes.CDLL(None).prctl(15, b') S 1 1 (app', 0, 0, 0)")
        may_not.hang_up()
        may_not.connect(broker.places.broker_socket)
        assert (before, "denied") == (may_not.call("whoami"), outcome(may_not, secret="one"))

    def test_a_program_with_rights_lends_them_to_nobody(self, stage: Puppet, broker: RunningBroker) -> None:
        """Who connects and then becomes a set-user-id program is still the user that connected."""
        place = broker.places.run.parent
        program = place / "sleep-as-root"
        program.write_bytes(Path("/bin/sleep").read_bytes())
        program.chmod(0o4755)
        if os.statvfs(program).f_flag & os.ST_NOSUID:
            pytest.skip(f"{place} is mounted nosuid")
        puppet = connected(stage, broker, MAY)
        holder = puppet.fork()
        puppet.execute(str(program), "60")
        until(lambda: "\t0\t" in _uid_line(puppet.pid), said="the change of user")
        assert (MAY, "denied", "issued") == (
            holder.call("whoami")["uid"],
            outcome(holder, secret="roots"),
            outcome(holder, secret="one"),
        )

    def test_a_user_who_was_root_has_no_more_than_its_own(self, stage: Puppet, broker: RunningBroker) -> None:
        """A process that connects after it has dropped its privileges is the user that it has become."""
        assert ["denied", "issued"] == [
            outcome(connected(stage, broker, MAY), secret=name) for name in ("roots", "one")
        ]

    def test_root_of_a_user_namespace_is_who_it_was(self, stage: Puppet, broker: RunningBroker) -> None:
        """A user who makes a namespace in which it is root is, to the broker, the user that it was."""
        puppet = stage.fork()
        puppet.become(MAY)
        inside = puppet.run(
            """
if ctypes.CDLL(None, use_errno=True).unshare(0x10000000) != 0:
    raise OSError(ctypes.get_errno(), "unshare")
result = os.getuid()
"""
        )
        puppet.connect(broker.places.broker_socket)
        found = [outcome(puppet, secret=name) for name in ("roots", "one")]
        assert (65534, MAY, ["denied", "issued"]) == (inside, puppet.call("whoami")["uid"], found)

    def test_pid_1_of_a_namespace_is_who_it_was(self, stage: Puppet, broker: RunningBroker) -> None:
        """A process that is pid 1 in a namespace of its own has, to the broker, the pid that the broker sees."""
        puppet = stage.fork()
        puppet.run(
            """
if ctypes.CDLL(None, use_errno=True).unshare(0x20000000) != 0:
    raise OSError(ctypes.get_errno(), "unshare")
"""
        )
        inside = puppet.fork()
        inside.become(MAY)
        inside.connect(broker.places.broker_socket)
        assert (1, inside.pid) == (inside.run("result = os.getpid()"), inside.call("whoami")["pid"])


def _uid_line(pid: int) -> str:
    """Return the line of a process's users."""
    lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    return next(line for line in lines if line.startswith("Uid:"))
