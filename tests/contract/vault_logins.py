"""
Logging in to a Vault: by every method, once for all, again when the token has died, and never so often that it hurts.

It refuses to lock an account on purpose: the fake's lock-out is looked at after the story.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import pytest

from backends.base import BackendError, LockedError, RefusedError
from backends.vault import VaultBackend
from tests.contract.vault_case import Bench, Run, VaultCase, eventually, exposed, issue, opened
from tests.contract.vault_world import LOGINS, PASSWORD, VaultWorld, leases, role_id, secret_id
from tests.fakes.faulty_http import Cut, Say

METHODS: Final = ("token", "approle", "userpass", "ldap", "jwt", "kubernetes", "cert")
LOGIN: Final = "auth/[a-z]+/login"


def credentials(bench: Bench, method: str) -> Mapping[str, Any]:
    """Return the options of a backend that logs in by a method."""
    world = bench.world
    match method:
        case "token":
            body = {"policies": ["broker"], "ttl": "1h", "no_parent": True}
            token = world.api("POST", "auth/token/create", body)[1]["auth"]["client_token"]
            return {"auth": {"token": {"file": bench.file("token", token)}}}
        case "approle":
            return {"auth": bench.approle()}
        case "userpass" | "ldap":
            if method == "ldap":
                world.employ()
            return {"auth": {method: {"username": "ann", "password_file": bench.file("password", PASSWORD)}}}
        case "jwt":
            token = world.signed({"aud": "vault", "sub": "spiffe://example.org/broker"})
            return {"auth": {"jwt": {"role": "broker", "token_file": bench.file("jwt", token)}}}
        case "kubernetes":
            token = world.service_account()
            bound = {"bound_service_account_names": ["broker"], "bound_service_account_namespaces": ["mcp"]}
            world.api("POST", "auth/kubernetes/role/broker", {**bound, **LOGINS["broker"]})
            return {"auth": {"kubernetes": {"role": "broker", "token_file": bench.file("account", token)}}}
        case _:
            certificate, key = (str(path) for path in world.authority.certificate("broker"))
            shown = {"client_cert_file": certificate, "client_key_file": key}
            return {"auth": {"cert": {"name": "broker"}}, "address": world.direct, **shown}


def wrapped(bench: Bench, *, path: str = "auth/approle/role/broker/secret-id") -> str:
    """Return the token of something that was wrapped; of a secret-id unless ``path`` says something else."""
    headers = {"X-Vault-Wrap-TTL": "120s"}
    return str(bench.world.api("POST", path, {}, headers=headers)[1]["wrap_info"]["token"])


def unwrapping(bench: Bench, token: str) -> Mapping[str, Any]:
    """Return how to log in with a wrapped secret-id."""
    where = bench.file("wrapped", token)
    known = {"role_id": role_id(bench.world), "creation_path": "auth/approle/role/broker/secret-id"}
    return {"approle": {**known, "wrapped_secret_id_file": where}}


async def refused(backend: VaultBackend, times: int, error: type[BackendError] = RefusedError) -> BackendError:
    """Ask several times, one after the other and all at once, and return the last error; each is of this kind."""
    for _ in range(times):
        with pytest.raises(error):
            await issue(backend, "secret/app")
    found = await asyncio.gather(*(issue(backend, "secret/app") for _ in range(times)), return_exceptions=True)
    assert {error} == {type(each) for each in found}
    last = found[-1]
    assert isinstance(last, BackendError)
    return last


class VaultLogins(VaultCase):
    """Who the broker is to the server."""

    @pytest.mark.parametrize("method", METHODS)
    def test_it_logs_in_by_every_method(self, bench: Bench, run: Run[Any], method: str) -> None:
        """What proves who it is gets the broker a token, and that a secret."""

        async def story() -> tuple[str, str]:
            backend = await opened(bench.backend(**credentials(bench, method)))
            found = exposed(await issue(backend, "secret/app"))["password"]
            state = (await backend.health()).state
            await backend.close()
            return found, state

        assert ("canary-of-kv-2", "ok") == run(story())

    def test_many_who_wait_cause_one_login(self, bench: Bench, run: Run[Any]) -> None:
        """A hundred requests that come before there is a token wait for the same login."""

        async def story() -> None:
            backend = bench.backend()
            await backend.open()
            await asyncio.gather(*(issue(backend, "secret/app") for _ in range(100)))
            await backend.close()

        run(story())
        assert 1 == bench.world.front.count(LOGIN)

    def test_no_token_is_given_up_for_an_answer_that_says_nothing_of_it(
        self, bench: Bench, backend: VaultBackend, run: Run[Any]
    ) -> None:
        """Leases hang on it: where something in between knows no such place, the token is kept, and nobody logs in."""
        front = bench.world.front
        front.fail(Say(status=403, errors=("permission denied",)), on="secret/data")
        front.fail(Say(status=404, errors=("no handler for route",)), on="auth/token/lookup-self")
        with pytest.raises(RefusedError):
            run(issue(backend, "secret/app"))
        assert 0 == front.count(LOGIN)

    @pytest.mark.parametrize("method", ["approle", "userpass", "token"])
    def test_it_reads_its_file_anew_when_it_logs_in_again(self, bench: Bench, run: Run[Any], method: str) -> None:
        """When the token has died, the next request logs in with what the file holds by then."""
        api = bench.world.api
        old = credentials(bench, method)

        async def story() -> str:
            backend = await opened(bench.backend(**old))
            accessor = (await backend.health()).facts["token"]
            if method == "approle":
                bench.file("broker-secret-id", secret_id(bench.world))
            elif method == "userpass":
                api("POST", "auth/userpass/users/ann", {"password": "another", **LOGINS["broker"]})
                bench.file("password", "another")
            else:
                credentials(bench, "token")
            api("POST", "auth/token/revoke-accessor", {"accessor": accessor})
            found = exposed(await issue(backend, "secret/app"))["password"]
            await backend.close()
            return found

        try:
            assert "canary-of-kv-2" == run(story())
        finally:
            api("POST", "auth/userpass/users/ann", {"password": PASSWORD, **LOGINS["broker"]})

    def test_many_who_find_the_token_dead_cause_one_login(
        self, bench: Bench, backend: VaultBackend, run: Run[Any]
    ) -> None:
        """A hundred requests with a token that was revoked elsewhere look once, log in once, and all succeed."""

        async def story() -> int:
            await issue(backend, "secret/app")
            facts = (await backend.health()).facts
            bench.world.front.forget()
            bench.world.api("POST", "auth/token/revoke-accessor", {"accessor": facts["token"]})
            found = await asyncio.gather(*(issue(backend, "totp/code/app") for _ in range(100)))
            return len(found)

        assert 100 == run(story())
        front = bench.world.front
        assert (1, True) == (front.count(LOGIN), front.count("auth/token/lookup-self") <= 2)

    @pytest.mark.parametrize("method", ["approle", "userpass", "ldap", "jwt"])
    def test_a_wrong_credential_is_shown_once(self, bench: Bench, run: Run[Any], method: str) -> None:
        """However often somebody asks, a credential that was refused is not shown again: one message with the mend."""
        options = dict(credentials(bench, method))
        names = {"approle": "broker-secret-id", "jwt": "jwt"}
        name = names.get(method, "password")
        right = (bench.directory / name).read_text().strip()
        bench.file(name, "wrong.wrong.wrong")

        async def story() -> tuple[bool, str]:
            backend = bench.backend(**options)
            await backend.open()
            error = await refused(backend, 30)
            bench.file(name, right)
            found = await eventually(lambda: _asked(backend))
            await backend.close()
            return bool(error.hint), found

        assert (True, "canary-of-kv-2") == run(story())
        assert 2 == bench.world.front.count(LOGIN)

    def test_a_wrong_credential_is_told_by_health(self, bench: Bench, run: Run[Any]) -> None:
        """A login that was refused is something to mend, and the hint names the file."""
        auth = bench.approle()
        path = bench.file("broker-secret-id", "wrong")

        async def story() -> tuple[str, bool]:
            backend = bench.backend(auth)
            await backend.open()
            await refused(backend, 1)
            found = await backend.health()
            await backend.close()
            return found.state, path in str(found.hint)

        assert ("misconfigured", True) == run(story())

    def test_a_restart_with_a_wrong_credential_shows_it_no_more(self, bench: Bench, run: Run[Any]) -> None:
        """A broker that is started again and again does not come nearer to a lock-out each time."""
        auth = bench.approle()
        bench.file("broker-secret-id", "wrong")

        async def start() -> None:
            backend = bench.backend(auth)
            await backend.open()
            await refused(backend, 2)
            await backend.close()

        for _ in range(8):
            run(start())
        assert bench.world.front.count(LOGIN) <= 3

    def test_a_missing_file_asks_nobody(self, bench: Bench, run: Run[Any]) -> None:
        """A proof that is not there is said to be missing, without a request."""
        auth = bench.approle()
        (bench.directory / "broker-secret-id").unlink()

        async def story() -> bool:
            backend = bench.backend(auth)
            await backend.open()
            error = await refused(backend, 3, LockedError)
            await backend.close()
            return "broker-secret-id" in str(error)

        assert (True, 0) == (run(story()), bench.world.front.count(LOGIN))

    def test_a_proof_that_others_can_read_is_shown_to_nobody(self, bench: Bench, run: Run[Any]) -> None:
        """A proof that others can read is not shown to anybody."""
        auth = bench.approle()
        (bench.directory / "broker-secret-id").chmod(0o644)

        async def story() -> str:
            backend = bench.backend(auth)
            await backend.open()
            state = (await backend.health()).state
            await backend.close()
            return state

        assert ("misconfigured", 0) == (run(story()), bench.world.front.count(LOGIN))

    # -- tokens -----------------------------------------------------------------

    @pytest.mark.slow
    def test_the_token_is_renewed_and_replaced_before_it_ends(self, bench: Bench, run: Run[Any]) -> None:
        """With tokens of 4 s that can be renewed up to 8 s, nobody is refused in 14 s, and few logins are needed."""

        async def story() -> int:
            backend = await opened(bench.backend(bench.approle("brief"), cache="0s"))
            ends = asyncio.get_running_loop().time() + 14
            reads = 0
            while asyncio.get_running_loop().time() < ends:
                await issue(backend, "totp/code/app")
                reads += 1
                await asyncio.sleep(0.25)
            await backend.close()
            return reads

        assert 20 < run(story())
        assert 2 <= bench.world.front.count(LOGIN) <= 5

    def test_a_restart_takes_the_token_up_again(self, bench: Bench, backend: VaultBackend, run: Run[Any]) -> None:
        """A second backend with the same drawer asks with the first one's token and does not log in."""

        async def story() -> tuple[str, str]:
            first = (await backend.health()).facts["token"]
            await backend.close()
            bench.world.front.forget()
            again = await opened(bench.backend())
            await issue(again, "secret/app")
            second = (await again.health()).facts["token"]
            await again.close()
            return first, second

        first, second = run(story())
        assert (first, 0) == (second, bench.world.front.count(LOGIN))

    def test_logging_out_takes_everything_along(self, world: VaultWorld, backend: VaultBackend, run: Run[Any]) -> None:
        """When the login is given back, what was minted under it is gone, and nothing is kept."""
        before = set(leases(world, "database/creds/ro"))

        async def story() -> None:
            await issue(backend, "database/creds/ro")
            await backend.log_out()

            async def none_left() -> bool:
                return not set(leases(world, "database/creds/ro")) - before

            await eventually(none_left)

        run(story())

    # -- wrapped secret-ids -------------------------------------------------------

    def test_a_wrapped_secret_id_is_unwrapped_once(self, bench: Bench, run: Run[Any]) -> None:
        """A wrapping token is good for one login, and what was in it for those after it, over a restart as well."""
        auth = unwrapping(bench, wrapped(bench))

        async def story() -> list[str]:
            found = []
            for _ in range(2):
                backend = await opened(bench.backend(auth))
                found.append(exposed(await issue(backend, "secret/app"))["password"])
                await backend.log_out()
                await backend.close()
            return found

        assert ["canary-of-kv-2"] * 2 == run(story())
        assert (1, 2) == (bench.world.front.count("sys/wrapping/unwrap"), bench.world.front.count(LOGIN))

    def test_what_was_wrapped_elsewhere_is_never_unwrapped(self, bench: Bench, run: Run[Any]) -> None:
        """A wrapping token that was not made at ``creation_path`` raises an alarm and is left alone."""
        auth = unwrapping(bench, wrapped(bench, path="auth/approle/role/powerless/secret-id"))

        async def story() -> tuple[str, bool]:
            backend = bench.backend(auth)
            await backend.open()
            await refused(backend, 5)
            found = await backend.health()
            await backend.close()
            return found.state, "somebody" in found.detail

        assert ("misconfigured", True) == run(story())
        front = bench.world.front
        assert (0, 1, 0) == (front.count("sys/wrapping/unwrap"), front.count("sys/wrapping/lookup"), front.count(LOGIN))

    def test_a_used_wrapping_token_is_an_alarm(self, bench: Bench, run: Run[Any]) -> None:
        """A wrapping token that somebody has used before us is an alarm, and is not tried again."""
        token = wrapped(bench)
        bench.world.api("POST", "sys/wrapping/unwrap", {"token": token})
        auth = unwrapping(bench, token)

        async def story() -> tuple[str, bool]:
            backend = bench.backend(auth)
            await backend.open()
            await refused(backend, 5)
            found = await backend.health()
            await backend.close()
            return found.state, "somebody" in found.detail

        assert ("misconfigured", True) == run(story())
        assert bench.world.front.count("sys/wrapping/") <= 2

    def test_an_unwrapping_whose_answer_is_lost_is_an_alarm(self, bench: Bench, run: Run[Any]) -> None:
        """Where the answer to an unwrapping is lost, the secret-id is, and nobody goes on as if nothing were."""
        auth = unwrapping(bench, wrapped(bench))
        bench.world.front.fail(Cut(after=True), on="sys/wrapping/unwrap", times=1)

        async def story() -> str:
            backend = bench.backend(auth)
            await backend.open()
            with pytest.raises(BackendError):
                await issue(backend, "secret/app")

            async def settled() -> bool:
                return (await backend.health()).state == "misconfigured"

            await eventually(settled)
            state = (await backend.health()).state
            await backend.close()
            return state

        assert "misconfigured" == run(story())
        assert 0 == bench.world.front.count(LOGIN)


async def _asked(backend: VaultBackend) -> str:
    try:
        return exposed(await issue(backend, "secret/app"))["password"]
    except BackendError:
        return ""
