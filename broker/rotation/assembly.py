"""
A broker's rotations, put together from the parts that it has.

This module refuses to open anything.
"""

from pathlib import Path

from broker.rotation.journal import Journal
from broker.rotation.rotations import Rotations
from broker.rotation.targets import Workshop
from broker.service import Service


def rotations_of(service: Service, *, state: Path) -> Rotations:
    """Return the rotations of a broker that keeps its state in this directory."""
    return Rotations(
        config=lambda: service.config,
        workshop=Workshop(backends=service.backends, locks=state / "rotations", clock=service.clock),
        journal=Journal(state / "rotations.db"),
        audit=service.audit,
        leases=service.leases,
        tell=service.endings.tell,
        clock=service.clock,
    )
