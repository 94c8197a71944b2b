"""
The broker's own tokens: logged in for once, renewed, replaced before they end, kept as long as leases hang on them.

A lease dies with the token that it was minted under. So a token that cannot be
renewed further makes room for a new one in time, and stays beside it until its
own end; and all of them are kept sealed over a restart of the broker, which
would otherwise take every credential in use with it.

It refuses to try a login again that was refused, until the proof is another or
the server has forgotten: five refusals lock an account for everybody.
"""

import asyncio
import contextlib
import importlib
import logging
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, final

from backends.base import (
    BackendError,
    Drawer,
    LockedError,
    MisconfiguredError,
    OutcomeUnknownError,
    RefusedError,
    Secret,
)
from backends.vault_kept import Kept, Memory, made
from backends.vault_line import Line
from backends.vault_options import VaultOptions
from backends.vault_pacing import LOGIN_CAP, LOGIN_FLOOR, Pacing, look_after, worn_out
from backends.vault_wire import Answer, Auth, Kind

if TYPE_CHECKING:
    from backends.vault_login import Proof

_log: Final = logging.getLogger("mcp_broker.vault")

_YOUNG: Final = 60.0
"""Seconds until the next login where the policy lets nobody find out whether a token lives."""

_LOOK_FLOOR: Final = 1.0
"""Seconds for which the answer counts to whether a token lives; a policy that denies must cause no storm."""

_LONGEST_SLEEP: Final = 30.0
"""Seconds after which somebody looks at the clock at least: it may have been set, or the machine have slept."""

_SHORTEST_SLEEP: Final = 1.0
_RETRY: Final = (5.0, 60.0)
"""Seconds before a renewal that failed is tried again: at least, and at most."""

_FRESH: Final = 0.8
"""The part of its time that a token has left at least to count as just renewed."""

_NOT_TAKEN: Final = "the login with the new proof was refused; the one before is still used"
_TELL: Final = "the server has to take it from the broker: which ids and how many logins does the role allow?"

REFUSED: Final = frozenset({Kind.REFUSED, Kind.FORBIDDEN, Kind.UNKNOWN_ROLE, Kind.LEASE_GONE})


@final
class Tokens:
    """All tokens of one backend; the first is the one to ask with."""

    def __init__(
        self,
        name: str,
        options: VaultOptions,
        line: Line,
        drawer: Drawer | None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take what there is; nothing is asked yet."""
        self.options = options
        self.trouble: BackendError | None = None
        """Why the last login failed, or None."""
        self.alarm: str | None = None
        """What somebody has to look into: a wrapping token that somebody else may have used."""
        self._name = name
        self._line = line
        self._clock = clock
        self._memory = Memory(name, drawer)
        self._login: asyncio.Task[Kept] | None = None
        self._looks: dict[str, tuple[float, asyncio.Task[bool]]] = {}
        self._login_at = -_YOUNG
        self._sees: bool | None = None
        """Whether the policy lets a token look at itself; None while that is not known."""
        self._stretching: dict[str, asyncio.Task[None]] = {}
        self._pacing = Pacing(floor=LOGIN_FLOOR, cap=LOGIN_CAP)
        self._calls: Any = None
        login = options.login
        place = "" if login.mount in {"", login.method} else f" at auth/{login.mount}"
        self._identity = f"{login.method}{place}{f' as {login.name}' if login.name else ''}"

    def open(self) -> None:
        """Load what logging in needs. On a thread: it takes a while."""
        self._calls = importlib.import_module("backends.vault_login")

    @property
    def unkept(self) -> str | None:
        """Return why the tokens would not outlive a restart, or None."""
        return self._memory.unkept

    @property
    def kept(self) -> Kept | None:
        """Return the token to ask with, if there is one now."""
        now = self._clock()
        found = self._memory.tokens
        return next((each for each in found if self._is_current(each) and each.left(now) != 0.0), None)

    def _is_current(self, kept: Kept) -> bool:
        return not kept.worn and kept.login == self._identity

    def of(self, accessor: str) -> Kept | None:
        """Return the token that something was minted under, if it is still kept, and know that it is in use."""
        kept = next((each for each in self._memory.tokens if each.accessor == accessor), None)
        if kept is not None:
            kept.used_at = self._clock()
        return kept

    async def current(self) -> Kept:
        """
        Return the token to ask with; log in where there is none, once for all who wait.

        Raises:
            RefusedError: the login was refused, and is not tried again yet.
            LockedError, MisconfiguredError: what is to be shown is not there, or not usable.
            UnavailableError: nobody answers.

        """
        await self._memory.load()
        kept = self.kept
        if kept is not None:
            return kept
        if self._login is None or self._login.done():
            self._login = asyncio.create_task(self._logged_in())
            self._login.add_done_callback(_heard)
        return await asyncio.shield(self._login)

    async def lives(self, kept: Kept) -> bool:
        """
        Return whether a token lives that was answered with "permission denied". One that does not is kept no more.

        Asked once for all who wait, and once a second at most.
        """
        now = time.monotonic()
        found = self._looks.get(kept.accessor)
        if found is None or (found[1].done() and now - found[0] > _LOOK_FLOOR):
            task = asyncio.create_task(self._look(kept))
            task.add_done_callback(_heard)
            found = self._looks[kept.accessor] = now, task
        return await asyncio.shield(found[1])

    async def _look(self, kept: Kept) -> bool:
        try:
            answer = await self._line.ask(self._calls.looking_up, token=kept.secret)
        except self._line.http.FaultError as error:
            # What says that there is no such place says nothing of the token, and leases hang on it.
            return error.fault.kind is not Kind.FORBIDDEN or await self._may_live(kept)
        self._confirmed(kept, self._calls.as_auth(answer, kept.secret))
        return True

    async def _can_look(self, kept: Kept) -> bool:
        """Return whether a token that lives for sure may look at itself."""
        try:
            await self._line.ask(self._calls.looking_up, token=kept.secret)
        except self._line.http.FaultError as error:
            return error.fault.kind is not Kind.FORBIDDEN
        return True

    async def _may_live(self, kept: Kept) -> bool:
        """Judge a token that may not look at itself: it is dead, unless the policy lets none do so."""
        if self._sees is not False:
            await self._memory.drop(kept)
            return False
        # Nobody can tell. Leases may hang on it, so it stays beside a new one, and there is one a minute at most.
        kept.worn = time.monotonic() - self._login_at >= _YOUNG
        return not kept.worn

    async def stretch(self, kept: Kept, wanted: float) -> None:
        """
        Renew a token now that something is to hang on it for ``wanted`` seconds, where that makes it last longer.

        Without that a lease that is renewed shortly before its token would seem to be near its end.
        """
        left = kept.left(self._clock())
        if left is None or left >= min(wanted, kept.ttl * _FRESH) or not kept.renewable or kept.worn:
            return
        task = self._stretching.get(kept.accessor)
        if task is None or task.done():
            task = self._stretching[kept.accessor] = asyncio.create_task(self._renew(kept))
            task.add_done_callback(_heard)
        with contextlib.suppress(BackendError):
            await asyncio.shield(task)

    def close(self) -> None:
        """Ask nothing any more."""
        under_way = [self._login, *(task for _, task in self._looks.values()), *self._stretching.values()]
        for task in under_way:
            if task is not None:
                task.cancel()

    async def mind(self) -> None:
        """Keep a login, and keep what hangs on older ones alive, until cancelled."""
        while True:
            try:
                await self.current()
                await self.tick()
            except BackendError as error:
                _log.debug("backend %s: %s", self._name, error.message)
            except Exception as error:  # noqa: BLE001 -- whatever it is, the next look must come
                _log.error("backend %s: %s while its tokens were renewed", self._name, type(error).__name__)
            await asyncio.sleep(self._pause())

    def _pause(self) -> float:
        now = self._clock()
        due = [each.renew_at - now for each in self._memory.tokens if each.renew_at]
        if self.kept is None:
            due.append(self._pacing.until - time.monotonic())
        return min(_LONGEST_SLEEP, max(_SHORTEST_SLEEP, min(due, default=_LONGEST_SLEEP)))

    async def tick(self) -> None:
        """Renew what is due, replace what is worn, forget what has ended."""
        known = {each.accessor for each in self._memory.tokens}
        self._looks = {accessor: look for accessor, look in self._looks.items() if accessor in known}
        self._stretching = {accessor: task for accessor, task in self._stretching.items() if not task.done()}
        for kept in tuple(self._memory.tokens):
            now = self._clock()
            if kept.left(now) == 0.0 and kept.sure:
                await self._memory.drop(kept)
            elif not kept.sure or (kept.renew_at and kept.renew_at <= now):
                await self._tend(kept, now)
        if self.kept is None:
            await self.current()

    async def _tend(self, kept: Kept, now: float) -> None:
        """Renew one token, or know that it is worn; one that was kept over a restart is looked up first."""
        if not kept.sure and not await self.lives(kept):
            return
        if kept is not self.kept and now - kept.used_at > max(kept.ttl, _LONGEST_SLEEP):
            # Nothing hangs on it any more; it ends by itself.
            kept.renew_at = 0.0
            return
        if not kept.renew_at or kept.renew_at > now:
            return
        if not kept.renewable:
            kept.worn, kept.renew_at = True, 0.0
            return
        await self._renew(kept)

    async def _renew(self, kept: Kept) -> None:
        now = self._clock()
        try:
            answer = await self._line.ask(self._calls.renewing, token=kept.secret)
        except self._line.http.FaultError as error:
            if error.fault.kind is Kind.FORBIDDEN and self._sees is not False:
                await self._memory.drop(kept)
            else:
                kept.renewable = False
                self._schedule(kept, kept.left(now) or 0.0)
            return
        except BackendError:
            left = kept.left(now) or _RETRY[1]
            kept.renew_at = now + min(_RETRY[1], max(_RETRY[0], left / 6)) * (0.5 + _jitter())
            raise
        self._confirmed(kept, answer.auth)

    def _confirmed(self, kept: Kept, auth: Auth | None) -> None:
        """Know what the server says of a token now."""
        kept.sure = True
        if auth is None:
            return
        now = self._clock()
        kept.renewable = auth.renewable
        kept.expires_at = now + auth.ttl if auth.ttl else 0.0
        if auth.ttl and worn_out(kept.ttl, auth.ttl, jitter=_jitter()):
            kept.worn, kept.renew_at = True, 0.0
            return
        self._schedule(kept, auth.ttl)

    def _schedule(self, kept: Kept, left: float) -> None:
        """Say when a token is looked at next: to renew it, or, where that cannot be, to replace it before its end."""
        after = look_after(left, kept.ttl, renewable=kept.renewable, jitter=_jitter())
        kept.renew_at = self._clock() + after if left else 0.0

    async def _logged_in(self) -> Kept:
        for kept in tuple(self._memory.tokens):
            # One from before a restart may have been renewed long after it was kept.
            if not kept.sure and kept.login == self._identity and await self.lives(kept) and self.kept is kept:
                return kept
        try:
            shown = await self._shown()
            if self.trouble is not None and not self._pacing.may(time.monotonic()):
                raise type(self.trouble)(self.trouble.message, hint=self.trouble.hint)
            kept = await self._try(shown)
        except BackendError as error:
            self._failed(error)
            raise
        if self._sees is None:
            with contextlib.suppress(BackendError):
                self._sees = await self._can_look(kept)
        self._pacing.succeeded()
        self._memory.refusals.accepted()
        self.trouble, self.alarm = None, None
        _log.info("backend %s: logged in by %s, token %s", self._name, self._identity, kept.accessor)
        return kept

    def _failed(self, error: BackendError) -> None:
        """Remember why there is no login; say it in the log where it is news."""
        if self.trouble is None or self.trouble.message.partition(";")[0] != error.message.partition(";")[0]:
            _log.warning("backend %s: %s", self._name, error.message)
        if self.trouble is None or self._pacing.may(time.monotonic()):
            self._pacing.failed(time.monotonic(), jitter=_jitter())
        self.trouble = error.with_traceback(None)

    async def _shown(self) -> "Proof":
        """Read what is to be shown, each time anew; raise where the very same was refused a while ago."""
        shown: Proof = await asyncio.to_thread(self._calls.proof, self.options.login)
        wait = self._memory.refusals.may(self._clock(), shown.digest)
        if wait > 0:
            raise self._refused(wait)
        if isinstance(self.trouble, (RefusedError, LockedError, MisconfiguredError)):
            # Something was mended here; nobody has to wait for that to be tried.
            self._pacing.until = min(self._pacing.until, time.monotonic() + LOGIN_FLOOR)
        return shown

    async def _try(self, shown: "Proof") -> Kept:
        """Show it, once."""
        login = self.options.login
        if login.method == "cert":
            self._line.renew_certificates()
        try:
            secret = await self._unwrapped(shown) if login.wrapped else shown.secret
            given = secret if login.method == "token" else None
            answer = await self._line.ask(self._calls.logging_in(login, shown, secret), token=given)
        except self._line.http.FaultError as error:
            if error.fault.kind not in REFUSED:
                message = f"the login by {self._identity} is not possible: {error.fault.kind.value}"
                raise MisconfiguredError(message, hint=f"bao auth list; is it mounted at auth/{login.mount}?") from None
            raise await self._refused_now(shown) from None
        return await self._take(answer, given)

    async def _refused_now(self, shown: "Proof") -> BackendError:
        """Keep that this proof was refused, also over a restart: one that restarts again and again tries each time."""
        now = self._clock()
        self._memory.refusals.refused(now, shown.digest)
        await self._memory.save()
        return self._refused(self._memory.refusals.may(now, shown.digest))

    def _refused(self, wait: float) -> BackendError:
        proof = self.options.login.proof
        where = "the certificate" if proof is None else str(proof.path)
        if self.alarm is not None:
            return RefusedError(self.alarm, hint=f"find out who used it, then put a new one into {where}")
        message = f"the login by {self._identity} was refused; the same is not tried again for {wait:.0f} s"
        hint = f"put what is valid into {where}; if it was mended at the server: mcp-broker unlock {self._name}"
        return RefusedError(message, hint=hint)

    async def _take(self, answer: Answer, given: Secret | None) -> Kept:
        auth: Auth | None = self._calls.as_auth(answer, given)
        if auth is None or auth.token is None:
            what = "wants a second factor" if answer.needs_mfa else "gave no token"
            message = f"the login by {self._identity} {what}"
            raise MisconfiguredError(message, hint="log in with a method for machines: approle, jwt, kubernetes, cert")
        now, self._login_at = self._clock(), time.monotonic()
        kept = made(auth, self._identity, now)
        self._schedule(kept, auth.ttl)
        # What is left of one that was found again under the same name is the same token.
        self._memory.tokens = [kept, *(each for each in self._memory.tokens if each.accessor != kept.accessor)]
        await self._memory.save()
        return kept

    async def _unwrapped(self, shown: "Proof") -> Secret:
        """Return the secret-id that a wrapping token is of; each is unwrapped once, and kept."""
        known = self._memory.unwrapped.get(shown.digest.hex())
        if known is not None:
            return Secret(known)
        wanted = self.options.login.creation_path
        try:
            found = await self._line.ask(self._calls.looking_up_wrapped(shown.secret), token=None)
            if str((found.data or {}).get("creation_path", "")).strip("/") != wanted:
                raise await self._alarmed(
                    shown, f"the wrapped secret-id was not made at {wanted}: somebody has replaced it"
                )
            answer = await self._line.ask(self._calls.unwrapping, token=shown.secret, minting=True)
        except self._line.http.FaultError as error:
            if error.fault.kind is not Kind.WRAPPING_USED:
                raise
            what = "the wrapping token is not valid: it is too old, or somebody has unwrapped the secret-id before"
            raise await self._alarmed(shown, what) from None
        except OutcomeUnknownError:
            raise await self._alarmed(shown, "the secret-id was unwrapped, and the answer was lost") from None
        secret = Secret(str((answer.data or {}).get("secret_id", "")))
        self._memory.unwrapped = {shown.digest.hex(): secret.expose()}
        await self._memory.save()
        return secret

    async def _alarmed(self, shown: "Proof", what: str) -> BackendError:
        self.alarm = what
        _log.error("backend %s: %s", self._name, what)
        return await self._refused_now(shown)

    async def log_in_with(self, secret: Secret) -> None:
        """Log in with a proof that is not in its file yet; the token takes the place of the one before."""
        shown = await asyncio.to_thread(self._calls.proof, self.options.login)
        digest = self._calls.digest(shown.name, secret)
        if self._memory.refusals.may(self._clock(), digest) > 0:
            raise RefusedError(_NOT_TAKEN, hint=_TELL)
        try:
            answer = await self._line.ask(self._calls.logging_in(self.options.login, shown, secret), token=None)
        except self._line.http.FaultError:
            # The server counts these, too, and locks out whoever comes too often.
            self._memory.refusals.refused(self._clock(), digest)
            await self._memory.save()
            raise RefusedError(_NOT_TAKEN, hint=_TELL) from None
        await self._take(answer, None)

    @property
    def refused(self) -> bool:
        """Return whether there is no login because one was refused."""
        return self.kept is None and isinstance(self.trouble, RefusedError)

    async def try_again(self) -> None:
        """Log in with the same proof again, because somebody says that the server was mended. Bounded as ever."""
        self._memory.refusals.proof = None
        self.trouble = None
        await self.current()

    async def log_out(self) -> None:
        """Revoke all tokens, and with them whatever hangs on them."""
        for kept in tuple(self._memory.tokens):
            try:
                await self._line.ask(self._calls.revoking, token=kept.secret)
            except (BackendError, self._line.http.FaultError) as error:
                _log.warning("backend %s: the token %s could not be revoked: %s", self._name, kept.accessor, error)
                continue
            await self._memory.drop(kept)


def _jitter() -> float:
    return random.random()  # noqa: S311 -- jitter


def _heard(task: "asyncio.Task[Any]") -> None:
    if not task.cancelled():
        task.exception()  # whoever waited may have gone
