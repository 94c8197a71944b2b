"""
Bad input in the HTTP dialect, against a broker that runs.

Each thing is answered with a status and a stable code, or with a closed
connection, and while it goes on somebody else gets a credential.
"""

import time
from collections.abc import Iterator
from typing import Final

import pytest

from tests import running
from tests.api.wire import GET, WHOAMI, Response, Wire, bystander

LIMIT: Final = 65536
CONFIG: Final = f"""
[servers.gh]
command = ["true"]
env.GITHUB_TOKEN = "{{github}}"

[limits]
requests_per_second = 0
message_bytes = {LIMIT}
"""

ISSUE: Final = "POST /v1/secrets/github/issue"
DEEP: Final = 10000


def http(first: str, *headers: str, body: bytes | None = None) -> bytes:
    """Return a request with the headers that belong to it, and those that are given."""
    lines = [f"{first} HTTP/1.1", "Host: broker", *headers]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("utf-8") + (body or b"")


REFUSED: Final[dict[str, tuple[bytes, int]]] = {
    "no JSON": (http(ISSUE, body=b"{nonsense}"), 400),
    "white space": (http(ISSUE, body=b" \n"), 400),
    "not UTF-8": (http(ISSUE, body=b'{"ttl":"\xff"}'), 400),
    "a list": (http(ISSUE, body=b"[]"), 400),
    "null": (http(ISSUE, body=b"null"), 400),
    "two objects": (http(ISSUE, body=b"{}{}"), 400),
    "nested lists": (http(ISSUE, body=b'{"ttl":' + b"[" * DEEP + b"]" * DEEP + b"}"), 400),
    "nested objects": (http(ISSUE, body=b'{"a":' * DEEP + b"1" + b"}" * DEEP), 400),
    "a wrong type": (http(ISSUE, body=b'{"fresh":"yes"}'), 400),
    "an unknown parameter": (http(ISSUE, body=b'{"sudo":true}'), 400),
    "what stands in the path": (http(ISSUE, body=b'{"secret":"other"}'), 400),
    "a query for a POST": (http(ISSUE + "?ttl=1m"), 400),
    "a body for a GET": (http("GET /v1/whoami", body=b"{}"), 400),
    "an unknown parameter in a query": (http("GET /v1/whoami?sudo=1"), 400),
    "a parameter twice in a query": (http("GET /v1/whoami?a=1&a=2"), 400),
    "a name with a slash in it": (http("POST /v1/secrets/a%2Fb/issue"), 400),
    "a name with a NUL": (http("POST /v1/secrets/a%00/issue"), 400),
    "a name with a final newline": (http("POST /v1/secrets/github%0A/issue"), 400),
    "a name that is not UTF-8": (http("POST /v1/secrets/%ff%fe/issue"), 400),
    "a broken escape": (http("POST /v1/secrets/%zz/issue"), 400),
    "a name of 129 characters": (http(f"POST /v1/secrets/{'a' * 129}/issue"), 400),
    "no ttl and no process": (http(ISSUE, body=b'{"bind":"none"}'), 400),
    "a browser": (http("GET /v1/whoami", "Origin: https://example.com"), 403),
    "a web page whose name leads here": (GET.replace(b"broker", b"evil.example:8080"), 403),
    "a name that only begins like ours": (GET.replace(b"broker", b"localhost.evil.example"), 403),
    "an address of ours with more behind it": (GET.replace(b"broker", b"127.0.0.1.evil.example:80"), 403),
    "an address of another host": (GET.replace(b"broker", b"192.0.2.1"), 403),
    "a host that is none": (GET.replace(b"broker", b"[::1"), 403),
    "a browser's other word": (http("GET /v1/whoami", "Sec-Fetch-Site: cross-site"), 403),
    "nothing there": (http("GET /"), 404),
    "nothing there either": (http("GET /v1/secrets//issue"), 404),
    "an admin's path": (http("GET /v1/admin/status"), 404),
    "a final slash": (http("GET /v1/whoami/"), 404),
    "a way around": (http("GET /v1/../v1/whoami"), 404),
    "a hundred parts": (http("GET " + "/v1" * 100), 404),
    "an asterisk": (http("OPTIONS *"), 404),
    "a proxy": (http("CONNECT broker:80"), 404),
    "a wrong method": (http("GET /v1/secrets/github/issue"), 405),
    "a rare method": (http("PROPFIND /v1/whoami"), 405),
    "TRACE": (http("TRACE /v1/whoami"), 405),
    "a long body that says so": (http(ISSUE, f"Content-Length: {LIMIT + 1}"), 413),
    "the longest body ever": (http(ISSUE, f"Content-Length: {1 << 62}"), 413),
    "a form": (http(ISSUE, "Content-Type: multipart/form-data", body=b"{}"), 415),
    "plain text": (http(ISSUE, "Content-Type: text/plain", body=b"{}"), 415),
    "a compressed body": (http(ISSUE, "Content-Encoding: gzip", body=b"\x1f\x8b"), 415),
    "an odd expectation": (http(ISSUE, "Expect: miracles", body=b"{}"), 417),
}

UNREADABLE: Final[dict[str, bytes]] = {
    "two lengths": http(ISSUE, "Content-Length: 2", body=b"{} GET /v1/whoami HTTP/1.1\r\n\r\n"),
    "two lengths in one": http(ISSUE, "Content-Length: 2, 30") + b"{}",
    "a length and chunks": http(ISSUE, "Transfer-Encoding: chunked", body=b"0\r\n\r\n" + GET),
    "chunks of another kind": http(ISSUE, "Transfer-Encoding: xchunked") + b"0\r\n\r\n",
    "chunks that are garbage": http(ISSUE, "Transfer-Encoding: chunked") + b"zz\r\n{}\r\n0\r\n\r\n",
    "a negative chunk": http(ISSUE, "Transfer-Encoding: chunked") + b"-2\r\n{}\r\n0\r\n\r\n",
    "a chunk with a tail": http(ISSUE, "Transfer-Encoding: chunked") + b"2\r\n{}XX0\r\n\r\n",
    "a huge chunk": http(ISSUE, "Transfer-Encoding: chunked") + b"f" * 40 + b"\r\n{}\r\n",
    "a negative length": http(ISSUE, "Content-Length: -1") + b"{}",
    "a length with a sign": http(ISSUE, "Content-Length: +2") + b"{}",
    "a length in hexadecimal": http(ISSUE, "Content-Length: 0x2") + b"{}",
    "a length of 40 digits": http(ISSUE, "Content-Length: " + "9" * 40),
    "a header with a space": http("GET /v1/whoami", "X Y: 1"),
    "a header without a name": http("GET /v1/whoami", ": 1"),
    "a header without a colon": http("GET /v1/whoami", "nonsense"),
    "a header with a NUL": http("GET /v1/whoami", "X: a\0b"),
    "a folded header": http("GET /v1/whoami", "X: a", " b"),
    "a space before the colon": http(ISSUE, "Content-Length : 2") + b"{}",
    "a header of 100 kB": http("GET /v1/whoami", "X: " + "a" * 100_000),
    "a thousand headers": http("GET /v1/whoami", *(f"X-{n}: 1" for n in range(1000))),
    "a path of 100 kB": http("GET /" + "a" * 100_000),
    "two hosts": http("GET /v1/whoami", "Host: other"),
    "a version that is none": b"GET /v1/whoami HTTP/9.9\r\n\r\n",
    "a version from long ago": b"GET /v1/whoami\r\n\r\n",
    "a version to come": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a method that is none": b"G@T /v1/whoami HTTP/1.1\r\n\r\n",
    "a path with a NUL": b"GET /v1/\0whoami HTTP/1.1\r\n\r\n",
    "lines": b"A\n" + WHOAMI,
}


@pytest.fixture(scope="module")
def broker() -> Iterator[running.RunningBroker]:
    """Give a broker that takes bodies of 64 kB."""
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


def said(wire: Wire) -> Response:
    """Return the next response, which must be there."""
    response = wire.response()
    assert response is not None
    return response


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_request_gets_its_status_and_code(wire: Wire, case: str) -> None:
    """What cannot be done is answered with the status of its kind and a stable code, as JSON that no cache keeps."""
    sent, status = REFUSED[case]
    wire.send(sent)
    response = said(wire)
    code = "denied" if status == 403 else "invalid_request"
    kind = (response.headers["content-type"], response.headers["cache-control"])
    assert (status, code, ("application/json", "no-store")) == (response.status, response.code, kind)


@pytest.mark.parametrize("case", [case for case, (_, status) in REFUSED.items() if status in {400, 403, 404, 405}])
def test_after_a_bad_request_the_connection_goes_on(wire: Wire, case: str) -> None:
    """What was framed as HTTP has it ends where its headers say, so the next request is answered."""
    wire.send(REFUSED[case][0])
    said(wire)
    wire.send(GET)
    assert 200 == said(wire).status


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_is_not_http_ends_the_connection(wire: Wire, case: str) -> None:
    """What could be read in two ways is answered once, with 400, and nothing behind it is taken for a request."""
    wire.send(UNREADABLE[case] + GET + GET)
    response = said(wire)
    assert (400, "invalid_request", b"") == (response.status, response.code, wire.everything())


def test_no_error_says_what_was_sent(wire: Wire, broker: running.RunningBroker) -> None:
    """Neither an answer nor the log quotes a request that could not be read: it may hold a value."""
    wire.send(http(ISSUE, "Content-Length: hunter2", body=b"hunter2"))
    assert ["hunter2" in text for text in (wire.everything().decode(), broker.log)] == [False, False]


def test_a_wrong_method_hears_the_right_ones(wire: Wire) -> None:
    """405 comes with the methods that the path has."""
    wire.send(http("GET /v1/secrets/github/issue"))
    assert "POST" == said(wire).headers["allow"]


def test_the_answer_to_head_has_no_body(wire: Wire) -> None:
    """HEAD is for no path here, and what refuses it has no body that the next answer could be mistaken for."""
    wire.send(http("HEAD /v1/whoami") + GET)
    first, *rest = wire.socket.recv(1 << 16).split(b"\r\n\r\n")
    assert [True, True] == [first.startswith(b"HTTP/1.1 405 "), rest[0].startswith(b"HTTP/1.1 200 ") or rest == [b""]]


def test_a_long_body_in_chunks_is_refused(wire: Wire) -> None:
    """A body that grows over the limit is refused though no header announced it."""
    chunk = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
    wire.send(http(ISSUE, "Transfer-Encoding: chunked") + chunk * 3 + b"0\r\n\r\n")
    response = said(wire)
    assert (413, "invalid_request") == (response.status, response.code)


def test_a_body_as_long_as_the_limit_is_read(wire: Wire) -> None:
    """The limit is the longest body."""
    wire.send(http(ISSUE, body=b'{"ttl":"1m"}'.ljust(LIMIT)))
    assert 200 == said(wire).status


def test_chunks_are_put_together(wire: Wire) -> None:
    """A body in chunks is read as a whole."""
    wire.send(http(ISSUE, "Transfer-Encoding: chunked") + b'3\r\n{"t\r\n9\r\ntl":"1m"}\r\n0\r\n\r\n')
    assert 200 == said(wire).status


def test_whoever_asks_first_is_told_to_go_on(wire: Wire) -> None:
    """``Expect: 100-continue`` gets its 100, and then the answer."""
    body = b'{"ttl":"1m"}'
    wire.send(http(ISSUE, "Expect: 100-continue", f"Content-Length: {len(body)}"))
    asked = said(wire).status
    wire.send(body)
    assert (100, 200) == (asked, said(wire).status)


def test_one_byte_at_a_time_is_as_good_as_all_at_once(wire: Wire) -> None:
    """A request that comes in pieces is answered when it is whole."""
    request = http(ISSUE, body=b'{"ttl":"1m"}')
    for position in range(len(request)):
        wire.send(request[position : position + 1])
    assert 200 == said(wire).status


def test_requests_in_a_row_are_answered_in_a_row(wire: Wire) -> None:
    """A hundred requests that were sent before the first answer are all answered, each in its turn."""
    wire.send((GET + http("GET /nowhere")) * 50)
    assert [200, 404] * 50 == [said(wire).status for _ in range(100)]


def test_who_has_said_all_still_gets_the_answer(wire: Wire) -> None:
    """After a half-close every answer arrives, and then the connection ends."""
    wire.send(http(ISSUE, body=b"{}") * 5)
    wire.end()
    assert ([200] * 5, b"") == ([said(wire).status for _ in range(5)], wire.everything())


@pytest.mark.parametrize("part", [GET[:10], http(ISSUE, "Content-Length: 10") + b"{"], ids=["head", "body"])
def test_half_a_request_before_a_half_close_is_dropped(wire: Wire, part: bytes) -> None:
    """What is no request when nothing more can come is not answered."""
    wire.send(part)
    wire.end()
    assert wire.hung_up()


def test_a_line_in_the_middle_of_http_ends_the_connection(wire: Wire) -> None:
    """A connection keeps the dialect that it began with."""
    wire.send(GET)
    first = said(wire).status
    wire.send(WHOAMI)
    assert (200, 400, b"") == (first, said(wire).status, wire.everything())


def test_an_upgrade_is_not_taken(wire: Wire) -> None:
    """Whoever offers another protocol gets an answer in this one, and what it says next is not looked at."""
    wire.send(http("GET /v1/whoami", "Connection: Upgrade", "Upgrade: websocket") + GET)
    assert (200, b"") == (said(wire).status, wire.everything())


def test_a_broken_body_is_refused_when_it_comes(wire: Wire) -> None:
    """A body that turns out to be badly framed when its head has been read already is refused at once."""
    wire.send(http(ISSUE, "Transfer-Encoding: chunked") + b"2\r\n{")
    time.sleep(0.2)
    wire.send(b"}XX")
    assert (400, b"") == (said(wire).status, wire.everything())


@pytest.mark.parametrize("version", [b"", b" HTTP/2.0"])
def test_no_other_version_is_answered(wire: Wire, version: bytes) -> None:
    """A request in another version gets the end of the connection: an answer has another form there, or none."""
    wire.send(b"GET /v1/whoami%b\r\n\r\n" % version)
    assert wire.hung_up()


def test_http_1_0_is_answered_once(wire: Wire) -> None:
    """An old client gets its answer and the end of the connection."""
    wire.send(b"GET /v1/whoami HTTP/1.0\r\n\r\n")
    assert (200, b"") == (said(wire).status, wire.everything())


def test_http_1_0_may_stay_too(wire: Wire) -> None:
    """An old client that asks for it gets its next answer on the same connection, and is told so."""
    wire.send(b"GET /v1/whoami HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    first = said(wire)
    wire.send(GET)
    assert (200, "keep-alive", 200) == (first.status, first.headers["connection"], said(wire).status)


def test_an_escape_means_what_it_stands_for(wire: Wire) -> None:
    """A name that is written with escapes is that name."""
    wire.send(http("POST /v1/secrets/%67ithub/issue"))
    assert "github" == said(wire).json["secret"]


def test_a_whole_url_in_the_request_line_is_its_path(wire: Wire) -> None:
    """What a client sends to a proxy means the same here, whatever host it names."""
    wire.send(http("GET http://example.com/v1/whoami"))
    assert 200 == said(wire).status


PARTS: Final = {"a part": GET[:10], "a body": http(ISSUE, "Content-Length: 9") + b"{", "one": GET, "many": GET * 50}


@pytest.mark.parametrize(
    "host", ["", "localhost", "LocalHost:8080", "mcp-broker", "broker:80", "127.0.0.1:8080", "127.1.2.3", "[::1]:8080"]
)
def test_a_host_that_can_only_be_this_one_is_served(wire: Wire, host: str) -> None:
    """Whatever a client that was given a socket writes for the host, it is answered."""
    wire.send(GET.replace(b"broker", host.encode()))
    assert 200 == said(wire).status


def test_who_names_no_host_is_served(wire: Wire) -> None:
    """HTTP/1.0 knows no ``Host``, and no browser speaks it."""
    wire.send(b"GET /v1/whoami HTTP/1.0\r\n\r\n")
    assert 200 == said(wire).status


@pytest.mark.parametrize("case", PARTS)
def test_who_hangs_up_leaves_nothing_behind(broker: running.RunningBroker, case: str) -> None:
    """Two hundred connections that end in the middle of anything are all let go, and none is an error in the log."""
    for _ in range(200):
        with Wire(broker.places.broker_socket) as gone:
            gone.send(PARTS[case])
    running.until(lambda: broker.admin("status")["connections"] <= 2, said="the end of the connections")
    assert [] == [line for line in broker.log.splitlines() if "failed" in line]
