"""
What is served when a backend is silent: marked as such wherever it is seen, for as long as the config says.

This module refuses to sleep: it waits for what happens.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.fakes import minting
from tests.integration.leased import events, issue, refused
from tests.puppets import Puppet
from tests.running import RunningBroker, start, until

CONFIG: Final = """
[backends.mint]
type = "minting"
source = "../source"
static = ["kv"]
roles = ["db"]

[backends.learn]
type = "minting"
kind = "learning"
source = "../source"
static = ["kv"]

[secrets.learnt]
backend = "learn"
path = "kv"
stale = "5m"
share = true

[secrets.kept]
backend = "mint"
path = "kv"
stale = "5m"

[secrets.brief]
backend = "mint"
path = "kv"
stale = "3s"
params = { another = true }

[secrets.never]
backend = "mint"
path = "kv"

[secrets.db]
backend = "mint"
path = "db"

[servers.app]
allow = ["kept", "brief", "never", "db", "static", "learnt"]
"""


@pytest.fixture
def broker(place: Path, source: minting.Source) -> Iterator[RunningBroker]:
    """Run a broker with a static secret in a backend that can fall silent."""
    del source
    packages = [minting.install(place / "packages")]
    with start(place, config=CONFIG, secrets={"static": "made up"}, packages=packages) as running:
        yield running


def states(broker: RunningBroker) -> dict[str, str]:
    """Return the state of the lease of each secret."""
    return {row["secret"]: row["state"] for row in broker.admin("lease/list")["leases"]}


def told(broker: RunningBroker) -> list[str]:
    """Return what status says of values that are served without their backend."""
    return [each["text"] for each in broker.admin("status")["problems"] if "is served until" in each["text"]]


@pytest.mark.parametrize("silence", [{"fail": "unavailable"}, {"fail": "locked"}, {"hang": True}], ids=str)
def test_it_is_served_and_marked(
    server: Puppet, broker: RunningBroker, source: minting.Source, silence: dict[str, Any]
) -> None:
    """While its backend is away, sealed or hangs the value is served; list, status and record say that it is old."""
    issue(server, "kept")
    before = (states(broker), told(broker))
    source.behave(read=silence)
    answer = server.call("credential/issue", secret="kept")
    recorded = [each.get("stale", False) for each in events(broker, "credential/authorised")]
    assert ({"kept": "active"}, []) == before
    assert (["value"], {"kept": "stale"}, 1, [False, True]) == (
        list(answer["values"]),
        states(broker),
        len(told(broker)),
        recorded,
    )
    assert "secret 'kept': backend 'mint' does not answer; its value of 20" in told(broker)[0]


def test_another_process_gets_it_too(
    server: Puppet, stage: Puppet, broker: RunningBroker, source: minting.Source
) -> None:
    """A process that starts while the backend is away gets what another one has read before."""
    issue(server, "kept")
    source.behave(read={"fail": "unavailable"})
    other = stage.fork()
    other.connect(broker.places.broker_socket)
    issue(other, "kept")
    assert [False, True] == [each.get("stale", False) for each in events(broker, "credential/authorised")]


def test_then_it_is_refused(server: Puppet, broker: RunningBroker, source: minting.Source) -> None:
    """When the time that the config allows is over the value is refused and marked no more."""
    issue(server, "brief")
    source.behave(read={"fail": "unavailable"})
    issue(server, "brief")
    until(lambda: not told(broker), said="the end of its time")
    assert ("unavailable", {"brief": "active"}) == (
        refused(server, "credential/issue", secret="brief"),
        states(broker),
    )


@pytest.mark.parametrize(("no", "code"), [("missing", "unavailable"), ("refused", "denied")])
def test_a_no_is_a_no(server: Puppet, broker: RunningBroker, source: minting.Source, no: str, code: str) -> None:
    """What the backend has no more, or refuses, is not served from memory, and not when it falls silent after that."""
    issue(server, "kept")
    source.behave(read={"fail": no})
    first = refused(server, "credential/issue", secret="kept")
    source.behave(read={"fail": "unavailable"})
    second = refused(server, "credential/issue", secret="kept")
    assert (code, "unavailable", []) == (first, second, told(broker))


def test_nothing_is_served_where_the_config_does_not_say_so(server: Puppet, source: minting.Source) -> None:
    """A secret without the option is refused as soon as its backend is silent."""
    issue(server, "never")
    source.behave(read={"fail": "unavailable"})
    assert "unavailable" == refused(server, "credential/issue", secret="never")


def test_a_backend_that_hangs_makes_nobody_wait_twice(
    server: Puppet, broker: RunningBroker, source: minting.Source
) -> None:
    """After one wait of seconds a hung backend's value, what is held of it and others' secrets are served at once."""
    issue(server, "kept")
    held = issue(server, "db")
    source.behave(read={"hang": True}, issue={"hang": True})
    issue(server, "kept")
    before = source.count("read")
    began = time.monotonic()
    for _ in range(50):
        issue(server, "static")
        assert held == issue(server, "db")
    for _ in range(10):
        issue(server, "kept")
    # Two seconds is what one of them may wait for an answer; thirty is what all would without a memory.
    assert (True, True) == (time.monotonic() - began < 15, source.count("read") - before == 0)
    assert {"kept": "stale", "db": "active", "static": "active"} == states(broker)


def test_it_is_fresh_again_when_the_backend_is(server: Puppet, broker: RunningBroker, source: minting.Source) -> None:
    """A backend that answers again is noticed, and nothing is marked any more."""
    issue(server, "kept")
    source.behave(read={"fail": "unavailable"})
    issue(server, "kept")
    source.behave()
    until(lambda: issue(server, "kept") and not told(broker), said="a fresh value")
    assert ({"kept": "active"}, True) == (states(broker), broker.admin("status")["healthy"])


def test_what_turns_out_to_be_static_is_read(
    server: Puppet, stage: Puppet, broker: RunningBroker, source: minting.Source
) -> None:
    """A backend that has to look first what a path is mints nothing there, and its value is kept like any other."""
    source.behave(read={"wait": 0.2})
    others = [stage.fork() for _ in range(3)]
    for each in others:
        each.connect(broker.places.broker_socket)
    for each in (server, *others):
        each.send("credential/issue", secret="learnt")
    accessors = {each.receive()["accessor"] for each in (server, *others)}
    read = source.count("read")
    source.behave(read={"fail": "unavailable"})
    again = issue(server, "learnt")
    assert (4, 1, True, {}) == (len(accessors), read, again in accessors, source.minted())
    assert ({"learnt": "stale"}, 0) == (states(broker), broker.admin("status")["pending_revocations"])


def test_a_restart_takes_up_what_was_read_of_a_backend_that_has_to_look(server: Puppet, broker: RunningBroker) -> None:
    """A process that asks the next broker, which has not looked yet, gets the static lease that it held before."""
    before = issue(server, "learnt")
    broker.stop()
    broker.launch()
    server.connect(broker.places.broker_socket)
    assert before == issue(server, "learnt")
