"""
The few calls by which the audit log touches a disk.

They stand behind a protocol so that a test can put a disk in their place that
fails in a way that no real one can be talked into. This module refuses to
decide anything: it calls the kernel and lets its errors out.
"""

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Final, Protocol, final

_FULL_SYNC: Final = getattr(fcntl, "F_FULLFSYNC", None)


class Files(Protocol):
    """What the audit log asks of a disk. Every method may raise ``OSError``, block for ever, or lie."""

    def create(self, path: Path) -> int:
        """Make a new file that only its owner can read, open for appending, and return its descriptor."""
        ...

    def append_to(self, path: Path) -> int:
        """Open an existing file for appending; a symbolic link is refused."""
        ...

    def write(self, descriptor: int, text: bytes) -> int:
        """Append, and return how much of ``text`` was taken."""
        ...

    def sync(self, descriptor: int) -> None:
        """Return when what was written is on the disk."""
        ...

    def sync_directory(self, path: Path) -> None:
        """Return when the names in a directory are on the disk."""
        ...

    def stat(self, path: Path) -> os.stat_result:
        """Say what is at ``path``, without following a link."""
        ...

    def rename(self, old: Path, new: Path) -> None:
        """Give a file another name."""
        ...

    def destroy(self, path: Path) -> None:
        """Overwrite a small file and remove it; one that is gone is fine."""
        ...

    def remove(self, path: Path) -> None:
        """Remove a file; one that is gone is fine."""
        ...

    def free(self, path: Path) -> int:
        """Return how many bytes can still be written."""
        ...


@final
class Disk:
    """The real one."""

    __slots__ = ()

    def create(self, path: Path) -> int:
        """See ``Files``. The mode is right from the first moment: it is given with the name."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def append_to(self, path: Path) -> int:
        """See ``Files``."""
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)

    def write(self, descriptor: int, text: bytes) -> int:
        """See ``Files``."""
        return os.write(descriptor, text)

    def sync(self, descriptor: int) -> None:
        """See ``Files``. On macOS ``fsync`` stops at the drive's cache; ``F_FULLFSYNC`` does not."""
        if _FULL_SYNC is not None:
            fcntl.fcntl(descriptor, _FULL_SYNC)
        else:
            os.fdatasync(descriptor)

    def sync_directory(self, path: Path) -> None:
        """See ``Files``."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def stat(self, path: Path) -> os.stat_result:
        """See ``Files``."""
        return os.lstat(path)

    def rename(self, old: Path, new: Path) -> None:
        """See ``Files``."""
        os.rename(old, new)  # noqa: PTH104

    def destroy(self, path: Path) -> None:
        """See ``Files``. Zeros first: on a file system that writes in place the old bytes are gone with them."""
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                os.pwrite(descriptor, bytes(os.fstat(descriptor).st_size), 0)
                self.sync(descriptor)
            finally:
                os.close(descriptor)
            path.unlink()

    def remove(self, path: Path) -> None:
        """See ``Files``."""
        path.unlink(missing_ok=True)

    def free(self, path: Path) -> int:
        """See ``Files``. What is kept back for root does not count, because the broker is not root."""
        room = os.statvfs(path)
        return room.f_bavail * room.f_frsize
