"""
The command ``exec``: ask, prepare, become; or say what is wrong and stay.

This module refuses to show a traceback: the values are in memory here.
"""

import _signal  # type: ignore[import-not-found]
import os
import time

from broker.launch.become import DEFAULT_PATH, become, fill_standard_descriptors
from broker.launch.environment import environment, of_the_caller, sockets_passed
from broker.launch.failure import CannotStartError
from broker.launch.opening import Opened, ask, give_back
from broker.launch.wire import ANYWHERE, Wire, connect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

TRIES = 3
"""How often a broker is asked that ends before it answers, as when it is killed or starts again."""

PAUSE = 0.1
"""Seconds before it is asked again: a process that was killed takes a moment to be gone, with its sockets."""

USAGE = """\
Usage: mcp-broker exec NAME [--user | --system | --socket PATH | --dir DIR] [-- ARGS]

Start the MCP server NAME with its credentials. This is what a client's config
calls; the broker's config says what NAME is. ARGS are appended to its command
where the config allows it (client_args = true).

  --user         ask your own broker only
  --system       ask the broker of this host only
  --socket PATH  ask the broker that listens there
  --dir DIR      ask the broker that lives in DIR
  --help         show this
"""


class Arguments:
    """What the caller asks for: a server, the broker to ask, and what follows the server's own arguments."""

    def __init__(self) -> None:
        """Start with what holds when nothing is said."""
        self.server = ""
        self.where = ANYWHERE
        self.extra: list[str] = []
        self.help = False


def arguments(words: list[str]) -> Arguments:
    """Read what follows ``exec`` on the command line. Options may stand before and after the name."""
    found = Arguments()
    if "--" in words:
        end = words.index("--")
        words, found.extra = words[:end], words[end + 1 :]
    rest = list(words)
    while rest:
        word = rest.pop(0)
        option, equals, path = word.partition("=")
        if word in {"--help", "-h"}:
            found.help = True
        elif word in {"--user", "--system"}:
            found.where = (word, "")
        elif option in {"--socket", "--dir"}:
            if not equals and not rest:
                message = f"{option} needs a path"
                raise CannotStartError(message, code="invalid_request", hint="mcp-broker exec --help")
            found.where = (option, path if equals else rest.pop(0))
        elif word.startswith("-") or found.server:
            message = f"exec does not understand {word!r}; what is meant for the server follows a --"
            raise CannotStartError(message, code="invalid_request", hint="mcp-broker exec --help")
        else:
            found.server = word
    if not found.server and not found.help:
        message = "no server is named"
        raise CannotStartError(message, code="invalid_request", hint="mcp-broker exec NAME")
    return found


def start(wanted: Arguments) -> "NoReturn":
    """
    Become the server.

    Raises:
        CannotStartError: that cannot be; whatever was released for it is given back.

    """
    wire, opened = _opened(wanted)
    try:
        try:
            _become(opened, wanted)
        except BaseException:
            give_back(wire, opened)
            raise
    finally:
        wire.close()


def _opened(wanted: Arguments) -> "tuple[Wire, Opened]":
    """
    Ask a broker; ask again where it ended before it answered.

    That is not blind: what it had begun to mint it has written down, and the
    next one takes it back.
    """
    for left in reversed(range(TRIES)):
        wire = connect(wanted.where)
        try:
            return wire, ask(wire, wanted.server)
        except BaseException:
            wire.close()
            if not wire.ended or not left:
                raise
        time.sleep(PAUSE)
    raise AssertionError


def _become(opened: Opened, wanted: Arguments) -> "NoReturn":
    """Become what the broker said."""
    table = f"[servers.{wanted.server}]"
    if not opened.command:
        message = f"{table} has no command: it is a grant for programs that ask by themselves"
        raise CannotStartError(message, code="config", hint=f"write command = [...] under {table} in the config")
    if wanted.extra and not opened.client_args:
        # Dropping them in silence could drop a `--read-only`.
        message = f"{table} takes no arguments from its client"
        hint = f"write client_args = true under {table} in the config, or remove what follows the --"
        raise CannotStartError(message, code="denied", hint=hint)
    caller = of_the_caller()
    paths: dict[str, str] = {}
    files = None
    if opened.files:
        from broker.launch.files import write_all  # noqa: PLC0415 - most servers have none

        files, paths = write_all(opened.files, os.environ.get("RUNTIME_DIRECTORY", ""), swept=opened.swept)
    try:
        become(
            [*(word.encode() for word in opened.command), *(os.fsencode(word) for word in wanted.extra)],
            environment(caller, pass_env=opened.pass_env, env={**opened.env, **paths}),
            path=os.environ.get("PATH", DEFAULT_PATH),
            keep=sockets_passed(caller),
        )
    except BaseException:
        if files is not None:
            files.remove()
        raise


def main(words: list[str]) -> int:
    """Become a server; return the exit status where that cannot be."""
    # A client ends a server by a signal, at any time: no traceback then, and no delay.
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    fill_standard_descriptors()
    wanted = Arguments()
    try:
        wanted = arguments(words)
        if wanted.help:
            os.write(1, USAGE.encode())
            return 0
        start(wanted)
    except CannotStartError as error:
        return _tell(error, wanted.server)
    except Exception as error:  # noqa: BLE001 - what it says may hold a value
        message = f"exec failed unexpectedly ({type(error).__name__})"
        return _tell(CannotStartError(message, code="internal", hint="mcp-broker check"), wanted.server)


def _tell(failure: CannotStartError, server: str) -> int:
    """Say what is wrong to whoever can hear it; return the exit status."""
    _signal.signal(_signal.SIGPIPE, _signal.SIG_IGN)
    try:
        os.write(2, f"{failure}\n".encode("utf-8", "replace"))
    except OSError:
        pass  # nobody reads our stderr; the client still reads our stdout
    if not os.isatty(0):
        from broker.launch.stay import stay  # noqa: PLC0415 - only here

        stay(failure, server)
    return failure.status
