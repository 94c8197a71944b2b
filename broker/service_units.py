"""
The units that this package carries, and their way into systemd's directories and out again.

A file that is put somewhere says so in its first line, with a checksum: what
somebody has changed since, or has put there themselves, is not touched. This
module refuses to start and to enable anything: it says which commands do.
"""

import hashlib
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final, Literal

from broker.errors import ConfigError
from broker.paths import Mode

CARRIED: Final = Path(__file__).parent / "units"
SOCKETS: Final = ("mcp-broker.socket", "mcp-broker-admin.socket")
SERVICE: Final = "mcp-broker.service"

State = Literal["absent", "same", "older", "changed", "foreign"]

_MARK: Final = "# Put here by `mcp-broker service install`, which replaces and removes it as long as it is unchanged: "
_COMMAND: Final = re.compile(r"(?<==)\S+/bin/mcp-broker(?= )")
_HOME_COMMAND: Final = "%h/.local/bin/mcp-broker"
_CLOSED: Final = (PurePath("/home"), PurePath("/root"), PurePath("/run/user"))
"""What ``ProtectHome=yes`` hides from the host's broker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """
    One file of ours and its place.

    Attributes:
        path: where it belongs.
        text: what is to stand in it, without the first line that says whose it is.

    """

    path: Path
    text: str

    @property
    def marked(self) -> str:
        """Return the whole of the file."""
        return f"{_MARK}{_checksum(self.text)}\n{self.text}"

    def state(self) -> State:
        """Return what is there now."""
        try:
            found = self.path.read_text("utf-8", "replace")
        except FileNotFoundError:
            return "absent"
        if found in {self.marked, self.text}:
            return "same" if found == self.marked else "older"
        if not found.startswith(_MARK):
            return "foreign"
        first, _, rest = found.partition("\n")
        return "older" if first == _MARK + _checksum(rest) else "changed"

    def put(self) -> None:
        """Write it, in one step."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        new = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        new.write_text(self.marked, "utf-8")
        new.chmod(0o644)
        new.replace(self.path)


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def placed(mode: Mode, *, command: Path, home: Path, root: Path) -> list[Placed]:
    """
    Return every file of a mode, with where it belongs.

    Args:
        mode: of the broker.
        command: our command as it is installed; the units start it.
        home: whose broker it is, in user mode.
        root: the directory that is to be taken for ``/``.

    """
    word = _word(mode, command, home, root)
    if mode == "user":
        places = {CARRIED / "user": home / ".config/systemd/user"}
    else:
        etc = Path("/etc")
        places = {
            CARRIED / "system": etc / "systemd/system",
            CARRIED / "sysusers.d": etc / "sysusers.d",
            CARRIED / "tmpfiles.d": etc / "tmpfiles.d",
        }
    return [
        Placed(
            path=root / place.relative_to("/") / file.name, text=_COMMAND.sub(lambda _: word, file.read_text("utf-8"))
        )
        for source, place in places.items()
        for file in sorted(source.iterdir())
    ]


def _word(mode: Mode, command: Path, home: Path, root: Path) -> str:
    """Return our command as a word of ``ExecStart=``."""
    if command.is_relative_to(root):
        command = Path("/") / command.relative_to(root)
    if mode == "user":
        link = home / ".local/bin/mcp-broker"
        # What pipx and uv keep up to date is better than the environment behind it, which another Python may replace.
        if link.exists() and link.resolve() == command.resolve():
            return _HOME_COMMAND
    plain = re.fullmatch(r"[\w/.+:@-]+", str(command))
    escaped = str(command).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return str(command) if plain else f'"{escaped}"'


def require_reachable(command: Path) -> None:
    """Refuse a command that the host's broker, with a uid of its own and no view of homes, could not start."""
    places = [command, command.with_name("python"), command.with_name("python").resolve()]
    for place in places:
        hidden = any(PurePath(place).is_relative_to(closed) for closed in _CLOSED)
        if hidden or any(not each.stat().st_mode & stat.S_IXOTH for each in (place, *place.parents)):
            message = f"{place} cannot be reached by a user of its own, as the host's broker is"
            hint = "python3 -m venv /opt/mcp-broker, and install into that"
            raise ConfigError(message, hint=hint)


def require_free(files: Iterable[Placed]) -> None:
    """Refuse to write over what somebody else has written."""
    for file in files:
        if (state := file.state()) in {"changed", "foreign"}:
            why = "was changed since it was put there" if state == "changed" else "is there, and not from this command"
            message = f"{file.path} {why}"
            raise ConfigError(message, hint=f"move it away; changes belong into a drop-in: systemctl edit {SERVICE}")
