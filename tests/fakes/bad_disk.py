"""
A disk that fails on command, for what no real one can be talked into.

It is the real disk, with one call at a time made to fail, to take too little,
or to wait. This module refuses to guess what a kernel does: each of its tricks
was seen on a real disk first (ENOSPC after a part, EIO from a sync after which
the next succeeds, a call that does not return).
"""

import os
from pathlib import Path
from threading import Event
from typing import Final

from broker.audit_files import Disk

_PATIENCE: Final = 30.0


class BadDisk:
    """
    The disk, until told otherwise.

    Attributes:
        failing: names of calls and the errno that each of them has from now on.
        takes: the most bytes that a write takes from now on.
        open: cleared, it makes every write and sync wait until it is set.
        room: what ``free`` says, if not the truth.
        calls: the names of all calls so far.

    """

    def __init__(self) -> None:
        """Be well."""
        self._disk = Disk()
        self.failing: dict[str, int] = {}
        self.takes: int | None = None
        self.open = Event()
        self.open.set()
        self.room: int | None = None
        self.calls: list[str] = []

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name in self.failing:
            raise OSError(self.failing[name], os.strerror(self.failing[name]))

    def create(self, path: Path) -> int:
        """See ``Files``."""
        self._call("create")
        return self._disk.create(path)

    def append_to(self, path: Path) -> int:
        """See ``Files``."""
        self._call("append_to")
        return self._disk.append_to(path)

    def write(self, descriptor: int, text: bytes) -> int:
        """See ``Files``."""
        assert self.open.wait(_PATIENCE)
        self._call("write")
        return self._disk.write(descriptor, text[: self.takes])

    def sync(self, descriptor: int) -> None:
        """See ``Files``."""
        assert self.open.wait(_PATIENCE)
        self._call("sync")
        self._disk.sync(descriptor)

    def sync_directory(self, path: Path) -> None:
        """See ``Files``."""
        self._call("sync_directory")
        self._disk.sync_directory(path)

    def stat(self, path: Path) -> os.stat_result:
        """See ``Files``."""
        self._call("stat")
        return self._disk.stat(path)

    def rename(self, old: Path, new: Path) -> None:
        """See ``Files``."""
        self._call("rename")
        self._call(f"rename to {new.name}")
        self._disk.rename(old, new)

    def destroy(self, path: Path) -> None:
        """See ``Files``."""
        self._call("destroy")
        self._disk.destroy(path)

    def remove(self, path: Path) -> None:
        """See ``Files``."""
        self._call("remove")
        self._disk.remove(path)

    def free(self, path: Path) -> int:
        """See ``Files``."""
        self._call("free")
        return self._disk.free(path) if self.room is None else self.room
