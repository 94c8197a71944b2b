"""
What an audit log needs before its first record: its directory, its lock, its key.

Everything here may block for as long as the disk does. This module refuses a
directory that others can write to, and to share it with another broker.
"""

import errno
import fcntl
import os
import secrets
from pathlib import Path
from typing import Final, final

from broker.audit_files import Files

_KEY_BYTES: Final = 32
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

    def __init__(self, detail: str, *, hint: str, why: str = "error", locked: bool = False) -> None:
        """Say what was seen."""
        super().__init__(detail)
        self.why = why
        self.detail = detail
        self.hint = hint
        self.locked = locked


@final
class Home:
    """The directory of one audit log."""

    def __init__(self, directory: Path, *, files: Files) -> None:
        """Touch nothing yet."""
        self.directory = directory
        self._files = files
        self._lock: int | None = None
        self.key: bytes | None = None
        self.fresh = False

    def prepare(self) -> None:
        """
        Have the directory, the lock and the key as they have to be; what has been taken away is put back.

        ``fresh`` says afterwards whether this broker made the key: where it did not and
        there are no records, somebody took them.

        Raises:
            SegmentError: others can write here, or another broker does.
            OSError: the disk says no.

        """
        self._make()
        if self._files.stat(self.directory).st_mode & 0o022:
            detail = "others can write to the directory of the audit log"
            raise SegmentError(detail, hint=f"chmod 700 {self.directory}")
        self._take_lock()
        self._take_key()

    def close(self) -> None:
        """Let go of the lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _make(self) -> None:
        """Make what is missing, each directory closed to others from its first moment."""
        missing = [path for path in (self.directory, *self.directory.parents) if not path.exists()]
        for path in reversed(missing):
            path.mkdir(mode=0o700, exist_ok=True)
            self._files.sync_directory(path.parent)

    def _take_lock(self) -> None:
        """Hold the lock on the file that has the name now: a directory that was replaced has another one."""
        path = self.directory / _LOCK
        if self._lock is not None and path.exists() and os.path.samestat(os.fstat(self._lock), path.stat()):
            return
        self.close()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            detail = "another broker is writing this audit log"
            raise SegmentError(detail, hint=f"fuser -v {path}", locked=True) from None
        self._lock = descriptor

    def _take_key(self) -> None:
        """Read the key for fingerprints, or make one; one that is in use survives the loss of its file."""
        path = self.directory / _KEY
        if not path.exists():
            self._write_key(path, self.key or secrets.token_bytes(_KEY_BYTES))
        key = path.read_bytes()
        if len(key) != _KEY_BYTES:
            detail = f"the key for fingerprints has {len(key)} bytes instead of {_KEY_BYTES}"
            raise SegmentError(detail, hint=f"rm {path}  # fingerprints will differ from now on")
        self.key = self.key or key

    def _write_key(self, path: Path, key: bytes) -> None:
        new = path.with_suffix(".new")
        new.unlink(missing_ok=True)
        self.fresh = self.key is None
        descriptor = self._files.create(new)
        try:
            if self._files.write(descriptor, key) != len(key):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._files.sync(descriptor)
        finally:
            os.close(descriptor)
        self._files.rename(new, path)
        self._files.sync_directory(path.parent)
