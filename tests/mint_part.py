"""A real nutshell mint as a subprocess, with fake Lightning and an operator's default fees.

It runs in an empty directory with an empty home and environment: a `.env` lying about would override everything.
"""

import asyncio
import contextlib
import os
import secrets
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp

READY_S = 60.0


_PLACE = {"msat": 1, "usd": 2, "eur": 3}  # in a keyset's derivation path


def also(*units: str, backend: str = "FakeWallet") -> dict[str, str]:
    """Settings of a mint that has coins in these units besides sat."""
    paths = ", ".join(f"\"m/0'/{_PLACE[unit]}'/0'\"" for unit in units)
    return {f"MINT_BACKEND_BOLT11_{unit.upper()}": backend for unit in units} | {
        "MINT_DERIVATION_PATH_LIST": f"[{paths}]"
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def mint_environment(home: Path, port: int, fee_ppk: int, extra: dict[str, str] | None = None) -> dict[str, str]:
    """All that the mint is told. Its rate limits spare loopback."""
    return {
        "HOME": str(home),
        "PATH": os.defpath,
        "CASHU_DIR": str(home),
        "MINT_DATABASE": str(home / "db"),
        "MINT_AUTH_DATABASE": str(home / "db"),
        "MINT_PRIVATE_KEY": f"test-seed-{port}",
        "MINT_BACKEND_BOLT11_SAT": "FakeWallet",
        "MINT_LISTEN_HOST": "127.0.0.1",
        "MINT_LISTEN_PORT": str(port),
        "MINT_INPUT_FEE_PPK": str(fee_ppk),
        "MINT_RATE_LIMIT": "false",
        "FAKEWALLET_DELAY_INCOMING_PAYMENT": "0",
        "FAKEWALLET_DELAY_OUTGOING_PAYMENT": "0",
        "LOG_LEVEL": "WARNING",
        **(extra or {}),
    }


async def _answers(url: str, process: asyncio.subprocess.Process, name: str) -> None:
    """Wait until this very mint answers: somebody else's may have the port, and ours ends a moment later."""
    async with aiohttp.ClientSession() as http:
        while process.returncode is None:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with http.get(f"{url}/v1/info", timeout=aiohttp.ClientTimeout(total=2)) as response:
                    if response.status == 200 and (await response.json()).get("name") == name:
                        return
            await asyncio.sleep(0.1)
    raise RuntimeError(f"the mint ended with {process.returncode}")


@asynccontextmanager
async def running_mint(
    tmp_path: Path,
    fee_ppk: int = 100,
    *,
    port: int | None = None,
    extra: dict[str, str] | None = None,
    script: Path | None = None,
) -> AsyncIterator[str]:
    """Its address. The same `tmp_path` and `port` again is the same mint, restarted.

    `script` starts nutshell in its own way; see `tests.lightning_part`.
    """
    if port is None:
        async with AsyncExitStack() as stack:
            yield await _started(stack, tmp_path, fee_ppk, extra, script)
        return
    async with _on_port(tmp_path, fee_ppk, port, extra, script) as url:
        yield url


async def _started(
    stack: AsyncExitStack, tmp_path: Path, fee_ppk: int, extra: dict[str, str] | None, script: Path | None
) -> str:
    """A mint on a free port, or on another one if somebody was quicker to take it."""
    for _ in range(2):
        try:
            return await stack.enter_async_context(_on_port(tmp_path, fee_ppk, _free_port(), extra, script))
        except RuntimeError:
            continue
    return await stack.enter_async_context(_on_port(tmp_path, fee_ppk, _free_port(), extra, script))


@asynccontextmanager
async def _on_port(
    tmp_path: Path, fee_ppk: int, port: int, extra: dict[str, str] | None, script: Path | None
) -> AsyncIterator[str]:
    home = tmp_path / f"mint-{port}"
    home.mkdir(parents=True, exist_ok=True)
    program = [str(Path(sys.executable).with_name("mint"))] if script is None else [sys.executable, str(script)]
    told = {"MINT_INFO_NAME": secrets.token_hex(8), **(extra or {})}
    with (home / "log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *program, cwd=home, env=mint_environment(home, port, fee_ppk, told), stdout=log, stderr=log
        )
    url = f"http://127.0.0.1:{port}"
    try:
        async with asyncio.timeout(READY_S):
            await _answers(url, process, told["MINT_INFO_NAME"])
        yield url
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(5):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
