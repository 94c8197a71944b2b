"""
How far one sink has come, on disk: what it has taken is behind the cursor, so nothing is lost and some may come twice.

This module refuses to move a cursor that it cannot write; and a cursor of
another address is none.
"""

import os
from pathlib import Path

import msgspec

from broker.audit_files import Files


class Cursor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    Where a sink goes on.

    Attributes:
        address: of the sink that took it.
        checkpoint: the number of the last checkpoint that it has.
        segment: the segment that it is in, counted from 1; 0 for the beginning of the log.
        offset: bytes of that segment that it has.
        record: the number of the last record that it has.

    """

    address: str
    checkpoint: int = 0
    segment: int = 0
    offset: int = 0
    record: int = 0


def load(path: Path, address: str) -> Cursor:
    """Return the cursor of a sink; where there is none, or one of another address, everything is sent."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Cursor)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return Cursor(address=address)
    return found if found.address == address else Cursor(address=address)


def save(path: Path, cursor: Cursor, files: Files) -> None:
    """Put a cursor on the disk, in one step. Raises ``OSError``."""
    if not path.parent.is_dir():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.sync_directory(path.parent.parent)
    new = path.with_suffix(".new")
    files.remove(new)
    descriptor = files.create(new)
    try:
        content = msgspec.json.encode(cursor)
        if files.write(descriptor, content) != len(content):
            raise OSError(28, os.strerror(28))
        files.sync(descriptor)
    finally:
        os.close(descriptor)
    files.rename(new, path)
