"""Short answers are, byte for byte but for their headers' order, what aiohttp's own answer would be."""

import asyncio

import pytest
from aiohttp import web

from node.http.guard import HEADERS
from node.http.short import Short

BODY = b"a short file\n"
MEDIA = "text/plain; charset=utf-8"


async def _ask(handler, request: bytes) -> bytes:
    runner = web.ServerRunner(web.Server(handler, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    reader, writer = await asyncio.open_connection("127.0.0.1", runner.addresses[0][1])
    writer.write(request)
    answer = b""
    try:
        async with asyncio.timeout(60):
            while answer.count(BODY) < request.count(b"GET"):
                answer += await reader.read(1 << 16)
        return answer
    finally:
        writer.close()
        await runner.cleanup()


def _parted(answer: bytes) -> tuple[bytes, list[bytes], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    return status, sorted(line for line in lines if not line.startswith(b"Date: ")), body


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("more", ["", "Connection: close\r\n", "Connection: keep-alive\r\n"])
async def test_a_short_answer_is_what_an_ordinary_one_is(version: str, more: str) -> None:
    async def short(request: web.BaseRequest) -> web.StreamResponse:
        return Short(MEDIA, BODY)

    async def ordinary(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=BODY, headers={**HEADERS, "Content-Type": MEDIA})

    request = f"GET / HTTP/{version}\r\nHost: x\r\n{more}\r\n".encode()
    assert _parted(await _ask(short, request)) == _parted(await _ask(ordinary, request))


async def test_answers_to_requests_in_one_go_come_in_their_order() -> None:
    count = 0

    async def short(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal count
        count += 1
        return Short(MEDIA, b"%d %b" % (count, BODY))

    answer = await _ask(short, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 5)
    assert [int(part.rpartition(b"\n")[2]) for part in answer.split(b" a short file")[:-1]] == [1, 2, 3, 4, 5]
