"""
A broker without a disk, a socket or a moment's wait: what the fuzzers and the property tests speak to.

The door, both dialects, the verbs and the rules are the real ones. The secret is
in memory, and the audit log is not open, so that every release is refused at the
last step and none leaves. It refuses to hide anything: whatever is logged as an
error is an error of the one who made it happen.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from backends.base import Credential, Health, Secret
from broker.api.door import Entrance
from broker.api.verbs import WORKLOAD
from broker.attest import Attestor, boot_id, overflow_uid
from broker.books import Books
from broker.config.document import parse
from broker.config.loader import build
from broker.core.leases import LeaseTable
from broker.core.limits import RateLimit
from broker.endings import Endings
from broker.paths import within
from broker.refusals import Refusals
from broker.rotation.assembly import rotations_of
from broker.running import Running
from broker.service import Service
from broker.store import Store

CONFIG: Final = """
[servers.gh]
command = ["true"]
env.GITHUB_TOKEN = "{github}"

[limits]
requests_per_second = 0
message_bytes = 4096
"""

_STILL: Final = 12
"""Turns of the loop without a word after which whatever can be answered without waiting has been."""

_MOST_TURNS: Final = 10_000
"""Turns after which a broker that listens to nobody is given up."""


class Held:
    """A backend that has one secret in memory."""

    name = "local"

    async def open(self) -> None:
        """Have nothing to open."""

    async def close(self) -> None:
        """Have nothing to close."""

    def mints(self, path: str) -> bool:
        """Say that nothing here can be revoked."""
        return path == "minted"

    def at_hand(self, path: str) -> Credential | None:
        """Return the secret."""
        return Credential(values={"value": Secret("made up")}, version=1) if path == "github" else None

    async def issue(self, path: str, *, params: Mapping[str, Any], intent: str) -> Credential:  # noqa: ARG002
        """Return the secret, whatever its path."""
        return Credential(values={"value": Secret("made up")}, version=1)

    async def renew(self, backend_lease: str, *, increment: float) -> float:  # noqa: ARG002
        """Give what is asked for."""
        return increment

    async def revoke(self, backend_lease: str) -> None:
        """Have nothing to revoke."""

    async def health(self) -> Health:
        """Be well."""
        return Health(state="ok")


class Pipe(asyncio.Transport):
    """The broker's end of a connection whose other end is a test."""

    def __init__(self, sock: socket.socket) -> None:
        """Be connected by ``sock``, as far as the kernel is asked."""
        super().__init__(extra={"socket": sock})
        self.said = bytearray()
        self.paused = False
        self.lost: Callable[[], None] = lambda: None
        self._closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep what the broker says."""
        if not self._closing:
            self.said += data

    def close(self) -> None:
        """End the connection."""
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(self.lost)

    def abort(self) -> None:
        """End it at once, which is the same here."""
        self.close()

    def is_closing(self) -> bool:
        """Return whether it has ended."""
        return self._closing

    def pause_reading(self) -> None:
        """Keep what comes for later."""
        self.paused = True

    def resume_reading(self) -> None:
        """Take what comes."""
        self.paused = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Take any amount."""


class _Complaints(logging.Handler):
    """Keeps what the broker logs as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


class Broker:
    """Answers what is said on a connection, at once."""

    def __init__(self) -> None:
        """Make all parts; nothing is opened but a pair of sockets."""
        self._runner = asyncio.Runner()
        self._complaints = _Complaints()
        logging.getLogger().addHandler(self._complaints)
        self._ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._entrance = self._runner.run(self._made())

    async def _made(self) -> Entrance:
        entrance = Entrance("broker", running(), WORKLOAD)
        await entrance.http()
        return entrance

    def close(self) -> None:
        """Let go of all of it."""
        self._runner.run(self._entrance.close())
        self._runner.close()
        for end in self._ends:
            end.close()
        logging.getLogger().removeHandler(self._complaints)

    def hears(self, chunks: Sequence[bytes], *, ends: bool = False) -> bytes:
        """
        Return what is answered on a connection of its own to what comes in these pieces.

        Args:
            chunks: what is said; each piece arrives when what came before has had its effect.
            ends: whether the other end then says that nothing more will come.

        Raises:
            AssertionError: something was logged as an error.

        """
        said = self._runner.run(self._hear(chunks, ends=ends))
        if self._complaints.texts:
            raise AssertionError(self._complaints.texts)
        return said

    async def _hear(self, chunks: Sequence[bytes], *, ends: bool) -> bytes:
        pipe, door = Pipe(self._ends[0]), self._entrance.protocol()
        pipe.lost = lambda: door.connection_lost(None)
        door.connection_made(pipe)
        for chunk in chunks:
            await asyncio.sleep(0)
            await _while_paused(pipe)
            if pipe.is_closing():
                break
            door.data_received(chunk)
        await _while_paused(pipe)
        if ends and not pipe.is_closing() and not door.eof_received():
            pipe.close()
        await _quiet(pipe)
        pipe.close()
        await asyncio.sleep(0)
        return bytes(pipe.said)


async def _while_paused(pipe: Pipe) -> None:
    """Wait until the broker wants to hear more."""
    for _ in range(_MOST_TURNS):
        if not pipe.paused or pipe.is_closing():
            return
        await asyncio.sleep(0)


async def _quiet(pipe: Pipe) -> None:
    """Wait until the broker has said what it can say without waiting for anything."""
    said, still = 0, 0
    while still < _STILL:
        await asyncio.sleep(0)
        still = still + 1 if said == len(pipe.said) and not pipe.paused else 0
        said = len(pipe.said)
        if pipe.is_closing():
            return


def running() -> Running:
    """Return the parts of a broker that has a config and a secret, and no disk."""
    places = within(Path("/nonexistent"))
    config = build([parse(CONFIG, Path("broker.toml"))], mode="user", uid=os.getuid(), types=frozenset({"sealed"}))
    books = Books(places, config, clock=lambda: 0.0)
    audit, store, leases = books.audit, Store(places.state / "state.db"), LeaseTable()
    backends = {"local": Held()}
    boot = boot_id()
    endings = Endings(backends=backends, store=store, audit=audit, leases=leases)
    endings.open([], [], boot=boot)
    refusals = Refusals(mode=places.mode, audit=audit)
    service = Service(
        config, backends=backends, store=store, audit=audit, leases=leases, endings=endings, refusals=refusals
    )
    return Running(
        places=places,
        service=service,
        endings=endings,
        refusals=refusals,
        audit=audit,
        store=store,
        leases=leases,
        rotations=rotations_of(service, state=places.state),
        backends=backends,
        attestor=Attestor(boot=boot, hidden_uid=overflow_uid()),
        rate=RateLimit(0),
        started_at=0.0,
        loaded_at=0.0,
        clock=lambda: 0.0,
        books=books,
        alarms=books.alarms,
        reload=_nothing_to_reload,
        stop=lambda _: None,
    )


async def _nothing_to_reload() -> list[str]:
    return []
