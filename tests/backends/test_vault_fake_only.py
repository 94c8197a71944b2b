"""
What only the fake can show of a Vault: engines that a bare server lacks, an agent's socket, clocks that differ.

It refuses to repeat what the contract says already.
"""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.base import BackendError, LockedError, MisconfiguredError, Surroundings, UnavailableError
from backends.vault import VaultBackend
from backends.vault_options import read
from tests.contract.vault_case import Bench, Run, VaultCase, exposed, issue, opened
from tests.contract.vault_world import PASSWORD, FakeWorld, fake_world
from tests.fakes.vault.database import Database
from tests.fakes.vault.kv import Kv2
from tests.fakes.vault.logins import AuthMethod
from tests.fakes.vault.server import FakeVault, Node

APP = "canary-of-kv-2"


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeWorld]:
    """Give one world for all tests of this file."""
    with fake_world(tmp_path_factory.mktemp("world")) as found:
        found.api("POST", "sys/mounts/rabbitmq", {"type": "rabbitmq"})
        found.api("POST", "rabbitmq/roles/app", {"vhosts": "{}"})
        found.api("POST", "sys/mounts/aws", {"type": "aws"})
        found.api("POST", "aws/roles/app", {"credential_type": "iam_user"})
        more = "\n".join(f'path "{path}" {{ capabilities = ["read", "update"] }}' for path in ("rabbitmq/*", "aws/*"))
        found.api("POST", "sys/policies/acl/more", {"policy": more})
        role = {"token_policies": "broker,children,more", "token_ttl": "1h"}
        found.api("POST", "auth/approle/role/more", role)
        yield found


class TestFake(VaultCase):
    """Against the fake alone."""

    @pytest.fixture
    def world(self, furnished: FakeWorld) -> FakeWorld:
        """Return the world."""
        return furnished

    @pytest.fixture
    def more(self, bench: Bench, run: Run[Any]) -> Iterator[VaultBackend]:
        """Give a backend that may use the other engines."""
        backend = run(opened(bench.backend(bench.approle("more"))))
        yield backend
        run(backend.close())

    def test_a_user_of_a_broker_of_messages_comes_and_goes(
        self, world: FakeWorld, more: VaultBackend, run: Run[Any]
    ) -> None:
        """Any engine that answers with a lease is minted from, renewed and revoked, without being known by name."""

        async def story() -> tuple[set[str], bool]:
            found = await issue(more, "rabbitmq/creds/app")
            await more.revoke(found.backend_lease or "")
            return set(found.values), found.renewable

        assert ({"username", "password"}, True) == run(story())
        assert [] == world.api("LIST", "sys/leases/lookup/rabbitmq/creds/app")[1]["errors"]

    def test_what_is_signed_for_a_time_cannot_be_renewed(self, more: VaultBackend, run: Run[Any]) -> None:
        """Temporary credentials end when they say so; null among their fields is no field."""
        temporary = run(issue(more, "aws/sts/app", ttl="15m"))
        lasting = run(issue(more, "aws/creds/app"))
        assert (False, 900, True, False) == (
            temporary.renewable,
            round(temporary.ttl or 0),
            "security_token" in temporary.values,
            "security_token" in lasting.values,
        )

    def test_a_login_that_stays_has_no_lease_and_its_time(
        self, world: FakeWorld, backend: VaultBackend, run: Run[Any]
    ) -> None:
        """A static account's password is read, is good until the server changes it, and is never revoked."""
        role = {"db_name": "pg", "username": "app", "rotation_period": "1h"}
        world.api("POST", "database/static-roles/app", role)
        found = run(issue(backend, "database/static-creds/app"))
        assert ("app", None, True) == (exposed(found)["username"], found.backend_lease, 3500 < (found.ttl or 0) <= 3600)

    def test_a_login_that_is_just_being_changed_is_waited_for(
        self, world: FakeWorld, backend: VaultBackend, run: Run[Any]
    ) -> None:
        """A static account with no time left is between two passwords: neither is handed out."""
        role = {"db_name": "pg", "username": "stuck", "rotation_period": "1h", "stuck": True}
        world.api("POST", "database/static-roles/stuck", role)
        mount = world.fake.vault.mount_of("", "database/x")
        assert mount is not None
        assert isinstance(mount.engine, Database)
        world.pass_time(3700)
        with pytest.raises(UnavailableError):
            run(issue(backend, "database/static-creds/stuck"))

    def test_a_second_factor_is_something_to_mend(self, world: FakeWorld, bench: Bench, run: Run[Any]) -> None:
        """A login that wants a second factor says which methods are for machines, and is not tried on."""
        mount = world.fake.vault.mount_of("", "auth/userpass/login")
        assert mount is not None
        assert isinstance(mount.engine, AuthMethod)
        mount.engine.mfa = True
        auth = {"userpass": {"username": "ann", "password_file": bench.file("password", PASSWORD)}}

        async def story() -> str:
            backend = bench.backend(auth)
            await backend.open()
            for _ in range(5):
                with pytest.raises(MisconfiguredError, match="second factor"):
                    await issue(backend, "secret/app")
            hint = str((await backend.health()).hint)
            await backend.close()
            return hint

        try:
            assert "approle" in run(story())
        finally:
            mount.engine.mfa = False
        assert bench.world.front.count("auth/userpass/login") <= 2

    def test_an_account_is_never_locked(self, world: FakeWorld, bench: Bench, run: Run[Any]) -> None:
        """Eight brokers that are started one after the other with a wrong password lock nobody out."""
        auth = {"userpass": {"username": "ann", "password_file": bench.file("password", "wrong")}}

        async def story() -> None:
            backend = bench.backend(auth)
            await backend.open()
            for _ in range(10):
                with pytest.raises(BackendError):
                    await issue(backend, "secret/app")
            await backend.close()

        for _ in range(8):
            run(story())
        assert 0 == world.api("GET", "sys/locked-users")[1]["data"]["total"]

    def test_a_locked_namespace_is_locked(self, world: FakeWorld, bench: Bench, run: Run[Any]) -> None:
        """A namespace that an administrator has locked is locked, not gone."""
        world.api("POST", "sys/namespaces/shut")
        world.api("POST", "sys/auth/userpass", {"type": "userpass"}, namespace="shut")
        world.api("POST", "auth/userpass/users/bob", {"password": "x"}, namespace="shut")
        auth = {"userpass": {"username": "bob", "password_file": bench.file("bob", "x")}}

        async def story() -> None:
            backend = bench.backend(auth, namespace="shut")
            world.api("POST", "sys/namespaces/api-lock/lock/shut")
            await backend.open()
            with pytest.raises(LockedError):
                await issue(backend, "secret/app")
            await backend.close()

        run(story())

    def test_a_clock_that_differs_is_told(self, world: FakeWorld, bench: Bench, run: Run[Any]) -> None:
        """A server whose clock is far ahead works, and health says by how much."""
        world.pass_time(7200)

        async def story() -> tuple[str, str]:
            backend = await opened(bench.backend())
            found = await backend.health()
            await backend.close()
            return found.state, found.facts["clock"]

        state, said = run(story())
        assert ("ok", True) == (state, "ahead" in said)

    @pytest.mark.parametrize("agent", [False, True], ids=["server", "agent"])
    def test_a_unix_socket_is_spoken_to(
        self, world: FakeWorld, bench: Bench, run: Run[Any], tmp_path: Path, *, agent: bool
    ) -> None:
        """A local agent's socket serves as an address, and gets the header that it wants."""
        path = Path("/tmp") / f"fake-{tmp_path.name}.sock"  # noqa: S108 -- sockets need short paths
        node = Node(agent=agent)
        with FakeVault(vault=world.fake.vault, node=node, path=path) as fake:

            async def story() -> str:
                backend = await opened(bench.backend(address=fake.address))
                found = exposed(await issue(backend, "secret/app"))["password"]
                await backend.close()
                return found

            assert APP == run(story())
        path.unlink(missing_ok=True)

    def test_plain_http_works_on_this_machine(self, world: FakeWorld, bench: Bench, run: Run[Any]) -> None:
        """Without TLS nothing is asked for that TLS would need."""
        with FakeVault(vault=world.fake.vault) as fake:

            async def story() -> str:
                backend = await opened(bench.backend(address=fake.address))
                found = exposed(await issue(backend, "secret/app"))["password"]
                await backend.close()
                return found

            assert APP == run(story())

    def test_a_thousand_paths_at_once_are_read_with_few_connections(
        self, world: FakeWorld, bench: Bench, backend: VaultBackend, run: Run[Any]
    ) -> None:
        """A thousand different secrets are read at once, each once, and never more than sixteen at a time."""
        for number in range(1000):
            world.api("POST", f"kv1/many/{number}", {"value": str(number)})

        async def story() -> int:
            found = await asyncio.gather(*(issue(backend, f"kv1/many/{number}") for number in range(1000)))
            return sum(int(exposed(each)["value"]) for each in found)

        front = bench.world.front
        assert (499500, 1000, True) == (run(story()), front.count("kv1/many"), front.most_at_once <= 16)

    def test_a_server_that_was_restored_from_a_backup_is_believed_in_the_end(
        self, world: FakeWorld, bench: Bench, run: Run[Any]
    ) -> None:
        """An older version is a standby that lags, for a minute; after that it is what the server has now."""
        now = [time.time()]
        around = Surroundings(mode="user", config=bench.directory, state=bench.directory, drawer=bench.drawer)
        where = {"address": world.front.address, "ca_file": str(world.authority.ca_file), "auth": bench.approle()}
        backend = VaultBackend("vault", read("vault", {**where, "cache": "0s"}, around), around, clock=lambda: now[0])
        mount = world.fake.vault.mount_of("", "secret/x")
        assert mount is not None
        assert isinstance(mount.engine, Kv2)
        engine = mount.engine

        async def story() -> list[str]:
            await opened(backend)
            for text in ("old", "new"):
                world.api("POST", "secret/data/restored", {"data": {"value": text}})
            found = [exposed(await issue(backend, "secret/restored"))["value"]]
            engine.items["restored"].versions.pop(2)
            with pytest.raises(UnavailableError):
                await issue(backend, "secret/restored")
            now[0] += 61
            found.append(exposed(await issue(backend, "secret/restored"))["value"])
            await backend.close()
            return found

        assert run(story()) == ["new", "old"]
