"""
Runs ``exec`` as a client does: by its path, shut off, with the environment a client passes on.

It refuses to pass on the environment of the tests.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent.parent
PREFIX: Final = [sys.executable, "-I", "-S", str(ROOT / "broker/exec.py")]

CLIENT_ENVIRONMENT: Final[Mapping[str, str]] = {
    "HOME": "/root",
    "LOGNAME": "root",
    "PATH": "/usr/bin:/bin",
    "SHELL": "/bin/sh",
    "TERM": "dumb",
    "USER": "root",
}
"""All that the official SDKs pass on to a server."""

TELL: Final = """
import json, os, signal, sys
json.dump({
    "argv": sys.argv[1:],
    "environment": dict(e.split("=", 1) for e in open("/proc/self/environ").read().split("\\0") if e),
    "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + name)),
    "pid": os.getpid(),
    "status": open("/proc/self/status").read(),
    "directory": os.getcwd(),
}, sys.stdout)
"""
"""A server that says what it was given. Run with ``-I -S``: it must not depend on what it was given."""


def teller(*arguments: str) -> list[str]:
    """Return the command of a server that says what it was given."""
    return [sys.executable, "-I", "-S", "-c", TELL, *arguments]


def run(
    words: Sequence[str],
    *,
    send: bytes = b"",
    environment: Mapping[str, str] = CLIENT_ENVIRONMENT,
    directory: Path | None = None,
    prefix: Sequence[str] = tuple(PREFIX),
    pass_fds: Sequence[int] = (),
) -> subprocess.CompletedProcess[bytes]:
    """Run ``exec`` with ``words`` to its end."""
    return subprocess.run(
        [*prefix, *words],
        input=send,
        capture_output=True,
        env=dict(environment),
        cwd=directory,
        timeout=60,
        check=False,
        pass_fds=pass_fds,
    )


def told(done: subprocess.CompletedProcess[bytes]) -> dict[str, Any]:
    """Return what the telling server said."""
    found: dict[str, Any] = json.loads(done.stdout)
    return found
