"""
What the daemon does to its own process before it touches a secret.

No core dump, no reading of its memory by other processes of the same user, no
file wider than its owner, no descriptor and no variable that somebody left
behind.
"""

import ctypes
import os
import resource
import sys
from collections.abc import Iterable, MutableMapping
from typing import Final

_PR_SET_DUMPABLE: Final = 4

KEPT_VARIABLES: Final = frozenset(
    {"HOME", "USER", "LOGNAME", "PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "NO_COLOR", "TERM"}
    # Of a unit: its credentials, and that it is one, which a hint depends on.
    | {"CREDENTIALS_DIRECTORY", "INVOCATION_ID"}
)
"""The daemon's own environment. What it inherits beyond these it neither needs nor passes on."""


def harden() -> None:
    """Make this process unreadable to others and its files its owner's, for good."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


def close_inherited(keep: Iterable[int]) -> None:
    """Close every descriptor but the standard ones and those in ``keep``."""
    kept = sorted({0, 1, 2, *keep})
    for below, above in zip(kept, [*kept[1:], resource.getrlimit(resource.RLIMIT_NOFILE)[0]], strict=True):
        os.closerange(below + 1, above)


def clean_environment(environment: MutableMapping[str, str]) -> None:
    """Remove every variable that the daemon does not need."""
    for name in tuple(environment):
        if name not in KEPT_VARIABLES:
            del environment[name]
