"""
Leases belong to processes: real ones, that ask, bind, end, and are stopped.

What is dynamic comes from the minting backend, whose source says what was minted
and revoked. This module refuses to sleep: it waits for what happens.
"""

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import minting
from tests.integration.leased import CONFIG, SOON, issue, leases, refused, revoked
from tests.puppets import Puppet
from tests.running import AnswerError, RunningBroker, start, until


class TestAsking:
    """Asking again is not another lease."""

    @pytest.mark.parametrize("secret", ["static", "db"])
    def test_who_asks_again_gets_the_lease_it_holds(self, server: Puppet, secret: str) -> None:
        """The same process that asks again for the same secret gets the same lease with the same values."""
        first, second = (server.call("credential/issue", secret=secret) for _ in range(2))
        assert (first["accessor"], first["values"]) == (second["accessor"], second["values"])

    def test_no_accessor_looks_like_an_option(self, server: Puppet) -> None:
        """Of two hundred leases none has a name with a dash in it, which a command would take for an option."""
        named = {server.call("credential/issue", secret="static", fresh=True)["accessor"] for _ in range(200)}
        assert (200, []) == (len(named), [each for each in named if "-" in each])

    def test_a_lease_lives_over_reconnects(self, server: Puppet, broker: RunningBroker) -> None:
        """A process that hangs up and connects anew holds what it held."""
        before = issue(server, "db")
        server.hang_up()
        server.connect(broker.places.broker_socket)
        assert before == issue(server, "db")

    def test_a_connection_that_ends_ends_no_lease(self, server: Puppet, broker: RunningBroker) -> None:
        """A lease stays with its process when no connection is left."""
        accessor = issue(server, "db")
        server.hang_up()
        broker.admin("status")
        assert {accessor: "active"} == leases(broker)

    def test_fresh_asks_for_another(self, server: Puppet, broker: RunningBroker) -> None:
        """A process that wants another lease gets one, and keeps the first."""
        first, second = issue(server, "db"), issue(server, "db", fresh=True)
        assert {first: "active", second: "active"} == leases(broker)

    def test_a_process_that_asks_twice_at_once_gets_one_lease(self, server: Puppet, source: minting.Source) -> None:
        """Two requests of one process at the same moment mint one credential."""
        source.behave(issue={"wait": 0.2})
        for _ in range(2):
            server.send("credential/issue", secret="db")
        accessors = {server.receive()["accessor"] for _ in range(2)}
        assert (1, 1) == (len(accessors), len(source.minted()))

    def test_another_process_gets_another_lease(self, server: Puppet, broker: RunningBroker) -> None:
        """A child that connects for itself has a lease of its own, though it runs the same program."""
        child = server.fork()
        child.connect(broker.places.broker_socket, "own")
        assert issue(server, "db") != child.call("credential/issue", connection="own", secret="db")["accessor"]

    def test_a_new_version_comes_with_the_same_lease(self, server: Puppet, broker: RunningBroker) -> None:
        """A static secret that was set anew is issued in its new version under the lease that is held."""
        before = server.call("credential/issue", secret="static")
        broker.admin("secret/set", name="static", values={"value": "a newer value"})
        after = server.call("credential/issue", secret="static")
        assert (before["accessor"], 1, 2) == (after["accessor"], before["version"], after["version"])

    def test_opening_a_server_again_takes_the_same_leases(self, server: Puppet) -> None:
        """A process that opens its server twice holds each secret once."""
        first, second = (server.call("server/open", server="app")["leases"] for _ in range(2))
        assert (2, sorted(first)) == (len(first), sorted(second))

    def test_a_limit_holds_for_requests_at_once(
        self, server: Puppet, broker: RunningBroker, source: minting.Source
    ) -> None:
        """However many requests of one uid are under way together, it holds no more leases than its limit."""
        broker.write_config(f"{CONFIG}\n[limits]\nleases = 3\n")
        broker.admin("reload")
        source.behave(issue={"wait": 0.2})
        for _ in range(10):
            server.send("credential/issue", secret="db", fresh=True)
        codes = []
        for _ in range(10):
            try:
                server.receive()
                codes.append("issued")
            except AnswerError as error:
                codes.append(error.code)
        assert (["issued"] * 3 + ["rate_limited"] * 7, 3) == (sorted(codes), len(source.minted()))


class TestEnding:
    """A lease ends with its process, at its wish, or by an admin's word."""

    def test_it_ends_with_its_process(self, server: Puppet, broker: RunningBroker, source: minting.Source) -> None:
        """When a process is killed its credential is revoked at the backend within two seconds."""
        accessor = issue(server, "db")
        server.kill()
        until(lambda: revoked(source, accessor), deadline=SOON, said="the revocation")
        assert {} == leases(broker)

    def test_a_zombie_has_ended(self, stage: Puppet, broker: RunningBroker, source: minting.Source) -> None:
        """A process that has ended and that nobody has waited for holds nothing any more."""
        parent = stage.fork()
        parent.run("import signal; signal.signal(signal.SIGCHLD, signal.SIG_DFL)")
        child = parent.fork()
        child.connect(broker.places.broker_socket)
        accessor = issue(child, "db")
        child.kill()
        until(lambda: revoked(source, accessor), deadline=SOON, said="the revocation")
        state = Path(f"/proc/{child.pid}/stat").read_text("ascii").rpartition(")")[2].split()[0]
        assert ("Z", {}) == (state, leases(broker))

    def test_what_becomes_another_program_keeps_its_lease(self, server: Puppet, broker: RunningBroker) -> None:
        """A process that turns into its server by execve is the same process."""
        accessor = issue(server, "db")
        server.execute("/bin/sleep", "60")
        until(lambda: b"sleep" in Path(f"/proc/{server.pid}/cmdline").read_bytes(), said="execve")
        assert {accessor: "active"} == leases(broker)

    def test_a_released_lease_is_over(self, server: Puppet, broker: RunningBroker, source: minting.Source) -> None:
        """A process that gives its lease back has none, and may have another."""
        accessor = issue(server, "db")
        server.call("lease/release", accessor=accessor)
        until(lambda: revoked(source, accessor), deadline=SOON, said="the revocation")
        assert ({}, True) == (leases(broker), issue(server, "db") != accessor)

    def test_the_older_lease_is_held_when_the_newer_is_released(self, server: Puppet) -> None:
        """A process that gives back its second lease and asks again gets its first."""
        first, second = issue(server, "db"), issue(server, "db", fresh=True)
        server.call("lease/release", accessor=second)
        assert first == issue(server, "db")

    def test_nobody_releases_or_renews_another_processs_lease(
        self, server: Puppet, stage: Puppet, broker: RunningBroker
    ) -> None:
        """For any other process a lease looks as if it were not there, whichever way it is asked about."""
        accessor = issue(server, "db")
        other = stage.fork()
        other.connect(broker.places.broker_socket)
        codes = [
            refused(other, method, accessor=name)
            for method in ("lease/release", "lease/renew")
            for name in (accessor, "no-such-lease")
        ]
        assert (["expired"] * 4, {accessor: "active"}) == (codes, leases(broker))

    def test_a_failing_revocation_is_tried_again(
        self, server: Puppet, broker: RunningBroker, source: minting.Source
    ) -> None:
        """A backend that is away when a lease ends is asked until it has revoked it, and status says how many wait."""
        source.behave(revoke={"fail": "unavailable"})
        accessor = issue(server, "db")
        server.call("lease/release", accessor=accessor)
        until(lambda: broker.admin("status")["pending_revocations"] == 1, said="a pending revocation")
        source.behave()
        until(lambda: revoked(source, accessor), said="the revocation")

    def test_a_backend_that_hangs_on_revoking_holds_up_nobody(
        self, server: Puppet, broker: RunningBroker, source: minting.Source
    ) -> None:
        """While revocations hang, credentials are issued, and what ends elsewhere is recorded."""
        held = [issue(server, "db", fresh=True) for _ in range(20)]
        source.behave(revoke={"hang": True})
        for accessor in held:
            server.call("lease/release", accessor=accessor)
        before = issue(server, "static")
        server.call("lease/release", accessor=before)
        assert (20, []) == (broker.admin("status")["pending_revocations"], list(leases(broker)))


class TestBinding:
    """A lease hangs on the caller, on an ancestor of it, or on its time alone."""

    def test_it_hangs_on_the_ancestor_that_is_named(
        self, server: Puppet, broker: RunningBroker, source: minting.Source
    ) -> None:
        """A lease bound to the caller's parent outlives the caller and ends with the parent."""
        parent = server.fork()
        child = parent.fork()
        child.connect(broker.places.broker_socket)
        accessor = issue(child, "db", bind=parent.pid)
        child.kill()
        grandchild = parent.fork()
        grandchild.connect(broker.places.broker_socket)
        again = issue(grandchild, "db", bind=parent.pid)
        parent.kill()
        until(lambda: revoked(source, accessor), deadline=SOON, said="the revocation")
        assert accessor == again

    def test_the_caller_itself_may_be_named(self, server: Puppet) -> None:
        """Naming one's own pid is the same as naming none."""
        assert issue(server, "db") == issue(server, "db", bind=server.pid)

    def test_it_does_not_hang_on_who_is_no_ancestor(self, server: Puppet, stage: Puppet) -> None:
        """A process that is no ancestor of the caller, its own child or a cousin, cannot be named."""
        named = [server.fork().pid, stage.fork().pid, 1, 0, -1, 2**30]
        assert ["invalid_request"] * 6 == [refused(server, "credential/issue", secret="db", bind=pid) for pid in named]

    def test_pid_1_is_never_named(self, server: Puppet) -> None:
        """Pid 1, the ancestor of all, is refused: what hangs on it would never end."""
        assert "invalid_request" == refused(server, "credential/issue", secret="db", bind=1)

    @pytest.mark.root
    def test_it_does_not_hang_on_another_users_process(self, stage: Puppet, place: Path) -> None:
        """An ancestor that runs as another user cannot be named."""
        config = '[servers.s]\nselectors = ["uid:12345"]\nunsafe_user_selector = true\nallow = ["static"]\n'
        with start(place, config=config, mode="system", secrets={"static": "made up"}) as broker:
            child = stage.fork()
            child.become(12345)
            child.connect(broker.places.broker_socket)
            assert "invalid_request" == refused(child, "credential/issue", secret="static", bind=stage.pid)

    def test_without_a_process_it_needs_a_time(self, server: Puppet) -> None:
        """A lease that hangs on no process is refused where nobody says for how long."""
        assert "invalid_request" == refused(server, "credential/issue", secret="db", bind="none")

    def test_what_hangs_on_its_time_ends_with_it(
        self, server: Puppet, broker: RunningBroker, source: minting.Source
    ) -> None:
        """A lease of one second outlives its caller and is revoked when the second is over."""
        accessor = issue(server, "db", bind="none", ttl=1)
        server.kill()
        there = leases(broker)
        until(lambda: revoked(source, accessor), said="the revocation")
        assert ({accessor: "active"}, {}) == (there, leases(broker))

    def test_asking_again_without_a_process_is_another_lease(self, server: Puppet) -> None:
        """What hangs on its time alone belongs to nobody who could hold it."""
        assert issue(server, "db", bind="none", ttl=60) != issue(server, "db", bind="none", ttl=60)


class TestKillSwitch:
    """What an admin revokes stays revoked for as long as the process lives."""

    @pytest.mark.parametrize("how", ["server", "lease"])
    def test_the_process_gets_the_secret_no_more(
        self, server: Puppet, broker: RunningBroker, source: minting.Source, how: str
    ) -> None:
        """After a revocation its process is refused, however it asks, and the credential is revoked at the backend."""
        parent = server.fork()
        child = parent.fork()
        child.connect(broker.places.broker_socket)
        accessor = issue(child, "db")
        broker.admin("server/revoke", server="app") if how == "server" else broker.admin(
            "lease/revoke", accessor=accessor
        )
        until(lambda: revoked(source, accessor), deadline=SOON, said="the revocation")
        ways: list[dict[str, Any]] = [{}, {"fresh": True}, {"bind": "none", "ttl": 60}, {"bind": parent.pid}]
        codes = [refused(child, "credential/issue", secret="db", **way) for way in ways]
        codes += [refused(child, "server/open", server="app"), refused(child, "lease/renew", accessor=accessor)]
        assert (["denied"] * 6, 1) == (codes, len(source.minted()))

    def test_a_new_process_may(self, server: Puppet, stage: Puppet, broker: RunningBroker) -> None:
        """A server that is started anew after a revocation gets its credential."""
        issue(server, "db")
        broker.admin("server/revoke", server="app")
        new = stage.fork()
        new.connect(broker.places.broker_socket)
        accessor = issue(new, "db")
        assert "active" == leases(broker)[accessor]

    @pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL], ids=["restart", "crash"])
    def test_a_restart_lifts_no_bar(self, server: Puppet, broker: RunningBroker, end: signal.Signals) -> None:
        """A process that was barred is barred by the next daemon, too, whichever way the last one ended."""
        accessor = issue(server, "db")
        broker.admin("server/revoke", server="app")
        broker.signal(end)
        broker.wait()
        broker.launch()
        server.connect(broker.places.broker_socket)
        assert ("denied", {accessor: "barred"}) == (refused(server, "credential/issue", secret="db"), leases(broker))

    def test_a_refusal_for_that_reason_is_on_record(self, server: Puppet, broker: RunningBroker) -> None:
        """The audit log says that an admin's word, and not the policy, refused the process."""
        issue(server, "static")
        broker.admin("server/revoke", server="app")
        refused(server, "credential/issue", secret="static")
        until(lambda: [each for each in broker.records() if each["event"] == "credential/denied"], said="the record")
        said = [each["reason"] for each in broker.records() if each["event"] == "credential/denied"]
        assert ["an admin has revoked 'static' for this process"] == said
