"""
What to ask for at which path, and what the answer is worth. Pure.

A path in the config is written as a person would type it: ``secret/app`` for a
secret of a K/V engine of either version, ``database/creds/readonly`` for what is
minted. Which engine is mounted there the server says itself.

This module refuses to guess what can be revoked: whatever an engine that it
does not know makes counts as something that may have to be.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, final

import msgspec

from backends.base import Credential, MisconfiguredError, Secret
from backends.vault_wire import Answer


@final
class Mount(msgspec.Struct, frozen=True, kw_only=True):
    """
    What is mounted somewhere.

    Attributes:
        path: with a slash at its end.
        kind: ``kv``, ``database``, and so on.
        version: of a K/V engine, 1 or 2.
        longest: seconds that a lease of it may last; 0 where the mount does not say.

    """

    path: str
    kind: str
    version: int = 1
    longest: float = 0.0


@final
class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """
    What to ask.

    Attributes:
        path: of the API, without ``/v1/``.
        write: whether it is a write with ``body``, and not a read with ``query``.
        body: what is written.
        query: what goes into the URL.
        mints: whether each time something new comes of it.
        versioned: whether it is a secret of K/V 2.
        kept: whether what was read may be handed out again for a while.
        revoke: what takes back what has no lease: a path that takes its serial number; None for none.

    """

    path: str
    write: bool = False
    body: Mapping[str, Any] = {}
    query: Mapping[str, Any] = {}
    mints: bool = False
    versioned: bool = False
    kept: bool = False
    revoke: str | None = None


_STATIC: Final = frozenset({"static-creds", "static-cred"})
"""Second words of paths at which a database's or a directory's account is read that the server rotates itself."""

MINTING: Final = frozenset({"creds", "static-creds", "static-cred", "sts", "issue", "sign", "code"})
"""Second words of paths that no K/V engine would have, for where the server does not say what is mounted."""

_CERTIFICATES: Final = frozenset({"issue", "sign", "sign-verbatim"})
_READ_ONLY: Final = frozenset({"kv", "cubbyhole", "generic"})
_LARGEST: Final = 1e15
_DIGITS: Final = re.compile(r"[0-9]{1,15}s?")


def plan(mount: Mount | None, path: str, params: Mapping[str, Any]) -> Plan:
    """
    Return what to ask for ``path``.

    Args:
        mount: what is mounted there; None while that is not known, and then the answer is careful.
        path: as the config has it.
        params: what is sent along; with any, it is a write, but for a version of K/V 2.

    """
    path = path.strip("/")
    if mount is None:
        return Plan(path=path, write=bool(params), body=params, mints=True)
    inside = path.removeprefix(mount.path)
    word = inside.partition("/")[0]
    if mount.kind == "kv" and mount.version > 1:
        return _versioned(mount, inside, params)
    if mount.kind in _READ_ONLY:
        return Plan(path=path, query=params, kept=True)
    if mount.kind == "totp":
        # A code is good for seconds; the next one is another.
        return Plan(path=path)
    if word in _STATIC:
        return Plan(path=path, query=params, kept=True)
    if mount.kind == "pki" and word == "issuer":
        # One of several issuers is named first; what is done comes after it.
        word = inside.split("/")[2] if inside.count("/") > 1 else ""
    revoke = f"{mount.path}revoke" if mount.kind == "pki" and word in _CERTIFICATES else None
    return Plan(path=path, write=bool(params), body=params, mints=True, revoke=revoke)


def _versioned(mount: Mount, inside: str, params: Mapping[str, Any]) -> Plan:
    if set(params) - {"version"}:
        message = f"a secret of K/V 2 takes the parameter version and no other, at {mount.path}{inside}"
        raise MisconfiguredError(message, hint="params = { version = 3 }")
    # Who has copied the path from the API's documentation means the same secret.
    return Plan(path=f"{mount.path}data/{inside.removeprefix('data/')}", query=params, versioned=True, kept=True)


def mount_of(data: Mapping[str, Any] | None) -> Mount | None:
    """Return what ``sys/internal/ui/mounts/PATH`` says is mounted there."""
    data = data or {}
    path, kind = data.get("path"), data.get("type")
    if not isinstance(path, str) or not isinstance(kind, str):
        return None
    options, config = _mapping(data.get("options")), _mapping(data.get("config"))
    return Mount(
        path=path.strip("/") + "/",
        kind=kind,
        version=2 if str(options.get("version")) == "2" else 1,
        longest=number(config.get("max_lease_ttl")) or 0.0,
    )


def fields(data: Mapping[str, Any]) -> dict[str, Secret]:
    """
    Return the fields of a secret, each as text.

    Text stays as it is, and so does a list of PEM blocks, one after the other;
    whatever else JSON knows is JSON. What is null is no field.
    """
    return {name: Secret(_text(value)) for name, value in data.items() if value is not None}


def _text(value: Any) -> str:  # noqa: ANN401 -- any JSON
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(each, str) and "-----BEGIN" in each for each in value):
        return "\n".join(each.strip("\n") for each in value)
    return msgspec.json.encode(value).decode()


def version_of(answer: Answer) -> tuple[int, str]:
    """Return the version that an answer of K/V 2 is about, and when it was written, as the server says it."""
    metadata = _mapping((answer.data or {}).get("metadata"))
    return int(number(metadata.get("version")) or 0), str(metadata.get("created_time", ""))


def static(found: Plan, answer: Answer) -> Credential | None:
    """Return what was read, or None where the answer does not hold it: a static account that is being rotated."""
    data = answer.data or {}
    if found.versioned:
        inner = data.get("data")
        version, _ = version_of(answer)
        if not isinstance(inner, Mapping):
            return None
        return Credential(values=fields(inner), version=version or None)
    ttl = number(data.get("ttl")) if "last_vault_rotation" in data else None
    if ttl is not None and ttl <= 0:
        return None
    return Credential(values=fields(data), ttl=ttl)


def lifetime(answer: Answer, *, now: float) -> float | None:
    """Return the seconds for which what was minted is good: by its lease, else by what it says of itself."""
    if answer.lease_id:
        return answer.lease_duration or None
    data = answer.data or {}
    expiration = number(data.get("expiration"))
    if expiration is not None:
        return max(0.0, expiration - now)
    ends = number(data.get("ttl")) or answer.lease_duration
    if ends > 0:
        return ends
    return _certified(data.get("signed_key"), now)


def _certified(key: object, now: float) -> float | None:
    """Return for how long an SSH certificate is good."""
    if not isinstance(key, str):
        return None
    # Not needed for anything else, and it takes a while to load.
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import SSHCertificate, load_ssh_public_identity  # noqa: PLC0415

    try:
        found = load_ssh_public_identity(key.strip().encode())
    except (ValueError, UnsupportedAlgorithm):
        return None
    return max(0.0, found.valid_before - now) if isinstance(found, SSHCertificate) else None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def number(value: object) -> float | None:
    """Return a number that a server has sent as one, or as text; a length of time such as ``30s`` too."""
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)) and abs(value) <= _LARGEST:
        return float(value)
    if isinstance(value, str) and value.isascii() and _DIGITS.fullmatch(value):
        return float(value.removesuffix("s"))
    return None
