"""
Asking the broker for all that a server needs.

This module refuses to keep what it was told anywhere but in memory, and to
show it.
"""

import time

from broker.launch.failure import MEANINGS, CannotStartError
from broker.launch.plain import decoded, quoted
from broker.launch.wire import SPEAK_WITHIN, Wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ANSWER_WITHIN = 30.0
"""Seconds for the whole answer: a backend may have to mint something."""


class Opened:
    """
    All that a server needs, as the broker said it. It holds values and has no ``repr`` that shows them.

    Attributes:
        command: the program and its arguments.
        client_args: whether the client may add arguments.
        env: variables and their values.
        files: variables, and what stands in the files that they name.
        pass_env: patterns of what else of the caller's environment goes through.
        leases: the accessors of what was released for it.
        swept: whether the broker removes the files when the server has ended; the host's has not the right to.

    """

    def __init__(self, result: "Any", *, swept: bool) -> None:  # noqa: ANN401 - it is what it turns out to be
        """Take the answer apart, and refuse one of another shape."""
        try:
            self.command = [_text(word) for word in result["command"]]
            self.client_args = result["client_args"] is True
            self.env = {_text(name): _text(value) for name, value in result["env"].items()}
            self.files = {_text(name): _text(value) for name, value in result["files"].items()}
            self.pass_env = [_text(pattern) for pattern in result["pass_env"]]
            self.leases = [_text(accessor) for accessor in result["leases"]]
            self.swept = swept
        except (KeyError, TypeError, AttributeError):
            message = "the broker's answer is not one that this version understands"
            raise CannotStartError(message, code="internal", hint="mcp-broker status") from None


def _text(value: "Any") -> str:  # noqa: ANN401 - it is what it turns out to be
    """Return a text, and refuse what is none."""
    if type(value) is not str:
        raise TypeError
    return value


def ask(wire: Wire, server: str) -> Opened:
    """
    Ask for all that ``server`` needs.

    ``whoami`` goes first, in the same breath: a broker that is alive answers it
    at once, so that one that hangs is told from one that works on the rest.
    """
    now = time.monotonic()
    opening = _request(2, "server/open", f'{{"server":{quoted(server)}}}')
    wire.send(_request(1, "whoami", "{}") + "\n" + opening, now + SPEAK_WITHIN)
    answers: dict[str, dict[str, Any]] = {}
    while not {"1", "2"} <= answers.keys():
        answer = _answer(wire.receive(now + (ANSWER_WITHIN if wire.heard else SPEAK_WITHIN)))
        if answer.get("id") == "2" and "error" in answer:
            raise _refusal(answer["error"])
        answers[str(answer.get("id"))] = answer
    # Only a broker that says that it is the user's own is one: what is not said counts as the host's.
    about = answers["1"].get("result")
    return Opened(answers["2"].get("result"), swept=isinstance(about, dict) and about.get("mode") == "user")


def _request(number: int, method: str, params: str) -> str:
    return f'{{"jsonrpc":"2.0","id":{number},"method":"{method}","params":{params}}}'


def _answer(line: str) -> "dict[str, Any]":
    """Return one line of the broker as an object; an empty one for anything else."""
    try:
        answer = decoded(line)
    except (ValueError, RecursionError):
        answer = None
    return answer if isinstance(answer, dict) else {}


def _refusal(error: "Any") -> CannotStartError:  # noqa: ANN401 - it is what it turns out to be
    """Return the broker's error as ours."""
    error = error if isinstance(error, dict) else {}
    more = error.get("data")
    more = more if isinstance(more, dict) else {}
    code, hint = more.get("code"), more.get("hint")
    code = code if code in MEANINGS else "internal"
    return CannotStartError(str(error.get("message") or code), code=code, hint=hint if isinstance(hint, str) else None)


def give_back(wire: Wire, opened: Opened) -> None:
    """Release what a server that does not start would have held: this process may stay for long."""
    until = time.monotonic() + SPEAK_WITHIN
    try:
        for number, accessor in enumerate(opened.leases, 3):
            wire.send(_request(number, "lease/release", f'{{"accessor":{quoted(accessor)}}}'), until)
        for _ in opened.leases:
            wire.receive(until)
    except CannotStartError:
        pass  # then they end with this process
