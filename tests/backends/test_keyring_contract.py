"""The keyring backend keeps the contract of a backend, over a keyring with the library's own interface."""

from collections.abc import Callable
from pathlib import Path

import pytest

from backends.os_keyring import KeyringBackend
from tests.backends.rings import over
from tests.contract.backend import WritableBackendContract
from tests.fakes.ring import Ring


class TestLibraryKeyring(WritableBackendContract):
    """The contract, over a keyring that can read, write and delete, and hears of nothing."""

    @pytest.fixture
    def ring(self) -> Ring:
        """Return an empty keyring."""
        return Ring()

    @pytest.fixture
    def made(self, ring: Ring, tmp_path: Path) -> KeyringBackend:
        """Return a backend that remembers for so short a time that a change elsewhere is seen within the test."""
        return over(ring, tmp_path, cache=0.2)

    @pytest.fixture
    def again(self, ring: Ring, tmp_path: Path) -> Callable[[], KeyringBackend]:
        """Return another over the same keyring."""
        return lambda: over(ring, tmp_path)

    @pytest.fixture
    def elsewhere(self, ring: Ring) -> Callable[[str, str], bool]:
        """Return another program that uses the keyring library."""

        def change(path: str, value: str) -> bool:
            ring.set_password("mcp-broker", path, value)
            return True

        return change
