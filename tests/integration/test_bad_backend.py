"""
One bad backend harms no other: it hangs or fails at every word, and the sealed store serves on.

This module refuses to sleep: it waits for what happens.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes import minting
from tests.integration.leased import CONFIG, issue, leases, refused, rows
from tests.puppets import Puppet
from tests.running import RunningBroker, start, until

WAYS = [{"hang": True}, {"fail": "unexpected"}, {"fail": "unavailable"}]


@pytest.fixture(params=WAYS, ids=["hangs", "fails in a way nobody expected", "is away"])
def bad(request: pytest.FixtureRequest, source: minting.Source) -> Iterator[minting.Source]:
    """Return a source that is bad at whatever it is asked, from the start."""
    source.behave(**dict.fromkeys(("open", "issue", "renew", "revoke", "health", "close"), request.param))
    yield source
    source.behave()


@pytest.fixture
def broker(place: Path, source: minting.Source) -> Iterator[RunningBroker]:
    """Run a broker with a backend that mints and one that does not."""
    secrets = {"static": "made up", "plain": "made up"}
    with start(
        place, config=CONFIG, secrets=secrets, packages=[minting.install(source.directory.parent / "p")]
    ) as running:
        yield running


def test_the_broker_starts(bad: minting.Source, server: Puppet, broker: RunningBroker) -> None:
    """A broker with a bad backend starts, issues what others hold, and says which backend is bad."""
    del bad
    accessor = issue(server, "static")
    states = {row["name"]: row["state"] for row in broker.admin("status")["backends"]}
    assert ({accessor: "active"}, "ok", True) == (leases(broker), states["local"], states["mint"] != "ok")


def test_the_broker_ends(bad: minting.Source, server: Puppet, broker: RunningBroker) -> None:
    """A broker with a bad backend ends in order, its log closed in peace."""
    del bad
    issue(server, "static")
    assert (0, "audit/closed") == (broker.stop(), broker.records()[-1]["event"])


def test_a_backend_that_comes_late_is_open_in_the_end(source: minting.Source, place: Path, stage: Puppet) -> None:
    """A backend that takes longer to open than anybody waits for it is used once it is open."""
    source.behave(open={"wait": 6})
    with start(place, config=CONFIG, packages=[minting.install(place / "p")]) as broker:
        server = stage.fork()
        server.connect(broker.places.broker_socket)

        def well() -> bool:
            return {row["state"] for row in broker.admin("status")["backends"]} == {"ok"}

        before = well()
        until(well, said="the end of the opening")
        assert (False, True) == (before, bool(issue(server, "db")))


@pytest.mark.parametrize("verb", ["issue", "revoke"])
def test_what_hangs_holds_up_nobody(
    source: minting.Source, server: Puppet, stage: Puppet, broker: RunningBroker, verb: str
) -> None:
    """While a hundred requests hang at one backend, another backend's secret is issued to anybody who asks."""
    held = [issue(server, "db", fresh=True) for _ in range(20)]
    source.behave(**{verb: {"hang": True}})
    for accessor in held:
        server.send("lease/release", accessor=accessor)
    for _ in range(40):
        server.send("credential/issue", secret="db", fresh=True)
    other = stage.fork()
    other.connect(broker.places.broker_socket)
    accessor = issue(other, "static")
    until(lambda: accessor in rows(broker), said="its row")
    assert "active" == leases(broker)[accessor]


def test_a_mint_that_fails_leaves_no_lease(source: minting.Source, server: Puppet, broker: RunningBroker) -> None:
    """Where the backend refuses there is no lease, on the table or on disk."""
    source.behave(issue={"fail": "refused"})
    code = refused(server, "credential/issue", secret="db")
    until(lambda: not rows(broker), said="the end of its intent")
    assert ("denied", {}) == (code, leases(broker))
