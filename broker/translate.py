"""
What a backend's error means to the caller: the one place where that is decided.
"""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar, assert_never

from backends import base
from broker.config import SecretConfig
from broker.config.model import LOCAL
from broker.errors import (
    BrokerError,
    ConfigError,
    DeniedError,
    IntegrityError,
    LeaseNotFoundError,
    LockedError,
    OutcomeUnknownError,
    UnavailableError,
)

Answer = TypeVar("Answer")


async def answered(answer: Awaitable[Answer], *, within: float, secret: SecretConfig | None = None) -> Answer:
    """Return what a backend answers within so many seconds; raise the broker's own errors for the backend's."""
    try:
        async with asyncio.timeout(within):
            return await answer
    except (base.BackendError, TimeoutError) as error:
        raise translated(error, secret=secret) from None


def translated(  # noqa: C901, PLR0911 -- one return for each error there is
    error: base.BackendError | TimeoutError, *, secret: SecretConfig | None = None
) -> BrokerError:
    """
    Return the broker's error for a backend's.

    A time-out has an unknown outcome: it says nothing of what the source has
    done meanwhile.
    """
    name = "" if secret is None else f"secret {secret.name!r}: "
    match error:
        case TimeoutError():
            return OutcomeUnknownError(f"{name}the backend did not answer in time", hint="mcp-broker status")
        case base.SecretNotFoundError():
            if secret is None or secret.backend != LOCAL:
                return UnavailableError(f"{name}{error.message}", hint=error.hint or "mcp-broker status")
            missing = f"secret {secret.name!r} is not in {secret.backend!r} yet"
            return UnavailableError(missing, hint=f"mcp-broker secret set {secret.name}")
        case base.RefusedError():
            return DeniedError(f"{name}{error.message}", hint=error.hint)
        case base.LeaseGoneError():
            return LeaseNotFoundError(f"{name}{error.message}", hint=error.hint or "ask for the credential again")
        case base.LockedError():
            return LockedError(f"{name}{error.message}", hint=error.hint or "mcp-broker status")
        case base.OutcomeUnknownError():
            return OutcomeUnknownError(f"{name}{error.message}", hint=error.hint or "mcp-broker status")
        case base.UnavailableError():
            return UnavailableError(f"{name}{error.message}", hint=error.hint or "mcp-broker status")
        case base.MisconfiguredError():
            return ConfigError(f"{name}{error.message}", hint=error.hint or "mcp-broker check")
        case base.CorruptError():
            return IntegrityError(f"{name}{error.message}", hint=error.hint or "mcp-broker status")
        case base.BackendError():
            return UnavailableError(f"{name}{error.message}", hint=error.hint or "mcp-broker status")
        case _:
            assert_never(error)
