"""
Bad input in the line dialect, against a broker that runs.

Each thing is answered with an error that has a stable code, or with a closed
connection, and while it goes on somebody else gets a credential.
"""

import json
import threading
from collections.abc import Iterator
from typing import Any, Final

import pytest

from broker.api.lines import MOST_AT_ONCE
from tests import running
from tests.api.wire import GET, WHOAMI, Wire, bystander

LIMIT: Final = 65536
CONFIG: Final = f"""
[servers.gh]
command = ["true"]
env.GITHUB_TOKEN = "{{github}}"

[limits]
requests_per_second = 0
message_bytes = {LIMIT}
"""

NO_JSON, NO_REQUEST, NO_METHOD, BAD_PARAMS = -32700, -32600, -32601, -32602
DEEP: Final = 10000


def request(params: bytes, method: bytes = b"credential/issue") -> bytes:
    """Return a request with id 1."""
    return b'{"jsonrpc":"2.0","id":1,"method":"%b","params":%b}\n' % (method, params)


def with_id(name: bytes) -> bytes:
    """Return a good request with any id."""
    return b'{"jsonrpc":"2.0","id":%b,"method":"whoami"}\n' % name


BAD: Final[dict[str, tuple[bytes, Any, int]]] = {
    "no JSON": (b"{nonsense}\n", None, NO_JSON),
    "half an object": (b'{"jsonrpc":"2.0","id":1\n', None, NO_JSON),
    "two objects": (b'{"jsonrpc":"2.0","id":1,"method":"whoami"}{}\n', None, NO_JSON),
    "not UTF-8": (b'{"jsonrpc":"2.0","id":1,"method":"\xff\xfe"}\n', None, NO_JSON),
    "half a surrogate": (b'{"jsonrpc":"2.0","id":1,"method":"\\ud800"}\n', None, NO_JSON),
    "a NUL between": (b'{"jsonrpc":"2.0",\0"id":1}\n', None, NO_JSON),
    "a batch": (b'[{"jsonrpc":"2.0","id":1,"method":"whoami"}]\n', None, NO_REQUEST),
    "a batch of nothing": (b"[]\n", None, NO_REQUEST),
    "no method": (b'{"jsonrpc":"2.0","id":1}\n', None, NO_REQUEST),
    "no version": (b'{"id":1,"method":"whoami"}\n', None, NO_REQUEST),
    "another version": (b'{"jsonrpc":"1.0","id":1,"method":"whoami"}\n', None, NO_REQUEST),
    "a number for a method": (b'{"jsonrpc":"2.0","id":1,"method":7}\n', None, NO_REQUEST),
    "an id of null": (with_id(b"null"), None, NO_REQUEST),
    "an id with a fraction": (with_id(b"1.5"), None, NO_REQUEST),
    "an id that is a list": (with_id(b"[1]"), None, NO_REQUEST),
    "an id of 5,000 digits": (with_id(b"9" * 5000), None, NO_REQUEST),
    "an unknown verb": (request(b"{}", b"secret/steal"), 1, NO_METHOD),
    "a verb with a NUL": (request(b"{}", b"who\\u0000ami"), 1, NO_METHOD),
    "an admin's verb": (request(b"{}", b"status"), 1, NO_METHOD),
    "no parameters at all": (request(b"null"), 1, BAD_PARAMS),
    "parameters in a list": (request(b'["github"]'), 1, BAD_PARAMS),
    "no secret": (request(b"{}"), 1, BAD_PARAMS),
    "an unknown parameter": (request(b'{"secret":"github","sudo":true}'), 1, BAD_PARAMS),
    "a wrong type": (request(b'{"secret":["github"]}'), 1, BAD_PARAMS),
    "a name with a path": (request(b'{"secret":"../github"}'), 1, BAD_PARAMS),
    "a name with a final newline": (request(b'{"secret":"github\\n"}'), 1, BAD_PARAMS),
    "a name of 129 characters": (request(b'{"secret":"%b"}' % (b"a" * 129)), 1, BAD_PARAMS),
    "an empty name": (request(b'{"secret":""}'), 1, BAD_PARAMS),
    "a length of time that is none": (request(b'{"secret":"github","ttl":"soon"}'), 1, BAD_PARAMS),
    "a length of time beyond all numbers": (request(b'{"secret":"github","ttl":1e999}'), 1, BAD_PARAMS),
    "a length of time of 300 digits": (request(b'{"secret":"github","ttl":%b}' % (b"9" * 300)), 1, BAD_PARAMS),
    "a negative length of time": (request(b'{"secret":"github","ttl":-1}'), 1, BAD_PARAMS),
    "a ttl of nothing": (request(b'{"secret":"github","ttl":0}'), 1, BAD_PARAMS),
    "nobody to bind to": (request(b'{"secret":"github","bind":99999999999999999999}'), 1, BAD_PARAMS),
    "pid 1 to bind to": (request(b'{"secret":"github","bind":1}'), 1, BAD_PARAMS),
    "a negative pid to bind to": (request(b'{"secret":"github","bind":-5}'), 1, BAD_PARAMS),
    "no ttl and no process": (request(b'{"secret":"github","bind":"none"}'), 1, BAD_PARAMS),
    "nested lists": (b"[" * DEEP + b"]" * DEEP + b"\n", None, NO_REQUEST),
    "nested parameters": (request(b"[" * DEEP + b"]" * DEEP), None, NO_JSON),
    "nested objects": (request(b'{"a":' * DEEP + b"1" + b"}" * DEEP), None, NO_JSON),
    "a nested id": (with_id(b"[" * DEEP + b"]" * DEEP), None, NO_REQUEST),
}


@pytest.fixture(scope="module")
def broker() -> Iterator[running.RunningBroker]:
    """Give a broker that takes lines of 64 kB."""
    with running.room() as directory, running.start(directory, config=CONFIG, secrets={"github": "made up"}) as started:
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


@pytest.mark.parametrize("case", BAD)
def test_a_bad_line_gets_its_error_and_the_next_line_its_answer(wire: Wire, case: str) -> None:
    """What cannot be done is answered with a number of JSON-RPC and a stable code, and the connection goes on."""
    said, name, number = BAD[case]
    wire.send(said + WHOAMI)
    answers = [wire.line(), wire.line()]
    by_id = {answer["id"]: answer for answer in answers if answer is not None}
    error = by_id[name]["error"]
    assert (number, "invalid_request", True) == (error["code"], error["data"]["code"], "result" in by_id["after"])


def test_no_error_says_what_was_sent(wire: Wire) -> None:
    """An error names types and fields, and quotes nothing of what might have been a value."""
    wire.send(b'{"jsonrpc":"2.0","id":1,"method":"credential/issue","params":{"secret":"hunter2 hunter2"}}\n')
    assert "hunter2" not in str(wire.line())


@pytest.mark.parametrize("name", [b"0", b"-7", b"1" + b"0" * 30, b'""', b'"%b"' % (b"x" * 10000), b'"\\u0000\xc3\xa9"'])
def test_any_whole_number_or_text_is_an_id(wire: Wire, name: bytes) -> None:
    """An id comes back as it was sent, however large."""
    wire.send(with_id(name))
    answer = wire.line()
    assert answer is not None
    assert json.loads(name) == answer["id"]


def test_a_notification_gets_no_answer(wire: Wire) -> None:
    """A message without an id is not answered, whatever it says."""
    wire.send(b'{"jsonrpc":"2.0","method":"whoami"}\n{"jsonrpc":"2.0","method":"nonsense","params":[]}\n' + WHOAMI)
    answer = wire.line()
    assert answer is not None
    assert "after" == answer["id"]


def test_empty_lines_and_carriage_returns_are_nothing(wire: Wire) -> None:
    """Empty lines are passed over, and a line may end as Windows ends it."""
    wire.send(b"\n\r\n  \n\t\n" + WHOAMI.replace(b"\n", b"\r\n"))
    answer = wire.line()
    assert answer is not None
    assert "after" == answer["id"]


def test_of_a_key_that_stands_twice_the_last_one_counts(wire: Wire) -> None:
    """There is one reader of a request, and it takes the last of two equal keys."""
    wire.send(b'{"jsonrpc":"2.0","id":1,"method":"nonsense","method":"whoami","id":2}\n')
    answer = wire.line()
    assert answer is not None
    assert (2, True) == (answer["id"], "result" in answer)


def test_a_line_as_long_as_the_limit_is_read(wire: Wire) -> None:
    """The limit is the longest line, without its end."""
    wire.send(WHOAMI[:-1].ljust(LIMIT) + b"\n")
    answer = wire.line()
    assert answer is not None
    assert "result" in answer


@pytest.mark.parametrize(
    "end", [b"\n", b"\n" + WHOAMI, b""], ids=["that ends", "with another behind", "without an end"]
)
def test_a_line_over_the_limit_ends_the_connection(wire: Wire, end: bytes) -> None:
    """A line that is too long is refused, and the connection with it: what follows could be its middle."""
    wire.send(WHOAMI[:-1].ljust(LIMIT + 1) + end)
    answer = wire.line()
    assert answer is not None
    assert (NO_REQUEST, "invalid_request", True) == (
        answer["error"]["code"],
        answer["error"]["data"]["code"],
        wire.hung_up(),
    )


@pytest.mark.parametrize("first", [b"\0", b"\x16\x03\x01", b"hello\n", b"get / http/1.1\r\n\r\n", b'"id"\n', b"\xff"])
def test_what_is_neither_dialect_is_refused(wire: Wire, first: bytes) -> None:
    """A first byte that begins neither dialect gets an error, and the connection ends."""
    wire.send(first)
    answer = wire.line()
    assert answer is not None
    assert ("invalid_request", True) == (answer["error"]["data"]["code"], wire.hung_up())


def test_one_byte_at_a_time_is_as_good_as_all_at_once(wire: Wire) -> None:
    """A request that comes in pieces is answered when it is whole."""
    for position in range(len(WHOAMI)):
        wire.send(WHOAMI[position : position + 1])
    answer = wire.line()
    assert answer is not None
    assert "result" in answer


def test_http_in_the_middle_of_lines_is_a_bad_line(wire: Wire) -> None:
    """A connection keeps the dialect that it began with."""
    wire.send(WHOAMI)
    before = wire.line()
    wire.send(GET.replace(b"\r\nHost: broker\r\n\r\n", b"\r\n"))
    between = wire.line()
    wire.send(WHOAMI)
    after = wire.line()
    assert before is not None
    assert between is not None
    assert after is not None
    assert (True, NO_JSON, True) == ("result" in before, between["error"]["code"], "result" in after)


def test_who_has_said_all_still_gets_every_answer(wire: Wire) -> None:
    """After a half-close the answers under way arrive, and then the connection ends."""
    wire.send(request(b'{"secret":"github"}') + WHOAMI * (MOST_AT_ONCE + 10))
    wire.end()
    answers = wire.everything().splitlines()
    assert [MOST_AT_ONCE + 11, True] == [len(answers), all(b'"result"' in answer for answer in answers)]


def test_half_a_line_before_a_half_close_is_dropped(wire: Wire) -> None:
    """What is no line when nothing more can come is not answered."""
    wire.send(WHOAMI[:20])
    wire.end()
    assert wire.hung_up()


def test_many_lines_at_once_are_all_answered(wire: Wire) -> None:
    """Ten thousand bad lines in one piece get ten thousand errors, and a good one behind them its answer."""
    sender = threading.Thread(target=wire.send, args=(b"{\n" * 10000 + WHOAMI,))
    sender.start()
    answers = [wire.line() for _ in range(10001)]
    sender.join()
    assert [True] * 10000 == [bool(answer and "error" in answer) for answer in answers[:-1]]
    assert answers[-1] is not None
    assert "result" in answers[-1]


@pytest.mark.parametrize("said", [b"{", WHOAMI[:-5], WHOAMI, WHOAMI * 100], ids=["a byte", "a part", "one", "many"])
def test_who_hangs_up_leaves_nothing_behind(broker: running.RunningBroker, said: bytes) -> None:
    """Two hundred connections that end in the middle of anything are all let go."""
    for _ in range(200):
        with Wire(broker.places.broker_socket) as gone:
            gone.send(said)
    running.until(lambda: broker.admin("status")["connections"] <= 2, said="the end of the connections")
