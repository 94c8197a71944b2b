"""
Clients that stop: in the middle of a request, before one, or when it is their turn to read.

The broker here waits for one second where another waits for thirty, and looks
once a second. While it goes on somebody else gets a credential.
"""

import time
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from tests import running
from tests.api.wire import GET, WHOAMI, Wire, bystander

PATIENCE: Final = 1.0
LONGER: Final = 3.5
"""Seconds: the broker's patience, twice the time between two of its looks, and some."""

CONFIG: Final = running.ONE_SERVER + "[limits]\nrequests_per_second = 0\n"

WATCH: Final = b"GET /v1/leases/watch HTTP/1.1\r\nHost: broker\r\n\r\n"
ISSUE: Final = b"POST /v1/secrets/github/issue HTTP/1.1\r\nHost: broker\r\n"
TAKE: Final = WHOAMI.replace(b"whoami", b"credential/issue").replace(b"}", b',"params":{"secret":"github"}}')
SUBSCRIBE: Final = WHOAMI.replace(b"whoami", b"lease/watch")

PARTS: Final = {
    "nothing": b"",
    "half a line": WHOAMI[:-4],
    "half a line after a whole one": WHOAMI + WHOAMI[:-4],
    "half a head": GET[:-2],
    "half a body": ISSUE + b"Content-Length: 10\r\n\r\n{",
    "half a chunk": ISSUE + b"Transfer-Encoding: chunked\r\n\r\n9\r\n{",
    "a body that was to be asked for": ISSUE + b"Content-Length: 10\r\nExpect: 100-continue\r\n\r\n",
}


@pytest.fixture(scope="module")
def broker() -> Iterator[running.RunningBroker]:
    """Give a broker that soon loses its patience."""
    held = {"github": "made up"}
    with (
        running.room() as directory,
        running.start(directory, config=CONFIG, secrets=held, stalled_after=PATIENCE) as started,
    ):
        yield started


@pytest.fixture(autouse=True)
def _nobody_notices(broker: running.RunningBroker) -> Iterator[None]:
    with bystander(broker):
        yield


@pytest.fixture
def wire(broker: running.RunningBroker) -> Iterator[Wire]:
    """Give a connection to ``broker.sock``."""
    with Wire(broker.places.broker_socket) as connected:
        yield connected


@pytest.mark.parametrize("part", PARTS)
def test_who_stops_in_the_middle_is_hung_up_on(wire: Wire, part: str) -> None:
    """A request that does not go on is not waited for, nor answered."""
    wire.send(PARTS[part])
    assert PARTS[part].count(b"}\n") == wire.everything().count(b"result")


def test_who_stops_in_the_middle_of_the_next_askedis_hung_up_on(wire: Wire) -> None:
    """That one request was answered buys the next one no patience."""
    assert http_answered(wire)
    wire.send(GET[:-2])
    assert wire.hung_up()


@pytest.mark.parametrize("asked", [WHOAMI, GET, ISSUE + b"Content-Length: 400\r\n\r\n"], ids=["line", "head", "body"])
def test_who_sends_a_byte_now_and_then_is_hung_up_on(wire: Wire, asked: bytes) -> None:
    """What counts is when the request began, not when the last of its bytes came."""
    wire.socket.settimeout(0.25)
    hung_up = False
    for byte in asked[:-1] + b" " * 300:
        wire.send(bytes([byte]))
        try:
            hung_up = wire.hung_up()
        except TimeoutError:
            continue
        break
    assert hung_up


@pytest.mark.parametrize("asked", [WHOAMI, GET], ids=["lines", "HTTP"])
def test_who_never_reads_is_hung_up_on(wire: Wire, asked: bytes) -> None:
    """A client that asks and asks and reads no answer is closed, and gets no more than fits into its socket."""
    wire.socket.settimeout(running.DEADLINE)
    asked_for = 0
    try:
        while asked_for < 1_000_000:
            wire.socket.sendall(asked * 100)
            asked_for += 100
    except (BrokenPipeError, ConnectionResetError):
        pass
    assert asked_for < 1_000_000


def line_answered(wire: Wire) -> bool:
    """Return whether a line is still answered."""
    wire.send(WHOAMI)
    answer = wire.line()
    return answer is not None and "result" in answer


def http_answered(wire: Wire) -> bool:
    """Return whether an HTTP request is still answered."""
    wire.send(GET)
    response = wire.response()
    return response is not None and response.status == 200


@pytest.mark.parametrize("answered", [line_answered, http_answered])
def test_who_has_nothing_to_ask_may_stay(wire: Wire, answered: Callable[[Wire], bool]) -> None:
    """A connection on which nothing is owed to anybody is left alone."""
    first = answered(wire)
    time.sleep(LONGER)
    assert (True, True) == (first, answered(wire))


def test_who_watches_by_lines_may_be_silent(wire: Wire, broker: running.RunningBroker) -> None:
    """A client that only listens is told of a change long after it last said anything."""
    wire.send(
        WHOAMI.replace(b"whoami", b"credential/issue").replace(b"}", b',"params":{"secret":"github"}}') + SUBSCRIBE
    )
    assert [True, True] == [answer is not None and "result" in answer for answer in (wire.line(), wire.line())]
    time.sleep(LONGER)
    broker.admin("secret/set", name="github", values={"value": "made up"})
    told = wire.line()
    assert told is not None
    assert ("lease/changed", "rotated") == (told["method"], told["params"]["reason"])


def test_who_watches_by_http_may_be_silent(wire: Wire, broker: running.RunningBroker) -> None:
    """A stream of events goes on though its reader says nothing."""
    wire.send(WATCH)
    wire.socket.settimeout(LONGER)
    with pytest.raises(TimeoutError):
        wire.everything()
    assert broker.admin("status")["connections"] >= 2


def test_who_ends_one_line_and_begins_the_next_may_stay(wire: Wire) -> None:
    """A client whose every piece ends one request and begins the next is answered for as long as it likes."""
    end, answered = time.monotonic() + LONGER, []
    wire.send(WHOAMI[:10])
    while time.monotonic() < end:
        time.sleep(PATIENCE / 4)
        wire.send(WHOAMI[10:] + WHOAMI[:10])
        answered.append("result" in (wire.line() or {}))
    assert [True] * len(answered) == answered


def test_who_goes_on_in_time_is_answered(wire: Wire) -> None:
    """A pause that is shorter than the patience does no harm."""
    wire.send(WHOAMI[:10])
    time.sleep(PATIENCE / 4)
    wire.send(WHOAMI[10:])
    answer = wire.line()
    assert answer is not None
    assert "result" in answer
