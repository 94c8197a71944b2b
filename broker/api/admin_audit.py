"""
The verbs for admins that are about the audit log: its files, a checkpoint, how it is.

This module refuses to change a record.
"""

import asyncio
from collections.abc import Iterator

from broker.api import audit_messages as a
from broker.api import messages as m
from broker.api.workload import Caller
from broker.core import chain
from broker.running import Running


def audit_state(running: Running) -> a.AuditState:
    """Return how the log is, for ``status``."""
    found, last = running.audit.state(), running.books.upkeep.last
    return a.AuditState(
        state=found.state,
        detail=found.detail,
        hint=found.hint,
        segment=found.segment,
        records=found.records,
        waiting=found.waiting,
        checkpoint=0 if last is None else last.checkpoint.number,
        checkpoint_at=None if last is None else last.checkpoint.time,
        vouched=0 if last is None else last.checkpoint.head.seq,
        sinks=list(_sinks(running, found.records)),
    )


def _sinks(running: Running, records: int) -> Iterator[a.SinkRow]:
    copies = running.books.copies
    for name, status in copies.status().items():
        sink = copies.config.sinks[name]
        yield a.SinkRow(
            name=name,
            type=sink.type,
            send=sink.send,
            required=name in copies.config.required,
            state=status.state,
            detail=status.detail,
            hint=status.hint,
            checkpoint=status.checkpoint,
            record=status.record,
            behind=max(0, records - status.record) if sink.send == "records" else 0,
        )


def audit_problems(running: Running) -> Iterator[m.Problem]:
    """Yield what is wrong with the log and with what goes with it."""
    found, books = running.audit.state(), running.books
    if found.state != "ok":
        yield m.Problem(text=f"audit log: {found.detail or found.state}", hint=found.hint)
    if books.upkeep.trouble:
        yield m.Problem(text=f"audit log: {books.upkeep.trouble}", hint=books.upkeep.hint)
    for name, each in books.copies.status().items():
        if each.state == "failing":
            yield m.Problem(text=f"copies to {name}: {each.detail}", hint=each.hint)
    if books.alarms.trouble:
        yield m.Problem(text=f"notify: {books.alarms.trouble}", hint="mcp-broker check")


async def segments(running: Running, _: Caller, __: m.Nothing) -> a.Segments:
    """Return the files of the audit log, oldest first."""
    found = await asyncio.to_thread(running.books.pages.segments)
    return a.Segments(
        segments=[a.Segment(name=each.name, bytes=each.length, current=each.name == chain.CURRENT) for each in found],
        checkpoints=await asyncio.to_thread(running.books.pages.checkpoints),
    )


async def read(running: Running, _: Caller, params: a.AuditRead) -> a.AuditText:
    """Return whole lines of one file of the audit log; what is not UTF-8 in it is shown as escapes."""
    found = await asyncio.to_thread(running.books.pages.page, params.segment, params.offset, params.limit)
    return a.AuditText(text=found.text.decode("utf-8", "backslashreplace"), next=found.next, end=found.end)


async def checkpoint(running: Running, _: Caller, __: m.Nothing) -> a.Checkpoint:
    """Make a checkpoint of all that is recorded now, and return it to be kept elsewhere."""
    made = await running.books.upkeep.checkpoint()
    return a.Checkpoint(
        checkpoint=made.checkpoint.number,
        records=made.checkpoint.head.seq,
        head=made.checkpoint.head.digest,
        time=made.checkpoint.time,
        note=made.note.decode(),
    )
