"""
The parameters and results of the verbs for the audit log, as they stand on the wire.

Like ``broker.api.messages``, this module holds types alone.
"""

from typing import Annotated

from msgspec import Meta

from broker.api.words import Params, Result

_LONGEST_FILE = 1 << 43
"""Bytes. No file of ours is longer, and file systems refuse to look further than they can hold."""


class Segment(Result):
    """One file of the audit log."""

    name: str
    bytes: int
    current: bool


class Segments(Result):
    """The files of the audit log, oldest first, and how long that of its checkpoints is."""

    segments: list[Segment]
    checkpoints: int | None = None


class AuditRead(Params):
    """Which part of which file; ``limit`` in bytes."""

    segment: Annotated[str, Meta(max_length=64, pattern=r"^(audit(-[0-9]+)?\.jsonl|checkpoints)$(?!\n)")]
    offset: Annotated[int, Meta(ge=0, le=_LONGEST_FILE)] = 0
    limit: Annotated[int, Meta(ge=1, le=524288)] = 262144


class AuditText(Result):
    """Whole lines from ``offset`` on; ``next`` is where to go on, ``end`` whether that is the end for now."""

    text: str
    next: int
    end: bool


class Checkpoint(Result):
    """A checkpoint of the audit log: which, of how many records, and the signed note, to be kept elsewhere."""

    checkpoint: int
    records: int
    head: str
    time: str
    note: str


class Metrics(Result):
    """What is counted, in the text format of Prometheus; over HTTP as that text itself."""

    text: str


class SinkRow(Result):
    """One place that copies go to, and how far it has come; ``behind`` is the records that it has not got yet."""

    name: str
    type: str
    send: str
    required: bool
    state: str
    detail: str
    hint: str | None
    checkpoint: int
    record: int
    behind: int


class AuditState(Result):
    """How the audit log is; ``vouched`` is the last record that a checkpoint covers."""

    state: str
    detail: str
    hint: str | None
    segment: str
    records: int
    waiting: int
    checkpoint: int
    checkpoint_at: str | None
    vouched: int
    sinks: list[SinkRow]
