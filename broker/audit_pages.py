"""
The audit log's files, for reading: page by page, so that a long one is never in memory.

Whoever reads gets the bytes as they are on the disk and verifies them with
``broker.core.chain``: this module refuses to judge them.
"""

from dataclasses import dataclass
from pathlib import Path

from broker.core import chain
from broker.errors import RequestError


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentFile:
    """One file of the log and how long it is now."""

    name: str
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Whole lines; ``next`` is the offset to go on at, ``end`` whether there are no more for now."""

    text: bytes
    next: int
    end: bool


def listed(directory: Path) -> list[SegmentFile]:
    """Return the segments, oldest first; none where there is no log yet."""
    found: list[SegmentFile] = []
    for name in chain.in_order(path.name for path in directory.glob("audit*.jsonl")):
        try:
            found.append(SegmentFile(name=name, length=(directory / name).stat().st_size))
        except FileNotFoundError:
            continue
    return found


def page(directory: Path, name: str, offset: int, limit: int) -> Page:
    """
    Return whole lines of a segment from ``offset`` on, about ``limit`` bytes of them.

    A line that is longer than that comes whole, and so does a torn last one
    when there is nothing else: what cannot be read by this cannot be verified.
    """
    try:
        with (directory / name).open("rb") as file:
            file.seek(offset)
            text = file.read(limit)
            complete = text.rfind(b"\n") + 1
            if complete:
                return Page(text=text[:complete], next=offset + complete, end=len(text) < limit)
            text += file.readline()
            return Page(text=text, next=offset + len(text), end=not text.endswith(b"\n"))
    except FileNotFoundError:
        message = f"there is no segment {name}"
        raise RequestError(message, hint="mcp-broker audit verify") from None
