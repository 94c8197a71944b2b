"""
What a rotation asks of the Vault backend: to write over what was seen, and to replace what it and the server hold.

A crash is laid out as it would be found: the files and the server's knowledge of
each moment. It runs against a fake and a real server, and refuses to know a rotation.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from backends.base import ConflictError, MisconfiguredError, RefusedError, Secret
from backends.rotating import RotatingBackend, RotatingLoginBackend, Staged, StagingBackend
from backends.vault import VaultBackend
from tests.contract.vault_case import Bench, Run, VaultCase, eventually, exposed, issue, opened
from tests.contract.vault_world import VaultWorld, role_id, secret_id
from tests.fakes.faulty_http import Late, Say

POLICY: Final = """
path "secret/data/*" { capabilities = ["create", "update", "read"] }
path "secret/metadata/*" { capabilities = ["read"] }
path "secret/destroy/*" { capabilities = ["update"] }
path "auth/approle/role/rotating/custom-secret-id" { capabilities = ["create", "update"] }
path "auth/approle/role/rotating/secret-id/destroy" { capabilities = ["create", "update"] }
path "database/rotate-role/*" { capabilities = ["create", "update"] }
"""
NEXT: Final = "canary-of-the-next-secret-id"
MOMENTS: Final = ("written", "registered", "copied", "in place", "destroyed")


def staged(token: str, **pending: str) -> Staged:
    """Return what a rotation stages."""
    values = {name: Secret(value) for name, value in pending.items()}
    return Staged(token=token, pending=values, previous={}, expected=1, at=1.0, beside={"refresh": Secret("r")})


class VaultRotating(VaultCase):
    """What stands in it, and what the broker logs in with, may be replaced."""

    @pytest.fixture
    def secret_id_file(self, bench: Bench) -> Path:
        """Return the file of a login that may do all this."""
        bench.world.api("POST", "sys/policies/acl/rotating", {"policy": POLICY})
        role = {"token_policies": "broker,rotating", "token_ttl": "1h"}
        bench.world.api("POST", "auth/approle/role/rotating", role)
        return Path(bench.file("rotating-secret-id", secret_id(bench.world, "rotating")))

    @pytest.fixture
    def auth(self, world: VaultWorld, secret_id_file: Path) -> dict[str, Any]:
        """Return how to log in with it."""
        return {"approle": {"role_id": role_id(world, "rotating"), "secret_id_file": str(secret_id_file)}}

    @pytest.fixture
    def rotating(self, bench: Bench, auth: dict[str, Any], run: Run[Any]) -> Iterator[VaultBackend]:
        """Give a backend that is open."""
        made = run(opened(bench.backend(auth)))
        yield made
        run(made.close())

    def _logs_in(self, world: VaultWorld, value: str) -> bool:
        shown = {"role_id": role_id(world, "rotating"), "secret_id": value}
        return world.api("POST", "auth/approle/login", shown)[0] == 200

    def test_it_is_what_rotations_ask_for(self, rotating: VaultBackend) -> None:
        """It stages, rotates at the source, and replaces its own login."""
        kinds = (StagingBackend, RotatingBackend, RotatingLoginBackend)
        assert [True] * 3 == [isinstance(rotating, kind) for kind in kinds]

    # -- over what was seen ------------------------------------------------------

    def test_of_two_writers_one_wins(self, rotating: VaultBackend, run: Run[Any]) -> None:
        """Of two who write over the same version at once, one is told of a conflict, and what the other wrote stays."""

        async def story() -> tuple[list[Any], str]:
            first = await rotating.put_if("secret/raced", {"value": Secret("0")}, expected=None)
            both = (rotating.put_if("secret/raced", {"value": Secret(text)}, expected=first) for text in "ab")
            ends = await asyncio.gather(*both, return_exceptions=True)
            winner = "ab"[[isinstance(end, int) for end in ends].index(True)]
            kinds = sorted(type(end).__name__ for end in ends)
            read = exposed(await issue(rotating, "secret/raced"))["value"]
            return kinds, "the winner's" if read == winner else read

        assert (["ConflictError", "int"], "the winner's") == run(story())

    def test_what_is_there_is_no_new_secret(self, rotating: VaultBackend, run: Run[Any]) -> None:
        """Who expects nothing to be there writes over nothing."""
        with pytest.raises(ConflictError):
            run(rotating.put_if("secret/app", {"value": Secret("x")}, expected=None))

    def test_what_was_written_is_issued_next(self, rotating: VaultBackend, run: Run[Any]) -> None:
        """What was read a moment before a write is not handed out after it."""

        async def story() -> list[str]:
            await rotating.put_if("secret/next", {"value": Secret("old")}, expected=None)
            before = exposed(await issue(rotating, "secret/next"))["value"]
            await rotating.put_if("secret/next", {"value": Secret("new")}, expected=1)
            return [before, exposed(await issue(rotating, "secret/next"))["value"]]

        assert run(story()) == ["old", "new"]

    def test_what_was_being_read_during_a_write_is_read_again(
        self, world: VaultWorld, rotating: VaultBackend, run: Run[Any]
    ) -> None:
        """An answer that was on its way while the secret was written is handed to nobody."""

        async def story() -> list[str]:
            await rotating.put_if("secret/late", {"value": Secret("old")}, expected=None)
            world.front.fail(Late(seconds=0.5), on="secret/data/late", method="GET", times=1)
            reading = asyncio.create_task(issue(rotating, "secret/late"))
            await eventually(lambda: asyncio.to_thread(world.front.count, "secret/data/late", method="GET"))
            await asyncio.sleep(0.2)
            await rotating.put_if("secret/late", {"value": Secret("new")}, expected=1)
            joined = exposed(await issue(rotating, "secret/late"))["value"]
            return [exposed(await reading)["value"], joined]

        assert run(story()) == ["new", "new"]

    def test_k_v_1_is_not_written(self, rotating: VaultBackend, run: Run[Any]) -> None:
        """An engine that cannot check what it writes over is refused."""
        with pytest.raises(MisconfiguredError, match="version 2"):
            run(rotating.put_if("kv1/app", {"value": Secret("x")}, expected=None))

    def test_what_is_staged_is_found_as_it_was(self, rotating: VaultBackend, run: Run[Any]) -> None:
        """Nothing, then what was staged, then what took its place, then nothing: for all brokers alike."""

        async def story() -> list[Staged | None]:
            seen = [await rotating.staged("secret/app")]
            for token, before in (("one", None), ("two", "one")):
                await rotating.stage("secret/app", staged(token, value=token), instead_of=before)
                seen.append(await rotating.staged("secret/app"))
            await rotating.stage("secret/app", None, instead_of="two")
            return [*seen, await rotating.staged("secret/app")]

        assert [None, staged("one", value="one"), staged("two", value="two"), None] == run(story())

    def test_of_two_who_stage_one_wins(self, rotating: VaultBackend, run: Run[Any]) -> None:
        """Of two rotations that begin at once, one is told of the other, also where one was over before."""

        async def story() -> list[list[str]]:
            found = []
            for _ in range(2):
                both = [rotating.stage("secret/two", staged(name), instead_of=None) for name in ("a", "b")]
                ends = await asyncio.gather(*both, return_exceptions=True)
                found.append(sorted(type(end).__name__ for end in ends))
                left = await rotating.staged("secret/two")
                await rotating.stage("secret/two", None, instead_of=left.token if left else None)
            return found

        found = run(story())
        assert [["ConflictError", "NoneType"]] * 2 == found

    def test_no_version_before_keeps_a_staged_value(
        self, world: VaultWorld, rotating: VaultBackend, run: Run[Any]
    ) -> None:
        """When a rotation is over, no version beside the secret can be read that held its values."""

        async def story() -> None:
            await rotating.stage("secret/clean", staged("one", value="canary-staged"), instead_of=None)
            await rotating.stage("secret/clean", None, instead_of="one")

        run(story())
        beside = "secret/data/clean.mcp-broker-rotation"
        answers = [world.api("GET", f"{beside}?version={number}") for number in (1, 2)]
        assert (False, {}) == ("canary-staged" in str(answers), answers[1][1]["data"]["data"])

    # -- what the broker logs in with --------------------------------------------

    def test_a_login_is_replaced(
        self, world: VaultWorld, rotating: VaultBackend, secret_id_file: Path, run: Run[Any]
    ) -> None:
        """Another secret-id stands in the file and logs in, the one before does not, and nothing is left beside it."""
        before = secret_id_file.read_text().strip()
        run(rotating.rotate_login(token="t"))
        after = secret_id_file.read_text().strip()
        logins = [self._logs_in(world, value) for value in (before, after)]
        assert ([False, True], [secret_id_file.name], 0o600) == (
            logins,
            [each.name for each in secret_id_file.parent.glob("*rotating-secret-id*")],
            secret_id_file.stat().st_mode & 0o777,
        )

    @pytest.mark.parametrize("moment", MOMENTS)
    def test_a_replacement_that_was_cut_off_is_taken_up(
        self, world: VaultWorld, bench: Bench, auth: dict[str, Any], secret_id_file: Path, *, moment: str, run: Run[Any]
    ) -> None:
        """Wherever the broker has died: one secret-id is left afterwards, that of the rotation, in its file."""
        before = secret_id_file.read_text().strip()
        coming, former = (secret_id_file.with_name(f"{secret_id_file.name}.{end}") for end in ("next", "old"))
        at = MOMENTS.index(moment)
        bench.file(coming.name, NEXT + str(at))
        role = "auth/approle/role/rotating"
        if at >= MOMENTS.index("registered"):
            world.api("POST", f"{role}/custom-secret-id", {"secret_id": NEXT + str(at)})
        if at >= MOMENTS.index("copied"):
            bench.file(former.name, before)
        if at >= MOMENTS.index("in place"):
            coming.replace(secret_id_file)
        if at >= MOMENTS.index("destroyed"):
            world.api("POST", f"{role}/secret-id/destroy", {"secret_id": before})

        async def story() -> None:
            backend = await opened(bench.backend(auth))
            await backend.rotate_login(token="t")
            await backend.close()

        run(story())
        logins = [self._logs_in(world, value) for value in (before, NEXT + str(at))]
        assert (NEXT + str(at), [False, True], False, False) == (
            secret_id_file.read_text().strip(),
            logins,
            coming.exists(),
            former.exists(),
        )

    def test_a_new_login_that_is_refused_is_shown_once(
        self, world: VaultWorld, rotating: VaultBackend, secret_id_file: Path, run: Run[Any]
    ) -> None:
        """Where the server does not take the new secret-id, the old one stays, and no retry can lock it out."""
        before = secret_id_file.read_text()
        world.front.forget()
        world.front.fail(Say(status=400, errors=("invalid role or secret ID",)), on="auth/approle/login")

        async def story() -> None:
            for _ in range(7):
                with pytest.raises(RefusedError, match="the one before is still used"):
                    await rotating.rotate_login(token="t")

        run(story())
        assert (before, 1) == (secret_id_file.read_text(), world.front.count("auth/approle/login"))

    # -- what the server holds ---------------------------------------------------

    def test_a_static_account_is_rotated_at_the_server(
        self, world: VaultWorld, rotating: VaultBackend, run: Run[Any]
    ) -> None:
        """The server makes another password when it is told to, and it is that which is issued next."""
        if world.real:
            world.api("POST", "database/roles/maker", {"db_name": "pg", "creation_statements": [MAKE]})
            name = str(world.api("GET", "database/creds/maker")[1]["data"]["username"])
        else:
            name = "app"
        role = {"db_name": "pg", "username": name, "rotation_period": "1h"}
        world.api("POST", "database/static-roles/turned", role)

        async def story() -> bool:
            before = exposed(await issue(rotating, "database/static-creds/turned"))["password"]
            await rotating.rotate("database/static-creds/turned", token="t")
            return before != exposed(await issue(rotating, "database/static-creds/turned"))["password"]

        assert run(story())

    def test_what_the_server_does_not_rotate_is_said(self, rotating: VaultBackend, run: Run[Any]) -> None:
        """A path that nothing rotates is something to mend in the config."""
        with pytest.raises(MisconfiguredError, match="rotates nothing"):
            run(rotating.rotate("secret/app", token="t"))


MAKE: Final = "create role \"{{name}}\" with login password '{{password}}' valid until '{{expiration}}';"
