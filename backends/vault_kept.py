"""
What a Vault backend remembers over a restart, sealed: its tokens, and a secret-id that can be unwrapped once.

It refuses to write over what it has not read.
"""

import logging
from typing import Final, final

import msgspec

from backends.base import BackendError, Drawer, Secret
from backends.vault_pacing import Refusals
from backends.vault_wire import Auth

_log: Final = logging.getLogger("mcp_broker.vault")


class Kept(msgspec.Struct, kw_only=True):
    """
    A token as it is kept, also over a restart.

    Attributes:
        token: its value.
        accessor: its name, safe to print.
        login: how it was got, to know whether the config still says so.
        ttl: seconds that it was given first; 0 for ever.
        expires_at: Unix seconds; 0 for never.
        renew_at: when it is to be renewed or replaced.
        used_at: when a lease that hangs on it was last heard of.
        worn: it cannot be renewed further.
        sure: whether the server has said since the start that it lives.

    """

    token: str
    accessor: str
    login: str
    policies: tuple[str, ...] = ()
    name: str = ""
    ttl: float = 0.0
    renewable: bool = False
    batch: bool = False
    expires_at: float = 0.0
    renew_at: float = 0.0
    used_at: float = 0.0
    worn: bool = False
    sure: bool = False

    def __repr__(self) -> str:
        """Return its name alone."""
        return f"<token {self.accessor}>"

    @property
    def secret(self) -> Secret:
        """Return its value, wrapped."""
        return Secret(self.token)

    def left(self, now: float) -> float | None:
        """Return the seconds until it ends; None where it does not."""
        return None if not self.expires_at else max(0.0, self.expires_at - now)


def made(auth: Auth, login: str, now: float) -> Kept:
    """Return the token that came of a login at the time ``now``; there is one."""
    return Kept(
        token="" if auth.token is None else auth.token.expose(),
        accessor=auth.accessor,
        login=login,
        policies=tuple(auth.policies),
        name=auth.name,
        ttl=auth.ttl,
        renewable=auth.renewable and not auth.batch,
        batch=auth.batch,
        expires_at=now + auth.ttl if auth.ttl else 0.0,
        used_at=now,
        sure=True,
    )


class _Content(msgspec.Struct, kw_only=True):
    """
    What is kept in the drawer.

    Attributes:
        tokens: the one to ask with first.
        unwrapped: a secret-id by the digest of the token that wrapped it.
        refusals: what a server that counts refused logins must not be shown again too soon.

    """

    tokens: list[Kept] = []
    unwrapped: dict[str, str] = {}
    refusals: Refusals = msgspec.field(default_factory=Refusals)


@final
class Memory:
    """The tokens, and the drawer that they are kept in."""

    def __init__(self, name: str, drawer: Drawer | None) -> None:
        """Take the drawer of the backend ``name``; None where there is no place to keep anything."""
        self.tokens: list[Kept] = []
        """The one to ask with first."""
        self.unwrapped: dict[str, str] = {}
        self.refusals = Refusals()
        self.unkept: str | None = None
        """Why nothing would outlive a restart, or None."""
        self._name = name
        self._drawer = drawer
        self._loaded = False

    async def load(self) -> None:
        """Find again what was kept, once; where the place for it cannot be opened, the next call tries again."""
        if self._loaded:
            return
        if self._drawer is None:
            self._loaded = True
            self.unkept = "there is no sealed store to keep its tokens in"
            return
        try:
            found = await self._drawer.read()
        except BackendError as error:
            self.unkept = error.message
            return
        self._loaded, self.unkept = True, None
        if found is None:
            return
        try:
            content = msgspec.json.decode(found.expose(), type=_Content)
        except msgspec.MsgspecError:
            _log.warning("backend %s: what was kept of its tokens cannot be read", self._name)
            return
        have = {each.accessor for each in self.tokens}
        self.unwrapped = content.unwrapped | self.unwrapped
        if not self.refusals.times:
            self.refusals = content.refusals
        for kept in content.tokens:
            if kept.accessor not in have:
                kept.sure = False
                self.tokens.append(kept)

    async def save(self) -> None:
        """Keep what there is now. Where that cannot be, it goes on without, and ``unkept`` says so."""
        if self._drawer is None:
            return
        # What is in there already must not be written over unseen.
        await self.load()
        empty = not self.tokens and not self.unwrapped and not self.refusals.times
        kept = _Content(tokens=self.tokens, unwrapped=self.unwrapped, refusals=self.refusals)
        content = msgspec.json.encode(kept).decode()
        try:
            await self._drawer.write(None if empty else Secret(content))
        except BackendError as error:
            self.unkept = error.message
            _log.warning("backend %s: its tokens would not outlive a restart: %s", self._name, error.message)
        else:
            self.unkept = None

    async def drop(self, kept: Kept) -> None:
        """Keep a token no more."""
        self.tokens = [each for each in self.tokens if each.accessor != kept.accessor]
        await self.save()
