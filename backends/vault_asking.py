"""
Asking as somebody: with the broker's token, once for all who want the same, and where to ask for what.

It refuses to ask twice because of a "permission denied": a token that has died
is replaced once, and one that lives has been told no.
"""

import asyncio
import importlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final, final

from backends import vault_engines
from backends.base import LeaseGoneError, MisconfiguredError, RefusedError, SecretNotFoundError, UnavailableError
from backends.vault_engines import Mount
from backends.vault_kept import Kept
from backends.vault_line import Line, Spoken
from backends.vault_meaning import meaning
from backends.vault_tokens import Tokens
from backends.vault_wire import Answer, Kind

_log: Final = logging.getLogger("mcp_broker.vault")


@final
class Asking:
    """The line and the tokens of one backend, and what is known of its mounts."""

    def __init__(self, name: str, line: Line, tokens: Tokens) -> None:
        """Take what there is; nothing is asked yet."""
        self.calls: Any = None
        """``vault_calls``, loaded when the backend opens."""
        self._name = name
        self._line = line
        self._tokens = tokens
        self._mounts: dict[str, Mount] = {}
        self._shared: dict[object, asyncio.Task[Any]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._warned: set[str] = set()

    async def open(self) -> None:
        """Load what asking needs, and begin to log in. Nobody waits for a server."""
        if self.calls is None:
            await self._line.open()
            await asyncio.to_thread(self._tokens.open)
            self.calls = await asyncio.to_thread(importlib.import_module, "backends.vault_calls")
            self.soon(self._tokens.mind())

    async def close(self) -> None:
        """Let go of everything."""
        tasks = [task for task in self._tasks if not task.done()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)
        self._tokens.close()
        self._line.close()

    def require_open(self) -> None:
        """Raise ``UnavailableError`` where nobody has opened it."""
        if self.calls is None:
            message = "it was not opened yet"
            raise UnavailableError(message)

    async def ask(
        self,
        say: Spoken,
        *,
        what: str,
        minting: bool = False,
        reading: bool = False,
        kept: Kept | None = None,
        token: Any = None,  # noqa: ANN401
    ) -> tuple[Answer, Kept]:
        """
        Ask with the broker's token, or with one below it; where that has died meanwhile, log in and ask once more.

        Raises every ``BackendError``, and no fault of the server's.
        """
        fault_error: type[Exception] = self._line.http.FaultError
        for last in (False, True):
            own = kept if kept is not None and not last else await self._tokens.current()
            try:
                answer = await self._line.ask(say, token=token or own.secret, minting=minting, reading=reading)
            except fault_error as error:
                fault = error.fault  # type: ignore[attr-defined]  # of a class that is loaded late
                if fault.kind is Kind.FORBIDDEN and not last and token is None and not await self._tokens.lives(own):
                    continue
                raise meaning(fault, what=what, backend=self._name) from None
            self._warn(answer, what)
            return answer, own
        raise AssertionError

    def _warn(self, answer: Answer, what: str) -> None:
        """Say in the log what the server warns of, once for each path."""
        if (answer.capped or answer.wrong_kv_path) and what not in self._warned:
            self._warned.add(what)
            said = "the server has cut the time that was asked for down to its max_ttl"
            _log.warning("backend %s: %s: %s", self._name, what, said if answer.capped else Kind.VERSIONED.value)

    async def take_back(self, say: Spoken) -> None:
        """Ask for something to be revoked; that it is not known is a success."""
        try:
            await self.ask(say, what="a revocation")
        except (SecretNotFoundError, LeaseGoneError):
            return

    async def once(self, key: object, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:  # noqa: ANN401
        """Do something once for all who want it at the same time. Who goes away takes nothing from the others."""
        task = self._shared.get(key)
        if task is None:
            task = self._shared[key] = self.soon(work())
            task.add_done_callback(lambda _: self._shared.pop(key, None))
        return await asyncio.shield(task)

    def soon(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Have something done beside everything else; it ends with the backend."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Whoever waited got it; where everybody has gone there is nobody to tell.
            task.exception()

    def mount(self, path: str) -> Mount | None:
        """Return what is known to be mounted at a path; of two, the one further in."""
        path = path.strip("/") + "/"
        known = [mount for mount in self._mounts.values() if path.startswith(mount.path)]
        return max(known, key=lambda mount: len(mount.path), default=None)

    async def mounted(self, path: str) -> Mount | None:
        """Return what is mounted at a path, asking once; None where the server does not say."""
        self.require_open()
        known = self.mount(path)
        if known is not None:
            return known
        found: Mount | None = await self.once(("mount", path.partition("/")[0], path), lambda: self._locate(path))
        return found

    async def _locate(self, path: str) -> Mount | None:
        try:
            answer, _ = await self.ask(self.calls.locating(path.strip("/")), what=path, reading=True)
        except (SecretNotFoundError, MisconfiguredError, RefusedError):
            # Refused is also what this path says where nothing is mounted: what asks next knows which of the two.
            return None
        mount = vault_engines.mount_of(answer.data)
        if mount is not None:
            self._mounts[mount.path] = mount
        return mount
