"""
A value that was minted, and one that stands in the text of an error nobody expected, are in no log and no file.

What the source itself keeps is left out: it is the place that the value comes from.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.base import Secret
from tests import canary as c
from tests.fakes import minting
from tests.integration.leased import CONFIG, issue, leases, refused
from tests.puppets import Puppet
from tests.running import AnswerError, RunningBroker, start, until


@pytest.fixture
def value() -> Secret:
    """Make up a canary for each test."""
    return c.made_up()


@pytest.fixture
def broker(place: Path, source: minting.Source, value: Secret) -> Iterator[RunningBroker]:
    """Run a broker whose backend mints the canary."""
    source.behave(issue={"value": value.expose()})
    packages = [minting.install(place / "packages")]
    with start(place, config=CONFIG, secrets={"static": "made up", "plain": "made up"}, packages=packages) as running:
        yield running


def escaped(value: Secret, broker: RunningBroker) -> list[str]:
    """Return each file of the broker, its log included, and each other process that holds a form of it."""
    places = broker.places
    log = [f"log: {form}" for form in c.in_bytes(value, broker.log.encode())]
    return [*log, *c.in_files(value, [places.state, places.config, places.run]), *c.in_processes(value)]


def test_what_is_minted_is_in_no_file(value: Secret, server: Puppet, broker: RunningBroker) -> None:
    """A minted value that was issued, asked for again, renewed, and released leaves no trace, over a crash included."""
    issued = server.call("credential/issue", secret="db")
    server.call("credential/issue", secret="db")
    server.call("lease/renew", accessor=issued["accessor"])
    other = issue(server, "db", fresh=True)
    server.call("lease/release", accessor=other)
    before = escaped(value, broker)
    broker.kill()
    crashed = escaped(value, broker)
    broker.launch()
    broker.admin("stop", revoke=True)
    broker.wait()
    assert (value, [], [], []) == (issued["values"]["password"], before, crashed, escaped(value, broker))


def test_the_lease_of_it_was_there_to_be_searched(server: Puppet, broker: RunningBroker) -> None:
    """The files that are searched have the lease in them: a search of nothing proves nothing."""
    accessor = issue(server, "db")
    until(lambda: accessor in {each.get("accessor") for each in broker.records()}, said="its record")
    stored = [
        path for path in broker.places.state.iterdir() if path.is_file() and accessor.encode() in path.read_bytes()
    ]
    assert (["active"], True) == (list(leases(broker).values()), bool(stored))


@pytest.mark.parametrize("verb", ["issue", "renew", "revoke"])
def test_an_error_that_holds_it_is_not_repeated(
    value: Secret, server: Puppet, broker: RunningBroker, source: minting.Source, verb: str
) -> None:
    """An unexpected error of a backend, with the value in its text, is told and logged without that text."""
    accessor = issue(server, "db")
    source.behave(**{verb: {"fail": "unexpected", "text": value.expose()}})
    said = ""
    try:
        _provoke(server, verb, accessor)
    except AnswerError as error:
        said = f"{error.code} {error.message} {error.hint}"
    until(lambda: "ZeroDivisionError" in broker.log or broker.admin("status")["pending_revocations"], said="the error")
    assert ([], []) == (c.in_bytes(value, said.encode()), escaped(value, broker))


def _provoke(server: Puppet, verb: str, accessor: str) -> None:
    """Have the backend do what goes wrong."""
    requests: dict[str, tuple[str, dict[str, Any]]] = {
        "issue": ("credential/issue", {"secret": "db", "fresh": True}),
        "renew": ("lease/renew", {"accessor": accessor}),
        "revoke": ("lease/release", {"accessor": accessor}),
    }
    method, params = requests[verb]
    server.call(method, **params)


def test_an_admin_is_not_told_either(value: Secret, broker: RunningBroker, source: minting.Source) -> None:
    """A backend whose health is an unexpected error with the value in its text is reported without it."""
    source.behave(health={"fail": "unexpected", "text": value.expose()})
    try:
        said = str(broker.admin("status"))
    except AnswerError as error:
        said = f"{error.code} {error.message} {error.hint}"
    assert ([], []) == (c.in_bytes(value, said.encode()), escaped(value, broker))


def test_status_answers_whatever_a_backend_does(broker: RunningBroker, source: minting.Source) -> None:
    """A backend that fails in a way nobody expected is shown as unavailable, and everything else is shown as ever."""
    source.behave(health={"fail": "unexpected"})
    rows = {row["name"]: row["state"] for row in broker.admin("status")["backends"]}
    assert {"local": "ok", "mint": "unavailable"} == rows


def test_what_went_wrong_unexpectedly_is_internal(server: Puppet, source: minting.Source) -> None:
    """The caller is told that it was the broker, and nothing of what it was."""
    source.behave(issue={"fail": "unexpected"})
    assert "internal" == refused(server, "credential/issue", secret="db")
