"""
What the broker is compared with: the same libraries with nothing in between.

``echo``: an asyncio protocol on uvloop that decodes a JSON line with msgspec and
encodes one. ``aiohttp``: an ``Application`` with one route that answers JSON.
"""

import asyncio
import sys

import msgspec
import uvloop

ANSWER = {
    "accessor": "x" * 20,
    "secret": "github",
    "values": {"value": "v" * 40},
    "issued_at": "2026-11-23T09:00:00Z",
    "expires_at": "2026-11-23T10:00:00Z",
    "renewable": True,
    "version": 1,
}


class Echo(asyncio.Protocol):
    """Answers each line with one of the same size as the broker's."""

    def __init__(self) -> None:
        """Keep the codecs."""
        self._decode = msgspec.json.Decoder().decode
        self._encode = msgspec.json.Encoder().encode

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Decode and answer."""
        for line in data.splitlines():
            request = self._decode(line)
            answer = {"jsonrpc": "2.0", "id": request["id"], "result": ANSWER}
            self._transport.write(self._encode(answer) + b"\n")  # type: ignore[attr-defined]


async def echo(path: str) -> None:
    """Serve lines until killed."""
    server = await asyncio.get_running_loop().create_unix_server(Echo, path, backlog=1024)
    await server.serve_forever()


async def application(path: str) -> None:
    """Serve HTTP until killed."""
    from aiohttp import web  # noqa: PLC0415 -- only this half needs it

    async def issue(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=msgspec.json.encode(ANSWER), content_type="application/json")

    app = web.Application()
    app.router.add_post("/v1/secrets/{name}/issue", issue)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.UnixSite(runner, path, backlog=1024).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run({"echo": echo, "aiohttp": application}[sys.argv[1]](sys.argv[2]))
