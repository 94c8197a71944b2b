"""
A conversation with one program that keeps secrets, over D-Bus.

With one program: its messages are addressed by the name that no other ever has.
A session that another one of the same well-known name made since would decrypt
to rubbish and not to an error. This module refuses to wait without a deadline,
and to talk over a bus that belongs to another user.
"""

import contextlib
import os
import socket
import struct
from collections import deque
from collections.abc import Iterator
from typing import Any, Final, final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7
from jeepney import (  # type: ignore[import-untyped]
    DBusAddress,
    DBusErrorResponse,
    MatchRule,
    Message,
    MessageType,
    Properties,
    new_method_call,
)
from jeepney.bus import get_bus  # type: ignore[import-untyped]
from jeepney.io.blocking import DBusConnection, prep_socket  # type: ignore[import-untyped]
from secretstorage.dhcrypto import Session
from secretstorage.util import format_secret

from backends.base import CorruptError, UnavailableError
from backends.secret_service_words import COLLECTION, ITEM, NAME, PROMPT, SERVICE, AnswerError, GoneError
from backends.session_bus import NO_DESKTOP

_INTERNAL: Final = "org.gnome.keyring.InternalUnsupportedGuiltRiddenInterface"
"""What GNOME's own tools change and unlock keyrings with."""

_DENIED: Final = "org.gnome.keyring.Error.Denied"
_DH: Final = "dh-ietf1024-sha256-aes128-cbc-pkcs7"
_BUS: Final = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")

_GONE: Final = frozenset(
    {
        "org.freedesktop.DBus.Error.ServiceUnknown",
        "org.freedesktop.DBus.Error.NameHasNoOwner",
        "org.freedesktop.DBus.Error.NoReply",
        "org.freedesktop.DBus.Error.Disconnected",
        "org.freedesktop.Secret.Error.NoSession",
    }
)
_LABEL_LENGTH: Final = 64
_PEERCRED: Final = struct.Struct("3i")


@final
class Talk:
    """
    The conversation.

    Attributes:
        takes_password: whether the other end has GNOME's interface to unlock with a password.
        label: what the desktop calls the default collection.

    """

    def __init__(self, connection: DBusConnection, owner: str, seconds: float) -> None:
        """Talk to ``owner``; each question may take so many seconds."""
        self._connection = connection
        self._owner = owner
        self._seconds = seconds
        self._session: Session | None = None
        self.takes_password = _INTERNAL in str(
            self.call(SERVICE[0], "org.freedesktop.DBus.Introspectable", "Introspect")[0]
        )
        path = self.collection()
        label = "" if path is None else str(self.read(path, COLLECTION, "Label"))
        # Any program of the user can write it, and it stands in every error.
        self.label = label[:_LABEL_LENGTH] or "default"
        rule = MatchRule(type="signal", sender=owner, interface=PROMPT)
        _ask_bus(connection, seconds, "AddMatch", "s", rule.serialise())

    def call(self, path: str, interface: str, method: str, signature: str | None = None, *body: Any) -> Any:  # noqa: ANN401
        """Call a method; return what it answers, always a tuple."""
        address = DBusAddress(path, self._owner, interface)
        return self._answer(new_method_call(address, method, signature, body))

    def read(self, path: str, interface: str, name: str) -> Any:  # noqa: ANN401 -- a property is of any type
        """Return a property."""
        ((_, value),) = self._answer(Properties(DBusAddress(path, self._owner, interface)).get(name))
        return value

    def collection(self) -> str | None:
        """Return the path of the default collection; None where there is none."""
        (path,) = self.call(*SERVICE, "ReadAlias", "s", "default")
        return None if path == "/" else str(path)

    def secret(self, item: str) -> str:
        """Return the text of an item. Raises ``CorruptError`` where it is none."""
        session = self._opened()
        ((_, parameters, content, _),) = self.call(item, ITEM, "GetSecret", "o", session.object_path)
        assert session.aes_key is not None
        decryptor = Cipher(algorithms.AES(session.aes_key), modes.CBC(bytes(parameters))).decryptor()
        unpadder = PKCS7(128).unpadder()
        plain = unpadder.update(decryptor.update(bytes(content)) + decryptor.finalize()) + unpadder.finalize()
        try:
            return plain.decode()
        except UnicodeDecodeError:
            # The cause would hold the value.
            message = "an item of the keyring is not text in UTF-8, as every value is"
            raise CorruptError(message) from None

    def sealed(self, text: str) -> tuple[str, bytes, bytes, str]:
        """Return a text as the bus may carry it."""
        return format_secret(self._opened(), text.encode(), "text/plain")

    def unlock(self, collection: str, password: str) -> bool:
        """Unlock a collection with a password; return whether it was the right one."""
        try:
            self.call(SERVICE[0], _INTERNAL, "UnlockWithMasterPassword", "o(oayays)", collection, self.sealed(password))
        except AnswerError as error:
            if error.name == _DENIED:
                return False
            raise
        return True

    @contextlib.contextmanager
    def completed(self, prompt: str) -> Iterator[deque[Message]]:
        """Collect the signal that a prompt is done; whoever else on the bus sends us one says nothing of it."""
        rule = MatchRule(type="signal", sender=self._owner, path=prompt, interface=PROMPT, member="Completed")
        with self._connection.filter(rule) as found:
            yield found

    def wait(self, found: deque[Message], seconds: float) -> bool:
        """Return whether the signal came within some seconds."""
        try:
            self._connection.recv_until_filtered(found, timeout=seconds)
        except TimeoutError:
            return False
        except OSError:
            raise _gone() from None
        return True

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def _opened(self) -> Session:
        """Return a session, in which the bus sees no value."""
        if self._session is None:
            session = Session()
            public = ("ay", session.my_public_key.to_bytes(128, "big"))
            (_, theirs), session.object_path = self.call(*SERVICE, "OpenSession", "sv", _DH, public)
            session.set_server_public_key(int.from_bytes(theirs, "big"))
            self._session = session
        return self._session

    def _answer(self, message: Message) -> Any:  # noqa: ANN401
        return _answer(self._connection, message, self._seconds)


def dialled(address: str, *, seconds: float) -> Talk:
    """
    Return a conversation with whatever keeps secrets on a bus, which the bus may have to start.

    Raises ``UnavailableError`` where there is nothing.
    """
    connection = connected(address, seconds=seconds)
    try:
        try:
            (owner,) = _ask_bus(connection, seconds, "GetNameOwner", "s", NAME)
        except GoneError:
            _start(connection, seconds)
            (owner,) = _ask_bus(connection, seconds, "GetNameOwner", "s", NAME)
        return Talk(connection, owner, seconds)
    except BaseException:
        connection.close()
        raise


def connected(address: str, *, seconds: float) -> DBusConnection:
    """Return a connection to the bus at an address. Raises ``UnavailableError`` where there is none of this user's."""
    try:
        sock = prep_socket(get_bus(address), timeout=seconds)
    except (OSError, ValueError, RuntimeError) as error:
        message = f"the session bus does not answer: {type(error).__name__}"
        raise UnavailableError(message, hint=NO_DESKTOP) from None
    try:
        sock.settimeout(seconds)
        _require_own(sock)
        return DBusConnection(sock)
    except OSError:
        sock.close()
        message = "the session bus does not let this user in"
        raise UnavailableError(message, hint=NO_DESKTOP) from None
    except BaseException:
        sock.close()
        raise


def _start(connection: DBusConnection, seconds: float) -> None:
    try:
        _ask_bus(connection, seconds, "StartServiceByName", "su", NAME, 0)
    except (AnswerError, GoneError):
        message = "nothing on the session bus keeps secrets"
        raise UnavailableError(message, hint=f"start gnome-keyring or another Secret Service; {NO_DESKTOP}") from None


def _require_own(sock: socket.socket) -> None:
    """Refuse a bus that somebody else has put there."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size)
    _, uid, _ = _PEERCRED.unpack(credentials)
    if uid not in {os.getuid(), 0}:
        message = f"the session bus belongs to uid {uid}"
        raise UnavailableError(message, hint="mcp-broker check")


def _ask_bus(connection: DBusConnection, seconds: float, method: str, signature: str, *body: Any) -> Any:  # noqa: ANN401
    name, path, interface = _BUS
    return _answer(connection, new_method_call(DBusAddress(path, name, interface), method, signature, body), seconds)


def _answer(connection: DBusConnection, message: Message, seconds: float) -> Any:  # noqa: ANN401
    try:
        reply = connection.send_and_get_reply(message, timeout=seconds)
    except TimeoutError:
        raise
    except OSError:
        raise _gone() from None
    if reply.header.message_type is not MessageType.error:
        return reply.body
    name = DBusErrorResponse(reply).name
    if name in _GONE:
        raise _gone()
    raise AnswerError(name)


def _gone() -> GoneError:
    return GoneError("the program that keeps the keyring has ended", hint="mcp-broker status")
