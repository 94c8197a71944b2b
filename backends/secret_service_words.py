"""
The names of the Secret Service on the bus, and what can come of a question.

Source: the Secret Service API Draft, freedesktop.org, 0.2. This module refuses
to load a library: whoever knows the words need not have spoken to anybody.
"""

from typing import Final

from backends.base import UnavailableError

NAME: Final = "org.freedesktop.secrets"
SERVICE: Final = ("/org/freedesktop/secrets", "org.freedesktop.Secret.Service")
COLLECTION: Final = "org.freedesktop.Secret.Collection"
ITEM: Final = "org.freedesktop.Secret.Item"
PROMPT: Final = "org.freedesktop.Secret.Prompt"

IS_LOCKED: Final = "org.freedesktop.Secret.Error.IsLocked"


class GoneError(UnavailableError):
    """The program has ended, or its bus has; there may be another one by now."""


class AnswerError(Exception):
    """
    The program says no.

    Attributes:
        name: of the error, as it is on the bus. What else is said there is not ours to repeat.

    """

    def __init__(self, name: str | None) -> None:
        """Keep the name where it is one, and nothing where somebody has put something else in its place."""
        plain = name is not None and name.replace(".", "").replace("_", "").isalnum() and len(name) <= _LONGEST
        self.name = str(name) if plain else "an error"
        super().__init__(self.name)


_LONGEST: Final = 128
