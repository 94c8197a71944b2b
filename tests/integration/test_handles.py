"""
What a backend was asked for and nobody knows whether it made: revoked by its handle, or listed until it is gone.

This module refuses to sleep: it waits for what happens.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Final

import pytest

from tests.fakes import minting
from tests.integration.leased import SOON, events, leases
from tests.running import AnswerError, HungUpError, RunningBroker, start, until

CONFIG: Final = """
[backends.prep]
type = "minting"
kind = "preparing"
source = "../source"
roles = ["db"]
most = 7200

[backends.plain]
type = "minting"
source = "../source"
roles = ["db"]

[secrets.prepared]
backend = "prep"
path = "db"
ttl = "10m"

[secrets.plain]
backend = "plain"
path = "db"
ttl = "10m"

[servers.s]
allow = ["prepared", "plain"]
"""


@pytest.fixture
def broker(place: Path, source: minting.Source) -> Iterator[RunningBroker]:
    """Run a broker with a backend that prepares and one that does not."""
    del source
    with start(place, config=CONFIG, packages=[minting.install(place / "packages")]) as running:
        yield running


def refused(broker: RunningBroker, secret: str) -> str:
    """Ask for a secret; return the code of the refusal."""
    with pytest.raises(AnswerError) as caught:
        broker.call("credential/issue", secret=secret)
    return caught.value.code


def on_disk(broker: RunningBroker) -> list[str]:
    """Return which tables of the store hold something."""
    with closing(sqlite3.connect(f"file:{broker.places.state}/state.db?mode=ro", uri=True)) as connection:
        found = connection.execute("SELECT 'leases' FROM leases UNION SELECT 'intents' FROM intents").fetchall()
    return sorted(name for (name,) in found)


def test_a_lost_answer_is_taken_back(broker: RunningBroker, source: minting.Source) -> None:
    """What was minted though its answer was lost is revoked by its handle at once, and is in no list after that."""
    source.behave(issue={"lose": "unknown"})
    code = refused(broker, "prepared")
    until(lambda: source.minted() and not source.valid(), deadline=SOON, said="the revocation")
    until(lambda: not on_disk(broker), said="an empty store")
    status = broker.admin("status")
    assert ("unavailable", 1, [], 0) == (code, len(source.minted()), status["unknown"], status["pending_revocations"])
    assert ["to be given back"] == [each["outcome"] for each in events(broker, "lease/unknown")]


def test_it_is_asked_until_it_says_yes(broker: RunningBroker, source: minting.Source) -> None:
    """While a backend cannot be asked the handle is kept, over a crash, too, and what was minted is revoked then."""
    source.behave(issue={"lose": "unknown"}, revoke={"fail": "unavailable"})
    refused(broker, "prepared")
    pending = broker.admin("status")["pending_revocations"]
    until(lambda: on_disk(broker) == ["leases"], said="the row of what is to be given back")
    broker.kill()
    broker.launch()
    again = broker.admin("status")
    source.behave()
    until(lambda: not source.valid(), said="the revocation")
    until(lambda: not on_disk(broker), said="an empty store")
    assert (1, 1, []) == (pending, again["pending_revocations"], again["unknown"])


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_in_the_middle_of_a_mint_leaves_nothing(
    broker: RunningBroker, source: minting.Source, when: str
) -> None:
    """A daemon that was killed while its backend minted finds the handle at its next start, and takes it back."""
    source.behave(issue={"kill": when})
    with pytest.raises(HungUpError):
        broker.call("credential/issue", secret="prepared")
    broker.wait()
    source.behave()
    broker.launch()
    until(lambda: source.count("revoked"), deadline=SOON, said="the revocation")
    until(lambda: not on_disk(broker), said="an empty store")
    assert ({}, []) == (source.valid(), broker.admin("status")["unknown"])


def test_a_lost_preparation_mints_nothing(broker: RunningBroker, source: minting.Source) -> None:
    """Where the answer to the preparation is lost nothing is minted, nothing is listed and nothing stays on disk."""
    source.behave(prepare={"lose": "unknown"})
    found = (refused(broker, "prepared"), source.minted(), broker.admin("status")["unknown"])
    until(lambda: not on_disk(broker), said="an empty store")
    assert ("unavailable", {}, []) == found


def test_what_was_prepared_for_a_refusal_is_let_go(broker: RunningBroker, source: minting.Source) -> None:
    """Where the backend refuses to mint, what was prepared for it is revoked."""
    source.behave(issue={"fail": "refused"})
    code = refused(broker, "prepared")
    until(lambda: source.count("revoked"), deadline=SOON, said="the revocation")
    assert ("denied", 1) == (code, source.count("prepared"))


def test_without_a_handle_it_is_listed(broker: RunningBroker, source: minting.Source) -> None:
    """What a backend without handles may have minted is listed as unknown until it is gone, and never minted again."""
    source.behave(issue={"lose": "unknown"})
    refused(broker, "plain")
    found = [each["secret"] for each in broker.admin("status")["unknown"]]
    assert (["plain"], 1, 1) == (found, len(source.valid()), source.count("minted"))


def test_an_intent_says_how_long_it_may_live(broker: RunningBroker, source: minting.Source) -> None:
    """What nobody can revoke is listed until its backend's own longest life is over, and not just the lease's."""
    source.behave(issue={"lose": "unknown"})
    broker.write_config(CONFIG.replace('kind = "preparing"', 'kind = "foretelling"'))
    broker.stop()
    broker.launch()
    refused(broker, "prepared")
    row = broker.admin("status")["unknown"][0]
    length = datetime.fromisoformat(row["gone_by"]) - datetime.fromisoformat(row["started_at"])
    assert 7200 <= length.total_seconds() < 7300


def test_what_is_issued_in_peace_leaves_no_intent(broker: RunningBroker, source: minting.Source) -> None:
    """A prepared credential is a lease like any other."""
    accessor = broker.call("credential/issue", secret="prepared")["accessor"]
    assert ({accessor: "active"}, ["leases"], [accessor]) == (
        leases(broker),
        on_disk(broker),
        list(source.valid().values()),
    )
