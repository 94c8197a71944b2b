"""
Answering in place of a server that cannot be started.

A client shows nothing of a server that ends at once, and goes on without its
tools. So this answers every request with what is wrong and what to do, in both
eras of the protocol (a modern client asks twice before it shows an error),
until its input ends. It refuses to answer what is no request.
"""

import os

from broker.launch.failure import CannotStartError
from broker.launch.plain import Number, decoded, flattened, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

LONGEST_LINE = 10 * 1024 * 1024
"""Bytes of one message, without its end. The SDKs' clients give up at this size."""


def stay(failure: CannotStartError, server: str) -> None:
    """Answer every request on stdin until it ends, or until nobody reads the answers."""
    error = _error(failure, server)
    for descriptor in (0, 1):
        os.set_blocking(descriptor, True)
    for line in lines(0):
        answer = answers(line.decode("utf-8", "replace"), error)
        if answer and not _written(answer.encode() + b"\n"):
            return


def _error(failure: CannotStartError, server: str) -> str:
    """Return the error object, as text."""
    mend = f". To mend it: {failure.hint}" if failure.hint else ""
    message = f"mcp-broker cannot start the server {server!r}: {failure.message}{mend}"
    hint = quoted(failure.hint) if failure.hint else "null"
    return f'{{"code":{failure.number},"message":{quoted(message)},"data":{{"code":"{failure.code}","hint":{hint}}}}}'


def lines(descriptor: int) -> "Iterator[bytes]":
    """Yield every line of an input; the last one may lack its end, and one that is too long is passed over."""
    pieces: list[bytes] = []
    length = 0
    while piece := os.read(descriptor, 262144):
        for number, more in enumerate(piece.split(b"\n")):
            if number:
                if length <= LONGEST_LINE:
                    yield b"".join(pieces)
                pieces, length = [], 0
            length += len(more)
            if length <= LONGEST_LINE:
                pieces.append(more)
    if length <= LONGEST_LINE:
        yield b"".join(pieces)


def answers(line: str, error: str) -> str:
    """Return the answer to one line: an object, an array for a batch, or nothing where nothing is asked."""
    try:
        message = _message(line)
    except ValueError:
        return ""
    if isinstance(message, list):
        found = [_one(part, error) for part in message if _is_request(part)]
        return f"[{','.join(found)}]" if found else ""
    return _one(message, error) if _is_request(message) else ""


def _message(line: str) -> "Any":  # noqa: ANN401 - it is whatever was sent
    try:
        return decoded(line)
    except RecursionError:
        return decoded(flattened(line))


def _is_request(message: "Any") -> bool:  # noqa: ANN401 - it is whatever was sent
    """Say whether somebody waits for an answer: notifications have no id, and answers have no method."""
    return isinstance(message, dict) and "id" in message and "method" in message


def _one(message: "dict[str, Any]", error: str) -> str:
    return f'{{"jsonrpc":"2.0","id":{_id(message["id"])},"error":{error}}}'


def _id(value: "Any") -> str:  # noqa: ANN401 - it is whatever was sent
    """Write an id as it came. JSON-RPC knows strings, numbers and null; anything else cannot be answered by name."""
    if isinstance(value, Number):
        return str.__str__(value)
    return quoted(value) if isinstance(value, str) else "null"


def _written(answer: bytes) -> bool:
    """Write an answer; say whether anybody reads."""
    try:
        while answer:
            answer = answer[os.write(1, answer) :]
    except OSError:
        return False
    return True
