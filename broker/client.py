"""
Asking the broker, for the commands: one connection, one question at a time.

This module refuses to talk to a listener that is not whose broker it should be,
to wait without a deadline, and to know the daemon's rooms.
"""

import json
import time
from collections import deque
from collections.abc import Iterator, Mapping
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self

from broker import errors
from broker.launch.failure import CannotStartError
from broker.launch.wire import ANYWHERE, NOBODY, SPEAK_WITHIN, Where, Wire, connect

__all__ = ["ADMIN", "ANYWHERE", "NOBODY", "WORKLOAD", "Client", "Where"]

WORKLOAD: Final = "broker.sock"
ADMIN: Final = "admin.sock"

ANSWER_WITHIN: Final = 60.0
"""Seconds for an answer: several backends may have to be asked, each with a deadline of its own."""

APPEAR_WITHIN: Final = 0.5
"""Seconds to wait for a broker that is just being restarted; a person is waiting too."""

_ERRORS: Final[Mapping[str, type[errors.BrokerError]]] = MappingProxyType(
    {
        "denied": errors.DeniedError,
        "locked": errors.LockedError,
        "unavailable": errors.UnavailableError,
        "rate_limited": errors.RateLimitedError,
        "audit_unavailable": errors.AuditError,
        "expired": errors.LeaseNotFoundError,
        "integrity": errors.IntegrityError,
        "config": errors.ConfigError,
        "invalid_request": errors.RequestError,
    },
)
"""The class of each code. Any other is ``internal``."""


class Client:
    """
    One connection to a broker.

    Attributes:
        path: the socket that it leads to.
        broker: what the broker answered to ``whoami``: its version and mode, and what it sees in us.

    """

    def __init__(
        self,
        where: Where = ANYWHERE,
        *,
        socket: str = WORKLOAD,
        within: float = APPEAR_WITHIN,
        autostart: bool = True,
    ) -> None:
        """
        Connect, and make sure that the broker answers; the user's own is started where that may be, and is wanted.

        Raises:
            BrokerError: it does not, or it is not whose it should be.

        """
        try:
            self._wire: Final[Wire] = connect(where, socket, within=within, autostart=autostart)
        except CannotStartError as failure:
            raise _error(failure.code, failure.message, failure.hint) from None
        self.path = self._wire.path
        self._number = 0
        self._told: deque[dict[str, Any]] = deque()
        try:
            # A broker that hangs accepts connections all the same: this one is answered at once by one that does not.
            self.broker = self._ask("whoami", {}, within=SPEAK_WITHIN)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        """Use the connection for a while."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close the connection. Leases hang on processes, not on connections."""
        self._wire.close()

    def call(self, method: str, *, within: float = ANSWER_WITHIN, **params: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
        """
        Ask, and return the result. Parameters that are None are not sent.

        Raises:
            BrokerError: the one whose code the broker answered with.

        """
        return self._ask(method, {name: value for name, value in params.items() if value is not None}, within=within)

    def watch(self, *, within: float = ANSWER_WITHIN) -> Iterator[dict[str, Any]]:
        """
        Yield what becomes of this process's leases, as it happens; nothing for ``within`` seconds ends it.

        Raises:
            BrokerError: the connection ended.

        """
        self._ask("lease/watch", {}, within=ANSWER_WITHIN)
        while True:
            while self._told:
                yield self._told.popleft()
            try:
                self._take(self._receive(within))
            except errors.UnavailableError:
                if self._wire.ended:
                    raise
                return

    def wait_for_end(self, within: float) -> bool:
        """Return whether the broker closed the connection within some seconds."""
        until = time.monotonic() + within
        try:
            while True:
                self._wire.receive(until)
        except CannotStartError:
            return self._wire.ended

    def _ask(self, method: str, params: Mapping[str, Any], *, within: float) -> dict[str, Any]:
        self._number += 1
        request = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": params}
        until = time.monotonic() + within
        try:
            self._wire.send(json.dumps(request), until)
        except CannotStartError as failure:
            raise _error(failure.code, failure.message, failure.hint) from None
        while True:
            answer = self._receive(until - time.monotonic())
            if answer.get("id") == self._number:
                return _result(answer)
            self._take(answer)

    def _receive(self, within: float) -> dict[str, Any]:
        try:
            answer = json.loads(self._wire.receive(time.monotonic() + within))
        except CannotStartError as failure:
            raise _error(failure.code, failure.message, failure.hint) from None
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            message = f"what listens at {self.path} does not speak as a broker does"
            raise errors.UnavailableError(message, hint="mcp-broker --version, and restart the broker")
        return answer

    def _take(self, message: dict[str, Any]) -> None:
        """Keep a notification for ``watch``."""
        if message.get("method") == "lease/changed" and isinstance(message.get("params"), dict):
            self._told.append(message["params"])


def _result(answer: Mapping[str, Any]) -> dict[str, Any]:
    result = answer.get("result")
    if isinstance(result, dict):
        return result
    error = answer.get("error")
    error = error if isinstance(error, dict) else {}
    more = error.get("data")
    more = more if isinstance(more, dict) else {}
    raise _error(str(more.get("code", "internal")), str(error.get("message", "no reason given")), more.get("hint"))


def _error(code: str, message: str, hint: str | None) -> errors.BrokerError:
    return _ERRORS.get(code, errors.BrokerError)(message, hint=hint)
