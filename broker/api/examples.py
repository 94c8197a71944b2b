"""
One example of each verb: what is asked, and what is answered.

They stand in the OpenAPI document; a test reads each as the verb would. The
values in them are made up.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Example:
    """One request and its answer, as JSON has them."""

    params: Mapping[str, Any]
    result: Mapping[str, Any]


_ACCESSOR: Final = "TLrpyAaNLcmSvJYkIz5d"
_NOW: Final = "2026-11-23T09:00:00Z"
_LATER: Final = "2026-11-23T10:00:00Z"

_WORKLOAD: Final = {
    "whoami": Example(
        {},
        {
            "version": "0.1.0",
            "mode": "system",
            "uid": 990,
            "gid": 990,
            "groups": [990],
            "pid": 4242,
            "unit": "mcp-app.service",
            "selectors": ["gid:990", "uid:990", "unit:mcp-app.service"],
        },
    ),
    "server/open": Example(
        {"server": "github"},
        {
            "server": "github",
            "command": ["npx", "-y", "@modelcontextprotocol/server-github"],
            "client_args": False,
            "env": {"GITHUB_PERSONAL_ACCESS_TOKEN": "made-up"},
            "files": {},
            "pass_env": [],
            "leases": [_ACCESSOR],
            "version": "0.1.0",
        },
    ),
    "credential/issue": Example(
        {"secret": "github", "ttl": "10m"},
        {
            "accessor": _ACCESSOR,
            "secret": "github",
            "values": {"value": "made-up"},
            "issued_at": _NOW,
            "expires_at": "2026-11-23T09:10:00Z",
            "renewable": True,
            "version": 3,
        },
    ),
    "lease/renew": Example({"accessor": _ACCESSOR, "ttl": "1h"}, {"accessor": _ACCESSOR, "expires_at": _LATER}),
    "lease/release": Example({"accessor": _ACCESSOR}, {"done": True}),
    "lease/watch": Example({}, {"leases": [_ACCESSOR]}),
}

_LEASES: Final = {
    "lease/list": Example(
        {"server": "github"},
        {
            "leases": [
                {
                    "accessor": _ACCESSOR,
                    "secret": "github",
                    "server": "github",
                    "backend": "local",
                    "version": 3,
                    "uid": 1000,
                    "pid": 4242,
                    "state": "active",
                    "issued_at": _NOW,
                    "expires_at": _LATER,
                    "renewable": True,
                }
            ]
        },
    ),
    "lease/revoke": Example({"accessor": _ACCESSOR}, {"revoked": 1}),
    "server/list": Example(
        {},
        {
            "servers": [
                {
                    "name": "github",
                    "command": ["npx", "-y", "@modelcontextprotocol/server-github"],
                    "selectors": ["uid:1000"],
                    "secrets": ["github"],
                    "leases": 1,
                }
            ]
        },
    ),
    "server/revoke": Example({"server": "github"}, {"revoked": 1}),
    "explain": Example(
        {"server": "github", "pid": 4242},
        {
            "allowed": True,
            "reason": "server 'github': every selector holds",
            "rule": "github",
            "hint": None,
            "server": "github",
            "secret": None,
            "uid": 1000,
            "pid": 4242,
            "unit": None,
            "holds": ["gid:1000", "uid:1000"],
            "wants": ["uid:1000"],
            "at": None,
        },
    ),
}

_SECRETS: Final = {
    "secret/list": Example(
        {},
        {
            "secrets": [
                {
                    "name": "github",
                    "backend": "local",
                    "path": "github",
                    "stored": True,
                    "fields": ["value"],
                    "version": 3,
                    "created_at": _NOW,
                    "ttl": 3600.0,
                    "servers": ["github"],
                }
            ],
            "problems": [],
        },
    ),
    "secret/set": Example(
        {"name": "app-db", "values": {"username": "app", "password": "made-up"}},
        {"secret": "app-db", "backend": "local", "version": 1, "declared": True},
    ),
    "secret/rm": Example({"name": "app-db"}, {"done": True}),
    "secret/versions": Example(
        {"name": "github"},
        {
            "secret": "github",
            "backend": "local",
            "versions": [{"number": 3, "created_at": _NOW, "fields": ["value"], "current": True}],
        },
    ),
    "key/rotate": Example(
        {"reencrypt": True},
        {
            "backend": "local",
            "source": "key file /var/lib/mcp-broker/master.key",
            "generation": 2,
            "reencrypted": 12,
            "remains": None,
        },
    ),
}

_ROTATION: Final = {
    "name": "notion",
    "backend": "local",
    "how": "program",
    "state": "grace",
    "stage": "grace",
    "version": 5,
    "since": _NOW,
    "next_at": "2026-12-23T09:00:00Z",
    "max_age": None,
    "too_old": False,
    "error": None,
    "hint": None,
    "attempts": 0,
    "retry_at": None,
    "grace_until": _LATER,
    "holders": [{"version": 4, "sessions": 3}],
    "says": "3 sessions keep version 4 until they are restarted or the grace ends",
    "would": "it is being replaced already: grace",
}

_REST: Final = {
    "status": Example(
        {},
        {
            "version": "0.1.0",
            "mode": "user",
            "pid": 4100,
            "uid": 1000,
            "started_at": _NOW,
            "directory": "/home/u/.local/state/mcp-broker",
            "healthy": False,
            "problems": [{"text": "the config on disk is not the one in force", "hint": "mcp-broker reload"}],
            "config": {"files": ["/home/u/.config/mcp-broker/broker.toml"], "loaded_at": _NOW, "error": None},
            "audit": {
                "state": "ok",
                "detail": "",
                "hint": None,
                "segment": "audit.jsonl",
                "records": 42,
                "waiting": 0,
                "checkpoint": 7,
                "checkpoint_at": _NOW,
                "vouched": 12000,
                "sinks": [
                    {
                        "name": "siem",
                        "type": "syslog",
                        "send": "records",
                        "required": False,
                        "state": "ok",
                        "detail": "",
                        "hint": None,
                        "checkpoint": 7,
                        "record": 12345,
                        "behind": 0,
                    }
                ],
            },
            "backends": [{"name": "local", "type": "sealed", "state": "ok", "detail": "", "hint": None, "facts": {}}],
            "servers": 1,
            "secrets": 1,
            "leases": 1,
            "processes": 1,
            "connections": 2,
            "pending_revocations": 0,
            "unknown": [],
            "refusals": [],
        },
    ),
    "backend/policy": Example(
        {"backend": "vault"},
        {"backend": "vault", "policy": 'path "kv/data/notion" { capabilities = ["read"] }\n', "secrets": 1},
    ),
    "backend/locks": Example(
        {},
        {
            "locks": [
                {
                    "backend": "desktop",
                    "what": "the keyring 'Login'",
                    "takes_password": True,
                    "asking": False,
                    "usable": True,
                    "hint": None,
                }
            ]
        },
    ),
    "backend/unlock": Example({"backend": "desktop", "password": "made-up"}, {"done": True}),
    "rotate": Example({"name": "notion"}, {"rotations": [_ROTATION]}),
    "rotation/list": Example({}, {"rotations": [_ROTATION]}),
    "reload": Example({}, {"changed": ["servers: +staging"]}),
    "stop": Example({"revoke": False}, {"done": True}),
    "audit/segments": Example(
        {}, {"segments": [{"name": "audit.jsonl", "bytes": 4096, "current": True}], "checkpoints": 393}
    ),
    "audit/read": Example(
        {"segment": "audit.jsonl", "limit": 4096},
        {"text": '{"seq":1,"prev":"0000…","event":"log/begun"}\n', "next": 45, "end": True},
    ),
    "metrics": Example({}, {"text": "# TYPE mcp_broker_issues_total counter\nmcp_broker_issues_total 42\n"}),
    "audit/checkpoint": Example(
        {},
        {
            "checkpoint": 7,
            "records": 12345,
            "head": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "time": _NOW,
            "note": "mcp-broker.audit/681ed374d42e9043\ncheckpoint 7\n…\n",
        },
    ),
}

EXAMPLES: Final[Mapping[str, Example]] = MappingProxyType({**_WORKLOAD, **_LEASES, **_SECRETS, **_REST})
"""By the name of the verb."""
