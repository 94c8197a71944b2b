"""
The verb ``metrics``: everything that is counted, as Prometheus reads it.

This module refuses to count: it looks at what the parts have counted themselves.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator

import broker
from broker.api import audit_messages as a
from broker.api import messages as m
from broker.api.admin_status import backend_row
from broker.api.workload import Caller
from broker.core.chain import moment
from broker.core.meters import Metric, text
from broker.rotation.shown import shown
from broker.running import Running

_NONE: dict[str, str] = {}
_FAILURES = ("lease/not-renewed", "lease/not-given-back", "lease/unknown", "credential/withheld")


async def metrics(running: Running, _: Caller, __: m.Nothing) -> a.Metrics:
    """Return all that is counted."""
    backends = await asyncio.gather(*(backend_row(running, *each) for each in running.backends.items()))
    families = [*_itself(running), *_issues(running), *_leases(running), *_ages(running), *_log(running)]
    up = [({"backend": row.name, "type": row.type, "state": row.state}, float(row.state == "ok")) for row in backends]
    families.append(Metric(name="backend_up", kind="gauge", about="Whether a backend can be used.", values=up))
    return a.Metrics(text=text(families, running.timings))


def _itself(running: Running) -> Iterator[Metric]:
    about = {"version": broker.__version__, "mode": running.places.mode}
    yield Metric(name="build", kind="gauge", about="The broker.", values=[(about, 1)])
    started = [(_NONE, running.started_at)]
    yield Metric(name="start_time_seconds", kind="gauge", about="When it started, Unix time.", values=started)
    wrong = [(_NONE, float(running.config_error is not None))]
    about_config = "Whether the config on disk is not the one in force."
    yield Metric(name="config_refused", kind="gauge", about=about_config, values=wrong)
    connections = [({"socket": name}, float(count)) for name, count in sorted(running.connections.items())]
    yield Metric(name="connections", kind="gauge", about="Open connections.", values=connections)
    raised = [(_NONE, float(running.alarms.raised))]
    yield Metric(name="alarms_total", kind="counter", about="What needed a person, told or not.", values=raised)


def _issues(running: Running) -> Iterator[Metric]:
    events = running.audit.counts
    issued = [(_NONE, float(events["credential/authorised"]))]
    yield Metric(name="issues_total", kind="counter", about="Releases that were authorised.", values=issued)
    refused = [({"code": code}, float(count)) for code, count in sorted(running.refusals.counts.items())]
    yield Metric(name="refusals_total", kind="counter", about="Requests that were refused.", values=refused)
    failed = [({"event": event}, float(events[event])) for event in _FAILURES]
    yield Metric(name="failures_total", kind="counter", about="What went wrong with leases.", values=failed)
    seen = [({"event": event}, float(count)) for event, count in sorted(events.items())]
    yield Metric(name="records_total", kind="counter", about="Audit records since the start, by event.", values=seen)


def _leases(running: Running) -> Iterator[Metric]:
    out = Counter(lease.backend for lease in running.leases if not lease.barred)
    values = [({"backend": name}, float(out[name])) for name in sorted(running.backends)]
    yield Metric(name="leases", kind="gauge", about="Leases that are out.", values=values)
    held = [(_NONE, float(running.leases.processes))]
    yield Metric(name="lease_processes", kind="gauge", about="Processes that hold leases.", values=held)
    pending = [(_NONE, float(len(running.endings.revoker)))]
    yield Metric(name="pending_revocations", kind="gauge", about="Leases still to be given back.", values=pending)
    unknown = [(_NONE, float(len(running.endings.unknown)))]
    about = "What may exist at a backend, and nobody holds it."
    yield Metric(name="unknown_credentials", kind="gauge", about=about, values=unknown)


def _ages(running: Running) -> Iterator[Metric]:
    now = running.clock()
    rows = [(row, {"secret": row.name}) for row in shown(running.rotations, now)]
    ages = [(labels, now - row.since) for row, labels in rows if row.since is not None]
    yield Metric(name="secret_age_seconds", kind="gauge", about="How old a credential is that rotates.", values=ages)
    promised = [(labels, row.max_age) for row, labels in rows if row.max_age is not None]
    yield Metric(name="secret_max_age_seconds", kind="gauge", about="How old it may become.", values=promised)
    old = [(labels, float(row.too_old)) for row, labels in rows]
    yield Metric(name="secret_too_old", kind="gauge", about="Whether it is older than promised.", values=old)
    failed = [(labels, float(row.error is not None)) for row, labels in rows]
    yield Metric(name="rotation_failed", kind="gauge", about="Whether its rotation waits to be mended.", values=failed)


def _log(running: Running) -> Iterator[Metric]:
    audit, books = running.audit.state(), running.books
    last = books.upkeep.last
    ok = [({"state": audit.state}, float(audit.accepts))]
    yield Metric(name="audit_up", kind="gauge", about="Whether the audit log takes records.", values=ok)
    records = [(_NONE, float(audit.records))]
    yield Metric(name="audit_records", kind="gauge", about="The number of the last record on disk.", values=records)
    lag = [({"what": "waiting"}, float(audit.waiting)), ({"what": "noted"}, float(audit.noted))]
    about = "Records that are not on disk yet; noted are those that no release waits for."
    yield Metric(name="audit_lag_records", kind="gauge", about=about, values=lag)
    lost = [(_NONE, float(audit.lost))]
    yield Metric(name="audit_lost_records", kind="gauge", about="Records that were only counted.", values=lost)
    vouched = 0 if last is None else last.checkpoint.head.seq
    behind = [(_NONE, float(max(0, audit.records - vouched)))]
    yield Metric(
        name="audit_unvouched_records", kind="gauge", about="Records after the last checkpoint.", values=behind
    )
    made = [] if last is None else [(_NONE, moment(last.checkpoint.time))]
    about = "When the last checkpoint was made, Unix time."
    yield Metric(name="audit_checkpoint_time_seconds", kind="gauge", about=about, values=made)
    rows = [(name, each) for name, each in books.copies.status().items()]
    up = [({"sink": name}, float(each.state != "failing")) for name, each in rows]
    yield Metric(name="audit_sink_up", kind="gauge", about="Whether a sink takes copies.", values=up)
    late = [({"sink": name}, float(max(0, audit.records - each.record))) for name, each in rows if _gets(running, name)]
    yield Metric(name="audit_sink_behind_records", kind="gauge", about="Records that a sink has not got.", values=late)


def _gets(running: Running, name: str) -> bool:
    return running.books.copies.config.sinks[name].send == "records"
