"""
The policy that a config needs, in the language of ``bao policy write``. Pure.

It refuses to ask for more: each path by name, each with what is done there.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from backends.vault_engines import Plan

READ: Final = ("read",)
WRITE: Final = ("create", "update")

LEASES: Final[Mapping[str, Sequence[str]]] = {
    "sys/leases/renew": ("update",),
    "sys/leases/revoke": ("update",),
}
"""What leases need; the first is in the server's default policy already."""

CHILDREN: Final[Mapping[str, Sequence[str]]] = {
    "auth/token/create": ("update",),
    "auth/token/renew-accessor": ("update",),
    "auth/token/revoke-accessor": ("update",),
}
"""What a token for each dynamic credential needs."""

_OWN: Final[Mapping[str, Sequence[str]]] = {
    "auth/token/lookup-self": ("read",),
    "auth/token/renew-self": ("update",),
    "auth/token/revoke-self": ("update",),
    "sys/capabilities-self": ("update",),
}
"""What is in the server's default policy, for where that is not given."""


def wanted(plan: Plan) -> Sequence[str]:
    """Return what a plan needs at its path."""
    return WRITE if plan.write else READ


def needs(plan: Plan) -> Mapping[str, Sequence[str]]:
    """Return all that a plan needs: for each path any one of these capabilities."""
    found = {plan.path: wanted(plan)}
    if plan.mints and plan.revoke is None:
        found |= LEASES
    elif plan.revoke is not None:
        found[plan.revoke] = ("update",)
    return found


def text(plans: Iterable[Plan], *, unsure: Iterable[str], children: bool) -> str:
    """
    Return the policy.

    Args:
        plans: what the configured secrets need.
        unsure: paths of which it is not known what is mounted there: they may be of either version of K/V.
        children: whether each dynamic credential gets a token of its own.

    """
    plans = tuple(plans)
    parts = [_section("what the servers get", [(plan.path, wanted(plan)) for plan in plans])]
    guesses = [(guess, READ) for path in unsure for guess in _either(path)]
    parts.append(_section("the server did not say what is mounted here: the second path is that of K/V 2", guesses))
    if any(plan.mints for plan in plans):
        parts.append(_section("to renew and to revoke it", list(LEASES.items())))
        revoked = sorted({plan.revoke for plan in plans if plan.revoke is not None})
        parts.append(_section("to revoke certificates", [(path, ("update",)) for path in revoked]))
        if children:
            why = "a token for each credential: nothing is left where an answer is lost (leave it out if unwanted)"
            parts.append(_section(why, list(CHILDREN.items())))
    parts.append(_section("the broker's own token; in the policy `default` already", list(_OWN.items())))
    return "\n".join(part for part in parts if part)


def _either(path: str) -> tuple[str, str]:
    mount, _, inside = path.partition("/")
    return path, f"{mount}/data/{inside}"


def _section(why: str, rules: Sequence[tuple[str, Sequence[str]]]) -> str:
    if not rules:
        return ""
    lines = [f"# {why}"]
    merged: dict[str, dict[str, None]] = {}
    for path, capabilities in rules:
        # What is read by one secret may be written by another.
        merged.setdefault(path, {}).update(dict.fromkeys(capabilities))
    for path, found in sorted(merged.items()):
        if _means_more(path):
            lines.append(f"# not {path!r}: in a policy that would be more than this one path")
            continue
        listed = ", ".join(f'"{each}"' for each in found)
        lines.append(f'path "{_quoted(path)}" {{ capabilities = [{listed}] }}')
    return "\n".join(lines) + "\n"


def _means_more(path: str) -> bool:
    """Return whether a policy takes it for a pattern or a template; it has no way to say that it is none."""
    return path.endswith("*") or "+" in path.split("/") or "{{" in path or not path.isprintable()


def _quoted(path: str) -> str:
    return path.replace("\\", "\\\\").replace('"', '\\"')
