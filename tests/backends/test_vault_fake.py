"""The contract of the Vault backend, against the fake."""

from collections.abc import Iterator

import pytest

from tests.contract.vault import VaultContract
from tests.contract.vault_failures import VaultFailures
from tests.contract.vault_leases import VaultLeases
from tests.contract.vault_logins import VaultLogins
from tests.contract.vault_rotating import VaultRotating
from tests.contract.vault_world import FakeWorld, fake_world


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeWorld]:
    """Give one world for all tests of this file."""
    with fake_world(tmp_path_factory.mktemp("world")) as found:
        yield found


class OfTheFake:
    """What makes a contract one of the fake."""

    @pytest.fixture
    def world(self, furnished: FakeWorld) -> FakeWorld:
        """Return the world."""
        return furnished


class TestContract(OfTheFake, VaultContract):
    """Reading, and how it is."""


class TestLogins(OfTheFake, VaultLogins):
    """Who the broker is to the server."""


class TestLeases(OfTheFake, VaultLeases):
    """What is minted."""


class TestRotating(OfTheFake, VaultRotating):
    """What is replaced."""


class TestFailures(OfTheFake, VaultFailures):
    """Outages."""
