"""
Writing secrets of K/V 2, and what a rotation keeps beside one: every write over what was seen, and nothing else.

Forty brokers may share a secret. What one of them has staged stands beside it, at
a path of its own, where all of them see it; whoever is late is told so. This
module refuses K/V 1, which cannot check what it writes over.
"""

from collections.abc import Mapping
from typing import Any, Final, final

import msgspec

from backends import vault_engines
from backends.base import (
    ConflictError,
    CorruptError,
    MisconfiguredError,
    OutcomeUnknownError,
    RefusedError,
    Secret,
    SecretNotFoundError,
)
from backends.rotating import Staged
from backends.vault_asking import Asking
from backends.vault_engines import Plan, plan

BESIDE: Final = ".mcp-broker-rotation"
"""What the path of a staged rotation ends with."""


class _Written(msgspec.Struct, frozen=True, kw_only=True):
    """``Staged`` as it stands in the K/V engine, values as text, so never shown."""

    token: str
    pending: dict[str, str]
    previous: dict[str, str]
    expected: int | None
    at: float
    lifetime: float | None = None
    beside: dict[str, str] = {}


@final
class VersionedSecrets:
    """The secrets of K/V 2 that a backend may write."""

    def __init__(self, asking: Asking) -> None:
        """Take who asks."""
        self._asking = asking

    async def put_if(self, path: str, values: Mapping[str, Secret], *, expected: int | None) -> int:
        """Write a version over the version ``expected``; return its number. Raises ``ConflictError``."""
        found = await self._plan(path)
        fields = {field: secret.expose() for field, secret in values.items()}
        return await self._write(found, fields, over=expected or 0, path=path)

    async def staged(self, path: str) -> Staged | None:
        """Return what a rotation has staged beside a secret."""
        found, _ = await self._beside(path)
        return found

    async def stage(self, path: str, staged: Staged | None, *, instead_of: str | None) -> None:
        """Keep it beside the secret, in the place of what has the token ``instead_of``. Raises ``ConflictError``."""
        before, version = await self._beside(path)
        if (None if before is None else before.token) != instead_of:
            message = f"another rotation of {path} has begun meanwhile"
            raise ConflictError(message)
        beside = await self._plan(path + BESIDE)
        await self._write(beside, {} if staged is None else _text(staged), over=version, path=path)
        # The versions before hold values that were never issued, or are no longer: nobody needs them.
        older = list(range(max(1, version - 10), version + 1))
        if older:
            destroy = Plan(path=_other(beside, "destroy"), write=True, body={"versions": older})
            await self._asking.ask(self._asking.calls.fetching(destroy), what=path)

    async def _beside(self, path: str) -> tuple[Staged | None, int]:
        """Return what is staged, and the version of the place where it stands; 0 for none."""
        beside = await self._plan(path + BESIDE)
        try:
            answer, _ = await self._asking.ask(self._asking.calls.fetching(beside), what=path)
        except SecretNotFoundError:
            return None, await self._latest(beside, path)
        version, _ = vault_engines.version_of(answer)
        data: Any = (answer.data or {}).get("data") or {}
        if not data.get("staged"):
            return None, version
        try:
            written = msgspec.json.decode(data["staged"], type=_Written)
        except (msgspec.MsgspecError, TypeError):
            message = f"what a rotation has staged beside {path} cannot be read"
            raise CorruptError(message, hint=f"bao kv delete {path}{BESIDE}") from None
        return _staged(written), version

    async def _latest(self, beside: Plan, path: str) -> int:
        """Return the number of the last version of what has none now: it goes on from there."""
        metadata = Plan(path=_other(beside, "metadata"))
        try:
            answer, _ = await self._asking.ask(self._asking.calls.fetching(metadata), what=path)
        except (SecretNotFoundError, RefusedError):
            return 0
        return int((answer.data or {}).get("current_version") or 0)

    async def _write(self, found: Plan, fields: Mapping[str, str], *, over: int, path: str) -> int:
        body = {"data": dict(fields), "options": {"cas": over}}
        write = Plan(path=found.path, write=True, body=body)
        try:
            # A write that comes twice conflicts with itself, so what is unknown is looked up by who asked.
            answer, _ = await self._asking.ask(self._asking.calls.fetching(write), what=path, minting=True)
        except OutcomeUnknownError:
            message = f"the answer to a write of {path} was lost"
            raise OutcomeUnknownError(message, hint="mcp-broker rotate --resume") from None
        return int((answer.data or {}).get("version") or 0)

    async def _plan(self, path: str) -> Plan:
        found = plan(await self._asking.mounted(path), path, {})
        if not found.versioned:
            message = f"{path} is not in a K/V engine of version 2, so nothing is written there"
            raise MisconfiguredError(message, hint="bao secrets list -detailed; bao kv enable-versioning MOUNT")
        return found


def _other(found: Plan, word: str) -> str:
    mount, _, inside = found.path.partition("/data/")
    return f"{mount}/{word}/{inside}"


def _text(staged: Staged) -> dict[str, str]:
    written = _Written(
        token=staged.token,
        pending={field: value.expose() for field, value in staged.pending.items()},
        previous={field: value.expose() for field, value in staged.previous.items()},
        expected=staged.expected,
        at=staged.at,
        lifetime=staged.lifetime,
        beside={field: value.expose() for field, value in staged.beside.items()},
    )
    return {"staged": msgspec.json.encode(written).decode()}


def _staged(written: _Written) -> Staged:
    return Staged(
        token=written.token,
        pending={field: Secret(value) for field, value in written.pending.items()},
        previous={field: Secret(value) for field, value in written.previous.items()},
        expected=written.expected,
        at=written.at,
        lifetime=written.lifetime,
        beside={field: Secret(value) for field, value in written.beside.items()},
    )
