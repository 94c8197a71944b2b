"""
What is below ``auth/token/``: tokens made, looked up, renewed and revoked, by themselves, by name and by accessor.

It refuses to give a child more than its parent has.
"""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final

from tests.fakes.vault.core import Plain, Vault
from tests.fakes.vault.tokens import LONGEST, Token
from tests.fakes.vault.wire import NOTHING, Answer, Refusal, Request, bad, capped, denied, denied_by_policy, seconds


class TokenPaths(Plain):
    """The auth method that is always there."""

    kind = "token"

    def __init__(self, vault: Vault) -> None:
        """Work on a server's tokens."""
        self._vault = vault
        self._roles: dict[str, Mapping[str, object]] = {}
        self._verbs: Final[Mapping[str, Callable[[Request], Answer]]] = {
            "create": self._create,
            "create-orphan": self._create,
            "lookup": self._lookup,
            "lookup-self": self._lookup,
            "lookup-accessor": self._lookup,
            "renew": self._renew,
            "renew-self": self._renew,
            "renew-accessor": self._renew,
            "revoke": self._revoke,
            "revoke-self": self._revoke,
            "revoke-accessor": self._revoke,
            "revoke-orphan": self._revoke,
            "accessors": self._accessors,
        }

    def answer(self, request: Request, rest: str) -> Answer:
        """Do what the first part of the path says."""
        verb = self._verbs.get(rest.split("/", maxsplit=1)[0])
        if verb is None:
            raise Refusal(HTTPStatus.NOT_FOUND, f'no handler for route "{request.path}". route entry not found.')
        return verb(request)

    def _meant(self, request: Request, *, by_accessor: bool = False) -> Token:
        """Return the token that a request is about: by accessor, by name, or the one that it came with."""
        now = self._vault.clock.now()
        tokens = self._vault.tokens
        if "-accessor" in request.path:
            return tokens.by_accessor(str(request.body.get("accessor", "")))
        if request.path.rpartition("/")[2].endswith("-self") or by_accessor:
            return tokens.living(request.token, now)
        no = Refusal(HTTPStatus.FORBIDDEN, "bad token") if "lookup" in request.path else bad("token not found")
        return tokens.living(str(request.body.get("token", request.token)), now, no=no)

    def _lookup(self, request: Request) -> Answer:
        by_accessor = "-accessor" in request.path
        return Answer(data=self._meant(request).lookup(self._vault.clock.now(), by_accessor=by_accessor))

    def _renew(self, request: Request) -> Answer:
        token = self._meant(request)
        if token.peer is not None and token.peer != request.peer:
            raise bad("client identity during renewal not matching client identity used during login")
        increment = seconds(request.body.get("increment"))
        warnings = self._vault.tokens.renew(token, increment, self._vault.clock.now())
        auth = token.auth() | ({"client_token": ""} if "-accessor" in request.path else {})
        return Answer(auth=auth, warnings=warnings)

    def _revoke(self, request: Request) -> Answer:
        try:
            token = self._meant(request)
        except Refusal:
            # What is gone already is no error; of an accessor the server warns.
            if "-accessor" in request.path:
                return Answer(warnings=["No token found with this accessor"])
            return NOTHING
        self._vault.end_token(token)
        return NOTHING

    def _accessors(self, request: Request) -> Answer:
        del request
        return Answer(data={"keys": [token.accessor for token in self._vault.tokens.all() if token.accessor]})

    def _create(self, request: Request) -> Answer:
        vault, body, now = self._vault, request.body, self._vault.clock.now()
        parent = vault.tokens.living(request.token, now)
        is_root = "root" in parent.policies
        wanted = set(body.get("policies") or parent.policies)
        if not is_root and not wanted <= {*parent.policies, "default"}:
            raise bad("child policies must be subset of parent")
        if "root" not in wanted and not body.get("no_default_policy"):
            wanted.add("default")
        batch = body.get("type") == "batch"
        if parent.batch:
            raise denied_by_policy()
        orphan = bool(body.get("no_parent")) or "create-orphan" in request.path
        if orphan and not is_root and "create-orphan" not in request.path:
            raise bad("root or sudo privileges required to create orphan token")
        if body.get("id") and not is_root:
            raise denied()
        explicit = seconds(body.get("explicit_max_ttl"))
        period = seconds(body.get("period"))
        ttl, warnings = capped(
            wanted=seconds(body.get("ttl")),
            default=LONGEST,
            longest=min(explicit or LONGEST, LONGEST),
            begun=now,
            now=now,
            period=period,
        )
        if "root" in wanted and not body.get("ttl"):
            ttl = 0
        token = vault.tokens.make(
            now=now,
            ttl=ttl,
            policies=["root"] if wanted == {"root"} and not ttl else sorted(wanted),
            batch=batch,
            path="auth/token/create",
            explicit_max_ttl=explicit,
            period=period,
            renewable=bool(body.get("renewable", True)),
            orphan=orphan,
            parent=None if orphan else parent.secret,
            name=f"token-{body['display_name']}" if body.get("display_name") else "token",
            meta=body.get("meta"),
            namespace=request.namespace,
            left=int(body.get("num_uses") or 0) or None,
            entity=parent.entity if not is_root else "",
        )
        known = vault.namespaces[request.namespace].policies
        warnings += [f'Policy "{name}" does not exist' for name in sorted(wanted - {"root", *known})]
        return Answer(auth=token.auth(), warnings=warnings)
