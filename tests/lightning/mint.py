"""A real nutshell mint, in a process of its own, on a Lightning node that is as real."""

import secrets
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from tests.foreign_part import free_port
from tests.lightning.node import ROOT, Node
from tests.lightning.process import DidNotStart, Process
from tests.mint_part import mint_environment

NAME = "ElectrumNode"
SOCKET, PASSWORD, PATIENCE = "LIGHTNING_SOCKET", "LIGHTNING_PASSWORD", "LIGHTNING_PATIENCE_S"
_TRIES = 3  # somebody may be quicker to take its port


@dataclass(slots=True)
class Mint:
    """A mint that may be killed and started again: it is the same mint then, at the same address."""

    process: Process
    node: Node
    settings: Mapping[str, str]
    port: int
    patience_s: float
    _mark: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Run it until it answers. A payment that takes longer than `patience_s` is pending for it.

        Raises:
            DidNotStart: it does not answer.
        """
        own = {
            "MINT_BACKEND_BOLT11_SAT": NAME,
            "MINT_INFO_NAME": self._mark,  # somebody else's mint may have its port
            "MINT_QUOTE_BACKEND_CHECK_RATE_LIMIT": "0",
            "PYTHONPATH": str(ROOT),
            SOCKET: str(self.node.client.socket),
            PASSWORD: self.node.client.password,
            PATIENCE: str(self.patience_s),
            **self.settings,
        }
        env = mint_environment(self.process.folder, self.port, 100, own)
        await self.process.start([sys.executable, "-m", "tests.lightning.backend"], env)
        try:
            await self.process.ready(self._answers)
        except BaseException:
            await self.process.kill()
            raise

    async def _answers(self) -> bool:
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as http,
                http.get(f"{self.url}/v1/info") as answer,
            ):
                return answer.status == 200 and (await answer.json()).get("name") == self._mark
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return False


@asynccontextmanager
async def lightning_mint(
    name: str,
    folder: Path,
    logs: Path,
    node: Node,
    settings: Mapping[str, str] | None = None,
    *,
    patience_s: float = 60.0,
) -> AsyncIterator[Mint]:
    """A mint with nutshell's own fees on a node. `settings`: more of what it is told."""
    for left in reversed(range(_TRIES)):
        home = folder / f"{name}-{left}"
        mint = Mint(Process(name, home, logs / f"{home.name}.log"), node, settings or {}, free_port(), patience_s)
        try:
            await mint.start()
        except DidNotStart:
            if left:
                continue
            raise
        try:
            yield mint
        finally:
            await mint.process.stop()
        return
