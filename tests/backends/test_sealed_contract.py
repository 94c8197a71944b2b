"""The sealed store keeps the contract of a backend, with each kind of key."""

from collections.abc import Callable
from pathlib import Path

import pytest

from backends.sealed import SealedBackend
from tests.backends.places import key_file, meddle, passphrase_file, sealed
from tests.contract.backend import WritableBackendContract


class TestSealedWithKeyFile(WritableBackendContract):
    """The contract, with a key file."""

    @pytest.fixture
    def made(self, tmp_path: Path) -> SealedBackend:
        """Return a store in a directory of its own."""
        return sealed(tmp_path, key_file(tmp_path))

    @pytest.fixture
    def again(self, tmp_path: Path) -> Callable[[], SealedBackend]:
        """Return the same store once more."""
        return lambda: sealed(tmp_path, key_file(tmp_path))

    @pytest.fixture
    def elsewhere(self, tmp_path: Path) -> Callable[[str, str], bool]:
        """Return somebody with an editor for databases, whom the store refuses."""
        return lambda _, __: meddle(tmp_path)


class TestSealedWithPassphrase(WritableBackendContract):
    """The contract, with a passphrase."""

    @pytest.fixture
    def made(self, tmp_path: Path) -> SealedBackend:
        """Return a store in a directory of its own."""
        return sealed(tmp_path, passphrase_file(tmp_path))

    @pytest.fixture
    def again(self, tmp_path: Path) -> Callable[[], SealedBackend]:
        """Return the same store once more."""
        return lambda: sealed(tmp_path, passphrase_file(tmp_path))

    @pytest.fixture
    def elsewhere(self, tmp_path: Path) -> Callable[[str, str], bool]:
        """Return somebody with an editor for databases, whom the store refuses."""
        return lambda _, __: meddle(tmp_path)
