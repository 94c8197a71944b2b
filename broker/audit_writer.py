"""
The audit log's files, as the one thread that writes them sees them.

Every method may block for as long as the disk does, so none is called from the
event loop. The caller owns the chain: it says after which acknowledged record
to go on, and a record counts only once the caller has taken the answer. This
module refuses to write again to a file that a write or a sync has failed on.
"""

import fcntl
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from stat import S_ISREG
from typing import Final, final

from broker.audit_files import Files
from broker.core import chain

_TAIL: Final = 1 << 20
_HEAD: Final = 1 << 14
_KEY_BYTES: Final = 32
_NEW: Final = "audit.jsonl.new"
_LOCK: Final = "lock"
_KEY: Final = "fingerprint.key"


class SegmentError(Exception):
    """
    The current segment can no longer be written to, or none can be begun.

    Attributes:
        why: what the first record of the next segment says (``chain.SegmentLink``).
        detail: for a person, lower case, no full stop.
        hint: the command that shows or mends it.
        locked: whether another broker holds this log.

    """

    def __init__(self, why: str, detail: str, *, hint: str, locked: bool = False) -> None:
        """Say what was seen."""
        super().__init__(detail)
        self.why = why
        self.detail = detail
        self.hint = hint
        self.locked = locked


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """
    What is on disk now.

    Attributes:
        head: the last record.
        size: bytes in the current segment.
        free: bytes that the disk still has room for.
        damaged: what does not verify in the records that were there before, for a person; empty where all does.

    """

    head: chain.Head
    size: int
    free: int
    damaged: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What an earlier broker left: where its chain ends, in which segment, and why a new one has to begin, if so."""

    head: chain.Head
    segment: int
    why: str
    detail: str = ""
    cut: bytes = b""


@final
class Journal:
    """The files of one audit log. One thread at a time."""

    def __init__(self, directory: Path, *, files: Files, clock: Callable[[], float]) -> None:
        """Touch nothing yet."""
        self._directory = directory
        self._files = files
        self._clock = clock
        self._current = directory / chain.CURRENT
        self._descriptor: int | None = None
        self._lock: int | None = None
        self._identity = (0, 0)
        self._size = 0
        self._free = 0
        self._segment = 0
        self._produced: chain.Head | None = None
        self._unacknowledged = 0
        self.key: bytes | None = None

    def start(self) -> Written:
        """
        Find what is there and get ready to go on after its last good record.

        Raises:
            SegmentError: it cannot be written to. Calling again is how to find out that it can.

        """
        try:
            self._prepare()
            found = self._find()
            if not found.why:
                self._adopt(found)
                opened = chain.body(self._clock(), chain.OPENED, {})
                return self.append(found.head, [opened])
            self._segment = found.segment
            fields: dict[str, object] = {"detail": found.detail or None}
            if found.cut:
                fields |= {"cut_bytes": len(found.cut), "cut_sha256": sha256(found.cut).hexdigest()}
            written = self._begin(found.head, found.why, fields)
            if found.cut:
                self._cut(len(found.cut))
        except OSError as error:
            raise self._failed(error) from None
        return Written(
            head=written.head,
            size=written.size,
            free=written.free,
            damaged=found.detail if found.why == "damaged" else "",
        )

    def resume(self, head: chain.Head, why: str, fields: dict[str, object]) -> Written:
        """Begin a new segment after ``head``, the last record that the caller acknowledged."""
        try:
            self._prepare()
            return self._begin(head, why, fields)
        except OSError as error:
            raise self._failed(error) from None

    def roll(self, head: chain.Head) -> Written:
        """Begin a new segment because this one is long enough; where that fails, stay with this one."""
        try:
            return self._begin(head, "size", {})
        except OSError:
            return self._written(head)

    def append(self, head: chain.Head, records: Sequence[bytes]) -> Written:
        """
        Write records (of ``chain.body``) after ``head`` and wait until they are on the disk.

        Raises:
            SegmentError: they may or may not be. The file must not be written to again.

        """
        if self._descriptor is None:
            raise self._failed(FileNotFoundError())
        self._acknowledge(head)
        text, head = chain.extend(head, records)
        self._unacknowledged += len(records)
        try:
            taken = self._files.write(self._descriptor, text)
            if taken != len(text):
                raise self._short(taken, len(text))
            self._files.sync(self._descriptor)
        except OSError as error:
            raise self._failed(error) from None
        self._size += len(text)
        self._look()
        self._produced = head
        return self._written(head)

    def inspect(self, head: chain.Head) -> Written:
        """Make sure that the file which readers see is still the one that is written to, as it was left."""
        self._look()
        try:
            self._free = self._files.free(self._directory)
        except OSError as error:
            raise self._failed(error) from None
        return self._written(head)

    def close(self) -> None:
        """Let go of the files and of the lock."""
        for descriptor in (self._descriptor, self._lock):
            if descriptor is not None:
                os.close(descriptor)
        self._descriptor = self._lock = None

    # -- the current segment -------------------------------------------------

    def _written(self, head: chain.Head) -> Written:
        return Written(head=head, size=self._size, free=self._free)

    def _acknowledge(self, head: chain.Head) -> None:
        """Learn whether the caller took the last answer: it goes on after it, or after what was before."""
        if head == self._produced:
            self._unacknowledged = 0

    def _look(self) -> None:
        try:
            seen = self._files.stat(self._current)
        except FileNotFoundError:
            raise self._lost("missing", "the current segment is gone") from None
        except OSError as error:
            raise self._failed(error) from None
        if (seen.st_dev, seen.st_ino) != self._identity:
            raise self._lost("replaced", "another file stands in the place of the current segment")
        if seen.st_size < self._size:
            raise self._lost("truncated", f"the current segment has {seen.st_size} bytes and was left with {self._size}")
        if seen.st_size > self._size:
            raise self._lost("appended", f"the current segment has {seen.st_size} bytes and was left with {self._size}")

    def _begin(self, head: chain.Head, why: str, fields: dict[str, object]) -> Written:
        """
        Write the first record of a new segment, then put it in the place of the current one.

        The new file is complete and on the disk before any name changes, so
        that a disk with no room for it leaves everything as it was.
        """
        self._acknowledge(head)
        keep, number = self._numbers()
        new = self._directory / _NEW
        new.unlink(missing_ok=True)
        first = {"format": chain.FORMAT, "segment": number, "why": why, "unacknowledged": self._unacknowledged} | fields
        text, after = chain.extend(head, [chain.body(self._clock(), chain.SEGMENT, first)])
        descriptor = self._files.create(new)
        try:
            if self._files.write(descriptor, text) != len(text):
                raise OSError(28, "no room for the first record of a new segment")  # noqa: TRY301
            self._files.sync(descriptor)
            free = self._files.free(self._directory)
            if keep is not None:
                self._files.rename(self._current, self._directory / keep)
            self._unacknowledged += 1
            self._files.rename(new, self._current)
            self._files.sync_directory(self._directory)
            seen = os.fstat(descriptor)
        except OSError:
            os.close(descriptor)
            raise
        old, self._descriptor = self._descriptor, descriptor
        if old is not None:
            os.close(old)
        self._identity = (seen.st_dev, seen.st_ino)
        self._size, self._free, self._segment, self._produced = len(text), free, number, after
        return self._written(after)

    def _numbers(self) -> tuple[str | None, int]:
        """Return the name under which to keep what is at the current name, if anything is, and the next number."""
        taken = {number for name in os.listdir(self._directory) if (number := chain.number_of(name)) is not None}  # noqa: PTH208
        highest = max(taken, default=0)
        try:
            self._files.stat(self._current)
        except FileNotFoundError:
            return None, max(self._segment, highest) + 1
        own = self._segment if self._segment > highest else highest + 1
        return chain.archived(own), own + 1

    # -- what is there at the start ------------------------------------------

    def _prepare(self) -> None:
        """Have the directory, the lock and the key, as they have to be."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._files.stat(self._directory).st_mode & 0o022:
            detail = "others can write to the directory of the audit log"
            raise SegmentError("error", detail, hint=f"chmod 700 {self._directory}")
        self._take_lock()
        self._take_key()

    def _take_lock(self) -> None:
        path = self._directory / _LOCK
        if self._lock is not None:
            held = os.fstat(self._lock)
            if path.exists() and os.path.samestat(held, path.stat()):
                return
            os.close(self._lock)
            self._lock = None
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            detail = "another broker is writing this audit log"
            raise SegmentError("error", detail, hint=f"fuser -v {path}", locked=True) from None
        self._lock = descriptor

    def _take_key(self) -> None:
        """Read the key for fingerprints, or make one; one that is in use survives the loss of its file."""
        path = self._directory / _KEY
        if not path.exists():
            self._write_key(path, self.key or secrets.token_bytes(_KEY_BYTES))
        key = path.read_bytes()
        if len(key) != _KEY_BYTES:
            detail = f"the key for fingerprints has {len(key)} bytes instead of {_KEY_BYTES}"
            raise SegmentError("error", detail, hint=f"rm {path}  # fingerprints from now on will differ")
        self.key = self.key or key

    def _write_key(self, path: Path, key: bytes) -> None:
        new = path.with_suffix(".new")
        new.unlink(missing_ok=True)
        descriptor = self._files.create(new)
        try:
            if os.write(descriptor, key) != len(key):
                raise OSError(28, "no room for the key for fingerprints")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._files.rename(new, path)
        self._files.sync_directory(path.parent)

    def _find(self) -> Found:
        """Return where the chain ends, and why that segment cannot be gone on with, if it cannot."""
        names = chain.in_order(os.listdir(self._directory))  # noqa: PTH208
        if not names:
            return Found(head=chain.GENESIS, segment=0, why="first")
        number = max((number for name in names if (number := chain.number_of(name)) is not None), default=0)
        why = "" if names[-1] == chain.CURRENT else "missing"
        empty, cut = "", b""
        for name in reversed(names):
            tail, first = self._tail(name)
            if name == names[-1]:
                cut = tail.torn
            if name == chain.CURRENT:
                number = first.segment if first is not None else number + 1
            if tail.head is None:
                empty = empty or f"{name} holds no record"
                continue
            detail = empty or tail.broken
            if not detail and (first is None or first.format != chain.FORMAT):
                detail = f"{name} does not begin with a record that this version knows"
            if detail:
                why = "damaged"
            elif not why and (cut or tail.event != chain.CLOSED):
                why = "torn" if cut else "restart"
            return Found(head=tail.head, segment=number, why=why, detail=detail, cut=cut)
        return Found(head=chain.GENESIS, segment=number, why="damaged", detail=empty, cut=cut)

    def _tail(self, name: str) -> tuple[chain.Tail, chain.SegmentLink | None]:
        """Read the end of a segment, and its first record."""
        path = self._directory / name
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not S_ISREG(status.st_mode):
                return chain.last_good(b"", whole=True), None
            first, newline, _ = file.read(_HEAD).partition(b"\n")
            start = max(0, status.st_size - _TAIL)
            file.seek(start)
            tail = chain.last_good(file.read(status.st_size - start), whole=start == 0)
        return tail, chain.read_segment(first) if newline else None

    def _adopt(self, found: Found) -> None:
        """Go on in the segment that is there."""
        descriptor = self._files.append_to(self._current)
        seen = os.fstat(descriptor)
        os.fchmod(descriptor, 0o600)
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = descriptor
        self._identity = (seen.st_dev, seen.st_ino)
        self._size, self._segment = seen.st_size, found.segment
        self._free = self._files.free(self._directory)

    def _cut(self, length: int) -> None:
        """
        Cut a torn line off the segment before this one.

        The first record of this one already tells its length and its hash; where
        cutting fails, verification finds the torn line as it was told.
        """
        path = self._directory / chain.archived(self._segment - 1)
        try:
            os.truncate(path, path.stat().st_size - length)
        except OSError:
            return

    # -- errors --------------------------------------------------------------

    def _failed(self, error: OSError) -> SegmentError:
        reason = os.strerror(error.errno).lower() if error.errno else "it is not open"
        return SegmentError("error", reason, hint=f"df -h {self._directory}; ls -ld {self._directory}")

    def _short(self, taken: int, length: int) -> SegmentError:
        return SegmentError("error", f"the disk took {taken} of {length} bytes", hint=f"df -h {self._directory}")

    def _lost(self, why: str, detail: str) -> SegmentError:
        return SegmentError(why, detail, hint="mcp-broker audit verify")
