"""
A broker's rotations without a broker: real stores on disk, a source in memory, a clock that stands still.

Between any two things that happen there is a ``moment``. There a test can end
everything, as a crash would, and there the judge looks: does what is current, and
what is held, still log in? After a crash a new ``Rotations`` opens what is on disk.
This module refuses to know in which order the steps come.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from backends.base import Backend, Credential, Drawer, Health, Secret, Version
from backends.master_key import KeyFile, create_key_file
from backends.sealed import SealedBackend
from broker.config import Config
from broker.core.leases import LeaseTable
from broker.core.model import Lease
from broker.errors import UnavailableError
from broker.rotation.journal import Course, Journal
from broker.rotation.oauth2 import Fetch, fetch
from broker.rotation.program import Asked, Run
from broker.rotation.rotations import Rotations
from broker.rotation.targets import Workshop

START: Final = 1_800_000_000.0

Values = Mapping[str, Secret]


class Crash(BaseException):
    """The broker ends here, at once."""


class Moments:
    """Counts what happens, and ends the world at one of them."""

    def __init__(self) -> None:
        """End it never."""
        self.count = 0
        self.last = 0
        self.judge: Callable[[], None] = lambda: None

    def pass_(self) -> None:
        """Let one moment go by."""
        self.count += 1
        self.judge()
        if self.count == self.last:
            raise Crash

    async def around(self, work: Awaitable[Any]) -> Any:  # noqa: ANN401 -- whatever it returns
        """Do something, with a moment before and one after."""
        try:
            self.pass_()
        except Crash:
            if asyncio.iscoroutine(work):
                work.close()
            raise
        found = await work
        self.pass_()
        return found


class FragileJournal(Journal):
    """A journal before and after whose writes the world may end."""

    def __init__(self, path: Path, moments: Moments) -> None:
        """Keep it at ``path``."""
        super().__init__(path)
        self.moments = moments

    async def write(self, course: Course) -> None:
        """Write."""
        await self.moments.around(super().write(course))


class FragileDrawer:
    """A drawer before and after whose writes the world may end."""

    def __init__(self, drawer: Drawer, moments: Moments) -> None:
        """Stand before ``drawer``."""
        self.drawer = drawer
        self.moments = moments

    async def read(self) -> Secret | None:
        """Return what was kept last."""
        return await self.drawer.read()

    async def write(self, value: Secret | None) -> None:
        """Keep a value."""
        await self.moments.around(self.drawer.write(value))


class FragileStore:
    """A sealed store before and after whose writes the world may end."""

    def __init__(self, store: SealedBackend, moments: Moments) -> None:
        """Stand before ``store``."""
        self.name = store.name
        self.store = store
        self.moments = moments

    async def open(self) -> None:
        """Open it."""
        await self.store.open()

    async def close(self) -> None:
        """Close it."""
        await self.store.close()

    def mints(self, path: str) -> bool:
        """Return False."""
        return self.store.mints(path)

    def at_hand(self, path: str) -> Credential | None:
        """Return what is current."""
        return self.store.at_hand(path)

    async def issue(self, path: str, *, params: Mapping[str, Any], intent: str) -> Credential:
        """Return what is current."""
        return await self.store.issue(path, params=params, intent=intent)

    async def renew(self, backend_lease: str, *, increment: float) -> float:
        """Refuse."""
        return await self.store.renew(backend_lease, increment=increment)

    async def revoke(self, backend_lease: str) -> None:
        """Do nothing."""

    async def health(self) -> Health:
        """Say how it is."""
        return await self.store.health()

    async def put(self, path: str, values: Values) -> int:
        """Write a version."""
        found: int = await self.moments.around(self.store.put(path, values))
        return found

    async def put_if(self, path: str, values: Values, *, expected: int | None) -> int:
        """Write a version over the one that is expected."""
        found: int = await self.moments.around(self.store.put_if(path, values, expected=expected))
        return found

    async def delete(self, path: str) -> None:
        """Remove a secret."""
        await self.moments.around(self.store.delete(path))

    async def list(self) -> Sequence[str]:
        """Return the names."""
        return await self.store.list()

    async def versions(self, path: str) -> Sequence[Version]:
        """Return the versions."""
        return await self.store.versions(path)

    def drawer(self, name: str) -> FragileDrawer:
        """Return a drawer."""
        return FragileDrawer(self.store.drawer(name), self.moments)

    async def rotate_key(self, *, reencrypt: bool = False) -> object:
        """Replace the master key; each of its stages is a moment, too."""
        rotating = self.store.rotate_key(reencrypt=reencrypt, stage=lambda _: self.moments.pass_())
        return await self.moments.around(rotating)


@dataclass
class Source:
    """Where users log in. A step before or after which it fails can be named."""

    moments: Moments
    logins: dict[str, str | None] = field(default_factory=dict)
    fails: set[tuple[str, str]] = field(default_factory=set)
    asked: list[tuple[str, str]] = field(default_factory=list)

    def lets_in(self, values: Values) -> bool:
        """Say whether a credential is good."""
        return self.logins.get(values["username"].expose()) == values["password"].expose()

    async def run(self, command: Sequence[str], asked: Asked, lock: Path) -> None:
        """Do a step, as an admin's program would."""
        del command, lock
        self.asked.append((asked.step, asked.token))
        await self.moments.around(self._do(asked))

    async def _do(self, asked: Asked) -> None:
        if (asked.step, "before") in self.fails:
            raise UnavailableError(said := "the source is away", hint=said)
        match asked.step:
            case "set":
                assert asked.pending
                self._good(asked.pending)
            case "test":
                assert asked.pending
                if not self.lets_in(asked.pending):
                    message = "the source refuses it"
                    raise UnavailableError(message)
            case "retire":
                self._shut_out(asked.previous, asked.current)
            case "abandon":
                self._good(asked.current)
                self._shut_out(asked.pending, asked.current)
            case _:
                message = f"a program has nothing to do with {asked.step}"
                raise AssertionError(message)
        if (asked.step, "after") in self.fails:
            message = "the answer was lost"
            raise UnavailableError(message)

    def _good(self, values: Values) -> None:
        self.logins[values["username"].expose()] = values["password"].expose()

    def _shut_out(self, values: Values | None, but: Values) -> None:
        if values and values["username"] != but["username"]:
            self.logins[values["username"].expose()] = None


@dataclass
class Noted:
    """An audit log in memory."""

    records: list[dict[str, Any]] = field(default_factory=list)

    async def record(self, event: str, **fields: Any) -> None:  # noqa: ANN401 -- audit fields
        """Keep a record."""
        self.note(event, **fields)

    def note(self, event: str, **fields: Any) -> None:  # noqa: ANN401
        """Keep a record."""
        self.records.append({"event": event} | {name: value for name, value in fields.items() if value is not None})

    def events(self) -> list[str]:
        """Return what happened."""
        return [each["event"].removeprefix("rotation/") for each in self.records]


class World:
    """Everything that outlives a crash, and the rotations of the moment."""

    def __init__(self, directory: Path, config: Config, *, run: Run | None = None, fetch: Fetch = fetch) -> None:
        """Describe it; ``open`` opens it."""
        self.directory = directory
        self.config = config
        self.now = START
        self.moments = Moments()
        self.source = Source(self.moments)
        self.audit = Noted()
        self.leases = LeaseTable()
        self.told: list[str] = []
        self.draw: Callable[[], float] = lambda: 0.0
        self.others: dict[str, Backend] = {}
        self._run = run or self.source.run
        self._fetch = fetch
        if not (directory / "master.key").exists():
            create_key_file(directory / "master.key")

    async def open(self) -> None:
        """Open what is on disk."""
        self.store = SealedBackend(
            "local", path=self.directory / "sealed.db", source=KeyFile(self.directory / "master.key"), clock=self.clock
        )
        await self.store.open()
        await self.rotations_again()

    async def rotations_again(self) -> None:
        """Drive what is in the journal."""
        self.rotations = Rotations(
            config=lambda: self.config,
            workshop=Workshop(
                backends={"local": FragileStore(self.store, self.moments), **self.others},
                locks=self.directory / "locks",
                clock=self.clock,
                run=self._run,
                fetch=self._fetch,
            ),
            journal=FragileJournal(self.directory / "rotations.db", self.moments),
            audit=self.audit,
            leases=self.leases,
            tell=self._tell,
            clock=self.clock,
            draw=self.draw,
        )
        await self.rotations.open()

    def clock(self) -> float:
        """Return the time."""
        return self.now

    def _tell(self, lease: Lease, reason: Literal["rotated"]) -> None:
        del reason
        self.told.append(lease.accessor)

    async def close(self) -> None:
        """Close everything; what is on disk stays."""
        await self.rotations.close()
        await self.store.close()

    async def tick(self, *, after: float = 0.0) -> None:
        """Let time pass, and have done what is due then. Raises ``Crash`` where the world ended."""
        self.now += after
        self.rotations.tick(self.now)
        while tasks := self.rotations.tasks:
            for each in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(each, Crash):
                    raise each
            await asyncio.sleep(0)

    async def crash(self) -> None:
        """Forget everything that is not on disk, and begin again from there."""
        self.moments.last = 0
        await self.close()
        await self.open()

    def current(self, name: str = "db") -> Values:
        """Return what is issued now."""
        found = self.store.at_hand(name)
        assert found is not None
        return found.values
