"""
What every contract test of the Vault backend begins with: a world, a backend in it, a place to keep things.

A subclass gives the fixture ``world``. This module refuses to test anything.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

from backends.base import Credential, Secret, Surroundings
from backends.vault import VaultBackend, from_config
from tests.contract.vault_world import VaultWorld, calm, role_id, secret_id

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, T]], T]

DEADLINE: Final = 30.0
"""Seconds that anything here is waited for; most takes a hundredth of one."""


class MemoryDrawer:
    """A drawer that lasts as long as the test: what a broker would keep over a restart."""

    def __init__(self) -> None:
        """Begin empty."""
        self.content: Secret | None = None

    async def read(self) -> Secret | None:
        """Return what was kept."""
        return self.content

    async def write(self, value: Secret | None) -> None:
        """Keep it."""
        self.content = value


class Bench:
    """
    Makes backends in a world, with the files that they log in with.

    Attributes:
        directory: where those files are.
        drawer: where all these backends keep their tokens.

    """

    def __init__(self, world: VaultWorld, directory: Path) -> None:
        """Work in ``directory``."""
        self.world = world
        self.directory = directory
        self.drawer = MemoryDrawer()

    def file(self, name: str, content: str) -> str:
        """Write a file that only its owner can read; return its path."""
        path = self.directory / name
        path.touch(0o600)
        path.write_text(f"{content}\n")
        return str(path)

    def approle(self, role: str = "broker") -> Mapping[str, Any]:
        """Return how to log in with a new secret-id of a role."""
        where = self.file(f"{role}-secret-id", secret_id(self.world, role))
        return {"approle": {"role_id": role_id(self.world, role), "secret_id_file": where}}

    def backend(
        self,
        auth: Mapping[str, Any] | None = None,
        *,
        drawer: MemoryDrawer | None = None,
        **options: Any,  # noqa: ANN401
    ) -> VaultBackend:
        """Return a backend that is not open yet."""
        here = {} if "addresses" in options else {"address": self.world.front.address}
        known = {**here, "ca_file": str(self.world.authority.ca_file), "timeout": "10s"}
        chosen = {**known, "auth": self.approle() if auth is None else auth, **options}
        kept = self.drawer if drawer is None else drawer
        surroundings = Surroundings(mode="user", config=self.directory, state=self.directory, drawer=kept)
        return from_config("vault", chosen, surroundings)


class VaultCase:
    """One test with a world and a bench."""

    @pytest.fixture
    def run(self) -> Iterator[Run[Any]]:
        """Run coroutines one after the other on one loop."""
        with asyncio.Runner() as runner:
            yield runner.run

    @pytest.fixture
    def bench(self, world: VaultWorld, tmp_path: Path) -> Iterator[Bench]:
        """Give a bench in a world that is whole, and leave it so."""
        calm(world)
        yield Bench(world, tmp_path)
        calm(world)

    @pytest.fixture
    def backend(self, bench: Bench, run: Run[Any]) -> Iterator[VaultBackend]:
        """Give a backend that is open and logged in, with nothing counted yet."""
        made = bench.backend()
        run(opened(made))
        bench.world.front.forget()
        yield made
        run(made.close())


async def opened(backend: VaultBackend) -> VaultBackend:
    """Open a backend and wait until it is logged in."""
    await backend.open()
    async with asyncio.timeout(DEADLINE):
        while (await backend.health()).state != "ok":  # noqa: ASYNC110 -- nobody tells us
            await asyncio.sleep(0.02)
    return backend


async def issue(backend: VaultBackend, path: str, *, intent: str = "an-intent", **params: Any) -> Credential:  # noqa: ANN401
    """Issue what is at a path."""
    return await backend.issue(path, params=params, intent=intent)


def exposed(credential: Credential) -> dict[str, str]:
    """Return the values of a credential."""
    return {name: value.expose() for name, value in credential.values.items()}


async def eventually(what: Callable[[], Coroutine[Any, Any, T]], *, pause: float = 0.1) -> T:
    """Return the first answer that is true."""
    async with asyncio.timeout(DEADLINE):
        while not (found := await what()):  # noqa: ASYNC110 -- nobody tells us
            await asyncio.sleep(pause)
        return found
