"""What is no HTTP is answered with a code, too, and the connection ends."""

import asyncio

import orjson
import pytest
from aiohttp import web

from node.http.wire import Server

GOOD = b"GET / HTTP/1.1\r\nHost: x\r\n"


async def _answered(raw: bytes) -> bytes:
    async def handler(request: web.BaseRequest) -> web.Response:
        return web.Response(text=await request.text())

    runner = web.ServerRunner(Server(handler, access_log=None, auto_decompress=False))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        reader, writer = await asyncio.open_connection(*runner.addresses[0])
        writer.write(raw)
        async with asyncio.timeout(60):
            answer = await reader.read()
        writer.close()
        return answer
    finally:
        await runner.cleanup()


NO_HTTP = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
    "a method of its own": b"EVIL / HTTP/1.1\r\n\r\n",
    "another version": b"GET / HTTP/9.9\r\n\r\n",
    "a long header": GOOD + b"X-Long: " + b"A" * 70_000 + b"\r\n\r\n",
    "a long line": b"GET /" + b"A" * 20_000 + b" HTTP/1.1\r\n\r\n",
    "a space in a name": GOOD + b"X Y: z\r\n\r\n",
    "a length below zero": GOOD + b"Content-Length: -1\r\n\r\n",
    "two lengths": GOOD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nx",
    "a length and chunks": GOOD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("raw", NO_HTTP.values(), ids=NO_HTTP)
async def test_what_is_no_http_is_told_so(raw: bytes) -> None:
    head, _, body = (await _answered(raw)).partition(b"\r\n\r\n")
    assert head.split()[1] == b"400"
    assert b"application/problem+json" in head
    problem = orjson.loads(body)
    assert problem["code"] == "http.bad_request"
    assert problem["detail"]
    assert b"AAAA" not in body, "nothing of it is said again"


async def test_what_is_http_is_answered_as_ever() -> None:
    assert (await _answered(GOOD + b"Content-Length: 1\r\nConnection: close\r\n\r\nx")).endswith(b"\r\n\r\nx")
