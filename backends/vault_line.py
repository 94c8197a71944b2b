"""
Asking one of several addresses, off the loop, with a deadline, and not again and again.

A request goes to the address that answered last. What was surely not done may
be asked elsewhere; what may have been done is asked again only where that is
harmless. A server that does not answer is left alone for a while that grows:
until then everybody gets the error at once instead of a long wait each.

This module refuses to send a token to a host that the config does not name.
"""

import asyncio
import importlib
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn, final
from urllib.parse import urljoin, urlsplit

from backends.base import BackendError, LockedError, MisconfiguredError, OutcomeUnknownError, Secret, UnavailableError
from backends.vault_options import Address, VaultOptions
from backends.vault_pacing import Pacing
from backends.vault_wire import Answer, Fault, Kind
from backends.worker import Worker, settled

if TYPE_CHECKING:
    from backends.vault_http import Call, VaultAdapter, Wire

Spoken = Callable[["VaultAdapter"], Answer]
"""What is asked, in hvac's words."""

AT_ONCE: Final = 16
"""Requests under way at the same time."""

_LOOK_AGAIN: Final = 5.0
"""Seconds after which, while a standby is asked, somebody looks whether there is an active node again."""

_HEALTH_SECONDS: Final = 2.0
_JUST_BEFORE: Final = 0.05
_UNSTICK_SECONDS: Final = 0.5

_NOT_DONE: Final = frozenset(
    {Kind.SEALED, Kind.UNINITIALISED, Kind.NAMESPACE_LOCKED, Kind.STANDBY, Kind.LIMITED, Kind.NOT_YET, Kind.REDIRECT},
)
"""A server that says this has done nothing."""

_MAYBE_DONE: Final = frozenset({Kind.INTERNAL, Kind.UPSTREAM, Kind.GARBLED})


@final
class Line:
    """The way to one Vault, with all its addresses."""

    def __init__(self, name: str, options: VaultOptions, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Describe it; nothing is asked yet."""
        self.name = name
        self.skew: float | None = None
        """Seconds by which the server's clock is ahead of ours, to a second; None while it is not known."""
        self._options = options
        self._clock = clock
        self._worker = Worker(f"vault-{name}", threads=AT_ONCE)
        self._wires: dict[Address, Wire] = {}
        self._lock = threading.Lock()
        self._first = options.addresses[0]
        self._standby = False
        self._looked = 0.0
        self._last = 0.0
        self._silent = 0.0
        """When somebody has given up waiting, and nobody had got an answer since that one asked."""
        self._pacing = Pacing()
        self._leader = Pacing()
        """When the next question may go out that only an active node can answer, while there is none."""
        self._why: BackendError = UnavailableError("it was not asked yet")
        self.http: Any = None

    @property
    def address(self) -> str:
        """Return the address that is asked first."""
        return str(self._first)

    @property
    def trouble(self) -> BackendError | None:
        """Return why nobody is asked now, or None."""
        return self._why if self._pacing.failures else None

    async def open(self) -> None:
        """Load what asking needs, which takes a while, on a thread."""
        future = self._worker.submit(lambda: importlib.import_module("backends.vault_http"))
        await asyncio.wrap_future(future)
        self.http = future.result()

    def renew_certificates(self) -> None:
        """Have the next request read the certificates' files again."""
        with self._lock:
            wires, self._wires = self._wires, {}
        for wire in wires.values():
            wire.close()

    def close(self) -> None:
        """Let go of the connections. A thread that hangs keeps nobody."""
        self._worker.stop()
        self.renew_certificates()

    async def ask(self, say: Spoken, *, token: Secret | None, minting: bool = False, reading: bool = False) -> Answer:
        """
        Ask, within the configured time-out.

        Args:
            say: what to ask, called on a thread.
            token: what it is asked with.
            minting: whether asking twice would make two of something.
            reading: whether a standby can answer it by itself.

        Raises:
            FaultError: the server has answered this very request with no.
            LockedError, UnavailableError: nothing was done.
            OutcomeUnknownError: it may have been done, and asking again is not harmless.
            MisconfiguredError: the certificates cannot be read, or it leads to a foreign host.

        """
        now = self._clock()
        if not self._pacing.may(now):
            _again(self._why)
        if not reading and not self._leader.may(now):
            raise UnavailableError(_LEADERLESS, hint=_STATUS)
        end = now + self._options.timeout
        self._pacing.trying(now, self._options.timeout)
        await self._find_active(now)
        try:
            answer = await self._anywhere(say, token, minting=minting, end=end)
        except _LeaderlessError as error:
            # Standbys answer: what they can do themselves goes on.
            self._answered()
            self._leader.failed(self._clock(), jitter=random.random())  # noqa: S311 -- jitter
            raise UnavailableError(error.message, hint=error.hint) from None
        except (LockedError, UnavailableError, OutcomeUnknownError) as error:
            self._failed(error, since=now)
            raise
        except self.http.FaultError:
            self._answered()
            raise
        self._answered()
        if not reading:
            self._leader.succeeded()
        if answer.date is not None:
            self.skew = answer.date - time.time()
        return answer

    async def _anywhere(self, say: Spoken, token: Secret | None, *, minting: bool, end: float) -> Answer:
        """Ask one address after the other, as long as asking another one is harmless."""
        failures: list[BackendError] = []
        order = self._order()
        redirected = False
        while order:
            address = order.pop(0)
            try:
                answer = await self._once(address, say, token, end)
            except self.http.NotSentError as error:
                failures.append(_unreachable(address, str(error)))
            except self.http.CutError:
                if minting:
                    raise _unknown(address, "its answer was cut off or came too late") from None
                failures.append(UnavailableError(f"{address} has not answered in time", hint=_STATUS))
            except self.http.FaultError as error:
                fault: Fault = error.fault
                if fault.kind is Kind.REDIRECT and not redirected:
                    redirected = True
                    order.insert(0, self._redirected(address, fault))
                    continue
                if fault.kind not in _NOT_DONE | _MAYBE_DONE:
                    self._prefer(address)
                    raise
                failures.append(_failed_there(address, fault, minting=minting))
            else:
                self._prefer(address)
                return answer
        worst = _worst(failures)
        if redirected and type(worst) is UnavailableError:
            raise _LeaderlessError(worst.message, hint=worst.hint)
        raise worst

    async def _once(self, address: Address, say: Spoken, token: Secret | None, end: float) -> Answer:
        """Ask one address. Raises what the thread raises; after the deadline it is woken, and says what it knows."""
        since = self._clock()
        call = self.http.Call()
        future = self._worker.submit(lambda: self._said(address, say, call, token, since=since, end=end))
        if not await settled(future, end - since):
            if future.cancel():
                raise self.http.NotSentError(_CROWDED)
            if self._last <= since:
                self._silent = self._clock()
            call.abort()
            if not await settled(future, _UNSTICK_SECONDS):
                raise self.http.CutError("no answer") if call.sent else self.http.NotSentError("it does not answer")
        answer: Answer = future.result()
        return answer

    def _said(
        self, address: Address, say: Spoken, call: "Call", token: Secret | None, *, since: float, end: float
    ) -> Answer:
        """Ask, on a thread; not any more when the time is over, or when the server has fallen silent meanwhile."""
        seconds = end - self._clock()
        if seconds <= 0 or self._silent > since:
            raise self.http.NotSentError(_CROWDED)
        try:
            return say(self._wire(address).adapter(call, token, seconds))
        except self.http.CutError:
            # The socket's own time-out may come a moment before the loop's, and this thread is free for the next then.
            if self._clock() >= end - _JUST_BEFORE and self._last <= since:
                self._silent = self._clock()
            raise

    def _wire(self, address: Address) -> "Wire":
        """Return the connections to an address, on a thread: certificates are read the first time."""
        with self._lock:
            if address not in self._wires:
                self._wires[address] = self.http.Wire(address, self._options)
            return self._wires[address]

    def _order(self) -> list[Address]:
        return [self._first, *(each for each in self._options.addresses if each != self._first)]

    def _prefer(self, address: Address) -> None:
        if address in self._options.addresses:
            self._standby = self._standby or address != self._first
            self._first = address

    def _redirected(self, address: Address, fault: Fault) -> Address:
        """Return the address that a standby sends us to. A token goes nowhere that the config does not name."""
        known = {(each.scheme, each.host, each.port): each for each in (*self._options.addresses, address)}
        try:
            parts = urlsplit(urljoin(str(address), fault.location or ""))
            port = parts.port or (_HTTPS_PORT if parts.scheme == "https" else _HTTP_PORT)
            found = known.get((parts.scheme, parts.hostname or "", port))
        except ValueError:
            found = None
        if found is None:
            message = f"{address} sends requests on to a server that the config does not name"
            raise MisconfiguredError(message, hint=f"add its address to addresses in [backends.{self.name}]")
        return found

    async def _find_active(self, now: float) -> None:
        """Where there are several addresses, prefer the active node: a standby may lag behind what was written."""
        several = len(self._options.addresses) > 1
        if not several or not (self._standby or self._pacing.failures or not self._looked):
            return
        if self._looked and now < self._looked + _LOOK_AGAIN:
            return
        self._looked = now
        found = await asyncio.gather(*(self._health_of(each) for each in self._options.addresses))
        active = [each for each, status in zip(self._options.addresses, found, strict=True) if status == _ACTIVE]
        standby = [each for each, status in zip(self._options.addresses, found, strict=True) if status in _STANDBY]
        self._standby = not active
        if active or standby:
            self._first = (active or standby)[0]

    async def health(self) -> int:
        """Return the status of ``sys/health`` at the first address that answers; 0 where none does."""
        worst = 0
        for address in self._order():
            status = await self._health_of(address)
            if status == _ACTIVE or status in _STANDBY:
                return status
            worst = worst or status
        return worst

    async def _health_of(self, address: Address) -> int:
        try:
            await self._once(address, _health, None, self._clock() + min(_HEALTH_SECONDS, self._options.timeout))
        except self.http.FaultError as error:
            status: int = error.fault.status
            return status
        except (self.http.NotSentError, self.http.CutError, BackendError):
            return 0
        return _ACTIVE

    def _answered(self) -> None:
        self._last = self._clock()
        self._pacing.succeeded()

    def _failed(self, error: BackendError, *, since: float) -> None:
        """Leave the server alone for a while, unless it has answered others meanwhile: then it is this path alone."""
        if self._last > since or isinstance(error, PathError):
            return
        self._why = error if isinstance(error, (LockedError, UnavailableError)) else UnavailableError(error.message)
        wait = getattr(error, "wait", None)
        self._pacing.failed(self._clock(), jitter=random.random(), wait=wait)  # noqa: S311 -- jitter


_CROWDED: Final = "too many requests are under way, and no time is left for this one"
_LEADERLESS: Final = "no node of the cluster is active now"
_NO_NETWORK: Final = ("address family not supported", "network is unreachable", "not permitted", "name resolution")
_HTTPS_PORT: Final = 443
_HTTP_PORT: Final = 80
_ACTIVE: Final = 200
_STANDBY: Final = frozenset({429, 473})
_STATUS: Final = "mcp-broker status"


@final
class LimitedError(UnavailableError):
    """A rate limit was reached; ``wait`` is how long the server wants us to wait, or None."""

    def __init__(self, message: str, *, hint: str | None = None, wait: float | None = None) -> None:
        """Keep the wait."""
        super().__init__(message, hint=hint)
        self.wait = wait


@final
class PathError(UnavailableError):
    """The server has failed at this very path; others may work."""


class _LeaderlessError(UnavailableError):
    """Standbys answer, and say to ask an active node that is not there."""


def _health(adapter: "VaultAdapter") -> Answer:
    return adapter.get("/v1/sys/health")  # type: ignore[no-any-return]  # hvac has no types


def _again(error: BackendError) -> NoReturn:
    # A new one each time: an exception that is raised again and again grows by a traceback each time.
    kind = LockedError if isinstance(error, LockedError) else UnavailableError
    raise kind(error.message, hint=error.hint)


def _unreachable(address: Address, why: str) -> BackendError:
    why = why[:1].lower() + why[1:]
    if any(text in why.lower() for text in _NO_NETWORK) and "INVOCATION_ID" in os.environ:
        hint = "the unit may have no network: systemctl edit mcp-broker, with the lines in its comments"
    elif "certificate" in why:
        hint = f"put its CA into ca_file; openssl s_client -connect {address.host}:{address.port} shows it"
    else:
        hint = f"is the server there? curl {address}/v1/sys/health"
    return UnavailableError(f"{address}: {why}", hint=hint)


def _failed_there(address: Address, fault: Fault, *, minting: bool) -> BackendError:
    """Return what a fault means that the next address may not have; raise where nobody else may be asked."""
    if minting and fault.kind in _MAYBE_DONE:
        raise _unknown(address, f"it answered with status {fault.status}")
    if fault.kind is Kind.LIMITED:
        # The others count together with it, and asking them too is what the limit is against.
        raise _failure(address, fault)
    return _failure(address, fault)


def _unknown(address: Address, why: str) -> BackendError:
    return OutcomeUnknownError(f"{address}: {why}, and a credential may have been made", hint=_STATUS)


def _failure(address: Address, fault: Fault) -> BackendError:  # noqa: PLR0911 -- a table
    text = f"{address}: {fault.kind.value}"
    match fault.kind:
        case Kind.SEALED:
            return LockedError(text, hint="bao operator unseal, or vault operator unseal")
        case Kind.UNINITIALISED:
            return LockedError(text, hint="bao operator init, or vault operator init")
        case Kind.NAMESPACE_LOCKED:
            return LockedError(text, hint="bao namespace unlock NAME")
        case Kind.LIMITED:
            return LimitedError(text, hint="raise the quota, or spread the load", wait=fault.wait)
        case Kind.GARBLED:
            return UnavailableError(f"{text} (status {fault.status})", hint="is address that of the server itself?")
        case Kind.INTERNAL:
            return PathError(f"{text} (status {fault.status})", hint="the server's own log says why")
        case _:
            return UnavailableError(f"{text} (status {fault.status})", hint=_STATUS)


def _worst(failures: Sequence[BackendError]) -> BackendError:
    """Return the failure that says most: somebody has to unseal, or to wait, or nobody is there."""
    for kind in (LockedError, LimitedError):
        for failure in failures:
            if isinstance(failure, kind):
                return failure
    return failures[0]
