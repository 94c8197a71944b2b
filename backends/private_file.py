"""
Files that nobody but their owner may read.

It refuses to overwrite: a file is there whole under its name, or it is not, and
one that is there stays as it is. It also refuses to read what others could have
read before.
"""

import contextlib
import os
import secrets
import stat
from pathlib import Path
from typing import Final

from backends.base import LockedError, MisconfiguredError, UnavailableError

_LIMIT: Final = 64 * 1024


def create(path: Path, content: bytes, *, mode: int = 0o600, owner: tuple[int, int] | None = None) -> None:
    """
    Write a file that did not exist, durably and at once whole.

    It is written under another name that nobody else can open, and linked to
    its own when it is on disk. Raises ``FileExistsError``, and ``OSError`` for
    what the file system says.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if owner is not None:
                os.fchown(file.fileno(), *owner)
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.link(draft, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Put the names in a directory on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def put_in_place(fresh: Path, path: Path) -> None:
    """
    Give the file ``fresh`` the name ``path``, durably; what had that name is gone. Doing it twice is harmless.

    Raises ``UnavailableError``.
    """
    try:
        if fresh.exists():
            fresh.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        message = f"{fresh} cannot be put in the place of {path}: {error.strerror}"
        raise UnavailableError(message, hint=f"ls -ld {path.parent}") from None


def read(path: Path, what: str, *, hint: str) -> bytes:
    """
    Return the content of a file that is ours alone.

    Args:
        path: where it is; a symlink is followed.
        what: what it is, for the message.
        hint: what mends it where it is missing.

    Raises:
        LockedError: it is not there or cannot be read.
        MisconfiguredError: others can read or write it, it is somebody else's, or it is no plain file.

    """
    try:
        # Not to hang where somebody has put a FIFO.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        message = f"the {what} {path} is missing"
        raise LockedError(message, hint=hint) from None
    except OSError as error:
        message = f"the {what} {path} cannot be read: {error.strerror}"
        raise LockedError(message, hint=hint) from None
    with os.fdopen(descriptor, "rb") as file:
        _refuse_shared(os.fstat(descriptor), path, what)
        try:
            content = file.read(_LIMIT + 1)
        except OSError as error:
            message = f"the {what} {path} cannot be read: {error.strerror}"
            raise LockedError(message, hint=hint) from None
    if len(content) > _LIMIT:
        message = f"the {what} {path} is longer than {_LIMIT} bytes"
        raise MisconfiguredError(message)
    return content


def _refuse_shared(status: os.stat_result, path: Path, what: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        message = f"the {what} {path} is not a plain file"
        raise MisconfiguredError(message)
    if status.st_uid not in {os.geteuid(), 0}:
        message = f"the {what} {path} belongs to uid {status.st_uid}"
        raise MisconfiguredError(message, hint=f"chown {os.geteuid()} {path}")
    if stat.S_IMODE(status.st_mode) & 0o077:
        message = f"others than its owner have access to the {what} {path}"
        raise MisconfiguredError(message, hint=f"chmod 600 {path}")
