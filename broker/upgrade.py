"""
What happens when the program is replaced on the disk while it runs: it becomes the new one.

A daemon loads some of its parts when they are first needed. After an upgrade in
place those would be the new version's, in the middle of the old program. So
nothing more is imported then, and as soon as the new files are whole, the same
process runs them: its pid, its lock and its listening sockets stay, clients
queue in the sockets, and leases hang on other processes anyway. This module
refuses to become a program that does not load.
"""

import asyncio
import fcntl
import os
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Final, NoReturn, final

from broker.errors import UnavailableError

SETTLED: Final = 2.0
"""Seconds in which the files do not change any more, so that an installer has ended."""

FRESH: Final = 0.05
"""Seconds for which a look at the files is good: an installer takes longer to put anything in their place."""

TRY_AGAIN: Final = 30.0
"""Seconds before a new program that does not load is tried again."""

_TRIAL: Final = "import broker.cli.main, broker.daemon, uvloop"
_TRIAL_WITHIN: Final = 30.0
_ABOVE: Final = 100
"""Descriptors from here on are nobody's."""

Stamp = tuple[object, ...]


@final
class Installed:
    """The files that this program was started from."""

    def __init__(self, packages: Sequence[Path], *, python: Path) -> None:
        """Look at the directories of our ``packages`` and at the interpreter as they are now."""
        self._packages = tuple(packages)
        self._python = python
        self._begun = self._last = self._stamp()
        self._since = time.monotonic()

    def changed(self) -> bool:
        """Return whether they are not what they were."""
        return self._stamp() != self._begun

    def replaced(self) -> bool:
        """Return whether they are others, all there, and have been so for a while."""
        stamp, now = self._stamp(), time.monotonic()
        if stamp != self._last:
            self._last, self._since = stamp, now
        return stamp is not None and stamp != self._begun and now - self._since >= SETTLED

    def _stamp(self) -> Stamp | None:
        """Return what changes with every installation, or None where something is missing."""
        try:
            files = [self._python.stat(), *((package / "__init__.py").stat() for package in self._packages)]
            around = {package.parent for package in self._packages if package.parent.name.endswith("-packages")}
            dists = sorted(str(each) for place in around for each in place.glob("*.dist-info"))
        except OSError:
            return None
        return (*((each.st_dev, each.st_ino, each.st_mtime_ns, each.st_size) for each in files), *dists)


@final
class Guard:
    """Stands before all importers and lets nothing of another version in."""

    def __init__(self, installed: Installed) -> None:
        """Watch over these files."""
        self._installed = installed
        self._looked = 0.0
        self._foreign = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Leave the search to others, unless what they would find belongs to another installation."""
        del path, target
        if fullname.partition(".")[0] not in sys.stdlib_module_names and self._changed():
            message = "the broker was upgraded and is about to start again"
            raise UnavailableError(message, hint="try again in a few seconds")
        return None

    def _changed(self) -> bool:
        """Return whether the files were others a moment ago: a library brings hundreds of modules at once."""
        now = time.monotonic()
        if now - self._looked > FRESH:
            self._looked, self._foreign = now, self._installed.changed()
        return self._foreign


async def loads() -> str:
    """Return why the new program cannot be loaded, or nothing where it can."""
    trial = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-c", _TRIAL),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_TRIAL_WITHIN):
            _, said = await trial.communicate()
    except TimeoutError:
        trial.kill()
        await trial.wait()
        return "it takes too long"
    return "" if trial.returncode == 0 else (said.decode("utf-8", "replace").strip().splitlines() or ["it fails"])[-1]


def become(descriptors: Mapping[str, int], environment: Mapping[str, str]) -> NoReturn:
    """
    Run the program that is on the disk now, in this process.

    Args:
        descriptors: what it is handed, by the names it knows it by; as systemd hands sockets over.
        environment: what systemd had told this process and it is to know as well.

    """
    # First out of the way, so that none is overwritten by another.
    high = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, _ABOVE) for each in descriptors.values()]
    for number, each in enumerate(high, 3):
        os.dup2(each, number)
    passed = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(high)), "LISTEN_FDNAMES": ":".join(descriptors)}
    words = [sys.executable, *sys.orig_argv[1:]]
    os.execve(sys.executable, words, {**os.environ, **environment, **passed})  # noqa: S606 -- no shell is what we want
