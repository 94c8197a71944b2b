"""
Selectors: which attested facts a workload must show.

This module refuses what a process can forge (its arguments, environment and
executable, units below a user's own manager) and identities that a namespace hides.
"""

import grp
import pwd
import re
from typing import Final

from broker.config.problems import WrongTextError, meant

KINDS: Final = ("uid", "gid", "unit", "user", "group")

_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,9}")
_HIGHEST: Final = 2**32 - 2
_OVERFLOW: Final = 65534
_UNIT: Final = re.compile(r"[A-Za-z0-9:_.\\-]+(?:@[A-Za-z0-9:_.\\-]*)?\.service")
_LONGEST_UNIT: Final = 255
_FORGEABLE: Final = frozenset({"exe", "path", "argv", "cmdline", "env", "pid", "comm", "sha256", "hash"})
_FORMS: Final = "write uid:N, gid:N, unit:NAME.service, user:NAME or group:NAME"


class SelectorError(WrongTextError):
    """The text is no selector, or one that proves nothing."""

    def __init__(self, message: str, *, hint: str = _FORMS) -> None:
        """Say what is wrong and what may stand there instead."""
        super().__init__(message, hint=hint)


def canonical(text: str) -> str:
    """
    Return the selector in the form in which facts are attested: users and groups as numbers.

    Raises:
        SelectorError: it is none, or names somebody who is not there.

    """
    kind, _, what = text.partition(":")
    match kind:
        case "uid" | "gid":
            return f"{kind}:{_number(what)}"
        case "user":
            return f"uid:{_number(str(_uid(what)))}"
        case "group":
            return f"gid:{_number(str(_gid(what)))}"
        case "unit":
            return f"unit:{_unit(what)}"
        case _ if kind in _FORGEABLE:
            message = f"{kind} is no selector: a process can forge it"
            raise SelectorError(message)
        case _:
            message = f"not a selector{meant(kind, KINDS)}"
            raise SelectorError(message)


def names_unit(selector: str) -> bool:
    """Return whether the selector holds for one unit alone."""
    return selector.startswith("unit:")


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text) or int(text) > _HIGHEST:
        message = "the number is none of a user or group"
        raise SelectorError(message)
    if int(text) == _OVERFLOW:
        message = f"{_OVERFLOW} is what the kernel shows for an identity that it hides: it proves nothing"
        raise SelectorError(message, hint="give the service a user of its own")
    return int(text)


def _uid(name: str) -> int:
    try:
        return pwd.getpwnam(name).pw_uid
    except (KeyError, ValueError):
        message = "there is no such user"
    raise SelectorError(message, hint="getent passwd")


def _gid(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except (KeyError, ValueError):
        message = "there is no such group"
    raise SelectorError(message, hint="getent group")


def _unit(name: str) -> str:
    if not _UNIT.fullmatch(name) or len(name) > _LONGEST_UNIT:
        message = "the name is none of a service unit"
        raise SelectorError(message, hint="write unit:NAME.service, or unit:NAME@.service for all instances")
    if name.startswith("user@"):
        message = "a unit of a user's manager proves nothing beyond the user"
        raise SelectorError(message, hint="write uid:N or user:NAME")
    return name
