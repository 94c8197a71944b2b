"""
Who may have what: deny by default.

One function decides, for the sockets and for ``explain`` alike. It compares
attested facts with rules and nothing else: what a caller says of itself is
never an argument.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches

import msgspec

from broker.core.model import Policy, SecretRule, ServerRule


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted: to open ``server`` with all its secrets, or one ``secret``, or that secret for that server."""

    server: str | None = None
    secret: str | None = None


class Allowed(msgspec.Struct, frozen=True, kw_only=True):
    """Yes, by the rule of this server."""

    rule: ServerRule
    secret: SecretRule | None

    @property
    def reason(self) -> str:
        """Say why, for a person."""
        granted = "" if self.secret is None else ", and it is granted"
        return f"server {self.rule.name!r}: every selector holds{granted}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """
    No.

    Attributes:
        reason: for who may know it; on the wire of system mode it is just ``denied``.
        hint: what would change it, or None.
        rule: the server whose selectors did not hold, where one was found.
        wants: the selectors that were missing.
        known: whether the config has what was asked for: a guess at a name is not recorded at the cost of one that is.

    """

    reason: str
    hint: str | None = None
    rule: str | None = None
    wants: frozenset[str] = field(default_factory=frozenset)
    known: bool = True


Decision = Allowed | Refused


def decide(policy: Policy, holds: frozenset[str], ask: Ask) -> Decision:
    """
    Say whether a workload that holds these selectors may have what it asks for.

    An empty set of selectors holds for nobody: a rule that names no one is a
    rule that was not finished.
    """
    if ask.server is not None:
        return _open(policy, holds, ask.server, ask.secret)
    if ask.secret is not None:
        return _issue(policy, holds, ask.secret)
    return Refused(reason="nothing was asked for")


def _open(policy: Policy, holds: frozenset[str], name: str, secret: str | None) -> Decision:
    rule = policy.servers.get(name)
    if rule is None:
        hint = _nearest(name, policy.servers, "server list")
        return Refused(reason=f"no server is called {name!r}", hint=hint, known=False)
    if not _matches(rule, holds):
        return _unmatched((rule,), holds)
    if secret is None:
        return Allowed(rule=rule, secret=None)
    if secret not in rule.grants:
        return Refused(
            reason=f"server {name!r} is not granted the secret {secret!r}",
            hint=f'add allow = ["{secret}"] to [servers.{name}]',
            rule=name,
        )
    return _allowed(policy, rule, secret)


def _issue(policy: Policy, holds: frozenset[str], secret: str) -> Decision:
    rules = policy.granting.get(secret, ())
    for rule in rules:
        if _matches(rule, holds):
            return _allowed(policy, rule, secret)
    if rules:
        return _unmatched(rules, holds)
    if secret in policy.secrets:
        return Refused(
            reason=f"no server is granted the secret {secret!r}",
            hint=f'add allow = ["{secret}"] to a server in the config; one without a command is for scripts',
        )
    return Refused(
        reason=f"no secret is called {secret!r} and no server is granted one",
        hint=_nearest(secret, policy.granting, "secret list"),
        known=False,
    )


def _matches(rule: ServerRule, holds: frozenset[str]) -> bool:
    return bool(rule.selectors) and rule.selectors <= holds


def _allowed(policy: Policy, rule: ServerRule, secret: str) -> Decision:
    found = policy.secrets.get(secret)
    if found is None:
        return Refused(reason=f"no secret is called {secret!r}", hint="mcp-broker check", rule=rule.name)
    return Allowed(rule=rule, secret=found)


def _unmatched(rules: Iterable[ServerRule], holds: frozenset[str]) -> Refused:
    """Name the rule that came nearest: the one with the fewest selectors missing."""
    rule = min(rules, key=lambda each: (len(each.selectors - holds) or len(holds) + 1, each.name))
    missing = rule.selectors - holds
    if not rule.selectors:
        return Refused(
            reason=f"server {rule.name!r} has no selectors, so nobody matches",
            hint=f"add selectors to [servers.{rule.name}]",
            rule=rule.name,
        )
    return Refused(
        reason=f"server {rule.name!r} wants {', '.join(sorted(missing))}, which the caller does not hold",
        hint=f"change the selectors of [servers.{rule.name}], or ask as what they name",
        rule=rule.name,
        wants=missing,
    )


def _nearest(name: str, known: Iterable[str], listing: str) -> str:
    near = get_close_matches(name, list(known), n=1)
    return f"did you mean {near[0]!r}? mcp-broker {listing}" if near else f"mcp-broker {listing}"
