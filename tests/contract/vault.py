"""
What the Vault backend does when all is well: read, say how it is, say what it may and needs.

It runs against a fake (tests/backends/test_vault_fake.py) and a real server
(tests/live/test_vault_real.py).
"""

import asyncio
import json
from typing import Any

import pytest

from backends.base import RefusedError, SecretNotFoundError
from backends.vault import VaultBackend
from tests.contract.backend import BackendContract
from tests.contract.vault_case import Bench, Run, VaultCase, exposed, issue, opened
from tests.contract.vault_world import VaultWorld, leases

APP = {"username": "app", "password": "canary-of-kv-2"}


class VaultContract(VaultCase, BackendContract):
    """A backend, which the contract of all backends holds for as well."""

    @pytest.fixture
    def made(self, bench: Bench) -> VaultBackend:
        """Return a backend that is not open yet."""
        return bench.backend()

    # -- what people store ------------------------------------------------------

    def test_kv_2_is_read_without_data_in_the_path(self, backend: VaultBackend, run: Run[Any]) -> None:
        """A secret of version 2 is found at the path that people know it by, with its version."""
        found = run(issue(backend, "secret/app"))
        assert (APP, 1) == (exposed(found), found.version)

    def test_kv_2_is_read_with_data_in_the_path(self, backend: VaultBackend, run: Run[Any]) -> None:
        """Who has copied the path from the API's documentation gets the same secret."""
        assert exposed(run(issue(backend, "secret/data/app"))) == APP

    def test_kv_1_is_read(self, backend: VaultBackend, run: Run[Any]) -> None:
        """A secret of version 1 has no version."""
        found = run(issue(backend, "kv1/app"))
        assert ({"token": "canary-of-kv-1"}, None) == (exposed(found), found.version)

    def test_what_was_stored_has_no_lease(self, backend: VaultBackend, run: Run[Any]) -> None:
        """There is nothing to revoke of what was only read."""
        found = [run(issue(backend, path)) for path in ("secret/app", "kv1/app")]
        assert [None, None] == [each.backend_lease for each in found]

    def test_an_older_version_is_read(self, world: VaultWorld, backend: VaultBackend, run: Run[Any]) -> None:
        """The parameter ``version`` asks for a version; without it the newest is read."""
        for text in ("old", "new"):
            world.api("POST", "secret/data/versions", {"data": {"value": text}})
        older = run(issue(backend, "secret/versions", version=1))
        newest = run(issue(backend, "secret/versions"))
        assert ("old", 1, "new") == (exposed(older)["value"], older.version, exposed(newest)["value"])

    def test_a_deleted_version_is_not_found(self, world: VaultWorld, backend: VaultBackend, run: Run[Any]) -> None:
        """What was deleted is not found, and what mends it is said."""
        world.api("POST", "secret/data/deleted", {"data": {"value": "x"}})
        world.api("DELETE", "secret/data/deleted")
        with pytest.raises(SecretNotFoundError, match="deleted") as caught:
            run(issue(backend, "secret/deleted"))
        assert "undelete" in str(caught.value.hint)

    def test_a_destroyed_version_is_not_found(self, world: VaultWorld, backend: VaultBackend, run: Run[Any]) -> None:
        """What was destroyed is not found either."""
        world.api("POST", "secret/data/destroyed", {"data": {"value": "x"}})
        world.api("POST", "secret/destroy/destroyed", {"versions": [1]})
        with pytest.raises(SecretNotFoundError):
            run(issue(backend, "secret/destroyed"))

    @pytest.mark.parametrize("path", ["secret/absent", "kv1/absent", "database/creds/absent"])
    def test_what_is_absent_is_not_found(self, backend: VaultBackend, run: Run[Any], path: str) -> None:
        """A path that holds nothing, and a role that is not there, are not found."""
        with pytest.raises(SecretNotFoundError):
            run(issue(backend, path))

    def test_what_is_no_text_is_json(self, world: VaultWorld, backend: VaultBackend, run: Run[Any]) -> None:
        """Numbers, truth values and tables come out as JSON, null not at all."""
        value = {"n": 1, "t": True, "o": {"a": [1, 2]}, "u": "snow ☃", "z": None}
        world.api("POST", "secret/data/nested", {"data": value})
        found = exposed(run(issue(backend, "secret/nested")))
        expected = {"n": 1, "t": True, "o": {"a": [1, 2]}, "u": "snow ☃"}
        assert expected == {name: text if name == "u" else json.loads(text) for name, text in found.items()}

    def test_nothing_is_shown_by_what_is_printed(self, backend: VaultBackend, run: Run[Any]) -> None:
        """A credential, the health and the backend can be printed without a value in them."""
        found = run(issue(backend, "secret/app"))
        assert "canary" not in f"{found!r} {found} {run(backend.health())!r} {backend!r}"

    # -- how often it asks ------------------------------------------------------

    def test_a_thousand_at_once_cause_one_read(self, bench: Bench, backend: VaultBackend, run: Run[Any]) -> None:
        """A thousand servers that start at once and want the same stored secret cause one request for it."""

        async def all_at_once() -> set[str]:
            found = await asyncio.gather(*(issue(backend, "secret/app", intent=str(n)) for n in range(1000)))
            return {exposed(each)["password"] for each in found}

        assert ({"canary-of-kv-2"}, 1) == (run(all_at_once()), bench.world.front.count("secret/data/app"))

    def test_what_was_read_is_at_hand_for_a_while(self, bench: Bench, run: Run[Any]) -> None:
        """A stored secret is at hand after it was read, and not for longer than the config says."""

        async def story() -> tuple[bool, bool, bool]:
            backend = await opened(bench.backend(cache="1s"))
            before = backend.at_hand("secret/app") is None
            await issue(backend, "secret/app")
            after = backend.at_hand("secret/app") is not None
            await asyncio.sleep(1.1)
            late = backend.at_hand("secret/app") is None
            await backend.close()
            return before, after, late

        assert (True, True, True) == run(story())

    def test_what_is_minted_is_never_at_hand(self, backend: VaultBackend, run: Run[Any]) -> None:
        """A login that was minted for one is not handed to another."""
        run(issue(backend, "database/creds/ro"))
        assert backend.at_hand("database/creds/ro") is None

    def test_what_mints_is_known_by_the_engine(self, backend: VaultBackend, run: Run[Any]) -> None:
        """Once the server has said what is mounted where, stored secrets do not count as minted."""
        for path in ("secret/app", "kv1/app", "database/creds/ro"):
            run(issue(backend, path))
        paths = ["secret/other", "kv1/other", "database/creds/other", "database/static-creds/other"]
        assert [False, False, True, False] == [backend.mints(path) for path in paths]

    # -- other engines ----------------------------------------------------------

    def test_a_certificate_is_issued_and_revoked(self, world: VaultWorld, backend: VaultBackend, run: Run[Any]) -> None:
        """A certificate without a lease is revoked by its serial number."""
        found = run(issue(backend, "pki/issue/mcp", common_name="a.example.org", ttl="10m"))
        assert "PRIVATE KEY" in exposed(found)["private_key"]
        assert found.backend_lease is not None
        run(backend.revoke(found.backend_lease))
        serial = exposed(found)["serial_number"]
        assert world.api("GET", f"pki/cert/{serial}")[1]["data"]["revocation_time"] > 0

    def test_a_certificate_lives_as_long_as_it_says(self, backend: VaultBackend, run: Run[Any]) -> None:
        """What is promised for a certificate is what stands in it."""
        found = run(issue(backend, "pki/issue/mcp", common_name="a.example.org", ttl="10m"))
        assert 590 < (found.ttl or 0) <= 601

    def test_a_certificate_with_a_lease_is_revoked_by_it(
        self, world: VaultWorld, backend: VaultBackend, run: Run[Any]
    ) -> None:
        """Where a role makes leases, the lease is what is revoked."""
        found = run(issue(backend, "pki/issue/leased", common_name="b.example.org", ttl="10m"))
        before = len(leases(world, "pki/issue/leased"))
        run(backend.revoke(found.backend_lease or ""))
        assert (1, False) == (before - len(leases(world, "pki/issue/leased")), found.renewable)

    def test_a_key_is_signed(self, backend: VaultBackend, run: Run[Any]) -> None:
        """A signed key has no lease, and lives as long as its certificate says."""
        key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG7njZZ7i9Y8E2xzvWdZv93lkxmZjoFhGwV0niZcOXPJ test"
        found = run(issue(backend, "ssh/sign/dev", public_key=key, valid_principals="ubuntu"))
        assert (True, None, True) == (
            exposed(found)["signed_key"].startswith("ssh-ed25519-cert"),
            found.backend_lease,
            500 < (found.ttl or 0) <= 601,
        )

    def test_a_password_for_once_has_a_lease(self, world: VaultWorld, backend: VaultBackend, run: Run[Any]) -> None:
        """A one-time password is revoked by its lease and cannot be renewed."""
        found = run(issue(backend, "ssh/creds/otp", ip="127.0.0.1"))
        before = len(leases(world, "ssh/creds/otp"))
        run(backend.revoke(found.backend_lease or ""))
        assert (1, False) == (before - len(leases(world, "ssh/creds/otp")), found.renewable)

    def test_a_code_is_asked_for_each_time(self, bench: Bench, backend: VaultBackend, run: Run[Any]) -> None:
        """A code that is good for seconds is never served from memory."""
        for _ in range(3):
            assert len(exposed(run(issue(backend, "totp/code/app")))["code"]) == 6
        assert bench.world.front.count("totp/code/app") == 3

    def test_namespaces_are_apart(self, bench: Bench, run: Run[Any]) -> None:
        """A backend with a namespace logs in there and reads what is there."""
        api = bench.world.api
        api("POST", "sys/namespaces/team")
        api("POST", "sys/mounts/secret", {"type": "kv", "options": {"version": "2"}}, namespace="team")
        api("POST", "secret/data/app", {"data": {"value": "of the team"}}, namespace="team")
        api("POST", "sys/auth/userpass", {"type": "userpass"}, namespace="team")
        text = 'path "secret/data/*" { capabilities = ["read"] }'
        api("POST", "sys/policies/acl/reader", {"policy": text}, namespace="team")
        api("POST", "auth/userpass/users/bob", {"password": "x", "token_policies": "reader"}, namespace="team")
        auth = {"userpass": {"username": "bob", "password_file": bench.file("bob", "x")}}

        async def story() -> dict[str, str]:
            backend = await opened(bench.backend(auth, namespace="team"))
            found = exposed(await issue(backend, "secret/app"))
            await backend.close()
            return found

        assert {"value": "of the team"} == run(story())

    def test_an_unknown_namespace_is_not_there(self, bench: Bench, run: Run[Any]) -> None:
        """A namespace that does not exist is something to mend in the config, and no login is tried again and again."""

        async def story() -> str:
            backend = bench.backend(namespace="absent")
            await backend.open()
            for _ in range(20):
                with pytest.raises(Exception):  # noqa: B017, PT011 -- which one is said by the health
                    await issue(backend, "secret/app")
            state = (await backend.health()).state
            await backend.close()
            return state

        assert "misconfigured" == run(story())
        assert bench.world.front.count("auth/") <= 3

    # -- how it is, what it may -------------------------------------------------

    def test_health_says_as_what_it_is_logged_in_and_until_when(self, backend: VaultBackend, run: Run[Any]) -> None:
        """A person sees the address, the login and its end."""
        found = run(backend.health())
        assert {"address", "logged in as", "token until"} <= found.facts.keys()

    def test_health_of_a_sealed_server_is_locked(self, world: VaultWorld, backend: VaultBackend, run: Run[Any]) -> None:
        """A sealed server is locked, and the hint says how it is opened."""
        world.seal()
        found = run(backend.health())
        assert ("locked", True) == (found.state, "unseal" in str(found.hint))

    def test_what_is_allowed_lacks_nothing(self, backend: VaultBackend, run: Run[Any]) -> None:
        """Paths that the policy allows are not complained about."""
        wanted = {"secret/app": {}, "kv1/app": {}, "database/creds/ro": {}, "pki/issue/mcp": {"common_name": "a"}}
        assert {} == run(backend.examine(wanted))

    def test_what_is_not_allowed_is_named(self, bench: Bench, run: Run[Any]) -> None:
        """Each path that the policy does not allow is named, with a command that mends it, and nothing is issued."""

        async def story() -> dict[str, bool]:
            backend = await opened(bench.backend(bench.approle("powerless")))
            found = await backend.examine({"secret/app": {}, "database/creds/ro": {}})
            await backend.close()
            return {path: bool(lack.hint) for path, lack in found.items()}

        assert {"secret/app": True, "database/creds/ro": True} == run(story())
        assert bench.world.front.count("(secret/data|database/creds)") == 0

    def test_the_policy_that_it_prints_is_enough(self, bench: Bench, run: Run[Any]) -> None:
        """A role with the printed policy alone can have all that the config wants, renew it and give it back."""
        wanted: dict[str, dict[str, Any]] = {
            "secret/app": {},
            "kv1/app": {},
            "database/creds/ro": {},
            "pki/issue/mcp": {"common_name": "a.example.org"},
        }

        async def printed() -> str:
            backend = await opened(bench.backend())
            text = await backend.policy(wanted)
            await backend.close()
            return text

        bench.world.api("POST", "sys/policies/acl/printed", {"policy": run(printed())})
        role = {"token_policies": "printed", "token_no_default_policy": True, "token_ttl": "1h"}
        assert bench.world.api("POST", "auth/approle/role/printed", role)[0] == 204

        async def used() -> dict[str, Any]:
            backend = await opened(bench.backend(bench.approle("printed")))
            lacking = dict(await backend.examine(wanted))
            for number, (path, params) in enumerate(wanted.items()):
                await backend.prepare(path, params=params, intent=str(number))
                found = await backend.issue(path, params=params, intent=str(number))
                if found.renewable:
                    await backend.renew(found.backend_lease or "", increment=300)
                if found.backend_lease is not None:
                    await backend.revoke(found.backend_lease)
            await backend.close()
            return lacking

        assert {} == run(used())

    def test_a_denial_is_no_storm(self, bench: Bench, run: Run[Any]) -> None:
        """What the policy denies is refused each time, with one login and hardly a look at the token."""

        async def story() -> None:
            backend = await opened(bench.backend(bench.approle("powerless")))
            bench.world.front.forget()
            for _ in range(20):
                with pytest.raises(RefusedError):
                    await issue(backend, "secret/app")
            await backend.close()

        run(story())
        front = bench.world.front
        assert (True, True) == (front.count("auth/approle/login") == 0, front.count("auth/token/lookup-self") <= 3)
