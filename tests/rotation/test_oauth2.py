"""Access tokens by OAuth 2, from a token endpoint that lets each refresh token be used once."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.base import Secret
from broker.rotation.shown import shown
from tests.config.build import config
from tests.fakes.oauth_server import CLIENT, CLIENT_SECRET, TokenServer, token_server
from tests.rotation.world import Crash, World

HOUR = 3600.0


@pytest.fixture
def server() -> Iterator[TokenServer]:
    """Run a token endpoint."""
    with token_server() as found:
        yield found


def text(server: TokenServer, *, refresh: bool = True, more: str = "") -> str:
    """Return a config for an access token."""
    kind = 'refresh_token = "first"' if refresh else 'scope = "read"'
    said = f'token_url = "{server.url}", client_id = "{CLIENT}", client_secret = "client", {kind}'
    return f"[secrets.api]\nrotate = {{ oauth2 = {{ {said} }} {more} }}"


async def opened(directory: Path, server: TokenServer, **options: Any) -> World:  # noqa: ANN401 -- of text
    """Return a world with what the token endpoint wants to see."""
    world = World(directory, config(text(server, **options)))
    await world.open()
    await world.store.put("client", {"value": Secret(CLIENT_SECRET)})
    await world.store.put("first", {"value": Secret(server.refresh)})
    return world


def value(world: World, name: str) -> str:
    """Return what a secret is now."""
    return world.current(name)["value"].expose()


def played(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine to its end."""
    asyncio.run(work())


@pytest.mark.parametrize("refresh", [True, False], ids=["refresh token", "client credentials"])
def test_a_token_is_replaced_before_it_ends(tmp_path: Path, server: TokenServer, *, refresh: bool) -> None:
    """The first comes at once, and each next one when two thirds of the time are over; none was ever too old."""

    async def play() -> None:
        world = await opened(tmp_path, server, refresh=refresh)
        ages = []
        for _ in range(24 * 12):
            await world.tick(after=300)
            course = world.rotations.courses["api"]
            assert course.plan is not None
            ages.append(world.now - course.plan.since)
            assert server.issued[-1] == value(world, "api")
            assert server.refresh == value(world, "first")
        await world.close()
        assert 30 <= len(server.issued) <= 36
        assert max(ages) < HOUR

    played(play)


def test_what_is_asked_is_what_the_config_says(tmp_path: Path, server: TokenServer) -> None:
    """The form has the grant, the client and the scope."""

    async def play() -> None:
        world = await opened(tmp_path, server, refresh=False)
        await world.tick()
        await world.close()
        assert [{"grant_type": "client_credentials", "client_id": CLIENT, "scope": "read"}] == server.asked

    played(play)


def test_a_crash_at_every_moment_loses_no_refresh_token(tmp_path: Path, server: TokenServer) -> None:
    """
    Wherever the broker ends, the next start has the refresh token that is good, and an access token for it.

    One moment is not ours: between the server's change of mind and the first write of its answer.
    """

    async def play() -> None:
        lost = 0
        for moment in range(1, 100):
            home = tmp_path / str(moment)
            home.mkdir()
            world = await opened(home, server)
            world.moments.last = world.moments.count + moment
            ended = False
            with contextlib.suppress(Crash):
                await world.tick()
                await world.tick(after=700)
                ended = True
            known = await staged(world) or server.refresh == value(world, "first")
            await world.crash()
            for _ in range(3):
                await world.tick(after=700)
            lost += not known
            if known:
                assert (server.refresh, server.issued[-1]) == (value(world, "first"), value(world, "api"))
            await world.close()
            if ended:
                assert (True, 1) == (moment > 10, lost)
                return
        raise AssertionError

    played(play)


async def staged(world: World) -> bool:
    """Say whether an answer is staged."""
    return await world.store.drawer("rotation/api").read() is not None


@pytest.mark.parametrize(
    ("behaves", "error", "hint"),
    [
        ("redirect", "127.0.0.1 answered with status 307", "mcp-broker status"),
        ("garbage", "127.0.0.1 answered what is no access token", "mcp-broker status"),
        ("broken", "127.0.0.1 answered with status 500", "mcp-broker status"),
        ("lose", "127.0.0.1 was asked, and its answer was lost", "mcp-broker status"),
    ],
)
def test_trouble_is_said_without_a_token(
    tmp_path: Path, server: TokenServer, behaves: str, error: str, hint: str
) -> None:
    """A redirect is not followed, an answer that makes no sense is not believed, and none of it is repeated."""

    async def play() -> None:
        world = await opened(tmp_path, server)
        server.behaves = behaves
        await world.tick()
        (row,) = shown(world.rotations, world.now)
        await world.close()
        assert ("failed", error, hint) == (row.state, row.error, row.hint)

    played(play)


def test_a_refresh_token_that_is_not_good_any_more_says_what_to_do(tmp_path: Path, server: TokenServer) -> None:
    """Where only a new login helps, that is the hint; once it is there, it goes on by itself."""

    async def play() -> None:
        world = await opened(tmp_path, server)
        server.refresh = "made-up-after-a-new-login"
        await world.tick()
        (row,) = shown(world.rotations, world.now)
        assert "127.0.0.1 does not take the refresh token any more" == row.error
        assert "log in there anew, then mcp-broker secret set first" == row.hint
        await world.store.put("first", {"value": Secret(server.refresh)})
        await world.tick(after=HOUR)
        assert (server.issued[-1], server.refresh) == (value(world, "api"), value(world, "first"))
        await world.close()

    played(play)


def test_a_wrong_client_is_refused(tmp_path: Path, server: TokenServer) -> None:
    """The word of the RFC is all that is repeated."""

    async def play() -> None:
        world = await opened(tmp_path, server)
        await world.store.put("client", {"value": Secret("another")})
        await world.tick()
        (row,) = shown(world.rotations, world.now)
        await world.close()
        assert "127.0.0.1 refused: invalid_client" == row.error

    played(play)


def test_a_server_that_is_away(tmp_path: Path, server: TokenServer) -> None:
    """One that cannot be reached has not been asked."""

    async def play() -> None:
        server.port = 1
        world = await opened(tmp_path, server)
        await world.tick()
        (row,) = shown(world.rotations, world.now)
        await world.close()
        assert "127.0.0.1 cannot be reached" == row.error

    played(play)


def test_abandoning_keeps_the_new_refresh_token(tmp_path: Path, server: TokenServer) -> None:
    """What the server gave is good, and what it gave it for is not: the way back keeps it all the same."""

    async def play() -> None:
        world = await opened(tmp_path, server)
        world.moments.last = world.moments.count + 8
        with contextlib.suppress(Crash):
            await world.tick()
        assert await staged(world)
        await world.crash()
        await world.rotations.abandon("api", uid=0)
        await world.tick()
        assert server.refresh == value(world, "first")
        await world.close()

    played(play)


def test_a_token_without_an_end_follows_the_schedule(tmp_path: Path, server: TokenServer) -> None:
    """Where the server does not say when it ends, the config says when it is replaced."""

    async def play() -> None:
        server.lifetime = None
        world = await opened(tmp_path, server, more=', every = "1d"')
        for _ in range(24 * 5):
            await world.tick(after=HOUR)
        await world.close()
        assert 5 == len(server.issued)

    played(play)
