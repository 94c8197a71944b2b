"""
The load: connections that each send a request, wait for its answer, and send the next.

It runs in a process of its own and does as little per answer as it can, so that
what is measured is the server. It refuses to look into the answers beyond
counting them; ``check`` looks at one before the measurement.
"""

import asyncio
import json
import socket
import sys
import time
from pathlib import Path

import uvloop


class Connection(asyncio.Protocol):
    """One connection with one request under way at any time."""

    def __init__(self, request: bytes, mark: bytes, times: list[float]) -> None:
        """Send ``request`` again whenever ``mark`` has come back."""
        self._request = request
        self._mark = mark
        self._times = times
        self._sent = 0.0
        self._rest = b""
        self.stopped = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = transport
        self._send()

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(self._request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        """Count an answer once all of it is there."""
        self._rest += data
        if self._mark in self._rest:
            self._rest = b""
            self._times.append(time.perf_counter() - self._sent)
            if not self.stopped:
                self._send()


async def drive(path: str, request: bytes, mark: bytes, connections: int, seconds: float) -> dict[str, float]:
    """Load the server at ``path`` and return answers a second and the median and 99th percentile in ms."""
    loop = asyncio.get_running_loop()
    times: list[float] = []
    made = []
    for _ in range(connections):
        _, protocol = await loop.create_unix_connection(lambda: Connection(request, mark, times), path)
        made.append(protocol)
    await asyncio.sleep(seconds / 4)
    times.clear()
    begin = time.perf_counter()
    await asyncio.sleep(seconds)
    count, span = len(times), time.perf_counter() - begin
    for protocol in made:
        protocol.stopped = True
    ordered = sorted(times) or [float("nan")]
    return {
        "rate": count / span,
        "p50": ordered[len(ordered) // 2] * 1000,
        "p99": ordered[len(ordered) * 99 // 100] * 1000,
    }


def check(path: str, request: bytes, wanted: bytes) -> None:
    """Send one request and make sure that the answer holds what it should; the answer itself is not shown."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(path)
        sock.sendall(request)
        answer = b""
        while wanted not in answer:
            part = sock.recv(65536)
            if not part:
                message = "the server's answer is not the one that is to be measured"
                raise SystemExit(message)
            answer += part


def main() -> None:
    """Read what to do from a JSON file named on the command line; print the figures as JSON."""
    job = json.loads(Path(sys.argv[1]).read_text())
    request, mark = job["request"].encode(), job["mark"].encode()
    check(job["path"], request, mark)
    print(json.dumps(uvloop.run(drive(job["path"], request, mark, job["connections"], job["seconds"]))))


if __name__ == "__main__":
    main()
