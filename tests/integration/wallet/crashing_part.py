"""A child process that does one wallet operation and is killed at one point of it. Run as a script by the tests."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import aiohttp
import orjson

from core.clock import SystemClock
from core.effect import Permit
from core.money import Msat
from node.storage.chain import unsigned_seal
from node.storage.database import Database, open_database
from relays.key import Keyring
from wallet.amount import Amount
from wallet.cashu.mint import MintClient
from wallet.model import LockTerms
from wallet.wallet import Wallet


def allow(_: Permit) -> None:
    """A gate that lets everything through."""


def die() -> None:
    """As a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)


class DyingMint(MintClient):
    """Dies right before or right after a swap or a melt."""

    when = ""

    async def swap(self, inputs, outputs, permit):
        if self.when == "before_request":
            die()
        answer = await super().swap(inputs, outputs, permit)
        if self.when == "after_answer":
            die()
        return answer

    async def melt(self, quote_id, inputs, outputs, permit):
        if self.when == "before_request":
            die()
        answer = await super().melt(quote_id, inputs, outputs, permit)
        if self.when == "after_answer":
            die()
        return answer

    async def restore(self, outputs):
        if self.when == "before_look_up":
            die()
        return await super().restore(outputs)


class DyingUnit:
    """Dies after the n-th commit of the operation."""

    def __init__(self, database: Database, commits: int) -> None:
        self._database = database
        self._left = commits

    async def commit(self, writes):
        await self._database.commit(writes)
        self._left -= 1
        if self._left == 0:
            die()

    async def select(self, *args, **kwargs):
        return await self._database.select(*args, **kwargs)


async def main() -> None:
    where, url, words, point, action, argument = sys.argv[1:7]
    clock = SystemClock()
    database = await open_database(Path(where), seal=unsigned_seal, clock=clock)
    commits = int(point.removeprefix("commit_")) if point.startswith("commit_") else 0
    async with aiohttp.ClientSession() as http:
        mint = DyingMint(url, http, allow)
        mint.when = point
        wallet = Wallet(DyingUnit(database, commits), Keyring(words), clock, allow, [mint], permit_for=Permit)
        permit = Permit("effect")
        if action == "lock":
            terms = LockTerms(url, Msat(10_000), argument, clock.now() + 600, quote_id="quote")
            await wallet.lock("lock", terms, Msat(20_000), "effect", permit)
        elif action == "send":
            await wallet.send("send", url, 20, "effect", permit, pubkey=argument)
        elif action == "send_cents":
            await wallet.foreign.send("send", url, Amount(20, "usd"), "effect", permit)
        elif action == "pay_cents":
            await wallet.foreign.pay("pay", url, argument, Amount(150, "usd"), "effect", permit)
        elif action == "receive_cents":
            await wallet.foreign.receive("receive", argument, "effect", permit)
        elif action == "pay":
            await wallet.pay("pay", url, argument, Msat(300_000), "effect", permit)
        else:
            await wallet.claim("claim", orjson.loads(Path(argument).read_bytes()), "effect", permit)
    await database.aclose()


if __name__ == "__main__":
    asyncio.run(main())
