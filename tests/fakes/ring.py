"""
A keyring of the keyring library that exists in memory, for those that cannot run here.

It implements the library's own interface, ``KeyringBackend``, as KWallet's, the
macOS Keychain's and the Windows Credential Locker's classes do, and behaves as
they do where they differ: it prompts while it is called, fails with the
library's errors, and holds as much as its platform lets it. It refuses to keep
anything over its end.
"""

import threading
from typing import Final

from keyring.backend import KeyringBackend
from keyring.errors import InitError, KeyringLocked, PasswordDeleteError, PasswordSetError

WINDOWS_MOST: Final = 2560


class Ring(KeyringBackend):
    """
    The keyring.

    Attributes:
        items: what it holds, shared by all that speak to it.
        opened: cleared while somebody has to answer its prompt.
        declines: whether its prompt is answered with a no.
        prompts: how often it has asked.
        broken: whether everything fails.

    """

    priority = 1.0

    def __init__(self, *, most: int | None = None) -> None:
        """Begin empty and open, with room for ``most`` bytes of UTF-16 in an item."""
        super().__init__()  # type: ignore[no-untyped-call]  # the library ships no type for it
        self.items: dict[tuple[str, str], str] = {}
        self.most = most
        self.opened = threading.Event()
        self.opened.set()
        self.locked = False
        self.declines = False
        self.prompts = 0
        self.calls = 0
        self.broken = False

    def get_password(self, service: str, username: str) -> str | None:
        """Return an item, as it is."""
        self._enter()
        return self.items.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        """Keep an item where there is room for it."""
        self._enter()
        if self.most is not None and len(password.encode("utf-16-le", "surrogatepass")) > self.most:
            # Windows says no with error 1783, RPC_X_BAD_STUB_DATA, which is no error of the library's.
            raise OSError(1783)
        self.items[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        """Remove an item that is there."""
        self._enter()
        if self.items.pop((service, username), None) is None:
            message = "not found"
            raise PasswordDeleteError(message)

    def _enter(self) -> None:
        self.calls += 1
        if self.broken:
            message = "Failed to open keyring: canary"
            raise InitError(message)
        if self.locked:
            self.prompts += 1
            self.opened.wait(60)
            if self.declines:
                message = "Can't get password from keychain: canary"
                raise KeyringLocked(message)
            self.locked = False


class Cancelling(Ring):
    """One that says "set" where its prompt was declined while something was written, as KWallet does."""

    def set_password(self, service: str, username: str, password: str) -> None:
        """Keep an item."""
        if self.locked and self.declines:
            self.prompts += 1
            message = "Cancelled by user"
            raise PasswordSetError(message)
        super().set_password(service, username, password)
