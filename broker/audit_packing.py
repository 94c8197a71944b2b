"""
Compresses earlier segments of the audit log, and says when each ended.

gzip, from the standard library: any machine can read it twenty years from now
(``zcat``), and a log of JSON lines full of hashes comes to about a third. The
plain file goes only when the compressed one is on the disk and was read back.
This module refuses to touch the current segment.
"""

import gzip
import itertools
import os
import zlib
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Final

from broker import audit_pages
from broker.audit_files import Files
from broker.core import chain
from broker.core.retention import Kept

_PIECE: Final = 1 << 20
_LEVEL: Final = 6
_GZIP: Final = 16 + zlib.MAX_WBITS
"""Has zlib write gzip's head and end, without a time."""

_FIRST_LINE: Final = 1 << 16
_SPARE: Final = 8 << 20
"""Bytes that are left free, whatever a compressed file may need."""


def earlier(directory: Path) -> list[Kept]:
    """
    Return every earlier segment with its last record, by the first record of the one after it; oldest first.

    What has no readable successor ends the list: nobody may remove what nobody can tell the end of.

    Raises:
        OSError: the directory cannot be read.

    """
    names = [each.name for each in audit_pages.listed(directory)]
    found: list[Kept] = []
    for name, following in itertools.pairwise(names):
        number = chain.number_of(name)
        with audit_pages.opened(directory, following) as file:
            first = chain.read_segment(file.readline(_FIRST_LINE).rstrip(b"\n"))
        if number is None or first is None:
            break
        found.append(Kept(number=number, last=first.seq - 1, ended=chain.moment(first.time)))
    return found


def unpacked(directory: Path, *, least: int) -> list[str]:
    """
    Return the names of the earlier segments that are worth compressing and are not, oldest first.

    A short one stays as it is, so that whoever looks for something with ``grep`` finds it.

    Raises:
        OSError: the directory cannot be read.

    """
    names = chain.in_order(path.name for path in directory.iterdir())
    plain = [name for name in names if name != chain.CURRENT and not name.endswith(chain.PACKED)]
    return [name for name in plain if (directory / name).lstat().st_size >= least]


def pack(directory: Path, name: str, files: Files) -> None:
    """
    Compress one earlier segment in the place of the plain file.

    Raises:
        OSError: the disk says no; the plain file is still there.

    """
    packed = directory / f"{name}{chain.PACKED}"
    new = packed.with_suffix(".new")
    files.remove(new)
    if files.free(directory) < (directory / name).stat().st_size // 2 + _SPARE:
        raise OSError(28, os.strerror(28))
    descriptor = files.create(new)
    try:
        try:
            digest = _compress(directory, name, descriptor, files)
            files.sync(descriptor)
        finally:
            os.close(descriptor)
        if _digest(new) != digest:
            raise OSError(5, "the compressed segment is not what was written")
        files.rename(new, packed)
    except OSError:
        files.remove(new)
        raise
    files.sync_directory(directory)
    files.remove(directory / name)
    files.sync_directory(directory)


def remove(directory: Path, number: int, files: Files) -> None:
    """Remove an earlier segment, however it is stored. Raises ``OSError``."""
    name = chain.archived(number)
    files.remove(directory / name)
    files.remove(directory / f"{name}{chain.PACKED}")
    files.sync_directory(directory)


def _compress(directory: Path, name: str, descriptor: int, files: Files) -> str:
    """Write a segment compressed; return the digest of what it holds."""
    digest = sha256()
    # A GzipFile whose write has failed writes its end once more when it is collected: by then the number of the
    # descriptor may be another file's. This one writes when it is told to.
    compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    with audit_pages.opened(directory, name) as plain:
        while piece := plain.read(_PIECE):
            digest.update(piece)
            _write(files, descriptor, compressor.compress(piece))
    _write(files, descriptor, compressor.flush())
    return digest.hexdigest()


def _write(files: Files, descriptor: int, content: bytes) -> None:
    """Hand all of it to the disk."""
    while content:
        taken = files.write(descriptor, content)
        if not taken:
            raise OSError(28, os.strerror(28))
        content = content[taken:]


def _digest(path: Path) -> str:
    digest = sha256()
    for piece in _pieces(path):
        digest.update(piece)
    return digest.hexdigest()


def _pieces(path: Path) -> Iterator[bytes]:
    try:
        with gzip.open(path, "rb") as file:
            while piece := file.read(_PIECE):
                yield piece
    except (EOFError, ValueError, gzip.BadGzipFile):
        return
