"""
Three real nodes with Raft storage and a PostgreSQL behind them; the active one is killed while the broker works.

In front of each node stands what counts its requests, and goes down with it. It
refuses to say how long a cluster takes to recover: it waits for it.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from backends.base import BackendError, LeaseGoneError, LockedError, OutcomeUnknownError, UnavailableError
from backends.vault import VaultBackend
from tests.contract.vault_case import Bench, Run, eventually, issue, opened
from tests.contract.vault_identities import Cluster, Directory
from tests.contract.vault_world import RealWorld, furnish
from tests.fakes.authority import Authority
from tests.fakes.vault_proxy import VaultProxy
from tests.live import vault_server
from tests.live.postgres import Postgres
from tests.live.vault_server import VaultServer
from tests.running import until

pytestmark = pytest.mark.live("vault")

RO: Final = "database/creds/ro"
WORKERS: Final = 20
LEASES: Final = 10
MOST: Final = 30
"""Requests that may be sent away while no node is active, by twenty readers and one who renews; usually it is eight."""


class Three:
    """
    A cluster.

    Attributes:
        world: around whichever node was active first.
        servers: the nodes.
        fronts: what stands in front of each.

    """

    def __init__(self, world: RealWorld, servers: list[VaultServer], fronts: list[VaultProxy], bench: Bench) -> None:
        """Take what runs."""
        self.world = world
        self.servers = servers
        self.fronts = fronts
        self.bench = bench

    def backend(self, **options: Any) -> VaultBackend:  # noqa: ANN401
        """Return a backend that knows all three, the active one last."""
        addresses = [front.address for front in reversed(self.fronts)]
        return self.bench.backend(addresses=addresses, cache="0s", timeout="5s", **options)

    def active(self) -> VaultServer:
        """Return the node that is active now; wait until one is."""
        return until(
            lambda: next((each for each in self.servers if each.health() == 200), None),
            deadline=60,
            said="an active node",
        )

    def kill_active(self) -> None:
        """End the active node with SIGKILL, and what stands in front of it."""
        active = self.active()
        self.fronts[self.servers.index(active)].stop()
        active.kill()

    def sent_away(self) -> int:
        """Return how many requests the nodes have answered with "ask somebody else"."""
        return sum(front.count(status=307) for front in self.fronts)

    def forget(self) -> None:
        """Begin counting anew."""
        for front in self.fronts:
            front.forget()


@pytest.fixture
def three(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Three]:
    """Give a cluster."""
    if vault_server.binary() is None:
        pytest.skip("needs bao or vault on the PATH, or MCP_BROKER_VAULT_BIN")
    postgres: Postgres = request.getfixturevalue("postgres")
    authority = Authority(tmp_path)
    with contextlib.ExitStack() as stack:
        made = [VaultProxy("", trust=authority.trusting(), tls=authority.listening()) for _ in range(3)]
        fronts = [stack.enter_context(each) for each in made]
        known_as = [front.address for front in fronts]
        servers = stack.enter_context(vault_server.cluster(authority, tmp_path / "nodes", known_as))
        for front, server in zip(fronts, servers, strict=True):
            front.upstream = server.address
        people = stack.enter_context(Cluster(authority))
        directory = stack.enter_context(Directory({}))
        world = RealWorld(servers[0], fronts[0], authority, cluster=people, directory=directory, database=postgres)
        furnish(world)
        yield Three(world, servers, fronts, Bench(world, tmp_path))


@pytest.fixture
def run() -> Iterator[Run[Any]]:
    """Run coroutines one after the other on one loop."""
    with asyncio.Runner() as runner:
        yield runner.run


def test_each_write_is_read_back_at_once(three: Three, run: Run[Any]) -> None:
    """Though the standbys may lag, what was just written is what is read: the active node is asked."""

    def write(number: int) -> int:
        answer = three.active().api("POST", "secret/data/written", {"data": {"value": str(number)}})
        return int(answer[1]["data"]["version"])

    async def story() -> list[tuple[int, int | None]]:
        backend = await opened(three.backend())
        found = []
        for number in range(20):
            written = await asyncio.to_thread(write, number)
            found.append((written, (await issue(backend, "secret/written")).version))
        await backend.close()
        return found

    found = run(story())
    assert [written for written, _ in found] == [read for _, read in found]


async def _work(backend: VaultBackend, over: asyncio.Event, seen: Counter[str], versions: list[int]) -> None:
    """Read as fast as one server may, and note what came of it."""
    while not over.is_set():
        try:
            versions.append((await issue(backend, "secret/app")).version or 0)
            seen["done"] += 1
        except BackendError as error:
            seen[type(error).__name__] += 1
        await asyncio.sleep(0.05)


@pytest.mark.slow
def test_no_lease_is_lost_when_the_active_node_is_killed(three: Three, run: Run[Any]) -> None:
    """
    Twenty servers read, ten logins are out, and the active node is killed: every lease goes on.

    Nobody gets an older version than somebody before, nothing but "not now" is
    said, and while no node is active the others see a trickle of requests.
    """

    async def story() -> tuple[list[bool], Counter[str], int, bool]:
        backend = await opened(three.backend())
        out = [(await issue(backend, RO, intent=str(number))).backend_lease or "" for number in range(LEASES)]
        over, seen, versions = asyncio.Event(), Counter[str](), list[int]()
        workers = [asyncio.create_task(_work(backend, over, seen, versions)) for _ in range(WORKERS)]
        await asyncio.sleep(1)
        await asyncio.to_thread(three.kill_active)
        three.forget()

        async def renewed(lease: str) -> bool:
            try:
                return await backend.renew(lease, increment=300) > 200
            except LeaseGoneError:
                raise
            except BackendError as error:
                seen[type(error).__name__] += 1
                return False

        again = [await eventually(partial(renewed, lease), pause=0.2) for lease in out]
        sent_away = three.sent_away()
        over.set()
        await asyncio.gather(*workers)
        minted = await eventually(lambda: _minted(backend))
        await backend.close()
        return again, seen, sent_away, sorted(versions) == versions and versions[-1] == 1 and minted

    again, seen, sent_away, in_order = run(story())
    kinds = {UnavailableError.__name__, LockedError.__name__, OutcomeUnknownError.__name__, "PathError", "LimitedError"}
    said = {name for name in seen if name.endswith("Error")}
    assert ([True] * LEASES, set(), True, True) == (again, said - kinds, sent_away <= MOST, in_order), (seen, sent_away)


async def _minted(backend: VaultBackend) -> bool:
    try:
        found = await issue(backend, RO, intent="afterwards")
    except UnavailableError:
        return False
    await backend.revoke(found.backend_lease or "")
    return True
