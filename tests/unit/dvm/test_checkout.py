"""Foreign machines that want Lightning are paid: what they quoted, once, and only as far as they are trusted."""

import asyncio
from dataclasses import dataclass, field
from functools import cache

import pytest

from core.money import MicroUsd
from dvm.job import Purchase
from dvm.policy import Policy
from dvm.provider.echo import Echo
from dvm.record import decode
from dvm.request import ComputeRequest, Datum
from relays.event import Draft, Event
from relays.key import Key
from tests.model_mint import Fault, Payment, payable
from tests.unit.dvm.market_part import Node, until
from tests.unit.dvm.test_market import World, bought, freeze, story, words
from wallet.cashu.port import MeltState
from wallet.error import InvoiceRejected
from wallet.invoice import read_invoice

POLICY = Policy(quote_window_ms=1_500, timeout_s=30, lock_margin_s=300, invoices=True)


def ask(text: str) -> ComputeRequest:
    return ComputeRequest(5050, (Datum(text),), (), MicroUsd(50_000))


ASK = ask("hello lightning")


@cache
def _hash(text: str) -> str:
    try:
        return read_invoice(text).payment_hash
    except InvoiceRejected:
        return ""


@dataclass
class Machine:
    """A machine as NIP-90 describes it, that wants its invoice paid before (or after) it delivers."""

    world: World
    price: int = 21_000
    after: bool = False
    delivers: bool = True
    asks: int | None = None  # in the amount tag, if it is not what the invoice says
    expiry: int = 3_600
    invoice: str = ""
    second_amount: bool = False
    key: Key = field(default_factory=Key.generate)
    seen: dict[str, str] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)

    def look(self) -> None:
        """Answer new requests, and work for what was paid."""
        for event in list(self.world.relay.events.values()):
            if event.kind == 5050 and event.id not in self.seen:
                self.seen[event.id] = self.invoice or payable(
                    self.price, self.world.clock.now(), event.id + self.key.pubkey, expiry=self.expiry
                )
                self._answer(event)
            if self._paid(event) and not self.after and self.delivers and event.id not in self.done:
                self.done.add(event.id)
                self._say(6050, event, event.value("i") or "", again=self.second_amount)

    def _paid(self, event: Event) -> bool:
        text = self.seen.get(event.id)
        return text is not None and MeltState.PAID in self.world.mint.melt_states(_hash(text))

    def _answer(self, event: Event) -> None:
        if self.after:
            self._say(6050, event, event.value("i") or "", again=True)
        else:
            self._say(7000, event, "", ("status", "payment-required", "pay me"), again=True)

    def _say(self, kind: int, request: Event, content: str, *tags: tuple[str, ...], again: bool) -> None:
        amount = ("amount", str(self.asks or self.price), self.seen[request.id])
        all_tags = (*tags, ("e", request.id), ("p", request.pubkey), *((amount,) if again else ()))
        self.world.relay.store(self.key.sign(Draft(kind, content, all_tags, self.world.clock.now())))

    @property
    def was_paid(self) -> int:
        """How many of its invoices."""
        return sum(MeltState.PAID in self.world.mint.melt_states(_hash(text)) for text in set(self.seen.values()))


async def market(world: World, *machines: Machine, sat: int = 300, **parts) -> Node:
    """A buyer with money, and foreign machines at work."""
    parts.setdefault("policy", POLICY)
    buyer = await world.node(**parts).up()
    await buyer.fund(sat)

    async def work() -> None:
        while True:
            for machine in machines:
                machine.look()
            await world.clock.sleep(0.1)

    world.work = asyncio.create_task(work())
    return buyer


def refusals(shown: dict) -> str:
    return " | ".join(one["refusal"] or "" for one in shown["quotes"])


@story
async def test_a_foreign_machine_is_paid_by_its_invoice_and_delivers(world: World) -> None:
    machine = Machine(world)
    buyer = await market(world, machine)
    view = await bought(buyer, ASK)
    shown = view.to_dict()
    assert (shown["result"], shown["seller"], shown["provider"]) == ("hello lightning", machine.key.pubkey, "dvm")
    assert (shown["money"], shown["paid_msat"], shown["locktime"]) == ("claimed", 21_000, 0)
    assert machine.was_paid == 1
    assert shown["cost_msat"] == (300 - await buyer.sat()) * 1_000 >= 21_000
    assert shown["reserved_uusd"] == shown["cost_uusd"] + shown["released_uusd"]
    assert "by a Lightning invoice before the work" in shown["why"][0]
    effect = (await buyer.db.select("effect", {"subject": view.job_id}))[0]
    assert (effect["state"], effect["cost"]) == ("commit", shown["cost_uusd"])
    assert not words(buyer, 1059), "a foreign machine is told nothing: it sees its invoice paid"
    (request,) = words(buyer, 5050)
    assert ("pay", "bolt11") in request.tags


@story
async def test_a_result_that_asks_again_for_what_was_paid_before_is_not_paid_again(world: World) -> None:
    machine = Machine(world, second_amount=True)
    buyer = await market(world, machine)
    shown = (await bought(buyer, ASK)).to_dict()
    assert shown["result"] == "hello lightning"
    await world.clock.sleep(30)
    assert machine.was_paid == 1
    assert 300 - await buyer.sat() == shown["cost_msat"] // 1_000


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"asks": 20_000}, "its invoice is for 21000 msat, not for the 20000"),
        ({"asks": 22_000}, "its invoice is for 21000 msat, not for the 22000"),
        ({"expiry": 4}, "has expired or is about to"),
        ({"price": 51_000}, "50000 msat is the most for that"),
        ({"price": 900_000}, "above the reserved maximum"),
        ({"invoice": "lnbc" + "q" * 60}, "cannot be read"),
        ({"invoice": "lnbc" + "q" * 1_600}, "too long"),
        ({"invoice": payable(21_000, 1_900_000_000, "t", currency="tb")}, "another network"),
    ],
)
def test_an_invoice_that_is_not_what_was_quoted_is_not_paid(change: dict, reason: str) -> None:
    async def tale(world: World) -> None:
        machine = Machine(world, **change)
        buyer = await market(world, machine, providers=[Echo()])
        shown = (await bought(buyer, ASK)).to_dict()
        assert (shown["provider"], shown["money"], shown["cost_msat"]) == ("builtin", "none", 0)
        assert reason in refusals(shown)
        assert await buyer.sat() == 300
        assert not world.mint.calls.count("melt")

    World().run(tale)


@story
async def test_with_invoices_switched_off_none_is_paid_and_none_is_asked_for(world: World) -> None:
    machine = Machine(world)
    buyer = await market(world, machine, policy=Policy(timeout_s=30), providers=[Echo()])
    shown = (await bought(buyer, ASK)).to_dict()
    assert shown["provider"] == "builtin"
    assert machine.was_paid == 0
    assert ("pay", "bolt11") not in words(buyer, 5050)[0].tags


@story
async def test_a_seller_that_kept_the_money_is_not_paid_by_invoice_again(world: World) -> None:
    thief = Machine(world, delivers=False)
    buyer = await market(world, thief, providers=[Echo()])
    first = (await bought(buyer, ASK)).to_dict()
    assert (first["provider"], first["money"]) == ("builtin", "claimed")
    assert first["cost_msat"] >= 21_000, "the money is gone, and is booked"
    assert thief.was_paid == 1
    second = (await bought(buyer, ASK, key="second")).to_dict()
    assert (second["provider"], second["cost_msat"]) == ("builtin", 0)
    assert "delivered nothing" in refusals(second)
    assert thief.was_paid == 1
    honest = Machine(world, price=22_000)
    world.others = asyncio.create_task(_work(world, honest))
    third = (await bought(buyer, ASK, key="third")).to_dict()
    assert third["seller"] == honest.key.pubkey


async def _work(world: World, machine: Machine) -> None:
    while True:
        machine.look()
        await world.clock.sleep(0.1)


@story
async def test_one_seller_holds_a_bounded_sum_that_it_has_not_delivered_for(world: World) -> None:
    thief = Machine(world, delivers=False)
    buyer = await market(world, thief, providers=[Echo()])
    jobs = [bought(buyer, ask(f"job {number}"), key=str(number)) for number in range(5)]
    shown = [view.to_dict() for view in await asyncio.gather(*jobs)]
    assert sum(one["paid_msat"] for one in shown) == thief.was_paid * 21_000 == 42_000
    assert any("are trusted" in refusals(one) for one in shown)


@story
async def test_jobs_that_decide_together_do_not_trust_a_seller_with_more(world: World) -> None:
    """The database answers when all of them have asked it: none may count only what was written before."""
    thief = Machine(world, delivers=False)
    buyer = await market(world, thief, sat=400, providers=[Echo()])
    select = buyer.db.select

    async def slow(table: str, *args, **more):
        rows = await select(table, *args, **more)
        if table == "meta":
            await world.clock.sleep(0.5)
        return rows

    buyer.db.select = slow
    jobs = [bought(buyer, ask(f"job {number}"), key=str(number)) for number in range(5)]
    shown = [view.to_dict() for view in await asyncio.gather(*jobs)]
    assert sum(one["paid_msat"] for one in shown) == thief.was_paid * 21_000 == 42_000


@story
async def test_a_result_that_is_quicker_than_our_wallet_is_not_lost(world: World) -> None:
    """The seller sees its invoice paid before the mint's answer has reached us."""
    machine = Machine(world)
    buyer = await market(world, machine)
    melt = world.mint.melt

    async def slow(*args):
        answer = await melt(*args)
        await world.clock.sleep(3)
        return answer

    world.mint.melt = slow
    shown = (await bought(buyer, ASK)).to_dict()
    assert (shown["result"], shown["seller"], shown["money"]) == ("hello lightning", machine.key.pubkey, "claimed")
    assert machine.was_paid == 1


@story
async def test_one_invoice_for_two_jobs_is_paid_once_and_counts_for_one(world: World) -> None:
    text = payable(21_000, world.clock.now(), "the only one", expiry=5_000)
    cheat = Machine(world, invoice=text)
    buyer = await market(world, cheat, providers=[Echo()])
    both = await asyncio.gather(*(bought(buyer, ask(key), key=key) for key in "ab"))
    shown = [view.to_dict() for view in both]
    assert sorted(one["provider"] for one in shown) == ["builtin", "dvm"]
    assert 300 - await buyer.sat() == sum(one["cost_msat"] for one in shown) // 1_000 < 30
    later = (await bought(buyer, ASK, key="later")).to_dict()
    assert "its invoice was offered before" in refusals(later)


@story
async def test_a_copied_invoice_does_not_win_for_whoever_copied_it(world: World) -> None:
    text = payable(21_000, world.clock.now(), "copied", expiry=5_000)
    first, copy = Machine(world, invoice=text), Machine(world, invoice=text)
    buyer = await market(world, first, copy)
    shown = (await bought(buyer, ASK)).to_dict()
    assert shown["seller"] == first.key.pubkey
    assert "its invoice came with another offer" in {one["reason"] for one in shown["refused"]}


@story
async def test_a_mint_that_cannot_pay_leaves_the_money_and_the_next_offer_is_taken(world: World) -> None:
    machine = Machine(world)
    buyer = await market(world, machine, providers=[Echo()])
    world.mint.lightning = lambda hash_: Payment.FAILED
    shown = (await bought(buyer, ASK)).to_dict()
    assert (shown["provider"], shown["money"], shown["cost_msat"]) == ("builtin", "none", 0)
    assert await buyer.sat() == 300


@story
async def test_a_result_is_paid_for_after_it_came(world: World) -> None:
    machine = Machine(world, after=True)
    buyer = await market(world, machine)
    shown = (await bought(buyer, ASK)).to_dict()
    assert (shown["result"], shown["seller"], shown["money"]) == ("hello lightning", machine.key.pubkey, "claimed")
    assert shown["paid_msat"] == 21_000
    assert machine.was_paid == 1
    assert "after the result" in shown["why"][0]


@story
async def test_a_result_that_costs_more_than_the_reservation_is_neither_paid_nor_used(world: World) -> None:
    machine = Machine(world, after=True, price=900_000)
    buyer = await market(world, machine)
    shown = (await bought(buyer, ASK)).to_dict()
    assert (shown["status"], shown["result"], shown["money"]) == ("failed", None, "none")
    assert "above the reserved maximum" in refusals(shown)
    (offer,) = decode(Purchase, (await buyer.db.select("purchase"))[0]["body"]).offers
    assert not offer.content, "what was not paid for is not kept"


@story
async def test_an_answer_that_is_lost_after_the_payment_pays_nothing_twice(world: World) -> None:
    machine = Machine(world)
    buyer = await market(world, machine)
    lost = iter([Fault.ANSWER_LOST])
    world.mint.script = lambda call: next(lost, Fault.NONE) if call == "melt" else Fault.NONE
    shown = (await bought(buyer, ASK)).to_dict()
    assert (shown["result"], shown["money"]) == ("hello lightning", "claimed")
    assert 300 - await buyer.sat() == shown["cost_msat"] // 1_000 < 30


@pytest.mark.parametrize(
    ("table", "state"),
    [("purchase", "quoting"), ("purchase", "paying"), ("operation", "prepared"), ("purchase", "working")],
)
def test_a_crash_after_any_step_pays_once_and_delivers(table: str, state: str) -> None:
    async def tale(world: World) -> None:
        machine = Machine(world)
        buyer = await market(world, machine)
        frozen = freeze(buyer, table, state)
        begun = asyncio.create_task(buyer.buying.buy("agent:a", "k", ASK))
        await frozen.wait()
        begun.cancel()
        await buyer.crash()
        await buyer.up()
        shown = (await bought(buyer, ASK)).to_dict()
        assert (shown["result"], shown["money"]) == ("hello lightning", "claimed")
        assert machine.was_paid == 1
        assert 300 - await buyer.sat() == shown["cost_msat"] // 1_000 < 30

    World().run(tale)


@story
async def test_a_crash_between_the_payment_and_its_booking_pays_once(world: World) -> None:
    machine = Machine(world)
    buyer = await market(world, machine)
    stopped, melt = asyncio.Event(), world.mint.melt

    async def paid_and_gone(*args):
        await melt(*args)
        stopped.set()
        await asyncio.Event().wait()

    world.mint.melt = paid_and_gone
    staged = await buyer.buying.buy("agent:a", "k", ASK)
    await stopped.wait()
    world.mint.melt = melt
    await buyer.crash()
    await buyer.up()
    await until(world.clock, lambda: staged.job_id not in buyer.buying._open)
    shown = (await buyer.buying.view(staged.job_id)).to_dict()
    assert (shown["result"], shown["money"], machine.was_paid) == ("hello lightning", "claimed", 1)
    assert world.mint.calls.count("melt") == 1


@pytest.mark.parametrize("after", [False, True])
def test_who_has_paid_and_comes_back_after_the_deadline_takes_the_result_that_waits(after: bool) -> None:
    """The wallet has paid when the process ends, and the job was not told: the result is there, and paid for."""

    async def tale(world: World) -> None:
        machine = Machine(world, after=after)
        buyer = await market(world, machine, providers=[Echo()])
        frozen, commit = asyncio.Event(), buyer.db.commit

        async def stopping(writes) -> None:
            if not frozen.is_set():
                await commit(writes)
            if await buyer.db.select("operation", {"kind": "melt", "state": "done"}):
                frozen.set()
                await asyncio.Event().wait()

        buyer.db.commit = stopping
        staged = await buyer.buying.buy("agent:a", "k", ASK)
        await frozen.wait()
        await buyer.crash()
        del buyer.db.commit
        await world.clock.sleep(POLICY.timeout_s + 60)
        await buyer.up()
        await until(world.clock, lambda: staged.job_id not in buyer.buying._open)
        shown = (await buyer.buying.view(staged.job_id)).to_dict()
        assert (shown["provider"], shown["result"], shown["money"]) == ("dvm", "hello lightning", "claimed")
        assert machine.was_paid == 1
        again = (await bought(buyer, ask("once more"), key="again")).to_dict()
        assert again["seller"] == machine.key.pubkey, "it has delivered what it was paid for"

    World().run(tale)
