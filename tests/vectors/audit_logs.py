"""
Audit logs as a broker writes them, and what somebody might do to them.

This module refuses to say what verification should find: ``make_audit`` does.
"""

from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Final

from broker.core import chain

BEGAN: Final = 1_790_000_000.0

Files = dict[str, bytes]


class Writer:
    """Writes segments as a broker would whose clock ticks once a record."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.head = chain.GENESIS
        self.files: Files = {}
        self.segment = 0
        self.now = BEGAN

    def body(self, event: str, fields: Mapping[str, object]) -> bytes:
        """Return a record of the next second."""
        self.now += 1
        return chain.body(self.now, event, fields)

    def begin(self, why: str, **fields: object) -> None:
        """Keep the current segment under its number and begin a new one."""
        if chain.CURRENT in self.files:
            self.files[chain.archived(self.segment)] = self.files.pop(chain.CURRENT)
        self.segment += 1
        said = {"format": 1, "segment": self.segment, "why": why, "unacknowledged": 0} | fields
        text, self.head = chain.extend(self.head, [self.body(chain.SEGMENT, said)])
        self.files[chain.CURRENT] = text

    def issue(self, count: int, *, acknowledged: bool = True) -> None:
        """Append records; the head stays where it is for those that nobody was told of."""
        records = [
            self.body("credential/authorised", {"uid": 1000, "server": "github", "secret": "github", "version": number})
            for number in range(1, count + 1)
        ]
        text, head = chain.extend(self.head, records)
        self.files[chain.CURRENT] += text
        if acknowledged:
            self.head = head


def lines(text: bytes) -> list[bytes]:
    """Return lines with their newline."""
    return text.splitlines(keepends=True)


def log(*counts: int) -> Files:
    """Return an undamaged log whose segments hold so many records after their first."""
    writer = Writer()
    for number, count in enumerate(counts):
        writer.begin("size" if number else "first")
        writer.issue(count)
    return writer.files


def changed(files: Files, name: str, change: Callable[[list[bytes]], list[bytes]]) -> Files:
    """Return the log with one segment's lines changed."""
    return files | {name: b"".join(change(lines(files[name])))}


def swap(number: int, old: bytes, new: bytes) -> Callable[[list[bytes]], list[bytes]]:
    """Return a change that replaces something in one line, counted from 1."""

    def change(found: list[bytes]) -> list[bytes]:
        assert old in found[number - 1]
        return [*found[: number - 1], found[number - 1].replace(old, new, 1), *found[number:]]

    return change


def put(number: int, *new: bytes) -> Callable[[list[bytes]], list[bytes]]:
    """Return a change that puts lines in before the one with this number, counted from 1."""
    return lambda found: [*found[: number - 1], *new, *found[number - 1 :]]


def without(low: int, high: int) -> Callable[[list[bytes]], list[bytes]]:
    """Return a change that takes lines out, counted from 1, both ends included."""
    return lambda found: [*found[: low - 1], *found[high:]]


def forged(files: Files, number: int) -> bytes:
    """Return a line that hangs rightly on the one before the line with this number."""
    before = lines(files[chain.CURRENT])[number - 2][:-1]
    link = chain.read(before)
    assert link is not None
    return (
        chain.line(
            link.seq + 1,
            sha256(before).hexdigest(),
            chain.body(BEGAN, "credential/authorised", {"uid": 0, "secret": "github"}),
        )
        + b"\n"
    )


def outage(
    written: int, declared: int, *, why: str = "error", rest: bytes = b"", then: int = 2, **fields: object
) -> Files:
    """Return a log whose disk failed: some records and a rest were written, and the next segment says how many."""
    writer = Writer()
    writer.begin("first")
    writer.issue(3)
    writer.issue(written, acknowledged=False)
    writer.files[chain.CURRENT] += rest
    writer.begin(why, unacknowledged=declared, **fields)
    writer.issue(then)
    return writer.files


def twice_failed() -> Files:
    """Return a log in which the segment after an outage could not be acknowledged either."""
    writer = Writer()
    writer.begin("first")
    writer.issue(3)
    writer.issue(2, acknowledged=False)
    held = writer.head
    writer.begin("error", unacknowledged=2, detail="no space left on device")
    writer.head = held
    writer.begin("error", unacknowledged=3, detail="no space left on device")
    writer.issue(2)
    return writer.files


def rewritten() -> Files:
    """Return a log in which somebody changed a record and hashed everything after it anew."""
    found = log(4)[chain.CURRENT].replace(b'"uid":1000', b'"uid":1001', 1)
    records = [b"{" + old[:-1].split(b'",', 1)[1] for old in lines(found)]
    return {chain.CURRENT: chain.extend(chain.GENESIS, records)[0]}


def cut(files: Files) -> Files:
    """Return the log without the last 20 bytes."""
    return files | {chain.CURRENT: files[chain.CURRENT][:-20]}


def renamed() -> Files:
    """Return a log of which two segments have changed names."""
    files = log(2, 2, 2)
    one, two = chain.archived(1), chain.archived(2)
    return files | {one: files[two], two: files[one]}


def loose() -> bytes:
    """Return a line with the number 4 that hangs on nothing."""
    return chain.line(4, "b" * 64, chain.body(BEGAN, "credential/authorised", {"uid": 0, "secret": "github"})) + b"\n"
