"""Moves between mints: what is on its way counts where it is to arrive, and a key moves once."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from core.clock import SystemClock
from core.effect import Permit
from core.identifier import EffectId, OperationId
from core.money import Msat
from fs.service.model.wallet import Transfer
from fs.service.treasury import Treasurer
from fs.session import Role, Session
from node.gate.gate import NodeGate
from node.spreading import SENT, Spreading
from node.storage.memory import MemoryDatabase
from tests.gate_part import LIMITS, memory, open_gate
from wallet.error import MintRefused, PaymentUnknown
from wallet.model import Balance, Deposit, OperationView, Paid
from wallet.payment import Kind, State
from wallet.spread import Rules

A, B, C = "https://a.example", "https://b.example", "https://c.example"


@dataclass
class StandIn:
    """Mints that hold so much; `b` takes what is paid to it and never gives the coins."""

    gate: NodeGate
    live: dict[str, int] = field(default_factory=lambda: {A: 15_000, B: 0})
    fail: Exception | None = None
    paid: list[int] = field(default_factory=list)
    operations: dict[str, OperationView] = field(default_factory=dict)

    @property
    def mints(self) -> tuple[str, ...]:
        return tuple(self.live)

    async def balance(self) -> list[Balance]:
        return [Balance(mint, "sat", sat, 0, 0) for mint, sat in self.live.items()]

    async def find(self, op_id: str) -> OperationView | None:
        return self.operations.get(op_id)

    def _note(self, op_id: str, kind: Kind, state: State, mint: str, effect: EffectId, sat: int) -> None:
        id_ = OperationId(op_id)
        self.operations[op_id] = OperationView(id_, kind, state, mint, "sat", effect, sat, 0, "")

    async def deposit(self, op_id: str, mint: str, sat: int, effect_id: EffectId, permit: Permit) -> Deposit:
        self._note(op_id, Kind.DEPOSIT, State.WAITING, mint, effect_id, sat)
        return Deposit(OperationId(op_id), f"lnbc{op_id}", State.WAITING, sat)

    async def poll(self, op_id: str) -> Deposit:
        view = self.operations[op_id]
        return Deposit(view.id, f"lnbc{op_id}", view.state, view.amount)

    async def pay(self, op_id: str, mint: str, invoice: str, ceiling: Msat, effect: EffectId, permit: Permit) -> Paid:
        if self.fail is not None:
            state = State.UNKNOWN if isinstance(self.fail, PaymentUnknown) else State.REFUSED
            self._note(op_id, Kind.MELT, state, mint, effect, 0)
            raise self.fail
        self._note(op_id, Kind.MELT, State.DONE, mint, effect, 0)
        self.live[mint] -= ceiling.sat_down()
        self.paid.append(ceiling.sat_down())
        return Paid(OperationId(op_id), "ab" * 32, ceiling, ceiling, Msat(0))


@dataclass
class Desk:
    unit: MemoryDatabase
    wallet: Any
    spreading: Spreading


@pytest.fixture
async def desk() -> Desk:
    clock = SystemClock()
    unit = memory(clock)
    gate = await open_gate(unit, clock, LIMITS)
    wallet: Any = StandIn(gate)
    treasurer = Treasurer(wallet, gate, unit, clock)
    return Desk(unit, wallet, Spreading(wallet, treasurer, unit, clock, Rules(cap_sat=10_000)))


def operator(key: str) -> Session:
    return Session("operator", Role.OPERATOR, key)


async def test_a_mint_that_keeps_what_was_sent_to_it_gets_no_more(desk: Desk) -> None:
    for _ in range(5):
        await desk.spreading._round()
    assert len(desk.wallet.paid) == 1, "the pair rests"
    desk.spreading._rests.clear()  # as after a restart
    desk.wallet.live[A] = 60_000
    for _ in range(20):
        await desk.spreading._round()
        desk.spreading._rests.clear()
    fees = 20 * Rules().fee(10_000)
    assert sum(desk.wallet.paid) <= 10_000 + fees, "no more than its cap is lost there"


async def test_what_has_arrived_is_on_its_way_no_more(desk: Desk) -> None:
    await desk.spreading._round()
    (deposit,) = (one for one in desk.wallet.operations.values() if one.kind is Kind.DEPOSIT)
    assert {one.mint: one.bound for one in await desk.spreading.held()}[B] == deposit.amount
    desk.wallet._note(deposit.id, Kind.DEPOSIT, State.DONE, B, deposit.effect_id, deposit.amount)
    assert {one.mint: one.bound for one in await desk.spreading.held()}[B] == 0
    assert not [row for row in await desk.unit.select("meta") if row["key"].startswith(SENT)]


async def test_what_certainly_did_not_leave_is_not_on_its_way_and_what_may_have_is(desk: Desk) -> None:
    wish = Transfer(sat=2_000, target=B, source=A)
    desk.wallet.fail = MintRefused()
    with pytest.raises(MintRefused):
        await desk.spreading.transfer(operator("one"), wish)
    assert {one.mint: one.bound for one in await desk.spreading.held()}[B] == 0
    desk.wallet.fail = PaymentUnknown()
    with pytest.raises(PaymentUnknown):
        await desk.spreading.transfer(operator("two"), wish)
    assert {one.mint: one.bound for one in await desk.spreading.held()}[B] == 2_000


async def test_a_key_goes_on_between_the_mints_of_its_first_time(desk: Desk) -> None:
    desk.wallet.live = {A: 15_000, B: 3_000, C: 0}
    wish = Transfer(sat=2_000)
    first = await desk.spreading.transfer(operator("k"), wish)
    assert (first["source"], first["target"]) == (A, C)
    desk.wallet.live = {A: 0, B: 50_000, C: 9_900}
    again = await desk.spreading.transfer(operator("k"), wish)
    assert {name: again[name] for name in ("source", "target", "deposit", "payment")} == {
        name: first[name] for name in ("source", "target", "deposit", "payment")
    }
    assert len(desk.wallet.paid) == 1
