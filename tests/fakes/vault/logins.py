"""
Auth methods: how whoever has a credential gets a token. And the roles and users behind them.

The texts of what is refused are the server's, and so is who gets locked out. It
refuses to say which half of a credential was wrong.
"""

import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from tests.fakes.vault.core import Mount, Plain, Vault
from tests.fakes.vault.tokens import LONGEST
from tests.fakes.vault.wire import NOTHING, Answer, Refusal, Request, bad, capped, seconds

Fields = Mapping[str, Any]


class AuthMethod(Plain):
    """
    What all methods have in common: named entries that say what a token may do.

    Attributes:
        config: what was written to ``config``.
        entries: the roles, users or certificates, by kind and name.
        mfa: whether a login wants a second factor, and gives no token.

    """

    kind = "auth"
    logins: tuple[str, ...] = ("login",)

    def __init__(self, vault: Vault, mount: Mount) -> None:
        """Begin with nobody."""
        self.vault = vault
        self.mount = mount
        self.config: dict[str, Any] = {}
        self.entries: dict[str, dict[str, Any]] = {}
        self.mfa = False

    def open_to_all(self, rest: str) -> bool:
        """Let everybody log in."""
        return rest.split("/", maxsplit=1)[0] in self.logins

    def exists(self, request: Request, rest: str) -> bool | None:
        """Return whether an entry is there."""
        del request
        return rest in self.entries if "/" in rest else None

    def answer(self, request: Request, rest: str) -> Answer:
        """Log in, or look after the entries."""
        if self.open_to_all(rest):
            return self.login(request, rest.partition("/")[2])
        if rest == "config":
            return self._keep(request, self.config)
        if request.reads and rest not in self.entries:
            raise Refusal(HTTPStatus.NOT_FOUND)
        if request.method == "DELETE":
            self.entries.pop(rest, None)
            return NOTHING
        return self._keep(request, self.entries.setdefault(rest, {}))

    def login(self, request: Request, name: str) -> Answer:
        """Give a token, or raise ``Refusal``."""
        raise NotImplementedError

    def _keep(self, request: Request, kept: dict[str, Any]) -> Answer:
        if request.writes:
            kept.update(request.body)
            return NOTHING
        return Answer(data={name: text for name, text in kept.items() if "password" not in name})

    def token(self, request: Request, entry: Fields, *, meta: Mapping[str, str], name: str, path: str) -> Answer:
        """Return the answer to a login that worked."""
        now = self.vault.clock.now()
        if self.mfa:
            return Answer(auth=_second_factor())
        longest = seconds(entry.get("token_max_ttl")) or LONGEST
        period = seconds(entry.get("token_period"))
        ttl, warnings = capped(
            wanted=seconds(entry.get("token_ttl")), default=LONGEST, longest=longest, begun=now, now=now, period=period
        )
        token = self.vault.tokens.make(
            now=now,
            ttl=ttl,
            policies=sorted({"default", *_names(entry.get("token_policies") or entry.get("policies"))}),
            batch=entry.get("token_type") == "batch",
            path=f"{self.mount.path}{path}",
            max_ttl=longest,
            explicit_max_ttl=seconds(entry.get("token_explicit_max_ttl")),
            period=period,
            name=name,
            meta=dict(meta),
            entity=str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self.mount.accessor}{name}")),
            namespace=request.namespace,
            left=int(entry.get("token_num_uses") or 0) or None,
            peer=request.peer if self.kind == "cert" else None,
        )
        return Answer(auth=token.auth(), warnings=warnings)


def _names(value: object) -> list[str]:
    listed = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else []
    return [str(each).strip() for each in listed]


def _second_factor() -> dict[str, Any]:
    asked = {"mfa_request_id": str(uuid.uuid4()), "mfa_constraints": {"all": {"any": [{"type": "totp"}]}}}
    empty = {"client_token": "", "accessor": "", "policies": None, "token_policies": None, "metadata": None}
    rest = {"lease_duration": 0, "renewable": False, "entity_id": "", "token_type": "", "orphan": False, "num_uses": 0}
    return empty | rest | {"mfa_requirement": asked}


@dataclass(slots=True, kw_only=True)
class SecretId:
    """One secret-id of a role."""

    role: str
    accessor: str
    value: str = field(repr=False)
    expires: float | None
    left: int | None


class AppRole(AuthMethod):
    """Roles with an id and secret-ids."""

    kind = "approle"
    _WRONG: Final = "invalid role or secret ID"

    def __init__(self, vault: Vault, mount: Mount) -> None:
        """Begin with no roles."""
        super().__init__(vault, mount)
        self.ids: dict[str, str] = {}
        self.secret_ids: dict[str, SecretId] = {}

    def answer(self, request: Request, rest: str) -> Answer:
        """Log in, or look after the roles and their ids."""
        kind, _, path = rest.partition("/")
        if kind != "role" or not path:
            return super().answer(request, rest)
        name, _, part = path.partition("/")
        key = f"role/{name}"
        if not part:
            if request.writes:
                self.ids.setdefault(name, str(uuid.uuid4()))
            return super().answer(request, rest)
        if key not in self.entries:
            raise Refusal(HTTPStatus.NOT_FOUND, f'role "{name}" does not exist')
        if part == "role-id":
            if request.writes:
                self.ids[name] = str(request.body["role_id"])
                return NOTHING
            return Answer(data={"role_id": self.ids[name]})
        if part in {"secret-id", "custom-secret-id"} and request.writes:
            return self._new(name, self.entries[key], str(request.body.get("secret_id", "")))
        if part in {"secret-id/destroy", "secret-id-accessor/destroy"} and request.writes:
            value, accessor = (request.body.get(each) for each in ("secret_id", "secret_id_accessor"))
            known = self.secret_ids.items()
            self.secret_ids = {
                key: one for key, one in known if (one.role, one.value) != (name, value) and key != accessor
            }
            return NOTHING
        raise Refusal(HTTPStatus.NOT_FOUND)

    def known_secret_ids(self, role: str) -> set[str]:
        """Return all that log in to a role."""
        return {one.value for one in self.secret_ids.values() if one.role == role}

    def _new(self, name: str, role: Fields, value: str) -> Answer:
        if any((one.role, one.value) == (name, value) for one in self.secret_ids.values()):
            raise bad("failed to store secret_id: SecretID is already registered")
        ttl = seconds(role.get("secret_id_ttl"))
        uses = int(role.get("secret_id_num_uses") or 0)
        one = SecretId(
            role=name,
            accessor=str(uuid.uuid4()),
            value=value or str(uuid.uuid4()),
            expires=self.vault.clock.now() + ttl if ttl else None,
            left=uses or None,
        )
        self.secret_ids[one.accessor] = one
        data = {"secret_id": one.value, "secret_id_accessor": one.accessor}
        return Answer(data=data | {"secret_id_num_uses": uses, "secret_id_ttl": int(ttl)})

    def login(self, request: Request, name: str) -> Answer:
        """Take a role-id and a secret-id."""
        del name
        now, lockout, at = self.vault.clock.now(), self.vault.lockout, self.mount.accessor
        role_id, secret_id = (str(request.body.get(key, "")) for key in ("role_id", "secret_id"))
        if not role_id:
            raise Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "missing role_id")
        lockout.check(at, role_id, now)
        role = next((name for name, known in self.ids.items() if known == role_id), None)
        entry = self.entries.get(f"role/{role}", {})
        if role is None:
            raise bad(self._WRONG)
        if entry.get("bind_secret_id", True):
            if not secret_id:
                raise bad("missing secret_id")
            self._use(role, secret_id, now)
        lockout.succeeded(at, role_id)
        return self.token(request, entry, meta={"role_name": role}, name="approle", path="login")

    def _use(self, role: str, secret_id: str, now: float) -> None:
        found = next((one for one in self.secret_ids.values() if one.role == role and one.value == secret_id), None)
        if found is None or (found.expires is not None and found.expires <= now):
            self.vault.lockout.failed(self.mount.accessor, self.ids[role], now)
            raise bad(self._WRONG)
        if found.left is not None:
            found.left -= 1
            if not found.left:
                self.secret_ids.pop(found.accessor)


class Passwords(AuthMethod):
    """Users with passwords: ``userpass``, and ``ldap``, where they stand for those of the directory."""

    kind = "userpass"

    def __init__(self, vault: Vault, mount: Mount, *, wrong: str = "invalid username or password") -> None:
        """Begin with no users; ``wrong`` is what a wrong password is answered with."""
        super().__init__(vault, mount)
        self._wrong = wrong

    def login(self, request: Request, name: str) -> Answer:
        """Take a name in the path and a password."""
        now, lockout, at = self.vault.clock.now(), self.vault.lockout, self.mount.accessor
        lockout.check(at, name, now)
        entry = self.entries.get(f"users/{name}", {})
        password = str(request.body.get("password", ""))
        if not password:
            raise bad("missing password")
        known = str(entry.get("password", secrets.token_hex()))
        if not secrets.compare_digest(known.encode(), password.encode()):
            lockout.failed(at, name, now)
            raise bad(self._wrong)
        lockout.succeeded(at, name)
        meta = {"username": name}
        return self.token(request, entry, meta=meta, name=f"{self.mount.path[5:-1]}-{name}", path=f"login/{name}")
