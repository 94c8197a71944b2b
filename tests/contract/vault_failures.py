"""
A Vault that does not behave: sealed, limiting, failing, cut off, slow, lying. What is said, and how often it is asked.

Every number of requests is one that the server has seen. It refuses to be
content with an error of the right kind: what matters as much is that nobody asks
again and again, and that it works when the server does.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Final

import pytest

from backends.base import (
    BackendError,
    LockedError,
    MisconfiguredError,
    OutcomeUnknownError,
    RefusedError,
    SecretNotFoundError,
    UnavailableError,
)
from backends.vault import VaultBackend
from tests.contract.vault_case import Bench, Run, VaultCase, eventually, exposed, issue, opened
from tests.contract.vault_world import leases
from tests.fakes.authority import Authority
from tests.fakes.faulty_http import PROXY, Cut, Fault, FaultyServer, Half, Hang, Late, Lie, Said, Say, WrongLength

RO: Final = "database/creds/ro"
TIMEOUT: Final = "1s"

MANY: Final = 60
"""How often somebody asks while the server fails, first one after the other and then all at once."""

FEW: Final = 12
"""Requests that the server may see of that; a loop that is hot makes hundreds."""


def nulled(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer that has lost what was asked for."""
    return {**answer, "data": None}


def listed(answer: dict[str, Any]) -> list[Any]:
    """Return something that is no envelope at all."""
    return [answer]


def absurd(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer whose lease lasts for a hundred thousand years, backward."""
    return {**answer, "lease_duration": -(10**15), "data": {**(answer["data"] or {})}}


READING: Final[Mapping[str, tuple[Fault, type[BackendError]]]] = MappingProxyType(
    {
        "429": (Say(status=429, errors=('request path "x": rate limit quota exceeded',)), UnavailableError),
        "429 with Retry-After": (Say(status=429, headers={"Retry-After": "2"}), UnavailableError),
        "502 from a proxy": (PROXY, UnavailableError),
        "504": (Say(status=504), UnavailableError),
        "503 standby": (
            Say(status=503, errors=("local node not active but active cluster node not found",)),
            UnavailableError,
        ),
        "cut before": (Cut(), UnavailableError),
        "cut after": (Cut(after=True), UnavailableError),
        "half an answer": (Half(), UnavailableError),
        "late": (Late(seconds=3), UnavailableError),
        "hang": (Hang(), UnavailableError),
        "too long a length": (WrongLength(by=100), UnavailableError),
        "200 with a page": (Say(status=200, page=b"<html>", headers={"content-type": "text/html"}), UnavailableError),
        "no envelope": (Lie(change=listed), UnavailableError),
    }
)
"""What goes wrong with a read, and what is said of it."""

MINTING: Final[Mapping[str, tuple[Fault, type[BackendError]]]] = MappingProxyType(
    {
        "429": (Say(status=429), UnavailableError),
        "503 sealed": (Say(status=503, errors=("Vault is sealed",)), LockedError),
        "500": (Say(status=500, errors=("internal error",)), OutcomeUnknownError),
        "502 from a proxy": (PROXY, OutcomeUnknownError),
        "cut before": (Cut(), OutcomeUnknownError),
        "cut after": (Cut(after=True), OutcomeUnknownError),
        "half an answer": (Half(), OutcomeUnknownError),
        "late": (Late(seconds=3), OutcomeUnknownError),
        "hang": (Hang(), OutcomeUnknownError),
        "too long a length": (WrongLength(by=100), OutcomeUnknownError),
        "no envelope": (Lie(change=listed), OutcomeUnknownError),
        "400": (Say(status=400, errors=("canary of the server",)), MisconfiguredError),
        "403": (Say(status=403, errors=("1 error occurred:\n\t* permission denied\n\n",)), RefusedError),
    }
)
"""What goes wrong with a mint, and what is said of it: whether something may have been made is never guessed."""


async def failures(backend: VaultBackend, path: str, times: int) -> list[BaseException]:
    """Ask so often, one after the other and all at once; return what was raised."""
    found: list[BaseException] = []
    for number in range(times):
        try:
            await issue(backend, path, intent=str(number))
        except BackendError as error:
            found.append(error)
    at_once = await asyncio.gather(*(issue(backend, path, intent=f"{n}") for n in range(times)), return_exceptions=True)
    return found + [each for each in at_once if isinstance(each, BaseException)]


class VaultFailures(VaultCase):
    """Outages."""

    @pytest.mark.parametrize("what", READING)
    def test_a_read_that_fails_says_so_and_is_not_repeated_hotly(self, bench: Bench, run: Run[Any], what: str) -> None:
        """Whatever goes wrong, a hundred who ask get the right error, few requests are made, and then it works."""
        fault, expected = READING[what]
        front = bench.world.front

        async def story() -> tuple[set[type[BaseException]], int, str]:
            backend = await opened(bench.backend(timeout=TIMEOUT))
            await backend.issue("kv1/app", params={}, intent="i")
            front.fail(fault)
            front.forget()
            found = await failures(backend, "secret/app", MANY)
            seen = front.count()
            front.mend()
            value = await eventually(lambda: _read(backend))
            await backend.close()
            return {type(each) for each in found}, seen, value

        kinds, seen, value = run(story())
        assert (True, True, "canary-of-kv-2") == (all(issubclass(each, expected) for each in kinds), seen <= FEW, value)

    def test_a_path_that_fails_is_asked_once_for_all_who_ask_at_once(self, bench: Bench, run: Run[Any]) -> None:
        """A 500 is of one path: it is asked again when somebody asks again, once for all, and others go on."""
        front = bench.world.front

        async def story() -> tuple[set[type[BaseException]], int, str]:
            backend = await opened(bench.backend())
            front.fail(Say(status=500, errors=("canary of the server",)), on="secret/data")
            await issue(backend, "kv1/app")
            front.forget()
            found = await failures(backend, "secret/app", 10)
            seen = front.count("secret/data")
            value = exposed(await issue(backend, "kv1/app"))["token"]
            await backend.close()
            return {type(each) for each in found if "canary" not in str(each)}, seen, value

        kinds, seen, value = run(story())
        assert (True, True, "canary-of-kv-1") == (
            all(issubclass(k, UnavailableError) for k in kinds),
            seen <= 11,
            value,
        )

    @pytest.mark.parametrize("what", MINTING)
    def test_a_mint_that_fails_is_asked_for_once(self, bench: Bench, run: Run[Any], what: str) -> None:
        """Whether something may have been made is said rightly, and the request for it goes out once."""
        fault, expected = MINTING[what]
        front = bench.world.front

        async def story() -> tuple[bool, str]:
            backend = await opened(bench.backend(bench.approle("childless"), timeout=TIMEOUT))
            await _mount_known(backend)
            front.fail(fault, on=RO)
            front.forget()
            with pytest.raises(expected) as caught:
                await issue(backend, RO)
            await asyncio.sleep(0.3)
            await backend.close()
            return type(caught.value) is expected or issubclass(type(caught.value), expected), str(caught.value)

        right, text = run(story())
        assert (True, 1, False) == (right, front.count(RO), "canary" in text)

    def test_a_sealed_server_is_locked_and_left_alone(self, bench: Bench, run: Run[Any]) -> None:
        """A server that is sealed is locked for everybody; when it is unsealed, it works by itself."""

        async def story() -> tuple[set[type[BaseException]], int, str]:
            backend = await opened(bench.backend())
            await asyncio.to_thread(bench.world.seal)
            bench.world.front.forget()
            found = await failures(backend, "secret/app", MANY)
            seen = bench.world.front.count()
            await asyncio.to_thread(bench.world.unseal)
            value = await eventually(lambda: _read(backend))
            await backend.close()
            return {type(each) for each in found}, seen, value

        kinds, seen, value = run(story())
        assert ({LockedError}, True, "canary-of-kv-2") == (kinds, seen <= FEW, value)

    def test_a_server_that_is_not_there_is_unavailable(self, bench: Bench, run: Run[Any]) -> None:
        """Where nobody listens, it is said at once, and health says what to try."""

        async def story() -> tuple[set[type[BaseException]], str, bool, float]:
            began = time.monotonic()
            backend = bench.backend(address="https://127.0.0.1:1")
            await backend.open()
            found = await failures(backend, "secret/app", 5)
            health = await backend.health()
            await backend.close()
            return {type(each) for each in found}, health.state, bool(health.hint), time.monotonic() - began

        kinds, state, hint, took = run(story())
        assert ({UnavailableError}, "unavailable", True, True) == (kinds, state, hint, took < 20)

    def test_another_address_is_asked_where_one_is_dead(self, bench: Bench, run: Run[Any]) -> None:
        """With two addresses of which one is dead, everything works."""
        addresses = ["https://127.0.0.1:1", bench.world.front.address]

        async def story() -> str:
            backend = await opened(bench.backend(addresses=addresses))
            found = exposed(await issue(backend, "secret/app"))["password"]
            await issue(backend, RO)
            await backend.close()
            return found

        assert "canary-of-kv-2" == run(story())

    def test_a_wait_that_the_server_asks_for_is_kept(self, bench: Bench, run: Run[Any]) -> None:
        """Whoever is told to come back in three seconds does not come back in two."""
        front = bench.world.front

        async def story() -> int:
            backend = await opened(bench.backend())
            front.fail(Say(status=429, headers={"Retry-After": "3"}), on="secret/data", times=1)
            with pytest.raises(UnavailableError):
                await issue(backend, "secret/app")
            front.forget()
            ends = time.monotonic() + 2
            while time.monotonic() < ends:
                with pytest.raises(UnavailableError):
                    await issue(backend, "secret/app")
                await asyncio.sleep(0.1)
            seen = front.count()
            await eventually(lambda: _read(backend))
            await backend.close()
            return seen

        assert 0 == run(story())

    def test_a_hanging_server_costs_one_time_out(self, bench: Bench, run: Run[Any]) -> None:
        """When one request has timed out, those that come right after it do not wait as long again."""

        async def story() -> tuple[float, float]:
            backend = await opened(bench.backend(timeout=TIMEOUT))
            await issue(backend, "kv1/app")
            bench.world.front.fail(Hang())
            began = time.monotonic()
            with pytest.raises(UnavailableError):
                await issue(backend, "secret/app")
            first = time.monotonic() - began
            for _ in range(20):
                with pytest.raises(UnavailableError):
                    await issue(backend, "secret/app")
            rest = time.monotonic() - began - first
            await backend.close()
            return first, rest

        first, rest = run(story())
        assert (True, True) == (0.9 < first < 5, rest < 5)

    def test_what_is_at_hand_stays_at_hand_while_the_server_hangs(self, bench: Bench, run: Run[Any]) -> None:
        """What was read and is current costs no request, whatever the server does."""

        async def story() -> bool:
            backend = await opened(bench.backend())
            await issue(backend, "secret/app")
            bench.world.front.fail(Hang())
            found = backend.at_hand("secret/app")
            await backend.close()
            return found is not None

        assert run(story())

    # -- where it must not go -----------------------------------------------------

    @pytest.mark.parametrize("status", [307, 308, 301, 302])
    def test_no_token_goes_to_a_foreign_host(self, bench: Bench, run: Run[Any], status: int) -> None:
        """A redirect to a host that the config does not name is an error, and nothing is sent there."""
        with foreign() as other:
            location = {"location": f"{other.address}/v1/secret/data/app"}
            bench.world.front.fail(Say(status=status, headers=location), on="secret/data")

            async def story() -> None:
                backend = await opened(bench.backend())
                with pytest.raises(BackendError):
                    await issue(backend, "secret/app")
                await backend.close()

            run(story())
            assert 0 == other.count()

    def test_a_redirect_in_a_circle_ends(self, bench: Bench, run: Run[Any]) -> None:
        """A server that sends to itself for ever is asked twice."""
        front = bench.world.front
        front.fail(Say(status=307, headers={"location": f"{front.address}/v1/secret/data/app"}), on="secret/data")

        async def story() -> None:
            backend = await opened(bench.backend())
            with pytest.raises(UnavailableError):
                await issue(backend, "secret/app")
            await backend.close()

        run(story())
        assert front.count("secret/data") <= 3

    def test_a_server_that_nobody_vouches_for_is_not_asked(self, bench: Bench, run: Run[Any]) -> None:
        """A server whose certificate is not signed by ``ca_file`` gets no login."""
        other = bench.file("other.pem", _other_root(bench))

        async def story() -> str:
            backend = bench.backend(ca_file=other)
            await backend.open()
            with pytest.raises(UnavailableError, match="certificate"):
                await issue(backend, "secret/app")
            await backend.close()
            return "refused"

        assert ("refused", 0) == (run(story()), bench.world.front.count())

    # -- lies -----------------------------------------------------------------------

    def test_an_answer_without_a_credential_is_an_error(self, bench: Bench, run: Run[Any]) -> None:
        """A mint that is answered without data gives nobody an empty credential, and what was made is given back."""
        front = bench.world.front
        before = set(leases(bench.world, RO))

        async def story() -> bool:
            backend = await opened(bench.backend())
            front.fail(Lie(change=nulled), on=RO, times=1)
            await backend.prepare(RO, params={}, intent="i")
            with pytest.raises(BackendError):
                await issue(backend, RO, intent="i")

            async def none_left() -> bool:
                return not set(leases(bench.world, RO)) - before

            return await eventually(none_left)

        assert (True, 1) == (run(story()), front.count(RO))

    def test_a_secret_without_data_is_not_found(self, bench: Bench, run: Run[Any]) -> None:
        """A stored secret that is answered without data is an error, never an empty one."""
        bench.world.front.fail(Lie(change=nulled), on="secret/data", times=1)

        async def story() -> None:
            backend = await opened(bench.backend())
            with pytest.raises((SecretNotFoundError, UnavailableError, MisconfiguredError)):
                await issue(backend, "secret/app")
            await backend.close()

        run(story())

    def test_an_absurd_duration_is_not_believed(self, bench: Bench, run: Run[Any]) -> None:
        """A lease that would last for less than nothing is not good for ever."""
        bench.world.front.fail(Lie(change=absurd), on=RO, times=1)

        async def story() -> float | None:
            backend = await opened(bench.backend())
            found = await issue(backend, RO)
            await backend.revoke(found.backend_lease or "")
            await backend.close()
            return found.ttl

        ttl = run(story())
        assert ttl is not None
        assert 0 <= ttl <= 3600

    def test_a_renewal_of_something_else_is_not_believed(self, bench: Bench, run: Run[Any]) -> None:
        """A renewal that the server answers with null is no promise of more time."""
        bench.world.front.fail(Lie(change=lambda _: {}), on="sys/leases/renew", times=1)

        async def story() -> float:
            backend = await opened(bench.backend())
            found = await issue(backend, RO)
            try:
                return await backend.renew(found.backend_lease or "", increment=600)
            except BackendError:
                return 0.0
            finally:
                await backend.revoke(found.backend_lease or "")
                await backend.close()

        assert 0.0 == run(story())


@contextmanager
def foreign() -> Iterator[FaultyServer]:
    """Give a server of somebody else's, who would like a token."""

    async def thanks(_: object) -> Said:
        await asyncio.sleep(0)
        return Said(status=200, body=b"{}")

    with FaultyServer(thanks) as server:
        yield server


def _other_root(bench: Bench) -> str:
    directory = bench.directory / "other"
    directory.mkdir()
    return Authority(directory).ca_file.read_text().strip()


async def _mount_known(backend: VaultBackend) -> None:
    """Let the backend know what is mounted, so that the next request is the mint itself."""
    with pytest.raises(SecretNotFoundError):
        await issue(backend, "database/creds/absent")


async def _read(backend: VaultBackend) -> str:
    try:
        return exposed(await issue(backend, "secret/app"))["password"]
    except BackendError:
        return ""
