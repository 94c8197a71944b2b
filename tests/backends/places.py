"""What the tests of the sealed store share: stores in a directory, and keys that cost little."""

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from backends.base import Secret
from backends.master_key import KeyFile, KeySource, create_key_file
from backends.passphrase import Cost, PassphraseFile
from backends.sealed import SealedBackend
from tests.contract.backend import issue

_T = TypeVar("_T")

CHEAP = Cost(passes=1, kibibytes=64, lanes=1)
"""Argon2id that costs a test nothing."""


def key_file(directory: Path, name: str = "master.key") -> KeyFile:
    """Return a key file, made if it is not there."""
    path = directory / name
    if not path.exists():
        create_key_file(path)
    return KeyFile(path)


def passphrase_file(directory: Path, text: str = "correct horse battery\n", name: str = "passphrase") -> PassphraseFile:
    """Return a passphrase file, made if it is not there."""
    path = directory / name
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(text)
    return PassphraseFile(path, cost=CHEAP)


def sealed(directory: Path, source: KeySource | None = None, **settings: Any) -> SealedBackend:  # noqa: ANN401
    """Return the sealed store of a directory, not open yet."""
    return SealedBackend("local", path=directory / "sealed.db", source=source or key_file(directory), **settings)


def meddle(directory: Path) -> bool:
    """Change a stored secret as another program would; return that this is not allowed."""
    with closing(sqlite3.connect(directory / "sealed.db", isolation_level=None)) as connection:
        connection.execute("UPDATE secrets SET sealed = x'00'")
    return False


def using(backend: SealedBackend, job: Callable[[SealedBackend], Coroutine[Any, Any, _T]]) -> _T:
    """Open a store, do something with it, close it."""

    async def whole() -> _T:
        await backend.open()
        try:
            return await job(backend)
        finally:
            await backend.close()

    return asyncio.run(whole())


def put(directory: Path, name: str, value: str, source: KeySource | None = None) -> int:
    """Store one value in the store of a directory; return its version."""
    return using(sealed(directory, source), lambda backend: backend.put(name, {"value": Secret(value)}))


def get(directory: Path, name: str, source: KeySource | None = None) -> str:
    """Return one value from the store of a directory."""

    async def value(backend: SealedBackend) -> str:
        return (await issue(backend, name))["value"]

    return using(sealed(directory, source), value)
