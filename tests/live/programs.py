"""
Other people's servers as ``make live-servers`` installs them, and the official client.

It refuses to stand in for any of them: what is not installed is skipped, with
the command that installs it.
"""

import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import mcp_types
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters

from tests.running import RunningBroker, start

ROOT: Final = Path(__file__).resolve().parent.parent.parent
INSTALLED: Final = ROOT / ".cache/live"

LEGACY: Final = "2025-11-25"
MODERN: Final = "2026-07-28"

PATIENCE: Final = 60.0
"""Seconds for a session. A server from npm needs half of one to start."""


def installed(place: str) -> str:
    """Return the path of something that was installed, or skip the test."""
    path = INSTALLED / place
    if not path.exists():
        pytest.skip(f"needs {path.relative_to(ROOT)}, which `make live-servers` installs")
    return str(path)


def everything() -> list[str]:
    """Return the command of the server whose tool ``get-env`` shows its environment."""
    return ["node", installed("npm/node_modules/@modelcontextprotocol/server-everything/dist/index.js"), "stdio"]


def table(name: str, command: Sequence[str], *more: str) -> str:
    """Return a server's table in the config; JSON's strings are TOML's, too."""
    return "\n".join([f"[servers.{name}]", f"command = {json.dumps(list(command))}", *more, ""])


@contextmanager
def broker(directory: Path, config: str, **secrets: str | Mapping[str, str]) -> Iterator[RunningBroker]:
    """Run a broker."""
    with start(directory, config=config, secrets=secrets) as running:
        yield running


@asynccontextmanager
async def session(
    command: Path, words: Sequence[str], *, mode: str = "auto", environment: Mapping[str, str] | None = None
) -> AsyncIterator[Client]:
    """Start ``mcp-broker exec`` with ``words`` under the official client, as its config would."""
    server = StdioServerParameters(
        command=str(command), args=["exec", *words], env=dict(environment) if environment else None
    )
    with anyio.fail_after(PATIENCE):
        async with Client(server, mode=mode, read_timeout_seconds=PATIENCE) as client:
            yield client


def text(result: mcp_types.CallToolResult) -> str:
    """Return what a tool said; fail where it failed."""
    said = "".join(part.text for part in result.content if isinstance(part, mcp_types.TextContent))
    assert not result.is_error, said
    return said


def leases(running: RunningBroker) -> list[dict[str, Any]]:
    """Return what is out."""
    found: list[dict[str, Any]] = running.admin("lease/list")["leases"]
    return found


def program(lease: Mapping[str, Any]) -> str:
    """Return the name of the program that the process of a lease runs, by the kernel's word."""
    return Path(f"/proc/{lease['pid']}/exe").readlink().name
