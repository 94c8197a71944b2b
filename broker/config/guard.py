"""
Who else could have written a config file.

Whoever writes the config decides who gets which secret. This module refuses to
trust a file that anybody but its owner, us or root, could have changed.
"""

import grp
import os
import pwd
import shlex
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_ACL: Final = "system.posix_acl_access"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """
    Who owns a file or directory and who may write it.

    Attributes:
        mode: type and permissions, as ``stat`` has them.
        uid: its owner.
        gid: its group.
        acl: whether there is an access list beyond the mode.

    """

    mode: int
    uid: int
    gid: int
    acl: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Breach:
    """Why something cannot be trusted, and what mends it."""

    text: str
    hint: str


def rights(status: os.stat_result, where: int | Path) -> Rights:
    """Return the rights of an open file or of a path."""
    return Rights(mode=status.st_mode, uid=status.st_uid, gid=status.st_gid, acl=_has_acl(where))


def breach(found: Rights, path: Path, *, private: Callable[[int, int], bool]) -> Breach | None:
    """
    Say why others than its owner can write something, or None.

    Args:
        found: its rights.
        path: for the hint.
        private: whether a group (second) is the private group of a user (first) and has nobody else in it.

    """
    name = shlex.quote(os.fsencode(path).decode("utf-8", "replace"))
    if stat.S_ISDIR(found.mode) and found.mode & stat.S_ISVTX:
        return None  # In a sticky directory nobody replaces what is somebody else's.
    if found.mode & stat.S_IWOTH:
        return Breach(text="everybody can write it", hint=f"chmod o-w {name}")
    if not found.mode & stat.S_IWGRP:
        return None
    if found.acl:
        return Breach(text="an access list lets others write it", hint=f"setfacl -b {name} && chmod g-w {name}")
    if not private(found.uid, found.gid):
        return Breach(text=f"the group {found.gid} can write it, which others may be in", hint=f"chmod g-w {name}")
    return None


def foreign(found: Rights, path: Path, *, uid: int) -> Breach | None:
    """Say why its owner is nobody to trust, or None. ``uid`` is ours."""
    if found.uid in (0, uid):
        return None
    name = shlex.quote(os.fsencode(path).decode("utf-8", "replace"))
    return Breach(text=f"it belongs to uid {found.uid}, not to uid {uid} or root", hint=f"chown {uid} {name}")


def is_private_group(uid: int, gid: int) -> bool:
    """
    Return whether a group is the user's own and has nobody else in it.

    Debian and others give every user a group of the same name, and with it a
    umask that lets that group write.
    """
    try:
        user, group = pwd.getpwuid(uid), grp.getgrgid(gid)
    except KeyError:
        return False
    alone = set(group.gr_mem) <= {user.pw_name}
    if user.pw_gid != gid or user.pw_name != group.gr_name or not alone:
        return False
    return all(other.pw_uid == uid for other in pwd.getpwall() if other.pw_gid == gid)


def _has_acl(where: int | Path) -> bool:
    try:
        return bool(os.getxattr(where, _ACL))
    except (OSError, AttributeError):
        return False  # No list, a file system without lists, or a platform without this call.
