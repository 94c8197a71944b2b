"""
Asking one server one thing, as the Vault backend does it, and telling how that ended.

It refuses to keep a connection.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from backends.base import Secret, Surroundings
from backends.vault_calls import fetching
from backends.vault_engines import Plan
from backends.vault_http import Call, CutError, FaultError, NotSentError, VaultAdapter, Wire
from backends.vault_options import VaultOptions, read
from backends.vault_wire import Answer
from tests.backends.raw_server import whole

TOKEN: Final = "s.canary-of-a-token"
GOOD: Final = whole(200, b'{"data": {"value": "x"}}')
PATIENCE: Final = 5.0
READ: Final = fetching(Plan(path="secret/a"))


def options(address: str, **more: Any) -> VaultOptions:  # noqa: ANN401 -- whatever TOML can hold
    """Return the options of a backend at an address."""
    around = Surroundings(mode="user", config=Path("/"), state=Path("/"))
    return read("v", {"address": address, "auth": {"token": {"file": "/t"}}, **more}, around)


def ask(
    address: str,
    say: Callable[[VaultAdapter], Answer] = READ,
    *,
    token: str | None = TOKEN,
    seconds: float = PATIENCE,
    call: Call | None = None,
    **more: Any,  # noqa: ANN401
) -> Answer:
    """Ask once over a connection of its own."""
    found = options(address, **more)
    wire = Wire(found.addresses[0], found)
    try:
        return say(wire.adapter(call or Call(), None if token is None else Secret(token), seconds))
    finally:
        wire.close()


def outcome(address: str, **more: Any) -> tuple[str, bool]:  # noqa: ANN401
    """Return as what a failure is told, and whether anything was sent."""
    call = Call()
    try:
        ask(address, call=call, **more)
    except (NotSentError, CutError, FaultError) as error:
        return type(error).__name__, call.sent
    return "answered", call.sent


def headers(request: bytes) -> dict[str, str]:
    """Return the headers of a request, by names in lower case."""
    lines = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    return {name.lower(): text.strip() for name, _, text in (line.partition(":") for line in lines)}
