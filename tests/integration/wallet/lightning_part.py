"""A Lightning driver as a node has it, over the embedded relay, a database on disk and a gate that is real."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from core.clock import SystemClock
from core.effect import EffectClass, Intent, Permit
from core.identifier import EffectId
from node.gate.gate import NodeGate
from node.gate.ledger import ledger_seal
from node.storage.database import Database, open_database
from relays.credential import Credentials
from relays.key import Keyring
from relays.local_signer import KeySigner
from relays.nip47 import parse_address
from relays.pool import Pool
from tests.gate_part import KEY, LIMITS
from tests.wallet_part import BUYER_WORDS
from wallet.lightning import LightningLimits
from wallet.lightning_record import LightningBook
from wallet.lightning_wallet import Lightning
from wallet.nwc import NwcClient
from wallet.record import Vault

CLOCK = SystemClock()
MOST = LightningLimits(per_payment=1_000_000, per_day=2_000_000, fee_base=2_000, fee_ppm=10_000)
HANGS_S = 60.0


@dataclass
class Desk:
    """A driver, and what it stands on."""

    lightning: Lightning
    book: LightningBook
    client: NwcClient
    database: Database
    gate: NodeGate
    pool: Pool

    async def begin(self, key: str) -> tuple[EffectId, Permit]:
        """An effect that has begun."""
        path = "/wallet/lightning/pay"
        staged = await self.gate.begin(Intent("operator", path, key, b"{}", EffectClass.IRREVERSIBLE, f"op-{key}"))
        return staged.effect_id, self.gate.permit(staged.effect_id)

    async def until(self, op_id: str, *stages: str) -> str:
        """Wait until an operation stands there, looking all the time."""
        async with asyncio.timeout(HANGS_S):
            while True:
                view = await self.lightning.poll(op_id)
                assert view is not None
                if view.stage in stages:
                    return str(view.stage)
                await asyncio.sleep(0.05)


@asynccontextmanager
async def desk(path: Path, uri: str, limits: LightningLimits = MOST) -> AsyncIterator[Desk]:
    """A driver over a pool of its own; the same path is the same database."""
    address = parse_address(uri)
    database = await open_database(path, seal=ledger_seal(KEY), clock=CLOCK)
    gate = NodeGate(database, CLOCK, LIMITS, KEY.pubkey)
    await gate.load()
    auth = Credentials(KeySigner(address.key), tuple, lambda _, key: True, CLOCK)
    pool = Pool(address.relays, unit=database, clock=CLOCK, check=gate.check, auth=auth)
    client = NwcClient(address, pool, CLOCK)
    client.listen()
    book = LightningBook(database, Vault(Keyring(BUYER_WORDS).derive("seal")), CLOCK)
    lightning = Lightning(
        database, book, CLOCK, client, gate.check,
        permit_for=gate.permit, standing=lambda: gate.standing("lightning"), limits=limits,
    )  # fmt: skip
    ready, stop = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(pool.run(ready, stop))
    await asyncio.wait_for(ready.wait(), HANGS_S)
    try:
        yield Desk(lightning, book, client, database, gate, pool)
    finally:
        stop.set()
        await asyncio.gather(running, return_exceptions=True)
        await database.aclose()
