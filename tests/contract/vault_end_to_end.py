"""
A login in a real database, from a Vault through a running broker to a process, and what becomes of it in the end.

Whether a login works is asked of the database itself. The processes are puppets;
the broker is a child process that is killed where a test says so. This module
refuses to sleep: it waits for what happens, or for what must not have happened
by the time something else has.
"""

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.contract.vault_world import VaultWorld, calm, leases, role_id, secret_id
from tests.fakes.faulty_http import Cut, Hang, Late
from tests.live.postgres import Postgres
from tests.puppets import Puppet, theatre
from tests.running import AnswerError, RunningBroker, room, start, until

RO: Final = "database/creds/ro"
KEPT: Final = "database/creds/kept"
SOON: Final = 20.0
"""Seconds within which the end of a process has to be known in the database; it takes a quarter of one."""

_CONFIG: Final = """
[backends.vault]
type = "vault"
address = {address}
ca_file = {ca_file}
timeout = "5s"
auth.approle = {{ role_id = {role_id}, secret_id_file = {secret_id_file} }}

[secrets.app-db]
backend = "vault"
path = "database/creds/ro"
ttl = "5m"

[secrets.kept-db]
backend = "vault"
path = "database/creds/kept"
ttl = "6s"

[secrets.github]
backend = "vault"
path = "secret/app"

[servers.scripts]
allow = ["app-db", "kept-db", "github", "local-one"]
"""


def config(world: VaultWorld, directory: Path, role: str = "broker") -> str:
    """Return a broker's config that logs in to a world."""
    where = directory / "secret-id"
    where.touch(0o600)
    where.write_text(secret_id(world, role))
    words = {
        "address": world.front.address,
        "ca_file": str(world.authority.ca_file),
        "role_id": role_id(world, role),
        "secret_id_file": str(where),
    }
    return _CONFIG.format_map({name: json.dumps(text) for name, text in words.items()})


class Login:
    """A login that a process was issued."""

    def __init__(self, database: Postgres, issued: dict[str, Any]) -> None:
        """Take what the broker answered."""
        self.accessor: str = issued["accessor"]
        self._values = issued["values"]
        self._database = database

    @property
    def user(self) -> str:
        """Return its name."""
        return str(self._values["username"].expose())

    def works(self) -> bool:
        """Ask the database."""
        return self._database.can_log_in(self.user, self._values["password"].expose())

    def until_it_ends(self) -> None:
        """Wait until the database refuses it."""
        until(lambda: not self.works(), deadline=SOON, said="the end of a login")


class VaultEndToEnd:
    """From the engine to the process, and back."""

    @pytest.fixture
    def stage(self) -> Iterator[Puppet]:
        """Give the puppet of which all others are forked."""
        with theatre() as first:
            yield first

    @pytest.fixture
    def broker(self, world: VaultWorld) -> Iterator[RunningBroker]:
        """Run a broker."""
        calm(world)
        with room() as directory, start(directory, config=config(world, directory)) as running:
            yield running
        calm(world)

    @pytest.fixture
    def server(self, stage: Puppet, broker: RunningBroker) -> Puppet:
        """Return a process that is connected to the broker."""
        return connected(stage, broker)

    def test_a_login_works_until_it_is_released(self, postgres: Postgres, server: Puppet) -> None:
        """What a process was issued logs in, and does not when the process has given it back."""
        login = Login(postgres, server.call("credential/issue", secret="app-db"))
        assert login.works()
        server.call("lease/release", accessor=login.accessor)
        login.until_it_ends()

    def test_a_login_ends_with_its_process(self, postgres: Postgres, server: Puppet) -> None:
        """When the process ends by itself, its login does."""
        login = Login(postgres, server.call("credential/issue", secret="app-db"))
        assert login.works()
        server.execute("/bin/true")
        login.until_it_ends()

    def test_a_login_ends_when_its_process_is_killed(
        self, postgres: Postgres, stage: Puppet, broker: RunningBroker, server: Puppet
    ) -> None:
        """When a process is killed its login ends, and another one's does not."""
        other = connected(stage, broker)
        logins = [Login(postgres, each.call("credential/issue", secret="app-db")) for each in (server, other)]
        assert [True, True] == [each.works() for each in logins]
        server.kill()
        logins[0].until_it_ends()
        assert logins[1].works()

    @pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL], ids=["restart", "crash"])
    def test_a_login_outlives_the_broker_and_not_its_process(
        self, postgres: Postgres, broker: RunningBroker, server: Puppet, end: signal.Signals
    ) -> None:
        """A restart and a crash of the broker leave a login in use alone; the next broker ends it with its process."""
        login = Login(postgres, server.call("credential/issue", secret="app-db"))
        broker.signal(end)
        broker.wait()
        assert login.works()
        broker.launch()
        until(lambda: login.accessor in _held(broker), said="the lease at the next broker")
        assert login.works()
        server.kill()
        login.until_it_ends()

    @pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL], ids=["restart", "crash"])
    def test_a_process_that_ended_meanwhile_has_no_login_any_more(
        self, postgres: Postgres, broker: RunningBroker, server: Puppet, end: signal.Signals
    ) -> None:
        """A process that ended while no broker ran loses its login when the next one starts."""
        login = Login(postgres, server.call("credential/issue", secret="app-db"))
        broker.signal(end)
        broker.wait()
        server.kill()
        assert login.works()
        broker.launch()
        login.until_it_ends()

    def test_stopping_for_good_ends_every_login(
        self, postgres: Postgres, broker: RunningBroker, server: Puppet
    ) -> None:
        """``stop --revoke`` takes back what is in use."""
        login = Login(postgres, server.call("credential/issue", secret="app-db"))
        assert login.works()
        broker.admin("stop", revoke=True)
        broker.wait()
        login.until_it_ends()

    @pytest.mark.slow
    def test_a_short_login_is_kept_alive(self, postgres: Postgres, server: Puppet) -> None:
        """A login of six seconds still works after twelve, because it is renewed, and ends with its process."""
        login = Login(postgres, server.call("credential/issue", secret="kept-db"))
        end = time.monotonic() + 12
        while time.monotonic() < end:
            assert login.works()
            time.sleep(0.25)
        server.kill()
        login.until_it_ends()

    def test_what_is_revoked_behind_its_back_is_known_at_the_next_renewal(
        self, world: VaultWorld, postgres: Postgres, broker: RunningBroker, server: Puppet
    ) -> None:
        """A login that an admin of the server has revoked is not listed as in use until it would have ended."""
        before = set(leases(world, KEPT))
        login = Login(postgres, server.call("credential/issue", secret="kept-db"))
        (name,) = set(leases(world, KEPT)) - before
        world.api("PUT", "sys/leases/revoke", {"lease_id": name, "sync": True})
        assert not login.works()
        until(lambda: login.accessor not in _held(broker), deadline=SOON, said="the end of the lease")

    def test_a_crash_in_the_middle_of_a_mint_leaves_nothing(
        self, world: VaultWorld, postgres: Postgres, broker: RunningBroker, server: Puppet
    ) -> None:
        """A login that was minted while the broker was killed is taken back by the next one."""
        before = postgres.logins(), set(leases(world, RO))
        server.call("credential/issue", secret="github")
        world.front.fail(Late(seconds=60), on=RO, times=1)
        server.send("credential/issue", secret="app-db")
        until(lambda: postgres.logins() - before[0], said="the mint")
        broker.kill()
        world.front.mend()
        broker.launch()
        until(lambda: not postgres.logins() - before[0], deadline=SOON, said="the end of what nobody got")
        assert set() == set(leases(world, RO)) - before[1]

    def test_a_lost_answer_leaves_nothing(
        self, world: VaultWorld, postgres: Postgres, broker: RunningBroker, server: Puppet
    ) -> None:
        """When the answer to a mint is lost, the process is refused, what was minted goes, and once was enough."""
        before = postgres.logins()
        world.front.fail(Cut(after=True), on=RO, times=1)
        with pytest.raises(AnswerError) as caught:
            server.call("credential/issue", secret="app-db")
        until(lambda: not postgres.logins() - before, deadline=SOON, said="the end of what nobody got")
        assert ("unavailable", 1, {}) == (caught.value.code, world.front.count(RO), _held(broker))

    def test_a_revocation_that_fails_is_made_up_for(
        self, world: VaultWorld, postgres: Postgres, server: Puppet
    ) -> None:
        """A login whose process has ended while the server was sealed ends soon after it is unsealed."""
        login = Login(postgres, server.call("credential/issue", secret="app-db"))
        world.seal()
        server.kill()
        assert login.works()
        world.unseal()
        until(lambda: not login.works(), deadline=60, said="the revocation")

    def test_many_servers_that_start_at_once_cause_one_read(
        self, world: VaultWorld, stage: Puppet, broker: RunningBroker
    ) -> None:
        """A hundred processes that want the same stored secret at once get it, and the server sees one request."""
        servers = [connected(stage, broker) for _ in range(100)]
        for each in servers:
            each.send("credential/issue", secret="github")
        found = {each.receive()["values"]["username"].expose() for each in servers}
        assert ({"app"}, 1) == (found, world.front.count("secret/data/app"))

    def test_a_server_that_hangs_holds_up_nobody_else(
        self, world: VaultWorld, broker: RunningBroker, stage: Puppet
    ) -> None:
        """While Vault hangs, what was read from it and what is kept here is issued as if nothing were."""
        broker.admin("secret/set", name="local-one", values={"value": "made up"})
        one, other = connected(stage, broker), connected(stage, broker)
        one.call("credential/issue", secret="github")
        world.front.fail(Hang())
        one.send("credential/issue", secret="app-db")
        began = time.monotonic()
        found = [other.call("credential/issue", secret=name)["secret"] for name in ("github", "local-one")]
        took = time.monotonic() - began
        with pytest.raises(AnswerError):
            one.receive()
        assert (["github", "local-one"], True) == (found, took < 3)

    def test_no_value_is_in_what_the_broker_wrote(
        self, world: VaultWorld, postgres: Postgres, broker: RunningBroker, server: Puppet
    ) -> None:
        """No file of the broker's, its log and its record among them, holds what was issued or a token of Vault's."""
        issued = server.call("credential/issue", secret="app-db")
        server.call("credential/issue", secret="github")
        password = issued["values"]["password"].expose().encode()
        server.kill()
        Login(postgres, issued).until_it_ends()
        files = [path for path in broker.places.run.parent.rglob("*") if path.is_file()]
        tokens = {each.token.encode() for each in world.front.seen if each.token}
        texts = (password, b"canary-of-kv-2", *tokens)
        found = [path.name for path in files for text in texts if text in path.read_bytes()]
        assert ([], True, True) == (found, len(files) > 4, len(tokens) > 0)


def connected(stage: Puppet, broker: RunningBroker) -> Puppet:
    """Return a new process that is connected to a broker."""
    puppet = stage.fork()
    puppet.connect(broker.places.broker_socket)
    return puppet


def _held(broker: RunningBroker) -> dict[str, str]:
    return {row["accessor"]: row["state"] for row in broker.admin("lease/list")["leases"]}
