"""
The daemon: puts the parts together, lets them run, takes them apart.

It starts in an order in which nothing can be asked before it can be answered:
hygiene, the lock, the config, the disk, the sockets, and only then ``READY``.
It refuses to import aiohttp, keyring or any backend's library: those load when
they are first needed.
"""

import asyncio
import gc
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from backends.base import Backend, BackendError, KeepingBackend, LoggedInBackend, Surroundings, UnhurriedBackend
from backends.registry import make
from broker import hygiene, logs, upgrade
from broker.api.door import STALLED_AFTER, Entrance
from broker.api.verbs import ADMIN, WORKLOAD
from broker.attest import Attestor, boot_id, overflow_uid
from broker.books import Books
from broker.config import Config
from broker.config.model import LOCAL
from broker.core.leases import LeaseTable
from broker.core.limits import RateLimit
from broker.endings import Endings
from broker.errors import BrokerError, ConfigError
from broker.idle import Idle, needed
from broker.launch.files import sweep
from broker.listening import Listening
from broker.lock import Lock
from broker.paths import Places
from broker.refusals import Refusals
from broker.reloading import Reloading
from broker.rotation.assembly import rotations_of
from broker.running import Running
from broker.scheduler import Scheduler
from broker.service import Service
from broker.store import Store
from broker.systemd import Notifier, passed_sockets
from broker.translate import translated
from broker.watch import Watch

_log: Final = logging.getLogger("mcp_broker")

RESERVED: Final = 512
"""Descriptors for everything but the workloads' connections and processes: files, admins, backends."""

EACH: Final = 4
"""Descriptors for one workload: its connection, two holds on its process, and one to spare."""

SETTLE: Final = 5.0
"""Seconds that the end waits for revocations under way."""

ENDING: Final = 10.0
"""Seconds that a broker that somebody needs waits for one that is just ending."""

DRAIN: Final = 3.0
"""Seconds that who has asked is answered in before the program is replaced; who asks then waits for the new one."""


def serve(places: Places, *, stalled_after: float = STALLED_AFTER, idle: float | None = None) -> int:
    """
    Run the daemon until it is told to stop; return its exit status.

    Args:
        places: where its config, its state and its sockets are.
        stalled_after: seconds that a connection may stop in the middle of something.
        idle: seconds after which it ends when nobody needs it, or None.

    Raises:
        ConfigError: the config is wrong, so nothing was started.
        UnavailableError: another broker runs here.
        IntegrityError: what is stored is damaged.

    """
    environment = dict(os.environ)
    passed = passed_sockets(environment, pid=os.getpid())
    notifier = Notifier(environment, pid=os.getpid())
    hygiene.harden()
    hygiene.close_inherited(passed.values())
    hygiene.clean_environment(os.environ)
    logs.begin(sys.stderr)
    places.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    # What is there now stays; what a request makes is freed by counting references. Cycles are rare, and can wait.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    lock = Lock(places.state, patience=0.0 if idle is None else ENDING, inherited=passed.pop("lock", None))
    try:
        daemon = Daemon(places, passed, notifier, lock, stalled_after=stalled_after, idle=idle)
        import uvloop  # noqa: PLC0415 -- the only place that needs to know which loop it is

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(daemon.run())
        if daemon.handed_over:
            upgrade.become({**daemon.handed_over, "lock": lock.descriptor}, notifier.told)
    finally:
        lock.release()
    return 0


class Daemon:
    """One run of the broker."""

    def __init__(
        self,
        places: Places,
        passed: Mapping[str, int],
        notifier: Notifier,
        lock: Lock,
        *,
        stalled_after: float = STALLED_AFTER,
        idle: float | None = None,
    ) -> None:
        """Read the config; nothing else is touched yet."""
        self.handed_over: dict[str, int] = {}
        """The sockets for the program that this process is to become; empty where it is to end."""
        self._lock = lock
        self._idle = idle
        self._listening: Listening | None = None
        self._installed = upgrade.Installed(_packages(), python=Path(sys.executable))
        self._upgrading: asyncio.Task[None] | None = None
        self._stalled_after = stalled_after
        self._places = places
        self._passed = passed
        self._notifier = notifier
        self._reloading = Reloading(places)
        self._config = self._reloading.config
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping: asyncio.Event | None = None
        self._revoke = False
        self._running: Running | None = None

    async def run(self) -> None:
        """Start, run until told to stop, end in order."""
        self._stopping = asyncio.Event()
        sys.meta_path.insert(0, upgrade.Guard(self._installed))
        async with self._parts() as running, self._open_to_all(running) as listening:
            self._running, self._listening = running, listening
            if self._places.mode == "user":
                running.service.refresh = partial(self._look, running)
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._stop, False)  # noqa: FBT003 -- takes positions only
            loop.add_signal_handler(signal.SIGHUP, self._reload_by_signal)
            scheduler = asyncio.create_task(
                Scheduler(
                    running,
                    each_tick=(
                        self._look_at_config,
                        running.books.tick,
                        Watch(running).tick,
                        self._sweep,
                        self._report,
                        running.service.reading.tick,
                        running.rotations.tick,
                        self._look_around,
                        *([] if self._idle is None else [Idle(running, self._idle, self._when_idle).tick]),
                    ),
                    sweeps=[entrance.sweep for entrance in listening.entrances],
                ).run()
            )
            self._notifier.tell("READY=1", f"STATUS={self._headline(running)}")
            _log.info("ready: %s", self._places.broker_socket)
            await self._stopping.wait()
            if self.handed_over:
                await listening.drain(DRAIN)
            else:
                self._notifier.tell("STOPPING=1")
            for task in (scheduler, *self._tasks):
                task.cancel()
            await asyncio.wait([scheduler])
            self._reloading.close()
            if self._revoke:
                await self._revoke_all(running)

    @asynccontextmanager
    async def _parts(self) -> AsyncIterator[Running]:
        """Open everything that is behind the sockets; close it in the end."""
        places, clock = self._places, time.time
        books = Books(places, self._config, clock=clock)
        audit = books.audit
        store = Store(places.state / "state.db")
        leases = LeaseTable()
        backends = self._backends(self._config)
        endings = Endings(backends=backends, store=store, audit=audit, leases=leases, clock=clock)
        refusals = Refusals(mode=places.mode, audit=audit, clock=clock)
        service = Service(
            self._config,
            backends=backends,
            store=store,
            audit=audit,
            leases=leases,
            endings=endings,
            refusals=refusals,
            clock=clock,
        )
        endings.forget = service.minting.forget
        rotations = rotations_of(service, state=places.state)
        boot = boot_id()
        stored, intents = await store.open()
        await rotations.open()
        await books.open()
        try:
            await asyncio.gather(*(self._open(backend) for backend in backends.values()))
            endings.open(stored, intents, boot=boot)
            yield Running(
                places=places,
                service=service,
                endings=endings,
                refusals=refusals,
                audit=audit,
                store=store,
                leases=leases,
                rotations=rotations,
                backends=backends,
                attestor=Attestor(boot=boot, hidden_uid=overflow_uid()),
                rate=RateLimit(self._config.limits.requests_per_second),
                started_at=clock(),
                loaded_at=clock(),
                clock=clock,
                books=books,
                alarms=books.alarms,
                reload=self._reload,
                stop=self._stop,
            )
        finally:
            await rotations.close()
            await endings.revoker.settle(SETTLE)
            service.reading.close()
            endings.close()
            refusals.close()
            await asyncio.gather(*(self._close(backend) for backend in backends.values()))
            await store.close()
            await books.close()

    @asynccontextmanager
    async def _open_to_all(self, running: Running) -> AsyncIterator[Listening]:
        """Listen on both sockets; take away in the end those that are ours."""
        owners = frozenset({os.getuid(), 0}) if self._places.mode == "user" else None
        patience = self._stalled_after
        entrances = (
            Entrance("broker", running, WORKLOAD, most=most_connections(), stalled_after=patience),
            Entrance("admin", running, ADMIN, owners=owners, stalled_after=patience),
        )
        listening = Listening(self._places, self._passed, entrances)
        await listening.open()
        self._lock.name(listening.places.broker_socket)
        try:
            yield listening
        finally:
            await listening.close(keep=bool(self.handed_over))

    def _look_around(self, _: float) -> None:
        """See whether the sockets are where clients look, and whether the program was replaced on the disk."""
        if self._upgrading is None or self._upgrading.done():
            self._upgrading = self._soon(self._looked_around())

    async def _looked_around(self) -> None:
        assert self._listening is not None
        if moved := await self._listening.look():
            _log.info("listening anew: %s", moved)
            self._lock.name(self._listening.places.broker_socket)
        # On a thread, because the disk that the program is on may hang.
        if not await asyncio.to_thread(self._installed.replaced):
            return
        # Who has something minted is not cut off: the next second is as good.
        if any(entrance.slow(time.monotonic()) for entrance in self._listening.entrances):
            return
        try:
            trouble = await upgrade.loads()
        except OSError as error:
            trouble = error.strerror or "it cannot be started"
        if trouble:
            _log.error("the program was replaced by one that does not load: %s", trouble)
            await asyncio.sleep(upgrade.TRY_AGAIN)
            return
        assert self._stopping is not None
        if not self._stopping.is_set():
            _log.info("the program was replaced; starting again")
            self.handed_over = self._listening.handed_over()
            self._stopping.set()

    def _when_idle(self) -> None:
        self._soon(self._leave())

    async def _leave(self) -> None:
        """End, unless somebody comes at the last moment."""
        assert self._listening is not None
        assert self._running is not None
        await self._listening.withdraw()
        if needed(self._running):
            self._listening.stay()
            return
        _log.info("nobody needs this broker any more")
        self._stop(False)  # noqa: FBT003 -- takes positions only

    def _backends(self, config: Config) -> dict[str, Backend]:
        places, made, shared = self._places, dict[str, Backend](), dict[str, Any]()
        # The sealed store first: the others keep in it what has to outlive a restart.
        for name, configured in sorted(config.backends.items(), key=lambda each: each[0] != LOCAL):
            local = made.get(LOCAL)
            drawer = local.drawer(name) if isinstance(local, KeepingBackend) else None
            surroundings = Surroundings(
                mode=places.mode, config=places.config, state=places.state, drawer=drawer, shared=shared
            )
            try:
                made[name] = make(configured.type, name, configured.options, surroundings)
            except BackendError as error:
                message = f"{configured.where}: [backends.{name}]: {error.message}"
                raise ConfigError(message, hint=error.hint) from None
        return made

    async def _open(self, backend: Backend) -> None:
        """Open a backend; nobody waits for one that takes its time, and one that cannot be used says so when asked."""
        opening = self._soon(self._opened(backend))
        done, _ = await asyncio.wait([opening], timeout=SETTLE)
        if not done:
            _log.warning("backend %s: it takes its time to open", backend.name)

    async def _opened(self, backend: Backend) -> None:
        try:
            await backend.open()
            if isinstance(backend, UnhurriedBackend) and backend.idle:
                return
            async with asyncio.timeout(SETTLE):
                health = await backend.health()
        except (BackendError, TimeoutError) as error:
            _log.warning("backend %s: %s", backend.name, translated(error).message)
            return
        except Exception as error:  # noqa: BLE001 -- one bad backend must not keep the others from anybody
            _log.error("backend %s could not be opened: %s", backend.name, type(error).__name__)
            return
        if health.state != "ok":
            mend = f"; hint: {health.hint}" if health.hint else ""
            _log.warning("backend %s: %s%s", backend.name, health.detail or health.state, mend)

    async def _close(self, backend: Backend) -> None:
        """Close a backend; one that cannot be closed must not keep the audit log from being."""
        try:
            async with asyncio.timeout(SETTLE):
                await backend.close()
        except Exception as error:  # noqa: BLE001 -- see above
            _log.warning("backend %s could not be closed: %s", backend.name, type(error).__name__)

    async def _reload(self) -> list[str]:
        assert self._running is not None
        return await self._reloading.reload(self._running)

    def _soon(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Have something done beside everything else; it is ended with the daemon."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _reload_by_signal(self) -> None:
        self._soon(self._reload_for_systemd())

    async def _reload_for_systemd(self) -> None:
        assert self._running is not None
        self._notifier.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        await self._reloading.reload_and_tell(self._running)
        self._notifier.tell("READY=1")

    def _look_at_config(self, _: float) -> None:
        """In user mode a changed config is read by itself."""
        if self._places.mode == "user" and self._running is not None:
            self._soon(self._look(self._running))

    async def _look(self, running: Running) -> None:
        try:
            await self._reloading.look(running)
        except BrokerError as error:
            running.config_error = str(error)

    def _sweep(self, _: float) -> None:
        """Remove the files in memory whose process has ended."""
        sweep()

    def _report(self, _: float) -> None:
        assert self._running is not None
        lines = [f"STATUS={self._headline(self._running)}"]
        if self._notifier.watchdog:
            lines.append("WATCHDOG=1")
        self._notifier.tell(*lines)

    def _headline(self, running: Running) -> str:
        audit = running.audit.state()
        health = "healthy" if audit.accepts and not running.store.trouble else "refusing: " + (audit.detail or "store")
        return f"{health}; {len(running.leases)} leases, {running.leases.processes} processes"

    def _stop(self, revoke: bool) -> None:  # noqa: FBT001 -- called by position from a signal handler
        # Who says so while it is about to start again means the new one as well.
        while self.handed_over:
            os.close(self.handed_over.popitem()[1])
        self._revoke = self._revoke or revoke
        if self._stopping is not None:
            self._stopping.set()

    async def _revoke_all(self, running: Running) -> None:
        for lease in running.leases:
            running.endings.end(lease, "lease/revoked", "the broker was stopped with --revoke")
        await running.endings.revoker.settle(SETTLE, everything=True)
        if left := len(running.endings.revoker):
            _log.warning("%d leases could not be given back yet; they will be at the next start", left)
        await asyncio.gather(*(self._log_out(each) for each in running.backends.values()))

    async def _log_out(self, backend: Backend) -> None:
        """Have a backend give its login back; what could not be revoked under it is worthless then, too."""
        if not isinstance(backend, LoggedInBackend):
            return
        try:
            async with asyncio.timeout(SETTLE):
                await backend.log_out()
        except Exception as error:  # noqa: BLE001 -- it must not keep the broker from ending
            _log.warning("backend %s did not log out: %s", backend.name, type(error).__name__)


def _packages() -> list[Path]:
    """Return the directories of our packages, which an upgrade replaces."""
    here = Path(__file__).resolve().parent
    return [here, here.parent / "backends"]


def most_connections() -> int:
    """Return how many connections of workloads the descriptors of this process are enough for."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(16, (most - RESERVED) // EACH)
