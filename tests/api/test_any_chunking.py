"""
However what is said is cut into pieces on its way, the answers are the same.
"""

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.in_process import Broker
from tests.fuzz.promises import answers, responses

IDS: Final = st.one_of(st.integers(), st.text(max_size=20))
METHODS: Final = st.sampled_from(["whoami", "credential/issue", "lease/renew", "lease/watch", "status", ""])
PARAMS: Final[st.SearchStrategy[Any]] = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"secret": st.sampled_from(["github", "other", ""])}),
    st.fixed_dictionaries({"accessor": st.text(max_size=10)}),
    st.lists(st.integers(), max_size=3),
    st.none(),
)
MESSAGES: Final = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0"), "method": METHODS}, optional={"id": IDS, "params": PARAMS}
).map(lambda message: json.dumps(message).encode())
LINES: Final = st.one_of(MESSAGES, st.binary(max_size=40).filter(lambda line: b"\n" not in line), st.just(b""))
SAID: Final = st.lists(LINES, min_size=1, max_size=40).map(lambda lines: b"{}\n" + b"\n".join(lines) + b"\n")
CUTS: Final = st.lists(st.integers(min_value=0, max_value=1 << 16), max_size=20)

REQUESTS: Final = st.lists(
    st.sampled_from(
        [
            b"GET /v1/whoami HTTP/1.1\r\nHost: broker\r\n\r\n",
            b"GET /nowhere HTTP/1.1\r\nHost: broker\r\n\r\n",
            b'POST /v1/secrets/github/issue HTTP/1.1\r\nHost: broker\r\nContent-Length: 12\r\n\r\n{"ttl":"1m"}',
            b"POST /v1/leases/a/renew HTTP/1.1\r\nHost: broker\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"DELETE /v1/leases/abc HTTP/1.1\r\nHost: broker\r\n\r\n",
        ]
    ),
    min_size=1,
    max_size=12,
).map(b"".join)

OFTEN: Final = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    """Give a broker that has no disk."""
    made = Broker()
    yield made
    made.close()


def cut(said: bytes, cuts: list[int]) -> list[bytes]:
    """Return the same bytes in pieces."""
    places = sorted({0, len(said), *(place % len(said) for place in cuts)})
    return [said[begin:end] for begin, end in pairwise(places)]


@OFTEN
@given(said=SAID, cuts=CUTS, ends=st.booleans())
def test_lines_in_any_pieces_get_the_same_answers(broker: Broker, said: bytes, cuts: list[int], ends: bool) -> None:  # noqa: FBT001
    """Each line has its answer, whichever pieces it came in."""
    whole, pieces = (answers(broker.hears(chunks, ends=ends)) for chunks in ([said], cut(said, cuts)))
    assert sorted(map(str, whole)) == sorted(map(str, pieces))


@OFTEN
@given(messages=st.lists(MESSAGES, max_size=60), cuts=CUTS)
def test_every_request_is_answered_once(broker: Broker, messages: list[bytes], cuts: list[int]) -> None:
    """As many answers come back as requests with an id were sent, each with its id."""
    said = b"".join(message + b"\n" for message in messages) or b"\n"
    wanted = [json.loads(message)["id"] for message in messages if "id" in json.loads(message)]
    found = [answer["id"] for answer in answers(broker.hears(cut(said, cuts), ends=True)) if "method" not in answer]
    assert sorted(map(repr, wanted)) == sorted(map(repr, found))


@OFTEN
@given(said=REQUESTS, cuts=CUTS, ends=st.booleans())
def test_http_in_any_pieces_gets_the_same_answers(broker: Broker, said: bytes, cuts: list[int], ends: bool) -> None:  # noqa: FBT001
    """Each request has its answer, in its turn, whichever pieces it came in."""
    whole, pieces = (responses(broker.hears(chunks, ends=ends)) for chunks in ([said], cut(said, cuts)))
    assert whole == pieces
