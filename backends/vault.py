"""
Credentials from a Vault or an OpenBao: read, minted, kept alive, given back.

What is read from a K/V engine is kept for a moment, so that a thousand servers
that start at once cause one request. What is minted is minted once: where an
answer is lost nobody asks again, and where the policy lets the broker have a
token for each credential, revoking that takes back what nobody has seen.

This backend refuses to make more of a lease than the token that it hangs on,
to follow a redirect to a foreign host, and to read anything from the environment.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, final

import msgspec

from backends import vault_engines, vault_policy, vault_rotation
from backends.base import (
    BackendError,
    Credential,
    Health,
    Lack,
    Lock,
    MisconfiguredError,
    Preparation,
    RefusedError,
    Secret,
    SecretNotFoundError,
    Surroundings,
    UnavailableError,
)
from backends.memory import Key, Memory
from backends.rotating import Staged
from backends.vault_asking import Asking
from backends.vault_engines import Plan, plan
from backends.vault_kept import Kept
from backends.vault_kv import VersionedSecrets
from backends.vault_lease import VaultLease, decoded, encoded
from backends.vault_line import Line
from backends.vault_meaning import WrongMethodError, deleted
from backends.vault_options import VaultOptions, read
from backends.vault_state import state
from backends.vault_tokens import Tokens
from backends.vault_wire import Answer

CHILD_TTL: Final = 3600.0
"""Seconds that the token of one credential lives when it is not renewed; it is, with the credential."""

LONGEST: Final = 32 * 86400.0
"""Seconds that what a mount makes may live where the mount does not say: the server's own default."""

_MOST_TTL: Final = 400 * 86400.0
_LAGS: Final = (0.1, 0.3, 0.6)
"""Seconds to wait for a standby that is behind what was read before, again and again."""

_LONGEST_LAG: Final = 60.0
"""Seconds that a standby is behind at most: what is older for longer is a server that was restored from a backup."""


def from_config(name: str, options: Mapping[str, Any], surroundings: Surroundings) -> "VaultBackend":
    """Return the backend that ``[backends.NAME]`` describes (``vault_options``)."""
    return VaultBackend(name, read(name, options, surroundings), surroundings)


class _Child(msgspec.Struct, frozen=True):
    """A token for one credential."""

    kept: Kept
    accessor: str
    secret: Any


class _Read(msgspec.Struct, frozen=True):
    """Which version was read, when it was written, and when it was read."""

    version: int
    written: str
    at: float


@final
class VaultBackend:
    """A backend that prepares, examines, and has a login."""

    def __init__(
        self, name: str, options: VaultOptions, surroundings: Surroundings, *, clock: Callable[[], float] = time.time
    ) -> None:
        """Describe it; nothing is asked yet."""
        self.name = name
        self._options = options
        self._clock = clock
        self._line = Line(name, options)
        self._tokens = Tokens(name, options, self._line, surroundings.drawer, clock=clock)
        self._asking = Asking(name, self._line, self._tokens)
        self._secrets = VersionedSecrets(self._asking)
        self._memory = Memory()
        self._read: dict[Key, _Read] = {}
        self._writes = 0
        """How often we have written: what was being read meanwhile may be what stood there before."""
        self._children: dict[str, _Child] = {}
        self._may_have_children: tuple[str, bool] = ("", False)

    async def open(self) -> None:
        """Load what asking needs, and begin to log in. Nobody waits for a server."""
        await self._asking.open()

    async def close(self) -> None:
        """Let go of the connections. Nothing is revoked, and the tokens are kept."""
        await self._asking.close()

    def mints(self, path: str) -> bool:
        """Return whether what is there is made anew each time; yes where the server has not said yet what it is."""
        return plan(self._asking.mount(path), path, {}).mints

    def at_hand(self, path: str) -> Credential | None:
        """Return what was read a moment ago."""
        return self._memory.find((path, ""))

    async def prepare(self, path: str, *, params: Mapping[str, Any], intent: str) -> Preparation:
        """Make a token for the credential that is about to be minted, where the policy allows it."""
        mount = await self._asking.mounted(path)
        found = plan(mount, path, params)
        if not found.mints:
            return Preparation()
        longest = (mount.longest if mount is not None else 0.0) or LONGEST
        if found.revoke is not None or not await self._can_have_children():
            return Preparation(longest=longest)
        answer, kept = await self._asking.ask(self._calls.making_child(CHILD_TTL), what="a token for each credential")
        auth = answer.auth
        if auth is None or auth.token is None:
            return Preparation(longest=longest)
        self._children[intent] = _Child(kept, auth.accessor, auth.token)
        return Preparation(handle=encoded(VaultLease(child=auth.accessor)), longest=min(longest, auth.ttl or longest))

    async def issue(self, path: str, *, params: Mapping[str, Any], intent: str) -> Credential:
        """Read or mint what is at ``path``."""
        self._asking.require_open()
        child = self._children.pop(intent, None)
        try:
            found = plan(await self._asking.mounted(path), path, params)
            if found.mints:
                return await self._mint(found, child)
        except BackendError:
            if child is not None:
                self._asking.soon(self._discard(VaultLease(child=child.accessor)))
            raise
        if not found.kept:
            answer, _ = await self._asking.ask(self._calls.fetching(found), what=path, reading=True)
            return self._of_answer(found, answer)
        key = (path, msgspec.json.encode(dict(params)).decode() if params else "")
        credential: Credential = await self._asking.once(key, lambda: self._current(key, found))
        return credential

    async def renew(self, backend_lease: str, *, increment: float) -> float:
        """Prolong a lease, and the token that it hangs on; return the seconds that both have."""
        self._asking.require_open()
        lease = decoded(backend_lease)
        if lease.id is None:
            message = "what has no lease cannot be renewed"
            raise RefusedError(message)
        kept = self._tokens.of(lease.token)
        if kept is not None:
            await self._tokens.stretch(kept, increment)
        answer, _ = await self._asking.ask(self._calls.renewing(lease.id, increment), what="a lease")
        ends = [answer.lease_duration]
        if kept is not None and (left := kept.left(self._clock())) is not None:
            ends.append(left)
        if lease.child is not None:
            wanted = max(CHILD_TTL, 2 * increment)
            child, _ = await self._asking.ask(
                self._calls.renewing_child(lease.child, wanted), what="a lease's own token"
            )
            if child.auth is not None and child.auth.ttl:
                ends.append(child.auth.ttl)
        return min(ends)

    async def revoke(self, backend_lease: str) -> None:
        """Revoke what a lease is about, done when this returns. What is gone already is a success."""
        self._asking.require_open()
        lease = decoded(backend_lease)
        if lease.id is not None:
            try:
                await self._asking.take_back(self._calls.revoking(lease.id))
            except RefusedError:
                # Where the policy lacks this, the token of its own can still be revoked.
                if lease.child is None:
                    raise
        if lease.child is not None:
            self._children = {known: child for known, child in self._children.items() if child.accessor != lease.child}
            await self._asking.take_back(self._calls.revoking_child(lease.child))
        if lease.serial is not None:
            await self._asking.take_back(self._calls.revoking_serial(lease.path, lease.serial))

    async def health(self) -> Health:
        """Say whether it answers, as what the broker is logged in, and until when."""
        if self._asking.calls is None:
            return Health(state="unavailable", detail="it was not opened yet")
        return await state(self._line, self._tokens)

    async def examine(self, wanted: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Lack]:
        """Say which of these paths the policy does not allow, or are not there, without reading any."""
        self._asking.require_open()
        lacking: dict[str, Lack] = {}
        plans: dict[str, Plan] = {}
        for path, params in wanted.items():
            try:
                plans[path] = plan(await self._asking.mounted(path), path, params)
            except (RefusedError, MisconfiguredError, SecretNotFoundError) as error:
                lacking[path] = Lack(error.message, error.hint)
        if not plans:
            return lacking
        needs = {path: vault_policy.needs(each) for path, each in plans.items()}
        asked = sorted({place for need in needs.values() for place in need})
        answer, _ = await self._asking.ask(self._calls.capabilities(asked), what="its own capabilities")
        for path, need in needs.items():
            missing = [place for place, any_of in need.items() if not self._calls.allowed(answer, place, any_of)]
            if missing:
                message = f"the policy does not allow to {need[missing[0]][-1]} {missing[0]}"
                lacking[path] = Lack(message, f"mcp-broker vault policy {self.name} | bao policy write mcp-broker -")
        return lacking

    async def policy(self, wanted: Mapping[str, Mapping[str, Any]]) -> str:
        """Return the policy that these paths need; of one that is not reachable, careful guesses."""
        plans, unsure = [], []
        for path, params in wanted.items():
            with contextlib.suppress(BackendError):
                mount = None if self._asking.calls is None else await self._asking.mounted(path)
                if mount is not None:
                    plans.append(plan(mount, path, params))
                    continue
            if params or path.partition("/")[2].partition("/")[0] in vault_engines.MINTING:
                plans.append(plan(None, path, params))
            else:
                unsure.append(path)
        return vault_policy.text(plans, unsure=unsure, children=self._options.child_tokens is not False)

    @property
    def alarm(self) -> str | None:
        """Return that a wrapped secret-id was not what it should be: somebody may have used or replaced it."""
        return self._tokens.alarm

    async def lock(self) -> Lock | None:
        """Return what keeps it closed that somebody can open here: a login that was refused."""
        return Lock(what=f"the login of {self.name}", takes_password=False) if self._tokens.refused else None

    async def unlock(self, password: Secret | None) -> None:
        """Log in with the same proof again: the server may know it by now."""
        del password
        self._asking.require_open()
        await self._tokens.try_again()

    async def rotate(self, path: str, *, token: str) -> None:
        """Have the server replace the account at ``path``; told twice, it does so twice, which harms nobody."""
        del token
        self._asking.require_open()
        await vault_rotation.rotate(self._asking, path)
        self._writes += 1
        self._forget((path, ""))

    async def rotate_login(self, *, token: str, stage: vault_rotation.Stage = lambda _: None) -> None:
        """Replace the secret-id that the broker logs in with. Args as in ``vault_rotation.rotate_secret_id``."""
        del token
        self._asking.require_open()
        await vault_rotation.rotate_secret_id(self._asking, self._tokens, self._options.login, stage=stage)

    async def put_if(self, path: str, values: Mapping[str, Secret], *, expected: int | None) -> int:
        """Write a version of a secret of K/V 2 over the version ``expected``."""
        self._asking.require_open()
        number = await self._secrets.put_if(path, values, expected=expected)
        self._writes += 1
        self._forget((path, ""))
        return number

    async def staged(self, path: str) -> Staged | None:
        """Return what a rotation has staged beside a secret of K/V 2."""
        self._asking.require_open()
        return await self._secrets.staged(path)

    async def stage(self, path: str, staged: Staged | None, *, instead_of: str | None) -> None:
        """Keep what a rotation stages beside a secret of K/V 2."""
        self._asking.require_open()
        await self._secrets.stage(path, staged, instead_of=instead_of)

    async def log_out(self) -> None:
        """Revoke the broker's tokens."""
        if self._asking.calls is not None:
            await self._tokens.log_out()

    @property
    def _calls(self) -> Any:  # noqa: ANN401 -- a module that is loaded late
        return self._asking.calls

    async def _mint(self, found: Plan, child: _Child | None) -> Credential:
        """Mint, once. Who waits may go away; what was made then is given back."""
        task = self._asking.soon(self._minted(found, child))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(self._nobody_waits)
            raise

    async def _minted(self, found: Plan, child: _Child | None) -> Credential:
        kept = await self._tokens.current() if child is None else child.kept
        await self._tokens.stretch(kept, kept.ttl / 2)
        secret = None if child is None else child.secret
        try:
            answer, kept = await self._asking.ask(
                self._calls.fetching(found), what=found.path, minting=True, kept=kept, token=secret
            )
        except WrongMethodError:
            # Nothing was done: what is there wants a write.
            written = msgspec.structs.replace(found, write=True)
            answer, kept = await self._asking.ask(
                self._calls.fetching(written), what=found.path, minting=True, kept=kept, token=secret
            )
        lease = VaultLease(
            id=answer.lease_id or None,
            token=kept.accessor,
            child=None if child is None or not answer.lease_id else child.accessor,
            serial=str((answer.data or {}).get("serial_number") or "") or None if found.revoke else None,
            path=found.revoke or "",
        )
        if child is not None and lease.child is None:
            self._asking.soon(self._discard(VaultLease(child=child.accessor)))
        if not answer.data or answer.wrapped:
            self._asking.soon(self._discard(lease))
            message = f"{found.path} has answered without a credential"
            raise MisconfiguredError(message, hint=f"bao read {found.path}")
        ttl = vault_engines.lifetime(answer, now=self._clock())
        left = kept.left(self._clock()) if lease.id is not None else None
        ends = [each for each in (ttl, left, _MOST_TTL if ttl is not None else None) if each is not None]
        return Credential(
            values=vault_engines.fields(answer.data),
            backend_lease=encoded(lease) if lease.id or lease.serial else None,
            ttl=min(ends, default=None),
            renewable=answer.renewable and lease.id is not None,
        )

    def _nobody_waits(self, task: "asyncio.Task[Credential]") -> None:
        if not task.cancelled() and task.exception() is None and task.result().backend_lease is not None:
            self._asking.soon(self._discard(decoded(task.result().backend_lease or "")))

    async def _discard(self, lease: VaultLease) -> None:
        """Give back what nobody got, as far as that goes; what stays ends by itself."""
        with contextlib.suppress(BackendError):
            await self.revoke(encoded(lease))

    def _forget(self, key: Key) -> None:
        self._memory.forget(key)
        self._read.pop(key, None)

    async def _current(self, key: Key, found: Plan) -> Credential:
        """Read what is kept; never something older than what was read before."""
        before = self._read.get(key)
        if before is not None and abs(self._clock() - before.at) > _LONGEST_LAG:
            before = None
        for pause in (*_LAGS, None):
            writes = self._writes
            try:
                answer, _ = await self._asking.ask(self._calls.fetching(found), what=key[0], reading=True)
            except SecretNotFoundError:
                if before is None or pause is None or len(self._options.addresses) == 1:
                    self._forget(key)
                    raise
            else:
                version, written = vault_engines.version_of(answer) if found.versioned else (0, "")
                credential = vault_engines.static(found, answer)
                behind = before is not None and not found.query and version < before.version
                late = self._writes != writes
                # With all its versions removed, a secret begins again at 1.
                lags = behind and before is not None and written <= before.written
                if credential is not None and not late and not lags:
                    self._read[key] = _Read(version, written, self._clock())
                    if credential.ttl is None and not key[1]:
                        # What ends by itself is read anew, to know how long it has left.
                        self._memory.keep(key, credential, until=time.monotonic() + self._options.cache)
                    return credential
                if credential is None and found.versioned:
                    self._forget(key)
                    raise deleted(key[0])
            if pause is not None:
                await asyncio.sleep(pause)
        message = f"{key[0]} is just being changed, or a standby is behind"
        raise UnavailableError(message, hint="ask again in a moment")

    def _of_answer(self, found: Plan, answer: Answer) -> Credential:
        credential = vault_engines.static(found, answer)
        if credential is None:
            raise deleted(found.path)
        return credential

    async def _can_have_children(self) -> bool:
        """Return whether a token can be made for each credential, asked once for each login."""
        if self._options.child_tokens is False:
            return False
        kept = await self._tokens.current()
        if self._may_have_children[0] != kept.accessor:
            paths = tuple(vault_policy.CHILDREN)
            answer, kept = await self._asking.ask(self._calls.capabilities(paths), what="its own capabilities")
            may = not kept.batch and all(self._calls.allowed(answer, path, vault_policy.WRITE) for path in paths)
            self._may_have_children = (kept.accessor, may)
        if self._options.child_tokens and not self._may_have_children[1]:
            message = "child_tokens = true, and the policy does not let the broker have them"
            raise RefusedError(message, hint=f"mcp-broker vault policy {self.name}")
        return self._may_have_children[1]
