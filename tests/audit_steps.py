"""
What the tests of the audit log have in common: opening one, waiting for it, judging what it left.

This module refuses to know how the log works: it looks at what it says and at its files.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from broker.audit import AuditLog, Settings
from broker.audit_files import Files
from broker.core import chain
from broker.core.findings import Report
from broker.core.verification import split, verify
from broker.errors import AuditError

QUICK: Final = Settings(deadline=5.0, tick=0.02, patience=0.05, look=0.05, reserve=0)
"""A log that does not let a test wait, and does not give up on a disk that is merely busy."""

HASTY: Final = replace(QUICK, deadline=0.5)
"""A log that soon gives up on a disk that does not answer."""

PATIENCE: Final = 20.0
"""Seconds after which something is not going to happen any more."""


def run(body: Callable[[], Awaitable[None]]) -> None:
    """Run a test's body in a loop of its own."""

    async def whole() -> None:
        await body()

    asyncio.run(whole())


@asynccontextmanager
async def opened(directory: Path, *, settings: Settings = QUICK, files: Files | None = None) -> AsyncIterator[AuditLog]:
    """Open a log, and close it whatever happens."""
    log = AuditLog(directory, settings=settings, files=files)
    await log.open()
    try:
        yield log
    finally:
        await log.close()


async def until(true: Callable[[], bool]) -> None:
    """Wait for something, and fail where it does not come."""
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110 - it may become true in a file, of which no event tells
            await asyncio.sleep(0.005)


async def recovered(log: AuditLog) -> None:
    """Wait until the log writes again."""
    await until(lambda: log.state().accepts)


async def refused(log: AuditLog) -> str:
    """Return why a record was refused; fail where it was not."""
    try:
        await log.record("test/refused", uid=1)
    except AuditError as error:
        return error.message
    return "it was taken"


def judged(directory: Path) -> Report:
    """Verify what is in a directory."""
    names = chain.in_order(path.name for path in directory.iterdir())
    return verify((name, split([(directory / name).read_bytes()])) for name in names)


def seen(directory: Path) -> list[tuple[str, str, bool]]:
    """Return what verification finds: kind, where, whether it is an alarm."""
    return [(finding.kind, finding.where, finding.alarm) for finding in judged(directory).findings]


def segments(directory: Path) -> list[str]:
    """Return the names of all segments, oldest first."""
    return chain.in_order(path.name for path in directory.iterdir())


def records(directory: Path) -> list[dict[str, Any]]:
    """Return every record of every segment that can be read."""
    lines = [text for name in segments(directory) for text in (directory / name).read_bytes().splitlines()]
    return [json.loads(text) for text in lines if chain.read(text) is not None]


def events(directory: Path) -> list[str]:
    """Return the events of every record, in order."""
    return [record["event"] for record in records(directory)]


def reasons(directory: Path) -> list[str]:
    """Return why each segment began."""
    return [record["why"] for record in records(directory) if record["event"] == chain.SEGMENT]
