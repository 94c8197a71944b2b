"""
The config's files: found, looked at, read.

This module refuses what is no plain file of a sensible size and what others
could have written. It never writes.
"""

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from broker.config import guard
from broker.config.problems import InvalidConfigError, Location, Problem
from broker.paths import Places

LARGEST: Final = 1 << 20
"""Bytes of one file: a thousand servers fit in."""

MAIN: Final = "broker.toml"
PARTS: Final = "broker.d"

Stamp = tuple[tuple[str, int, int, int], ...]
"""Path, inode, size and time of change of every file: another stamp means another config, perhaps."""


def find(places: Places) -> tuple[Path, ...]:
    """
    Return the files that there are: ``broker.toml``, then ``broker.d/*.toml`` by name.

    Raises:
        InvalidConfigError: a directory cannot be listed.

    """
    main = places.config / MAIN
    # lexists: a link that leads nowhere is a mistake worth an error, not an absent file.
    found = [main] if os.path.lexists(main) else []
    return (*found, *_parts(places.config / PARTS))


def stamp(places: Places) -> Stamp:
    """Return what changes when the config does; cheap enough to be asked often. Raises as ``find``."""
    return tuple(_stamps(find(places)))


def read(path: Path, *, uid: int, trusted: bool) -> str:
    """
    Return the text of a file.

    Args:
        path: which; links are followed.
        uid: ours.
        trusted: whether its owner and the directories above it are looked at as
            well. A file that is only checked, in CI say, is not yet in force.

    Raises:
        InvalidConfigError: it cannot be read, is no text, too large, or others could have written it.

    """
    return decode(_read(path, uid=uid, trusted=trusted), path)


def decode(raw: bytes, path: Path) -> str:
    """Return the bytes of a file as text. Raises as ``read``."""
    if len(raw) > LARGEST:
        raise _refusal(path, f"larger than {LARGEST} bytes", hint="split it into several files in broker.d")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
    else:
        if "\0" in text:
            line = text.count("\n", 0, text.index("\0")) + 1
            raise _refusal(path, "a NUL character, so this is no TOML", line=line)
        return text
    # Raised out here because the error of the decoding holds the whole file.
    raise _refusal(path, "not UTF-8", line=line, hint="save the file as UTF-8")


def check_directories(paths: Iterable[Path], *, uid: int) -> None:
    """
    Refuse files in directories where others could put other ones in their place.

    The directory itself must be ours or root's. Those above it, which may belong
    to anybody (a user namespace hides the owner), must not be open to all.
    """
    seen: set[Path] = set()
    for path in paths:
        for directory in (path.parent.absolute(), Path(os.path.realpath(path)).parent):
            if directory not in seen:
                _check(directory, uid=uid, strict=True)
            seen.add(directory)
            for above in directory.parents:
                if above in seen:
                    break
                seen.add(above)
                _check(above, uid=uid, strict=False)


def _parts(directory: Path) -> list[Path]:
    try:
        found = sorted(directory.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _refusal(directory, f"cannot be listed: {_reason(error)}", hint=f"ls -ld {directory}") from None
    # Editors leave .#name.toml and the like beside what they edit.
    return [path for path in found if path.name.endswith(".toml") and not path.name.startswith(".")]


def _stamps(paths: Iterable[Path]) -> Iterator[tuple[str, int, int, int]]:
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            yield (str(path), 0, 0, 0)
        else:
            yield (str(path), status.st_ino, status.st_size, status.st_mtime_ns)


def _read(path: Path, *, uid: int, trusted: bool) -> bytes:
    try:
        # O_NONBLOCK: a named pipe in this place must not hang the broker.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise _refusal(path, f"cannot be read: {_reason(error)}", hint=f"ls -l {path}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _refusal(path, f"{_kind(status.st_mode)} where a file should be")
        found = guard.rights(status, descriptor)
        breach = guard.foreign(found, path, uid=uid) if trusted else None
        breach = breach or guard.breach(found, path, private=guard.is_private_group)
        if breach is not None:
            raise _refusal(path, breach.text, hint=breach.hint)
        return _contents(descriptor)
    except OSError as error:
        raise _refusal(path, f"cannot be read: {_reason(error)}", hint=f"ls -l {path}") from None
    finally:
        os.close(descriptor)


def _contents(descriptor: int) -> bytes:
    """Return what is in there, up to one byte more than is allowed."""
    pieces = []
    left = LARGEST + 1
    while left and (piece := os.read(descriptor, min(left, 1 << 16))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _check(directory: Path, *, uid: int, strict: bool) -> None:
    try:
        found = guard.rights(directory.stat(), directory)
    except OSError as error:
        raise _refusal(directory, f"cannot be looked at: {_reason(error)}") from None
    if strict:
        breach = guard.foreign(found, directory, uid=uid)
        breach = breach or guard.breach(found, directory, private=guard.is_private_group)
    elif found.mode & stat.S_IWOTH:
        breach = guard.breach(found, directory, private=guard.is_private_group)
    else:
        breach = None
    if breach is not None:
        raise _refusal(directory, f"{breach.text}, and it leads to the config", hint=breach.hint)


def _refusal(path: Path, text: str, *, line: int = 0, hint: str | None = None) -> InvalidConfigError:
    return InvalidConfigError([Problem(where=Location(file=path, line=line), key="", text=text, hint=hint)])


def _reason(error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "its links lead in a circle"
    return os.strerror(error.errno).lower() if error.errno else "the system does not say why"


def _kind(mode: int) -> str:
    names = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return names.get(stat.S_IFMT(mode), "a device")
