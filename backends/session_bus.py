"""
Where the session bus of this user is, found by the uid alone.

MCP clients pass almost no environment on, and the daemon keeps none of it: the
kernel and systemd put the bus in one well-known place. This module refuses a
socket there that is not this user's.
"""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from backends.base import UnavailableError

VARIABLE: Final = "DBUS_SESSION_BUS_ADDRESS"

NO_DESKTOP: Final = "on a machine without a desktop, keep the secret in the sealed store: mcp-broker secret set NAME"


def address(
    chosen: str | None, *, runtime: Path = Path("/run/user"), environment: Mapping[str, str] | None = None
) -> str:
    """
    Return the address of the bus: the chosen one, else what the environment says, else the one of the uid.

    Raises ``UnavailableError`` where there is none.
    """
    said = chosen or (os.environ if environment is None else environment).get(VARIABLE)
    if said:
        return said
    bus = runtime / str(os.getuid()) / "bus"
    try:
        status = bus.stat()
    except OSError:
        message = f"there is no session bus for uid {os.getuid()}: {bus} is not there"
        raise UnavailableError(message, hint=NO_DESKTOP) from None
    if not stat.S_ISSOCK(status.st_mode) or status.st_uid != os.getuid():
        message = f"{bus} is not a socket of uid {os.getuid()}"
        raise UnavailableError(message, hint=f"ls -l {bus}")
    return f"unix:path={bus}"


def require_found_by_a_daemon(
    *, runtime: Path = Path("/run/user"), environment: Mapping[str, str] | None = None
) -> None:
    """
    Raise ``UnavailableError`` where a daemon, which has no environment, would find another bus than this process does.

    What is kept in a keyring on a bus that only an environment names, the daemon would never see again.
    """
    here = address(None, runtime=runtime, environment=environment)
    there = address(None, runtime=runtime, environment={})
    # An address may go on with the identity of the bus.
    if here.partition(",")[0] != there:
        message = f"the bus of this session is at {here}, and a broker finds the one at {there}"
        raise UnavailableError(message, hint=NO_DESKTOP)
