"""
A fake Vault that listens: its nodes, the front that tests break, and a door of the tests' own.

It refuses to listen anywhere but on this machine.
"""

import asyncio
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.fakes.faulty_http import Asked, FaultyServer, Said
from tests.fakes.vault.core import Reply, Vault
from tests.fakes.vault.engines import MAKERS
from tests.fakes.vault.wire import Request

_TICK: Final = 0.2
_HEADERS: Final = {
    "cache-control": "no-store",
    "content-type": "application/json",
    "strict-transport-security": "max-age=31536000; includeSubDomains",
}
_LONGEST_BODY: Final = 32 << 20
_NO_FORWARDING: Final = "x-vault-no-request-forwarding"


@dataclass(slots=True, kw_only=True)
class Node:
    """
    How one address of a cluster behaves.

    Attributes:
        standby: whether another one is active.
        leader: the address that it sends to.
        forwards: whether it passes on what it cannot do itself; else it redirects.
        alive: whether there is an active one to pass on to.
        behind: how many seconds late it sees what was written to version 2 of the KV engine.
        clustered: whether it says that it is one of several.
        agent: whether it wants the header that browsers cannot send.

    """

    standby: bool = False
    leader: str = ""
    forwards: bool = True
    alive: bool = True
    behind: float = 0
    clustered: bool = False
    agent: bool = False

    def answer(self, vault: Vault, request: Request) -> tuple[Reply, Mapping[str, str]]:
        """Return what this node answers, with headers of its own."""
        if self.agent and request.headers.get("x-vault-request") != "true":
            return (HTTPStatus.PRECONDITION_FAILED, {"errors": ["missing 'X-Vault-Request' header"]}), {}
        if request.path == "sys/leader" and self.clustered and not vault.sealed:
            return self._leader(vault), {}
        if request.path == "sys/health" and self.clustered and not vault.sealed and request.reads:
            return self._health(vault.answer(request)), {}
        served_here = request.reads and not request.path.startswith(("sys/", "database/"))
        if self.standby and not vault.sealed and not request.path.startswith("sys/seal-status"):
            forwarded = self.forwards and self.alive and _NO_FORWARDING not in request.headers
            if not served_here and not forwarded:
                return (HTTPStatus.TEMPORARY_REDIRECT, None), {"location": f"{self.leader}/v1/{request.path}"}
            if served_here and self.behind:
                request = replace(request, headers={**request.headers, "x-fake-behind": str(self.behind)})
        return vault.answer(request), {}

    def _health(self, reply: Reply) -> Reply:
        body = {**(reply[1] or {}), "standby": self.standby, "replication_performance_mode": "primary"}
        return (HTTPStatus.TOO_MANY_REQUESTS if self.standby else reply[0]), body

    def _leader(self, vault: Vault) -> Reply:
        behind = int(self.standby and self.behind > 0)
        port = urlsplit(self.leader).port or 0
        body = {"ha_enabled": True, "leader_address": self.leader, "raft_committed_index": 39}
        body |= {"leader_cluster_address": f"https://127.0.0.1:{port + 100}", "raft_applied_index": 39 - behind}
        del vault
        return HTTPStatus.OK, body


class FakeVault:
    """
    One server, or one node of a cluster, for as long as it is entered.

    Attributes:
        vault: the state; other nodes share it.
        node: how this one behaves.
        front: where clients connect: it counts, and fails as it is told.

    """

    def __init__(
        self,
        *,
        vault: Vault | None = None,
        node: Node | None = None,
        tls: ssl.SSLContext | None = None,
        path: Path | None = None,
        port: int = 0,
    ) -> None:
        """Prepare to listen on a port of 127.0.0.1, or at the socket ``path``."""
        self.vault = vault or Vault(makers=MAKERS)
        self.node = node or Node()
        self.front = FaultyServer(self._front, tls=tls, path=path, port=port)
        self._door = FaultyServer(self._direct)
        self._pool = ThreadPoolExecutor(8, "fake-vault")
        self._stack = ExitStack()
        self._over = threading.Event()

    @property
    def address(self) -> str:
        """Return where clients connect."""
        return self.front.address

    def __enter__(self) -> Self:
        """Listen, and let time pass."""
        self._stack.enter_context(self._pool)
        self._stack.enter_context(self._door)
        self._stack.enter_context(self.front)
        ticking = threading.Thread(target=self._tick, name="fake-vault-time", daemon=True)
        ticking.start()
        self._stack.callback(ticking.join)
        self._stack.callback(self._over.set)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self._stack.close()

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
        """Ask it as the root through a door of the tests' own, uncounted and unbroken; None is the root's token."""
        chosen = self.vault.root if token is None else token
        return ask(
            self._door.address, method, path, body, token=chosen, namespace=namespace, headers=headers, trust=None
        )

    def _tick(self) -> None:
        while not self._over.wait(_TICK):
            if not self.vault.sealed:
                self.vault.tick()

    async def _front(self, asked: Asked) -> Said:
        return await self._answer(asked, self.node)

    async def _direct(self, asked: Asked) -> Said:
        return await self._answer(asked, Node())

    async def _answer(self, asked: Asked, node: Node) -> Said:
        now = self.vault.clock.now()
        if len(asked.body) > _LONGEST_BODY:
            text = "http: request body too large"
            return _said((HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"errors": [text]}), {}, now)
        try:
            request = understood(asked)
        except ValueError:
            text = f"failed to decode JSON input: invalid character '{chr(asked.body[1])}'"
            return _said((HTTPStatus.BAD_REQUEST, {"errors": [text]}), {}, now)
        loop = asyncio.get_running_loop()
        reply, headers = await loop.run_in_executor(self._pool, node.answer, self.vault, request)
        return _said(reply, headers, self.vault.clock.now())


def understood(asked: Asked) -> Request:
    """Return what a request says. Raises ``ValueError`` for a body that is no JSON object."""
    path, _, query = asked.target.partition("?")
    fields = dict(parse_qsl(query))
    body = json.loads(asked.body) if asked.body else {}
    if not isinstance(body, dict):
        message = "not an object"
        raise ValueError(message)  # noqa: TRY004 -- of what was sent
    bearer = asked.headers.get("authorization", "").removeprefix("Bearer ")
    return Request(
        method="LIST" if asked.method == "GET" and fields.get("list") == "true" else asked.method,
        path=unquote(path).removeprefix("/v1/"),
        namespace=asked.headers.get("x-vault-namespace", "").strip("/"),
        body=body,
        query=fields,
        headers=asked.headers,
        token=asked.headers.get("x-vault-token", bearer),
        peer=asked.peer,
    )


def _said(reply: Reply, headers: Mapping[str, str], now: float) -> Said:
    status, body = reply
    text = b"" if body is None else json.dumps(body).encode()
    return Said(status=status, headers={**_HEADERS, "date": formatdate(now, usegmt=True), **headers}, body=text)


def ask(
    address: str,
    method: str,
    path: str,
    body: Mapping[str, Any] | bytes | None = None,
    *,
    token: str = "",
    namespace: str = "",
    headers: Mapping[str, str] | None = None,
    trust: ssl.SSLContext | None = None,
    timeout: float = 60.0,
) -> tuple[int, dict[str, Any]]:
    """Ask a server, fake or real, one thing on a connection of its own; return the status and the body."""
    parts = urlsplit(address)
    connection: http.client.HTTPConnection
    if parts.scheme == "unix":
        connection = http.client.HTTPConnection("localhost", timeout=timeout)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(parts.path)
    elif parts.scheme == "https":
        connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=timeout, context=trust)
    else:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
    sent = {"X-Vault-Request": "true", **({"X-Vault-Token": token} if token else {}), **(headers or {})}
    if namespace:
        sent["X-Vault-Namespace"] = namespace
    try:
        text = json.dumps(body).encode() if isinstance(body, Mapping) else body
        connection.request(method, f"/v1/{path}", text, sent)
        answer = connection.getresponse()
        said = answer.read()
    finally:
        connection.close()
    return answer.status, json.loads(said) if said else {}
