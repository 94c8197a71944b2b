"""The contract of the Vault backend, against a real OpenBao or Vault, with a real PostgreSQL behind it."""

from collections.abc import Iterator

import pytest

from tests.contract.vault import VaultContract
from tests.contract.vault_end_to_end import VaultEndToEnd
from tests.contract.vault_failures import VaultFailures
from tests.contract.vault_leases import VaultLeases
from tests.contract.vault_logins import VaultLogins
from tests.contract.vault_rotating import VaultRotating
from tests.contract.vault_world import RealWorld, real_world
from tests.live.postgres import Postgres
from tests.live.vault_server import binary

pytestmark = pytest.mark.live("vault")


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[RealWorld]:
    """Give one world for all tests of this file."""
    if binary() is None:
        pytest.skip("needs bao or vault on the PATH, or MCP_BROKER_VAULT_BIN")
    database: Postgres = request.getfixturevalue("postgres")
    with real_world(tmp_path_factory.mktemp("world"), database=database) as found:
        yield found


class OfTheRealOne:
    """What makes a contract one of a real server."""

    @pytest.fixture
    def world(self, furnished: RealWorld) -> RealWorld:
        """Return the world."""
        return furnished


class TestContract(OfTheRealOne, VaultContract):
    """Reading, and how it is."""


class TestLogins(OfTheRealOne, VaultLogins):
    """Who the broker is to the server."""


class TestLeases(OfTheRealOne, VaultLeases):
    """What is minted."""


class TestRotating(OfTheRealOne, VaultRotating):
    """What is replaced."""


class TestFailures(OfTheRealOne, VaultFailures):
    """Outages."""


class TestEndToEnd(OfTheRealOne, VaultEndToEnd):
    """From the engine to the process, and back."""
