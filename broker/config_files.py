"""
Changing one file of the config: whole or not at all, and back again.

A file that is there keeps its mode and its owner, and a link stays one. This
module refuses to write what it has not been shown to be a valid config.
"""

import os
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from broker.config import load, loader
from broker.config.model import Config
from broker.errors import BrokerError, ConfigError
from broker.paths import Places

PARTS: Final = "broker.d"
MAIN: Final = "broker.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """
    One file of the config, as it is and as it is to be.

    Attributes:
        path: which.
        before: its text; None where there is none.
        after: what it is to be; empty to remove it.
        config: the whole config that this makes.

    """

    path: Path
    before: str | None
    after: str
    config: Config


def planned(places: Places, path: Path, after: str, *, expected: str | None) -> Change:
    """
    Return a change that makes a valid config.

    Args:
        places: of which broker.
        path: which file.
        after: its new text.
        expected: what it was when ``after`` was made of it.

    Raises:
        ConfigError: the config would not be valid.

    """
    return Change(path=path, before=expected, after=after, config=loader.load_drafts(places, {path: after}))


def part(places: Places, server: str) -> Path:
    """Return the file for a server of its own."""
    return places.config / PARTS / f"{server}.toml"


def text_of(path: Path) -> str | None:
    """Return the text of a file of the config; None where there is none."""
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError):
        message = f"{path}: cannot be read"
        raise ConfigError(message, hint=f"ls -l {path}") from None


def current(places: Places) -> Config:
    """Return the config as it is in the files."""
    return load(places)


def make(change: Change, places: Places) -> None:
    """
    Put a change on the disk.

    Raises:
        ConfigError: somebody else has changed the file in the meantime, or it cannot be written.

    """
    _write(change.path, change.before, change.after, places)


def unmake(change: Change, places: Places) -> None:
    """Put back what was there. Raises as ``make``."""
    _write(change.path, change.after or None, change.before or "", places)


def _write(path: Path, expected: str | None, text: str, places: Places) -> None:
    if text_of(path) != expected:
        message = f"{path} has changed in the meantime"
        raise ConfigError(message, hint=f"look into {path}, and try again")
    target = Path(os.path.realpath(path))
    try:
        if not text:
            target.unlink(missing_ok=True)
        else:
            _replace(target, text.encode(), places)
        _sync(target.parent)
    except OSError as error:
        message = f"{path}: {(error.strerror or 'cannot be written').lower()}"
        hint = "sudo, for the host's broker" if places.mode == "system" else f"ls -ld {path.parent}"
        raise BrokerError(message, hint=hint) from None


def _replace(target: Path, content: bytes, places: Places) -> None:
    model = target if target.exists() else places.config / MAIN
    if not target.parent.exists():
        target.parent.mkdir(mode=0o755 if places.mode == "system" else 0o700)
    draft = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            _as(model, file.fileno(), same=model == target, places=places)
            os.fsync(file.fileno())
        draft.replace(target)
    finally:
        with suppress(FileNotFoundError):
            draft.unlink()


def _as(model: Path, descriptor: int, *, same: bool, places: Places) -> None:
    """Give a new file the rights of the one that it replaces; in system mode those of the main one, else 0600."""
    if not model.exists() or not (same or places.mode == "system"):
        return
    status = model.stat()
    if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
        with suppress(PermissionError):
            os.fchown(descriptor, status.st_uid, status.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(status.st_mode))


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
