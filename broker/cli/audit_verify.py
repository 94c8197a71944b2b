"""
``audit verify`` and ``audit checkpoint``: is the log what was written, and what says so.

This module refuses to call a log intact without saying how much of it nobody
else vouches for.
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from broker import audit_keys
from broker.cli import options, show
from broker.cli.audit_log import AskedLog, Log, lines, written
from broker.cli.audit_source import chosen, from_directory
from broker.cli.show import Cell
from broker.client import Where
from broker.core import checkpoint as c
from broker.core.chain import Head
from broker.core.findings import Report
from broker.core.verification import look_again, split
from broker.core.verification import verify as judged
from broker.core.vouching import Expected
from broker.errors import MEANINGS, RequestError

_LONGEST: Final = 64 << 20
_HEX: Final = 64


@click.command()
@click.option("--partial", is_flag=True, help="Earlier segments are kept elsewhere, so their absence is no finding.")
@click.option(
    "--expect",
    metavar="CHECKPOINT",
    multiple=True,
    help="What was kept elsewhere: a file with checkpoints, - for stdin, or RECORDS:SHA256 of a head. Repeatable.",
)
@from_directory
@options.as_json
@options.which_broker
def verify(*, where: Where, path: Path | None, partial: bool, expect: tuple[str, ...], as_json: bool) -> int:
    """
    Verify the chain and its checkpoints: that no record was changed, taken out, put in, moved or written anew.

    The first bad line is named, and the status is 5. What the broker itself
    declared, such as a line that a crash tore, is a notice and no failure.
    """
    kept = [each for text in expect for each in _expected(text)]
    with chosen(where, path) as log:
        report = _verified(log, partial=partial, kept=kept)
    if as_json:
        show.as_json(_as_fields(report))
    else:
        _print(report)
    return 0 if report.intact else MEANINGS["integrity"].exit


def _verified(log: Log, *, partial: bool, kept: list[Expected]) -> Report:
    """Judge a log. One that is written to may get a new segment between two pages, so it is given another look."""
    report = _judged(log, partial=partial, kept=kept)
    if not report.intact and isinstance(log, AskedLog):
        time.sleep(0.5)
        report = _judged(log, partial=partial, kept=kept)
    return look_again(report, lines(log)) if report.strangers else report


def _judged(log: Log, *, partial: bool, kept: list[Expected]) -> Report:
    # What is not there yet when the log is read must not vouch for it.
    length = log.checkpoints()
    notes = None if length is None else c.notes(split(written(log, c.FILE, length)))
    return judged(lines(log), partial=partial, notes=notes, expected=kept, signed=audit_keys.signed)


def _expected(text: str) -> Iterator[Expected]:
    """Yield what was kept elsewhere; raise ``RequestError`` where it is nothing of the kind."""
    records, _, digest = text.partition(":")
    if records.isdecimal() and len(digest) == _HEX:
        yield Expected(head=Head(seq=int(records), digest=digest.lower()))
        return
    found = list(_notes_in(_read(text)))
    if not found:
        message = f"{text} holds no checkpoint"
        raise RequestError(message, hint="mcp-broker audit checkpoint > FILE, on the host whose log it is")
    yield from (Expected(head=each.checkpoint.head, note=each) for each in found)


def _read(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read(_LONGEST)
    try:
        with Path(name).open("rb") as file:
            return file.read(_LONGEST)
    except OSError as error:
        message = f"{name}: {(error.strerror or 'cannot be read').lower()}"
        raise RequestError(message, hint="--expect FILE, or --expect RECORDS:SHA256") from None


def _notes_in(text: bytes) -> Iterator[c.Signed]:
    """Yield each checkpoint that stands in a text as it is, or as JSON on a line of some collector's log."""
    for note in c.notes(text.splitlines(keepends=True)):
        start = note.rfind(b"mcp-broker.audit/", 0, max(0, note.find(b"\ncheckpoint ")))
        if start >= 0 and (found := c.read(note[start:])) is not None:
            yield found
    for line in text.splitlines():
        start = line.find(b'{"checkpoint":')
        try:
            said = json.loads(line[start:]) if start >= 0 else {}
        except ValueError:
            continue
        if (found := c.read(str(said.get("note", "")).encode())) is not None:
            yield found


def _as_fields(report: Report) -> dict[str, object]:
    return {
        "intact": report.intact,
        "records": report.records,
        "first": None if report.first is None else report.first.time,
        "last": None if report.last is None else report.last.time,
        "head": None if report.head is None else {"seq": report.head.seq, "sha256": report.head.digest},
        "vouched": {"records": report.vouched, "by": report.by or None, "compared": report.compared},
        "findings": [
            {"kind": each.kind, "where": each.where, "alarm": each.alarm, "text": each.text} for each in report.findings
        ],
        "more": report.more,
    }


def _print(report: Report) -> None:
    for each in report.findings:
        show.line(
            Cell("broken" if each.alarm else "notice", "bold red" if each.alarm else "yellow"),
            f"  {each.where}: {each.kind}: {each.text}",
        )
    if report.more:
        show.line(f"        and {report.more} more")
    span = f", {report.first.time} to {report.last.time}" if report.first and report.last else ""
    if report.intact:
        show.line(Cell("intact", "bold green"), f"  {report.records} records{span}")
    else:
        show.line(Cell("not intact", "bold red"), f"  {report.records} records{span}")
    if report.head is not None:
        # To be compared with one that was kept elsewhere: what is cut off at the end shows in no other way.
        show.line(Cell("head", "dim"), f"    {report.head.seq}:{report.head.digest}")
        _say_what_cannot_be_found(report)


def _say_what_cannot_be_found(report: Report) -> None:
    """Say how much of the log could be written anew by somebody who has the host today, and nobody would see it."""
    last = 0 if report.head is None else report.head.seq
    if report.by:
        show.line(Cell("vouched", "dim"), f" up to record {report.vouched}, by {report.by}")
    else:
        show.line(Cell("vouched", "dim"), " by no checkpoint")
    if report.vouched < last and report.intact:
        text = f"the {last - report.vouched} records" if last - report.vouched > 1 else "the record"
        show.line(Cell("unseen", "dim"), f"  a change from record {report.vouched + 1} on, or {text} cut off")
    if not report.compared:
        text = "a log whose checkpoints were all made anew as well: compare with one that was kept elsewhere (--expect)"
        show.line(Cell("unseen", "dim"), f"  {text}")


@click.command()
@options.as_json
@options.which_broker
def checkpoint(*, where: Where, as_json: bool) -> None:
    """
    Make a checkpoint now and print it, to be kept on another host.

        mcp-broker audit checkpoint > here.checkpoint
        mcp-broker audit verify --expect here.checkpoint
    """
    with options.admin(where) as client:
        found = client.call("audit/checkpoint")
    if as_json:
        show.as_json(found)
    else:
        click.echo(found["note"], nl=False)
