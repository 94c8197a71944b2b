"""
A crash at every moment of the replacement of the broker's own secret-id, and a lost answer at each of its questions.

The fake Vault is the judge: whatever stands in the file logs in, at each crash, and
in the end it is the only one that does. This module refuses to stop at one crash.
"""

import asyncio
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from backends.base import BackendError
from backends.vault import VaultBackend
from tests.contract.vault_case import Bench, MemoryDrawer, opened
from tests.contract.vault_world import FakeWorld, calm, fake_world, role_id, secret_id
from tests.fakes.faulty_http import Cut, Say
from tests.fakes.vault.logins import AppRole
from tests.rotation.world import Crash

STAGES: Final = ("begun", "made", "registered", "logged in", "kept", "in place", "destroyed", "forgotten")
OFTEN: Final = 3 if "MCP_BROKER_ROTATION_CRASHES" in os.environ else 2
"""Crashes in a row, at any stages: 128 for the suite, 1536 for a campaign."""

ROLE: Final = "itself"
MAY: Final = f"""
path "auth/approle/role/{ROLE}/custom-secret-id" {{ capabilities = ["create", "update"] }}
path "auth/approle/role/{ROLE}/secret-id/destroy" {{ capabilities = ["create", "update"] }}
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeWorld]:
    """Give a fake Vault with a role that may replace its own secret-id."""
    with fake_world(tmp_path_factory.mktemp("world")) as found:
        found.api("POST", "sys/policies/acl/itself", {"policy": MAY})
        found.api("POST", f"auth/approle/role/{ROLE}", {"token_policies": "broker,children,itself", "token_ttl": "1h"})
        yield found


class Home:
    """One broker's files, and the server that it logs in to."""

    def __init__(self, world: FakeWorld, directory: Path, *, keeps: bool) -> None:
        """Begin with one secret-id; ``keeps`` says whether the broker has its token over a crash."""
        directory.mkdir()
        calm(world)
        self.world, self.keeps = world, keeps
        self.bench = Bench(world, directory)
        for accessor in list(self._method().secret_ids):
            self._method().secret_ids.pop(accessor)
        self.file = Path(self.bench.file("secret-id", secret_id(world, ROLE)))
        self.first = self.file.read_text().strip()
        self.auth = {"approle": {"role_id": role_id(world, ROLE), "secret_id_file": str(self.file)}}

    def _method(self) -> AppRole:
        mount = self.world.fake.vault.mount_of("", "auth/approle/login")
        assert mount is not None
        assert isinstance(mount.engine, AppRole)
        return mount.engine

    def known(self) -> set[str]:
        """Return every secret-id that logs in."""
        return self._method().known_secret_ids(ROLE)

    def judged(self) -> None:
        """Fail where what stands in the file does not log in."""
        assert self.file.read_text().strip() in self.known()

    async def started(self) -> VaultBackend:
        """Return a broker's backend that has just been started."""
        return await opened(self.bench.backend(self.auth, drawer=None if self.keeps else MemoryDrawer()))

    async def rotated(self, crash: str | None) -> bool:
        """Start, rotate, and end at a stage; return whether it came to that stage."""
        backend = await self.started()

        def stage(name: str) -> None:
            self.judged()
            if name == crash:
                raise Crash

        try:
            await backend.rotate_login(token="t", stage=stage)
        except Crash:
            return True
        finally:
            await backend.close()
        return False

    def is_over(self) -> None:
        """Fail where not the one in the file, a new one, alone logs in, or where a file was left behind."""
        now = self.file.read_text().strip()
        assert ({now}, ["secret-id"]) == (self.known(), sorted(each.name for each in self.file.parent.iterdir()))
        assert now != self.first


@pytest.mark.parametrize("keeps", [True, False], ids=["token kept", "token lost"])
def test_a_crash_at_every_moment(world: FakeWorld, tmp_path: Path, *, keeps: bool) -> None:
    """Ended at any stages, what is in the file logs in, and carried on to the end it is new and alone."""

    async def play() -> int:
        crashes = 0
        for number, plot in enumerate(itertools.product(STAGES, repeat=OFTEN)):
            home = Home(world, tmp_path / str(number), keeps=keeps)
            for crash in plot:
                crashes += await home.rotated(crash)
            await home.rotated(None)
            home.is_over()
        print(f"{'token kept' if keeps else 'token lost'}: {crashes} crashes")  # noqa: T201 -- a campaign's result
        return crashes

    assert asyncio.run(play()) >= len(STAGES) ** OFTEN


@pytest.mark.parametrize("question", ["custom-secret-id", "approle/login", "secret-id/destroy"])
@pytest.mark.parametrize("fault", [Cut(), Cut(after=True), Say(status=503)], ids=["unheard", "unanswered", "refused"])
def test_an_answer_that_is_lost(world: FakeWorld, tmp_path: Path, fault: Any, question: str) -> None:  # noqa: ANN401
    """Whatever becomes of a question, what is in the file logs in, and the next attempt brings it to its end."""

    async def play() -> None:
        home = Home(world, tmp_path / "home", keeps=True)
        backend = await home.started()
        world.front.fail(fault, on=question, times=20)
        try:
            await backend.rotate_login(token="t")
        except BackendError:
            home.judged()
        calm(world)
        await backend.close()
        await home.rotated(None)
        home.is_over()

    asyncio.run(play())
