"""
How long a lease lasts, and what may change that: the config, a reload, a clock that was set, another uid.

This module refuses to sleep: it waits for what happens.
"""

import asyncio
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pytest

from backends.base import Surroundings
from broker.attest import boot_id
from broker.audit import AuditLog
from broker.core.leases import LeaseTable
from broker.core.model import Lease
from broker.endings import Endings
from broker.scheduler import Scheduler
from broker.store import Store
from tests.fakes import minting
from tests.fuzz import in_process
from tests.integration.leased import SOON, events, issue, leases, refused, revoked, rows
from tests.puppets import Puppet
from tests.running import AnswerError, RunningBroker, start, until

CONFIG: Final = """
[backends.mint]
type = "minting"
source = "../source"
roles = ["db", "short"]

[secrets.db]
backend = "mint"
path = "db"
ttl = "1m"

[secrets.short]
backend = "mint"
path = "short"
ttl = "3s"

[servers.app]
command = ["true"]
selectors = ["uid:UID"]
allow = ["db", "short", "static", "moved"]
"""

IN_MINT: Final = '[secrets.moved]\nbackend = "mint"\npath = "db"\n'
IN_LOCAL: Final = '[secrets.moved]\npath = "static"\n'


def config(*, uid: int | None = None, more: str = "") -> str:
    """Return the config, whose only server is for one user."""
    return CONFIG.replace("UID", str(os.geteuid() if uid is None else uid)) + more


@pytest.fixture
def broker(place: Path, source: minting.Source) -> Iterator[RunningBroker]:
    """Run a broker whose server is for this user."""
    del source
    packages = [minting.install(place / "packages")]
    secrets = {"static": "a made-up value"}
    with start(place, config=config(more=IN_MINT), secrets=secrets, packages=packages) as running:
        yield running


def length(result: dict[str, Any]) -> float:
    """Return the seconds between what a result says of a lease's beginning, and of its end."""
    began, ends = (datetime.fromisoformat(result[key]) for key in ("issued_at", "expires_at"))
    return (ends - began).total_seconds()


def renewals(source: minting.Source) -> int:
    """Return how often anything was renewed at the source."""
    return sum(each.renewals for each in source.minted().values())


class TestLength:
    """A lease is for no longer than the config says, and hangs on a process for no less than a floor."""

    @pytest.mark.parametrize(("secret", "seconds"), [("db", 10.0), ("static", 10.0), ("short", 3.0)])
    def test_who_holds_it_cannot_have_it_renewed_all_the_time(
        self, server: Puppet, secret: str, seconds: float
    ) -> None:
        """A lease of a process lasts ten seconds at least, or as long as the config says where that is less."""
        assert seconds == length(server.call("credential/issue", secret=secret, fresh=True, ttl=0.000001))

    def test_many_of_them_are_little_work(self, server: Puppet, broker: RunningBroker) -> None:
        """Fifty leases for a microsecond are not renewed within the time that one of three seconds is renewed in."""
        for _ in range(50):
            issue(server, "db", fresh=True, ttl=0.000001)
        accessor = issue(server, "short")
        until(lambda: events(broker, "lease/renewed"), said="the renewal")
        assert {accessor} == {each["accessor"] for each in events(broker, "lease/renewed")}

    @pytest.mark.parametrize("bind", [{"bind": "none", "ttl": 5}, {}], ids=["unbound", "bound"])
    def test_renewing_gives_no_more_than_the_config(self, server: Puppet, bind: dict[str, Any]) -> None:
        """However much more time is asked for, a lease lasts from now on as long as the config says."""
        accessor = issue(server, "db", **bind)
        ends = server.call("lease/renew", accessor=accessor, ttl=86400)["expires_at"]
        assert datetime.fromisoformat(ends).timestamp() - time.time() <= 60

    def test_renewing_gives_no_more_than_a_newer_config(self, server: Puppet, broker: RunningBroker) -> None:
        """A lease that is renewed after the config got stricter lasts as long as that says."""
        accessor = issue(server, "static")
        broker.write_config(config(more='[secrets.static]\nttl = "30s"\n'))
        until(lambda: static_ttl(broker), said="the other config")
        ends = server.call("lease/renew", accessor=accessor)["expires_at"]
        assert datetime.fromisoformat(ends).timestamp() - time.time() <= 30


def static_ttl(broker: RunningBroker) -> bool:
    """Return whether a reload has put a length for the static secret in force."""
    return any("static" in line for each in events(broker, "config/changed") for line in each["changed"])


class TestReload:
    """Another config counts for what is held."""

    def test_what_takes_the_selector_away_ends_the_renewals(
        self, server: Puppet, broker: RunningBroker, source: minting.Source
    ) -> None:
        """A lease whose process no rule is for any more is not renewed, and ends with its time."""
        accessor = issue(server, "short")
        until(lambda: renewals(source), said="a renewal")
        broker.write_config(config(uid=12345))
        broker.admin("reload")
        before = renewals(source)
        until(lambda: revoked(source, accessor), deadline=8, said="the revocation")
        found = (leases(broker), renewals(source) - before <= 1, refused(server, "credential/issue", secret="short"))
        assert ({}, True, "denied") == found

    @pytest.mark.parametrize("to", [IN_LOCAL, IN_MINT], ids=["to local", "to mint"])
    def test_a_secret_in_another_backend_is_another_lease(
        self, server: Puppet, broker: RunningBroker, source: minting.Source, to: str
    ) -> None:
        """What a process holds from where a secret was before is not what it gets when it asks again."""
        was = IN_MINT if to == IN_LOCAL else IN_LOCAL
        broker.write_config(config(more=was))
        broker.admin("reload")
        before = server.call("credential/issue", secret="moved")
        broker.write_config(config(more=to))
        broker.admin("reload")
        after = server.call("credential/issue", secret="moved")
        until(lambda: len(source.valid()) == (to == IN_MINT), deadline=SOON, said="the revocation")
        fields = {IN_LOCAL: {"value"}, IN_MINT: {"username", "password"}}
        recorded = events(broker, "credential/authorised")[-1]["backend"]
        found = (set(before["values"]), set(after["values"]), recorded, {after["accessor"]: "active"})
        assert (fields[was], fields[to], "local" if to == IN_LOCAL else "mint", leases(broker)) == found

    def test_saying_the_default_key_file_is_no_change(self, broker: RunningBroker) -> None:
        """A config that says where the master key is anyway is taken without a restart."""
        key = broker.places.state / "master.key"
        broker.write_config(config(more=f'{IN_MINT}[backends.local]\ntype = "sealed"\nkey = {{ file = "{key}" }}\n'))
        broker.admin("reload")
        assert (True, []) == (broker.admin("status")["healthy"], broker.admin("status")["problems"])

    def test_another_key_file_is_one(self, broker: RunningBroker) -> None:
        """A config that says that the master key is elsewhere is refused until the broker is started anew."""
        broker.write_config(config(more=f'{IN_MINT}[backends.local]\ntype = "sealed"\nkey = {{ file = "/else" }}\n'))
        with pytest.raises(AnswerError) as caught:
            broker.admin("reload")
        assert "restart" in caught.value.message


class TestAnotherUid:
    """A process stays the one that it was, whatever its uid becomes."""

    @pytest.mark.root
    def test_who_drops_its_privileges_keeps_its_lease(
        self, server: Puppet, broker: RunningBroker, source: minting.Source
    ) -> None:
        """A lease of a process that has become another user is still its own after a restart of the broker."""
        accessor = issue(server, "db")
        until(lambda: accessor in rows(broker), said="the row of the lease")
        server.become(12345)
        broker.stop()
        broker.launch()
        there = leases(broker)
        still = len(source.valid())
        server.kill()
        until(lambda: revoked(source, accessor), deadline=SOON, said="the revocation")
        assert ({accessor: "active"}, 1) == (there, still)


class Clock:
    """A wall clock that a test sets; it runs with the monotonic one."""

    def __init__(self) -> None:
        """Begin at some time of some day."""
        self.ahead = 1_000_000_000.0

    def __call__(self) -> float:
        """Return what it shows."""
        return self.ahead + time.monotonic()


def lease(clock: Clock, *, backend_lease: str | None = None) -> Lease:
    """Return a lease for a minute."""
    now = clock()
    return Lease(
        accessor="one",
        secret="s",
        server="s",
        backend="mint",
        process=None,
        uid=1,
        issued_at=now,
        expires_at=now + 60,
        ttl=60,
        backend_lease=backend_lease,
    )


class TestClock:
    """What was promised is a length of time, whatever becomes of the wall clock."""

    @pytest.mark.parametrize(("by", "moved"), [(-3600.0, -3600.0), (-3.0, -3.0), (-1.0, 0.0), (0.0, 0.0), (50.0, 0.0)])
    def test_one_that_is_set_back_prolongs_nothing(self, by: float, moved: float) -> None:
        """The end of a lease goes back with the clock, and a clock that runs on or is set by little moves nothing."""
        clock = Clock()

        async def end() -> float:
            running = replace(in_process.running(), clock=clock)
            scheduler = Scheduler(running)
            before = lease(clock)
            running.leases.add(before)
            clock.ahead += by
            scheduler._tick()  # noqa: SLF001 -- one tick, at a time of our choosing
            after = running.leases.get("one")
            running.endings.close()
            assert after is not None
            return after.expires_at - before.expires_at

        assert moved == round(asyncio.run(end()), 1)

    def test_one_that_is_set_back_expires_nothing_late(self) -> None:
        """A lease for a minute is over after the minute, though the clock was set back by an hour in the middle."""
        clock = Clock()

        async def ended() -> list[bool]:
            running = replace(in_process.running(), clock=clock)
            scheduler = Scheduler(running)
            running.leases.add(lease(clock))
            found = []
            for step in (-3600.0, 55.0, 10.0):
                clock.ahead += step
                scheduler._tick()  # noqa: SLF001
                found.append(running.leases.get("one") is None)
            running.endings.close()
            return found

        assert [False, False, True] == asyncio.run(ended())

    def test_one_that_is_set_back_delays_no_revocation(self, tmp_path: Path) -> None:
        """A revocation that failed is tried again as soon as ever, though the clock was set back by a day."""
        clock, source = Clock(), minting.Source(tmp_path / "source")
        source.behave(revoke={"fail": "unavailable"})
        options = {"source": str(source.directory)}
        surroundings = Surroundings(mode="user", config=tmp_path, state=tmp_path)
        backends = {"mint": minting.from_config("mint", options, surroundings)}
        audit, store = AuditLog(tmp_path / "audit"), Store(tmp_path / "state.db")

        async def given_back() -> int:
            endings = Endings(backends=backends, store=store, audit=audit, leases=LeaseTable(), clock=clock)
            endings.open([], [], boot=boot_id())
            endings.due(clock())
            endings.revoker.add(lease(clock, backend_lease="name"))
            await asyncio.sleep(0.1)
            clock.ahead -= 86400
            source.behave()
            async with asyncio.timeout(10):
                while len(endings.revoker):
                    endings.due(clock())
                    await asyncio.sleep(0.05)
            endings.close()
            return len(endings.revoker)

        assert 0 == asyncio.run(given_back())
