"""
A real OpenBao or Vault for as long as a block lasts: with TLS, set up and unsealed by the tests, ended by its pid.

    with running(authority, directory) as server:
        server.api("POST", "sys/mounts/secret", {"type": "kv", "options": {"version": "2"}})

The binary is ``bao`` or ``vault`` on the PATH, or what ``MCP_BROKER_VAULT_BIN``
names. This module refuses to use a development server: those are never sealed.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from tests.fakes.authority import Authority
from tests.fakes.vault.server import ask
from tests.running import DEADLINE, until

PATIENCE: Final = 60.0
"""Seconds for a start; it takes two."""

_STANDBY: Final = 429


def binary() -> Path | None:
    """Return the server's program, or None where there is none."""
    named = os.environ.get("MCP_BROKER_VAULT_BIN")
    found = named or shutil.which("bao") or shutil.which("vault")
    return Path(found) if found else None


class VaultServer:
    """
    One real server.

    Attributes:
        port: where it listens, on 127.0.0.1; the one after it is for other nodes.
        root: the token that may do everything.

    """

    def __init__(
        self, program: Path, authority: Authority, directory: Path, *, storage: str, node: str, known_as: str = ""
    ) -> None:
        """Write its config; ``storage`` is ``file``, ``inmem`` or ``raft``, ``known_as`` where others send clients."""
        self.port, self._cluster_port = _free_ports()
        self.root = ""
        self.keys: list[str] = []
        self._authority = authority
        self._directory = directory
        self._storage = storage
        self._node = node
        self._known_as = known_as
        self._program = program
        self._child: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "config.json").write_text(json.dumps(self._config()))

    @property
    def address(self) -> str:
        """Return where it listens."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Return its process id."""
        assert self._child is not None
        return self._child.pid

    @property
    def log(self) -> str:
        """Return what it has written."""
        return (self._directory / "log").read_text("utf-8", "replace")

    def _config(self) -> dict[str, Any]:
        certificate, key = self._authority.certificate("localhost")
        tls = {"tls_cert_file": str(certificate), "tls_key_file": str(key)}
        listener = {"address": f"127.0.0.1:{self.port}", "cluster_address": f"127.0.0.1:{self._cluster_port}", **tls}
        storage: dict[str, Any] = {} if self._storage == "inmem" else {"path": str(self._directory / "data")}
        if self._storage == "raft":
            storage |= {"node_id": self._node, "performance_multiplier": 1}
        (self._directory / "data").mkdir(exist_ok=True)
        return {
            "listener": {"tcp": listener},
            "storage": {self._storage: storage},
            "api_addr": self._known_as or self.address,
            "cluster_addr": f"https://127.0.0.1:{self._cluster_port}",
            "disable_mlock": True,
            "log_level": "warn",
            "ui": False,
        }

    # -- its life -------------------------------------------------------------

    def launch(self) -> None:
        """Start it, again if it has run before, and wait until it answers."""
        command = [str(self._program), "server", f"-config={self._directory / 'config.json'}"]
        # Nothing of whoever runs the tests: no token, no address, no home.
        environment = {"PATH": os.environ["PATH"], "HOME": str(self._directory)}
        with (self._directory / "log").open("ab") as log:
            self._child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd="/"
            )
        until(self._answers, deadline=PATIENCE, said="the start of the server")

    def _answers(self) -> bool:
        assert self._child is not None
        if self._child.poll() is not None:
            message = f"the server ended: {self.log}"
            raise ChildProcessError(message)
        try:
            return ask(self.address, "GET", "sys/seal-status", trust=self._authority.trusting())[0] == 200
        except OSError:
            return False

    def initialise(self) -> None:
        """Set it up with one key, unseal it, and wait until it is active."""
        _, made = self.api("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1}, token="")
        self.root, self.keys = made["root_token"], made["keys"]
        self.unseal()

    def unseal(self) -> None:
        """Unseal it, and wait until it answers as whatever it is."""
        for key in self.keys:
            self.api("PUT", "sys/unseal", {"key": key}, token="")
        until(lambda: self.health() in {200, _STANDBY}, deadline=PATIENCE, said="unsealing")

    def health(self) -> int:
        """Return the status of its health; 0 where nobody answers."""
        try:
            return self.api("GET", "sys/health", token="")[0]
        except OSError:
            return 0

    def seal(self) -> None:
        """Seal it."""
        self.api("PUT", "sys/seal")

    def kill(self) -> None:
        """End it with SIGKILL."""
        assert self._child is not None
        self._child.kill()
        self._child.wait(DEADLINE)

    def end(self) -> None:
        """Make sure that it has ended."""
        if self._child is None or self._child.poll() is not None:
            return
        self._child.send_signal(signal.SIGTERM)
        try:
            self._child.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.kill()

    # -- asking it --------------------------------------------------------------

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
        """Ask it as the root, or with another token; return the status and the body."""
        chosen = self.root if token is None else token
        trust = self._authority.trusting()
        return ask(self.address, method, path, body, token=chosen, namespace=namespace, headers=headers, trust=trust)

    def voters(self) -> int:
        """Return how many nodes of its cluster have a vote."""
        status, found = self.api("GET", "sys/storage/raft/configuration")
        return sum(bool(each["voter"]) for each in found["data"]["config"]["servers"]) if status == 200 else 0

    def join(self, leader: "VaultServer") -> None:
        """Become a standby of another one's cluster."""
        said = {"leader_api_addr": leader.address, "leader_ca_cert": self._authority.ca_file.read_text()}
        self.api("POST", "sys/storage/raft/join", said, token="")
        self.keys, self.root = leader.keys, leader.root
        self.unseal()


@contextmanager
def running(authority: Authority, directory: Path, *, storage: str = "file") -> Iterator[VaultServer]:
    """Run a server of its own, ready to answer, for as long as the block lasts."""
    program = binary()
    assert program is not None
    server = VaultServer(program, authority, directory, storage=storage, node="one")
    try:
        server.launch()
        server.initialise()
        yield server
    finally:
        server.end()


@contextmanager
def cluster(authority: Authority, directory: Path, known_as: Sequence[str]) -> Iterator[list[VaultServer]]:
    """Run servers with Raft storage, one for each address that clients know; the first is active at first."""
    program = binary()
    assert program is not None
    with ExitStack() as stack:
        servers: list[VaultServer] = []
        for number, address in enumerate(known_as):
            home = directory / f"node-{number}"
            server = VaultServer(program, authority, home, storage="raft", node=f"node-{number}", known_as=address)
            stack.callback(server.end)
            server.launch()
            if servers:
                server.join(servers[0])
            else:
                server.initialise()
                until(lambda node=server: node.health() == 200, deadline=PATIENCE, said="an active node")  # type: ignore[misc]
            servers.append(server)
        # Who joins has no vote until it has been seen well for a while.
        soon = {"server_stabilization_time": "1s"}
        servers[0].api("POST", "sys/storage/raft/autopilot/configuration", soon)
        until(lambda: servers[0].voters() == len(known_as), deadline=PATIENCE, said="a cluster in which all vote")
        yield servers


def _free_ports() -> tuple[int, int]:
    with socket.socket() as first, socket.socket() as second:
        for probe in (first, second):
            probe.bind(("127.0.0.1", 0))
        return int(first.getsockname()[1]), int(second.getsockname()[1])
