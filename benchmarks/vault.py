"""
What a Vault costs: a cold read beside the bare request, 200 leases at once, a warm issue beside the sealed store's.

The server is a real OpenBao or Vault where there is one (``bao`` or ``vault`` on
the PATH, or ``MCP_BROKER_VAULT_BIN``), with TLS and its data in memory; else the
fake of the tests. What is in front of it counts. It refuses to measure a database:
the leases are of the ssh engine, so that what is measured is not PostgreSQL.
"""

import concurrent.futures
import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks import rig as r
from tests.fakes.authority import Authority
from tests.fakes.faulty_http import FaultyServer
from tests.fakes.vault.server import FakeVault
from tests.fakes.vault_proxy import VaultProxy
from tests.live import vault_server

READS: Final = 200
"""Cold reads of each kind in one round."""

LEASES: Final = 200
_PATIENCE: Final = 60.0

_TABLES: Final = """
[backends.cold]
type = "vault"
address = "{direct}"
ca_file = "{ca_file}"
cache = 0
auth.token = {{ file = "{token}" }}

[backends.warm]
type = "vault"
address = "{direct}"
ca_file = "{ca_file}"
cache = "1h"
auth.token = {{ file = "{token}" }}

[backends.counted]
type = "vault"
address = "{counted}"
ca_file = "{ca_file}"
auth.token = {{ file = "{token}" }}

[secrets.cold]
backend = "cold"
path = "secret/bench"

[secrets.warm]
backend = "warm"
path = "secret/bench"

[secrets.lease]
backend = "counted"
path = "ssh/creds/otp"
params = {{ ip = "127.0.0.1" }}

[servers.vault]
command = ["/bin/true"]
allow = ["cold", "warm", "lease"]
"""


@dataclass(frozen=True, slots=True)
class Place:
    """A server to measure with."""

    what: str
    direct: str
    front: FaultyServer
    token: str
    authority: Authority


@contextmanager
def running(directory: Path) -> Iterator[Place]:
    """Run a server, furnished with a secret and with an engine that makes leases."""
    directory.mkdir()
    authority = Authority(directory)
    if vault_server.binary() is None:
        with FakeVault(tls=authority.listening()) as fake:
            yield Place("the fake", fake.address, fake.front, _furnished(fake), authority)
        return
    with (
        vault_server.running(authority, directory / "server", storage="inmem") as server,
        VaultProxy(server.address, trust=authority.trusting(), tls=authority.listening()) as front,
    ):
        yield Place("a real server", server.address, front, _furnished(server), authority)


def _furnished(server: Any) -> str:  # noqa: ANN401 -- a real one or the fake: both have ``api``
    """Make what is measured; return a token that may have it all."""
    server.api("POST", "sys/mounts/secret", {"type": "kv", "options": {"version": "2"}})
    server.api("POST", "sys/mounts/ssh", {"type": "ssh"})
    server.api("POST", "ssh/roles/otp", {"key_type": "otp", "default_user": "bench", "cidr_list": "127.0.0.0/8"})
    # K/V 2 is not ready at once where it was just mounted.
    end = time.monotonic() + _PATIENCE
    while server.api("POST", "secret/data/bench", {"data": {"value": r.VALUE}})[0] != http.HTTPStatus.OK:
        assert time.monotonic() < end
        time.sleep(0.1)
    token: str = server.api("POST", "auth/token/create", {"ttl": "6h"})[1]["auth"]["client_token"]
    return token


def configured(rig: r.Rig, place: Place) -> None:
    """Add the server to the broker's config."""
    token = rig.directory / "vault-token"
    token.touch(0o600)
    token.write_text(place.token)
    file = rig.directory / "config" / "broker.toml"
    ca_file = str(place.authority.ca_file)
    tables = _TABLES.format(direct=place.direct, counted=place.front.address, ca_file=ca_file, token=token)
    file.write_text(file.read_text() + tables)


def cold_ms(rig: r.Rig, place: Place, rounds: int) -> Iterator[tuple[float, float]]:
    """Yield milliseconds of one cold issue by the broker and of one bare request to the same server, in turns."""
    address = place.direct.removeprefix("https://")
    bare = http.client.HTTPSConnection(address, context=place.authority.trusting(), timeout=_PATIENCE)
    headers = {"X-Vault-Token": place.token, "X-Vault-Request": "true"}
    with _connected(rig.broker) as ask:
        for number in range(rounds * READS + 5):
            begin = time.perf_counter()
            ask("credential/issue", secret="cold")  # noqa: S106 -- a name
            between = time.perf_counter()
            bare.request("GET", "/v1/secret/data/bench", headers=headers)
            bare.getresponse().read()
            end = time.perf_counter()
            # The first ones connect, and are asked what is mounted.
            if number >= 5:
                yield 1000 * (between - begin), 1000 * (end - between)
    bare.close()


def leases(rig: r.Rig, place: Place) -> tuple[float, int, int]:
    """Open leases at once; return the seconds, how many requests were under way at most, and how many there were."""
    with _connected(rig.broker) as ask:
        ask("credential/issue", secret="lease", fresh=True)  # noqa: S106
        place.front.forget()
        with concurrent.futures.ThreadPoolExecutor(LEASES) as pool:
            begin = time.perf_counter()
            found = list(pool.map(lambda _: _one(rig.broker), range(LEASES)))
            took = time.perf_counter() - begin
    assert len(set(found)) == LEASES
    most, count = place.front.most_at_once, len(place.front.seen)
    with _connected(rig.broker) as ask:
        for accessor in found:
            ask("lease/release", accessor=accessor)
    _until_quiet(place.front)
    return took, most, count


def _until_quiet(front: FaultyServer) -> None:
    """Wait until what was released is revoked."""
    before = -1
    while before != len(front.seen):
        before = len(front.seen)
        time.sleep(1)


def _one(path: Path) -> str:
    with _connected(path) as ask:
        found: str = ask("credential/issue", secret="lease", fresh=True)["accessor"]  # noqa: S106
        return found


def warm(rig: r.Rig, rounds: int, seconds: float) -> Iterator[tuple[dict[str, float], dict[str, float]]]:
    """Yield the load on a secret of the server's, and on one in the sealed store, at 32 connections, in turns."""
    line = '{{"jsonrpc":"2.0","id":1,"method":"credential/issue","params":{{"secret":"{}"}}}}\n'
    r.ask(rig.admin, "secret/set", name="bench", values={"value": r.VALUE})
    for _ in range(rounds):
        ours, sealed = (
            r.load(rig.broker, line.format(name), "}\n", connections=32, seconds=seconds) for name in ("warm", "bench")
        )
        yield ours, sealed


@contextmanager
def _connected(path: Path) -> Iterator[Any]:
    """Give what asks over one connection and returns the result."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(_PATIENCE)
        sock.connect(str(path))
        with sock.makefile("rb") as lines:

            def ask(method: str, **params: Any) -> dict[str, Any]:  # noqa: ANN401 -- what JSON can hold
                said = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
                sock.sendall(json.dumps(said).encode() + b"\n")
                answer = json.loads(lines.readline())
                if "error" in answer:
                    message = f"{method}: {answer['error']['message']}"
                    raise SystemExit(message)
                result: dict[str, Any] = answer["result"]
                return result

            yield ask
