"""Logins in a real PostgreSQL through a running broker, with the fake Vault's own engine in between."""

from collections.abc import Iterator

import pytest

from tests.contract.vault_end_to_end import VaultEndToEnd
from tests.contract.vault_world import FakeWorld, fake_world
from tests.live.postgres import Postgres

pytestmark = pytest.mark.live("postgresql")


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[FakeWorld]:
    """Give one world for all tests of this file."""
    with fake_world(tmp_path_factory.mktemp("world"), database=postgres) as found:
        yield found


class TestEndToEnd(VaultEndToEnd):
    """From the engine to the process, and back."""

    @pytest.fixture
    def world(self, furnished: FakeWorld) -> FakeWorld:
        """Return the world."""
        return furnished
