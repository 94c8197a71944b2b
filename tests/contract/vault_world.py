"""
What a test of the Vault backend has around it, whether the server is a fake or a real one.

A world has a server that a test asks as its root (``api``), a front that the
backend connects to (``front``: it counts and fails), and the people and machines
who can log in. ``furnish`` puts into it what every test finds. This module
refuses to know the backend.
"""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

from tests.contract.vault_identities import Cluster, Directory, Signer
from tests.fakes.authority import Authority
from tests.fakes.faulty_http import FaultyServer
from tests.fakes.vault.database import PRETENDED
from tests.fakes.vault.server import FakeVault
from tests.fakes.vault_proxy import VaultProxy
from tests.live import vault_server
from tests.live.postgres import Postgres

PASSWORD: Final = "canary-of-a-person"
"""The password of ``ann``, who is in ``userpass`` and in ``ldap``."""

SERVICE_ACCOUNT: Final = "mcp:broker"
"""The service account whose token logs in by ``kubernetes``: its namespace and name."""

BROKER: Final = """
path "secret/data/*" { capabilities = ["read"] }
path "kv1/*" { capabilities = ["read"] }
path "database/creds/*" { capabilities = ["read"] }
path "database/static-creds/*" { capabilities = ["read"] }
path "pki/issue/*" { capabilities = ["create", "update"] }
path "pki/revoke" { capabilities = ["update"] }
path "ssh/sign/*" { capabilities = ["create", "update"] }
path "ssh/creds/*" { capabilities = ["create", "update"] }
path "totp/code/*" { capabilities = ["read"] }
path "sys/leases/revoke" { capabilities = ["update"] }
path "no-such-secret" { capabilities = ["read"] }
"""
"""What the broker needs for what is furnished, but for tokens of its own for each credential."""

CHILDREN: Final = """
path "auth/token/create" { capabilities = ["update"] }
path "auth/token/renew-accessor" { capabilities = ["update"] }
path "auth/token/revoke-accessor" { capabilities = ["update"] }
"""

LOGINS: Final = {
    "broker": {"token_policies": "broker,children", "token_ttl": "1h", "token_max_ttl": "24h"},
    "childless": {"token_policies": "broker", "token_ttl": "1h", "token_max_ttl": "24h"},
    "brief": {"token_policies": "broker", "token_ttl": "4s", "token_max_ttl": "8s"},
    "batch": {"token_policies": "broker", "token_ttl": "1h", "token_type": "batch"},
    "powerless": {"token_policies": "default", "token_ttl": "1h"},
}
"""AppRole roles: the usual, without child tokens, with tokens that end soon, with batch tokens, without rights."""


class VaultWorld(Protocol):
    """
    A server, and all around it.

    Attributes:
        real: whether the server is a real one.
        front: where the backend connects; it counts what comes in and fails as it is told.
        authority: who signed the server's certificate, and clients'.
        direct: the server's own address, without anything in front.

    """

    real: bool
    front: FaultyServer
    authority: Authority

    @property
    def direct(self) -> str:
        """Return the address without anything in front: for who shows a certificate."""
        ...

    def api(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | bytes | None = None,
        *,
        namespace: str = "",
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, dict[str, Any]]:
        """Ask the server itself, as its root unless another token is given."""
        ...

    def connection(self) -> Mapping[str, Any]:
        """Return what to write to ``database/config/NAME``."""
        ...

    def service_account(self) -> str:
        """Return the token of ``SERVICE_ACCOUNT``, and set up ``auth/kubernetes`` so that it is known."""
        ...

    def employ(self) -> None:
        """Set up ``auth/ldap`` so that ``ann`` is in its directory."""
        ...

    def signed(self, claims: Mapping[str, Any]) -> str:
        """Return a JWT whose key ``auth/jwt`` knows."""
        ...

    def seal(self) -> None:
        """Seal the server."""
        ...

    def unseal(self) -> None:
        """Unseal it, if it is sealed, and wait until it answers."""
        ...

    def pass_time(self, seconds: float) -> None:
        """Let time pass for the server; the clock of who runs the test may stand still meanwhile."""
        ...


def furnish(world: VaultWorld) -> None:
    """Put into a new server what every test finds there."""
    api = world.api
    for path, kind, options in (
        ("secret", "kv", {"version": "2"}),
        ("kv1", "kv", {"version": "1"}),
        ("database", "database", None),
        ("pki", "pki", None),
        ("ssh", "ssh", None),
        ("totp", "totp", None),
    ):
        api("POST", f"sys/mounts/{path}", {"type": kind, **({"options": options} if options else {})})
    for kind in ("approle", "userpass", "jwt", "cert"):
        api("POST", f"sys/auth/{kind}", {"type": kind})
    for name, text in (("broker", BROKER), ("children", CHILDREN)):
        api("POST", f"sys/policies/acl/{name}", {"policy": text})
    for name, role in LOGINS.items():
        api("POST", f"auth/approle/role/{name}", role)
    _engines(world)
    usual = LOGINS["broker"]
    api("POST", "auth/userpass/users/ann", {"password": PASSWORD, **usual})
    certificate = {"certificate": world.authority.ca_file.read_text(), "allowed_common_names": ["broker"], **usual}
    api("POST", "auth/cert/certs/broker", certificate)
    signed: dict[str, Any] = {"role_type": "jwt", "bound_audiences": ["vault"], "user_claim": "sub", **usual}
    api("POST", "auth/jwt/role/broker", signed)


def _engines(world: VaultWorld) -> None:
    api = world.api
    api("POST", "secret/data/app", {"data": {"username": "app", "password": "canary-of-kv-2"}})
    api("POST", "kv1/app", {"token": "canary-of-kv-1"})
    connection = world.connection()
    api("POST", "database/config/pg", {"plugin_name": "postgresql-database-plugin", "allowed_roles": "*", **connection})
    make = "create role \"{{name}}\" with login password '{{password}}' valid until '{{expiration}}';"
    common: dict[str, Any] = {"db_name": "pg", "creation_statements": [make]}
    api("POST", "database/roles/ro", {**common, "default_ttl": "5m", "max_ttl": "20m"})
    api("POST", "database/roles/kept", {**common, "default_ttl": "6s", "max_ttl": "60s"})
    api("POST", "database/roles/short", {**common, "default_ttl": "4s", "max_ttl": "8s"})
    api("POST", "pki/root/generate/internal", {"common_name": "root of the tests", "ttl": "24h", "key_type": "ec"})
    leaf = {"allowed_domains": "example.org", "allow_subdomains": True, "max_ttl": "1h", "key_type": "ec"}
    api("POST", "pki/roles/mcp", leaf)
    api("POST", "pki/roles/leased", {**leaf, "generate_lease": True})
    api("POST", "ssh/config/ca", {"generate_signing_key": True, "key_type": "ed25519"})
    dev = {"key_type": "ca", "allow_user_certificates": True, "allowed_users": "*", "ttl": "10m"}
    api("POST", "ssh/roles/dev", dev)
    api("POST", "ssh/roles/otp", {"key_type": "otp", "default_user": "ubuntu", "cidr_list": "127.0.0.0/8"})
    key = {"key": "MFRGGZDFMZTWQ2LKNNWG23TPOBYXE43U", "issuer": "tests", "account_name": "app"}
    api("POST", "totp/keys/app", key)


def role_id(world: VaultWorld, role: str = "broker") -> str:
    """Return the id of an AppRole role."""
    return str(world.api("GET", f"auth/approle/role/{role}/role-id")[1]["data"]["role_id"])


def secret_id(world: VaultWorld, role: str = "broker") -> str:
    """Return a new secret-id of a role."""
    return str(world.api("POST", f"auth/approle/role/{role}/secret-id", {})[1]["data"]["secret_id"])


def leases(world: VaultWorld, path: str) -> Sequence[str]:
    """Return the ids of the leases that live below a path such as ``database/creds/ro``."""
    status, found = world.api("LIST", f"sys/leases/lookup/{path}")
    return [f"{path}/{key}" for key in found["data"]["keys"]] if status == 200 else []


def calm(world: VaultWorld) -> None:
    """Make a world that a test has used ready for the next: whole, open, with nothing counted."""
    world.front.mend()
    world.unseal()
    world.front.forget()


class FakeWorld:
    """A world around the fake."""

    real = False

    def __init__(self, fake: FakeVault, authority: Authority, cluster: Cluster, database: Postgres | None) -> None:
        """Take what runs."""
        self.fake = fake
        self.front = fake.front
        self.authority = authority
        self._signer = Signer()
        self._cluster = cluster
        self._database = database
        self.api = fake.api

    @property
    def direct(self) -> str:
        """Return the front's address: it shows the fake what certificate it was shown."""
        return self.front.address

    def connection(self) -> Mapping[str, Any]:
        """Return a database that is only pretended, unless there is one."""
        return {"connection_url": PRETENDED, "username": "none", "password": "none", **connected(self._database)}

    def service_account(self) -> str:
        """Return a token that the fake knows."""
        self.api("POST", "sys/auth/kubernetes", {"type": "kubernetes"})
        self.api("POST", "auth/kubernetes/config", {"known_tokens": {self._cluster.token: SERVICE_ACCOUNT}})
        return self._cluster.token

    def employ(self) -> None:
        """Let the fake know ``ann``."""
        self.api("POST", "sys/auth/ldap", {"type": "ldap"})
        self.api("POST", "auth/ldap/users/ann", {"password": PASSWORD, **LOGINS["broker"]})

    def signed(self, claims: Mapping[str, Any]) -> str:
        """Return a JWT."""
        self.api("POST", "auth/jwt/config", {"jwt_validation_pubkeys": [self._signer.public]})
        return self._signer.sign(claims)

    def seal(self) -> None:
        """Seal it."""
        self.fake.vault.sealed = True

    def unseal(self) -> None:
        """Unseal it."""
        self.fake.vault.sealed = False

    def pass_time(self, seconds: float) -> None:
        """Put its clock forward."""
        self.fake.vault.clock.advance(seconds)


class RealWorld:
    """A world around a real server."""

    real = True

    def __init__(
        self,
        server: vault_server.VaultServer,
        front: VaultProxy,
        authority: Authority,
        *,
        cluster: Cluster,
        directory: Directory,
        database: Postgres,
    ) -> None:
        """Take what runs."""
        self.server = server
        self.front: FaultyServer = front
        self.authority = authority
        self._signer = Signer()
        self._cluster = cluster
        self._directory = directory
        self._database = database
        self.api = server.api

    @property
    def direct(self) -> str:
        """Return the server's own address."""
        return self.server.address

    def connection(self) -> Mapping[str, Any]:
        """Return a real database."""
        return connected(self._database)

    def service_account(self) -> str:
        """Return a token that a cluster of the tests' own knows."""
        self.api("POST", "sys/auth/kubernetes", {"type": "kubernetes"})
        config = {
            "kubernetes_host": self._cluster.address,
            "kubernetes_ca_cert": self.authority.ca_file.read_text(),
            "token_reviewer_jwt": self._cluster.token,
            "disable_iss_validation": True,
        }
        self.api("POST", "auth/kubernetes/config", config)
        return self._cluster.token

    def employ(self) -> None:
        """Let a directory of the tests' own know ``ann``."""
        self.api("POST", "sys/auth/ldap", {"type": "ldap"})
        config = {"url": self._directory.address, "userdn": "ou=people", "userattr": "uid", **LOGINS["broker"]}
        self.api("POST", "auth/ldap/config", config)

    def signed(self, claims: Mapping[str, Any]) -> str:
        """Return a JWT."""
        self.api("POST", "auth/jwt/config", {"jwt_validation_pubkeys": [self._signer.public]})
        return self._signer.sign(claims)

    def seal(self) -> None:
        """Seal it."""
        self.server.seal()

    def unseal(self) -> None:
        """Unseal it where it is sealed."""
        if self.server.health() != 200:
            self.server.unseal()

    def pass_time(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


def connected(database: Postgres | None) -> Mapping[str, Any]:
    """Return how a server connects to a real database; nothing where there is none."""
    if database is None:
        return {}
    url = f"postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{database.port}/postgres?sslmode=disable"
    return {"connection_url": url, "username": "postgres", "password": database.password}


@contextmanager
def fake_world(directory: Path, *, database: Postgres | None = None) -> Iterator[FakeWorld]:
    """Give a furnished world with a fake in it."""
    authority = Authority(directory)
    with Cluster(authority) as cluster, FakeVault(tls=authority.listening()) as fake:
        world = FakeWorld(fake, authority, cluster, database)
        furnish(world)
        yield world


@contextmanager
def real_world(directory: Path, *, database: Postgres) -> Iterator[RealWorld]:
    """Give a furnished world with a real server in it."""
    authority = Authority(directory)
    home = directory / "server"
    try:
        with (
            vault_server.running(authority, home) as server,
            VaultProxy(server.address, trust=authority.trusting(), tls=authority.listening()) as front,
            Cluster(authority) as cluster,
            Directory({"ann": PASSWORD}) as people,
        ):
            world = RealWorld(server, front, authority, cluster=cluster, directory=people, database=database)
            furnish(world)
            yield world
            # What hangs on leases is taken back while there is a server to do it.
            world.unseal()
            server.api("PUT", "sys/leases/revoke-prefix/database/creds", {})
    finally:
        shutil.rmtree(home, ignore_errors=True)
