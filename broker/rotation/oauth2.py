"""
Access tokens by OAuth 2: client credentials, or a refresh token that may be a new one each time (RFC 6749).

A new refresh token is on disk, together with its access token, before anything
else is done with either; the old one is let go of after that. What cannot be
closed is the answer that is lost on its way: a server that lets each refresh
token be used once then knows a token that nobody has, and wants a new login.

This module refuses redirects, plain HTTP but to this machine, and to repeat
anything of an answer in an error.
"""

import urllib.parse
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import msgspec

from backends.base import Backend, Credential, Secret, SecretNotFoundError, WritableBackend
from backends.rotating import Staged
from broker.config.replacing import OAuth2Config
from broker.core.rotation import Step
from broker.errors import ConfigError, DeniedError, LockedError, OutcomeUnknownError, UnavailableError
from broker.rotation.staged import Outcome, create, mine, promote
from broker.rotation.staging import Staging

DEADLINE: Final = 20.0
"""Seconds for one answer of a token endpoint."""

_MOST_BYTES: Final = 1 << 20
_OK: Final = 200
_BAD: Final = frozenset({400, 401, 403})
_REFRESH: Final = "refresh_token"
_USED: Final = "used"

Text = Annotated[str, msgspec.Meta(min_length=1)]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What of a token endpoint's answer counts (RFC 6749, 5.1)."""

    access_token: Text
    expires_in: Annotated[float, msgspec.Meta(gt=0)] | None = None
    refresh_token: Text | None = None


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """What it says where it refuses (RFC 6749, 5.2)."""

    error: Literal[
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
    ]


Fetch = Callable[[str, Mapping[str, str]], Awaitable[tuple[int, bytes]]]
"""Posts a form to an address; returns the status and the body. Raises ``BrokerError``."""


async def fetch(url: str, form: Mapping[str, str]) -> tuple[int, bytes]:
    """Post a form with aiohttp, which is loaded by the first who needs it."""
    import aiohttp  # noqa: PLC0415 - only who has such tokens needs a client

    host = urllib.parse.urlsplit(url).hostname
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=DEADLINE), trust_env=False) as session,
            session.post(url, data=form, allow_redirects=False, headers={"Accept": "application/json"}) as answer,
        ):
            body = await answer.content.read(_MOST_BYTES)
            return answer.status, body
    except (aiohttp.ClientConnectorError, aiohttp.InvalidURL):
        # It cannot have heard the question. The cause may quote the address, which is in the config, and no more.
        message = f"{host} cannot be reached"
        raise UnavailableError(message, hint="mcp-broker status") from None
    except (aiohttp.ClientError, TimeoutError, OSError):
        message = f"{host} was asked, and its answer was lost"
        raise OutcomeUnknownError(message, hint="mcp-broker status") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken:
    """
    An access token that is replaced before it ends.

    Attributes:
        secret: its name in the config; its one field is ``value``.
        staging: where it is.
        config: where it comes from.
        local: the sealed store, which has the client secret and the refresh token.
        fetch: asks the token endpoint.
        clock: Unix seconds, UTC.

    """

    secret: str
    staging: Staging
    config: OAuth2Config
    local: Backend
    fetch: Fetch
    clock: Callable[[], float]

    @property
    def steps(self) -> tuple[Step, ...]:
        """Return the steps: what comes from the server needs no setting there."""
        return ("create", "promote", "retire")

    @property
    def shared(self) -> bool:
        """Return whether the backend is shared."""
        return self.staging.shared

    async def do(self, step: Step, token: str) -> Outcome:
        """Do a step."""
        match step:
            case "create":
                return await create(self.staging, token, self._made, now=self.clock())
            case "promote":
                staged = await mine(self.staging, token, self.secret)
                await self._keep_beside(staged)
                return await promote(self.staging, staged, self.secret)
            case _:
                return await self._let_go(step, token)

    async def _made(self, current: Credential) -> Staged:
        asked_at = self.clock()
        used = {} if self.config.refresh_token is None else {_USED: await self._value(self.config.refresh_token)}
        answer = await self._ask(used.get(_USED))
        beside = {} if answer.refresh_token is None else {_REFRESH: Secret(answer.refresh_token)} | used
        return Staged(
            token="",
            pending={"value": Secret(answer.access_token)},
            previous=current.values,
            expected=current.version,
            # It began to run out when it was asked for, at the latest.
            at=asked_at,
            lifetime=answer.expires_in,
            beside=beside,
        )

    async def _ask(self, refresh: Secret | None) -> Answer:
        config = self.config
        form = {"client_id": config.client_id}
        if refresh is None:
            form["grant_type"] = "client_credentials"
        else:
            form |= {"grant_type": _REFRESH, _REFRESH: refresh.expose()}
        if config.client_secret is not None:
            form["client_secret"] = (await self._value(config.client_secret)).expose()
        if config.scope is not None:
            form["scope"] = config.scope
        status, body = await self.fetch(config.token_url, form)
        return self._read(status, body)

    def _read(self, status: int, body: bytes) -> Answer:
        """Return what a body says. No error repeats any of it but the word that the RFC has for it."""
        host = urllib.parse.urlsplit(self.config.token_url).hostname
        try:
            if status == _OK:
                return msgspec.json.decode(body, type=Answer)
            refusal: str = msgspec.json.decode(body, type=Refusal).error if status in _BAD else ""
        except msgspec.MsgspecError:
            refusal = ""
        if status == _OK:
            message = f"{host} answered what is no access token"
            raise OutcomeUnknownError(message, hint="mcp-broker status")
        if refusal == "invalid_grant" and self.config.refresh_token is not None:
            message = f"{host} does not take the refresh token any more"
            raise DeniedError(
                message, hint=f"log in there anew, then mcp-broker secret set {self.config.refresh_token}"
            )
        if refusal:
            message = f"{host} refused: {refusal}"
            raise DeniedError(message, hint="mcp-broker check")
        message = f"{host} answered with status {status}"
        raise UnavailableError(message, hint="mcp-broker status")

    async def _value(self, name: str) -> Secret:
        try:
            found = await self.local.issue(name, params={}, intent="rotation")
        except SecretNotFoundError:
            message = f"there is no secret {name!r} yet"
            raise UnavailableError(message, hint=f"mcp-broker secret set {name}") from None
        if len(found.values) != 1:
            message = f"the secret {name!r} has more than one field"
            raise ConfigError(message, hint=f"mcp-broker secret set {name}")
        return next(iter(found.values.values()))

    async def _keep_beside(self, staged: Staged) -> None:
        """Have the new refresh token be the current one: from here on the one before it is not needed."""
        fresh, name = staged.beside.get(_REFRESH), self.config.refresh_token
        if fresh is None or name is None:
            return
        if not isinstance(self.local, WritableBackend):
            message = "the refresh token cannot be kept"
            raise LockedError(message, hint="mcp-broker status")
        if await self._value(name) == staged.beside.get(_USED):
            # Otherwise it is the new one already, or an admin has put in another since.
            await self.local.put(name, {"value": fresh})

    async def _let_go(self, step: Step, token: str) -> Outcome:
        """Forget what was staged, but for the refresh token: the one before it may be worth nothing any more."""
        staged = await self.staging.read()
        if staged is None or staged.token != token:
            return Outcome()
        await self._keep_beside(staged)
        if step == "abandon" and (current := await self.staging.current()).values == staged.pending:
            return Outcome(promoted=True, after=current.version, since=staged.at, lifetime=staged.lifetime)
        await self.staging.write(None, instead_of=token)
        return Outcome()
