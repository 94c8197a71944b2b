"""
Reading static values from a backend that falls silent.

Both clocks are numbers here. This module refuses to use a backend that anybody
would have: it has a script of what it answers.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from backends.base import (
    Backend,
    Credential,
    Health,
    LockedError,
    RefusedError,
    Secret,
    SecretNotFoundError,
    UnavailableError,
)
from broker.config import SecretConfig
from broker.errors import BrokerError
from broker.reading import JOINED, Reading

PATIENCE = 0.05
SECRET = SecretConfig(name="s", backend="b", path="p", stale=300.0)

ERRORS: Mapping[str, Exception] = {
    "unavailable": UnavailableError("it is away"),
    "locked": LockedError("it is sealed"),
    "refused": RefusedError("no"),
    "missing": SecretNotFoundError("nothing there"),
}


@dataclass
class Scripted:
    """A backend that does as it is told: answers, raises, or hangs."""

    says: str = "a value"
    ttl: float | None = None
    asked: int = 0
    name: str = "b"
    awaited: asyncio.Event = field(default_factory=asyncio.Event)

    async def open(self) -> None:
        """Have nothing to open."""

    async def close(self) -> None:
        """Have nothing to close."""

    def mints(self, path: str) -> bool:  # noqa: ARG002
        """Mint nothing."""
        return False

    def at_hand(self, path: str) -> Credential | None:  # noqa: ARG002
        """Have nothing at hand."""
        return None

    async def issue(self, path: str, *, params: Mapping[str, Any], intent: str) -> Credential:  # noqa: ARG002
        """Do as the script says."""
        self.asked += 1
        if self.says == "hang":
            await self.awaited.wait()
        elif self.says == "slow":
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        if self.says in ERRORS:
            raise ERRORS[self.says]
        return Credential(values={"value": Secret(self.says)}, ttl=self.ttl)

    async def renew(self, backend_lease: str, *, increment: float) -> float:  # noqa: ARG002
        """Have nothing to renew."""
        return increment

    async def revoke(self, backend_lease: str) -> None:
        """Have nothing to revoke."""

    async def health(self) -> Health:
        """Be well."""
        return Health(state="ok")


class Stage:
    """A backend, what reads from it, and the time."""

    def __init__(self, secret: SecretConfig = SECRET) -> None:
        """Begin at some time, with a backend that answers."""
        self.now = 1000.0
        self.secret = secret
        self.backend = Scripted()
        self.reading = Reading(clock=lambda: self.now, monotonic=lambda: self.now, patience=PATIENCE)
        self.reading.adopt([secret])

    async def read(self) -> tuple[str, bool]:
        """Return the value that is served, or the code of the refusal, and whether it is stale."""
        backend: Backend = self.backend
        try:
            credential, stale = await self.reading.read(backend, self.secret, "an-intent")
        except BrokerError as error:
            return error.code, False
        return credential.values["value"].expose(), stale


def told(story: Callable[[Stage], Any], secret: SecretConfig = SECRET) -> Any:  # noqa: ANN401
    """Return what a story ends with."""

    async def run() -> Any:  # noqa: ANN401
        stage = Stage(secret)
        try:
            return await story(stage)
        finally:
            stage.reading.close()

    return asyncio.run(run())


@pytest.mark.parametrize("silence", ["unavailable", "locked", "hang"])
def test_a_silent_backend_is_stood_in_for(silence: str) -> None:
    """What was read last is served, as stale, when the backend is away, sealed or hangs; then it is refused."""

    async def story(stage: Stage) -> list[Any]:
        found: list[Any] = [await stage.read()]
        stage.backend.says = silence
        stage.now += 200.0
        found.append(await stage.read())
        stage.now += 100.0
        stage.backend.says = "unavailable" if silence == "hang" else silence
        found.append((await stage.read())[1])
        return found

    assert [("a value", False), ("a value", True), False] == told(story)


@pytest.mark.parametrize(("no", "code"), [("refused", "denied"), ("missing", "unavailable")])
def test_a_no_is_never_papered_over(no: str, code: str) -> None:
    """What a backend refuses or has no more is refused at once, and is not served when it falls silent after that."""

    async def story(stage: Stage) -> list[Any]:
        await stage.read()
        stage.backend.says = no
        found = [await stage.read()]
        stage.backend.says = "unavailable"
        return [*found, await stage.read()]

    assert [(code, False), ("unavailable", False)] == told(story)


def test_nothing_is_kept_that_no_config_wants() -> None:
    """A secret without the option is refused as soon as its backend is silent."""

    async def story(stage: Stage) -> tuple[str, bool]:
        await stage.read()
        stage.backend.says = "unavailable"
        found: tuple[str, bool] = await stage.read()
        return found

    assert ("unavailable", False) == told(story, SecretConfig(name="s", backend="b", path="p"))


def test_another_config_drops_what_it_does_not_want() -> None:
    """A value is served no more once the config in force does not say so, whatever a later one says."""

    async def story(stage: Stage) -> tuple[str, bool]:
        await stage.read()
        stage.reading.adopt([])
        stage.reading.adopt([SECRET])
        stage.backend.says = "unavailable"
        found: tuple[str, bool] = await stage.read()
        return found

    assert ("unavailable", False) == told(story)


def test_no_value_is_served_past_its_own_time() -> None:
    """A value that its source promised for a minute is served for a minute, though the config allows five."""

    async def story(stage: Stage) -> list[Any]:
        stage.backend.ttl = 60.0
        await stage.read()
        stage.backend.says = "unavailable"
        found = []
        for _ in range(2):
            stage.now += 40.0
            found.append(await stage.read())
        return found

    assert [("a value", True), ("unavailable", False)] == told(story)


def test_a_backend_that_hangs_is_waited_for_once() -> None:
    """After one wait a hung backend is left alone: a hundred who ask are served without asking it."""

    async def story(stage: Stage) -> tuple[int, set[Any]]:
        await stage.read()
        stage.backend.says = "hang"
        stage.now += 1.0
        await stage.read()
        before = stage.backend.asked
        found = {await stage.read() for _ in range(100)}
        return stage.backend.asked - before, found

    assert (0, {("a value", True)}) == told(story)


def test_a_silent_backend_is_not_asked_all_the_time() -> None:
    """In ten minutes of ten askers a second, a backend that is away is asked some twenty times and not six thousand."""
    secret = SecretConfig(name="s", backend="b", path="p", stale=3600.0)

    async def story(stage: Stage) -> int:
        await stage.read()
        stage.backend.says = "unavailable"
        for _ in range(6000):
            stage.now += 0.1
            assert ("a value", True) == await stage.read()
        return stage.backend.asked

    assert 15 < told(story, secret) < 60


def test_it_is_fresh_again_when_the_backend_is() -> None:
    """A backend that answers again is asked again, and what it says is no longer stale."""

    async def story(stage: Stage) -> list[Any]:
        await stage.read()
        stage.backend.says = "unavailable"
        found: list[Any] = [await stage.read(), stage.reading.stale(SECRET) is not None]
        stage.backend.says = "a newer value"
        stage.now += 31.0
        return [*found, await stage.read(), stage.reading.stale(SECRET)]

    assert [("a value", True), True, ("a newer value", False), None] == told(story)


def test_another_secret_of_a_silent_backend_is_served_at_once() -> None:
    """What one secret has shown of a backend counts for all of them, and all of them are shown as stale."""
    other = SecretConfig(name="t", backend="b", path="q", stale=300.0)

    async def story(stage: Stage) -> tuple[int, tuple[str, bool], bool]:
        stage.reading.adopt([SECRET, other])
        await stage.read()
        stage.secret = other
        await stage.read()
        stage.backend.says = "hang"
        await stage.read()
        stage.secret = SECRET
        before = stage.backend.asked
        found = await stage.read()
        return stage.backend.asked - before, found, stage.reading.stale(SECRET) is not None

    assert (0, ("a value", True), True) == told(story)


def test_status_says_since_when_and_until_when() -> None:
    """Of a value that is served without its backend it is known when that last confirmed it, and when it ends."""

    async def story(stage: Stage) -> tuple[float, float, str]:
        await stage.read()
        stage.backend.says = "locked"
        stage.now += 10.0
        await stage.read()
        found = stage.reading.stale(SECRET)
        assert found is not None
        return found.since, found.until, found.trouble.code

    assert (1000.0, 1300.0, "locked") == told(story)


def test_who_asks_at_once_causes_one_reading() -> None:
    """A thousand who ask for one value while it is read get the same answer, and the backend was asked once."""

    async def story(stage: Stage) -> tuple[int, set[Any]]:
        stage.backend.says = "slow"
        found = set(await asyncio.gather(*(stage.read() for _ in range(1000))))
        return stage.backend.asked, found

    assert (1, {("slow", False)}) == told(story)


def test_who_asks_later_is_not_answered_with_what_was_asked_before() -> None:
    """Who asks while a reading takes long causes another one: the first may say what is true no more."""

    async def story(stage: Stage) -> tuple[int, tuple[str, bool]]:
        stage.backend.says = "hang"
        first = asyncio.create_task(stage.read())
        await asyncio.sleep(0)
        stage.now += JOINED + 0.1
        stage.backend.says = "a newer value"
        second = await stage.read()
        first.cancel()
        return stage.backend.asked, second

    assert (2, ("a newer value", False)) == told(story)


def test_what_was_changed_through_us_is_read_anew() -> None:
    """After a value was written through the broker neither what is kept nor what is being read is served."""

    async def story(stage: Stage) -> tuple[str, bool]:
        await stage.read()
        stage.reading.forget("b", "p")
        stage.backend.says = "unavailable"
        found: tuple[str, bool] = await stage.read()
        return found

    assert ("unavailable", False) == told(story)


def test_what_can_be_served_no_more_is_not_kept() -> None:
    """A value leaves the memory when its time is over, without anybody asking."""

    async def story(stage: Stage) -> tuple[str, bool]:
        await stage.read()
        stage.now += 301.0
        stage.reading.tick()
        stage.now -= 300.0
        stage.backend.says = "unavailable"
        found: tuple[str, bool] = await stage.read()
        return found

    assert ("unavailable", False) == told(story)
