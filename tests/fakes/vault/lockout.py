"""
The lock-out of users: after five wrong passwords nobody gets in under that name for a quarter of an hour.

It refuses to tell a right password from a wrong one: who checks reports.
"""

from typing import Final

from tests.fakes.vault.wire import Refusal

THRESHOLD: Final = 5
DURATION: Final = 900.0


class Lockout:
    """Who has failed how often."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self._failed: dict[tuple[str, str], tuple[int, float]] = {}

    def check(self, mount: str, name: str, now: float) -> None:
        """Raise ``Refusal`` for who is locked out."""
        if self.failures(mount, name, now) >= THRESHOLD:
            raise Refusal(403, "permission denied")

    def failed(self, mount: str, name: str, now: float) -> None:
        """Count a wrong password."""
        self._failed[mount, name] = self.failures(mount, name, now) + 1, now

    def succeeded(self, mount: str, name: str) -> None:
        """Forget the wrong ones."""
        self._failed.pop((mount, name), None)

    def failures(self, mount: str, name: str, now: float) -> int:
        """Return how many wrong passwords count against a name."""
        count, last = self._failed.get((mount, name), (0, 0.0))
        return count if now - last < DURATION else 0

    def locked(self, now: float) -> list[tuple[str, str]]:
        """Return who is locked out: the mount's accessor and the name."""
        return [key for key in self._failed if self.failures(*key, now) >= THRESHOLD]
