"""
The table of verbs: what may be said, on which socket, and what answers it.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import msgspec

from broker.api import admin, admin_audit, admin_secrets, admin_status, locks, metrics, rotating, unlocking, workload
from broker.api import audit_messages as a
from broker.api import messages as m
from broker.api.words import Params, Result
from broker.api.workload import Caller
from broker.running import Running


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """
    One thing that can be asked.

    Attributes:
        name: the method of the line dialect.
        params: what may be said with it.
        result: what it answers.
        call: what does it.
        http: method and path of the HTTP dialect; ``{field}`` is taken from the path. None where there is none.
        admin: whether only the admin socket knows it.
        decode: reads the parameters from JSON.

    """

    name: str
    params: type[Params]
    result: type[Result]
    call: Callable[[Running, Caller, Any], Awaitable[Result]]
    http: tuple[str, str] | None
    admin: bool
    decode: Callable[[bytes | msgspec.Raw], Params]


def _verb(
    name: str,
    params: type[Params],
    result: type[Result],
    call: Callable[[Running, Caller, Any], Awaitable[Result]],
    http: str | None,
    *,
    admin: bool = False,
) -> Verb:
    method, _, path = (http or "").partition(" ")
    return Verb(
        name=name,
        params=params,
        result=result,
        call=call,
        http=(method, path) if http else None,
        admin=admin,
        decode=msgspec.json.Decoder(params).decode,
    )


_TABLE: Final = (
    _verb("whoami", m.Nothing, m.Whoami, workload.whoami, "GET /v1/whoami"),
    _verb("server/open", m.ServerOpen, m.Opened, workload.server_open, None),
    _verb(
        "credential/issue", m.CredentialIssue, m.Issued, workload.credential_issue, "POST /v1/secrets/{secret}/issue"
    ),
    _verb("lease/renew", m.LeaseRenew, m.Renewed, workload.lease_renew, "POST /v1/leases/{accessor}/renew"),
    _verb("lease/release", m.LeaseRelease, m.Done, workload.lease_release, "DELETE /v1/leases/{accessor}"),
    _verb("lease/watch", m.Nothing, m.Watching, workload.lease_watch, "GET /v1/leases/watch"),
    _verb("status", m.Nothing, m.Status, admin_status.status, "GET /v1/admin/status", admin=True),
    _verb(
        "backend/policy",
        m.BackendPolicy,
        m.PolicyText,
        admin_status.backend_policy,
        "GET /v1/admin/backends/policy",
        admin=True,
    ),
    _verb("lease/list", m.LeaseList, m.Leases, admin.lease_list, "GET /v1/admin/leases", admin=True),
    _verb(
        "lease/revoke", m.LeaseRevoke, m.Revoked, admin.lease_revoke, "DELETE /v1/admin/leases/{accessor}", admin=True
    ),
    _verb("server/list", m.Nothing, m.Servers, admin.server_list, "GET /v1/admin/servers", admin=True),
    _verb(
        "server/revoke",
        m.ServerName,
        m.Revoked,
        admin.server_revoke,
        "POST /v1/admin/servers/{server}/revoke",
        admin=True,
    ),
    _verb("secret/list", m.SecretList, m.Secrets, admin_secrets.secret_list, "GET /v1/admin/secrets", admin=True),
    _verb(
        "secret/set", m.SecretSet, m.SecretStored, admin_secrets.secret_set, "PUT /v1/admin/secrets/{name}", admin=True
    ),
    _verb("secret/rm", m.SecretName, m.Done, admin_secrets.secret_rm, "DELETE /v1/admin/secrets/{name}", admin=True),
    _verb(
        "secret/versions",
        m.SecretName,
        m.Versions,
        admin_secrets.secret_versions,
        "GET /v1/admin/secrets/{name}/versions",
        admin=True,
    ),
    _verb("explain", m.Explain, m.Explained, admin.explain, "GET /v1/admin/explain", admin=True),
    _verb("reload", m.Nothing, m.Reloaded, admin.reload, "POST /v1/admin/reload", admin=True),
    _verb("audit/segments", m.Nothing, a.Segments, admin_audit.segments, "GET /v1/admin/audit/segments", admin=True),
    _verb(
        "audit/read", a.AuditRead, a.AuditText, admin_audit.read, "GET /v1/admin/audit/segments/{segment}", admin=True
    ),
    _verb("metrics", m.Nothing, a.Metrics, metrics.metrics, "GET /v1/admin/metrics", admin=True),
    _verb(
        "audit/checkpoint",
        m.Nothing,
        a.Checkpoint,
        admin_audit.checkpoint,
        "POST /v1/admin/audit/checkpoint",
        admin=True,
    ),
    _verb("key/rotate", m.KeyRotate, m.KeyRotated, admin_secrets.key_rotate, "POST /v1/admin/key/rotate", admin=True),
    _verb("backend/locks", m.Nothing, locks.Locks, unlocking.backend_locks, "GET /v1/admin/locks", admin=True),
    _verb(
        "backend/unlock",
        locks.BackendUnlock,
        m.Done,
        unlocking.backend_unlock,
        "POST /v1/admin/backends/{backend}/unlock",
        admin=True,
    ),
    _verb("rotate", rotating.Rotate, rotating.RotationsFound, rotating.rotate, "POST /v1/admin/rotate", admin=True),
    _verb(
        "rotation/list",
        rotating.RotationList,
        rotating.RotationsFound,
        rotating.rotation_list,
        "GET /v1/admin/rotations",
        admin=True,
    ),
    _verb("stop", m.Stop, m.Done, admin.stop, "POST /v1/admin/stop", admin=True),
)

WORKLOAD: Final[Mapping[str, Verb]] = MappingProxyType({verb.name: verb for verb in _TABLE if not verb.admin})
"""What ``broker.sock`` knows."""

ADMIN: Final[Mapping[str, Verb]] = MappingProxyType({verb.name: verb for verb in _TABLE})
"""What ``admin.sock`` knows: all of it."""
