"""
``service install``: the units of the package, put where systemd finds them, and taken away again.

This module refuses to touch what it has not put there.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from broker import paths
from broker.cli import options, show
from broker.cli.show import Cell
from broker.errors import BrokerError, DeniedError, UnavailableError
from broker.paths import Mode
from broker.service_units import SERVICE, SOCKETS, Placed, placed, require_free, require_reachable

_END_WITHIN: Final = 20.0
_SLASH: Final = Path("/")


@click.group()
def service() -> None:
    """Have systemd start the broker."""


@service.command()
@click.option("--user", "mode", flag_value="user", help="Your own broker, by your own systemd.")
@click.option("--system", "mode", flag_value="system", help="This host's broker; needs root.")
@click.option("--root", type=click.Path(path_type=Path, file_okay=False), help="Take DIR for /, as for an image.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--remove", is_flag=True, help="Take away what this command has put there, and nothing else.")
def install(*, mode: str | None, root: Path | None, dry_run: bool, remove: bool) -> None:
    """
    Put the units in place that start the broker when it is first needed.

    For the host also its user and group (sysusers.d) and the directory of its
    sockets (tmpfiles.d). Doing it twice changes nothing. No session ends by it.

        mcp-broker service install --user
        sudo /opt/mcp-broker/bin/mcp-broker service install --system
    """
    if mode is None:
        message = "say whose: --user or --system"
        raise click.UsageError(message)
    work = Work("system" if mode == "system" else "user", root=root, dry_run=dry_run)
    if remove:
        work.remove()
    else:
        work.install()


class Work:
    """One installation, or the end of one; with ``dry_run`` only told."""

    def __init__(self, mode: Mode, *, root: Path | None = None, dry_run: bool = False) -> None:
        """Find out which files it is about."""
        self.mode: Final = mode
        self.root = None if root is None else root.absolute()
        self._dry_run = dry_run
        self.command = Path(sys.prefix).absolute() / "bin/mcp-broker"
        self.files = placed(mode, command=self.command, home=paths.home(), root=self.root or _SLASH)

    def install(self) -> None:
        """Put all files in place, and have systemd listen."""
        self._require_rights()
        if self.mode == "system" and self.root is None:
            require_reachable(self.command)
        require_free(self.files)
        wanted = [file for file in self.files if file.state() != "same"]
        first = any(file.state() == "absent" for file in wanted)
        if first and self.mode == "user" and self.root is None:
            self._make_way()
        for file in self.files:
            self._say("put    " if file in wanted else "there  ", file.path)
            if file in wanted and not self._dry_run:
                file.put()
        self._run_all(self._after_install(changed=bool(wanted)))

    def remove(self) -> None:
        """Take away the files that are as this command has put them; leave the others."""
        self._require_rights()
        states = {file.path: file.state() for file in self.files}
        ours = [file for file in self.files if states[file.path] in {"same", "older"}]
        if any(file.path.name == SERVICE for file in ours):
            self._run_all([self._systemctl("disable", *(["--now"] if self.root is None else []), SERVICE, *SOCKETS)])
        for file in self.files:
            if file in ours:
                self._say("removed", file.path)
                if not self._dry_run:
                    file.path.unlink()
            elif states[file.path] != "absent":
                self._say("left   ", file.path)
                show.line(f"note: {file.path} is not as this command has put it there", err=True)
        if not ours:
            show.line("there is nothing to remove")
        elif self.root is None:
            self._run_all([self._systemctl("daemon-reload")])
        if ours and self.mode == "system":
            show.line("the user mcp-broker stays: the state belongs to it")

    def _require_rights(self) -> None:
        if self.mode == "system" and self.root is None and os.geteuid() and not self._dry_run:
            message = "only root can change the units of the host"
            raise DeniedError(message, hint=f"sudo {self.command} service install --system")
        if self.mode == "user" and not os.geteuid() and self.root is None:
            show.line("note: you are root: this is root's own broker, not the host's (--system)", err=True)

    def _make_way(self) -> None:
        """End a broker that was started without systemd: its sockets are to be systemd's. No session ends by that."""
        try:
            client = options.admin(("--user", ""), autostart=False)
        except BrokerError:
            return
        with client:
            show.line("the broker that runs ends, so that systemd can start it; what is out stays out")
            if self._dry_run:
                return
            client.call("stop", revoke=False)
            if not client.wait_for_end(_END_WITHIN):
                message = "the broker that runs does not end"
                raise UnavailableError(message, hint="mcp-broker status")
        until = time.monotonic() + _END_WITHIN
        socket = paths.user().admin_socket
        while socket.exists() and time.monotonic() < until:
            time.sleep(0.05)

    def _after_install(self, *, changed: bool) -> list[list[str]]:
        """Return the commands that make systemd use the files."""
        if self.mode == "user":
            if self.root is not None:
                return []
            again = [self._systemctl("try-restart", SERVICE)] if changed else []
            return [self._systemctl("daemon-reload"), self._systemctl("enable", "--now", *SOCKETS), *again]
        if self.root is not None:
            return [["systemd-sysusers", f"--root={self.root}"], self._systemctl("enable", SERVICE)]
        tmpfiles = next(str(file.path) for file in self.files if file.path.parent.name == "tmpfiles.d")
        return [
            ["systemd-sysusers"],
            ["systemd-tmpfiles", "--create", tmpfiles],
            self._systemctl("daemon-reload"),
            self._systemctl("enable", "--now", *SOCKETS, SERVICE),
            *([self._systemctl("try-restart", SERVICE)] if changed else []),
        ]

    def _systemctl(self, *words: str) -> list[str]:
        where = [f"--root={self.root}"] if self.root is not None else []
        return ["systemctl", *(["--user"] if self.mode == "user" else []), *where, "--quiet", *words]

    def _run_all(self, commands: Sequence[Sequence[str]]) -> None:
        """Run commands of systemd's; where there is no systemd, say what to type when there is."""
        runtime = Path(f"/run/user/{os.getuid()}")
        manager = runtime / "systemd/private" if self.mode == "user" else Path("/run/systemd/system")
        for command in commands:
            self._say("run    ", " ".join(command))
            if self._dry_run:
                continue
            if shutil.which(command[0]) is None or (self.root is None and not manager.exists()):
                show.line(f"note: systemd does not run here; when it does: {' '.join(command)}", err=True)
                continue
            environment = {**os.environ, "XDG_RUNTIME_DIR": str(runtime)} if self.mode == "user" else None
            done = subprocess.run(  # noqa: S603 - words of ours, no shell
                command, capture_output=True, text=True, check=False, env=environment, stdin=subprocess.DEVNULL
            )
            if done.returncode:
                message = (
                    f"{' '.join(command)} failed: {(done.stderr.strip().splitlines() or ['it does not say why'])[0]}"
                )
                raise UnavailableError(message, hint="journalctl -e, then the same command again")

    def _say(self, what: str, about: object) -> None:
        show.line(Cell(f"{'would: ' if self._dry_run else ''}{what}", "green"), f" {about}")


def installed(mode: Mode) -> list[Placed]:
    """Return the units of ours that are in place."""
    return [file for file in Work(mode).files if file.state() in {"same", "older"}]
