"""
What an HTTP request asks, once a library has taken it apart: who sent it, and with which parameters.

It refuses to guess. A parameter in the wrong place is an error and not ignored,
a name that stands twice is one too, and so is a host that is not this one.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Final

import msgspec

from broker.api.encode import encode
from broker.errors import DeniedError, RequestError

WITH_BODY: Final = frozenset({"POST", "PUT"})
"""Methods that take their parameters from a body; the others take them from the query."""

SEE: Final = "docs/socket.md has every path and its parameters"

_OUR_HOSTS: Final = frozenset({"", "broker", "mcp-broker", "localhost"})
_SOME_HOST: Final = "curl --unix-socket SOCKET http://localhost/v1/whoami"

_SPELLED: Final = re.compile(r"true|false|0|-?[1-9][0-9]{0,17}")
"""What in a query is a number or a truth to a verb that wants one; all else stays a text, and is refused as one."""

_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class HttpRequestError(RequestError):
    """The request cannot be answered for a reason for which HTTP has a status of its own."""

    def __init__(
        self, status: HTTPStatus, message: str, *, hint: str | None = SEE, headers: Mapping[str, str] | None = None
    ) -> None:
        """Keep the status, and headers that belong to it."""
        super().__init__(message, hint=hint)
        self.status = status
        self.headers = headers or {}


def refuse_browsers(headers: Mapping[str, str]) -> None:
    """
    Raise ``DeniedError`` for a request that a web page could have sent.

    Browsers cannot reach a Unix socket. They can where somebody forwards it to a port, and must not then.
    """
    if "Origin" in headers or "Sec-Fetch-Site" in headers:
        message = "browsers are not served"
        raise DeniedError(message, hint="curl --unix-socket, or any program that is not a browser")
    if (host := headers.get("Host", "")) not in _OUR_HOSTS and not _is_ours(host):
        # A web page that has its own name lead here sends that name, and an old browser sends no Origin with it.
        message = "the host in the URL must be localhost, broker, mcp-broker, or an address of this host's loopback"
        raise DeniedError(message, hint=_SOME_HOST)


def _is_ours(host: str) -> bool:
    """Return whether a ``Host``, with or without a port, can mean nothing but this host."""
    name, colon, port = host.strip().rpartition(":")
    if not colon or not (port.isdecimal() or not port):
        name = host.strip()
    if name.lower() in _OUR_HOSTS:
        return True
    try:
        return ipaddress.ip_address(name[1:-1] if name[:1] + name[-1:] == "[]" else name).is_loopback
    except ValueError:
        return False


def not_texts(params: type[msgspec.Struct]) -> frozenset[str]:
    """Return which of a verb's parameters are numbers or truths, which a query can only spell."""
    schema = msgspec.json.schema_components([params])[1][params.__name__]
    kinds = {
        name: {each.get("type") for each in kind.get("anyOf", [kind])} for name, kind in schema["properties"].items()
    }
    return frozenset(name for name, types in kinds.items() if types & {"integer", "boolean"})


def parameters(
    method: str,
    fields: Mapping[str, str],
    query: Iterable[tuple[str, str]],
    body: bytes,
    *,
    spelled: frozenset[str] = frozenset(),
) -> bytes:
    """
    Return the parameters of a request as one JSON object.

    Args:
        method: says where they stand.
        fields: those that stood in the path.
        query: names and values, in their order.
        body: empty where there was none.
        spelled: which of them are no texts, though a query spells them as one.

    Raises:
        RequestError: one stands in the wrong place or twice, or the body is no JSON object.

    """
    if method in WITH_BODY:
        if any(query):
            message = f"a {method} takes its parameters from its body, not from its query"
            raise RequestError(message, hint=SEE)
        return _joined(fields, body)
    if body:
        message = f"a {method} takes its parameters from its query, not from a body"
        raise RequestError(message, hint=SEE)
    given: dict[str, str | msgspec.Raw] = dict(fields)
    for name, value in query:
        if name in given:
            message = "a parameter is given twice"
            raise RequestError(message, hint=SEE)
        given[name] = msgspec.Raw(value.encode("ascii")) if name in spelled and _SPELLED.fullmatch(value) else value
    return encode(given)


def _joined(fields: Mapping[str, str], body: bytes) -> bytes:
    """Return a JSON body with the parameters of the path put in."""
    if body in {b"", b"{}"}:
        return encode(fields)
    try:
        members = _members(body)
    except RecursionError:
        message = "the body is nested too deeply"
        raise RequestError(message) from None
    except msgspec.ValidationError:
        message = "the body must be a JSON object"
        raise RequestError(message, hint=SEE) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        message = "the body is not JSON in UTF-8"
        raise RequestError(message, hint=SEE) from None
    for name, value in fields.items():
        if name in members:
            message = f'"{name}" stands in the path, not in the body'
            raise RequestError(message, hint=SEE)
        members[name] = msgspec.Raw(encode(value))
    return encode(members)
