"""
Parameters from a path, a query and a body: what is put together, and what is refused.
"""

import json
from typing import Any, Final

import pytest

from broker.api import messages as m
from broker.api.audit_messages import AuditRead
from broker.api.http_reading import not_texts, parameters, refuse_browsers
from broker.errors import DeniedError, RequestError

SPELLED: Final = frozenset({"pid", "last"})

READ: Final[dict[str, tuple[str, dict[str, str], list[tuple[str, str]], bytes, Any]]] = {
    "nothing": ("GET", {}, [], b"", {}),
    "a path": ("DELETE", {"accessor": "a"}, [], b"", {"accessor": "a"}),
    "a query": ("GET", {}, [("server", "5"), ("pid", "5")], b"", {"server": "5", "pid": 5}),
    "truths": ("GET", {}, [("last", "true")], b"", {"last": True}),
    "a number below zero": ("GET", {}, [("pid", "-5")], b"", {"pid": -5}),
    "what is none": ("GET", {}, [("pid", "null"), ("last", "1.0")], b"", {"pid": "null", "last": "1.0"}),
    "what JSON would not take": ("GET", {}, [("pid", "007"), ("last", "True")], b"", {"pid": "007", "last": "True"}),
    "digits of another script": ("GET", {}, [("pid", "\N{ARABIC-INDIC DIGIT FIVE}")], b"", {"pid": "\u0665"}),
    "a number that is too long": ("GET", {}, [("pid", "9" * 19)], b"", {"pid": "9" * 19}),
    "a query without a value": ("GET", {}, [("server", "")], b"", {"server": ""}),
    "a path and a body": ("POST", {"secret": "s"}, [], b'{"ttl":1}', {"secret": "s", "ttl": 1}),
    "an empty object": ("PUT", {"secret": "s"}, [], b"{}", {"secret": "s"}),
    "no body": ("POST", {"secret": "s"}, [], b"", {"secret": "s"}),
}

REFUSED: Final[dict[str, tuple[str, dict[str, str], list[tuple[str, str]], bytes]]] = {
    "a query for a POST": ("POST", {}, [("a", "1")], b""),
    "a body for a GET": ("GET", {}, [], b"{}"),
    "a body for a DELETE": ("DELETE", {}, [], b" "),
    "a name twice in a query": ("GET", {}, [("a", "1"), ("a", "1")], b""),
    "a name in the path and in the query": ("GET", {"a": "1"}, [("a", "1")], b""),
    "a name in the path and in the body": ("POST", {"a": "1"}, [], b'{"a":"1"}'),
    "a list": ("POST", {}, [], b"[]"),
    "no JSON": ("POST", {}, [], b"{"),
    "no UTF-8": ("POST", {"a": "1"}, [], b'{"\xff":1}'),
}


@pytest.mark.parametrize("case", READ)
def test_what_can_be_read_is_put_together(case: str) -> None:
    """Parameters from the path and from where the method has the others become one object."""
    method, fields, query, body, wanted = READ[case]
    assert wanted == json.loads(parameters(method, fields, query, body, spelled=SPELLED))


@pytest.mark.parametrize("case", REFUSED)
def test_what_could_mean_two_things_is_refused(case: str) -> None:
    """A parameter in the wrong place, or twice, is an error."""
    with pytest.raises(RequestError):
        parameters(*REFUSED[case])


def test_what_a_query_can_only_spell_is_known_from_the_types() -> None:
    """Numbers and truths among the parameters of a verb are found, optional ones too."""
    found = [sorted(not_texts(kind)) for kind in (m.Explain, AuditRead, m.LeaseList)]
    assert [["last", "pid"], ["limit", "offset"], ["all"]] == found


OURS: Final = (
    "",
    "localhost",
    "localhost:80",
    "broker",
    "MCP-Broker",
    "127.0.0.1",
    "127.3.2.1:8080",
    "[::1]",
    "[::1]:80",
)
OTHERS: Final = (
    "example.com",
    "broker.example.com",
    "localhost.example.com",
    "127.0.0.1.example.com",
    "192.168.1.1",
    "[2001:db8::1]",
    "[::1",
    "::",
    "1.1.1.1",
    "localhost:80:80",
    "localhost@example.com",
)


@pytest.mark.parametrize("host", OURS)
def test_a_name_of_this_host_is_served(host: str) -> None:
    """Whatever can mean nothing but this host, with a port or without, is a good host."""
    refuse_browsers({"Host": host})


@pytest.mark.parametrize("host", OTHERS)
def test_the_name_of_another_host_is_not(host: str) -> None:
    """A name that somebody else decides about is what a web page sends that has itself led here."""
    with pytest.raises(DeniedError):
        refuse_browsers({"Host": host})


@pytest.mark.parametrize("header", ["Origin", "Sec-Fetch-Site"])
def test_browsers_are_not_served(header: str) -> None:
    """What only browsers send is refused, whatever it says."""
    with pytest.raises(DeniedError):
        refuse_browsers({"Host": "localhost", header: ""})
