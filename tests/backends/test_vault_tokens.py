"""The broker's tokens, with a clock that is turned by hand: when they are renewed, replaced, kept and given up."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from backends.base import BackendError, Secret, Surroundings
from backends.vault_kept import Kept
from backends.vault_line import Line
from backends.vault_options import read
from backends.vault_tokens import Tokens
from tests.contract.vault_case import Bench, MemoryDrawer, Run, VaultCase
from tests.contract.vault_world import FakeWorld, fake_world
from tests.fakes.faulty_http import Lie, Say

RENEW = "auth/token/renew-self"
LOGIN = "auth/approle/login"


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeWorld]:
    """Give one world for all tests of this file."""
    with fake_world(tmp_path_factory.mktemp("world")) as found:
        yield found


class Held:
    """Tokens, the line that they go over, and the time."""

    def __init__(self, bench: Bench, drawer: MemoryDrawer | None = None) -> None:
        """Describe them."""
        around = Surroundings(mode="user", config=bench.directory, state=bench.directory, drawer=drawer)
        where = {"address": bench.world.front.address, "ca_file": str(bench.world.authority.ca_file)}
        options = read("vault", {**where, "auth": bench.approle()}, around)
        self.now = 1_000_000.0
        self.line = Line("vault", options)
        self.tokens = Tokens("vault", options, self.line, drawer, clock=lambda: self.now)

    async def open(self) -> Kept:
        """Log in."""
        await self.line.open()
        self.tokens.open()
        return await self.tokens.current()


class TestTokens(VaultCase):
    """Against the fake."""

    @pytest.fixture
    def world(self, furnished: FakeWorld) -> FakeWorld:
        """Return the world."""
        return furnished

    @pytest.fixture
    def held(self, bench: Bench, run: Run[Any]) -> Iterator[Held]:
        """Give tokens that are logged in, with nothing counted yet."""
        made = Held(bench, MemoryDrawer())
        run(made.open())
        bench.world.front.forget()
        yield made
        made.tokens.close()
        made.line.close()

    def test_a_token_is_renewed_at_two_thirds_of_its_time(self, world: FakeWorld, held: Held, run: Run[Any]) -> None:
        """Not at half of it, once at two thirds, and not again right after that."""
        counts = []
        for seconds in (1800, 600, 0):
            held.now += seconds
            run(held.tokens.tick())
            counts.append(world.front.count(RENEW))
        assert [0, 1, 1] == counts

    def test_a_policy_that_lets_nobody_look_causes_no_logins(
        self, world: FakeWorld, bench: Bench, run: Run[Any]
    ) -> None:
        """Where lookup-self is denied as well, a denied path is a matter of the policy, and the token stays."""
        world.front.fail(Say(status=403, errors=("permission denied",)), on="auth/token/lookup-self")
        made = Held(bench, MemoryDrawer())
        kept = run(made.open())
        lives = [run(made.tokens.lives(kept)) for _ in range(20)]
        again = run(made.tokens.current())
        made.tokens.close()
        made.line.close()
        assert ([True] * 20, kept.accessor, 1) == (lives, again.accessor, world.front.count(LOGIN))

    def test_a_token_that_grows_no_more_makes_room_for_another(
        self, world: FakeWorld, held: Held, run: Run[Any]
    ) -> None:
        """Where a renewal grants a tenth of the time, there is another login; the old token is kept for its leases."""

        def little(answer: dict[str, Any]) -> dict[str, Any]:
            return {**answer, "auth": {**answer["auth"], "lease_duration": 300}}

        before = run(held.tokens.current())
        world.front.fail(Lie(change=little), on=RENEW)
        held.now += 2400
        run(held.tokens.tick())
        after = run(held.tokens.current())
        known = held.tokens.of(before.accessor)
        assert (True, True, 1) == (after is not before, known is before, world.front.count(LOGIN))

    def test_a_renewal_that_fails_is_not_tried_at_once(self, world: FakeWorld, held: Held, run: Run[Any]) -> None:
        """A hundred looks within a second after a failure make no other request."""
        world.front.fail(Say(status=500, errors=("internal error",)), on=RENEW)
        held.now += 2400
        for _ in range(100):
            held.now += 0.01
            with_failure(run, held)
        assert 1 == world.front.count(RENEW)

    def test_a_renewal_that_is_forbidden_ends_the_token(self, world: FakeWorld, held: Held, run: Run[Any]) -> None:
        """A token that was revoked is known to be gone when it is to be renewed, and another takes its place."""
        before = run(held.tokens.current())
        world.front.fail(Say(status=403, errors=("permission denied",)), on=RENEW)
        held.now += 2400
        run(held.tokens.tick())
        assert (None, 1) == (held.tokens.of(before.accessor), world.front.count(LOGIN))

    def test_tokens_are_found_again_after_a_restart(self, world: FakeWorld, bench: Bench, run: Run[Any]) -> None:
        """Another process with the same drawer goes on with the token, looks it up once, and does not log in."""
        drawer = MemoryDrawer()

        async def story() -> tuple[bool, int, int]:
            first, second = Held(bench, drawer), Held(bench, drawer)
            before = await first.open()
            world.front.forget()
            after = await second.open()
            await second.tokens.tick()
            for each in (first, second):
                each.tokens.close()
                each.line.close()
            front = world.front
            return before.accessor == after.accessor, front.count(LOGIN), front.count("auth/token/lookup-self")

        assert (True, 0, 1) == run(story())

    def test_logging_out_revokes_what_is_kept(self, world: FakeWorld, bench: Bench, run: Run[Any]) -> None:
        """After that the server knows the token no more, and the drawer is empty."""
        drawer = MemoryDrawer()
        held = Held(bench, drawer)

        async def story() -> tuple[int, Secret | None]:
            kept = await held.open()
            await held.tokens.log_out()
            held.tokens.close()
            held.line.close()
            return world.api("POST", "auth/token/lookup-accessor", {"accessor": kept.accessor})[0], drawer.content

        assert (True, None) == ((found := run(story()))[0] >= 400, found[1])

    def test_no_token_shows_itself(self, held: Held, run: Run[Any]) -> None:
        """What a token is printed as holds its name and not its value."""
        kept = run(held.tokens.current())
        assert (True, False) == (kept.accessor in repr(kept), kept.token in repr([kept]) + repr(held.tokens.__dict__))


def with_failure(run: Run[Any], held: Held) -> None:
    """Look once, whatever comes of it."""

    async def look() -> None:
        with contextlib.suppress(BackendError):
            await held.tokens.tick()

    run(look())
