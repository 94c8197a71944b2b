"""What another program on the same bus says in the keyring's place, without owning its name."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from jeepney import DBusAddress, HeaderFields, message_bus, new_signal  # type: ignore[import-untyped]
from jeepney.io.blocking import Proxy, open_dbus_connection  # type: ignore[import-untyped]

from backends.secret_service import SecretService
from backends.secret_service_talk import dialled
from backends.secret_service_words import COLLECTION, PROMPT
from tests.live.desktop import COMMANDS, Desktop, Prompter, desktop
from tests.running import until

pytestmark = pytest.mark.live("keyring", commands=COMMANDS)

_PROMPTS = 20
_A_MOMENT = 1.0


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Desktop]:
    """Return a session with one secret of ours in its keyring, which is locked."""
    with desktop(tmp_path) as found:
        found.secret_tool("store", "--label=x", "service", "mcp-broker", "username", "github", said="made up")
        found.lock()
        yield found


def say_that_it_was_dismissed(address: str) -> None:
    """Tell everybody on the bus that each prompt there may be was dismissed."""
    with contextlib.closing(open_dbus_connection(address)) as connection:
        (names,) = Proxy(message_bus, connection).ListNames()
        places = [f"/org/freedesktop/secrets/prompt/{letter}{number}" for letter in "up" for number in range(_PROMPTS)]
        for name in (each for each in names if each.startswith(":")):
            for place in places:
                signal = new_signal(DBusAddress(place, interface=PROMPT), "Completed", "bv", (True, ("s", "")))
                signal.header.fields[HeaderFields.destination] = name
                connection.send(signal)
        # It has all been passed on when the bus answers.
        Proxy(message_bus, connection).ListNames()


def test_nobody_else_can_say_that_a_prompt_was_dismissed(there: Desktop) -> None:
    """A signal of another program does not end the waiting, and does not count as a no of the person's."""
    ring = SecretService(there.address)
    found: list[str | None] = []
    asking = threading.Thread(target=lambda: found.append(ring.read("mcp-broker", "github", ask=True)))
    with Prompter(there.address, declines=False) as prompter:
        asking.start()
        until(lambda: prompter.asked)
        say_that_it_was_dismissed(there.address)
        asking.join(_A_MOMENT)
        there.unlock()
        asking.join()
        assert (["made up"], 1) == (found, prompter.asked)
    ring.close()


def test_a_keyring_of_an_endless_name_has_a_short_one_here(there: Desktop) -> None:
    """The name stands in every error and in ``status``: however long somebody makes it, a line stays a line."""
    there.unlock()
    with contextlib.closing(dialled(there.address, seconds=10.0)) as talk:
        said = "org.freedesktop.DBus.Properties"
        talk.call(talk.collection() or "", said, "Set", "ssv", COLLECTION, "Label", ("s", "\x1b[2J" + "L" * 100_000))
    there.lock()
    ring = SecretService(there.address)
    lock = ring.lock()
    ring.close()
    assert lock is not None
    assert "the keyring '\\x1b[2J" + "L" * 60 + "'" == lock.what
