"""
The config in force, and how another takes its place: as a whole or not at all.

Files are read on a thread of their own: a home directory that hangs holds up a
reload and nothing else.
"""

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from backends.key_option import default_key_file
from backends.worker import Worker, settled
from broker.config import BackendConfig, Config, load
from broker.config.changes import changes
from broker.config.files import Stamp, stamp
from broker.config.recording import AuditConfig
from broker.core.limits import RateLimit
from broker.errors import BrokerError, ConfigError, UnavailableError
from broker.paths import Places
from broker.running import Running

Found = TypeVar("Found")

_log: Final = logging.getLogger("mcp_broker.config")

DEADLINE: Final = 10.0
"""Seconds that the files may take to be read."""

MOST_AT_ONCE: Final = 16
"""Reloads that wait for each other."""


class Reloading:
    """Reads the config again, and puts it in force."""

    def __init__(self, places: Places) -> None:
        """Read the config for the first time. Raises ``ConfigError``."""
        self._places = places
        self._stamp: Stamp | None = stamp(places)
        """Of the files that were read last, or None where they could not be: whatever is there then is read again."""
        self.config = load(places)
        self._worker = Worker("config")
        self._jobs: set[Future[Any]] = set()

    async def reload(self, running: Running) -> list[str]:
        """
        Read the config again and put it in force; return what changed.

        Raises:
            ConfigError: it is wrong; the one in force stays.
            UnavailableError: it cannot be read now.

        """
        self._stamp = None
        try:
            self._stamp, config = await self._read()
            if isinstance(config, ConfigError):
                raise config
            self._require_same_backends(config)
            _require_same_log(self.config.audit, config.audit)
        except ConfigError as error:
            running.config_error = str(error)
            running.audit.note("config/refused", reason=" ".join(error.message.splitlines()))
            raise
        changed = changes(self.config, config)
        self.config = config
        running.service.adopt(config)
        if running.rate.rate != config.limits.requests_per_second:
            running.rate = RateLimit(config.limits.requests_per_second)
        running.alarms.adopt(config.notify)
        running.config_error = None
        running.loaded_at = running.clock()
        if changed:
            running.audit.note("config/changed", changed=changed)
        return changed

    async def look(self, running: Running) -> None:
        """Reload where the files are not what they were; say in the log what came of it."""
        if self._jobs:
            return
        try:
            now = await self._on_thread(lambda: stamp(self._places))
        except BrokerError:
            self._stamp = None
            raise
        if now != self._stamp:
            await self.reload_and_tell(running)

    async def reload_and_tell(self, running: Running) -> None:
        """Reload, and say in the log what came of it."""
        try:
            for line in await self.reload(running):
                _log.info("config: %s", line)
        except BrokerError as error:
            _log.error("the config stays as it was: %s", error)

    def close(self) -> None:
        """Read no more."""
        self._worker.stop()

    async def _read(self) -> tuple[Stamp, Config | ConfigError]:
        def read() -> tuple[Stamp, Config | ConfigError]:
            # The stamp first: what changes while it is read is read again.
            before = stamp(self._places)
            try:
                return before, load(self._places)
            except ConfigError as error:
                return before, error

        return await self._on_thread(read)

    async def _on_thread(self, job: Callable[[], Found]) -> Found:
        """Do a job after those before it: who asks for a reload means the files as they are now, not as they were."""
        if len(self._jobs) >= MOST_AT_ONCE:
            message = "the config is being read already"
            raise UnavailableError(message, hint="mcp-broker reload, in a moment")
        future = self._worker.submit(job)
        self._jobs.add(future)
        future.add_done_callback(self._jobs.discard)
        if not await settled(future, DEADLINE):
            message = f"the config cannot be read: {self._places.config} does not answer"
            raise UnavailableError(message, hint=f"ls {self._places.config}")
        return future.result()

    def _require_same_backends(self, config: Config) -> None:
        if self._said(config.backends) != self._said(self.config.backends):
            message = "a changed [backends] table needs a restart of the broker"
            raise ConfigError(message, hint="mcp-broker stop, and start it again: no session ends by that")

    def _said(self, backends: Mapping[str, BackendConfig]) -> dict[str, tuple[str, dict[str, Any]]]:
        """Return what a backend table says; the default key file is the same whether it is said or not."""
        key = {"file": str(default_key_file(self._places.state))}
        said = {name: (each.type, dict(each.options)) for name, each in backends.items()}
        for _, options in said.values():
            if options.get("key") == key:
                del options["key"]
        return said


def _require_same_log(old: AuditConfig, new: AuditConfig) -> None:
    if old != new:
        message = "a changed [audit] table needs a restart of the broker"
        raise ConfigError(message, hint="mcp-broker stop, and start it again: no session ends by that")
