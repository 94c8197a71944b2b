"""
What a Vault mints: each once, alive as long as its server, given back, and never forgotten where an answer is lost.

It refuses to look at how the backend remembers it: what the server still has is what counts.
"""

import asyncio
import contextlib
from typing import Any

import pytest

from backends.base import LeaseGoneError, OutcomeUnknownError
from backends.vault import VaultBackend
from tests.contract.vault_case import Bench, Run, VaultCase, eventually, exposed, issue, opened
from tests.contract.vault_world import VaultWorld, leases
from tests.fakes.faulty_http import Cut, Half, Late

RO = "database/creds/ro"


def remaining(world: VaultWorld, before: set[str]) -> int:
    """Return how many leases on the database there are more than before."""
    return len(set(leases(world, RO)) - before)


async def none_left(world: VaultWorld, before: set[str]) -> None:
    """Wait until there are no more leases than before: a server that has revoked a token goes on to its leases."""

    async def found() -> bool:
        return remaining(world, before) == 0

    await eventually(found)


class VaultLeases(VaultCase):
    """Leases, from the mint to the end."""

    @pytest.fixture
    def before(self, world: VaultWorld) -> set[str]:
        """Return the leases that other tests have left."""
        return set(leases(world, RO))

    def test_a_login_is_minted_with_a_lease(
        self, world: VaultWorld, before: set[str], backend: VaultBackend, run: Run[Any]
    ) -> None:
        """What is minted says for how long it is good, can be renewed, and has a lease at the server."""
        found = run(issue(backend, RO))
        assert ({"username", "password"}, True, True, 1) == (
            set(found.values),
            found.renewable,
            290 < (found.ttl or 0) <= 300,
            remaining(world, before),
        )

    def test_each_gets_another(self, backend: VaultBackend, run: Run[Any]) -> None:
        """Two who ask at once get two logins."""

        async def story() -> set[str]:
            found = await asyncio.gather(*(issue(backend, RO, intent=str(n)) for n in range(2)))
            return {exposed(each)["username"] for each in found}

        assert 2 == len(run(story()))

    def test_a_renewal_counts_from_now(self, backend: VaultBackend, run: Run[Any]) -> None:
        """A renewal gives what was asked for, counted from now, less where the server says less."""

        async def story() -> tuple[float, float]:
            found = await issue(backend, RO)
            lease = found.backend_lease or ""
            return await backend.renew(lease, increment=600), await backend.renew(lease, increment=90000)

        asked, capped = run(story())
        assert (True, True) == (590 <= asked <= 600, 1100 < capped <= 1200)

    def test_a_revoked_login_is_gone(
        self, world: VaultWorld, before: set[str], backend: VaultBackend, run: Run[Any]
    ) -> None:
        """When a revocation returns, the server has no lease any more; revoking again succeeds."""

        async def story() -> list[int]:
            lease = (await issue(backend, RO)).backend_lease or ""
            counts = [remaining(world, before)]
            for _ in range(2):
                await backend.revoke(lease)
                counts.append(remaining(world, before))
            return counts

        assert [1, 0, 0] == run(story())

    def test_what_somebody_else_revoked_is_noticed_at_the_next_renewal(
        self, world: VaultWorld, before: set[str], backend: VaultBackend, run: Run[Any]
    ) -> None:
        """A lease that was revoked out of band is gone, and said so."""

        async def story() -> None:
            lease = (await issue(backend, RO)).backend_lease or ""
            (name,) = set(leases(world, RO)) - before
            world.api("PUT", "sys/leases/revoke", {"lease_id": name, "sync": True})
            with pytest.raises(LeaseGoneError):
                await backend.renew(lease, increment=300)
            await backend.revoke(lease)

        run(story())

    def test_a_lease_ends_with_its_longest_life(self, world: VaultWorld, backend: VaultBackend, run: Run[Any]) -> None:
        """What has come to the end of its time at the server is gone."""

        async def story() -> None:
            found = await issue(backend, "database/creds/short")
            assert found.ttl is not None
            assert 2 < found.ttl <= 4
            await asyncio.to_thread(world.pass_time, 9)
            with pytest.raises(LeaseGoneError):
                await backend.renew(found.backend_lease or "", increment=5)

        run(story())

    def test_a_lease_is_not_promised_for_longer_than_its_token_lives(self, bench: Bench, run: Run[Any]) -> None:
        """Under a token of a few seconds a lease of five minutes is good for a few seconds."""

        async def story() -> tuple[float, float]:
            backend = await opened(bench.backend(bench.approle("brief")))
            found = await issue(backend, RO)
            renewed = await backend.renew(found.backend_lease or "", increment=300)
            await backend.close()
            return found.ttl or 0, renewed

        promised, renewed = run(story())
        assert (True, True) == (0 < promised <= 8, 0 < renewed <= 8)

    def test_a_lease_under_a_batch_token_ends_before_it(self, bench: Bench, run: Run[Any]) -> None:
        """A token that cannot be renewed mints all the same, without a token of its own for each credential."""

        async def story() -> tuple[str | None, float]:
            backend = await opened(bench.backend(bench.approle("batch")))
            prepared = await backend.prepare(RO, params={}, intent="i")
            found = await issue(backend, RO, intent="i")
            await backend.revoke(found.backend_lease or "")
            await backend.close()
            return prepared.handle, found.ttl or 0

        handle, ttl = run(story())
        assert (None, True) == (handle, 0 < ttl <= 300)

    def test_closing_revokes_nothing(
        self, world: VaultWorld, before: set[str], backend: VaultBackend, run: Run[Any]
    ) -> None:
        """A backend that is closed leaves what is in use alone."""

        async def story() -> None:
            await issue(backend, RO)
            await backend.close()

        run(story())
        assert 1 == remaining(world, before)

    def test_a_restart_goes_on_with_what_was_minted(
        self, world: VaultWorld, before: set[str], bench: Bench, run: Run[Any]
    ) -> None:
        """Another backend with the same drawer renews and revokes what the first one minted."""

        async def story() -> tuple[bool, int, int]:
            first = await opened(bench.backend())
            await first.prepare(RO, params={}, intent="i")
            lease = (await issue(first, RO, intent="i")).backend_lease or ""
            await first.close()
            again = await opened(bench.backend())
            renewed = await again.renew(lease, increment=600) > 500
            alive = remaining(world, before)
            await again.revoke(lease)
            await again.close()
            return renewed, alive, remaining(world, before)

        assert (True, 1, 0) == run(story())

    def test_leases_outlive_the_token_that_replaces_theirs(self, bench: Bench, run: Run[Any]) -> None:
        """When somebody has the broker's login revoked, leases go with it and that is noticed, not papered over."""

        async def story() -> None:
            backend = await opened(bench.backend(bench.approle("childless")))
            lease = (await issue(backend, RO)).backend_lease or ""
            accessor = (await backend.health()).facts["token"]
            bench.world.api("POST", "auth/token/revoke-accessor", {"accessor": accessor})
            with pytest.raises(LeaseGoneError):
                await backend.renew(lease, increment=300)
            await backend.close()

        run(story())

    # -- a token for each credential, and lost answers -------------------------

    def test_nothing_is_prepared_for_what_is_only_read(
        self, bench: Bench, backend: VaultBackend, run: Run[Any]
    ) -> None:
        """A stored secret needs no token of its own."""
        prepared = run(backend.prepare("secret/app", params={}, intent="i"))
        assert (None, 0) == (prepared.handle, bench.world.front.count("auth/token/create"))

    def test_revoking_the_handle_takes_back_what_came_of_it(
        self, world: VaultWorld, before: set[str], backend: VaultBackend, run: Run[Any]
    ) -> None:
        """What is known before the mint is enough to revoke what was minted."""

        async def story() -> int:
            prepared = await backend.prepare(RO, params={}, intent="i")
            await issue(backend, RO, intent="i")
            alive = remaining(world, before)
            await backend.revoke(prepared.handle or "")
            await none_left(world, before)
            return alive

        assert 1 == run(story())

    @pytest.mark.parametrize("fault", [Cut(after=True), Half(), Late(seconds=4)], ids=["cut", "half", "late"])
    def test_a_mint_whose_answer_is_lost_is_neither_repeated_nor_forgotten(
        self, bench: Bench, before: set[str], run: Run[Any], fault: Cut | Half | Late
    ) -> None:
        """One login is minted, nobody gets it, nobody asks again, and the handle takes it back."""
        front, world = bench.world.front, bench.world
        front.fail(fault, on=RO, times=1)

        async def story() -> int:
            backend = await opened(bench.backend(timeout="2s"))
            prepared = await backend.prepare(RO, params={}, intent="i")
            with pytest.raises(OutcomeUnknownError):
                await issue(backend, RO, intent="i")

            async def minted() -> int:
                return remaining(world, before)

            count = await eventually(minted)
            front.mend()
            await _revoked(backend, prepared.handle or "")
            await none_left(world, before)
            await backend.close()
            return count

        assert (1, 1) == (run(story()), front.count(RO))

    def test_a_lost_answer_without_a_token_of_its_own_is_bounded(
        self, bench: Bench, before: set[str], run: Run[Any]
    ) -> None:
        """Where the policy allows no token for each, what was lost is known to end, and when."""
        front, world = bench.world.front, bench.world
        front.fail(Cut(after=True), on=RO, times=1)

        async def story() -> tuple[str | None, bool]:
            backend = await opened(bench.backend(bench.approle("childless")))
            prepared = await backend.prepare(RO, params={}, intent="i")
            with pytest.raises(OutcomeUnknownError):
                await issue(backend, RO, intent="i")
            await backend.close()
            return prepared.handle, prepared.longest is not None

        assert ((None, True), 1, 1) == (run(story()), front.count(RO), remaining(world, before))

    def test_a_token_of_its_own_that_came_to_nothing_is_given_back(
        self, bench: Bench, backend: VaultBackend, run: Run[Any]
    ) -> None:
        """When the mint is refused, the token that was made for it does not stay."""
        api = bench.world.api

        async def story() -> bool:
            accessors = set(api("LIST", "auth/token/accessors")[1]["data"]["keys"])
            await backend.prepare("database/creds/absent", params={}, intent="i")
            with contextlib.suppress(Exception):
                await issue(backend, "database/creds/absent", intent="i")

            async def gone() -> bool:
                return set(api("LIST", "auth/token/accessors")[1]["data"]["keys"]) <= accessors

            return await eventually(gone)

        assert run(story())

    def test_who_goes_away_while_it_is_minted_leaves_nothing(
        self, bench: Bench, before: set[str], backend: VaultBackend, run: Run[Any]
    ) -> None:
        """A mint whose asker has gone is given back when it has come."""
        bench.world.front.fail(Late(seconds=0.5), on=RO, times=1)

        async def story() -> None:
            task = asyncio.create_task(issue(backend, RO))
            await asyncio.sleep(0.2)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

            async def minted() -> bool:
                return bench.world.front.count(RO, status=200) == 1

            await eventually(minted)
            await none_left(bench.world, before)

        run(story())

    def test_many_leases_are_opened_with_few_requests_in_flight(
        self, bench: Bench, before: set[str], backend: VaultBackend, run: Run[Any]
    ) -> None:
        """Of a hundred mints at once never more than sixteen are under way, and each is minted once."""

        async def story() -> int:
            found = await asyncio.gather(*(issue(backend, RO, intent=str(n)) for n in range(100)))
            alive = remaining(bench.world, before)
            await asyncio.gather(*(backend.revoke(each.backend_lease or "") for each in found))
            return alive

        alive = run(story())
        assert (100, 0) == (alive, remaining(bench.world, before)), (alive, remaining(bench.world, before))
        front = bench.world.front
        assert (100, True) == (front.count(RO), front.most_at_once <= 16)


async def _revoked(backend: VaultBackend, lease: str) -> None:
    """Revoke as the broker does: again, until it works."""

    async def once() -> bool:
        try:
            await backend.revoke(lease)
        except Exception:  # noqa: BLE001 -- tried again
            return False
        return True

    await eventually(once, pause=0.3)
