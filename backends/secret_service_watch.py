"""
Hears from the session bus that a keyring has changed: locked, unlocked, written to, ended.

What is heard is that, and nothing more: what changed is read anew where it is
needed. It refuses to be the only way that a change is noticed, because a bus
may lose a message; who remembers values has to forget them by time as well.
"""

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Final, final

from jeepney import MatchRule, message_bus  # type: ignore[import-untyped]
from jeepney.io.blocking import DBusConnection, Proxy  # type: ignore[import-untyped]

from backends.secret_service_talk import connected
from backends.secret_service_words import NAME

_SECONDS: Final = 5.0


@final
class Watch:
    """
    A thread that listens until it is closed or its bus ends.

    Attributes:
        listening: whether it still does.

    """

    def __init__(self, address: str, changed: Callable[[], None]) -> None:
        """Listen on the bus at ``address`` and call ``changed``, on the thread, for whatever happens there."""
        self.listening = True
        self._changed = changed
        self._connection: DBusConnection = connected(address, seconds=_SECONDS)
        try:
            bus = Proxy(message_bus, self._connection, timeout=_SECONDS)
            bus.AddMatch(MatchRule(type="signal", sender=NAME))
            owner = MatchRule(type="signal", sender="org.freedesktop.DBus", member="NameOwnerChanged")
            owner.add_arg_condition(0, NAME)
            bus.AddMatch(owner)
        except BaseException:
            self._connection.close()
            raise
        threading.Thread(target=self._listen, name="keyring-watch", daemon=True).start()

    def close(self) -> None:
        """Listen no more. Returns at once."""
        self.listening = False
        with contextlib.suppress(OSError):
            self._connection.sock.shutdown(socket.SHUT_RDWR)

    def _listen(self) -> None:
        try:
            while self.listening:
                self._connection.receive()
                self._changed()
        except Exception:  # noqa: BLE001 -- whatever ends it, what is said is that it has
            self.listening = False
        finally:
            self._connection.close()
            self._changed()
