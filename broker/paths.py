"""
Where a broker keeps its config, its state and its sockets.

The answer follows from the uid and the home directory alone, because MCP
clients pass almost no environment on and a client must find the broker that
somebody else started.
"""

import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

Mode = Literal["user", "system"]

SYSTEM_CONFIG: Final = Path("/etc/mcp-broker")
SYSTEM_STATE: Final = Path("/var/lib/mcp-broker")
SYSTEM_RUN: Final = Path("/run/mcp-broker")


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """
    The directories of one broker.

    Attributes:
        mode: whose broker it is.
        config: holds ``broker.toml`` and ``broker.d``.
        state: holds what must outlive a boot.
        run: holds the sockets.

    """

    mode: Mode
    config: Path
    state: Path
    run: Path

    @property
    def audit(self) -> Path:
        """Return the directory of the audit log."""
        return self.state / "audit"

    @property
    def broker_socket(self) -> Path:
        """Return the socket for workloads."""
        return self.run / "broker.sock"

    @property
    def admin_socket(self) -> Path:
        """Return the socket for admins."""
        return self.run / "admin.sock"


def home(uid: int | None = None) -> Path:
    """Return the home directory that the user database names, whatever HOME says where it names none."""
    try:
        return Path(pwd.getpwuid(os.getuid() if uid is None else uid).pw_dir)
    except KeyError:
        return Path(os.environ.get("HOME", "/"))


def system() -> Places:
    """Return the places of the broker of this host."""
    return Places(mode="system", config=SYSTEM_CONFIG, state=SYSTEM_STATE, run=SYSTEM_RUN)


def user() -> Places:
    """Return the places of the caller's own broker."""
    base = home()
    state = base / ".local/state/mcp-broker"
    runtime = Path(f"/run/user/{os.getuid()}")
    owned = runtime.is_dir() and runtime.stat().st_uid == os.getuid()
    return Places(
        mode="user",
        config=base / ".config/mcp-broker",
        state=state,
        run=runtime / "mcp-broker" if owned else state / "run",
    )


def run_now(places: Places) -> Path:
    """Return the directory of a broker's sockets by what is there now: that of a user's login comes and goes."""
    own = user()
    return own.run if places.mode == "user" and places.state == own.state else places.run


def within(directory: Path, *, mode: Mode = "user") -> Places:
    """Return the places of a broker that lives in one directory: a tour's, a test's."""
    base = directory.absolute()
    return Places(mode=mode, config=base / "config", state=base / "state", run=base / "run")
