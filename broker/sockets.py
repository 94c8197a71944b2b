"""
The listening sockets, made so that at no moment they are open wider than they should be.

A socket that systemd passed is taken as it is: its owner and mode were set
before any of our code ran. Others are bound under a umask that gives them their
final mode at birth, in a directory that is checked first.
"""

import contextlib
import grp
import os
import socket
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from broker.errors import ConfigError
from broker.paths import Places

ADMIN_GROUP: Final = "mcp-broker-admin"
BACKLOG: Final = 4096
"""Connections that may wait to be accepted; the kernel caps it at ``net.core.somaxconn``."""

_LONGEST_PATH: Final = 107
"""Bytes in ``sun_path`` less the final NUL (unix(7))."""


def listening(places: Places, passed: Mapping[str, int]) -> tuple[socket.socket, socket.socket]:
    """
    Return the sockets for workloads and for admins, listening.

    Args:
        places: where they belong.
        passed: what systemd handed over, ``broker`` and ``admin`` by name.

    Raises:
        ConfigError: the place for them is not as it must be.

    """
    return (
        _passed(passed["broker"]) if "broker" in passed else bound(places, "broker"),
        _passed(passed["admin"]) if "admin" in passed else bound(places, "admin"),
    )


def bound(places: Places, name: str) -> socket.socket:
    """
    Return a new socket, ``broker`` or ``admin``, listening where it belongs.

    Raises:
        ConfigError: the place for it is not as it must be.

    """
    system = places.mode == "system"
    prepare(places.run, mode=0o755 if system else 0o700)
    if name == "broker":
        return _bound(places.broker_socket, 0o666 if system else 0o600)
    admin = _bound(places.admin_socket, 0o600)
    if system:
        _give_to_admins(places.admin_socket)
    return admin


def prepare(directory: Path, *, mode: int) -> None:
    """Make a directory of ours, or check that the one that is there is ours and nobody else can write in it."""
    directory.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=mode)
        directory.chmod(mode)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        message = f"{directory} is not a directory that only its owner, uid {os.getuid()}, can write"
        raise ConfigError(message, hint=f"ls -ld {directory}; move it away, or chmod go-w")


def _passed(descriptor: int) -> socket.socket:
    sock = socket.socket(fileno=descriptor)
    sock.setblocking(False)  # noqa: FBT003 -- its only form
    sock.set_inheritable(False)
    if sock.family != socket.AF_UNIX:
        message = "systemd passed a socket that is not a Unix socket"
        raise ConfigError(message, hint="the broker listens on Unix sockets only")
    return sock


def _bound(path: Path, mode: int) -> socket.socket:
    if len(os.fsencode(path)) > _LONGEST_PATH:
        message = f"the path of the socket is longer than {_LONGEST_PATH} bytes: {path}"
        raise ConfigError(message, hint="use a shorter --dir")
    # Whoever calls this holds the lock of the state directory: what lies here is a dead broker's.
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    before = os.umask(0o777 & ~mode)
    try:
        sock.bind(str(path))
    except OSError as error:
        sock.close()
        message = f"cannot listen on {path}: {error.strerror}"
        raise ConfigError(message, hint="is its directory there and writable?") from None
    finally:
        os.umask(before)
    sock.listen(BACKLOG)
    return sock


def _give_to_admins(path: Path) -> None:
    """Open the admin socket to the admins' group, where there is one and we belong to it."""
    try:
        group = grp.getgrnam(ADMIN_GROUP).gr_gid
        os.chown(path, -1, group)
    except (KeyError, PermissionError):
        return
    path.chmod(0o660)
