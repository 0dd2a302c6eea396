"""One Lightning node: Debian's Electrum 4.3 as a daemon with a wallet of its own, on a chain for tests."""

import asyncio
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import bech32

from tests.foreign_part import free_port
from tests.lightning.process import Process, until
from tests.lightning.rpc import NodeClient, NodeRefused, bitcoin

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / ".tool/lightning"
_TRIES = 3  # somebody may be quicker to take its port
_CANNOT_LISTEN = "cannot listen for lightning p2p"
_WAS_CALLED = "handshake failure from incoming connection"  # by us, who have nothing to say


@dataclass(slots=True)
class Node:
    """A node that runs. `client` asks it; `process` is what may be held still."""

    name: str
    client: NodeClient
    process: Process
    address: str  # its key, and where it listens

    @property
    def key(self) -> str:
        """Its public key, hex."""
        return self.address.partition("@")[0]

    async def script(self) -> bytes:
        """Where it can be paid on the chain."""
        version, program = bech32.decode("bcrt", await self.client.call("getunusedaddress"))
        assert version == 0
        return bytes([0, len(program), *program])

    async def has_coins(self) -> bool:
        """Whether it has something to spend on the chain."""
        return float((await self.client.call("getbalance")).get("confirmed", 0)) > 0

    async def height(self) -> int:
        """Of the newest block that it has checked."""
        return int((await self.client.call("getinfo"))["blockchain_height"])

    async def open_channel(self, peer: "Node", sat: int, push_sat: int) -> str:
        """Begin a channel; its funding transaction waits for a block. Its id."""
        amounts = {"amount": bitcoin(sat), "push_amount": bitcoin(push_sat)}
        return str(await self.client.call("open_channel", connection_string=peer.address, **amounts))

    async def is_open(self, point: str) -> bool:
        """Whether a channel can be used."""
        found = [one for one in await self.client.channels() if one["channel_point"] == point]
        return bool(found) and (found[0]["state"], found[0]["peer_state"]) == ("OPEN", "GOOD")

    async def local_sat(self) -> int:
        """What it has in its channels."""
        return sum(one["local_balance"] for one in await self.client.channels())

    async def channel_sat(self, peer: "Node") -> int:
        """What it has in its channel with a peer."""
        return next(one["local_balance"] for one in await self.client.channels() if one["remote_pubkey"] == peer.key)

    async def is_quiet(self) -> bool:
        """Whether all of its channels can be used, and nothing is on its way through them."""
        keys = ("local_unsettled_sent", "remote_unsettled_sent")
        rows = await self.client.channels()
        return all(
            (one["state"], one["peer_state"]) == ("OPEN", "GOOD") and not any(one[key] for key in keys) for one in rows
        )

    @asynccontextmanager
    async def holding(self) -> AsyncIterator[None]:
        """It keeps what it is paid waiting, as for a hold invoice, until the block is left."""
        await self.client.call("enable_htlc_settle", b=False)
        try:
            yield
        finally:
            await self.client.call("enable_htlc_settle", b=True)

    async def forget_failures(self) -> None:
        """It tries again at once where it has met a refusal; otherwise it goes no such way for an hour."""
        await self.client.call("reset_liquidity_hints")
        await self.client.call("clear_ln_blacklist")

    async def in_flight_sat(self) -> int:
        """What it has offered and nobody has taken or refused yet."""
        return sum(one["local_unsettled_sent"] for one in await self.client.channels())


def _config(folder: Path, server_port: int, password: str, port: int) -> dict[str, Any]:
    return {
        "config_version": 3,  # of an older one it makes a server that speaks TLS
        "server": f"127.0.0.1:{server_port}:t",
        "oneserver": True,
        "auto_connect": False,
        "check_updates": False,
        "dont_show_testnet_warning": True,
        "rpcsock": "unix",
        "rpcsockpath": str(folder / "rpc"),
        "rpcuser": "vendo",
        "rpcpassword": password,
        "lightning_listen": f"127.0.0.1:{port}",
        "lightning_forward_payments": True,
        "use_gossip": True,  # without it, it pays through trampolines alone
    }


async def _answers(client: NodeClient) -> bool:
    try:
        await client.call("getinfo", limit_s=5)
    except (aiohttp.ClientError, TimeoutError, NodeRefused):
        return False
    return True


async def _start(name: str, folder: Path, log: Path, server_port: int) -> Node:
    password = secrets.token_hex(8)
    (folder / "regtest").mkdir(parents=True)
    text = json.dumps(_config(folder, server_port, password, free_port()))
    (folder / "regtest/config").write_text(text, encoding="utf-8")
    process, client = Process(name, folder, log), NodeClient(folder / "rpc", password)
    program = [str(PROGRAM / "venv/bin/python"), str(PROGRAM / "root/usr/bin/electrum")]
    await process.start(
        [*program, "--regtest", "-D", str(folder), "-v*", "daemon"],
        {"HOME": str(folder), "PATH": os.defpath, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    try:
        await process.ready(lambda: _answers(client))
        await client.call("create")
        await client.call("load_wallet")
        return Node(name, client, process, await client.call("nodeid"))
    except BaseException:
        await process.kill()
        raise


async def _listens(node: Node) -> bool:
    """Whether it, and nobody else, took its port; it says so in its log alone, and goes on without one."""
    where, _, port = node.address.partition("@")[2].rpartition(":")

    async def known() -> str:
        said = node.process.log.read_text(encoding="utf-8", errors="replace")
        if _CANNOT_LISTEN in said or _WAS_CALLED in said:
            return "no" if _CANNOT_LISTEN in said else "yes"
        try:
            _, writer = await asyncio.open_connection(where, int(port))
        except OSError:
            return ""
        writer.close()
        return ""

    return await until(known, f"{node.name} to listen") == "yes"


@asynccontextmanager
async def lightning_node(name: str, logs: Path, server_port: int) -> AsyncIterator[Node]:
    """A node with an empty wallet; it has forgotten everything when the block is left, and its log is in `logs`."""
    for left in reversed(range(_TRIES)):
        place = Path(tempfile.mkdtemp(prefix="vendo-ln-"))  # a socket's path is short
        log = logs / f"{name}.{left}.log"
        try:
            node = await _start(name, place / "home", log, server_port)
            try:
                if await _listens(node):
                    yield node
                    return
            finally:
                await node.process.stop()
        finally:
            shutil.rmtree(place, ignore_errors=True)
    raise AssertionError(f"{name} finds no port to listen at")
