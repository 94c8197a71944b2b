"""
Leases that end at their source, whatever the broker does: replaced for who hears of it, and told in time.

The process that holds them is the test's own. This module refuses to sleep: it
waits for what happens.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.fakes import minting
from tests.integration.leased import SOON, events, leases, revoked
from tests.running import Connection, RunningBroker, start, until

CONFIG: Final = """
[backends.capped]
type = "minting"
source = "../source"
roles = ["db"]
most = 6

[backends.fixed]
type = "minting"
source = "../source"
roles = ["db"]
ttl = 6
renewable = false

[backends.sts]
type = "minting"
source = "../source"
roles = ["db"]
ttl = 6
renewable = false
leases = false

[backends.mint]
type = "minting"
source = "../source"
roles = ["db"]

[secrets.capped]
backend = "capped"
path = "db"
ttl = "4s"

[secrets.fixed]
backend = "fixed"
path = "db"

[secrets.sts]
backend = "sts"
path = "db"

[secrets.short]
backend = "mint"
path = "db"
ttl = "3s"

[servers.s]
allow = ["capped", "fixed", "sts", "short"]
"""


@pytest.fixture
def broker(place: Path, source: minting.Source) -> Iterator[RunningBroker]:
    """Run a broker whose backends give credentials that end by themselves."""
    del source
    with start(place, config=CONFIG, packages=[minting.install(place / "packages")]) as running:
        yield running


@pytest.fixture
def asking(broker: RunningBroker) -> Iterator[Connection]:
    """Give a connection to ask on."""
    with broker.connect() as connection:
        yield connection


@pytest.fixture
def watching(broker: RunningBroker) -> Iterator[Connection]:
    """Give a connection that hears of changes."""
    with broker.connect() as connection:
        connection.call("lease/watch")
        yield connection


def issue(asking: Connection, secret: str, **more: Any) -> str:  # noqa: ANN401
    """Ask for a credential; return the accessor of its lease."""
    return str(asking.call("credential/issue", secret=secret, **more)["accessor"])


def heard(watching: Connection) -> tuple[str, str]:
    """Return of which lease something is heard next, and what."""
    said = watching.receive()["params"]
    return said["accessor"], said["reason"]


class TestReplacement:
    """A credential that ends soon gives way to another before it does."""

    @pytest.mark.parametrize("secret", ["fixed", "capped", "sts"])
    def test_who_watches_gets_another_before_the_end(
        self, broker: RunningBroker, asking: Connection, watching: Connection, source: minting.Source, secret: str
    ) -> None:
        """Who watches is told in time, gets another credential when it asks, and then the old one is given back."""
        before = issue(asking, secret)
        told = heard(watching)
        still = sorted(source.valid().values())
        after = issue(asking, secret)
        until(lambda: before not in leases(broker), deadline=SOON, said="the end of the old lease")
        assert ((before, "rotated"), True, 2) == (told, after != before, len(still))
        assert [after] == [each["accessor"] for each in events(broker, "lease/replaced")]

    def test_the_old_one_is_revoked_when_the_new_one_is_released(
        self, broker: RunningBroker, asking: Connection, watching: Connection, source: minting.Source
    ) -> None:
        """The old credential is revoked at its backend right after the release of the new one, and not before."""
        before = issue(asking, "fixed")
        heard(watching)
        early = revoked(source, before)
        after = issue(asking, "fixed")
        until(lambda: revoked(source, before), deadline=SOON, said="the revocation")
        assert (False, {after: "active"}) == (early, leases(broker))

    def test_who_never_asks_again_keeps_the_old_one_until_its_end(
        self, broker: RunningBroker, asking: Connection, watching: Connection, source: minting.Source
    ) -> None:
        """Where the new credential is not asked for the old one ends at its own time, and only one more was minted."""
        before = issue(asking, "fixed")
        heard(watching)
        until(lambda: revoked(source, before), said="the end of the old one")
        assert (2, 1) == (len(source.minted()), len(leases(broker)))

    def test_who_asks_again_near_the_end_gets_another(self, asking: Connection, source: minting.Source) -> None:
        """Without anybody who watches, who asks gets the same for long, and another one before the end."""
        before = issue(asking, "fixed")
        again = issue(asking, "fixed")
        after = until(lambda: (now := issue(asking, "fixed")) != before and now, said="another one")
        until(lambda: revoked(source, before), deadline=SOON, said="the revocation")
        assert (before, {after}) == (again, set(source.valid().values()))

    def test_for_nobody_nothing_is_minted(
        self, broker: RunningBroker, asking: Connection, source: minting.Source
    ) -> None:
        """A lease whose process neither watches nor asks ends at its time, is said to, and nothing takes its place."""
        accessor = issue(asking, "capped")
        ending = until(lambda: [row for row in rows(broker) if not row["renewable"]], said="the last renewal")
        until(lambda: problems(broker), said="a word on what ends soon")
        until(lambda: revoked(source, accessor), said="its end")
        assert ([accessor], {}, 1) == ([row["accessor"] for row in ending], leases(broker), len(source.minted()))

    def test_a_replacement_that_fails_is_tried_again(
        self, broker: RunningBroker, asking: Connection, watching: Connection, source: minting.Source
    ) -> None:
        """While the backend mints nothing who watches is told that it ends; when it does again, that there is more."""
        before = issue(asking, "fixed")
        source.behave(issue={"fail": "unavailable"})
        first = heard(watching)
        source.behave()
        second = heard(watching)
        after = issue(asking, "fixed")
        assert ((before, "expiring"), (before, "rotated"), "active") == (first, second, leases(broker)[after])

    def test_one_without_a_lease_at_its_backend_ends_at_its_time(
        self, broker: RunningBroker, asking: Connection, watching: Connection, source: minting.Source
    ) -> None:
        """What cannot be revoked is not renewed for ever: it ends when its source said, and who asks gets another."""
        del watching
        before = asking.call("credential/issue", secret="sts")
        same = asking.call("credential/issue", secret="sts")
        until(lambda: before["accessor"] not in leases(broker), said="the end")
        after = asking.call("credential/issue", secret="sts")
        assert (before["values"], False, True) == (
            same["values"],
            before["renewable"],
            after["values"] != before["values"] and len(source.minted()) <= 3,
        )


def rows(broker: RunningBroker) -> list[dict[str, Any]]:
    """Return the leases that are out."""
    found: list[dict[str, Any]] = broker.admin("lease/list")["leases"]
    return found


def problems(broker: RunningBroker) -> list[str]:
    """Return what status says of leases that end for good."""
    return [each["text"] for each in broker.admin("status")["problems"] if "cannot be prolonged" in each["text"]]


class TestRevokedAtTheSource:
    """What somebody revokes behind the broker's back is noticed at the next renewal."""

    def test_the_lease_ends_at_once(
        self, broker: RunningBroker, asking: Connection, watching: Connection, source: minting.Source
    ) -> None:
        """Who watches is told that it was revoked, the record says why, and who asks again gets another."""
        before = issue(asking, "short")
        source.revoke(next(iter(source.valid())))
        told = heard(watching)
        after = issue(asking, "short")
        reasons = [each["reason"] for each in events(broker, "lease/ended")]
        assert ((before, "revoked"), {after: "active"}) == (told, leases(broker))
        assert ["its backend knows it no more: it was revoked there, or its time was over"] == reasons

    def test_who_asks_for_more_time_is_told(
        self, broker: RunningBroker, asking: Connection, source: minting.Source
    ) -> None:
        """A process that renews what was revoked at its source learns that there is no such lease."""
        accessor = issue(asking, "short")
        source.revoke(next(iter(source.valid())))
        asking.send("lease/renew", accessor=accessor)
        assert ("expired", {}) == (asking.receive()["error"]["data"]["code"], leases(broker))
