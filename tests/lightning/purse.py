"""Wallets of ours at a mint on real Lightning, for tests: each has a database on disk and words of its own."""

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import aiohttp

from core.clock import SystemClock
from core.effect import Permit
from node.storage.chain import unsigned_seal
from node.storage.database import Database, open_database
from relays.key import Keyring, new_words
from tests.lightning.mint import Mint
from tests.lightning.network import Network
from tests.lightning.node import Node
from tests.lightning.process import until
from tests.lightning.rpc import Paid
from tests.wallet_part import EFFECT, PERMIT, allow
from wallet.cashu.mint import MintClient
from wallet.payment import State
from wallet.wallet import Wallet

CLOCK = SystemClock()
REGTEST = frozenset({"bcrt"})


@dataclass
class Part:
    """Nodes, a mint on one of them, and what wallets at it need."""

    net: Network
    mint: Mint
    http: aiohttp.ClientSession
    path: Path
    stack: contextlib.AsyncExitStack
    _kept: dict[str, tuple[Database, Keyring]] = field(default_factory=dict)

    async def wallet(self, name: str, currencies: frozenset[str] = REGTEST) -> Wallet:
        """An empty one; the same name again is the same wallet, started anew."""
        if name not in self._kept:
            opened = await open_database(self.path / f"{name}.db", seal=unsigned_seal, clock=CLOCK)
            self.stack.push_async_callback(opened.aclose)
            self._kept[name] = opened, Keyring(new_words())
        database, ring = self._kept[name]
        client = MintClient(self.mint.url, self.http, allow)
        return Wallet(database, ring, CLOCK, allow, [client], permit_for=Permit, currencies=currencies)

    async def funded(self, name: str, sat: int, payer: Node | None = None) -> Wallet:
        """A wallet with coins that a node has paid for."""
        wallet = await self.wallet(name)
        deposit = await wallet.deposit("deposit", self.mint.url, sat, EFFECT, PERMIT)
        proves(await (payer or self.net.middle).client.pay(deposit.invoice))
        await arrived(wallet, "deposit")
        return wallet


def proves(paid: Paid) -> None:
    """A payment whose preimage is that of its hash."""
    assert paid.success, paid.log
    assert paid.preimage is not None
    assert sha256(bytes.fromhex(paid.preimage)).hexdigest() == paid.payment_hash


async def arrived(wallet: Wallet, op_id: str) -> None:
    """Wait until a deposit has become coins."""

    async def done() -> bool:
        return (await wallet.poll(op_id)).state is State.DONE

    await until(done, f"{op_id} to be done")


async def clean(*wallets: Wallet) -> None:
    """Rows, journal and mint agree, and nothing is open."""
    for wallet in wallets:
        audit = await wallet.audit()
        assert audit.differences == ()
        assert audit.open_operations == 0


async def live(wallet: Wallet) -> int:
    """What can be spent, in sat."""
    return sum(balance.live for balance in await wallet.balance())


@asynccontextmanager
async def purses(net: Network, mint: Mint, path: Path) -> AsyncIterator[Part]:
    """Wallets that are closed when the block is left."""
    async with contextlib.AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        yield Part(net, mint, http, path, stack)
