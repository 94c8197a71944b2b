"""
The corpora of the fuzzers of both dialects, replayed without the fuzzer.

What was found once stands in them under ``found-``.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.fuzz import fuzz_http, fuzz_lines
from tests.fuzz.in_process import Broker
from tests.fuzz.promises import answers, responses

CORPUS: Final = Path(__file__).parent / "corpus"
LINES: Final = sorted((CORPUS / "lines").iterdir())
HTTP: Final = sorted((CORPUS / "http").iterdir())


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    """Give a broker that has no disk."""
    made = Broker()
    yield made
    made.close()


@pytest.mark.parametrize("path", LINES, ids=lambda path: str(path.name))
def test_lines_keep_their_promises(broker: Broker, path: Path) -> None:
    """What is promised of every input in the line dialect holds for this one."""
    fuzz_lines.one_input(broker, path.read_bytes())


@pytest.mark.parametrize("path", HTTP, ids=lambda path: str(path.name))
def test_http_keeps_its_promises(broker: Broker, path: Path) -> None:
    """What is promised of every input in HTTP holds for this one."""
    fuzz_http.one_input(broker, path.read_bytes())


def test_the_broker_without_a_disk_answers(broker: Broker) -> None:
    """What the fuzzers speak to is a broker: it knows who asks, and has a secret that it may not release."""
    said = answers(
        broker.hears(
            [
                b'{"jsonrpc":"2.0","id":1,"method":"whoami"}\n',
                b'{"jsonrpc":"2.0","id":2,"method":"credential/issue","params":{"secret":"github"}}\n',
            ]
        )
    )
    who, refused = sorted(said, key=lambda each: int(each["id"]))
    assert ("user", "audit_unavailable") == (who["result"]["mode"], refused["error"]["data"]["code"])


def test_a_promise_that_is_broken_is_noticed() -> None:
    """An error that is nobody's fault but ours does not pass."""
    internal = b'{"id":1,"error":{"code":-32603,"message":"","data":{"code":"internal"}},"jsonrpc":"2.0"}\n'
    with pytest.raises(AssertionError):
        answers(internal)
    with pytest.raises(AssertionError):
        responses(b"HTTP/0.9 200 OK\r\n\r\n")
