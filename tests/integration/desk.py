"""
A person's account on a machine that is no container, whatever this one is.

A mount namespace with a copy of the root's file tree that is kept in memory: no
marks of a container, an empty /run, nobody's config in /etc. What runs in it is
real. Needs root. Nothing of the machine is changed, and whoever was started in
it has ended in the end.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from tests.running import as_user, until

PERSON: Final = 43210
"""A person's uid without a name, and so with the home that HOME says."""

MARKS: Final = "rm -rf .dockerenv run/.containerenv etc/mcp-broker"

SERVERS: Final = """
[servers.gh]
command = ["sh", "-c", "echo got ${#TOKEN}"]
env.TOKEN = "{github}"

[servers.waits]
command = ["sleep", "600"]
env.TOKEN = "{github}"
"""


class Desk:
    """
    One account.

    Attributes:
        home: its home directory.

    """

    def __init__(self, directory: Path, holder: int, command: Path) -> None:
        """Remember the process that keeps the namespace, and the command."""
        self.home = directory / "home"
        self._root = directory / "memory/root"
        self._holder = holder
        self._command = command

    def words(self, *words: str | Path, uid: int = PERSON, environment: Mapping[str, str] | None = None) -> list[str]:
        """Return what runs a command here, with all that an MCP client passes on."""
        client = {"HOME": str(self.home), "PATH": "/usr/bin:/bin", "USER": "p", "LOGNAME": "p", **(environment or {})}
        variables = [f"{name}={value}" for name, value in client.items()]
        enter = ["nsenter", f"--target={self._holder}", "--mount", "--root", "--"]
        person = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"]
        person += ["env", "--chdir=/", "-i", *variables]
        return [*enter, *person, *map(str, words)]

    def broker(self, *words: str) -> list[str]:
        """Return what runs our command here."""
        return self.words(self._command, *words)

    def run(self, *words: str, stdin: str = "", uid: int = PERSON) -> subprocess.CompletedProcess[str]:
        """Run our command here, to its end."""
        command = self.words(self._command, *words, uid=uid)
        return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=120, cwd="/")

    def do(self, *words: str, stdin: str = "") -> str:
        """Run our command, which has to succeed; return what it printed."""
        done = self.run(*words, stdin=stdin)
        assert 0 == done.returncode, f"{words}: {done.stderr}"
        return done.stdout

    def as_root(self, script: str) -> None:
        """Run a script of the shell here, as root."""
        enter = ["nsenter", f"--target={self._holder}", "--mount", "--root", "--"]
        subprocess.run([*enter, "sh", "-ec", script], check=True, timeout=60)

    @property
    def state(self) -> Path:
        """Return the directory of the broker's state."""
        return self.home / ".local/state/mcp-broker"

    @property
    def pid(self) -> int | None:
        """Return the pid of the broker that runs, by what its lock says."""
        with suppress(OSError, ValueError):
            pid = int((self.state / "daemon.lock").read_text().split()[0])
            if b"serve" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        return None

    def records(self, event: str) -> list[dict[str, Any]]:
        """Return the audit records of one kind."""
        lines = (self.state / "audit/audit.jsonl").read_text().splitlines()
        return [record for record in map(json.loads, lines) if record["event"] == event]

    def daemons(self) -> set[int]:
        """Return every broker that runs here, by the kernel's word: what has this root and that command."""
        found = set()
        for place in Path("/proc").iterdir():
            with suppress(OSError):
                here = place.name.isdecimal() and (place / "root").readlink() == self._root
                if here and b"serve" in (place / "cmdline").read_bytes().split(b"\0"):
                    found.add(int(place.name))
        return found

    def end(self) -> None:
        """End every broker of this account."""
        for pid in self.daemons():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until(lambda: not self.daemons(), said="the end of all brokers")

    def kill(self) -> int | None:
        """End the broker that runs with SIGKILL, if there is one; return its pid."""
        pid = self.pid
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return pid


@contextmanager
def desk(directory: Path, command: Path, *, ready: bool = True) -> Iterator[Desk]:
    """Give an account; where it is ``ready`` it has a config, a master key and a secret, and no broker runs."""
    (directory / "home").mkdir()
    os.chown(directory / "home", PERSON, PERSON)
    memory = directory / "memory"
    memory.mkdir()
    script = f"""
        set -e
        mount -t tmpfs -o mode=0755 none {shlex.quote(str(memory))}
        cd {shlex.quote(str(memory))}
        mkdir upper work root
        mount -t overlay -o lowerdir=/,upperdir=$PWD/upper,workdir=$PWD/work none root
        cd root
        mount -t tmpfs -o mode=0755 none run
        {MARKS}
        for place in proc dev sys; do mount --rbind /$place $place; done
        mount --rbind {shlex.quote(str(directory))} .{shlex.quote(str(directory))}
        exec chroot . "$@"
    """
    words = [*as_user(PERSON), "sh", "-c", "echo; exec sleep 1000"]
    inside = ["unshare", "--mount", "--propagation=private", "sh", "-c", script, "sh", *words]
    holder = subprocess.Popen(inside, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd="/")
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"\n"
    found = Desk(directory, holder.pid, command)
    try:
        if ready:
            prepare(found)
        yield found
    finally:
        found.end()
        holder.kill()
        holder.wait()
        holder.stdout.close()


def prepare(desk: Desk) -> None:
    """Do what a person does first; the broker is stopped in the end."""
    desk.do("init", "--yes")
    config = desk.home / ".config/mcp-broker/broker.d/servers.toml"
    config.write_text(SERVERS)
    os.chown(config, PERSON, PERSON)
    desk.do("secret", "set", "github", stdin="made up")
    desk.do("stop")
    until(lambda: not desk.daemons(), said="the end of the broker")


def race(commands: Sequence[Sequence[str]]) -> list[subprocess.Popen[bytes]]:
    """Start all commands at once, as clients do."""
    pipe = subprocess.PIPE
    return [subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, cwd="/") for words in commands]


def finished(racers: Sequence[subprocess.Popen[bytes]]) -> list[tuple[int, bytes, bytes]]:
    """Wait for the end of them all; return how each ended."""
    told = [racer.communicate(timeout=120) for racer in racers]
    return [(racer.returncode, *each) for racer, each in zip(racers, told, strict=True)]


PYTHON: Final = sys.executable
