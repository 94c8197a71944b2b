"""
What is on record: changes by an admin, for whom a lease counts, and why something was refused.

A record that is missing, or that names the wrong server, is a lie. This module
refuses to sleep: it waits for what happens.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from broker.audit import AuditLog
from broker.core.model import Process, Workload
from broker.core.policy import Ask, Refused
from broker.refusals import Refusals
from tests.fakes import minting
from tests.integration.leased import events, issue, refused
from tests.puppets import Puppet
from tests.running import AnswerError, RunningBroker, start, until

CONFIG: Final = """
[backends.mint]
type = "minting"
source = "../source"
roles = ["db"]

[secrets.db]
backend = "mint"
path = "db"

[secrets.payroll]
ttl = "1m"

[servers.a]
command = ["true"]
allow = ["db"]
env.SHARED = "{shared}"
env.MORE = "{more}"

[servers.one]
command = ["true"]
env.SHARED = "{shared}"

[servers.two]
command = ["true"]
env.SHARED = "{shared}"

[servers.z]
command = ["true"]
env.SHARED = "{shared}"
allow = ["more"]
"""


@pytest.fixture
def broker(place: Path, source: minting.Source) -> Iterator[RunningBroker]:
    """Run a broker in whose config several servers may have the same secret."""
    del source
    packages = [minting.install(place / "packages")]
    secrets = {"shared": "a made-up value", "more": "another made-up value"}
    with start(place, config=CONFIG, secrets=secrets, packages=packages) as running:
        yield running


@contextmanager
def without_log(broker: RunningBroker) -> Iterator[None]:
    """Have something else where the audit log was, and the log back in the end."""
    there, away = broker.places.audit, broker.places.state / "away"
    there.rename(away)
    there.write_text("")
    try:
        until(lambda: broker.admin("status")["audit"]["state"] != "ok", said="the trouble of the log")
        yield
    finally:
        there.unlink()
        away.rename(there)


def outcomes(broker: RunningBroker, event: str, secret: str | None = None) -> list[str]:
    """Return what is on record to have become of an admin's change, in order."""
    return [each["outcome"] for each in events(broker, event) if each.get("secret") == secret]


def rows_of(broker: RunningBroker, secret: str) -> dict[str, str]:
    """Return the state of the lease of each server for a secret."""
    return {row["server"]: row["state"] for row in broker.admin("lease/list")["leases"] if row["secret"] == secret}


class TestChanges:
    """What an admin changes is on record before it is changed, and so is what became of it."""

    def test_without_a_log_nothing_is_changed(self, server: Puppet, broker: RunningBroker) -> None:
        """A secret that is set or removed while no record can be written stays what it was."""
        before = server.call("credential/issue", secret="shared")
        codes = []
        with without_log(broker):
            for method, more in (("secret/set", {"values": {"value": "a wrong value"}}), ("secret/rm", {})):
                with pytest.raises(AnswerError) as caught:
                    broker.admin(method, name="shared", **more)
                codes.append(caught.value.code)
        until(lambda: broker.admin("status")["audit"]["state"] == "ok", said="the recovery of the log")
        after = server.call("credential/issue", secret="shared")
        same = (before["values"], before["version"]) == (after["values"], after["version"])
        assert (["audit_unavailable"] * 2, True) == (codes, same)

    def test_it_is_begun_and_done(self, broker: RunningBroker) -> None:
        """A secret that was set has two records: that it was begun, and that it was done."""
        broker.admin("secret/set", name="new", values={"value": "made up"})
        until(lambda: len(outcomes(broker, "secret/set", "new")) == 2, said="both records")
        assert ["begun", "done"] == outcomes(broker, "secret/set", "new")

    def test_it_is_begun_and_failed(self, broker: RunningBroker) -> None:
        """A removal of a secret that is not there has two records: that it was begun, and that it failed."""
        with pytest.raises(AnswerError):
            broker.admin("secret/rm", name="payroll")
        until(lambda: len(outcomes(broker, "secret/removed", "payroll")) == 2, said="both records")
        assert ["begun", "failed"] == outcomes(broker, "secret/removed", "payroll")

    def test_a_changed_key_is_begun_and_done(self, broker: RunningBroker) -> None:
        """A rotation of the master key has both records."""
        broker.admin("key/rotate")
        until(lambda: len(outcomes(broker, "key/rotated")) == 2, said="both records")
        assert ["begun", "done"] == outcomes(broker, "key/rotated")

    def test_a_reload_and_a_stop_are_on_record(self, broker: RunningBroker) -> None:
        """Who reloads the config or stops the broker is on record."""
        broker.admin("reload")
        broker.admin("stop")
        broker.wait()
        uids = [each["uid"] for event in ("config/reload", "broker/stop") for each in events(broker, event)]
        assert [os.geteuid()] * 2 == uids


class TestForWhom:
    """A lease counts for the server that it was opened as, though others may have the same secret."""

    def test_each_opening_counts_for_its_server(self, server: Puppet, broker: RunningBroker) -> None:
        """One process that opens two servers with one secret holds a lease of each, and the records name both."""
        for name in ("one", "two"):
            server.call("server/open", server=name)
        recorded = [each["server"] for each in events(broker, "credential/authorised")]
        assert (["one", "two"], {"one": "active", "two": "active"}) == (recorded, rows_of(broker, "shared"))

    def test_a_kill_switch_finds_it(self, server: Puppet, broker: RunningBroker) -> None:
        """Revoking the second of two servers with one secret revokes what was opened as that."""
        for name in ("one", "two"):
            server.call("server/open", server=name)
        count = broker.admin("server/revoke", server="two")["revoked"]
        codes = [refused(server, "server/open", server="two"), refused(server, "credential/issue", secret="shared")]
        assert (1, "barred", ["denied"] * 2) == (count, rows_of(broker, "shared")["two"], codes)

    def test_asking_again_is_asking_as_the_same(self, server: Puppet, broker: RunningBroker) -> None:
        """A process opened as the last of several servers gets the lease that it holds as that."""
        (accessor,) = server.call("server/open", server="z")["leases"]
        again = issue(server, "shared")
        recorded = [each["server"] for each in events(broker, "credential/authorised")]
        assert (accessor, ["z", "z"]) == (again, recorded)

    def test_asking_for_more_is_asking_as_the_same(self, server: Puppet, broker: RunningBroker) -> None:
        """What else such a process asks for counts for that server, where that may have it."""
        server.call("server/open", server="z")
        issue(server, "more")
        assert {"z": "active"} == rows_of(broker, "more")

    def test_asking_for_what_only_another_may_have(self, server: Puppet, broker: RunningBroker) -> None:
        """What that server may not have counts for the one that may."""
        server.call("server/open", server="z")
        issue(server, "db")
        assert {"a": "active"} == rows_of(broker, "db")


class TestWhy:
    """What was refused is told with what it was about and with the true reason."""

    def test_status_names_what_was_unavailable(
        self, server: Puppet, broker: RunningBroker, source: minting.Source
    ) -> None:
        """A secret whose backend was away stands in ``status`` with its name and that reason."""
        source.behave(issue={"fail": "unavailable"})
        refused(server, "credential/issue", secret="db")
        (row,) = broker.admin("status")["refusals"]
        assert ("db", "unavailable", server.pid) == (row["secret"], row["code"], row["pid"])

    def test_explain_last_tells_why(self, server: Puppet, broker: RunningBroker, source: minting.Source) -> None:
        """What the backend refused is not explained by a policy that allows it."""
        source.behave(issue={"fail": "unavailable"})
        refused(server, "credential/issue", secret="db")
        (row,) = broker.admin("status")["refusals"]
        said = broker.admin("explain", last=True)
        assert (False, f"{row['reason']} (unavailable)", "db") == (said["allowed"], said["reason"], said["secret"])

    def test_explain_last_tells_of_a_bar(self, server: Puppet, broker: RunningBroker) -> None:
        """Who was refused by an admin's word is not told that the policy allows it."""
        issue(server, "shared")
        broker.admin("server/revoke", server="a")
        refused(server, "credential/issue", secret="shared")
        said = broker.admin("explain", last=True)
        assert (False, True) == (said["allowed"], "an admin has revoked" in said["reason"])

    def test_made_up_names_hide_no_real_one(self, server: Puppet, broker: RunningBroker) -> None:
        """After thirty denials of names that nobody has, one of a secret that there is stands in the log by name."""
        for number in range(30):
            refused(server, "credential/issue", secret=f"junk{number}")
        refused(server, "credential/issue", secret="payroll")
        said: dict[str, Any] = until(lambda: broker.admin("explain", last=True), said="the refusal")
        until(
            lambda: "payroll" in [each.get("secret") for each in events(broker, "credential/denied")],
            deadline=5,
            said="the record",
        )
        assert ("payroll", False) == (said["secret"], said["allowed"])


def workload(uid: int) -> Workload:
    """Return a process of a user."""
    return Workload(process=Process(boot="b", pid=1, start=1, uid=uid), gid=uid)


class TestCrowds:
    """What is shown of refusals is shared by all users."""

    def test_one_user_hides_no_other(self, tmp_path: Path) -> None:
        """However much one user is refused, what another was refused before is still shown."""
        refusals = Refusals(mode="system", audit=AuditLog(tmp_path))
        no = Refused(reason="no")
        refusals.refuse(workload(1), Ask(secret="theirs"), no)
        for number in range(1000):
            refusals.refuse(workload(2), Ask(secret=f"{number}"), no)
        kept = [each.workload.uid for each in refusals.latest()]
        shown = [each.workload.uid for each in refusals.shown(20)]
        assert ((1, 64), (1, 19)) == ((kept.count(1), kept.count(2)), (shown.count(1), shown.count(2)))

    def test_the_latest_is_shown_first(self, tmp_path: Path) -> None:
        """What is shown stands in the order of time, the latest first."""
        times = iter(range(100))
        refusals = Refusals(mode="system", audit=AuditLog(tmp_path), clock=lambda: float(next(times)))
        for number in range(6):
            refusals.refuse(workload(number // 3), Ask(secret=f"{number}"), Refused(reason="no"))
        assert [5.0, 4.0, 2.0, 1.0] == [each.at for each in refusals.shown(4)]
