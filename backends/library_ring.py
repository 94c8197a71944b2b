"""
A keyring that the keyring library speaks to: KWallet, the macOS Keychain, the Windows Credential Locker.

The library's interface is to read, write and delete by name, and nothing else.
So the names are kept in an item of their own, whether a keyring is locked is
known only from having asked, and it prompts whenever it likes: where somebody
has declined, it is left alone for a while. This module refuses what an item
cannot hold, rather than to let the platform cut it off.
"""

import importlib
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

from backends import keyring_text, session_bus
from backends.base import BackendError, Lock, LockedError, RefusedError, UnavailableError
from backends.keyring_ring import UNLOCK, Kind

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

_T = TypeVar("_T")

QUIET_SECONDS: Final = 600.0
"""How long a keyring is left alone whose prompt somebody has declined."""

_KWALLET: Final = "keyring.backends.kwallet"
_NAMES: Final = " names"
_ALL: Final = "all"
_PROBE: Final = "locked?"


@final
class LibraryRing:
    """
    A keyring of one class of the keyring library.

    Attributes:
        title: what a person calls it.
        caution: what it does not protect against.

    """

    def __init__(
        self,
        kind: Kind,
        bus: str | None,
        *,
        quiet_seconds: float = QUIET_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        loaded: "KeyringBackend | None" = None,
    ) -> None:
        """
        Use that kind of keyring; the library is loaded when it is first needed.

        Args:
            kind: which.
            bus: the address of the session bus, for those that are on one; None for the user's own.
            quiet_seconds: how long it is left alone after somebody has declined.
            clock: seconds.
            loaded: the library's keyring, where the caller has one.

        """
        self.title = kind.title
        self.caution: str | None = f"{kind.title} may keep everything in plaintext" if kind.unsafe else None
        self._kind = kind
        self._bus = bus
        self._quiet_seconds = quiet_seconds
        self._clock = clock
        self._turn = threading.RLock()
        self._ring: Any = loaded
        self._declined_at: float | None = None
        self._asking = False

    @property
    def prompting(self) -> bool:
        """Return whether the library is at work: nobody can see whether that is a prompt."""
        return self._asking

    @property
    def takes_password(self) -> bool:
        """Return False: the library knows no passwords."""
        return False

    @property
    def where(self) -> str:
        """Return which keyring it is."""
        return self.title

    def read(self, service: str, account: str, *, ask: bool) -> str | None:
        """Return the text of an item."""
        return self._asked(lambda ring: _text(ring.get_password(service, account)), ask=ask)

    def write(self, service: str, account: str, text: str, *, label: str, ask: bool) -> None:
        """Put an item in its place, and its name on the list; the library has labels of its own."""
        del label
        self._require_room(text)

        def writing(ring: Any) -> None:  # noqa: ANN401 -- the library is loaded late
            self._rename(ring, service, lambda names: names | {account})
            ring.set_password(service, account, text)

        self._asked(writing, ask=ask)

    def remove(self, service: str, account: str, *, ask: bool) -> bool:
        """Remove an item, and its name from the list."""

        def removing(ring: Any) -> bool:  # noqa: ANN401
            there = ring.get_password(service, account) is not None
            if there:
                ring.delete_password(service, account)
            self._rename(ring, service, lambda names: names - {account})
            return there

        return self._asked(removing, ask=ask)

    def accounts(self, service: str) -> frozenset[str]:
        """Return the accounts that were written from here."""
        return self._asked(lambda ring: _names(ring, service), ask=False)

    def lock(self) -> Lock | None:
        """Return what is locked, as far as is known from when it was asked last."""
        with self._turn:
            if self._declined():
                return Lock(what=self.where, takes_password=False)
        # Whether it is there at all can be seen without a prompt.
        return self._asked(lambda _: None, ask=False)

    def unlock(self, password: str) -> None:
        """Refuse: the library knows no passwords."""
        del password
        message = f"{self.title} takes its password at its own prompt"
        raise RefusedError(message, hint=UNLOCK)

    def ask(self) -> None:
        """Have it ask, by reading something."""
        with self._turn:
            self._declined_at = None
        self._asked(lambda ring: ring.get_password(_PROBE, _PROBE), ask=True)

    def listen(self, changed: Callable[[], None]) -> None:
        """Do nothing: the library hears of nothing."""

    def forgo(self, changed: Callable[[], None]) -> None:
        """Do nothing."""

    def dismiss(self) -> None:
        """Do nothing: the prompt is the platform's."""

    def close(self) -> None:
        """Do nothing: the library keeps nothing open that it lets go of."""

    def _declined(self) -> bool:
        return self._declined_at is not None and self._clock() - self._declined_at < self._quiet_seconds

    def _rename(self, ring: Any, service: str, change: Callable[[frozenset[str]], frozenset[str]]) -> None:  # noqa: ANN401
        before = _names(ring, service)
        after = change(before)
        if after == before:
            return
        if after:
            text = keyring_text.encode_names(after)
            self._require_room(text)
            ring.set_password(service + _NAMES, _ALL, text)
        else:
            ring.delete_password(service + _NAMES, _ALL)

    def _require_room(self, text: str) -> None:
        most = self._kind.most
        if most is not None and len(text.encode("utf-16-le", "surrogatepass")) > most:
            message = f"an item of the {self.title} holds {most} bytes of UTF-16, and this would be more"
            raise RefusedError(message, hint="mcp-broker secret set NAME --backend local")

    def _asked(self, question: Callable[[Any], _T], *, ask: bool) -> _T:
        with self._turn:
            if self._declined():
                message = f"{self.title} is locked, and somebody has declined to unlock it"
                raise LockedError(message, hint=UNLOCK)
            self._asking = ask
            try:
                found = question(self._loaded())
            except BackendError:
                raise
            except Exception as error:  # noqa: BLE001 -- each keyring has errors of its own
                raise self._in_our_words(error) from None
            finally:
                self._asking = False
            self._declined_at = None
            return found

    def _loaded(self) -> Any:  # noqa: ANN401
        if self._ring is None:
            if self._kind.module == _KWALLET and session_bus.VARIABLE not in os.environ:
                # The library behind it looks there alone.
                os.environ[session_bus.VARIABLE] = session_bus.address(self._bus)
            try:
                kind = getattr(importlib.import_module(self._kind.module or ""), self._kind.attribute)
            except (ImportError, AttributeError):
                message = f"there is no {self.title} here"
                raise UnavailableError(message, hint="mcp-broker check") from None
            if not kind.viable:
                message = f"{self.title} does not work here: what it needs is not installed or does not run"
                raise UnavailableError(message, hint="keyring --list-backends says what the keyring library finds")
            self._ring = kind()
        return self._ring

    def _in_our_words(self, error: Exception) -> BackendError:
        from keyring import errors  # noqa: PLC0415 -- loaded by now

        declined = isinstance(error, errors.KeyringLocked)
        # Where KWallet's prompt is declined while something is written or removed, the library says so.
        declined = declined or (isinstance(error, errors.PasswordSetError | errors.PasswordDeleteError) and self._shut)
        if declined:
            self._declined_at = self._clock()
            return LockedError(f"{self.title} is locked, and nobody has unlocked it", hint=UNLOCK)
        # The kind alone: what a keyring says is not ours to repeat.
        return UnavailableError(f"{self.title} failed: {type(error).__name__}", hint="mcp-broker status")

    @property
    def _shut(self) -> bool:
        return self._kind.module == _KWALLET


def _text(found: Any) -> str | None:  # noqa: ANN401
    return None if found is None else str(found)


def _names(ring: Any, service: str) -> frozenset[str]:  # noqa: ANN401
    return keyring_text.decode_names(_text(ring.get_password(service + _NAMES, _ALL)))
