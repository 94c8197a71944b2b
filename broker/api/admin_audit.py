"""
The verbs for admins that are about the audit log: its files, a checkpoint, how it is.

This module refuses to change a record.
"""

import asyncio

from broker.api import audit_messages as a
from broker.api import messages as m
from broker.api.workload import Caller
from broker.core import chain
from broker.running import Running


def audit_state(running: Running) -> m.AuditState:
    """Return how the log is, for ``status``."""
    found = running.audit.state()
    return m.AuditState(
        state=found.state,
        detail=found.detail,
        hint=found.hint,
        segment=found.segment,
        records=found.records,
        waiting=found.waiting,
    )


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
