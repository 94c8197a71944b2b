"""
Where our command is, by a path that stays true.

A client keeps the path for years and has hardly a PATH to search: one that a
desktop's menu started has not read any file of a shell. This module refuses to
name a Python, whose version comes and goes, and to trust PATH.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from broker import paths
from broker.errors import UnavailableError

NAME: Final = "mcp-broker"

DESKTOP_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where a program looks for others that a desktop's menu started, at least."""

_PASSING: Final = ("/tmp/", "/var/tmp/", "/dev/shm/", "/run/")  # noqa: S108 - looked for, to warn of them
_CACHES: Final = ("/.cache/uv/", "/pipx/.cache/", "/.cache/pipx/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Launcher:
    """Our command: its path, and what there is to say against it."""

    path: Path
    caution: str | None = None


def launcher(prefix: Path | None = None, *, home: Path | None = None) -> Launcher:
    """
    Return our command by the path that lives longest.

    That is the link that pipx or uv made to it, which they keep over upgrades
    of us and of Python; else the launcher in the environment itself.

    Args:
        prefix: the environment that we are installed in; this one by default.
        home: the user's home.

    Raises:
        UnavailableError: there is no launcher, as where we run from a checkout.

    """
    own = (Path(sys.prefix) if prefix is None else prefix) / "bin" / NAME
    if not os.access(own, os.X_OK):
        message = f"there is no launcher at {own}"
        raise UnavailableError(message, hint="install it into an environment of its own, with pipx, uv tool or venv")
    real = os.path.realpath(own)
    for directory in _homes(paths.home() if home is None else home):
        link = directory / NAME
        if os.path.realpath(link) == real:
            return Launcher(path=link, caution=_caution(real))
    return Launcher(path=own, caution=_caution(real))


def _homes(home: Path) -> list[Path]:
    """Return where an installer leaves links, the usual place first."""
    named = [os.environ.get(name, "") for name in ("PIPX_BIN_DIR", "UV_TOOL_BIN_DIR", "XDG_BIN_HOME")]
    return [home / ".local/bin", *(Path(one) for one in named if one.startswith("/")), Path("/usr/local/bin")]


def _caution(real: str) -> str | None:
    if any(cache in real for cache in _CACHES):
        return f"{real} is in a cache, which is emptied: install it with pipx or uv tool"
    if real.startswith(_PASSING):
        return f"{real} goes at the next start of this machine: install it with pipx or uv tool"
    return None
