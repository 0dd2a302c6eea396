"""Nodes of the same words one after the other, over model mints and a model relay: what a restore finds."""

from collections.abc import Awaitable, Callable, Sequence

from core.effect import Permit
from core.error import StoreUncertain
from core.identifier import EffectId
from core.money import Msat
from fs.service.treasury import Treasurer
from node.gate.ledger import ledger_seal
from node.memo import WalletMemo
from node.recall import Recall
from node.recovery import Recovery
from node.remainder import Remainder
from node.storage.memory import MemoryDatabase
from relays.event import Event, parse_json
from relays.filter import Filter
from relays.health import RelayHealth
from relays.key import Keyring
from relays.outbox import Outbox
from tests.gate_part import KEY, LIMITS, open_gate
from tests.model_mint import ModelMint
from tests.wallet_part import BUYER_WORDS, EFFECT, PERMIT, SELLER_WORDS, HandClock, allow, make_wallet
from wallet.leftover import leftover
from wallet.model import LockTerms
from wallet.payment import State
from wallet.wallet import Wallet

FIRST, SECOND = "https://one.example", "https://two.example"
RELAY = "ws://127.0.0.1:1"


class Relay:
    """Stored events: of each address the newest (NIP-01)."""

    urls = (RELAY,)
    up = True

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.handlers: dict[str, Callable[[Event, str], Awaitable[None]]] = {}

    def subscribe(self, name: str, filters: Sequence[Filter], handler, *, backdated: bool = False) -> None:
        self.handlers[name] = handler

    def on_up(self, _) -> None:
        pass

    async def fetch(self, filters: Sequence[Filter], timeout: float, relays: Sequence[str] | None = None):
        return [one for one in self.events if any(wanted.matches(one) for wanted in filters)]

    def health(self) -> list[RelayHealth]:
        return [RelayHealth(RELAY, up=self.up)]

    def store(self, event: Event) -> None:
        same = [one for one in self.events if one.value("d") == event.value("d")]
        if all(one.created_at < event.created_at for one in same):
            self.events = [one for one in self.events if one not in same] + [event]


class Dying(MemoryDatabase):
    """Fails all commits after so many, as if the process had been killed there."""

    left: int | None = None

    async def commit(self, writes) -> None:
        if self.left is not None:
            if self.left <= 0:
                raise StoreUncertain
            self.left -= 1
        await super().commit(writes)


class World:
    """Two mints, a relay, and nodes of the same words one after the other."""

    def __init__(self, more: Sequence[str] = ()) -> None:
        self.clock = HandClock()
        self.mints = {url: ModelMint(url, clock=self.clock, more=more) for url in (FIRST, SECOND)}
        self.relay = Relay()
        self.seller = make_wallet(SELLER_WORDS, list(self.mints.values()), self.clock)

    def pay_last(self, url: str) -> None:
        """Somebody pays the newest invoice of a mint."""
        self.mints[url].pay(list(self.mints[url]._quotes)[-1])

    def terms(self, sat: int = 10) -> LockTerms:
        return LockTerms(FIRST, Msat.of_sat(sat), self.seller.key.compressed, self.clock.now() + 600, quote_id="quote")

    async def settle(self, node: "Node") -> None:
        """What the wallet's and the treasurer's own loops do."""
        for stored in await node.wallet._purse.operations(state="waiting"):
            await node.wallet._keeper.poll(stored.op.id)
        await node.wallet._keeper.recover()
        await node.treasurer._look()


class Node:
    """The parts that take part, over one database."""

    def __init__(self, world: World, db: MemoryDatabase, gate, mints: Sequence[str], retired: Sequence[str]) -> None:
        self.world, self.db, self.gate = world, db, gate
        listed, over = ([world.mints[url] for url in urls] for urls in (mints, retired))

        def leave(effect: EffectId) -> Permit:
            return PERMIT if mints else gate.permit(effect)

        self.wallet = Wallet(
            db, Keyring(BUYER_WORDS), world.clock, allow, listed, permit_for=leave, retired=over
        )  # fmt: skip
        self.treasurer = Treasurer(self.wallet, gate, db, world.clock)
        self.outbox = Outbox(world.relay, db, world.clock, gate.delivery)
        key = Keyring(BUYER_WORDS).node
        memo = WalletMemo(db, world.relay, self.outbox, self.wallet.recollection, key, world.clock)
        recovery = Recovery(self.wallet, self.treasurer, world.clock, lambda url: world.mints[url])
        self.recall = Recall(memo, recovery, Remainder(db, world.relay, Keyring(BUYER_WORDS), recovery))

    async def publish(self) -> bool:
        """As the memo's service and the outbox do; whether there was something new to say."""
        said = await self.recall.memo.publish()
        for row in await self.db.select("outbox", {"state": "pending"}):
            self.world.relay.store(parse_json(row["raw"]))
        return said

    async def live(self) -> int:
        return sum(one.live for one in await self.wallet.balance())

    async def held(self) -> tuple[int, int, int]:
        rows = await self.wallet.balance()
        return tuple(sum(getattr(one, name) for one in rows) for name in ("live", "reserved", "locked"))

    async def fund(self, url: str, sat: int) -> None:
        await self.wallet.deposit(f"fund {url}", url, sat, EFFECT, PERMIT)
        assert (await self.wallet.poll(f"fund {url}")).state is State.DONE

    async def clean(self) -> bool:
        audit = await self.wallet.audit()
        return audit.clean and audit.open_operations == 0


async def node(world: World, mints: Sequence[str] = (), db: MemoryDatabase | None = None) -> Node:
    held = db if db is not None else Dying(ledger_seal(KEY), world.clock)
    made = Node(world, held, await open_gate(held, world.clock, LIMITS), mints, await leftover(held, mints))
    await made.recall.load()
    return made
