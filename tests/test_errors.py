"""
The table of errors: complete in every direction, and nothing in it that nobody needs.
"""

import ast
import inspect
import re
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest

from broker import errors
from broker.api.http_reading import HttpRequestError
from broker.errors import MEANINGS, BrokerError


def kinds(above: type[BrokerError] = BrokerError) -> Iterator[type[BrokerError]]:
    """Yield every class of error that a caller can see."""
    yield above
    for each in above.__subclasses__():
        yield from kinds(each)


ALL = sorted(set(kinds()), key=lambda kind: kind.__name__)
OWN = range(-32099, -32000)
"""The numbers that JSON-RPC 2.0 leaves to a server."""


def made(root: Path) -> set[str]:
    """Return the name of everything that is called somewhere in our packages."""
    found = set()
    for path in (path for room in ("broker", "backends") for path in (root / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                found.add(node.func.id)
    return found


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: str(kind.__name__))
def test_every_error_has_a_meaning(kind: type[BrokerError]) -> None:
    """The code of each class of error stands in the table."""
    assert kind.code in MEANINGS


def test_every_meaning_is_that_of_an_error() -> None:
    """Each code in the table is that of some class."""
    assert set(MEANINGS) == {kind.code for kind in ALL}


def test_every_code_is_used(root: Path) -> None:
    """Of the classes with each code at least one is made somewhere."""
    calls = made(root)
    assert set(MEANINGS) == {kind.code for kind in ALL if kind.__name__ in calls}


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: str(kind.__name__))
def test_every_error_says_what_it_means(kind: type[BrokerError]) -> None:
    """Each class of error ends in Error and has a docstring of its own, which the OpenAPI document shows."""
    own = inspect.cleandoc(kind.__dict__.get("__doc__") or "").partition("\n")[0]
    assert (True, True) == (kind.__name__.endswith("Error"), own.endswith("."))


@pytest.mark.parametrize("code", MEANINGS)
def test_every_meaning_is_one_on_each_way_out(code: str) -> None:
    """A status is an error's, a number is the server's own or one of the specification's, an exit status is not 0."""
    meaning = MEANINGS[code]
    number = meaning.jsonrpc in OWN or meaning.jsonrpc in {-32602, -32603}
    assert (True, True, True) == (HTTPStatus(meaning.http).value >= 400, number, 0 < meaning.exit < 126)


def test_no_two_codes_have_one_number() -> None:
    """A client that looks at the number alone can tell the codes apart."""
    numbers = [meaning.jsonrpc for meaning in MEANINGS.values()]
    assert sorted(set(numbers)) == sorted(numbers)


def test_the_statuses_of_http_itself_are_bad_requests() -> None:
    """What only HTTP has a status for is an invalid request to everybody else."""
    assert "invalid_request" == HttpRequestError(HTTPStatus.NOT_FOUND, "nothing there").code


def test_the_documents_name_every_code(root: Path) -> None:
    """docs/socket.md has a row for each code, with its three meanings, and for no other."""
    text = (root / "docs" / "socket.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (-\d+) \| (\d+) \|", text, re.MULTILINE)
    table = [(code, str(each.http), str(each.jsonrpc), str(each.exit)) for code, each in MEANINGS.items()]
    assert sorted(table) == sorted(rows)


def test_messages_are_said_as_the_house_says_them() -> None:
    """With a hint an error reads as a message and the command below it."""
    assert "denied\nhint: ask" == str(errors.DeniedError("denied", hint="ask"))
