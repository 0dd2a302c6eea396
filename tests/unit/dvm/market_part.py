"""A market in one process: real drivers, wallets and gates over a model mint and a simulated wire, in made-up time."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from core.effect import EffectClass, Intent, Staged
from core.money import Msat, Rate
from dvm.admission import Limits as Strangers
from dvm.buying import Buying
from dvm.discovery import Discovery
from dvm.nutzap import Nutzaps
from dvm.policy import Policy
from dvm.provider.echo import Echo
from dvm.provider.provider import Provider
from dvm.selling import Selling
from dvm.service import Service
from dvm.settlement import Settlement
from dvm.shipping import Shipping
from dvm.unpacking import Unpacking
from node.gate.gate import NodeGate
from node.gate.limits import Limits
from node.storage.memory import MemoryDatabase
from relays.directory import Directory
from relays.key import Key, Keyring
from relays.outbox import Outbox
from tests.model_mint import ModelMint
from tests.simulation.virtual import VirtualClock
from tests.simulation.wire import SimPool, SimRelay
from wallet.error import FxUnpriced
from wallet.wallet import Wallet

WORDS = (
    "leader monkey parrot ring guide accident before fence cannon height naive bean",
    "what bleak badge arrange retreat wolf trade produce cricket blur garlic valid proud rude strong choose busy staff "
    "weather area salt hollow arm fade",
    "legal winner thank year wave sausage worth useful legal winner thank yellow",
    "letter advice cage absurd amount doctor acoustic avoid letter advice cage above",
)
POLICY = Policy(quote_window_ms=1_500, timeout_s=30, lock_margin_s=300)
LIMITS = Limits.of("uusd", per_job=1_000_000, per_day=5_000_000, per_seller=2_000_000)
RATE = Rate.of_btc_price(65_000, 0, "test")


class Price:
    """The price of a bitcoin, until somebody takes it away."""

    known = True

    async def rate(self) -> Rate:
        if not self.known:
            raise FxUnpriced
        return RATE


@dataclass
class Node:
    """One node's parts; `db` outlives a crash."""

    words: str
    relay: SimRelay
    mint: ModelMint
    clock: VirtualClock
    services: Callable[[], Sequence[Service]] = lambda: ()
    providers: Sequence[Provider] = ()
    policy: Policy = POLICY
    limits: Limits = LIMITS
    strangers: Strangers = field(default_factory=Strangers)
    price: Price = field(default_factory=Price)
    indexers: Sequence[str] = ()
    db: MemoryDatabase = field(default_factory=MemoryDatabase)
    tasks: list[asyncio.Task] = field(default_factory=list)
    attach: Callable[["Node"], None] = lambda node: None
    proven: Callable[[str], bool] = lambda mint: False
    settlement: Settlement | None = None
    offered: bool = False
    gifts: bool = False  # whether the part that takes nutzaps runs
    parcels: Callable[["Node"], tuple[Shipping | None, Unpacking | None]] = lambda node: (None, None)

    async def up(self, *, copied: bool = False) -> "Node":
        """`copied`: as after a restore from an old copy of the database."""
        self.keyring = Keyring(self.words)
        self.key: Key = self.keyring.node
        self.gate = NodeGate(self.db, self.clock, self.limits, self.key.pubkey)
        await self.gate.load()
        self.pool = SimPool(self.relay, self.gate.check)
        self.outbox = Outbox(self.pool, self.db, self.clock, self.gate.delivery)
        self.wallet = Wallet(
            self.db, self.keyring, self.clock, self.gate.check, [self.mint], permit_for=self.gate.permit,
            collection=self.gate.collection,
        )  # fmt: skip
        if copied:
            await self.wallet.mark_copied()
        await self.wallet.recover()
        self.directory = Directory(self.pool, self.db, self.clock)
        services = self.services()
        shipping, unpacking = self.parcels(self)
        self.discovery = Discovery(
            self.db, self.pool, self.outbox, self.keyring, self.clock, services,
            mints=self.wallet.mints, indexers=self.indexers, load=lambda: self.selling.load,
        )  # fmt: skip
        self.buying = Buying(
            self.db,
            self.gate,
            self.pool,
            self.outbox,
            self.wallet,
            self.price,
            self.keyring,
            self.clock,
            self.policy,
            self.providers,
            self.discovery.known_sellers,
            self.directory,
            settlement=self.settlement,
            proven=self.proven,
            unpacking=unpacking,
        )
        self.selling = Selling(
            self.db, self.gate, self.pool, self.outbox, self.wallet, self.keyring, self.clock, services,
            limits=self.strangers, directory=self.directory, settlement=self.settlement, proven=self.proven,
            shipping=shipping,
        )  # fmt: skip
        self.nutzaps = Nutzaps(
            self.db, self.gate, self.pool, self.outbox, self.wallet, self.key, self.clock, self.selling,
            lambda: self.offered,
        )  # fmt: skip
        if copied:
            await self.buying.adopt_copy()
        self.attach(self)
        self.stop = asyncio.Event()
        gifts = (self.nutzaps,) if self.gifts else ()
        for part in (self.outbox, self.wallet, self.discovery, self.buying, self.selling, *gifts):
            ready = asyncio.Event()
            self.tasks.append(asyncio.create_task(part.run(ready, self.stop)))
            await ready.wait()
        return self

    async def down(self) -> None:
        """Stop in order."""
        self.stop.set()
        await asyncio.gather(*self.tasks)
        self.tasks.clear()

    async def crash(self) -> None:
        """Nothing more of this process happens; the database is what it is."""
        self.pool.cut()
        for task in self.tasks:
            task.cancel()
        self.buying._crew.dismiss()
        self.selling._crew.dismiss()
        self.nutzaps._crew.dismiss()
        self.buying.prepaying.dismiss()
        self.selling.custodian.dismiss()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.tasks.clear()

    async def fund(self, sat: int) -> None:
        intent = Intent("operator", "/wallet/deposit", "fund", b"", EffectClass.EXTERNAL, "fund")
        staged = await self.gate.stage(intent)
        assert isinstance(staged, Staged)
        await self.db.commit(staged.writes)
        permit = self.gate.permit(staged.effect_id)
        await self.wallet.deposit("fund", self.wallet.mints[0], sat, staged.effect_id, permit)
        while (await self.wallet.poll("fund")).state.value != "done":
            await self.clock.sleep(0.1)

    async def sat(self) -> int:
        return sum(one.live for one in await self.wallet.balance())


async def until(clock: VirtualClock, holds: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until something holds."""
    end = clock.monotonic() + seconds
    while not holds():
        assert clock.monotonic() < end, "it did not happen in time"
        await clock.sleep(0.05)


def echo(price: int = 0, **more: int) -> Callable[[], Sequence[Service]]:
    return lambda: [Service(5050, Msat(price), Echo(), eta_s=2, **more)]
