"""
The two things that systemd and a service say to each other: sockets and readiness.

Both are a few lines of a documented protocol (sd_listen_fds(3), sd_notify(3)).
"""

import socket
from collections.abc import Mapping
from typing import Final

_FIRST: Final = 3
_TOLD: Final = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")


def passed_sockets(environment: Mapping[str, str], *, pid: int) -> dict[str, int]:
    """
    Return the descriptors that systemd passed, by ``FileDescriptorName=``.

    Empty where the variables are missing or meant for another process.
    """
    if environment.get("LISTEN_PID") != str(pid):
        return {}
    count = int(environment.get("LISTEN_FDS", "0"))
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    return {name: _FIRST + index for index, name in zip(range(count), names, strict=False) if name}


class Notifier:
    """Tells systemd how the service is; without ``NOTIFY_SOCKET`` it tells nobody."""

    def __init__(self, environment: Mapping[str, str], *, pid: int) -> None:
        """Take the address and the watchdog's period from the environment, before that is cleaned."""
        self.told = {name: environment[name] for name in _TOLD if name in environment}
        """What systemd has said, for the program that this process may become."""
        self._address = environment.get("NOTIFY_SOCKET", "").replace("@", "\0", 1)
        watched = environment.get("WATCHDOG_PID", str(pid)) == str(pid)
        self.watchdog: float | None = int(environment.get("WATCHDOG_USEC", "0")) / 1e6 if watched else None

    def tell(self, *lines: str) -> None:
        """Send assignments such as ``READY=1``; a manager that does not listen is no reason to fail."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)  # noqa: FBT003 -- its only form
                sock.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            return
