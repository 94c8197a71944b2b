"""
A whole server without its sockets: a request in, an answer out, and the state that tests may look at.

The order of the checks is the server's: sealed, namespace, quota, login, token,
policy, route. It refuses to do anything on its own: time passes when somebody asks,
or when ``tick`` is called.
"""

import threading
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final, Protocol

from tests.fakes.vault import policies
from tests.fakes.vault.clock import Clock
from tests.fakes.vault.leases import Lease, Leases
from tests.fakes.vault.lockout import Lockout
from tests.fakes.vault.policies import Policy
from tests.fakes.vault.tokens import Token, Tokens
from tests.fakes.vault.wire import (
    Answer,
    Refusal,
    Request,
    bad,
    denied,
    denied_by_policy,
    envelope,
    moment,
    random_name,
    seconds,
)

EVERYTHING: Final = frozenset({"root"})
_LOCKED: Final = (
    'API access to this namespace has been locked by an administrator - "{}/" must be unlocked to gain access.'
)


class Engine(Protocol):
    """What is mounted somewhere: a secrets engine or an auth method."""

    kind: str

    def answer(self, request: Request, rest: str) -> Answer:
        """Answer what is asked at ``rest``, the path below the mount."""
        ...

    def exists(self, request: Request, rest: str) -> bool | None:
        """Return whether what a write is for is there already; None where this engine does not tell."""
        ...

    def open_to_all(self, rest: str) -> bool:
        """Return whether a path needs no token."""
        ...

    def revoke(self, internal: Mapping[str, Any]) -> None:
        """Take back what was handed out under a lease."""
        ...

    def prolong(self, internal: Mapping[str, Any], expires: float) -> None:
        """Let what was handed out under a lease live longer."""
        ...


class Plain:
    """What most engines have in common: nothing to revoke, no path without a token."""

    kind = "plain"

    def exists(self, request: Request, rest: str) -> bool | None:
        """Do not tell."""
        del request, rest
        return None

    def open_to_all(self, rest: str) -> bool:
        """Ask for a token."""
        del rest
        return False

    def revoke(self, internal: Mapping[str, Any]) -> None:
        """Do nothing."""

    def prolong(self, internal: Mapping[str, Any], expires: float) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One engine at one path, which ends in a slash."""

    path: str
    engine: Engine
    options: Mapping[str, str] = field(default_factory=dict)
    accessor: str = ""
    uuid: str = ""
    description: str = ""


@dataclass(slots=True, kw_only=True)
class Namespace:
    """One namespace, with what is mounted in it: auth methods with ``auth/`` before their names."""

    path: str
    mounts: dict[str, Mount] = field(default_factory=dict)
    policies: dict[str, str] = field(default_factory=lambda: {"default": policies.DEFAULT})
    parsed: dict[str, Policy] = field(default_factory=dict)
    locked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrapped:
    """An answer that waits for whoever has the token, once."""

    body: dict[str, Any] = field(repr=False)
    creation_path: str
    begun: float
    ttl: float


Reply = tuple[int, Mapping[str, Any] | None]


class Vault:
    """
    One server's state.

    Attributes:
        clock: its time.
        initialised: whether it was ever set up.
        sealed: whether it needs its key.
        root: the token that may do everything.
        quotas: how many requests are let through below a path before it is 429; see ``quota``.

    """

    def __init__(self, *, initialised: bool = True, makers: Mapping[str, Callable[["Vault", Mount], Engine]]) -> None:
        """Set up an empty server; ``makers`` says how to make each kind of engine."""
        self.clock = Clock()
        self.tokens = Tokens()
        self.leases = Leases()
        self.lockout = Lockout()
        self.initialised = initialised
        self.sealed = not initialised
        self.namespaces: dict[str, Namespace] = {}
        self.quotas: dict[str, float] = {}
        self.wrapped: dict[str, Wrapped] = {}
        self.key = uuid.uuid4().hex * 2
        self.cluster = {"cluster_name": f"vault-cluster-{uuid.uuid4().hex[:8]}", "cluster_id": str(uuid.uuid4())}
        self.lock = threading.RLock()
        self._makers = makers
        self._spent: dict[str, list[float]] = {}
        self.add_namespace("")
        root = self.tokens.make(now=self.clock.now(), ttl=0, policies=["root"], path="auth/token/root", name="root")
        self.root = root.secret

    # -- what is where --------------------------------------------------------

    def add_namespace(self, path: str) -> Namespace:
        """Make a namespace with what every one has."""
        self.namespaces[path] = Namespace(path=path)
        for at, kind in (("sys/", "system"), ("auth/token/", "token"), ("cubbyhole/", "cubbyhole")):
            self.mount(path, at, kind)
        return self.namespaces[path]

    def mount(self, namespace: str, path: str, kind: str, options: Mapping[str, str] | None = None) -> Mount:
        """Put a new engine at a path. Raises ``Refusal`` where one is, or where there is no such kind."""
        mounts = self.namespaces[namespace].mounts
        if path in mounts:
            raise bad(f"path is already in use at {path}")
        if kind not in self._makers:
            raise bad(f"plugin not found in the catalog: {kind}")
        accessor = f"{path.replace('/', '_') if path.startswith('auth/') else kind + '_'}{uuid.uuid4().hex[:8]}"
        # The engine is made with the mount that it is at, and the mount with its engine.
        empty = Mount(path=path, engine=Nowhere(), options=options or {}, accessor=accessor, uuid=str(uuid.uuid4()))
        mounts[path] = replace(empty, engine=self._makers[kind](self, empty))
        return mounts[path]

    def mount_of(self, namespace: str, path: str) -> Mount | None:
        """Return what is mounted where a path leads, or None."""
        mounts = self.namespaces[namespace].mounts
        found = [at for at in mounts if f"{path}/".startswith(at)]
        return mounts[max(found, key=len)] if found else None

    def policies_of(self, token: Token) -> list[Policy] | None:
        """Return the policies of a token; None for the root's, which are none and allow all."""
        if "root" in token.policies:
            return None
        texts = self.namespaces[token.namespace].policies
        return [policies.parse(texts[name]) for name in token.policies if name in texts]

    def may(self, token: Token, namespace: str, path: str) -> frozenset[str]:
        """Return what a token may do at a path of a namespace."""
        if token.namespace and not f"{namespace}/".startswith(f"{token.namespace}/"):
            return frozenset({"deny"})
        rules = self.policies_of(token)
        if rules is None:
            return EVERYTHING
        below = namespace.removeprefix(token.namespace).strip("/")
        return policies.capabilities(rules, f"{below}/{path}" if below else path)

    # -- ends -----------------------------------------------------------------

    def tick(self) -> None:
        """End what is over by now."""
        with self.lock:
            now = self.clock.now()
            for token in self.tokens.over(now):
                self.end_token(token)
            for lease in self.leases.over(now):
                self.end_lease(lease)

    def end_lease(self, lease: Lease) -> None:
        """Take back what a lease stands for. Where the engine cannot, the lease stays and is tried again."""
        lease.revoke(lease.internal)
        self.leases.drop(lease)

    def end_token(self, token: Token) -> None:
        """Revoke a token, its children, and what hangs on any of them."""
        for one in self.tokens.family(token):
            for lease in self.leases.of(one):
                with suppress(OSError):
                    self.end_lease(lease)
            self.tokens.forget(one)

    # -- answering ------------------------------------------------------------

    def answer(self, request: Request) -> Reply:
        """Return the status and the body that the server answers with."""
        with self.lock:
            try:
                if not self.sealed:
                    self.tick()
                return self._answer(request)
            except Refusal as no:
                return no.status, {"errors": list(no.errors)}

    def _answer(self, request: Request) -> Reply:
        if self.sealed and request.path not in OPEN_WHEN_SEALED:
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "Vault is sealed")
        request = self._in_namespace(request)
        self.quota(request)
        mount = self.mount_of(request.namespace, request.path)
        rest = request.path.removeprefix(mount.path) if mount else ""
        if mount is not None and mount.engine.open_to_all(rest):
            return self._reply(request, mount.engine.answer(request, rest), mount, None)
        token = self.tokens.used(request.token, self.clock.now())
        self._check(request, token, mount, rest)
        if mount is None:
            text = f'no handler for route "{request.path}". route entry not found.'
            raise Refusal(HTTPStatus.NOT_FOUND, text)
        return self._reply(request, mount.engine.answer(request, rest), mount, token)

    def _in_namespace(self, request: Request) -> Request:
        """Return the request with the namespace that it is in, by its header, its path, or both."""
        space, path = request.namespace.strip("/"), request.path
        while (first := path.partition("/")[0]) and f"{space}/{first}".strip("/") in self.namespaces:
            space, path = f"{space}/{first}".strip("/"), path.partition("/")[2]
        found = self.namespaces.get(space)
        if found is None:
            raise Refusal(HTTPStatus.NOT_FOUND, "namespace not found")
        if found.locked:
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, _LOCKED.format(space))
        return replace(request, namespace=space, path=path)

    def quota(self, request: Request) -> None:
        """Count a request against the quotas. Raises ``Refusal`` with 429 where one is used up for this second."""
        now = self.clock.now()
        for below, rate in self.quotas.items():
            if not request.path.startswith(below):
                continue
            spent = self._spent[below] = [at for at in self._spent.get(below, []) if at > now - 1]
            if len(spent) >= rate:
                text = f'request path "{request.path}": rate limit quota exceeded'
                raise Refusal(HTTPStatus.TOO_MANY_REQUESTS, text)
            spent.append(now)

    def _check(self, request: Request, token: Token, mount: Mount | None, rest: str) -> None:
        if token.namespace and not f"{request.namespace}/".startswith(f"{token.namespace}/"):
            raise denied()
        if request.path.startswith("sys/internal/ui/mounts/"):
            return  # decides by itself, from what the token may do at the path asked for
        allowed = self.may(token, request.namespace, request.path)
        exists = mount.engine.exists(request, rest) if mount is not None and request.writes else None
        if allowed is not EVERYTHING and policies.needed(request, exists=exists) not in allowed:
            raise denied_by_policy()

    def _reply(self, request: Request, answer: Answer, mount: Mount, token: Token | None) -> Reply:
        if answer.plain is not None:
            return answer.status or HTTPStatus.OK, answer.plain
        if answer.lease is not None and token is not None:
            lease = self.leases.add(
                request.path,
                token,
                answer.lease,
                self.clock.now(),
                revoke=mount.engine.revoke,
                prolong=mount.engine.prolong,
            )
            answer.lease_id, answer.lease_duration = lease.id, int(lease.ttl)
            answer.renewable = lease.renewable
        if (wrap := request.headers.get("x-vault-wrap-ttl")) and answer.status != HTTPStatus.NO_CONTENT:
            return HTTPStatus.OK, self._wrap(request, answer, seconds(wrap))
        if answer.status == HTTPStatus.NO_CONTENT and not answer.warnings:
            return HTTPStatus.NO_CONTENT, None
        status = HTTPStatus.OK if answer.status in {None, HTTPStatus.NO_CONTENT} else answer.status
        return status, envelope(answer)

    def _wrap(self, request: Request, answer: Answer, ttl: float) -> dict[str, Any]:
        now = self.clock.now()
        token = f"s.{random_name()}"
        self.wrapped[token] = Wrapped(body=envelope(answer), creation_path=request.path, begun=now, ttl=ttl)
        return envelope(
            answer,
            wrap={
                "token": token,
                "accessor": random_name(),
                "ttl": int(ttl),
                "creation_time": moment(now),
                "creation_path": request.path,
                "wrapped_accessor": (answer.data or {}).get("secret_id_accessor", ""),
            },
        )


class Nowhere(Plain):
    """What is at a mount while it is being made."""

    def answer(self, request: Request, rest: str) -> Answer:
        """Answer nothing."""
        raise NotImplementedError


OPEN_WHEN_SEALED: Final = frozenset({"sys/health", "sys/seal-status", "sys/init", "sys/unseal", "sys/leader"})
"""What a sealed server answers all the same."""

SYSTEM: Final = MappingProxyType({"version": "2.0.0-HEAD", "storage_type": "file"})
"""What a server says of itself in more than one place."""
