"""
What both dialects do with a request once they have read it.
"""

import logging
import time
from typing import Final

import msgspec

from broker.api.mistakes import in_words
from broker.api.verbs import Verb
from broker.api.words import Result
from broker.api.workload import Caller
from broker.core.policy import Ask
from broker.errors import BrokerError, RateLimitedError, RequestError

_log: Final = logging.getLogger("mcp_broker.api")

_RECORDED: Final = frozenset({"locked", "unavailable", "rate_limited", "integrity", "config", "expired"})
"""Codes that ``status`` shows beside denials, which record themselves."""


async def answer(caller: Caller, verb: Verb, raw: bytes | msgspec.Raw) -> Result:
    """
    Return what a verb answers.

    Raises ``BrokerError`` and nothing else: what nobody expected is logged by
    its kind and place alone, because its text may hold anything.
    """
    running, workload = caller.running, caller.peer.workload
    params: object = None
    began = time.perf_counter()
    caller.begin()
    try:
        if not verb.admin and not running.rate.take(workload.uid, time.monotonic()):
            message = f"uid {workload.uid} asks more than {running.rate.rate} times a second"
            raise RateLimitedError(message, hint="wait a second; [limits] requests_per_second = N in the config")
        params = decoded(verb, raw)
        return await verb.call(running, caller, params)
    except BrokerError as error:
        if error.code in _RECORDED and not verb.admin:
            asked = Ask(server=getattr(params, "server", None), secret=getattr(params, "secret", None))
            running.refusals.noted(workload, asked, code=error.code, reason=error.message, hint=error.hint)
        raise
    except Exception as error:  # noqa: BLE001 -- a bug here must not end the connection, nor tell what it held
        raise unexpected(error, verb.name) from None
    finally:
        caller.finish()
        running.timings.add(verb.name, time.perf_counter() - began)


def decoded(verb: Verb, raw: bytes | msgspec.Raw) -> object:
    """Return the parameters of a request, or raise ``RequestError`` that names what is wrong with them."""
    try:
        return verb.decode(raw)
    except RecursionError:
        message = "the parameters are nested too deeply"
        raise RequestError(message) from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RequestError(in_words(error), hint=f"parameters of {verb.name}: {_names(verb)}") from None


def _names(verb: Verb) -> str:
    return ", ".join(field.name for field in msgspec.structs.fields(verb.params)) or "none"


def unexpected(error: Exception, verb: str) -> BrokerError:
    """Log what nobody expected, without its text, and return what the caller may know."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = "?" if place is None else f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}"
    _log.error("%s failed unexpectedly: %s at %s", verb, type(error).__name__, where)
    return BrokerError(
        "the broker failed unexpectedly", hint="its log says where: journalctl, or the terminal of serve"
    )
