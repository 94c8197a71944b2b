"""
The parts of a running broker, as the verbs of the sockets see them.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from backends.base import Backend
from broker.alarms import Alarms
from broker.attest import Attestor
from broker.audit import AuditLog
from broker.books import Books
from broker.core.leases import LeaseTable
from broker.core.limits import RateLimit
from broker.core.meters import Timings
from broker.endings import Endings
from broker.paths import Places
from broker.refusals import Refusals
from broker.rotation.rotations import Rotations
from broker.service import Service
from broker.store import Store


@dataclass(slots=True, kw_only=True)
class Running:
    """
    Everything that answers a request.

    Attributes:
        reload: reads the config again, puts it in force as a whole, and returns what changed.
        stop: ends the daemon; true revokes first.
        books: the audit log, and all that goes with it.
        alarms: tells a person what needs one: ``running.alarms.tell(kind, text, **facts)``.
        config_error: why the config on disk is not the one in force, or None.
        connections: how many there are, by socket.
        timings: how long each verb took.

    """

    places: Places
    service: Service
    endings: Endings
    refusals: Refusals
    audit: AuditLog
    store: Store
    leases: LeaseTable
    rotations: Rotations
    backends: Mapping[str, Backend]
    attestor: Attestor
    rate: RateLimit
    started_at: float
    loaded_at: float
    clock: Callable[[], float]
    books: Books
    alarms: Alarms
    reload: Callable[[], Awaitable[list[str]]]
    stop: Callable[[bool], None]
    config_error: str | None = None
    connections: dict[str, int] = field(default_factory=dict)
    timings: Timings = field(default_factory=Timings)
