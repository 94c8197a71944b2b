"""
Tokens: what they may do, until when, whose child they are.

It refuses to revoke anything: who expires or revokes a token asks ``family`` whom
it takes along, and does it.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tests.fakes.vault.wire import Refusal, bad, capped, denied, moment, random_name

LONGEST: Final = 2764800
"""Seconds of the server's own limit, which is also its default: 32 days."""


@dataclass(slots=True, kw_only=True)
class Token:
    """One token. ``expires`` None means never; ``left`` is how often it can still be used, None for always."""

    secret: str = field(repr=False)
    accessor: str
    policies: Sequence[str]
    path: str
    begun: float
    ttl: float = 0
    expires: float | None = None
    max_ttl: float = LONGEST
    explicit_max_ttl: float = 0
    period: float = 0
    renewable: bool = True
    orphan: bool = True
    batch: bool = False
    parent: str | None = None
    name: str = "token"
    meta: Mapping[str, str] | None = None
    entity: str = ""
    namespace: str = ""
    left: int | None = None
    peer: bytes | None = field(default=None, repr=False)

    def longest(self) -> float:
        """Return for how many seconds from its beginning it may live."""
        return min(self.explicit_max_ttl or LONGEST, self.max_ttl or LONGEST)

    def auth(self) -> dict[str, Any]:
        """Return the ``auth`` part of an answer."""
        return {
            "client_token": self.secret,
            "accessor": self.accessor,
            "policies": list(self.policies),
            "token_policies": list(self.policies),
            "metadata": self.meta,
            "lease_duration": int(self.ttl),
            "renewable": self.renewable,
            "entity_id": self.entity,
            "token_type": "batch" if self.batch else "service",
            "orphan": self.orphan,
            "mfa_requirement": None,
            "num_uses": self.left or 0,
        }

    def lookup(self, now: float, *, by_accessor: bool = False) -> dict[str, Any]:
        """Return what a lookup says."""
        return {
            "accessor": self.accessor,
            "creation_time": int(self.begun),
            "creation_ttl": int(self.ttl),
            "display_name": self.name,
            "entity_id": self.entity,
            "expire_time": None if self.expires is None else moment(self.expires),
            "explicit_max_ttl": int(self.explicit_max_ttl),
            "id": "" if by_accessor else self.secret,
            "issue_time": moment(self.begun),
            "meta": self.meta,
            "num_uses": self.left or 0,
            "orphan": self.orphan,
            "path": self.path,
            "policies": list(self.policies),
            "renewable": self.renewable,
            "ttl": 0 if self.expires is None else max(0, round(self.expires - now)),
            "type": "batch" if self.batch else "service",
        } | ({"period": int(self.period)} if self.period else {})


class Tokens:
    """All tokens of a server."""

    def __init__(self) -> None:
        """Begin with none."""
        self._by_secret: dict[str, Token] = {}
        self._by_accessor: dict[str, Token] = {}

    def make(self, *, now: float, ttl: float, policies: Iterable[str], batch: bool = False, **more: Any) -> Token:  # noqa: ANN401
        """Return a new token; ``ttl`` 0 for the server's default. What it may not exceed is in ``more``."""
        token = Token(
            secret=f"b.{secrets.token_urlsafe(90)}" if batch else f"s.{random_name()}",
            accessor="" if batch else random_name(),
            policies=sorted(set(policies)),
            begun=now,
            batch=batch,
            **more,
        )
        if policies != ["root"]:
            token.ttl = ttl
            token.expires = now + ttl
        token.renewable = token.renewable and not batch and token.expires is not None
        self._by_secret[token.secret] = token
        if not batch:
            self._by_accessor[token.accessor] = token
        return token

    def living(self, secret: str, now: float, *, no: Refusal | None = None) -> Token:
        """Return the token. Raises ``Refusal``, or ``no``, where there is none."""
        token = self._by_secret.get(secret)
        if token is None or (token.expires is not None and token.expires <= now):
            raise no or denied()
        return token

    def used(self, secret: str, now: float) -> Token:
        """Return the token, one use of which is gone now. Raises ``Refusal`` where there is none."""
        token = self.living(secret, now)
        if token.left is not None:
            if token.left <= 0:
                raise denied()
            token.left -= 1
        return token

    def by_accessor(self, accessor: str) -> Token:
        """Return the token. Raises ``Refusal`` where there is none."""
        token = self._by_accessor.get(accessor)
        if token is None:
            raise Refusal(400, "1 error occurred:\n\t* invalid accessor\n\n")
        return token

    def renew(self, token: Token, increment: float, now: float) -> list[str]:
        """Prolong a token from now on; return the warnings. Raises ``Refusal``."""
        if token.batch:
            raise bad("batch tokens cannot be renewed")
        if not token.renewable:
            raise bad("lease is not renewable")
        ttl, warnings = capped(
            wanted=increment,
            default=token.ttl,
            longest=token.longest(),
            begun=token.begun,
            now=now,
            period=token.period,
        )
        token.expires = now + ttl
        token.ttl = ttl
        return warnings

    def family(self, token: Token) -> list[Token]:
        """Return a token and all that die with it: its children, and theirs."""
        children = [each for each in self._by_secret.values() if each.parent == token.secret and not each.orphan]
        return [token, *(one for child in children for one in self.family(child))]

    def forget(self, token: Token) -> None:
        """Forget a token."""
        self._by_secret.pop(token.secret, None)
        self._by_accessor.pop(token.accessor, None)

    def over(self, now: float) -> list[Token]:
        """Return the tokens whose time is over."""
        return [each for each in self._by_secret.values() if each.expires is not None and each.expires <= now]

    def all(self) -> list[Token]:
        """Return every token."""
        return list(self._by_secret.values())
