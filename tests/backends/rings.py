"""What the tests of the keyring backend share: backends over a keyring in memory."""

from pathlib import Path
from typing import Any, Final

from backends.keyring_choice import KINDS
from backends.library_ring import LibraryRing
from backends.os_keyring import KeyringBackend
from tests.fakes.ring import Ring

KWALLET: Final = KINDS["kwallet"]
WINDOWS: Final = KINDS["windows"]


def over(ring: Ring, directory: Path, *, kind: str = "kwallet", **settings: Any) -> KeyringBackend:  # noqa: ANN401
    """Return a backend over a keyring of the library, not open yet."""
    ours = LibraryRing(KINDS[kind], None, loaded=ring)
    return KeyringBackend("desktop", ours, kind, lock_file=directory / "lock", **settings)
