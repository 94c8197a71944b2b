"""What a server warns of: in the log, once for each path, in our words."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from backends.base import SecretNotFoundError
from backends.vault import VaultBackend
from tests.contract.vault_case import Bench, Run, VaultCase, issue, opened
from tests.contract.vault_world import FakeWorld, fake_world
from tests.fakes.faulty_http import Lie, Say

CAPPED = 'TTL of "25h" exceeded the effective max_ttl of "20m"; TTL value is capped accordingly'


def capped(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer that warns as a real server does."""
    return {**answer, "warnings": [CAPPED]}


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeWorld]:
    """Give one world for all tests of this file."""
    with fake_world(tmp_path_factory.mktemp("world")) as found:
        yield found


class TestWarnings(VaultCase):
    """Against the fake."""

    @pytest.fixture
    def world(self, furnished: FakeWorld) -> FakeWorld:
        """Return the world."""
        return furnished

    def test_a_time_that_was_cut_down_is_said_once(
        self, world: FakeWorld, backend: VaultBackend, run: Run[Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        """Three credentials of a role whose time was capped make one line, and it holds none of the server's words."""
        world.front.fail(Lie(change=capped), on="database/creds/ro")
        caplog.set_level(logging.WARNING, logger="mcp_broker.vault")
        for _ in range(3):
            run(issue(backend, "database/creds/ro"))
        line = "backend vault: database/creds/ro: the server has cut the time that was asked for down to its max_ttl"
        assert [line] == [record.getMessage() for record in caplog.records]

    def test_a_versioned_engine_that_nobody_told_of_is_named(
        self, world: FakeWorld, bench: Bench, run: Run[Any]
    ) -> None:
        """Where the login may not ask what is mounted, the answer's warning says that it is K/V 2, and so do we."""
        world.front.fail(Say(status=403, errors=("permission denied",)), on="sys/internal/ui/mounts")
        policy = 'path "secret/*" { capabilities = ["read"] }'
        world.api("POST", "sys/policies/acl/whole", {"policy": policy})
        world.api("POST", "auth/approle/role/whole", {"token_policies": "whole", "token_ttl": "1h"})

        async def story() -> tuple[str, str | None]:
            backend = await opened(bench.backend(bench.approle("whole")))
            try:
                with pytest.raises(SecretNotFoundError) as caught:
                    await issue(backend, "secret/app")
                return caught.value.message[:10], caught.value.hint
            finally:
                await backend.close()

        assert ("it is K/V ", "mcp-broker vault policy vault; bao kv get secret/app") == run(story())
