"""
A script for a D-Bus session with a real Secret Service in it: does one thing, prints what came of it.

    dbus-run-session -- sh -c 'printf %s PASSWORD | gnome-keyring-daemon --unlock …; python keyring_session.py WHAT DIR'

It refuses to print a value.
"""

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

import secretstorage
from jeepney import message_bus  # type: ignore[import-untyped]
from jeepney.io.blocking import Proxy, open_dbus_connection  # type: ignore[import-untyped]

from backends.base import RefusedError, Secret, Surroundings
from backends.keyring_key import from_option, probe
from backends.keyring_ring import MASTER_KEYS
from backends.sealed import SealedBackend
from backends.sealed_store import Rotated
from broker import paths
from broker.setup import choices


def say(*results: object) -> None:
    """Print what came of it."""
    print(*results)  # noqa: T201 -- that is what the test reads


def surroundings(directory: Path) -> Surroundings:
    """Return those of a broker in a directory."""
    return Surroundings(mode="user", config=directory, state=directory)


def stored(directory: Path) -> SealedBackend:
    """Return a store in a directory, its key in the keyring."""
    source = from_option(chosen=True, where="key.keyring", surroundings=surroundings(directory))
    return SealedBackend("local", path=directory / "sealed.db", source=source, key_seconds=2.0)


async def put_and_get(directory: Path) -> bool:
    """Return whether a value that one store was given comes out of another."""
    first = stored(directory)
    await first.open()
    await first.put("github", {"value": Secret("value")})
    await first.close()
    second = stored(directory)
    await second.open()
    found = await second.issue("github", params={}, intent="i")
    await second.close()
    return found.values == {"value": Secret("value")}


async def rotate(directory: Path, *, reencrypt: bool) -> Rotated:
    """Rotate the key of a store."""
    backend = stored(directory)
    await backend.open()
    done = await backend.rotate_key(reencrypt=reencrypt)
    await backend.close()
    return done


async def health(directory: Path) -> tuple[str, str, float]:
    """Return how a store is, what it says of itself, and the seconds that opening it took."""
    backend = stored(directory)
    began = time.monotonic()
    await backend.open()
    took = time.monotonic() - began
    found = await backend.health()
    await backend.close()
    return found.state, found.detail, took


def entries() -> int:
    """Return how many entries of ours the keyring holds."""
    connection = secretstorage.dbus_init()
    try:
        return len(list(secretstorage.search_items(connection, {"service": MASTER_KEYS})))
    finally:
        connection.close()


def lock() -> None:
    """Lock the keyring."""
    connection = secretstorage.dbus_init()
    try:
        secretstorage.get_default_collection(connection).lock()
    finally:
        connection.close()


def prompt_that_nobody_answers() -> None:
    """Be the program that asks for the keyring's password, and ask nobody."""
    connection = open_dbus_connection(bus="SESSION")
    Proxy(message_bus, connection).RequestName("org.gnome.keyring.SystemPrompter")

    def swallow() -> None:
        while True:
            connection.receive()

    threading.Thread(target=swallow, daemon=True).start()


def round_trip(directory: Path) -> None:
    """Put, get, rotate, rotate with new seals, get: one entry stays."""
    asyncio.run(put_and_get(directory))
    done = [asyncio.run(rotate(directory, reencrypt=again)) for again in (False, True)]
    say([one.generation for one in done], [one.remains for one in done], asyncio.run(put_and_get(directory)), entries())


def dismissed(directory: Path) -> None:
    """Lock the keyring, and open a store where nobody can be asked for its password."""
    asyncio.run(put_and_get(directory))
    lock()
    state, _, took = asyncio.run(health(directory))
    say(state, took < 2)


def unanswered(directory: Path) -> None:
    """Lock the keyring, and open a store where the prompt stays unanswered."""
    asyncio.run(put_and_get(directory))
    lock()
    prompt_that_nobody_answers()
    state, detail, took = asyncio.run(health(directory))
    say(state, detail, 1.9 < took < 5)


def unlocked(directory: Path) -> None:
    """Lock the keyring, open a store that cannot open for it, and unlock both with the keyring's password."""
    asyncio.run(put_and_get(directory))
    lock()

    async def opened() -> tuple[str, str, bool, str, str]:
        backend = stored(directory)
        await backend.open()
        before = (await backend.health()).hint or ""
        locked = await backend.lock()
        try:
            await backend.unlock(Secret("not the password"))
            wrong = "opened"
        except RefusedError:
            wrong = "refused"
        await backend.unlock(Secret("the password of the keyring"))
        after = (await backend.health()).state
        await backend.close()
        return before, "" if locked is None else locked.what, locked is not None and locked.takes_password, wrong, after

    say(*asyncio.run(opened()))


def probed(directory: Path) -> None:
    """Try the keyring, which leaves nothing in it."""
    say(probe(surroundings(directory)), entries())


def chosen(directory: Path) -> None:
    """Say what ``init`` would choose for the user's own broker, and for one in a directory of its own."""
    for places in (paths.user(), paths.within(directory)):
        say([choice.usable for choice in choices(places) if choice.kind == "keyring"])


def foreign(directory: Path) -> None:
    """Open a store whose key the keyring does not have."""
    asyncio.run(put_and_get(directory))
    connection = secretstorage.dbus_init()
    for item in secretstorage.search_items(connection, {"service": MASTER_KEYS}):
        item.delete()
    connection.close()
    say(*asyncio.run(health(directory))[:2])


WHAT: Final[Mapping[str, Callable[[Path], None]]] = MappingProxyType(
    {each.__name__: each for each in (round_trip, dismissed, unanswered, unlocked, probed, chosen, foreign)}
)

if __name__ == "__main__":
    WHAT[sys.argv[1]](Path(sys.argv[2]))
