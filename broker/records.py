"""
What audit records say of who asked, of leases, and of releases.

This module refuses to write them: it works out their fields, never a value.
"""

from typing import Any, Final

from backends.base import Credential
from broker.attest import Peer
from broker.audit import AuditLog
from broker.core import chain
from broker.core.model import Lease
from broker.release import Release, Wanted

MOST_REMEMBERED: Final = 64
"""Leases whose records are remembered for one connection."""


def who(peer: Peer) -> dict[str, Any]:
    """Return the facts of a workload as an audit record has them."""
    workload = peer.workload
    facts: dict[str, Any] = {
        "uid": workload.process.uid,
        "gid": workload.gid,
        "pid": workload.process.pid,
        "start": workload.process.start,
    }
    if workload.unit is not None:
        facts["unit"] = workload.unit
    return facts


def what(lease: Lease) -> dict[str, Any]:
    """Return the facts of a lease as an audit record has them."""
    facts: dict[str, Any] = {
        "server": lease.server,
        "secret": lease.secret,
        "backend": lease.backend,
        "accessor": lease.accessor,
        "uid": lease.uid,
        "expires_at": lease.expires_at,
    }
    if lease.process is not None:
        facts["pid"] = lease.process.pid
        facts["start"] = lease.process.start
    if lease.version is not None:
        facts["version"] = lease.version
    return facts


def release_facts(audit: AuditLog, peer: Peer, taken: Release, wanted: Wanted) -> chain.Facts:
    """
    Return what the record of a release says.

    What a connection's records of one lease have in common is worked out once.
    """
    lease, fingerprint = taken.lease, _fingerprints(audit, taken.credential)
    known = None if taken.stale else peer.recorded.get(lease.accessor)
    if known is None or known[0] is not lease or known[1] != fingerprint:
        facts = what(lease) | who(peer)
        facts["bound"] = "ttl" if lease.process is None else lease.process.pid
        facts["dialect"] = wanted.dialect
        facts["fingerprint"] = fingerprint
        if taken.stale:
            return chain.facts(facts | {"stale": True})
        known = (lease, fingerprint, chain.facts(facts))
        if len(peer.recorded) < MOST_REMEMBERED:
            peer.recorded[lease.accessor] = known
    return known[2]


def _fingerprints(audit: AuditLog, credential: Credential) -> str | list[str]:
    """
    Return keyed fingerprints of the values.

    Worked out each time: a version may come again with other values, where
    the secret was removed at its source and made anew.
    """
    values = credential.values
    if len(values) == 1 and "value" in values:
        return audit.fingerprint(values["value"])
    return [f"{name}:{audit.fingerprint(value)}" for name, value in sorted(values.items())]
