"""
The verbs that any process may speak: they release values, by policy.
"""

import time
from typing import Literal

import broker
from broker.api import messages as m
from broker.api.times import utc
from broker.api.words import Duration
from broker.attest import Anchor, Peer, ancestor
from broker.config.duration import seconds
from broker.core.model import Lease
from broker.endings import Watcher
from broker.errors import RequestError
from broker.release import Wanted
from broker.running import Running


class Caller:
    """
    Who asks, for as long as their connection or anything that was asked on it lasts.

    Attributes:
        running: what answers.
        peer: the attested process.
        dialect: ``lines`` or ``http``.
        notify: where notifications go, or None where the connection carries none.
        busy_since: when the latest request came while none was under way, in monotonic seconds; None while none is.

    """

    __slots__ = ("_busy", "_gone", "busy_since", "dialect", "notify", "peer", "running", "watching")

    def __init__(self, running: Running, peer: Peer) -> None:
        """Take over the hold on the peer; ``leave`` lets go of it."""
        self.running = running
        self.peer = peer
        self.dialect = "lines"
        self.notify: Watcher | None = None
        self.watching = False
        self.busy_since: float | None = None
        self._busy = 0
        self._gone = False

    def begin(self) -> None:
        """Know that a request is under way, which needs the hold on the peer."""
        self._busy += 1
        if self._busy == 1:
            self.busy_since = time.monotonic()

    def finish(self) -> None:
        """Know that it is over."""
        self._busy -= 1
        if not self._busy:
            self.busy_since = None
        self._close()

    def leave(self) -> None:
        """Know that the connection has ended. What is under way ends by itself; its lease hangs on the process."""
        self._gone = True
        if self.watching and self.notify is not None:
            self.running.endings.unwatch(self.peer.workload.process, self.notify)
        self._close()

    def _close(self) -> None:
        if self._gone and not self._busy:
            self.peer.close()


async def whoami(running: Running, caller: Caller, _: m.Nothing) -> m.Whoami:
    """Return what the broker sees in the caller."""
    workload = caller.peer.workload
    return m.Whoami(
        version=broker.__version__,
        mode=running.places.mode,
        uid=workload.uid,
        gid=workload.gid,
        groups=sorted(workload.groups),
        pid=workload.process.pid,
        unit=workload.unit,
        selectors=sorted(caller.peer.selectors),
    )


async def server_open(running: Running, caller: Caller, params: m.ServerOpen) -> m.Opened:
    """Return all that a server needs to start; the leases hang on the caller, which becomes the server."""
    opening = await running.service.open_server(caller.peer, params.server, dialect=caller.dialect)
    server = opening.server
    return m.Opened(
        server=server.name,
        command=list(server.command),
        client_args=server.client_args,
        env=dict(opening.env),
        files=dict(opening.files),
        pass_env=list(server.pass_env),
        leases=[lease.accessor for lease in opening.leases],
        version=broker.__version__,
    )


async def credential_issue(running: Running, caller: Caller, params: m.CredentialIssue) -> m.Issued:
    """Return one credential."""
    holder, borrowed = _holder(caller.peer, params)
    try:
        release = await running.service.issue(
            caller.peer,
            Wanted(
                secret=params.secret,
                ttl=_duration(params.ttl),
                fresh=params.fresh,
                holder=holder,
                dialect=caller.dialect,
            ),
        )
    finally:
        if borrowed and holder is not None:
            holder.close()
    lease = release.lease
    return m.Issued(
        accessor=lease.accessor,
        secret=lease.secret,
        values=dict(release.credential.values),
        issued_at=utc(lease.issued_at),
        expires_at=utc(lease.expires_at),
        renewable=lease.renewable,
        version=lease.version,
    )


async def lease_renew(running: Running, caller: Caller, params: m.LeaseRenew) -> m.Renewed:
    """Give one of the caller's leases more time."""
    lease = await running.service.renew(caller.peer, params.accessor, _duration(params.ttl))
    return m.Renewed(accessor=lease.accessor, expires_at=utc(lease.expires_at))


async def lease_release(running: Running, caller: Caller, params: m.LeaseRelease) -> m.Done:
    """End one of the caller's leases."""
    await running.service.give_back(caller.peer, params.accessor)
    return m.Done()


async def lease_watch(running: Running, caller: Caller, _: m.Nothing) -> m.Watching:
    """Tell the caller from now on when one of its leases changes."""
    if caller.notify is None:
        message = "this connection carries no notifications"
        raise RequestError(message, hint="GET /v1/leases/watch, or the line dialect")
    process = caller.peer.workload.process
    running.endings.watch(process, caller.notify)
    caller.watching = True
    return m.Watching(leases=[lease.accessor for lease in running.leases.of(process)])


def _holder(peer: Peer, params: m.CredentialIssue) -> tuple[Anchor | None, bool]:
    """Return what the lease is to hang on, and whether that hold is ours to close."""
    if params.bind is None or params.bind == peer.workload.process.pid:
        return peer.anchor, False
    if params.bind == "none":
        if params.ttl is None:
            message = 'a lease that hangs on no process needs a "ttl"'
            raise RequestError(message, hint='for example "ttl": "1m"')
        return None, False
    return ancestor(peer, int(params.bind)), True


def _duration(given: Duration | None) -> float | None:
    if given is None:
        return None
    try:
        length = seconds(given)
    except ValueError as error:
        message = f'"ttl": {error}'
        raise RequestError(message, hint='for example "10m", or seconds') from None
    if length <= 0:
        message = '"ttl" must be more than 0'
        raise RequestError(message, hint='for example "10m", or seconds')
    return length


def row(lease: Lease, state: Literal["stale", "ended", "irrevocable"] | None = None) -> m.LeaseRow:
    """Return a lease as admins see it, in a state that it does not know itself, or in its own."""
    return m.LeaseRow(
        accessor=lease.accessor,
        secret=lease.secret,
        server=lease.server,
        backend=lease.backend,
        version=lease.version,
        uid=lease.uid,
        pid=None if lease.process is None else lease.process.pid,
        state=state or ("barred" if lease.barred else "active"),
        issued_at=utc(lease.issued_at),
        expires_at=utc(lease.expires_at),
        renewable=lease.renewable,
    )
