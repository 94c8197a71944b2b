"""
What backends say of themselves to an admin: what they lack, which policy they need, what could not be given back.

This module refuses to sleep: it waits for what happens.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.cli.shell import shell
from tests.fakes import minting
from tests.integration.leased import events, issue, refused, revoked
from tests.puppets import Puppet
from tests.running import AnswerError, RunningBroker, start, until

ONE: Final = """
[backends.exam]
type = "minting"
kind = "examining"
source = "../source"
roles = ["db"]
"""

CONFIG: Final = (
    ONE
    + """
[secrets.db]
backend = "exam"
path = "db"

[secrets.lacking]
backend = "exam"
path = "nowhere"
params = { ttl = "5m" }

[servers.app]
command = ["true"]
env.A = "{a-static-one}"
env.B = "{db.username}"
allow = ["later"]

[servers.more]
allow = ["lacking", "static"]
"""
)


STATIC: Final = {"a-static-one": "made up", "static": "made up", "later": "made up"}


@pytest.fixture
def broker(place: Path, source: minting.Source) -> Iterator[RunningBroker]:
    """Run a broker whose backend says what it lacks."""
    del source
    packages = [minting.install(place / "packages")]
    with start(place, config=CONFIG, secrets=STATIC, packages=packages) as running:
        yield running


def problems(broker: RunningBroker) -> list[dict[str, Any]]:
    """Return what is wrong."""
    found: list[dict[str, Any]] = broker.admin("status")["problems"]
    return found


class TestLacks:
    """Which of the configured secrets a backend would not issue."""

    def test_status_names_the_secret_and_the_mend(self, broker: RunningBroker) -> None:
        """A secret that its backend would not issue is a problem, with what mends it; one that it would is none."""
        assert [{"text": "secret 'lacking': no role 'nowhere'", "hint": "add nowhere to roles"}] == problems(broker)

    def test_explain_says_it_too(self, broker: RunningBroker) -> None:
        """What the policy allows and the backend would not issue is said, with the mend."""
        found = broker.admin("explain", server="more", secret="lacking")
        assert (True, "add nowhere to roles") == (found["allowed"], found["hint"])
        assert found["reason"].endswith(", but no role 'nowhere'")

    @pytest.mark.parametrize("how", [{"hang": True}, {"fail": "unexpected"}, {"fail": "unavailable"}], ids=str)
    def test_a_backend_that_does_not_say_hides_nothing(
        self, broker: RunningBroker, source: minting.Source, how: dict[str, Any]
    ) -> None:
        """Where the examination hangs or fails, status comes all the same, in the time of one wait."""
        source.behave(examine=how)
        assert ([], ["exam", "local"]) == (
            problems(broker),
            sorted(each["name"] for each in broker.admin("status")["backends"]),
        )

    def test_the_facts_of_a_backend_stand_in_status(self, broker: RunningBroker, place: Path) -> None:
        """What else a backend says of itself is shown to programs and to people."""
        facts = {each["name"]: each["facts"] for each in broker.admin("status")["backends"]}
        text = shell("status", "--dir", str(place)).out
        assert ({"directory": "source"}, True) == (facts["exam"], "\nbackend exam\n  directory  source\n" in text)


class TestPolicy:
    """The policy that the config needs at a backend."""

    WANTED: Final = 'role db {}\nrole nowhere {"ttl": "5m"}\n'

    @pytest.mark.parametrize("words", [[], ["exam"]], ids=["the only one", "by name"])
    def test_it_is_printed_as_it_is(self, broker: RunningBroker, place: Path, words: list[str]) -> None:
        """The policy for all secrets of a backend comes out, and nothing else, ready to be piped on."""
        assert broker.pid
        done = shell("vault", "policy", *words, "--dir", str(place))
        assert (0, self.WANTED, "") == (done.status, done.out, done.err)

    def test_programs_get_it_with_its_backend(self, broker: RunningBroker, place: Path) -> None:
        """With --json the backend is named, and the secrets are counted."""
        assert broker.pid
        expected = {"backend": "exam", "policy": self.WANTED, "secrets": 2}
        assert expected == shell("vault", "policy", "--json", "--dir", str(place)).json

    @pytest.mark.parametrize(
        ("name", "message", "hint"),
        [
            ("exma", "no backend is called 'exma'", "did you mean 'exam'? mcp-broker vault policy exam"),
            ("local", "backend 'local' has no policies", "mcp-broker vault policy exam"),
        ],
    )
    def test_another_backend_is_a_mistake(self, broker: RunningBroker, name: str, message: str, hint: str) -> None:
        """A backend that is not there, or has no policies, is a mistake that names one that has."""
        with pytest.raises(AnswerError) as caught:
            broker.admin("backend/policy", backend=name)
        assert ("invalid_request", message, hint) == (caught.value.code, caught.value.message, caught.value.hint)

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            ("", "no backend has policies"),
            (ONE + ONE.replace("exam", "other", 1), "several backends have policies"),
        ],
        ids=["none", "two"],
    )
    def test_without_a_name_it_must_be_the_only_one(self, place: Path, config: str, message: str) -> None:
        """Where none or several backends have policies and none is named, that is said."""
        with start(place, config=config, packages=[minting.install(place / "packages")]) as running:
            with pytest.raises(AnswerError) as caught:
                running.admin("backend/policy")
            assert (message, True) == (caught.value.message, bool(caught.value.hint))

    def test_a_backend_that_hangs_is_unavailable(self, broker: RunningBroker, source: minting.Source) -> None:
        """A backend that cannot say its policy now is an error, not an empty policy."""
        source.behave(examine={"fail": "unavailable"})
        with pytest.raises(AnswerError) as caught:
            broker.admin("backend/policy")
        assert "unavailable" == caught.value.code


class TestGivingBack:
    """What could not be given back yet, and the login itself."""

    def test_what_has_ended_is_listed_until_it_is_given_back(
        self, server: Puppet, broker: RunningBroker, source: minting.Source, place: Path
    ) -> None:
        """A lease whose revocation fails is in the list of all, and gone from it when it is revoked."""
        source.behave(revoke={"fail": "unavailable"})
        accessor = issue(server, "db")
        server.call("lease/release", accessor=accessor)
        until(lambda: events(broker, "lease/not-given-back"), said="the failure")
        listed = [(row["accessor"], row["state"]) for row in broker.admin("lease/list", all=True)["leases"]]
        text = shell("lease", "list", "--all", "--dir", str(place)).out
        assert ([(accessor, "ended")], [], True) == (listed, broker.admin("lease/list")["leases"], accessor in text)
        source.behave()
        until(lambda: revoked(source, accessor), said="the revocation")
        until(lambda: not broker.admin("lease/list", all=True)["leases"], said="an empty list")

    @pytest.mark.parametrize("revoke", [True, False])
    def test_a_login_is_given_back_with_the_leases(
        self, server: Puppet, broker: RunningBroker, source: minting.Source, *, revoke: bool
    ) -> None:
        """A broker that stops and revokes logs out after its leases are given back; one that just stops does not."""
        accessor = issue(server, "db")
        broker.admin("stop", revoke=revoke)
        broker.wait()
        assert (int(revoke), revoke) == (source.count("logged-out"), revoked(source, accessor))


class TestKillSwitch:
    """A server that is revoked while it is opened."""

    def test_what_it_had_not_reached_is_denied_to_it_as_well(
        self, server: Puppet, stage: Puppet, broker: RunningBroker, source: minting.Source
    ) -> None:
        """A process whose server was revoked gets nothing of that server any more, whatever it asks; another does."""
        source.behave(issue={"wait": 1.0})
        server.send("server/open", server="app")
        until(lambda: broker.admin("status")["leases"] or events(broker, "credential/authorised"), said="a lease")
        broker.admin("server/revoke", server="app")
        with pytest.raises(AnswerError) as caught:
            server.receive()
        source.behave()
        codes = [refused(server, "credential/issue", secret=secret) for secret in ("later", "db", "a-static-one")]
        other = stage.fork()
        other.connect(broker.places.broker_socket)
        assert ("expired", ["denied"] * 3, True) == (caught.value.code, codes, bool(issue(other, "later")))
