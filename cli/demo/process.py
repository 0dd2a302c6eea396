"""The demo's processes: a relay, a mint and three nodes, each on its own, each ended by its own pid."""

import asyncio
import json
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from core.error import Unavailable

_START = 120.0
_STOP = 60.0
_TRIES = 3  # of a mint: somebody may be quicker to take its port


@dataclass(slots=True)
class Child:
    """One process that the demo started, and the JSON line with which it said that it is ready."""

    name: str
    process: asyncio.subprocess.Process
    log: Path
    said: dict[str, Any] = field(default_factory=dict)

    async def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL for one that does not listen."""
        if self.process.returncode is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.process.wait(), _STOP)
        except TimeoutError:
            await self.kill()


def free_port() -> int:
    """A port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _spawn(name: str, argv: list[str], folder: Path, env: Mapping[str, str]) -> Child:
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{name}.log"
    with log.open("ab") as stderr:
        process = await asyncio.create_subprocess_exec(
            *argv, cwd=folder, env=dict(env), stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=stderr,
        )  # fmt: skip
    return Child(name, process, log)


async def _said(child: Child) -> Child:
    assert child.process.stdout is not None
    try:
        line = await asyncio.wait_for(child.process.stdout.readline(), _START)
        child.said = json.loads(line)
    except (TimeoutError, json.JSONDecodeError) as error:
        tail = child.log.read_text(encoding="utf-8", errors="replace")[-800:]
        raise Unavailable(f"{child.name} did not start. It last said: {tail}") from error
    finally:
        if not child.said and child.process.returncode is None:
            child.process.kill()  # also when its start was cancelled because a sibling failed
    return child


def _environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("VENDO_", "MINT_", "CASHU_"))}
    return kept | {"PYTHONUNBUFFERED": "1"}


async def start_relay(folder: Path) -> Child:
    """The embedded relay, alone; its line is `{url, pid}`."""
    argv = [sys.executable, "-m", "cli.main", "relay", "up", "--home", str(folder / "relay"), "--port", "0", "--json"]
    argv += ["--private-messages", "everybody"]  # the checker reads everything from outside
    return await _said(await _spawn("relay", argv, folder, _environment()))


async def start_node(name: str, folder: Path, home: Path, program: Sequence[str] = ("-m", "cli.main")) -> Child:
    """`vendo up`; its line is `{npub, control, relays, pid}`. `program`: what the interpreter is to run as `vendo`."""
    argv = [sys.executable, *program, "up", "--home", str(home)]
    return await _said(await _spawn(name, argv, folder, _environment()))


async def start_mint(folder: Path, http: aiohttp.ClientSession) -> Child:
    """A real nutshell mint with its default input fees; only its Lightning back-end is made up."""
    for _ in range(_TRIES):
        child, answers = await _start_mint(folder, http, free_port())
        if answers:
            return child
        if child.process.returncode == -signal.SIGKILL:  # it did not end by itself, so its port was not taken
            break
    raise Unavailable(f"The mint did not start. It last said: {child.log.read_text(errors='replace')[-800:]}")


async def _start_mint(folder: Path, http: aiohttp.ClientSession, port: int) -> tuple[Child, bool]:
    """A mint on a port that was free a moment ago, and whether it answers: it takes seconds until it listens."""
    own = folder / "mint"
    own.mkdir(parents=True, exist_ok=True)
    name = secrets.token_hex(8)  # by which this very mint is known
    env = {
        "MINT_INFO_NAME": name,
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "HOME": str(own),  # nutshell reads a .env from here or from its working directory: both are empty
        "CASHU_DIR": str(own),
        "MINT_DATABASE": str(own / "db"),
        "MINT_AUTH_DATABASE": str(own / "db"),
        "MINT_PRIVATE_KEY": "vendo-demo",
        "MINT_BACKEND_BOLT11_SAT": "FakeWallet",
        "MINT_LISTEN_HOST": "127.0.0.1",
        "MINT_LISTEN_PORT": str(port),
        "FAKEWALLET_DELAY_INCOMING_PAYMENT": "0",
        "FAKEWALLET_DELAY_OUTGOING_PAYMENT": "0",
        "MINT_QUOTE_BACKEND_CHECK_RATE_LIMIT": "0",
    }
    argv = [str(Path(sys.executable).parent / "mint"), "--port", str(port), "--host", "127.0.0.1"]
    child = await _spawn("mint", argv, own, env)
    child.said = {"url": f"http://127.0.0.1:{port}", "pid": child.process.pid}
    answers = False
    try:
        answers = await _answers(http, str(child.said["url"]), child, name)
    finally:
        if not answers and child.process.returncode is None:
            await child.kill()
    return child, answers


async def _answers(http: aiohttp.ClientSession, url: str, child: Child, name: str) -> bool:
    """Whether this very mint answers: somebody else's may have the port, and ours ends a moment later."""
    end = asyncio.get_running_loop().time() + _START
    while asyncio.get_running_loop().time() < end and child.process.returncode is None:
        try:
            async with http.get(url + "/v1/info") as answer:
                if answer.status == 200 and (await answer.json(content_type=None)).get("name") == name:
                    return True
        except (aiohttp.ClientError, TimeoutError, ValueError, AttributeError):  # whoever else may answer anything
            pass
        await asyncio.sleep(0.1)
    return False


@asynccontextmanager
async def family() -> AsyncIterator[list[Child]]:
    """Children that are all gone when the block is left, however it is left."""
    children: list[Child] = []
    try:
        yield children
    finally:
        await asyncio.gather(*(child.stop() for child in reversed(children)))
