"""
Who is quicker than an admin's word: what is being made, opened or asked for while it is spoken.

The backend takes its time to mint, and the word comes meanwhile; or the disk is
away when it comes. This module refuses to sleep: it waits for what happens.
"""

import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.fakes import minting
from tests.integration.leased import SOON, issue, leases, refused, revoked, rows, rows_text
from tests.puppets import Puppet
from tests.running import AnswerError, RunningBroker, start, until

CONFIG: Final = """
[backends.mint]
type = "minting"
source = "../source"
roles = ["slow"]

[secrets.slow]
backend = "mint"
path = "slow"
ttl = "10m"

[servers.gh]
command = ["true"]
env.A = "{a}"
env.B = "{slow.password}"
"""

SLOWLY: Final = 1.5
"""Seconds that a mint takes here, in which an admin's word comes."""


@pytest.fixture
def broker(place: Path, source: minting.Source) -> Iterator[RunningBroker]:
    """Run a broker with one server, whose first secret is static and whose second takes time."""
    del source
    packages = [minting.install(place / "packages")]
    with start(place, config=CONFIG, secrets={"a": "a made-up value"}, packages=packages) as running:
        yield running


@contextmanager
def locked(broker: RunningBroker) -> Iterator[None]:
    """Let nothing be written to ``state.db``; a commit that waits for it fails."""
    with closing(sqlite3.connect(broker.places.state / "state.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def in_trouble(broker: RunningBroker) -> bool:
    """Return whether the broker says that it cannot write its leases."""
    return any("state.db" in each["text"] for each in broker.admin("status")["problems"])


def intended(broker: RunningBroker) -> int:
    """Return how many mints are on disk as about to happen."""
    with closing(sqlite3.connect(f"file:{broker.places.state}/state.db?mode=ro", uri=True)) as connection:
        return int(connection.execute("SELECT count(*) FROM intents").fetchone()[0])


def held(broker: RunningBroker, secret: str) -> list[str]:
    """Return the accessors of all leases for a secret."""
    return [row["accessor"] for row in broker.admin("lease/list")["leases"] if row["secret"] == secret]


def outcome(puppet: Puppet) -> str:
    """Return the code of the next answer, or that something was released."""
    try:
        puppet.receive()
    except AnswerError as error:
        return error.code
    return "released"


class TestDiskThatFails:
    """A state.db that cannot be written for a while loses nothing of what happened meanwhile."""

    def test_what_was_given_back_does_not_come_back(
        self, server: Puppet, broker: RunningBroker, source: minting.Source
    ) -> None:
        """A lease released while nothing could be written has ended for the next daemon, too, and is revoked by it."""
        accessor = issue(server, "slow")
        until(lambda: accessor in rows(broker), said="the row of the lease")
        source.behave(revoke={"fail": "unavailable"})
        with locked(broker):
            server.call("lease/release", accessor=accessor)
            until(lambda: in_trouble(broker), said="a commit that failed")
        until(lambda: '"ended":true' in rows_text(broker), deadline=5, said="the row of the end")
        broker.kill()
        source.behave()
        broker.launch()
        until(lambda: revoked(source, accessor), deadline=SOON, said="the revocation")
        assert {} == leases(broker)

    @pytest.mark.parametrize("again", [False, True], ids=["refused", "acknowledged"])
    def test_who_was_barred_stays_barred(self, server: Puppet, broker: RunningBroker, *, again: bool) -> None:
        """A kill switch that could not be stored is, after a crash, as good as it was, said once or once more."""
        accessor = issue(server, "a")
        until(lambda: accessor in rows(broker), said="the row of the lease")
        with locked(broker), pytest.raises(AnswerError) as caught:
            broker.admin("server/revoke", server="gh")
        if again:
            broker.admin("server/revoke", server="gh")
        else:
            until(lambda: '"barred":true' in rows_text(broker), deadline=5, said="the row of the bar")
        broker.kill()
        broker.launch()
        server.connect(broker.places.broker_socket)
        found = (caught.value.code, refused(server, "credential/issue", secret="a"), leases(broker))
        assert ("unavailable", "denied", {accessor: "barred"}) == found


class TestWhatIsBeingMade:
    """An admin's word counts for what is under way when it is spoken."""

    def test_opening_hands_out_nothing_that_was_revoked_meanwhile(
        self, server: Puppet, broker: RunningBroker, source: minting.Source
    ) -> None:
        """A server whose first secret is revoked while its second is minted is not opened, and nothing is left out."""
        source.behave(issue={"wait": SLOWLY})
        server.send("server/open", server="gh")
        until(lambda: intended(broker), said="the mint")
        (accessor,) = held(broker, "a")
        broker.admin("lease/revoke", accessor=accessor)
        codes = [outcome(server), refused(server, "credential/issue", secret="a")]
        until(lambda: source.minted() and not source.valid(), said="the revocation of the second")
        assert (["expired", "denied"], {accessor: "barred"}) == (codes, leases(broker))

    @pytest.mark.parametrize(("method", "params"), [("credential/issue", "slow"), ("server/open", "gh")])
    def test_what_is_minted_during_a_kill_switch_is_not_released(
        self, server: Puppet, broker: RunningBroker, source: minting.Source, method: str, params: str
    ) -> None:
        """A credential that was being minted when its server was revoked goes nowhere, and its process is barred."""
        source.behave(issue={"wait": SLOWLY})
        server.send(method, **{"secret" if method == "credential/issue" else "server": params})
        until(lambda: intended(broker), said="the mint")
        broker.admin("server/revoke", server="gh")
        first = outcome(server)
        source.behave()
        codes = [first, refused(server, "credential/issue", secret="slow"), refused(server, "server/open", server="gh")]
        until(lambda: not source.valid(), said="the revocation")
        assert (["expired", "denied", "denied"], 1) == (codes, len(source.minted()))

    def test_that_bar_outlives_a_crash(self, server: Puppet, broker: RunningBroker, source: minting.Source) -> None:
        """A process that was barred from what was being minted for it is barred by the next daemon, too."""
        source.behave(issue={"wait": SLOWLY})
        server.send("credential/issue", secret="slow")
        until(lambda: intended(broker), said="the mint")
        broker.admin("server/revoke", server="gh")
        first = outcome(server)
        until(lambda: '"barred":true' in rows_text(broker), said="the row of the bar")
        broker.kill()
        broker.launch()
        server.connect(broker.places.broker_socket)
        assert ("expired", "denied") == (first, refused(server, "credential/issue", secret="slow"))

    def test_what_another_config_denies_is_not_released(
        self, server: Puppet, broker: RunningBroker, source: minting.Source
    ) -> None:
        """A credential whose grant is taken away while it is minted goes nowhere and is revoked."""
        source.behave(issue={"wait": SLOWLY})
        server.send("credential/issue", secret="slow")
        until(lambda: intended(broker), said="the mint")
        broker.write_config(CONFIG.replace('env.B = "{slow.password}"', ""))
        until(lambda: not granted(broker, "slow"), said="the other config")
        code = outcome(server)
        until(lambda: source.minted() and not source.valid(), said="the revocation")
        assert ("denied", {}) == (code, leases(broker))

    def test_another_config_that_grants_it_still_withholds_nothing(
        self, server: Puppet, broker: RunningBroker, source: minting.Source
    ) -> None:
        """A credential is released over a reload that leaves its grant alone."""
        source.behave(issue={"wait": SLOWLY})
        server.send("credential/issue", secret="slow")
        until(lambda: intended(broker), said="the mint")
        broker.write_config(CONFIG + '[servers.other]\nallow = ["a"]\n')
        until(lambda: broker.admin("status")["servers"] == 2, said="the other config")
        assert ("released", 1) == (outcome(server), len(leases(broker)))

    def test_a_request_that_fails_undoes_no_bar(
        self, server: Puppet, broker: RunningBroker, source: minting.Source
    ) -> None:
        """A process whose opening fails after a kill switch is as barred as one whose opening does not."""
        source.behave(issue={"wait": SLOWLY, "fail": "unavailable"})
        server.send("server/open", server="gh")
        until(lambda: intended(broker), said="the mint")
        (accessor,) = held(broker, "a")
        broker.admin("server/revoke", server="gh")
        codes = [outcome(server), refused(server, "credential/issue", secret="a")]
        assert (["unavailable", "denied"], {accessor: "barred"}) == (codes, leases(broker))


def granted(broker: RunningBroker, secret: str) -> bool:
    """Return whether this process would get a secret."""
    return bool(broker.admin("explain", secret=secret)["allowed"])


class TestWithoutProcess:
    """What hangs on its time alone is taken from who asked for it."""

    @pytest.mark.parametrize("secret", ["a", "slow"])
    @pytest.mark.parametrize("how", ["server", "lease"])
    def test_who_asked_gets_it_no_more(
        self, server: Puppet, broker: RunningBroker, source: minting.Source, how: str, secret: str
    ) -> None:
        """After a revocation the same process is refused on the same connection and on another, bound or not."""
        accessor = issue(server, secret, bind="none", ttl=60)
        broker.admin("server/revoke", server="gh") if how == "server" else broker.admin(
            "lease/revoke", accessor=accessor
        )
        server.connect(broker.places.broker_socket, "another")
        ways: list[dict[str, Any]] = [{"bind": "none", "ttl": 60}, {}, {"fresh": True}, {"connection": "another"}]
        codes = [refused(server, "credential/issue", secret=secret, **way) for way in ways]
        codes.append(refused(server, "lease/renew", accessor=accessor))
        until(lambda: not source.valid(), deadline=SOON, said="the revocation")
        assert ["denied"] * 5 == codes

    @pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL], ids=["restart", "crash"])
    def test_that_bar_outlives_the_broker(self, server: Puppet, broker: RunningBroker, end: signal.Signals) -> None:
        """The process that asked is refused by the next daemon, too, whichever way the last one ended."""
        issue(server, "slow", bind="none", ttl=60)
        broker.admin("server/revoke", server="gh")
        broker.signal(end)
        broker.wait()
        broker.launch()
        server.connect(broker.places.broker_socket)
        assert "denied" == refused(server, "credential/issue", secret="slow", bind="none", ttl=60)

    def test_who_has_ended_is_not_remembered(self, server: Puppet, broker: RunningBroker) -> None:
        """A lease whose asker has ended is taken out when it is revoked: there is nobody to bar."""
        accessor = issue(server, "a", bind="none", ttl=60)
        server.kill()
        broker.admin("lease/revoke", accessor=accessor)
        assert {} == leases(broker)
