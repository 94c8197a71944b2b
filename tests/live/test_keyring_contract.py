"""The keyring backend keeps the contract of a backend, over a real gnome-keyring."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backends.base import Surroundings
from backends.os_keyring import KeyringBackend, from_config
from tests.contract.backend import WritableBackendContract
from tests.live.desktop import COMMANDS, Desktop, desktop

pytestmark = pytest.mark.live("keyring", commands=COMMANDS)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desktop]:
    """Run one session for all tests here."""
    with desktop(tmp_path_factory.mktemp("desktop")) as there:
        yield there


class TestSecretService(WritableBackendContract):
    """The contract, with an unlocked keyring, and ``secret-tool`` as the other program."""

    @pytest.fixture
    def made(self, session: Desktop, tmp_path: Path) -> KeyringBackend:
        """Return a backend over an empty keyring."""
        session.clear()
        return self._backend(session, tmp_path)

    @pytest.fixture
    def again(self, session: Desktop, tmp_path: Path) -> Callable[[], KeyringBackend]:
        """Return another over the same keyring."""
        return lambda: self._backend(session, tmp_path)

    @pytest.fixture
    def elsewhere(self, session: Desktop) -> Callable[[str, str], bool]:
        """Return ``secret-tool``."""

        def change(path: str, value: str) -> bool:
            session.secret_tool("store", f"--label={path}", "service", "mcp-broker", "username", path, said=value)
            return True

        return change

    def _backend(self, session: Desktop, directory: Path) -> KeyringBackend:
        return from_config(
            "desktop", {"bus": session.address}, Surroundings(mode="user", config=directory, state=directory)
        )
