"""
How a Vault is, for ``status``: in one word, a sentence, and a few facts.
"""

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import Final

from backends.base import BackendError, Health, LockedError, RefusedError, UnavailableError
from backends.vault_kept import Kept
from backends.vault_line import Line
from backends.vault_tokens import Tokens

_LOGIN_SECONDS: Final = 2.0
"""Seconds that a look waits for a login under way."""

_SKEWED: Final = 30.0
"""Seconds by which two clocks may differ before a person should know: leases end by the server's."""

_STATUS: Final = {
    0: ("unavailable", "it cannot be reached", "curl {address}/v1/sys/health"),
    501: ("locked", "it is not initialised", "bao operator init"),
    503: ("locked", "it is sealed", "bao operator unseal"),
}


async def state(line: Line, tokens: Tokens) -> Health:
    """Return how it is, within a few seconds, without changing anything but a login that is due anyway."""
    facts = {"address": line.address}
    if line.skew is not None:
        facts["clock"] = _clock(line.skew)
    if tokens.alarm is not None:
        return Health(state="misconfigured", detail=tokens.alarm, hint="find out who used it", facts=facts)
    found = _STATUS.get(await line.health())
    if found is not None:
        word, detail, hint = found
        trouble = line.trouble
        if word == "unavailable" and trouble is not None:
            detail = trouble.message
        return Health(state=word, detail=detail, hint=hint.format(address=line.address), facts=facts)
    kept = tokens.kept
    if kept is None:
        with contextlib.suppress(BackendError, TimeoutError):
            async with asyncio.timeout(_LOGIN_SECONDS):
                kept = await tokens.current()
    if kept is None:
        return _not_logged_in(tokens, facts)
    if line.skew is not None:
        # Known since the login at the latest.
        facts["clock"] = _clock(line.skew)
    facts |= _login(kept)
    detail = f"logged in as {facts['logged in as']}"
    if tokens.unkept is not None:
        detail += f"; its leases would not outlive a restart: {tokens.unkept}"
    if line.skew is not None and abs(line.skew) > _SKEWED:
        detail += f"; its clock is {facts['clock']}"
    return Health(state="ok", detail=detail, facts=facts)


def _not_logged_in(tokens: Tokens, facts: dict[str, str]) -> Health:
    trouble = tokens.trouble or UnavailableError("it is not logged in yet")
    match trouble:
        case LockedError():
            word = "locked"
        case UnavailableError():
            word = "unavailable"
        case RefusedError() | _:
            word = "misconfigured"
    return Health(state=word, detail=trouble.message, hint=trouble.hint, facts=facts)


def _login(kept: Kept) -> dict[str, str]:
    until = "it does not end"
    if kept.expires_at:
        until = datetime.fromtimestamp(kept.expires_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        until += ", and is renewed" if kept.renewable and not kept.worn else ", and is replaced before"
    return {
        "logged in as": f"{kept.name} ({kept.login})" if kept.name else kept.login,
        "policies": ", ".join(kept.policies) or "none",
        "token": kept.accessor,
        "token until": until,
    }


def _clock(skew: float) -> str:
    return "as ours" if abs(skew) < 2 else f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} ours"  # noqa: PLR2004
