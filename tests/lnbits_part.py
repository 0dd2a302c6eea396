"""The three calls of LNbits' HTTP interface that nostr-dvm makes, before a wallet of ours at real mints.

    async with lnbits(http, payees, payers, deposit_sat=500) as there:
        there.url, there.wallet

A test part, and no LNbits: invoices are those of the mint `payees`, and others' are paid by the mint `payers`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from aiohttp import web
from bolt11 import decode

from core.clock import SystemClock
from core.effect import Permit
from core.money import Msat
from node.storage.memory import MemoryDatabase
from relays.key import Keyring, new_words
from tests.market_part import until
from tests.wallet_part import EFFECT, PERMIT, allow
from wallet.cashu.mint import MintClient
from wallet.payment import State
from wallet.wallet import Wallet


@dataclass(slots=True)
class Lnbits:
    """Where it answers, and the wallet behind it."""

    url: str
    wallet: Wallet

    async def sat(self, mint: str) -> int:
        """What the wallet has at a mint."""
        return sum(one.live for one in await self.wallet.balance() if one.mint == mint)


@asynccontextmanager
async def lnbits(http: aiohttp.ClientSession, payees: str, payers: str, deposit_sat: int) -> AsyncIterator[Lnbits]:
    """It answers until the block is left. The wallet begins with so much at `payers`."""
    clock = SystemClock()
    mints = [MintClient(url, http, allow) for url in (payees, payers)]
    wallet = Wallet(MemoryDatabase(clock=clock), Keyring(new_words()), clock, allow, mints, permit_for=Permit)
    await wallet.deposit("fund", payers, deposit_sat, EFFECT, PERMIT)

    async def funded() -> bool:
        return (await wallet.poll("fund")).state is State.DONE

    await until(funded, "the coins behind LNbits")
    made = 0

    async def pay(request: web.Request) -> web.Response:
        nonlocal made
        asked = await request.json()
        if asked["out"]:
            paid = await wallet.pay(
                f"pay {asked['bolt11']}", payers, asked["bolt11"], Msat.of_sat(deposit_sat), EFFECT, PERMIT
            )
            return web.json_response({"payment_hash": decode(asked["bolt11"]).payment_hash, "preimage": paid.preimage})
        made += 1
        text = (await wallet.deposit(f"invoice {made}", payees, int(asked["amount"]), EFFECT, PERMIT)).invoice
        hash_ = decode(text).payment_hash
        invoices[hash_] = f"invoice {made}"
        return web.json_response({"payment_request": text, "payment_hash": hash_})

    async def look(request: web.Request) -> web.Response:
        found = await wallet.poll(invoices[request.match_info["hash"]])
        return web.json_response({"paid": found.state is State.DONE})

    invoices: dict[str, str] = {}
    app = web.Application()
    app.router.add_post("/api/v1/payments", pay)
    app.router.add_get("/api/v1/payments/{hash}", look)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield Lnbits(f"http://127.0.0.1:{runner.addresses[0][1]}", wallet)
    finally:
        await runner.cleanup()
