"""The demo's mint is known by its name: on its port somebody else's may answer."""

import asyncio
import sys
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from cli.demo.process import Child, _answers


@pytest.mark.parametrize("said", ['{"name": "somebody else"}', "[]", "no JSON"])
async def test_somebody_elses_mint_on_the_port_is_not_taken_for_ours(tmp_path: Path, said: str) -> None:
    async def info(request: web.Request) -> web.Response:
        return web.Response(text=said)

    app = web.Application()
    app.router.add_get("/v1/info", info)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=asyncio.subprocess.PIPE)
    assert process.stdin is not None
    try:
        async with aiohttp.ClientSession() as http:
            looking = asyncio.create_task(_answers(http, url, Child("mint", process, tmp_path / "log"), "ours"))
            done, _ = await asyncio.wait({looking}, timeout=1)
            assert not done, "it goes on looking for ours"
            process.stdin.close()  # ours ends: it could not have the port
            assert await looking is False
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await runner.cleanup()
