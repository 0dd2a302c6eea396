import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import orjson
import pytest

from core.clock import SystemClock
from core.effect import EffectClass, Intent, Permit
from core.error import Conflict, InvalidInput, KeyReused, Paused, VendoError
from core.identifier import EffectId, OperationId, derived_id
from core.money import Msat, Rate
from fs.error import KeyRequired, NoSuchFile, Unsupported
from fs.service.treasury import OperationEnded, Treasurer
from fs.service.wallet import wallet_service
from fs.session import Batch, Role, Session
from fs.tree import Tree
from node.gate.gate import NodeGate
from node.spreading import Spreading
from node.storage.memory import MemoryDatabase
from tests.gate_part import LIMITS, intent, memory, open_gate
from tests.model_mint import payable
from wallet.error import InsufficientFunds, InvoiceUnfit, MintFull, PaymentUnknown
from wallet.fx import history, used
from wallet.invoice import Invoice, payable_invoice, plain_invoice
from wallet.model import Audit, Balance, Deposit, OperationView, Paid, Received
from wallet.payment import Kind, State
from wallet.spread import Rules

MINT, OTHER = "https://mint.example", "https://other.example"
INSIDE = "cashuBsecret"
BILL = payable(20_500, 1_800_000_000, "a bill")
RECEIPT = "ab" * 32


@dataclass
class StandIn:
    """A wallet that does as the test says, and refuses to act without the gate's leave."""

    gate: NodeGate
    mints: Sequence[str] = (MINT,)
    fail: VendoError | None = None
    leaves: State | None = State.DONE
    operations: dict[str, OperationView] = field(default_factory=dict)
    acted: list[str] = field(default_factory=list)
    at: list[str] = field(default_factory=list)
    locked: list[str] = field(default_factory=list)
    held: dict[str, int] = field(default_factory=lambda: {MINT: 10})
    ceilings: list[int] = field(default_factory=list)
    now: int = 1_800_000_000

    async def balance(self) -> list[Balance]:
        return [Balance(mint, "sat", sat, 2, 1) for mint, sat in self.held.items()]

    async def rate(self) -> Rate:
        return Rate.of_btc_price(100_000, 1, "test")

    def sources(self) -> list[dict[str, Any]]:
        return [{"name": "test", "usd": "100000", "at": 1, "counts": True, "why": ""}]

    async def audit(self) -> Audit:
        return Audit((), 0, ())

    async def find(self, op_id: OperationId) -> OperationView | None:
        return self.operations.get(op_id)

    def _do(self, op_id: OperationId, kind: Kind, effect_id: EffectId, permit: Permit, result: Any) -> None:
        self.gate.check(permit)
        self.acted.append(op_id)
        if self.leaves is not None:
            done = result if self.leaves is State.DONE else None
            self.operations[op_id] = OperationView(op_id, kind, self.leaves, MINT, "sat", effect_id, 5, 0, "", done)
        if self.fail is not None:
            raise self.fail

    async def deposit(
        self, op_id: OperationId, mint: str, sat: int, effect_id: EffectId, permit: Permit, *, lightning: bool = False
    ) -> Deposit:
        self.leaves = State.WAITING
        self.at.append(mint)
        self._do(op_id, Kind.DEPOSIT, effect_id, permit, None)
        return Deposit(op_id, "lnbc1", State.WAITING, sat, 99)

    async def receive(self, op_id: OperationId, token: str, effect_id: EffectId, permit: Permit) -> Received:
        self._do(op_id, Kind.RECEIVE, effect_id, permit, Received(5, 1))
        return Received(5, 1)

    async def send(
        self, op_id: OperationId, mint: str, sat: int, effect_id: EffectId, permit: Permit, *, pubkey: str = ""
    ) -> str:
        self.locked.append(pubkey)
        self._do(op_id, Kind.SEND, effect_id, permit, INSIDE)
        return INSIDE

    def payable(self, invoice: str) -> Invoice:
        return payable_invoice(plain_invoice(invoice), self.now)

    def pay_cost(self, mint: str, amount: Msat) -> Msat:
        return Msat.of_sat(amount.sat_up() + 3)

    async def pay(
        self, op_id: OperationId, mint: str, invoice: str, ceiling: Msat, effect_id: EffectId, permit: Permit
    ) -> Paid:
        assert invoice == BILL
        paid = Paid(op_id, RECEIPT, Msat(23_000), Msat(20_500), Msat(2_500))
        self.ceilings.append(ceiling.value)
        self._do(op_id, Kind.MELT, effect_id, permit, paid)
        return paid


@dataclass
class Desk:
    unit: MemoryDatabase
    gate: NodeGate
    wallet: StandIn
    treasurer: Treasurer
    tree: Tree

    async def call(self, name: str, body: Any, key: str | None = "k", **more: Any) -> Any:
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        session = Session("operator", Role.OPERATOR, key, unit=self.unit, **more)
        return orjson.loads(await self.tree.call((name,), raw, session))

    async def read(self, *path: str) -> Any:
        return orjson.loads(await self.tree.read(path, Session("operator", Role.OPERATOR)))

    async def states(self) -> list[tuple[str, str]]:
        rows = [row for row in await self.unit.select("effect") if row["path"].startswith("/wallet/")]
        return [(row["path"], row["state"]) for row in rows]


@pytest.fixture
async def desk() -> Desk:
    return await a_desk()


async def a_desk(rules: Rules | None = None) -> Desk:
    clock = SystemClock()
    unit = memory(clock)
    gate = await open_gate(unit, clock, LIMITS)
    wallet = StandIn(gate)
    treasurer = Treasurer(wallet, gate, unit, clock)
    places = Spreading(wallet, treasurer, unit, clock, rules or Rules())
    tree = wallet_service(wallet, wallet, _usage, partial(used, unit), treasurer, places)
    return Desk(unit, gate, wallet, treasurer, tree)


async def _usage() -> dict[str, int]:
    return {"remaining": 1}


@asynccontextmanager
async def running(treasurer: Treasurer) -> AsyncIterator[None]:
    ready, stop = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(treasurer.run(ready, stop))
    await ready.wait()
    yield
    stop.set()
    await asyncio.wait_for(task, 5)


async def test_facts_can_be_read(desk: Desk) -> None:
    assert (await desk.read("balance"))["live_sat"] == 10
    assert (await desk.read("fx"))["source"] == "test"
    assert [one["name"] for one in await desk.read("feeds")] == ["test"]
    assert (await desk.read("usage")) == {"remaining": 1}
    assert (await desk.read("audit"))["clean"] is True


async def test_the_rates_that_were_used_are_kept_and_shown_oldest_first(desk: Desk) -> None:
    for day in range(120):
        await desk.unit.commit([history(Rate.of_btc_price(60_000 + day, day, "test"))])
    shown = await desk.read("rates")
    assert [one["taken_at"] for one in shown] == list(range(20, 120))
    assert set(shown[0]) == {"micro_usd", "msat", "taken_at", "source"}


async def test_an_agents_wallet_has_no_files_that_move_money(desk: Desk) -> None:
    plain = wallet_service(desk.wallet, desk.wallet, _usage, partial(used, desk.unit))
    session = Session("agent:a", Role.AGENT, "k", unit=desk.unit)
    for name in ("send", "receive", "deposit", "withdraw", "prepare", "operations", "audit"):
        with pytest.raises(NoSuchFile):
            await plain.call((name,), b"{}", session)


async def test_a_payment_is_one_effect_and_its_key_pays_once(desk: Desk) -> None:
    first = await desk.call("send", {"sat": 5})
    again = await desk.call("send", {"sat": 5})
    assert first["token"] == again["token"] == INSIDE
    assert first["op_id"] == again["op_id"]
    assert len(desk.wallet.acted) == 1
    assert await desk.states() == [("/wallet/send", "commit")]
    with pytest.raises(KeyReused):
        await desk.call("send", {"sat": 6})
    assert (await desk.read("operations", first["op_id"]))["token"] == INSIDE


@pytest.mark.parametrize("lock", ["ab" * 32, "02" + "ab" * 32, "03" + "ab" * 32])
async def test_a_token_is_locked_to_a_key_with_or_without_its_sign(desk: Desk, lock: str) -> None:
    await desk.call("send", {"sat": 5, "lock": lock})
    assert desk.wallet.locked == [lock if len(lock) == 66 else "02" + lock]
    with pytest.raises(KeyReused):
        await desk.call("send", {"sat": 5})


@pytest.mark.parametrize("lock", ["", "AB" * 32, "04" + "ab" * 32, "ab" * 31, "npub1x"])
async def test_a_token_is_not_locked_to_what_is_no_key(desk: Desk, lock: str) -> None:
    with pytest.raises(InvalidInput):
        await desk.call("send", {"sat": 5, "lock": lock})
    assert not desk.wallet.locked


async def test_an_invoice_is_paid_as_one_effect_and_its_key_pays_once(desk: Desk) -> None:
    first = await desk.call("withdraw", {"invoice": BILL})
    assert (first["state"], first["amount_sat"], first["fee_sat"]) == ("done", 21, 2)
    assert first["preimage"] == RECEIPT
    desk.wallet.now += 90_000  # it has expired since
    again = await desk.call("withdraw", {"invoice": f"LIGHTNING:{BILL.upper()}"})
    assert {name: again[name] for name in ("op_id", "state", "amount_sat", "fee_sat", "preimage")} == {
        name: first[name] for name in ("op_id", "state", "amount_sat", "fee_sat", "preimage")
    }
    assert len(desk.wallet.acted) == 1
    assert await desk.states() == [("/wallet/withdraw", "commit")]
    with pytest.raises(KeyReused):
        await desk.call("withdraw", {"invoice": BILL, "max_fee_sat": 9})
    entries = str(await desk.unit.select("entry"))
    assert BILL not in entries
    assert RECEIPT not in entries


async def test_what_a_payment_may_cost_is_said_before_and_kept_to(desk: Desk) -> None:
    plan = await desk.call("prepare", {"invoice": f"lightning:{BILL}"})
    assert (plan["amount_sat"], plan["max_fee_sat"], plan["total_sat"], plan["mint"]) == (21, 3, 24, MINT)
    assert not await desk.states()
    await desk.call("withdraw", {"invoice": BILL}, "one")
    await desk.call("withdraw", {"invoice": BILL, "max_fee_sat": 0}, "two")
    assert desk.wallet.ceilings == [24_000, 21_000]
    desk.wallet.now += 90_000
    with pytest.raises(InvoiceUnfit):
        await desk.call("prepare", {"invoice": BILL})


async def test_a_withdrawal_in_doubt_is_parked_and_shown_as_under_way(desk: Desk) -> None:
    desk.wallet.fail, desk.wallet.leaves = PaymentUnknown(), State.UNKNOWN
    with pytest.raises(PaymentUnknown):
        await desk.call("withdraw", {"invoice": BILL})
    assert await desk.states() == [("/wallet/withdraw", "unknown")]
    (op_id,) = desk.wallet.acted
    view = desk.wallet.operations[op_id]
    desk.wallet.operations[op_id] = replace(view, pending=True)
    again = await desk.call("withdraw", {"invoice": BILL})
    assert (again["state"], again["pending"]) == ("unknown", True)
    assert len(desk.wallet.acted) == 1


async def test_calls_that_race_for_one_key_pay_once(desk: Desk) -> None:
    answers = await asyncio.gather(*(desk.call("send", {"sat": 5}) for _ in range(8)), return_exceptions=True)
    assert len(desk.wallet.acted) == 1
    assert all(isinstance(one, dict | Conflict) for one in answers)


async def test_money_and_secrets_never_reach_the_ledger(desk: Desk) -> None:
    await desk.call("send", {"sat": 5})
    await desk.call("receive", {"token": INSIDE}, "k2")
    everything = str(await desk.unit.select("entry")) + str(await desk.unit.select("effect"))
    assert INSIDE not in everything


async def test_a_payment_that_failed_for_sure_is_a_failed_effect_and_its_key_is_used_up(desk: Desk) -> None:
    desk.wallet.fail, desk.wallet.leaves = InsufficientFunds(), None
    with pytest.raises(InsufficientFunds):
        await desk.call("send", {"sat": 5})
    assert await desk.states() == [("/wallet/send", "fail")]
    desk.wallet.fail = None
    with pytest.raises(OperationEnded):
        await desk.call("send", {"sat": 5})
    assert len(desk.wallet.acted) == 1


async def test_a_payment_in_doubt_is_unknown_until_the_wallet_has_looked_it_up(desk: Desk) -> None:
    desk.wallet.fail, desk.wallet.leaves = PaymentUnknown(), State.UNKNOWN
    with pytest.raises(PaymentUnknown):
        await desk.call("send", {"sat": 5})
    assert await desk.states() == [("/wallet/send", "unknown")]
    desk.wallet.leaves, (op_id,) = State.DONE, desk.wallet.acted
    async with running(desk.treasurer):
        await asyncio.sleep(0.05)
        assert await desk.states() == [("/wallet/send", "unknown")]
    view = desk.wallet.operations[op_id]
    desk.wallet.operations[op_id] = OperationView(view.id, view.kind, State.DONE, MINT, "sat", view.effect_id, 5, 0, "")
    async with running(desk.treasurer):
        async with asyncio.timeout(3):
            while await desk.states() != [("/wallet/send", "commit")]:
                await asyncio.sleep(0.01)


async def test_what_a_crash_left_before_the_wallet_began_is_settled_as_failed(desk: Desk) -> None:
    await desk.gate.begin(intent("lost", None, path="/wallet/send"))
    await desk.gate.begin(intent("other", None, path="/elsewhere"))
    async with running(desk.treasurer):
        await asyncio.sleep(0.05)
    rows = {row["path"]: row["state"] for row in await desk.unit.select("effect")}
    assert (rows["/wallet/send"], rows["/elsewhere"]) == ("fail", "begun")


async def test_a_deposit_stays_open_until_its_coins_are_there(desk: Desk) -> None:
    answer = await desk.call("deposit", {"sat": 21})
    assert (answer["invoice"], answer["state"], answer["mint"]) == ("lnbc1", "waiting", MINT)
    assert await desk.states() == [("/wallet/deposit", "begun")]
    async with running(desk.treasurer):
        await asyncio.sleep(0.05)
    assert await desk.states() == [("/wallet/deposit", "begun")]


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("send", b""),
        ("send", b"[]"),
        ("send", {"sat": 0}),
        ("send", {"sat": -1}),
        ("send", {"sat": "5"}),
        ("send", {"sat": True}),
        ("send", {"sat": 1.0}),
        ("send", {"sat": 5, "more": 1}),
        ("send", {"sat": 5, "mint": 7}),
        ("deposit", {"sat": 10**18}),
        ("receive", b""),
        ("receive", {"token": ""}),
        ("receive", {"token": 5}),
        ("withdraw", b""),
        ("withdraw", {"invoice": ""}),
        ("withdraw", {"invoice": BILL, "max_fee_sat": -1}),
        ("withdraw", {"invoice": BILL, "max_fee_sat": "5"}),
        ("withdraw", {"invoice": BILL, "mint": 7}),
    ],
)
async def test_a_request_that_is_none_begins_nothing(desk: Desk, name: str, body: Any) -> None:
    with pytest.raises(InvalidInput):
        await desk.call(name, body)
    assert not await desk.states()


@pytest.mark.parametrize("text", ["x", "lnbc1x", "x" * 4_200, payable(None, 1_800_000_000, "no amount")])
async def test_what_is_no_invoice_begins_nothing(desk: Desk, text: str) -> None:
    for name in ("withdraw", "prepare"):
        with pytest.raises(InvoiceUnfit):
            await desk.call(name, {"invoice": text})
    assert not await desk.states()


async def test_without_a_key_in_a_tick_or_in_a_pause_nothing_begins(desk: Desk) -> None:
    with pytest.raises(KeyRequired):
        await desk.call("send", {"sat": 5}, None)
    with pytest.raises(Unsupported):
        await desk.tree.call(("send",), b'{"sat":5}', Session("operator", Role.OPERATOR, "k", batch=Batch()))
    await desk.gate.pause()
    with pytest.raises(Paused):
        await desk.call("send", {"sat": 5})
    assert not await desk.states()
    assert not desk.wallet.acted


async def test_with_two_mints_a_deposit_goes_where_less_is_and_the_fuller_one_pays(desk: Desk) -> None:
    desk.wallet.mints, desk.wallet.held = (MINT, OTHER), {MINT: 10, OTHER: 4}
    await desk.call("deposit", {"sat": 5})
    await desk.call("deposit", {"sat": 5, "mint": MINT}, key="named")
    assert desk.wallet.at == [OTHER, MINT]
    desk.wallet.leaves = State.DONE
    assert (await desk.call("send", {"sat": 5}, key="out"))["mint"] == MINT


async def _begun(desk: Desk, key: str) -> OperationId:
    """A payment that had begun at the gate and not reached the wallet when the copy was made."""
    op_id = OperationId(derived_id("operator", "/wallet/send", key))
    intent = Intent("operator", "/wallet/send", key, b"{}", EffectClass.IRREVERSIBLE, op_id)
    await desk.gate.begin(intent)
    return op_id


async def test_what_a_copy_cannot_know_of_a_payment_is_not_called_failed(desk: Desk) -> None:
    op_id = await _begun(desk, "k1")
    assert await desk.treasurer.adopt_copy() == 1
    assert await desk.treasurer.adopt_copy() == 0, "again, it is parked already"
    async with running(desk.treasurer):
        await asyncio.sleep(0.05)
    assert await desk.states() == [("/wallet/send", "unknown")]
    assert (await desk.treasurer.operation(op_id))["state"] == "unknown"


async def test_where_no_money_moved_since_the_copy_such_a_payment_has_failed(desk: Desk) -> None:
    await _begun(desk, "k1")
    await desk.treasurer.adopt_copy()
    assert await desk.treasurer.nothing_was_paid() == 1
    assert await desk.states() == [("/wallet/send", "fail")]


@pytest.mark.parametrize(
    ("name", "effect", "ends"),
    [
        ("lightning/pay", EffectClass.IRREVERSIBLE, "unknown"),
        ("deposit", EffectClass.IRREVERSIBLE, "unknown"),  # from the Lightning wallet
        ("deposit", EffectClass.EXTERNAL, "fail"),  # by hand
        ("withdraw", EffectClass.IRREVERSIBLE, "fail"),
    ],
)
async def test_no_mint_s_word_ends_what_may_have_been_paid_over_lightning(
    desk: Desk, name: str, effect: EffectClass, ends: str
) -> None:
    op_id = OperationId(derived_id("operator", f"/wallet/{name}", "k1"))
    await desk.gate.begin(Intent("operator", f"/wallet/{name}", "k1", b"{}", effect, op_id))
    assert await desk.treasurer.adopt_copy() == 1
    assert await desk.treasurer.nothing_was_paid() == (ends == "fail")
    assert await desk.states() == [(f"/wallet/{name}", ends)]


async def test_a_deposit_beyond_the_caps_is_refused_and_asks_no_mint() -> None:
    desk = await a_desk(Rules(cap_sat=20))
    for body in ({"sat": 8}, {"sat": 8, "mint": MINT}):
        with pytest.raises(MintFull):
            await desk.call("deposit", body, key=f"{len(body)}")
    assert (await desk.states(), desk.wallet.acted) == ([], [])
    assert (await desk.call("deposit", {"sat": 7}))["invoice"] == "lnbc1"


async def test_a_repeated_deposit_is_answered_when_it_has_filled_the_mint_itself() -> None:
    desk = await a_desk(Rules(cap_sat=20))
    first = await desk.call("deposit", {"sat": 7})
    desk.wallet.held[MINT] += 7
    again = await desk.call("deposit", {"sat": 7})
    assert (again["op_id"], len(desk.wallet.acted)) == (first["op_id"], 1)


@pytest.mark.parametrize(
    ("name", "body"), [("deposit", {"sat": 5}), ("send", {"sat": 5}), ("withdraw", {"invoice": BILL})]
)
async def test_what_was_done_with_a_key_is_answered_when_its_mint_is_gone(
    desk: Desk, name: str, body: dict[str, Any]
) -> None:
    first = await desk.call(name, body)
    desk.wallet.mints, desk.wallet.held = (), {}
    again = await desk.call(name, body)
    assert (again["op_id"], len(desk.wallet.acted)) == (first["op_id"], 1)


async def test_money_is_not_moved_from_a_mint_to_itself(desk: Desk) -> None:
    with pytest.raises(InvalidInput, match="same mint"):
        await desk.call("move", {"sat": 5, "source": MINT, "target": MINT})
    assert desk.wallet.acted == []
