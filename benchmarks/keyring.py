"""
What a keyring costs: a cold read beside the bare library's, a warm issue beside the sealed store's, the start.

It needs gnome-keyring, dbus-daemon and secret-tool, and a D-Bus session of its
own; where one is missing it says so and measures nothing.
"""

import asyncio
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from backends.base import Secret, Surroundings
from backends.os_keyring import from_config
from benchmarks import rig as r
from tests.live.desktop import COMMANDS, Desktop, desktop

__all__ = ["cold_ms", "configured", "desktop", "missing", "starts", "warm"]

READS: Final = 20
"""Cold reads of each kind in one round."""

_TABLES: Final = """
[backends.desktop]
type = "keyring"
bus = "{address}"

[secrets.kept]
backend = "desktop"

[servers.keyring]
command = ["/bin/true"]
env.KEPT = "{{kept}}"
"""


def missing() -> list[str]:
    """Return the commands that are not there."""
    return [command for command in COMMANDS if shutil.which(command) is None]


def cold_ms(there: Desktop, directory: Path, rounds: int) -> Iterator[tuple[float, float]]:
    """Yield milliseconds of one cold read, ours and the bare library's, in turns."""
    yield from asyncio.run(_cold(there, directory, rounds))


async def _cold(there: Desktop, directory: Path, rounds: int) -> list[tuple[float, float]]:
    from keyring.backends.SecretService import Keyring  # noqa: PLC0415 -- what it is compared with

    surroundings = Surroundings(mode="user", config=directory, state=directory)
    backend = from_config("desktop", {"bus": there.address, "cache": 0}, surroundings)
    await backend.open()
    await backend.put("bench", {"value": Secret(r.VALUE)})
    # The library looks in the environment, and nowhere else.
    os.environ["DBUS_SESSION_BUS_ADDRESS"] = there.address
    bare, found = Keyring(), []
    for _ in range(rounds * READS):
        begin = time.perf_counter()
        await backend.issue("bench", params={}, intent="bench")
        between = time.perf_counter()
        bare.get_password("mcp-broker", "bench")
        found.append((1000 * (between - begin), 1000 * (time.perf_counter() - between)))
    await backend.close()
    return found


def configured(rig: r.Rig, there: Desktop) -> None:
    """Add the keyring to the broker's config."""
    file = rig.directory / "config" / "broker.toml"
    file.write_text(file.read_text() + _TABLES.format(address=there.address))


def warm(rig: r.Rig, rounds: int, seconds: float) -> Iterator[tuple[dict[str, float], dict[str, float]]]:
    """Yield the load on a secret in the keyring, and on one in the sealed store, at 32 connections, in turns."""
    line = '{{"jsonrpc":"2.0","id":1,"method":"credential/issue","params":{{"secret":"{}"}}}}\n'
    r.ask(rig.admin, "secret/set", name="bench", values={"value": r.VALUE})
    r.ask(rig.admin, "secret/set", name="kept", values={"value": r.VALUE})
    for _ in range(rounds):
        kept, sealed = (
            r.load(rig.broker, line.format(name), "}\n", connections=32, seconds=seconds) for name in ("kept", "bench")
        )
        yield kept, sealed


def starts(rig: r.Rig, rounds: int) -> list[float]:
    """Return the seconds until the broker answers."""
    found = []
    for _ in range(rounds):
        with rig.serving() as (_, seconds):
            found.append(seconds)
    return found
