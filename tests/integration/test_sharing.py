"""
One credential for all processes that may have it: minted once, renewed once, revoked with the last of them.

This module refuses to sleep: it waits for what happens.
"""

import signal
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pytest

from tests.fakes import minting
from tests.integration.leased import SOON, events, issue, leases, refused, rows
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
ttl = "10m"
share = true

[secrets.short]
backend = "mint"
path = "db"
ttl = "3s"
share = true

[servers.app]
allow = ["db"]

[servers.other]
allow = ["short"]
"""


@pytest.fixture
def broker(place: Path, source: minting.Source) -> Iterator[RunningBroker]:
    """Run a broker with secrets that are shared."""
    del source
    with start(place, config=CONFIG, packages=[minting.install(place / "packages")]) as running:
        yield running


@pytest.fixture
def servers(stage: Puppet, broker: RunningBroker) -> list[Puppet]:
    """Return three processes that are connected to the broker."""
    made = [stage.fork() for _ in range(3)]
    for each in made:
        each.connect(broker.places.broker_socket)
    return made


def names(source: minting.Source) -> list[str]:
    """Return the names at the source of all that is valid."""
    return list(source.valid())


def name_of(answer: dict[str, Any]) -> object:
    """Return the user name in an answer, which is no secret here: it is the lease's name at the source."""
    return answer["values"]["username"]


def test_all_get_the_same_and_it_is_minted_once(
    servers: list[Puppet], broker: RunningBroker, source: minting.Source
) -> None:
    """Three processes that ask one after the other have a lease each, and one credential."""
    found = [each.call("credential/issue", secret="db") for each in servers]
    assert (1, 3, 1) == (
        sum(name_of(each) == name_of(found[0]) for each in found) // 3,
        len({each["accessor"] for each in found}),
        len(source.minted()),
    )
    assert 3 == len(leases(broker))


def test_who_asks_first_at_once_causes_one_mint(servers: list[Puppet], source: minting.Source) -> None:
    """Sixty requests of three processes that come while the first is minted cause one mint."""
    source.behave(issue={"wait": 0.3})
    for number in range(60):
        servers[number % 3].send("credential/issue", secret="db")
    found = [servers[number % 3].receive() for number in range(60)]
    assert (1, True) == (len(source.minted()), all(name_of(each) == name_of(found[0]) for each in found))


def test_a_mint_that_fails_fails_once_for_all(servers: list[Puppet], source: minting.Source) -> None:
    """Those who wait for one mint get its error, and nobody mints again blindly after an outcome that is unknown."""
    source.behave(issue={"wait": 0.3, "lose": "unknown"})
    for each in servers:
        each.send("credential/issue", secret="db")
    codes = []
    for each in servers:
        with pytest.raises(AnswerError) as caught:
            each.receive()
        codes.append(caught.value.code)
    assert (["unavailable"] * 3, 1) == (codes, len(source.minted()))


def test_it_is_revoked_with_the_last_of_them(
    servers: list[Puppet], broker: RunningBroker, source: minting.Source
) -> None:
    """It stays good while one process holds it, whichever ends first, and is revoked once when the last has ended."""
    for each in servers:
        issue(each, "db")
    for each in servers[:2]:
        each.kill()
    until(lambda: len(leases(broker)) == 1, said="the end of two leases")
    still = names(source)
    servers[2].kill()
    until(lambda: not names(source), deadline=SOON, said="the revocation")
    assert (1, 1) == (len(still), source.count("revoked"))


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL], ids=["restart", "crash"])
def test_a_restart_forgets_nobody(
    servers: list[Puppet], broker: RunningBroker, source: minting.Source, end: signal.Signals
) -> None:
    """What one of three still holds after a restart in which two ended is good, and revoked with that one."""
    held = {issue(each, "db") for each in servers}
    until(lambda: rows(broker) >= held, said="the rows of the leases")
    broker.signal(end)
    broker.wait()
    for each in servers[:2]:
        each.kill()
    broker.launch()
    until(lambda: len(rows(broker)) == 1, said="the end of two rows")
    still = names(source)
    servers[2].kill()
    until(lambda: not names(source), deadline=SOON, said="the revocation")
    assert (1, {}) == (len(still), leases(broker))


def test_it_is_renewed_once_for_all(servers: list[Puppet], broker: RunningBroker, source: minting.Source) -> None:
    """Three leases of one credential are renewed by one request at a time, and all of them live on."""
    found = {each.call("credential/issue", secret="short")["accessor"] for each in servers}
    until(lambda: source.count("renewed") >= 3, said="three renewals")
    times = {row["expires_at"] for row in broker.admin("lease/list")["leases"]}
    assert (True, 1, found) == (source.count("renewed") <= 5, len(times), set(leases(broker)))


def test_nobody_shortens_what_others_hold(servers: list[Puppet], broker: RunningBroker) -> None:
    """A process that asks for less time than the others have gets what they have."""
    found = [each.call("credential/issue", secret="db") for each in servers]
    servers[0].call("lease/renew", accessor=found[0]["accessor"], ttl=20)
    ends = {datetime.fromisoformat(row["expires_at"]) for row in broker.admin("lease/list")["leases"]}
    assert min(ends) >= datetime.fromisoformat(found[0]["expires_at"])


def test_an_admins_word_makes_it_worthless_for_all(
    servers: list[Puppet], broker: RunningBroker, source: minting.Source
) -> None:
    """Who is revoked is barred, the credential is revoked though others hold it, and they get another one."""
    accessors = [issue(each, "db") for each in servers]
    broker.admin("lease/revoke", accessor=accessors[0])
    until(lambda: not names(source), deadline=SOON, said="the revocation")
    codes = refused(servers[0], "credential/issue", secret="db")
    again = [issue(each, "db") for each in servers[1:]]
    assert ("denied", 1, 2) == (codes, len(names(source)), len(set(again) - set(accessors)))
    assert {"barred"} == {state for name, state in leases(broker).items() if name == accessors[0]}


def test_the_kill_switch_bars_all_of_them(servers: list[Puppet], broker: RunningBroker, source: minting.Source) -> None:
    """When a server is revoked each of its processes is barred, and the credential is revoked once."""
    for each in servers:
        issue(each, "db")
    counted = broker.admin("server/revoke", server="app")["revoked"]
    until(lambda: not names(source), deadline=SOON, said="the revocation")
    codes = [refused(each, "credential/issue", secret="db") for each in servers]
    assert (3, ["denied"] * 3, 1) == (counted, codes, source.count("revoked"))


def test_what_was_revoked_at_the_source_ends_for_all(
    servers: list[Puppet], broker: RunningBroker, source: minting.Source
) -> None:
    """When the source no longer knows it, all leases of it end, and who asks again gets a new one, the same for all."""
    before = {issue(each, "short") for each in servers}
    source.revoke(names(source)[0])
    until(lambda: not before & leases(broker).keys(), said="the end of the leases")
    found = [each.call("credential/issue", secret="short") for each in servers]
    assert (2, {True}) == (len(source.minted()), {name_of(each) == name_of(found[0]) for each in found})
    assert 3 == len([each for each in events(broker, "lease/ended") if "knows it no more" in each["reason"]])


def test_who_wants_another_gets_one_that_is_shared_from_then_on(servers: list[Puppet], source: minting.Source) -> None:
    """A process that asks for a fresh credential gets another one, and so does who asks after it."""
    first, second, third = servers
    before = first.call("credential/issue", secret="db")
    fresh = second.call("credential/issue", secret="db", fresh=True)
    later = third.call("credential/issue", secret="db")
    assert (False, True, 2) == (name_of(before) == name_of(fresh), name_of(fresh) == name_of(later), len(names(source)))
