"""One coin a day tells whether a mint shows preimages."""

from dataclasses import dataclass, field

import pytest

from core.effect import EffectClass, Intent, Staged
from node.gate.gate import NodeGate
from node.gate.limits import Limits
from node.storage.memory import MemoryDatabase
from relays.key import Keyring
from tests.model_mint import Fault, ModelMint
from tests.wallet_part import BUYER_WORDS, HandClock
from wallet.error import MintSilent
from wallet.probe import DAY_S, GOOD_S, LOCK_S, MOST_SAT, Probe
from wallet.wallet import Wallet

LIMITS = Limits.of("uusd", per_job=1_000_000, per_day=5_000_000, per_seller=2_000_000)


@dataclass
class Bench:
    """A node's gate, wallet and probe over a model mint."""

    clock: HandClock = field(default_factory=HandClock)
    calm: bool = False

    async def start(self) -> "Bench":
        self.mint = ModelMint(clock=self.clock)
        self.db = MemoryDatabase(clock=self.clock)
        return await self.again()

    async def again(self) -> "Bench":
        """As after a restart."""
        keyring = Keyring(BUYER_WORDS)
        self.gate = NodeGate(self.db, self.clock, LIMITS, keyring.node.pubkey)
        await self.gate.load()
        self.wallet = Wallet(self.db, keyring, self.clock, self.gate.check, [self.mint], permit_for=self.gate.permit)
        await self.wallet.recover()
        self.probe = Probe(self.db, self.gate, self.wallet, keyring, self.clock, [self.mint])
        await self.probe.load()
        return self

    async def fund(self, sat: int) -> None:
        staged = await self.gate.stage(Intent("operator", "/wallet/deposit", f"{sat}", b"", EffectClass.EXTERNAL, "f"))
        assert isinstance(staged, Staged)
        await self.db.commit(staged.writes)
        permit = self.gate.permit(staged.effect_id)
        await self.wallet.deposit(f"fund-{sat}", self.mint.url, sat, staged.effect_id, permit)
        assert (await self.wallet.poll(f"fund-{sat}")).state.value == "done"

    async def sat(self) -> int:
        return sum(one.live + one.locked for one in await self.wallet.balance())

    @property
    def proven(self) -> bool:
        return self.probe.proven(self.mint.url)

    @property
    def reason(self) -> str:
        return str(self.probe.findings()[0]["reason"])

    async def efforts(self) -> list[str]:
        return [row["state"] for row in await self.db.select("effect", {"path": "/mint/probe"})]


@pytest.fixture
async def bench() -> Bench:
    return await Bench().start()


async def test_a_mint_is_proven_once_a_day_for_its_fees(bench: Bench) -> None:
    await bench.probe.look(bench.mint)
    assert (bench.proven, await bench.efforts()) == (False, []), "without money nothing is tried"
    await bench.fund(100)
    await bench.probe.look(bench.mint)
    assert bench.proven
    assert 100 - MOST_SAT <= await bench.sat() < 100
    left = await bench.sat()
    for _ in range(3):
        await bench.probe.look(bench.mint)
    await bench.again()
    await bench.probe.look(bench.mint)
    assert (bench.proven, await bench.sat(), await bench.efforts()) == (True, left, ["commit"])
    bench.clock.seconds += DAY_S
    await bench.probe.look(bench.mint)
    assert await bench.efforts() == ["commit", "commit"]
    assert (await bench.wallet.audit()).clean


async def test_a_mint_that_hides_the_preimage_is_not_proven(bench: Bench) -> None:
    await bench.fund(100)
    bench.mint.shows_witness = False
    await bench.probe.look(bench.mint)
    assert not bench.proven
    assert "does not show the preimage" in bench.reason
    bench.mint.shows_witness = True
    bench.clock.seconds += DAY_S
    await bench.probe.look(bench.mint)
    assert bench.proven


async def test_a_mint_that_does_not_list_what_is_needed_costs_nothing(bench: Bench) -> None:
    await bench.fund(100)
    bench.mint.listed = bench.mint.listed - {14}
    await bench.probe.look(bench.mint)
    assert (bench.proven, await bench.sat(), await bench.efforts()) == (False, 100, [])
    assert "NUT-14" in bench.reason


async def test_an_outcome_is_good_for_two_days(bench: Bench) -> None:
    await bench.fund(100)
    await bench.probe.look(bench.mint)
    bench.mint.script = lambda name: Fault.REQUEST_LOST if name == "info" else Fault.NONE
    bench.clock.seconds += DAY_S
    with pytest.raises(MintSilent):
        await bench.probe.look(bench.mint)
    assert bench.proven
    bench.clock.seconds += GOOD_S
    assert not bench.proven


@pytest.mark.parametrize("number", [1, 2])
async def test_a_try_whose_answer_is_lost_goes_on_after_a_restart(bench: Bench, number: int) -> None:
    """The lock, and then the claim."""
    await bench.fund(100)
    swaps = 0

    def lose(name: str) -> Fault:
        nonlocal swaps
        swaps += name == "swap"
        if name == "swap" and swaps == number:
            return Fault.ANSWER_LOST
        return Fault.UNREACHABLE if swaps == number and name == "restore" else Fault.NONE

    bench.mint.script = lose
    with pytest.raises(Exception, match=r"may have happened"):
        await bench.probe.look(bench.mint)
    bench.mint.script = lambda _: Fault.NONE
    await bench.again()
    await bench.probe.look(bench.mint)
    assert bench.proven
    assert await bench.efforts() == ["commit"]
    assert (await bench.wallet.audit()).clean


async def test_a_coin_that_cannot_be_claimed_is_taken_back(bench: Bench) -> None:
    await bench.fund(100)
    swaps = 0

    def refuse(name: str) -> Fault:
        nonlocal swaps
        swaps += name == "swap"
        return Fault.REFUSED if name == "swap" and swaps > 1 else Fault.NONE

    bench.mint.script = refuse
    with pytest.raises(Exception, match="refused"):
        await bench.probe.look(bench.mint)
    bench.clock.seconds += LOCK_S + 5
    bench.mint.script = lambda name: Fault.REFUSED if name == "swap" and not bench.calm else Fault.NONE
    with pytest.raises(Exception, match="refused"):
        await bench.probe.look(bench.mint)
    bench.calm = True
    await bench.again()
    await bench.probe.look(bench.mint)
    assert await bench.efforts() in (["commit"], ["fail"])
    assert sum(one.locked for one in await bench.wallet.balance()) == 0
    assert (await bench.wallet.audit()).clean
