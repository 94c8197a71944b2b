"""
A cluster of two, fake: a standby that lags, an active node that dies, redirects to a dead one.

tests/live/test_vault_cluster.py has a real one of three. It refuses to time anything.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.base import BackendError, UnavailableError
from backends.vault import VaultBackend
from tests.contract.vault_case import Bench, Run, eventually, issue, opened
from tests.contract.vault_identities import Cluster
from tests.contract.vault_world import FakeWorld, furnish, leases
from tests.fakes.authority import Authority
from tests.fakes.vault.server import FakeVault, Node

RO = "database/creds/ro"


class Two:
    """
    An active node and a standby.

    Attributes:
        world: around the active one.
        bench: makes backends that know both addresses.

    """

    def __init__(self, world: FakeWorld, active: FakeVault, standby: FakeVault, directory: Path) -> None:
        """Take what runs."""
        self.world = world
        self.active = active
        self.standby = standby
        self.bench = Bench(world, directory)

    def backend(self) -> VaultBackend:
        """Return a backend that asks the standby first, if nothing tells it better."""
        return self.bench.backend(addresses=[self.standby.address, self.active.address], cache="0s", timeout="3s")

    def write(self, value: str) -> int:
        """Write a version of ``secret/app``; return its number."""
        return int(self.world.api("POST", "secret/data/app", {"data": {"value": value}})[1]["data"]["version"])

    def kill(self) -> None:
        """Cut the active node off; the standby goes on to send to it."""
        self.active.front.stop()
        self.standby.node.alive = False

    def elect(self) -> None:
        """Make the standby the active one."""
        self.standby.node.standby, self.standby.node.behind, self.standby.node.alive = False, 0, True
        self.standby.node.leader = self.standby.address


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    """Give a cluster."""
    authority = Authority(tmp_path)
    with contextlib.ExitStack() as stack:
        people = stack.enter_context(Cluster(authority))
        active = stack.enter_context(FakeVault(node=Node(clustered=True), tls=authority.listening()))
        node = Node(standby=True, clustered=True, leader=active.address, behind=3600)
        standby = stack.enter_context(FakeVault(vault=active.vault, node=node, tls=authority.listening()))
        active.node.leader = active.address
        world = FakeWorld(active, authority, people, None)
        furnish(world)
        yield Two(world, active, standby, tmp_path)


@pytest.fixture
def run() -> Iterator[Run[Any]]:
    """Run coroutines one after the other on one loop."""
    with asyncio.Runner() as runner:
        yield runner.run


def test_what_was_just_written_is_read(two: Two, run: Run[Any]) -> None:
    """With a standby an hour behind, each write is read back at once: the active node is asked."""

    async def story() -> list[int | None]:
        backend = await opened(two.backend())
        found = []
        for number in range(10):
            two.write(str(number))
            found.append((await issue(backend, "secret/app")).version)
        await backend.close()
        return found

    assert list(range(2, 12)) == run(story())


def test_nothing_older_is_handed_out_than_before(two: Two, run: Run[Any]) -> None:
    """When only a standby is left that is behind what was read before, it is not believed."""
    two.world.pass_time(10)
    two.standby.node.behind = 5

    async def story() -> None:
        backend = await opened(two.backend())
        two.write("new")
        assert (await issue(backend, "secret/app")).version == 2
        two.kill()
        with pytest.raises(BackendError):
            await issue(backend, "secret/app")
        await backend.close()

    run(story())


def test_a_standby_goes_on_reading_while_nobody_can_be_asked_to_mint(two: Two, run: Run[Any]) -> None:
    """Without an active node every mint fails, and every read that the standby can answer itself succeeds."""
    two.write("known")
    two.standby.node.behind = 0

    async def story() -> tuple[int, int]:
        backend = await opened(two.backend())
        await issue(backend, "secret/app")
        two.kill()
        minted = read = 0
        for number in range(20):
            with contextlib.suppress(UnavailableError):
                await issue(backend, RO, intent=str(number))
                minted += 1
            with contextlib.suppress(UnavailableError):
                await issue(backend, "secret/app")
                read += 1
        await backend.close()
        return minted, read

    minted, read = run(story())
    assert (0, True) == (minted, read >= 19)


def test_a_redirect_to_a_dead_node_means_wait(two: Two, run: Run[Any]) -> None:
    """While the standby sends to a dead node nothing is minted and little is asked; then leases go on as they were."""
    before = set(leases(two.world, RO))

    async def story() -> tuple[set[type[BaseException]], int, bool]:
        backend = await opened(two.backend())
        lease = (await issue(backend, RO)).backend_lease or ""
        two.kill()
        two.standby.front.forget()
        found: set[type[BaseException]] = set()
        for number in range(50):
            try:
                await issue(backend, RO, intent=str(number))
            except BackendError as error:
                found.add(type(error))
        asked = two.standby.front.count()
        two.elect()

        async def renewed() -> bool:
            with contextlib.suppress(UnavailableError):
                return await backend.renew(lease, increment=300) > 200
            return False

        again = await eventually(renewed)
        await backend.close()
        return found, asked, again

    kinds, asked, again = run(story())
    assert (True, True, True, 1) == (
        all(issubclass(each, UnavailableError) for each in kinds),
        asked <= 12,
        again,
        len(set(leases(two.world, RO)) - before),
    )
