"""
Everything but logins that is asked of a Vault, in hvac's words.

Each function returns what to say to an adapter. Imported when a backend opens,
and not before.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from hvac.api.auth_methods import Token
from hvac.api.system_backend import Capabilities, Lease

from backends.vault_engines import Plan
from backends.vault_http import VaultAdapter, api
from backends.vault_wire import Answer

Spoken = Callable[[VaultAdapter], Answer]


def fetching(plan: Plan) -> Spoken:
    """Read or write as planned."""
    if plan.write:
        return lambda adapter: cast("Answer", adapter.post(api(plan.path), json=dict(plan.body)))
    return lambda adapter: cast("Answer", adapter.get(api(plan.path), params=dict(plan.query)))


def locating(path: str) -> Spoken:
    """Ask what is mounted at a path."""
    return lambda adapter: cast("Answer", adapter.get(api(f"sys/internal/ui/mounts/{path}")))


def renewing(lease_id: str, seconds: float) -> Spoken:
    """Renew a lease for so many seconds from now."""
    return lambda adapter: cast("Answer", Lease(adapter).renew_lease(lease_id, increment=math.ceil(seconds)))


def revoking(lease_id: str) -> Spoken:
    """Revoke a lease, and have it done when the answer comes: hvac has no ``sync``."""
    said = {"lease_id": lease_id, "sync": True}
    return lambda adapter: cast("Answer", adapter.put("/v1/sys/leases/revoke", json=said))


def revoking_serial(path: str, serial: str) -> Spoken:
    """Revoke a certificate."""
    return lambda adapter: cast("Answer", adapter.post(api(path), json={"serial_number": serial}))


def making_child(seconds: float) -> Spoken:
    """Make a token below the adapter's own, with the same policies."""
    return lambda adapter: cast(
        "Answer", Token(adapter).create(ttl=f"{math.ceil(seconds)}s", renewable=True, display_name="mcp-broker")
    )


def renewing_child(accessor: str, seconds: float) -> Spoken:
    """Renew a token by its name."""
    return lambda adapter: cast("Answer", Token(adapter).renew_accessor(accessor, increment=f"{math.ceil(seconds)}s"))


def revoking_child(accessor: str) -> Spoken:
    """Revoke a token by its name, with all that hangs on it."""
    return lambda adapter: cast("Answer", Token(adapter).revoke_accessor(accessor))


def capabilities(paths: Sequence[str]) -> Spoken:
    """Ask what the adapter's token may do at these paths."""
    return lambda adapter: cast("Answer", Capabilities(adapter).get_capabilities(list(paths)))


def allowed(answer: Answer, path: str, wanted: Sequence[str]) -> bool:
    """Return whether an answer to ``capabilities`` holds one of ``wanted`` for a path."""
    found: Mapping[str, Any] = answer.data or {}
    have = found.get(path) or ()
    return bool({"root", *wanted}.intersection(have))
