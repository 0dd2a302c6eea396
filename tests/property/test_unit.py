"""Whatever an owner and the market do in whichever unit, with answers lost: each unit keeps its own balance (M3)."""

import asyncio
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.error import VendoError
from core.money import Msat
from node.storage.memory import MemoryDatabase
from tests.model_mint import MSAT_PER, Fault, ModelMint, payable
from tests.wallet_part import BUYER_WORDS, EFFECT, PERMIT, SELLER_WORDS, HandClock, make_wallet
from wallet import restorer
from wallet.amount import MSAT, SAT, USD, Amount
from wallet.error import UnitMixed
from wallet.model import LockTerms

UNITS = (SAT, MSAT, USD)
ACTS = ("send", "take", "pay", "lock", "claim", "restart", "rotate")
FAULTS = (Fault.NONE, Fault.NONE, Fault.ANSWER_LOST, Fault.REQUEST_LOST, Fault.REPEATED, Fault.BUSY, Fault.SHORT)


@dataclass(frozen=True)
class Step:
    """What is done, in which unit, how much of it, and what goes wrong with the mint's answer."""

    act: str
    unit: str
    value: int
    fault: Fault


STEPS = st.lists(
    st.builds(Step, st.sampled_from(ACTS), st.sampled_from(UNITS), st.integers(1, 120), st.sampled_from(FAULTS)),
    max_size=14,
)


class World:
    """Two wallets at one mint with three units."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.mint = ModelMint(clock=self.clock, more=(MSAT, USD))
        self.databases = [MemoryDatabase(clock=self.clock) for _ in range(2)]
        self.start()
        self.count = 0
        self.tokens: list[tuple[str, str]] = []
        self.locked: list[object] = []

    def start(self) -> None:
        words = (BUYER_WORDS, SELLER_WORDS)
        self.wallets = [
            make_wallet(one, [self.mint], self.clock, unit) for one, unit in zip(words, self.databases, strict=True)
        ]

    async def fund(self) -> None:
        one = self.wallets[0]
        await one.deposit("sat", self.mint.url, 300, EFFECT, PERMIT)
        for unit in (MSAT, USD):
            await one.foreign.deposit(unit, self.mint.url, Amount(300, unit), EFFECT, PERMIT)
        for name in UNITS:
            await one._keeper.poll(name)

    async def step(self, what: Step) -> None:
        self.count += 1
        left = [what.fault]
        self.mint.script = lambda name: left.pop() if name in ("swap", "melt") and left else Fault.NONE
        try:
            await getattr(self, f"_{what.act}")(what)
        except UnitMixed:
            raise
        except VendoError:
            pass  # too little, or lost: the books are what is looked at
        self.mint.script = lambda _: Fault.NONE

    async def _send(self, what: Step) -> None:
        one, name = self.wallets[0], f"send {self.count}"
        if what.unit == SAT:
            token = await one.send(name, self.mint.url, what.value, EFFECT, PERMIT)
        else:
            token = await one.foreign.send(name, self.mint.url, Amount(what.value, what.unit), EFFECT, PERMIT)
        self.tokens.append((what.unit, token))

    async def _take(self, what: Step) -> None:
        if self.tokens:
            unit, token = self.tokens.pop()
            two, name = self.wallets[1], f"take {self.count}"
            await (two if unit == SAT else two.foreign).receive(name, token, EFFECT, PERMIT)

    async def _pay(self, what: Step) -> None:
        bill = payable(what.value * MSAT_PER[what.unit], self.clock.now(), f"bill {self.count}")
        one, name = self.wallets[0], f"pay {self.count}"
        if what.unit == SAT:
            await one.pay(name, self.mint.url, bill, Msat.of_sat(what.value + 9), EFFECT, PERMIT)
        else:
            most = Amount(what.value + 9, what.unit)
            await one.foreign.pay(name, self.mint.url, bill, most, EFFECT, PERMIT)

    async def _lock(self, what: Step) -> None:
        one, two = self.wallets
        terms = LockTerms(
            self.mint.url, Msat.of_sat(what.value), two.key.compressed, self.clock.now() + 600, quote_id="quote"
        )
        locked = await one.lock(f"lock {self.count}", terms, Msat.of_sat(what.value + 9), EFFECT, PERMIT)
        self.locked.append(locked.payload)

    async def _claim(self, what: Step) -> None:
        if self.locked:
            await self.wallets[1].claim(f"claim {self.count}", self.locked.pop(), EFFECT, PERMIT)

    async def _restart(self, what: Step) -> None:
        self.start()
        for wallet in self.wallets:
            await wallet.recover()

    async def _rotate(self, what: Step) -> None:
        self.mint.rotate(unit=what.unit)

    async def check(self) -> None:
        """What the mint owes in each unit is what both hold in it, and each book sums to zero by itself."""
        held = dict.fromkeys(UNITS, 0)
        for wallet in self.wallets:
            await wallet.recover()
            audit = await wallet.audit()
            assert audit.differences == ()
            for one in audit.mints:
                held[one.unit] += one.live + one.reserved + one.locked
                assert sum(one.journal.values()) == 0
        assert held == {unit: self.mint.owes(unit) for unit in UNITS}


@settings(max_examples=12)
@given(STEPS)
def test_every_unit_keeps_its_own_balance(steps: list[Step]) -> None:
    async def story() -> None:
        world = World()
        await world.fund()
        for what in steps:
            await world.step(what)
        await world.check()
        for row in [row for unit in world.databases for row in await unit.select("operation")]:
            # What only the market does is never of another unit.
            assert row["unit"] == SAT or row["kind"] not in ("lock", "claim", "refund")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(restorer, "GAP", 50)
        asyncio.run(story())
