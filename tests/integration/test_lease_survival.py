"""
What becomes of leases over a restart, a crash and an upgrade of the broker, over time, and of a lost answer.

This module refuses to sleep: it waits for what happens.
"""

import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.fakes import minting
from tests.integration.leased import CONFIG, SOON, events, issue, leases, newer, refused, revoked, rows, rows_text
from tests.puppets import Puppet
from tests.running import RunningBroker, start, until


class TestRestart:
    """A restart, a crash and an upgrade of the broker end nothing that is in use."""

    @pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL], ids=["restart", "crash"])
    def test_what_lives_keeps_its_leases(
        self, server: Puppet, broker: RunningBroker, source: minting.Source, end: signal.Signals
    ) -> None:
        """The next daemon finds every lease of a process that lives, and none of it was revoked."""
        held = {issue(server, "static"), issue(server, "db")}
        until(lambda: rows(broker) >= held, said="the rows of the leases")
        broker.signal(end)
        broker.wait()
        broker.launch()
        assert (held, 1) == (set(leases(broker)), len(source.valid()))

    def test_a_static_lease_is_the_same_after_a_restart(self, server: Puppet, broker: RunningBroker) -> None:
        """A process that asks again after a restart gets the static lease that it held before."""
        before = issue(server, "static")
        broker.stop()
        broker.launch()
        server.connect(broker.places.broker_socket)
        assert before == issue(server, "static")

    @pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL], ids=["restart", "crash"])
    def test_what_ended_meanwhile_is_revoked(
        self, server: Puppet, broker: RunningBroker, source: minting.Source, end: signal.Signals
    ) -> None:
        """A process that ended while no daemon ran loses its lease at the next start."""
        accessor = issue(server, "db")
        broker.signal(end)
        broker.wait()
        server.kill()
        broker.launch()
        until(lambda: revoked(source, accessor), deadline=SOON, said="the revocation")
        assert {} == leases(broker)

    def test_a_lease_still_ends_with_its_process_after_a_restart(
        self, server: Puppet, broker: RunningBroker, source: minting.Source
    ) -> None:
        """The next daemon watches the processes of the last one."""
        accessor = issue(server, "db")
        broker.kill()
        broker.launch()
        server.kill()
        until(lambda: revoked(source, accessor), deadline=SOON, said="the revocation")

    def test_what_had_ended_before_a_crash_comes_not_back(
        self, server: Puppet, broker: RunningBroker, source: minting.Source
    ) -> None:
        """A lease that was released, and not yet revoked when the broker crashed, is revoked after the crash."""
        accessor = issue(server, "db")
        source.behave(revoke={"fail": "unavailable"})
        server.call("lease/release", accessor=accessor)
        until(lambda: '"ended":true' in rows_text(broker), said="the row of the ended lease")
        broker.kill()
        source.behave()
        broker.launch()
        there = leases(broker)
        until(lambda: revoked(source, accessor), deadline=SOON, said="the revocation")
        assert {} == there

    def test_another_broker_in_its_place_takes_over(
        self, server: Puppet, broker: RunningBroker, place: Path, source: minting.Source
    ) -> None:
        """An upgrade, which is another installation over the same state, finds the leases of the one before."""
        held = issue(server, "db")
        broker.stop()
        packages = [minting.install(place / "packages")]
        with start(place, config=CONFIG, packages=packages, installation=newer(place / "newer")) as upgraded:
            server.connect(upgraded.places.broker_socket)
            version = server.call("whoami")["version"]
            assert ("99.0", {held: "active"}, 1) == (version, leases(upgraded), len(source.valid()))

    @pytest.mark.parametrize("seconds", [0.1, 30.0], ids=["and it comes to an end", "that takes too long"])
    def test_an_orderly_end_in_the_middle_of_a_mint_loses_nothing(
        self, server: Puppet, broker: RunningBroker, source: minting.Source, seconds: float
    ) -> None:
        """What is being minted when the broker is told to end is afterwards a lease, revoked, or listed."""
        source.behave(issue={"wait": seconds})
        server.send("credential/issue", secret="db")
        until(lambda: broker.admin("status")["connections"] > 1 and _intents(broker), said="the intent")
        broker.stop()
        source.behave()
        broker.launch()
        until(lambda: not broker.admin("status")["pending_revocations"], said="giving back what had ended")
        listed = len(broker.admin("status")["unknown"])
        lost = [intent for intent in source.valid().values() if intent not in leases(broker)]
        assert (True, listed) == (len(lost) <= listed, len(_intents(broker)))

    def test_want_of_descriptors_is_not_the_end_of_a_process(
        self, stage: Puppet, broker: RunningBroker, place: Path, source: minting.Source
    ) -> None:
        """A broker that may not open enough files to watch every process does not start, and revokes nothing."""
        servers = [stage.fork() for _ in range(60)]
        for each in servers:
            each.connect(broker.places.broker_socket)
        held = {issue(each, "db") for each in servers}
        broker.stop()
        few = ["prlimit", "--nofile=64:64"]
        with pytest.raises(ChildProcessError) as caught:
            start(place, config=CONFIG, packages=[place / "packages"], inside=few).__enter__()
        broker.launch()
        assert (held, 60) == (set(leases(broker)), len(source.valid()))
        assert "the processes that hold leases cannot be watched: Too many open files" in str(caught.value)

    def test_stopping_with_revoke_revokes_everything(
        self, server: Puppet, stage: Puppet, broker: RunningBroker, source: minting.Source
    ) -> None:
        """``stop --revoke`` gives back what is out, however much it is, before the daemon ends."""
        other = stage.fork()
        other.connect(broker.places.broker_socket)
        for _ in range(30):
            issue(server, "db", fresh=True)
            issue(other, "db", fresh=True)
        broker.admin("stop", revoke=True)
        broker.wait()
        assert (60, {}) == (len(source.minted()), source.valid())

    def test_stopping_with_revoke_keeps_its_word_over_a_backend_that_is_away(
        self, server: Puppet, broker: RunningBroker, source: minting.Source
    ) -> None:
        """What could not be revoked by a daemon that was stopped is revoked by the next, though its process lives."""
        issue(server, "db")
        source.behave(revoke={"fail": "unavailable"})
        broker.admin("stop", revoke=True)
        broker.wait()
        source.behave()
        broker.launch()
        until(lambda: not source.valid(), deadline=SOON, said="the revocation")
        assert {} == leases(broker)


def _intents(broker: RunningBroker) -> list[str]:
    """Return the accessors of all intents on disk."""
    with closing(sqlite3.connect(f"file:{broker.places.state}/state.db?mode=ro", uri=True)) as connection:
        return [row[0] for row in connection.execute("SELECT accessor FROM intents")]


class TestRenewal:
    """A lease of a living process is renewed at two thirds of its life."""

    def test_it_is_renewed_while_its_process_lives(
        self, server: Puppet, broker: RunningBroker, source: minting.Source
    ) -> None:
        """A lease of three seconds is prolonged at the backend, again and again, and stays the same lease."""
        accessor = issue(server, "short")
        until(lambda: [each for each in source.minted().values() if each.renewals >= 2], said="two renewals")
        assert ({accessor: "active"}, 1) == (leases(broker), len(source.valid()))

    def test_a_renewal_that_fails_is_tried_again(
        self, server: Puppet, broker: RunningBroker, source: minting.Source
    ) -> None:
        """A backend that is away for a moment when a lease is due costs nothing: it is renewed before its end."""
        broker.write_config(CONFIG.replace('"3s"', '"9s"'))
        broker.admin("reload")
        source.behave(renew={"fail": "unavailable"})
        accessor = issue(server, "short")
        until(lambda: events(broker, "lease/not-renewed"), said="a renewal that failed")
        source.behave()
        until(lambda: [each for each in source.minted().values() if each.renewals], said="the renewal")
        assert ({accessor: "active"}, 1) == (leases(broker), len(events(broker, "lease/not-renewed")))

    def test_what_cannot_be_renewed_ends_at_its_time(
        self, server: Puppet, broker: RunningBroker, source: minting.Source
    ) -> None:
        """A lease that its backend will not prolong ends when it said it would, and is revoked."""
        source.behave(renew={"fail": "refused"})
        accessor = issue(server, "short")
        until(lambda: revoked(source, accessor), said="the revocation")
        assert {} == leases(broker)

    def test_a_backend_that_hangs_holds_up_no_other(
        self, server: Puppet, broker: RunningBroker, source: minting.Source
    ) -> None:
        """While renewals at one backend hang, the leases of another are renewed."""
        source.behave(renew={"hang": True})
        for _ in range(12):
            issue(server, "short", fresh=True)
        issue(server, "plain", ttl=3)
        until(lambda: events(broker, "lease/renewed"), said="the renewal")
        assert {"plain"} == {each["secret"] for each in events(broker, "lease/renewed")}

    def test_a_process_may_renew_its_own(self, server: Puppet, source: minting.Source) -> None:
        """A process that asks for more time gets it at the backend."""
        accessor = issue(server, "db")
        server.call("lease/renew", accessor=accessor)
        assert [1] == [each.renewals for each in source.minted().values()]


class TestUnknown:
    """What nobody knows the outcome of is listed, and never tried again."""

    @pytest.mark.parametrize("how", ["unknown", "unexpected"])
    def test_a_lost_answer_is_listed(
        self, server: Puppet, broker: RunningBroker, source: minting.Source, how: str
    ) -> None:
        """Where something may have been minted and the answer was lost, it is listed until it is gone by itself."""
        source.behave(issue={"lose": how})
        code = refused(server, "credential/issue", secret="db")
        listed = [each["secret"] for each in broker.admin("status")["unknown"]]
        assert ({"unknown": "unavailable", "unexpected": "internal"}[how], ["db"], 1) == (
            code,
            listed,
            len(source.minted()),
        )

    @pytest.mark.parametrize("how", ["before", "after"])
    def test_a_crash_around_the_mint_is_listed(
        self, server: Puppet, broker: RunningBroker, source: minting.Source, how: str
    ) -> None:
        """A broker that dies right before or right after a mint lists it when it is back."""
        source.behave(issue={"kill": how})
        server.send("credential/issue", secret="db")
        broker.wait()
        source.behave()
        broker.launch()
        listed = [each["secret"] for each in broker.admin("status")["unknown"]]
        assert (["db"], {"before": 0, "after": 1}[how]) == (listed, len(source.minted()))

    @pytest.mark.parametrize("how", ["refused", "unavailable"])
    def test_a_clear_no_is_not_listed(
        self, server: Puppet, broker: RunningBroker, source: minting.Source, how: str
    ) -> None:
        """Where the backend says that it minted nothing, nothing is listed."""
        source.behave(issue={"fail": how})
        refused(server, "credential/issue", secret="db")
        assert [] == broker.admin("status")["unknown"]
