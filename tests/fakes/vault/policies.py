"""
Policies of a Vault: which token may do what where.

The most specific path counts, as the server has it: an exact one, else the one
whose first wildcard comes latest. ``deny`` beats everything. It refuses to know
about parameters (``allowed_parameters`` and their like are passed over).
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from tests.fakes.vault.wire import Request, bad

DEFAULT: Final = """
path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
path "auth/token/revoke-self" { capabilities = ["update"] }
path "sys/capabilities-self" { capabilities = ["update"] }
path "sys/internal/ui/resultant-acl" { capabilities = ["read"] }
path "sys/leases/renew" { capabilities = ["update"] }
path "sys/leases/lookup" { capabilities = ["update"] }
path "cubbyhole/*" { capabilities = ["create", "read", "update", "delete", "list"] }
path "sys/wrapping/wrap" { capabilities = ["update"] }
path "sys/wrapping/lookup" { capabilities = ["update"] }
path "sys/wrapping/unwrap" { capabilities = ["update"] }
path "sys/tools/hash" { capabilities = ["update"] }
"""
"""What every token may do unless it was made without it."""

_KNOWN: Final = frozenset({"create", "read", "update", "delete", "list", "patch", "sudo", "deny", "scan", "root"})
_COMMENT: Final = re.compile(r'("(?:[^"\\]|\\.)*")|#[^\n]*|//[^\n]*|/\*.*?\*/', re.DOTALL)
_BLOCK: Final = re.compile(r'\s*path\s+"((?:[^"\\]|\\.)*)"\s*\{(.*?)\}', re.DOTALL)
_CAPABILITIES: Final = re.compile(r"capabilities\s*=\s*\[(.*?)\]", re.DOTALL)

Policy = Mapping[str, frozenset[str]]
"""From a path, as the policy writes it, to what may be done there."""


def parse(text: str) -> Policy:
    """Return a policy that is written in HCL. Raises ``Refusal`` for what the server would not take."""
    rest = _COMMENT.sub(lambda found: found[1] or "", text)
    policy: dict[str, frozenset[str]] = {}
    while rest.strip():
        block = _BLOCK.match(rest)
        found = block and _CAPABILITIES.search(block[2])
        if block is None or found is None:
            raise bad("failed to parse policy: At 1:1: expected a path with capabilities")
        capabilities = frozenset(re.findall(r'"([^"]*)"', found[1]))
        if unknown := capabilities - _KNOWN:
            raise bad(f'failed to parse policy: path "{block[1]}": invalid capability "{min(unknown)}"')
        policy[block[1]] = policy.get(block[1], frozenset()) | capabilities
        rest = rest[block.end() :]
    return policy


def capabilities(policies: Iterable[Policy], path: str) -> frozenset[str]:
    """Return what the policies together allow at a path; ``{"deny"}`` for nothing."""
    merged: dict[str, frozenset[str]] = {}
    for policy in policies:
        for pattern, allowed in policy.items():
            merged[pattern] = merged.get(pattern, frozenset()) | allowed
    fitting = [pattern for pattern in merged if _fits(pattern, path)]
    if not fitting:
        return frozenset({"deny"})
    found = merged[max(fitting, key=_rank)]
    return frozenset({"deny"}) if "deny" in found or not found else found


def needed(request: Request, *, exists: bool | None) -> str:
    """Return the capability that a request needs; a write of what is not there yet needs ``create``."""
    if request.writes:
        return "create" if exists is False else "update"
    return {"GET": "read", "LIST": "list", "DELETE": "delete", "PATCH": "patch"}.get(request.method, "read")


def _fits(pattern: str, path: str) -> bool:
    glob = pattern.endswith("*")
    body = pattern[:-1] if glob else pattern
    expression = "/".join("[^/]+" if segment == "+" else re.escape(segment) for segment in body.split("/"))
    return re.fullmatch(expression + (".*" if glob else ""), path, re.DOTALL) is not None


def _rank(pattern: str) -> tuple[bool, int, bool, int, int, str]:
    wild = [number for number in (pattern.find("+"), pattern.find("*")) if number >= 0]
    first = min(wild, default=len(pattern))
    return (not wild, first, not pattern.endswith("*"), -pattern.count("+"), len(pattern), pattern)
