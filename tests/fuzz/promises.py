"""
What is promised of every answer, whatever was asked: held by the fuzzers against each answer they get.
"""

import json
from typing import Any, Final, cast

from broker.errors import MEANINGS

_SOMEBODYS_FAULT: Final = frozenset(MEANINGS) - {"internal"}
_OK: Final = 200
_GO_ON: Final = 100


def answers(said: bytes) -> list[dict[str, Any]]:
    """
    Return the lines of an answer, and hold each to what is promised of it.

    Raises:
        AssertionError: a line is no JSON-RPC message, or its error has no meaning or is nobody's fault but ours.

    """
    found = []
    for line in said.splitlines():
        message = cast("dict[str, Any]", json.loads(line))
        require(message.get("jsonrpc") == "2.0", "not JSON-RPC")
        require(("result" in message) + ("error" in message) + ("method" in message) == 1, "not one kind of message")
        if "error" in message:
            require(message["error"]["data"]["code"] in _SOMEBODYS_FAULT, "an error without a meaning")
            require(isinstance(message["error"]["code"], int), "an error without a number")
        found.append(message)
    return found


def responses(said: bytes) -> list[int]:
    """
    Return the statuses of HTTP responses, and hold each response to what is promised of it.

    Raises:
        AssertionError: something is no response, or its error has no meaning or is nobody's fault but ours.

    """
    found = []
    while said:
        head, blank, said = said.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        version, _, rest = first.partition(b" ")
        require(version in {b"HTTP/1.0", b"HTTP/1.1"} and bool(blank), "not a response")
        status = int(rest[:3])
        found.append(status)
        if status == _GO_ON:
            continue
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        require(headers[b"cache-control"] == b"no-store", "a response that a cache may keep")
        if headers[b"content-type"] == b"text/event-stream":
            break
        if said.startswith(b"HTTP/"):
            # The answer to HEAD has the headers of a body, and none.
            continue
        length = int(headers[b"content-length"])
        if said:
            _check_body(status, said[:length])
        said = said[length:]
    return found


def _check_body(status: int, body: bytes) -> None:
    """Hold the body of a response to what is promised of it."""
    content = json.loads(body)
    if status == _OK:
        require("error" not in content, "an error that says it is none")
    else:
        require(content["error"]["code"] in _SOMEBODYS_FAULT, "an error without a meaning")


def require(holds: bool, what: str) -> None:  # noqa: FBT001 -- reads like assert, and stays where assert is stripped
    """Fail unless it holds."""
    if not holds:
        raise AssertionError(what)
