"""
Refusals in HTTP without an HTTP library, for connections that are turned away before one is loaded.
"""

from http import HTTPStatus

from broker.api.encode import failure
from broker.errors import MEANINGS, BrokerError


def refusal(error: BrokerError) -> bytes:
    """Return the whole response that refuses a connection; whoever sends it closes the connection."""
    status, body = HTTPStatus(MEANINGS[error.code].http), failure(error)
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        "Content-Type: application/json\r\n"
        "Cache-Control: no-store\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Connection: close\r\n"
        "\r\n"
    )
    return head.encode("ascii") + body
