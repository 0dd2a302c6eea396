"""A market in one process and in made-up time: the real drivers, gates and wallets of a buyer and of sellers, over the
model mint and the simulated wire. A node may die at any commit or at any moment, and comes back over its database.
"""

import asyncio
import contextlib
import contextvars
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, cached_property
from typing import Any

from core.effect import EffectClass, Intent, Outcome, OutcomeState
from core.error import VendoError
from core.identifier import PubKey
from core.money import Msat, Rate
from core.unit import Row, Write
from dvm.buying import Buying
from dvm.error import ProviderFailed
from dvm.opening import StagedPurchase
from dvm.policy import Policy
from dvm.provider.provider import Answer, only_text
from dvm.request import ComputeRequest, Datum
from dvm.selling import Selling
from dvm.service import Service
from dvm.settlement import Settlement
from node.gate.gate import NodeGate
from node.gate.limits import Limits
from node.storage.memory import MemoryDatabase
from relays.key import Key, Keyring
from relays.outbox import Outbox
from tests.model_mint import Fault, ModelMint
from tests.simulation.life import SERVICE, Crashed, Disk, Life, Line, track
from tests.simulation.script import FREE, PAID, Crash, Job, Script, Trigger
from tests.simulation.virtual import EPOCH, VirtualClock, VirtualLoop
from tests.simulation.wire import SimPool, SimRelay
from wallet.cashu.derive import Derivation
from wallet.error import FxUnpriced
from wallet.purse import Purse
from wallet.record import Vault
from wallet.wallet import Wallet

WORDS = {
    "buyer": "leader monkey parrot ring guide accident before fence cannon height naive bean",
    "cheap": "legal winner thank year wave sausage worth useful legal winner thank yellow",
    "dear": "letter advice cage absurd amount doctor acoustic avoid letter advice cage above",
}
POLICY = Policy(quote_window_ms=1_500, patience_ms=2_000, timeout_s=8, fallback_timeout_s=8, lock_margin_s=80)
QUOTE_TTL_S = 12
LONGEST_S = 900
MONEY_FAULTS = (
    Fault.UNREACHABLE,
    Fault.REQUEST_LOST,
    Fault.REQUEST_DELAYED,
    Fault.ANSWER_LOST,
    Fault.ANSWER_LOST,
    Fault.REPEATED,
    Fault.REFUSED,
    Fault.FALSE_NO,
    Fault.WRONG_AMOUNT,
    Fault.WRONG_DLEQ,
    Fault.SHORT,
    Fault.BUSY,
)
_ASK_FAULTS = (Fault.UNREACHABLE, Fault.ANSWER_LOST, Fault.BUSY, Fault.REQUEST_LOST)


class Ring(Keyring):
    """A keyring that derives its node key once; deriving is slow, and runs are many."""

    @cached_property
    def node(self) -> Key:
        return super().node


@cache
def ring(name: str) -> Ring:
    return Ring(WORDS[name])


class Bench:
    """A provider that works in made-up time, and whose work is counted."""

    kinds = frozenset({PAID, FREE})

    def __init__(self, node: "Node", name: str = "bench") -> None:
        self._node, self.name = node, name

    def check(self, request: ComputeRequest) -> None:
        only_text(request)

    async def run(self, request: ComputeRequest) -> Answer:
        world = self._node.world
        for watcher in world.on_work:
            watcher(self._node, request)
        await world.clock.sleep(world.random.random() * 1.5)
        if world.random.random() < world.clumsy:
            kind = world.random.choice(("late", "failed", "broken", "empty"))
            world.clumsy /= 2
            if kind == "late":
                await world.clock.sleep(30)
            elif kind == "failed":
                raise ProviderFailed("It did not work out.")
            elif kind == "broken":
                raise RuntimeError("out of order")
            else:
                return Answer("  ")
        return Answer(only_text(request))


class Node:
    """One node: its database, and the parts of the process that runs now."""

    def __init__(self, world: "World", name: str, prices: dict[int, int]) -> None:
        self.world, self.name, self.prices = world, name, prices
        self.db = MemoryDatabase(clock=world.clock)
        self.keyring = ring(name)
        self.key = self.keyring.node
        self.wallet_key = self.keyring.key("wallet")
        self.limits = _limits(world.script)
        self.life = Life()
        self.crashes = [crash for crash in world.script.crashes if crash.node == name]
        self.seen: Counter[str] = Counter()
        self.up = asyncio.Event()
        self.lives = 0
        self.pool: SimPool | None = None
        self.faults: list[str] = []

    # ---- its life

    def start(self) -> None:
        self.life = Life()
        self.lives += 1
        self.life.start(self._run(self.life), f"{SERVICE}{self.name}")

    async def _run(self, life: Life) -> None:
        """What `node.app` does, in its order."""
        world, clock = self.world, self.world.clock
        disk: Any = Disk(self.db, life, self._before, self._after)
        self.disk = disk
        self.gate = NodeGate(disk, clock, self.limits, self.key.pubkey)
        await self.gate.load()
        pool: Any = SimPool(world.relay, self.gate.check)
        self.pool = pool
        self.outbox = Outbox(pool, disk, clock, self.gate.delivery)
        self.outbox._jitter = world.random.uniform
        line: Any = Line(world.mint, life, self.gate.check, world.latency)
        self.wallet = Wallet(disk, self.keyring, clock, self.gate.check, [line], permit_for=self.gate.permit)
        await self.wallet.recover()
        bench: Any = Bench(self)
        builtin = [bench, Bench(self, "spare")] if world.script.spare else [bench]
        services = [Service(kind, Msat.of_sat(price), bench, 2, 4, 20) for kind, price in self.prices.items()]
        policy = replace(POLICY, order=world.script.order, default_max=self.limits.per_job)
        self.selling = Selling(
            disk, self.gate, pool, self.outbox, self.wallet, self.keyring, clock, services, quote_ttl_s=QUOTE_TTL_S,
            proven=lambda mint: world.script.atomic,
            settlement=Settlement(order_max=Msat.of_sat(1_000 if world.script.orders == "all" else 0)),
        )  # fmt: skip
        self.buying = Buying(
            disk, self.gate, pool, self.outbox, self.wallet, world.fx, self.keyring, clock, policy,
            builtin, lambda kind: world.known(kind), proven=lambda mint: world.script.atomic,
        )  # fmt: skip
        for part in (self.gate.days, self.outbox, self.wallet, self.selling, self.buying):
            ready = asyncio.Event()
            life.start(self._service(part, ready), f"{SERVICE}{self.name} {type(part).__name__}")
            await ready.wait()
        self.up.set()

    async def _service(self, part: Any, ready: asyncio.Event) -> None:
        await part.run(ready, asyncio.Event())
        raise AssertionError(f"{type(part).__name__} ended by itself")

    # ---- its end

    def _before(self, unit: Sequence[Write]) -> None:
        self._crash(unit, after=False)

    def _after(self, unit: Sequence[Write]) -> None:
        labels = labels_of(unit)
        self.world.commits.update(labels)
        for watcher in self.world.on_commit:
            watcher(self, unit)
        self._trigger(labels)
        self._crash(unit, after=True)

    def _trigger(self, labels: Sequence[str]) -> None:
        for trigger in self.world.script.triggers:
            if (
                self.world.armed
                and trigger.node == self.name
                and any(label.startswith(trigger.label) for label in labels)
            ):
                self.seen[f"{trigger}"] += 1
                if self.seen[f"{trigger}"] == trigger.number:
                    self.world.acted[f"{trigger.action} after {trigger.label}"] += 1
                    self.world.spawn(self.world.happen(trigger))

    def _crash(self, unit: Sequence[Write], *, after: bool) -> None:
        for label in labels_of(unit) if self.world.armed else ():
            for crash in self.crashes:
                if crash.at is None and crash.after is after and label.startswith(crash.label):
                    self.seen[f"{crash}"] += 1
                    if self.seen[f"{crash}"] == crash.number and self.lives < 4:
                        self.world.crashed[f"{'after' if after else 'before'} {label}"] += 1
                        self.die(crash.down)

    def die(self, down: float | None = None) -> None:
        """Nothing more of this process happens."""
        life = self.life
        if life.dead:
            return
        life.dead = True
        self.up.clear()
        if self.pool is not None:
            self.pool.cut()
        self.world.spawn(self._rise(life, down))

    async def _rise(self, life: Life, down: float | None) -> None:
        await life.bury()
        self._inspect(life)
        chance = self.world.random
        await self.world.clock.sleep(0.2 + chance.random() * chance.choice((1, 1, 10)) if down is None else down)
        self.start()

    def _inspect(self, life: Life) -> None:
        self.faults += [f"{self.name}: a task failed: {error!r}" for error in life.failed]

    async def call(self, act: Callable[[], Any]) -> Any:
        """Ask the process that runs now; again if it dies before it answers."""
        while True:
            await self.up.wait()
            try:
                return await self.life.call(act)
            except Crashed:
                await self.world.clock.sleep(0.1)

    # ---- looking into it

    def rows(self, table: str) -> list[Row]:
        """The durable rows, without asking anybody."""
        return list(self.db._rows(table).rows.values())

    @cached_property
    def purse(self) -> Purse:
        """Opens what is sealed."""
        return Purse(self.db, Vault(self.keyring.derive("seal")), Derivation(self.keyring), self.world.clock)

    def operations(self) -> list[Any]:
        return [self.purse._stored(row) for row in self.rows("operation")]

    def coins(self, state: str) -> int:
        return sum(row["amount"] for row in self.rows("proof") if row["state"] == state)


class Fx:
    """A price that moves with every question, and is sometimes not to be had."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.given: set[Rate] = set()

    async def rate(self) -> Rate:
        chance = self._world.random
        if chance.random() < self._world.script.unpriced:
            self._world.acted["unpriced"] += 1
            raise FxUnpriced
        rate = Rate.of_btc_price(65_000 + chance.randrange(-20_000, 20_000), self._world.clock.now(), "test")
        self.given.add(rate)
        return rate


class World:
    """Everything that runs, and what it is watched by."""

    def __init__(self, script: Script) -> None:
        day = EPOCH - EPOCH % 86_400
        self.loop = VirtualLoop(day + 86_400 - 15 if script.late_in_day else EPOCH, outside=False)
        track(self.loop)
        self.script = script
        self.random = random.Random(script.seed)
        self.clock = VirtualClock(self.loop)
        self.commits: Counter[str] = Counter()
        self.crashed: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.acted: Counter[str] = Counter()
        self.on_commit: list[Callable[[Node, Sequence[Write]], None]] = []
        self.on_work: list[Callable[[Node, ComputeRequest], None]] = []
        self.clumsy = script.clumsy
        self.jobs: dict[str, str] = {}
        self.oddities: list[str] = []
        self.calm = self.armed = False
        self.outage, self.outage_kind = 0.0, ""
        self.next_fault: Fault | None = None
        self._swaps = 0
        self.actors: list[Any] = []
        self.nodes: dict[str, Node] = {}
        self.fx = Fx(self)
        self._tasks: set[asyncio.Task[None]] = set()

    # ---- building

    def build(self) -> None:
        """In the loop."""
        script = self.script
        self.relay = SimRelay(script.seed, replace(script.weather))
        self.mint = ModelMint(clock=self.clock)
        self.mint.shows_witness = not script.hides
        sells: dict[str, dict[int, int]] = {"buyer": {}, "cheap": {PAID: script.prices[0]}}
        if script.sellers > 1:
            sells["dear"] = {PAID: script.prices[1], FREE: 0}
        self.nodes = {name: Node(self, name, prices) for name, prices in sells.items()}

    @property
    def buyer(self) -> Node:
        return self.nodes["buyer"]

    @property
    def sellers(self) -> list[Node]:
        return [node for name, node in self.nodes.items() if name != "buyer"]

    def known(self, kind: int) -> frozenset[PubKey]:
        if not self.script.known:
            return frozenset()
        return frozenset(node.key.pubkey for node in self.sellers if kind in node.prices)

    def spawn(self, work: Any) -> None:
        """The world's own work: in nobody's process."""
        task = asyncio.get_running_loop().create_task(work, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.oddities.append(f"the simulation itself failed: {task.exception()!r}")

    async def latency(self, asks: bool) -> None:
        await self.clock.sleep(self.random.random() * (self.script.latency if asks else 0.05))

    def _fault(self, name: str) -> Fault:
        if self.next_fault is not None and name == "swap":
            return self._met(name, self.next_fault)
        if self.clock.monotonic() < self.outage:
            return self._dead(name)
        if self.calm or name in ("info", "keysets", "keys", "quote", "request_quote"):
            return Fault.NONE
        if self.random.random() >= self.script.faults:
            return Fault.NONE
        return self._met(name, self.random.choice(MONEY_FAULTS if name in ("swap", "mint") else _ASK_FAULTS))

    def _met(self, name: str, fault: Fault) -> Fault:
        self.next_fault = None
        if fault is Fault.REFUSED and self.mint._delayed:
            fault = Fault.REQUEST_LOST  # what an honest mint refuses, it refuses as well when an earlier copy arrives
        self.faults[f"{name} {fault}"] += 1
        if fault is Fault.REQUEST_DELAYED:
            self.relay.later(self.random.random() * 15, self._arrive)
        return fault

    def _dead(self, name: str) -> Fault:
        changes = name in ("swap", "mint")
        if self.outage_kind == "blind":
            return Fault.UNREACHABLE if name == "restore" else Fault.NONE
        if self.outage_kind == "refusing":
            return Fault.REFUSED if changes else Fault.NONE
        if self.outage_kind == "flaky":
            self._swaps += changes
            return (Fault.NONE, Fault.REQUEST_LOST, Fault.UNREACHABLE)[changes + (changes and self._swaps % 2 == 0)]
        return Fault.REQUEST_LOST if changes and self.outage_kind == "outage" else Fault.UNREACHABLE

    async def _arrive(self) -> None:
        self.mint.deliver()

    # ---- running

    async def play(self) -> None:
        """The whole story, to the point where nothing is open any more."""
        for node in self.nodes.values():
            node.start()
        for node in self.nodes.values():
            await node.up.wait()
        if self.script.funds:
            await self._fund()
        self.mint.script = self._fault
        self.armed = True
        for actor in self.actors:
            await actor.start()
        for crash in self.script.crashes:
            if crash.at is not None:
                self.spawn(self._die_at(crash))
        if self.script.partition is not None:
            self.spawn(self._cut_off(*self.script.partition))
        await asyncio.gather(*(self._customer(job) for job in self.script.jobs))
        await self.clock.sleep(self.script.storm)
        self.relay.weather.drop = self.relay.weather.forge = self.relay.weather.lose_ok = 0.0
        self.calm = True
        self.mint.deliver()
        await self._end()

    async def _fund(self) -> None:
        node = self.buyer
        intent = Intent("operator", "/wallet/deposit", "fund", b"", EffectClass.EXTERNAL, "fund")
        staged: Any = await node.gate.stage(intent)
        await node.call(lambda: node.disk.commit(staged.writes))

        async def deposit() -> None:
            wallet, permit = node.wallet, node.gate.permit(staged.effect_id)
            await wallet.deposit("fund", wallet.mints[0], self.script.funds, staged.effect_id, permit)
            while (await wallet.poll("fund")).state.value != "done":
                await self.clock.sleep(0.1)
            await node.disk.commit(await node.gate.settle(staged.effect_id, Outcome(OutcomeState.COMMIT)))

        await node.call(deposit)

    async def _die_at(self, crash: Crash) -> None:
        assert crash.at is not None
        await self.clock.sleep(crash.at)
        if not self.calm:
            self.crashed["at a random time"] += 1
            self.nodes[crash.node].die(crash.down)

    async def _cut_off(self, name: str, at: float, seconds: float) -> None:
        await self.clock.sleep(at)
        pool = self.nodes[name].pool
        if pool is not None:
            self.acted["partition"] += 1
            pool.partition(seconds)

    async def _bought(self, job: Job, request: ComputeRequest) -> StagedPurchase:
        """By the buyer that is alive now; a tick commits it by itself."""
        buyer = self.buyer
        if not job.ticks:
            return await buyer.buying.buy("agent:a", job.key, request)
        staged = await buyer.buying.stage("agent:a", job.key, request)
        if not staged.repeated:
            await buyer.disk.commit(staged.writes)
        staged.start()
        return staged

    async def _customer(self, job: Job) -> None:
        """Wants a job done, and does not care who dies meanwhile: the same key gives the same job."""
        await self.clock.sleep(job.at)
        request = ComputeRequest(job.kind, (Datum(f"work for {job.key}"),), (), job.maximum, job.timeout_s)
        for _ in range(2 if job.again else 1):
            try:
                staged = await self.buyer.call(lambda: self._bought(job, request))
            except VendoError as error:
                self.acted[f"refused {error.code}"] += 1
                continue
            if self.jobs.setdefault(job.key, staged.job_id) != staged.job_id:
                self.oddities.append(f"M1: the key {job.key} gave two jobs")
        job_id = self.jobs.get(job.key)
        if job_id is None:
            return
        if job.cancel_at is not None:
            await self.clock.sleep(job.cancel_at)
            await self.cancel(job_id)
        end = self.clock.monotonic() + 60
        while self.clock.monotonic() < end and not self._ended(job_id):
            await self.clock.sleep(0.25)

    async def cancel(self, job_id: str) -> None:
        with contextlib.suppress(VendoError):
            await self.buyer.call(lambda: self.buyer.buying.cancel(job_id))
            self.acted["cancelled"] += 1

    async def happen(self, trigger: Trigger) -> None:
        """What a commit was the sign for."""
        if trigger.action == "rotate":
            self.mint.rotate()
        elif trigger.action in ("outage", "away", "flaky", "refusing", "blind"):
            self.outage, self.outage_kind = self.clock.monotonic() + trigger.seconds, trigger.action
        elif trigger.action in set(Fault):
            self.next_fault = Fault(trigger.action)
        else:
            await self.clock.sleep(trigger.seconds)
            for job_id in list(self.jobs.values()):
                await self.cancel(job_id)

    def _ended(self, job_id: str) -> bool:
        return any(row["id"] == job_id and row["state"] in ENDED for row in self.buyer.rows("purchase"))

    async def _end(self) -> None:
        """Until nothing is open, or so late that something must be stuck."""
        end = self.clock.monotonic() + LONGEST_S
        while self.clock.monotonic() < end:
            await asyncio.gather(*(node.up.wait() for node in self.nodes.values()))
            if not self.open_ends():
                return
            await self.clock.sleep(2)

    def open_ends(self) -> list[str]:
        """What is not finished."""
        found = []
        for name, node in self.nodes.items():
            found += [f"{name}: effect {row['path']} {row['state']}" for row in node.rows("effect") if _is_open(row)]
            found += [
                f"{name}: operation {row['kind']} {row['state']}"
                for row in node.rows("operation")
                if row["state"] in ("prepared", "unknown", "waiting")
            ]
            found += [
                f"{name}: {node.coins(state)} sat {state}" for state in ("reserved", "locked") if node.coins(state)
            ]
            found += [f"{name}: outbox" for row in node.rows("outbox") if row["state"] == "pending"]
        return found

    async def close(self) -> None:
        for node in self.nodes.values():
            if node.pool is not None:
                node.pool.cut()
            node.life.dead = True
            node._inspect(node.life)
            await node.life.bury()
        for task in [*self._tasks, *self.relay.tasks]:
            task.cancel()


ENDED = ("delivered", "failed", "cancelled")


def _is_open(row: Row) -> bool:
    return row["state"] in ("begun", "unknown") and row["path"] != "/standing"


def _limits(script: Script) -> Limits:
    if script.unit == "msat":
        return Limits.of("msat", per_job=40_000, per_day=150_000, per_seller=script.per_seller * 2)
    return Limits.of("uusd", per_job=20_000, per_day=75_000, per_seller=script.per_seller)


def labels_of(unit: Sequence[Write]) -> list[str]:
    """What a unit is about: the kind of step at which a crash would come."""
    found = []
    for write in unit:
        row: Any = getattr(write, "row", None) or getattr(write, "set", None) or {}
        table = getattr(write, "table", None)
        if table == "purchase":
            found.append(f"purchase {row['state']}/{row['money']}")
        elif table == "sale":
            found.append(f"sale {row['state']}")
        elif table == "operation":
            found.append(f"operation {row['state']}")
    return found
