"""
What is asked for, what may leave, and what both are before and after the backend has spoken.

Shapes, and what they must hold: this module refuses to do anything.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from backends.base import Credential, Secret
from broker.attest import Anchor
from broker.config import SecretConfig, ServerConfig
from broker.core.model import Intent, Lease
from broker.errors import UnavailableError

BACKEND_DEADLINE: Final = 30.0
"""Seconds that a backend may take for one credential."""

_NOTHING: Final = Secret("")


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a workload asks for.

    Attributes:
        secret: its name.
        server: the server it is for, where the caller opens one.
        ttl: seconds, or None for what the config says.
        fresh: another lease, even where one is held.
        holder: the process that the lease is to hang on; None for its ``ttl`` alone.
        dialect: how it was asked, for the record.

    """

    secret: str
    server: str | None = None
    ttl: float | None = None
    fresh: bool = False
    holder: Anchor | None
    dialect: str = "lines"


class Release(msgspec.Struct, frozen=True):
    """
    What may leave now.

    Attributes:
        lease: the promise.
        credential: the values it is about.
        new: whether the lease was made for this.
        stale: whether the backend did not answer, and these are the values that it gave last.

    """

    lease: Lease
    credential: Credential
    new: bool
    stale: bool = False


@dataclass(frozen=True, slots=True)
class Opening:
    """All that a server needs to start."""

    server: ServerConfig
    env: Mapping[str, Secret]
    files: Mapping[str, Secret]
    leases: tuple[Lease, ...]


def new_accessor() -> str:
    """Return a name for a lease that nobody guesses, and that no command takes for an option: people type it."""
    return secrets.token_urlsafe(15).replace("-", "_")


def require_value(credential: Credential, secret: SecretConfig) -> Credential:
    """Return a credential that has something in it; raise ``UnavailableError`` where all its fields are empty."""
    if all(value == _NOTHING for value in credential.values.values()):
        message = f"secret {secret.name!r} is empty in {secret.backend!r}"
        raise UnavailableError(message, hint=f"mcp-broker secret set {secret.name}, or write it where it is kept")
    return credential


def as_issued(lease: Lease, credential: Credential) -> Lease:
    """
    Return the promised lease with what the backend made of it: its own name, its version, a shorter life.

    What cannot be renewed at its backend is over there at a time that nobody
    moves. Where there is nothing to renew at a backend, more time is given here,
    but not beyond that.
    """
    ttl = lease.ttl if credential.ttl is None else min(lease.ttl, credential.ttl)
    last = None if credential.ttl is None or credential.renewable else lease.issued_at + credential.ttl
    here = credential.backend_lease is None and (last is None or lease.issued_at + ttl < last)
    return replace(
        lease,
        version=credential.version,
        backend_lease=credential.backend_lease,
        renewable=credential.renewable or here,
        expires_at=lease.issued_at + ttl,
        ttl=ttl,
        gone_by=last,
    )


def intent_of(lease: Lease) -> Intent:
    """Return what is on disk before the backend is asked for what this lease is to be about."""
    return Intent(
        accessor=lease.accessor,
        secret=lease.secret,
        server=lease.server,
        backend=lease.backend,
        uid=lease.uid,
        process=lease.process,
        started_at=lease.issued_at,
        gone_by=lease.expires_at + BACKEND_DEADLINE,
    )


def taken_back(intent: Intent) -> Lease:
    """Return the lease of what may have come of an intent with a handle: it has ended, and is to be revoked by that."""
    return Lease(
        accessor=intent.accessor,
        secret=intent.secret,
        server=intent.server,
        backend=intent.backend,
        process=intent.process,
        uid=intent.uid,
        issued_at=intent.started_at,
        expires_at=intent.gone_by,
        ttl=intent.gone_by - intent.started_at,
        backend_lease=intent.handle,
        renewable=False,
        ended=True,
    )
