"""
A keyring that speaks the Secret Service interface over D-Bus: GNOME's, KeePassXC's, newer KWallets'.

The keyring library reads and writes there, too, and the items are the same: who
has stored one with it, or with ``secret-tool``, finds it here. It is spoken to
directly because the library prompts for every question anew, waits without end,
names items in a way that no person understands, and cannot list.

One prompt: whoever finds the keyring locked first has it ask, the others wait
their turn and find it open, or declined. What was declined is not asked again
until somebody has unlocked the keyring or ``unlock`` is called. This module
refuses to talk to a bus of another user and to wait without a deadline.

Source: the Secret Service API Draft, freedesktop.org, 0.2.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, TypeVar, final

from backends import session_bus
from backends.base import BackendError, Lock, LockedError, RefusedError, UnavailableError
from backends.keyring_ring import UNLOCK
from backends.secret_service_words import COLLECTION, IS_LOCKED, ITEM, PROMPT, SERVICE, AnswerError, GoneError

if TYPE_CHECKING:
    from backends.secret_service_talk import Talk
    from backends.secret_service_watch import Watch

_T = TypeVar("_T")

CALL_SECONDS: Final = 5.0
"""How long one question may take that asks nobody."""

PROMPT_SECONDS: Final = 300.0
"""How long a prompt stays open."""

_GENERIC: Final = "org.freedesktop.Secret.Generic"
"""The schema that ``secret-tool`` stores under: with it, an item that it stores takes the place of ours."""

_MEANWHILE: Final = "it was locked meanwhile"
_ATTEMPTS: Final = 3

_LOOK_AGAIN: Final = 0.25
"""Seconds between two looks whether the keyring was unlocked elsewhere while its prompt is open."""


class _ElsewhereError(Exception):
    """The keyring was unlocked elsewhere while its prompt was open."""


@final
class SecretService:
    """
    The default keyring of a Secret Service.

    Attributes:
        title: what a person calls it.
        caution: None: it encrypts.

    """

    def __init__(
        self, bus: str | None, *, call_seconds: float = CALL_SECONDS, prompt_seconds: float = PROMPT_SECONDS
    ) -> None:
        """Use the one on the bus at this address; None for the user's own. Nothing is opened yet."""
        self.title = "Secret Service"
        self.caution: str | None = None
        self._bus = bus
        self._call_seconds = call_seconds
        self._prompt_seconds = prompt_seconds
        self._turn = threading.RLock()
        self._talk: Talk | None = None
        self._label = "default"
        self._takes_password = False
        self._prompting = False
        self._dismissing = threading.Event()
        self._declined: str | None = None
        """Why nobody is asked any more, until somebody has unlocked the keyring."""
        self._watch: Watch | None = None
        self._listeners: tuple[Callable[[], None], ...] = ()

    @property
    def prompting(self) -> bool:
        """Return whether a prompt is open."""
        return self._prompting

    @property
    def takes_password(self) -> bool:
        """Return whether the program behind it has GNOME's interface for that."""
        return self._takes_password

    @property
    def where(self) -> str:
        """Return the keyring's name, as the desktop shows it."""
        return f"the keyring {self._label!r}"

    def read(self, service: str, account: str, *, ask: bool) -> str | None:
        """Return the text of the item that was changed last."""

        def reading(talk: "Talk") -> str | None:
            collection = self._open(talk, ask=ask)
            found = _newest(talk, _items(talk, collection, service, account))
            return None if found is None else talk.secret(found)

        return self._asked(reading)

    def write(self, service: str, account: str, text: str, *, label: str, ask: bool) -> None:
        """Put one item in the place of all that have these attributes."""

        def writing(talk: "Talk") -> None:
            collection = self._open(talk, ask=ask)
            if collection is None:
                raise _no_keyring()
            before = _items(talk, collection, service, account)
            properties = {
                f"{ITEM}.Label": ("s", label),
                f"{ITEM}.Attributes": ("a{ss}", {"xdg:schema": _GENERIC, "service": service, "username": account}),
            }
            replace = True
            written, prompt = talk.call(
                collection, COLLECTION, "CreateItem", "a{sv}(oayays)b", properties, talk.sealed(text), replace
            )
            if prompt != "/":
                raise self._locked(_MEANWHILE)
            _delete(talk, [path for path in before if path != written])

        self._asked(writing)

    def remove(self, service: str, account: str, *, ask: bool) -> bool:
        """Remove every item that has these attributes."""

        def removing(talk: "Talk") -> bool:
            found = _items(talk, self._open(talk, ask=ask), service, account)
            _delete(talk, found)
            return bool(found)

        return self._asked(removing)

    def accounts(self, service: str) -> frozenset[str]:
        """Return the ``username`` of every item of a ``service``."""

        def listing(talk: "Talk") -> frozenset[str]:
            collection = self._open(talk, ask=False)
            if collection is None:
                return frozenset()
            (paths,) = talk.call(collection, COLLECTION, "SearchItems", "a{ss}", {"service": service})
            attributes = [talk.read(path, ITEM, "Attributes") for path in paths]
            return frozenset(str(each["username"]) for each in attributes if "username" in each)

        return self._asked(listing)

    def lock(self) -> Lock | None:
        """Return what is locked."""

        def looking(talk: "Talk") -> Lock | None:
            try:
                if self._open(talk, ask=False) is None:
                    raise _no_keyring()
            except LockedError:
                return Lock(what=self.where, takes_password=self._takes_password)
            return None

        return self._asked(looking)

    def unlock(self, password: str) -> None:
        """Unlock it in a conversation of its own: whoever waits at the prompt finds it open."""
        with self._in_our_words():
            talk = self._dialled()
            with contextlib.closing(talk):
                collection = talk.collection()
                if collection is None:
                    raise _no_keyring()
                if not talk.takes_password:
                    message = f"{self.where} takes its password at its own prompt"
                    raise RefusedError(message, hint=UNLOCK)
                if talk.read(collection, COLLECTION, "Locked") and not talk.unlock(collection, password):
                    message = f"that is not the password of {self.where}"
                    raise RefusedError(message, hint=UNLOCK)
                self._declined = None

    def ask(self) -> None:
        """Have it ask, also where somebody has declined."""

        def asking(talk: "Talk") -> None:
            self._declined = None
            if self._open(talk, ask=True) is None:
                raise _no_keyring()

        self._asked(asking)

    def listen(self, changed: Callable[[], None]) -> None:
        """Listen to the bus, from now on or still."""
        with self._turn, self._in_our_words():
            if changed not in self._listeners:
                self._listeners = (*self._listeners, changed)
            if self._watch is None or not self._watch.listening:
                from backends.secret_service_watch import Watch  # noqa: PLC0415 -- loads what speaks to the bus

                self._watch = Watch(session_bus.address(self._bus), self._tell)

    def forgo(self, changed: Callable[[], None]) -> None:
        """Tell one listener less."""
        self._listeners = tuple(each for each in self._listeners if each != changed)
        if not self._listeners and self._watch is not None:
            self._watch.close()

    def _tell(self) -> None:
        for changed in self._listeners:
            changed()

    def dismiss(self) -> None:
        """Close the prompt that is open."""
        self._dismissing.set()

    def close(self) -> None:
        """Hang up."""
        self.dismiss()
        with self._turn:
            self._hang_up()

    def _open(self, talk: "Talk", *, ask: bool) -> str | None:
        """Return the default collection, unlocked; None where there is none."""
        collection = talk.collection()
        if collection is None:
            return None
        if not talk.read(collection, COLLECTION, "Locked"):
            self._declined = None
        elif self._declined is not None:
            raise self._locked(self._declined)
        elif not ask:
            raise self._locked(None)
        else:
            self._prompt(talk, collection)
        return collection

    def _prompt(self, talk: "Talk", collection: str) -> None:
        """Have the keyring ask somebody, and wait until it is open, or will not be."""
        _, prompt = talk.call(SERVICE[0], SERVICE[1], "Unlock", "ao", [collection])
        if prompt == "/":
            return
        self._dismissing.clear()
        self._prompting = True
        try:
            self._declined = self._wait(talk, collection, prompt)
        except (GoneError, OSError):
            # Not to be asked again by itself: a program that dies of its prompt would do so for ever.
            self._declined = "it ended while it asked"
            self._hang_up()
        finally:
            self._prompting = False
        if self._declined is not None:
            raise self._locked(self._declined)

    def _wait(self, talk: "Talk", collection: str, prompt: str) -> str | None:
        """
        Return why it is still locked, or None where it is open now.

        A prompt that is not wanted any more is taken back by hanging up, which
        the keyring notices. GNOME's ends with SIGABRT where it is told so by
        ``Dismiss`` (seen with 42.1), and every other program's secrets with it.
        """
        until = time.monotonic() + self._prompt_seconds
        with talk.completed(prompt) as done:
            talk.call(prompt, PROMPT, "Prompt", "s", "")
            while not talk.wait(done, _LOOK_AGAIN):
                if not talk.read(collection, COLLECTION, "Locked"):
                    raise _ElsewhereError
                if time.monotonic() > until or self._dismissing.is_set():
                    self._hang_up()
                    return "nobody has answered its prompt"
        locked = talk.read(collection, COLLECTION, "Locked")
        return "its prompt was dismissed, or there is no desktop to show it on" if locked else None

    def _locked(self, why: str | None) -> LockedError:
        return LockedError(f"{self.where} is locked{'' if why is None else f', and {why}'}", hint=UNLOCK)

    def _asked(self, question: "Callable[[Talk], _T]") -> _T:
        """Ask, one question at a time; once more where the program at the other end is not the one it was."""
        with self._turn:
            for _ in range(_ATTEMPTS):
                new = self._talk is None
                try:
                    return self._once(question)
                except _ElsewhereError:
                    self._declined = None
                    self._hang_up()
                except GoneError as gone:
                    if new:
                        raise UnavailableError(gone.message, hint=gone.hint) from None
            message = "the program that keeps the keyring ends again and again"
            raise UnavailableError(message, hint="mcp-broker status")

    def _once(self, question: "Callable[[Talk], _T]") -> _T:
        try:
            with self._in_our_words():
                return question(self._connected())
        except UnavailableError:
            self._hang_up()
            raise

    def _connected(self) -> "Talk":
        if self._talk is None:
            self._talk = self._dialled()
        return self._talk

    def _dialled(self) -> "Talk":
        from backends.secret_service_talk import dialled  # noqa: PLC0415 -- here, on a thread, and not at the start

        talk = dialled(session_bus.address(self._bus), seconds=self._call_seconds)
        self._takes_password = talk.takes_password
        self._label = talk.label
        return talk

    def _hang_up(self) -> None:
        if self._talk is not None:
            self._talk.close()
            self._talk = None

    @contextlib.contextmanager
    def _in_our_words(self) -> Iterator[None]:
        try:
            yield
        except (BackendError, _ElsewhereError):
            raise
        except TimeoutError:
            message = f"the {self.title} has not answered for {self._call_seconds:g} seconds"
            raise UnavailableError(message, hint="mcp-broker status") from None
        except AnswerError as error:
            if error.name == IS_LOCKED:
                raise self._locked(_MEANWHILE) from None
            message = f"the {self.title} refused: {error.name}"
            raise UnavailableError(message, hint="mcp-broker status") from None
        except Exception as error:  # noqa: BLE001 -- whatever the libraries make of what comes over the bus
            message = f"the {self.title} does not answer as one does: {type(error).__name__}"
            raise UnavailableError(message, hint="mcp-broker status") from None


def _items(talk: "Talk", collection: str | None, service: str, account: str) -> list[str]:
    if collection is None:
        return []
    (paths,) = talk.call(collection, COLLECTION, "SearchItems", "a{ss}", {"service": service, "username": account})
    return list(paths)


def _newest(talk: "Talk", paths: list[str]) -> str | None:
    """Return the item that was changed last: programs that store under attributes of their own leave several."""
    if len(paths) <= 1:
        return next(iter(paths), None)
    # Within one second, which is all that is known, the one that was made last.
    return max(paths, key=lambda path: (int(talk.read(path, ITEM, "Modified")), len(path), path))


def _delete(talk: "Talk", paths: list[str]) -> None:
    for path in paths:
        # Somebody else may have been quicker.
        with contextlib.suppress(AnswerError):
            talk.call(path, ITEM, "Delete")


def _no_keyring() -> UnavailableError:
    return UnavailableError(
        "there is no default keyring yet", hint="log in on the desktop once, or: gnome-keyring-daemon --unlock"
    )
