"""The client of the commands: one connection, deadlines, and errors by their code."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker import errors
from broker.client import ADMIN, Client
from tests.fakes.wire_broker import Refuse, WireBroker


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[WireBroker]:
    """Return a broker that says what it is told to."""
    with WireBroker(tmp_path / "b") as listening:
        yield listening


def client(fake: WireBroker, **options: Any) -> Client:  # noqa: ANN401 - the client's own
    """Connect to it."""
    return Client(("--dir", str(fake.directory)), **options)


def subclasses(kind: type[errors.BrokerError]) -> list[type[errors.BrokerError]]:
    """Return a class and all that are made from it."""
    return [kind, *(one for each in kind.__subclasses__() for one in subclasses(each))]


def test_a_result_is_returned_and_parameters_that_are_none_are_not_sent(fake: WireBroker) -> None:
    """The call's parameters arrive as they are, without those that say nothing."""
    fake.verbs["lease/list"] = lambda _: {"leases": []}
    with client(fake) as connected:
        assert {"leases": []} == connected.call("lease/list", server="ä", secret=None)
    assert [{"server": "ä"}] == fake.asked("lease/list")


@pytest.mark.parametrize("code", errors.MEANINGS)
def test_each_code_becomes_an_error_of_that_code(fake: WireBroker, code: str) -> None:
    """Message and hint are the broker's, and so is the code."""

    def refuse(_: dict[str, Any]) -> None:
        raise Refuse(code, message="so it is", hint="do this")

    fake.verbs["status"] = refuse
    with client(fake) as connected, pytest.raises(errors.BrokerError) as caught:
        connected.call("status")
    assert (code, "so it is", "do this") == (caught.value.code, caught.value.message, caught.value.hint)


def test_an_unknown_code_is_internal(fake: WireBroker) -> None:
    """A code of a newer broker is an error all the same."""

    def refuse(_: dict[str, Any]) -> None:
        raise Refuse(code="unheard_of")

    fake.verbs["status"] = refuse
    with client(fake) as connected, pytest.raises(errors.BrokerError) as caught:
        connected.call("status")
    assert "internal" == caught.value.code


def test_the_broker_says_who_it_is_when_it_is_connected_to(fake: WireBroker) -> None:
    """The answer to whoami is there from the beginning."""
    with client(fake, socket=ADMIN) as connected:
        said = {"version": "0.1.0", "mode": "user"}
        assert (said, str(fake.directory / "run/admin.sock")) == (connected.broker, connected.path)


def test_an_answer_has_a_deadline(fake: WireBroker) -> None:
    """A broker that falls silent later is given up after the time that the call allows."""
    with client(fake) as connected:
        fake.mute = True
        begun = time.monotonic()
        with pytest.raises(errors.UnavailableError) as caught:
            connected.call("status", within=0.2)
    assert ("did not answer in time" in caught.value.message, time.monotonic() - begun < 5) == (True, True)


def test_a_missing_broker_is_unavailable_and_not_waited_for_long(tmp_path: Path) -> None:
    """Where nobody listens that is said within a second or so."""
    with pytest.raises(errors.UnavailableError) as caught:
        Client(("--dir", str(tmp_path)))
    assert caught.value.hint == f"mcp-broker init --dir {tmp_path}"


def test_a_path_that_is_too_long_is_said(tmp_path: Path) -> None:
    """A socket cannot have a path of more than a hundred bytes or so."""
    with pytest.raises(errors.ConfigError) as caught:
        Client(("--dir", str(tmp_path / ("x" * 120))))
    assert "longer than the system allows" in caught.value.message


def test_notifications_are_kept_for_who_watches(fake: WireBroker) -> None:
    """What is told between two answers is not lost, and what is none is passed over."""
    changed = b'{"jsonrpc":"2.0","method":"lease/changed","params":{"accessor":"a","reason":"revoked"}}\n'
    fake.verbs["lease/watch"] = lambda _: {"leases": []}
    fake.verbs["status"] = lambda _: {}
    with client(fake) as connected:
        fake.before = [changed, b'{"method":"other"}\n', b'{"method":"lease/changed"}\n']
        connected.call("status")
        fake.before = []
        assert [{"accessor": "a", "reason": "revoked"}] == list(connected.watch(within=0.2))


def test_watching_ends_with_an_error_where_the_broker_has_gone(fake: WireBroker) -> None:
    """The end of the connection is not taken for silence."""
    fake.verbs["lease/watch"] = lambda _: {"leases": []}
    with client(fake) as connected:
        threading.Timer(0.2, fake.drop).start()
        with pytest.raises(errors.UnavailableError):
            list(connected.watch(within=20))


@pytest.mark.parametrize("option", ["broker.sock", "admin.sock"])
def test_either_socket_names_the_broker(fake: WireBroker, option: str) -> None:
    """--socket with one of the two finds the other beside it."""
    with Client(("--socket", str(fake.directory / "run" / option)), socket=ADMIN) as connected:
        assert connected.path.endswith("/run/admin.sock")


def test_every_code_has_a_class_and_every_class_a_code() -> None:
    """The table of meanings and the classes of errors name the same codes."""
    assert set(errors.MEANINGS) == {each.code for each in subclasses(errors.BrokerError)}
