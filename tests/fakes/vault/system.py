"""
What is below ``sys/``: health, mounts, policies, leases, wrapping, namespaces, quotas.

It refuses to tell a standby from the active server: the node does (``node.py``).
"""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

from tests.fakes.vault import policies
from tests.fakes.vault.core import SYSTEM, Mount, Plain, Vault
from tests.fakes.vault.wire import NOTHING, Answer, Refusal, Request, bad, moment, seconds

_USED: Final = "wrapping token is not valid or does not exist"
_OPEN: Final = frozenset({"health", "seal-status", "init", "unseal", "leader", "wrapping/lookup", "wrapping/unwrap"})


class SystemPaths(Plain):
    """What every server has."""

    kind = "system"

    def __init__(self, vault: Vault) -> None:
        """Work on a server's state."""
        self._vault = vault
        self._verbs: Final[Mapping[str, Callable[[Request, str], Answer]]] = {
            "health": self._health,
            "seal-status": self._seal_status,
            "leader": self._leader,
            "init": self._init,
            "unseal": self._unseal,
            "seal": self._seal,
            "mounts": self._mounts,
            "auth": self._mounts,
            "internal": self._internal,
            "policies": self._policies,
            "policy": self._policies,
            "capabilities-self": self._capabilities,
            "leases": self._leases,
            "renew": self._renew,
            "revoke": self._revoke,
            "wrapping": self._wrapping,
            "namespaces": self._namespaces,
            "quotas": self._quotas,
            "locked-users": self._locked_users,
        }

    def open_to_all(self, rest: str) -> bool:
        """Tell everybody how the server is; a wrapping token is its own permission."""
        return rest in _OPEN

    def answer(self, request: Request, rest: str) -> Answer:
        """Do what the first part of the path says."""
        first, _, more = rest.partition("/")
        verb = self._verbs.get(first)
        if verb is None:
            raise Refusal(HTTPStatus.NOT_FOUND, f'no handler for route "{request.path}". route entry not found.')
        return verb(request, more)

    # -- how it is ------------------------------------------------------------

    def _health(self, request: Request, more: str) -> Answer:
        del more
        if not request.reads:
            raise Refusal(HTTPStatus.METHOD_NOT_ALLOWED)
        vault = self._vault
        up = vault.initialised and not vault.sealed
        mode = "disabled" if up else "unknown"
        plain = {
            "initialized": vault.initialised,
            "sealed": vault.sealed,
            "standby": not up,
            "replication_performance_mode": mode,
            "replication_dr_mode": mode,
            "server_time_utc": int(vault.clock.now()),
            "version": SYSTEM["version"],
            **(vault.cluster if up else {}),
        }
        status = HTTPStatus.OK if up else HTTPStatus.SERVICE_UNAVAILABLE
        return Answer(status=status if vault.initialised else HTTPStatus.NOT_IMPLEMENTED, plain=plain)

    def _seal_status(self, request: Request, more: str) -> Answer:
        del request, more
        vault = self._vault
        number = int(vault.initialised)
        plain = {"type": "shamir", "initialized": vault.initialised, "sealed": vault.sealed, "t": number, "n": number}
        plain |= {"progress": 0, "nonce": "", "recovery_seal": False, "version": SYSTEM["version"]}
        plain |= {"commit_date": "", "migration": False} | ({} if vault.sealed else vault.cluster)
        return Answer(plain=plain | {"storage_type": SYSTEM["storage_type"]})

    def _leader(self, request: Request, more: str) -> Answer:
        del request, more
        return Answer(plain={"ha_enabled": False})

    def _init(self, request: Request, more: str) -> Answer:
        del request, more
        if self._vault.initialised:
            raise bad("Vault is already initialized")
        self._vault.initialised = True
        key = self._vault.key
        return Answer(plain={"keys": [key], "keys_base64": [key], "root_token": self._vault.root})

    def _unseal(self, request: Request, more: str) -> Answer:
        if request.body.get("key") != self._vault.key:
            raise bad("failed to unseal: invalid key")
        self._vault.sealed = False
        return self._seal_status(request, more)

    def _seal(self, request: Request, more: str) -> Answer:
        del request, more
        self._vault.sealed = True
        return NOTHING

    def _locked_users(self, request: Request, more: str) -> Answer:
        del request, more
        by_mount: dict[str, list[str]] = {}
        for accessor, name in self._vault.lockout.locked(self._vault.clock.now()):
            by_mount.setdefault(accessor, []).append(name)
        mounts = [
            {"mount_accessor": at, "counts": len(names), "alias_identifiers": names} for at, names in by_mount.items()
        ]
        total = sum(len(names) for names in by_mount.values())
        space = {"namespace_id": "root", "namespace_path": "", "counts": total, "mount_accessors": mounts}
        return Answer(data={"by_namespace": [space] if total else [], "total": total})

    # -- what is there, and who may what ---------------------------------------

    def _mounts(self, request: Request, more: str) -> Answer:
        prefix = "auth/" if request.path.startswith("sys/auth") else ""
        path = f"{prefix}{more.strip('/')}/"
        mounts = self._vault.namespaces[request.namespace].mounts
        if request.writes:
            self._vault.mount(request.namespace, path, str(request.body.get("type")), request.body.get("options"))
            return NOTHING
        if request.method == "DELETE":
            mounts.pop(path, None)
            return NOTHING
        found = {
            at.removeprefix(prefix): _described(mount)
            for at, mount in mounts.items()
            if at.startswith("auth/") == bool(prefix)
        }
        return Answer(data=found)

    def _internal(self, request: Request, more: str) -> Answer:
        wanted = more.removeprefix("ui/mounts/")
        mount = self._vault.mount_of(request.namespace, wanted)
        if mount is None or not self._may_see(request, mount):
            text = "preflight capability check returned 403, please ensure client's policies grant access to path"
            raise Refusal(HTTPStatus.FORBIDDEN, f'{text} "{wanted}/"')
        return Answer(data=_described(mount) | {"path": mount.path, "options": dict(mount.options) or None})

    def _may_see(self, request: Request, mount: Mount) -> bool:
        """Return whether a token may do anything at all below a mount, which is all that this path asks for."""
        token = self._vault.tokens.living(request.token, self._vault.clock.now())
        if (rules := self._vault.policies_of(token)) is None:
            return True
        space = request.namespace.removeprefix(token.namespace).strip("/")
        at = f"{space}/{mount.path}" if space else mount.path
        patterns = [pattern for policy in rules for pattern, allowed in policy.items() if "deny" not in allowed]
        return any(pattern.rstrip("*").startswith(at) or at.startswith(pattern.rstrip("*")) for pattern in patterns)

    def _policies(self, request: Request, more: str) -> Answer:
        name = more.removeprefix("acl").strip("/")
        texts = self._vault.namespaces[request.namespace].policies
        if request.writes:
            text = str(request.body.get("policy", ""))
            policies.parse(text)
            texts[name] = text
            return NOTHING
        if request.method == "DELETE":
            texts.pop(name, None)
            return NOTHING
        if not name:
            return Answer(data={"keys": sorted([*texts, "root"])})
        if name not in texts:
            raise Refusal(HTTPStatus.NOT_FOUND)
        return Answer(data={"name": name, "policy": texts[name]})

    def _capabilities(self, request: Request, more: str) -> Answer:
        del more
        token = self._vault.tokens.living(request.token, self._vault.clock.now())
        paths = [*request.body.get("paths", []), *([request.body["path"]] if "path" in request.body else [])]
        if not paths:
            raise bad("paths must be supplied")
        found: dict[str, Any] = {path: sorted(self._vault.may(token, request.namespace, path)) for path in paths}
        return Answer(data=found, beside=found)

    # -- leases ---------------------------------------------------------------

    def _leases(self, request: Request, more: str) -> Answer:
        verb, _, rest = more.partition("/")
        if verb == "lookup" and request.writes:
            return self._lookup(request)
        if verb == "lookup":
            prefix = f"{rest.strip('/')}/"
            names = [lease.id.removeprefix(prefix) for lease in self._vault.leases.below(prefix)]
            if not names:
                raise Refusal(HTTPStatus.NOT_FOUND)
            return Answer(data={"keys": names})
        if verb == "renew":
            return self._renew(request, rest)
        if verb in {"revoke", "revoke-prefix", "revoke-force"}:
            return self._revoke(request, rest, prefix=verb != "revoke")
        raise Refusal(HTTPStatus.NOT_FOUND, f'no handler for route "{request.path}". route entry not found.')

    def _lookup(self, request: Request) -> Answer:
        now = self._vault.clock.now()
        lease = self._vault.leases.find(_lease_id(request, ""), now)
        if lease is None:
            raise bad("invalid lease")
        return Answer(data=lease.lookup(now))

    def _renew(self, request: Request, more: str) -> Answer:
        increment = seconds(request.body.get("increment"))
        lease, warnings = self._vault.leases.renew(_lease_id(request, more), increment, self._vault.clock.now())
        left = round(lease.expires - self._vault.clock.now())
        return Answer(lease_id=lease.id, lease_duration=left, renewable=lease.renewable, warnings=warnings)

    def _revoke(self, request: Request, more: str, *, prefix: bool = False) -> Answer:
        name = more if prefix else _lease_id(request, more)
        for lease in self._vault.leases.below(name):
            if prefix or lease.id == name:
                try:
                    self._vault.end_lease(lease)
                except OSError as error:
                    text = f'failed to revoke "{lease.id}"'
                    raise Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, text) from error
        return NOTHING

    # -- wrapping, namespaces, quotas -------------------------------------------

    def _wrapping(self, request: Request, more: str) -> Answer:
        name = str(request.body.get("token") or request.token)
        wrapped = self._vault.wrapped.get(name)
        now = self._vault.clock.now()
        if wrapped is None or wrapped.begun + wrapped.ttl <= now:
            raise bad(_USED)
        if more == "lookup":
            data = {"creation_path": wrapped.creation_path, "creation_time": moment(wrapped.begun)}
            return Answer(data=data | {"creation_ttl": int(wrapped.ttl)})
        if more != "unwrap" or not request.writes:
            raise Refusal(HTTPStatus.METHOD_NOT_ALLOWED)
        del self._vault.wrapped[name]
        return Answer(data=wrapped.body["data"], auth=wrapped.body["auth"])

    def _namespaces(self, request: Request, more: str) -> Answer:
        spaces = self._vault.namespaces
        if more.startswith("api-lock/"):
            verb, _, below = more.removeprefix("api-lock/").partition("/")
            spaces[f"{request.namespace}/{below}".strip("/")].locked = verb == "lock"
            return Answer(data={"unlock_key": "unlock"}) if verb == "lock" else NOTHING
        path = f"{request.namespace}/{more}".strip("/")
        if request.writes and path not in spaces:
            self._vault.add_namespace(path)
        if path not in spaces or not more:
            raise Refusal(HTTPStatus.NOT_FOUND)
        fields = {"custom_metadata": {}, "id": "aBcDeF", "locked": spaces[path].locked, "path": f"{more}/"}
        return Answer(data=fields | {"tainted": False, "uuid": self._vault.cluster["cluster_id"]})

    def _quotas(self, request: Request, more: str) -> Answer:
        del more
        self._vault.quotas[str(request.body.get("path", ""))] = float(request.body.get("rate", 0))
        return NOTHING


def _lease_id(request: Request, more: str) -> str:
    name = str(request.body.get("lease_id") or more)
    if not name:
        raise bad("lease_id must be specified")
    return name


def _described(mount: Mount) -> dict[str, Any]:
    return {
        "accessor": mount.accessor,
        "config": {"default_lease_ttl": 0, "force_no_cache": False, "max_lease_ttl": 0},
        "deprecation_status": "supported",
        "description": mount.description,
        "external_entropy_access": False,
        "local": False,
        "options": dict(mount.options) or None,
        "plugin_version": "",
        "running_plugin_version": "v2.0.0+builtin.bao",
        "running_sha256": "",
        "seal_wrap": False,
        "type": mount.engine.kind,
        "uuid": mount.uuid,
    }
