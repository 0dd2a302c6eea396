"""A node at a Lightning wallet that loses, delays, repeats and falsifies, with a crash after any commit (M1, M3, M5).

The truth is read from the wallet's ledger, never from our rows: what it was asked to pay, and what it paid.
"""

import asyncio
import contextlib
import json
import random
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from bolt11 import decode
from hypothesis import given, settings
from hypothesis import strategies as st

from core.error import VendoError
from core.identifier import PubKey
from node.storage.memory import MemoryDatabase
from relays.key import Keyring
from tests.model_nwc import Crash, Fault, ModelClient
from tests.nwc_part import Ledger
from tests.wallet_part import BUYER_WORDS, EFFECT, PERMIT, HandClock, allow
from wallet import lightning
from wallet.journal import Account, balances
from wallet.lightning import GRACE_S, LATE_S, TRANSITIONS, UNPAID_S, Effect, LightningLimits, Stage, Transition
from wallet.lightning_record import LightningBook
from wallet.lightning_wallet import Lightning
from wallet.record import Vault

LIMITS = LightningLimits(per_payment=10_000_000, per_day=200_000, fee_base=2_000, fee_ppm=10_000)
ACTIONS = ("pay", "pay", "pay", "unroutable", "again", "invoice", "receive", "look", "look", "wait", "late")


@dataclass(frozen=True)
class Step:
    """One thing that is done, what the wire does to its calls, how the wallet behaves, and when we crash."""

    action: str
    amount: int
    faults: tuple[Fault, ...] = ()
    crash_after: int | None = None
    lie: int | None = None
    hides: int = 0
    hold: int | None = None


@dataclass
class World:
    """A node, a wallet, and what must hold between them."""

    clock: HandClock = field(default_factory=HandClock)

    def __post_init__(self) -> None:
        self.ledger = Ledger(lambda: self.clock.seconds)
        self.start = self.ledger.balance
        self.client = ModelClient(self.ledger, self.clock)
        self.db = MemoryDatabase(clock=self.clock)
        self.pays: dict[str, str] = {}
        self.invoices: list[str] = []
        self.number = 0
        self.restart()

    def restart(self) -> None:
        self.db.crash_after = None
        self.book = LightningBook(self.db, Vault(Keyring(BUYER_WORDS).derive("seal")), self.clock)
        self.lightning = Lightning(
            self.db, self.book, self.clock, self.client, allow,
            permit_for=lambda _: PERMIT, standing=lambda: PERMIT, limits=LIMITS,
        )  # fmt: skip

    def crash_after(self, commits: int | None) -> None:
        left = commits

        def count(_: int) -> None:
            nonlocal left
            assert left is not None
            left -= 1
            if left < 0:
                raise Crash

        self.db.crash_after = count if commits is not None else None

    async def play(self, step: Step) -> None:
        self.client.script = list(step.faults)
        knobs = self.ledger.knobs
        knobs.lie, knobs.hides, knobs.hold = step.lie, step.hides, step.hold
        self.crash_after(step.crash_after)
        try:
            with contextlib.suppress(VendoError):
                await getattr(self, f"do_{step.action}")(step.amount)
        except BaseException as error:
            if not _is_crash(error):
                raise
            self.restart()
        self.crash_after(None)
        self.client.script = []

    async def do_pay(self, amount: int) -> None:
        self.number += 1
        op_id, invoice = f"op-{self.number}", self.ledger.foreign(amount * 1_000, expiry_s=900)
        self.pays[op_id] = invoice
        await self.lightning.pay(op_id, invoice, EFFECT, PERMIT)

    async def do_unroutable(self, amount: int) -> None:
        """Nobody has the preimage."""
        self.number += 1
        op_id, invoice = f"op-{self.number}", self.ledger.foreign(amount * 1_000, expiry_s=900)
        del self.ledger.preimages[decode(invoice).payment_hash]
        self.pays[op_id] = invoice
        await self.lightning.pay(op_id, invoice, EFFECT, PERMIT)

    async def do_again(self, amount: int) -> None:
        """The same operation once more, and its invoice under another one."""
        if self.pays:
            op_id = sorted(self.pays)[amount % len(self.pays)]
            with contextlib.suppress(VendoError):
                await self.lightning.pay(op_id, self.pays[op_id], EFFECT, PERMIT)
            if await self.book.find(op_id) is not None:
                with pytest.raises(VendoError):
                    await self.lightning.pay(f"other-{op_id}", self.pays[op_id], EFFECT, PERMIT)

    async def do_invoice(self, amount: int) -> None:
        self.number += 1
        view = await self.lightning.invoice(f"in-{self.number}", amount * 1_000, "x", EFFECT, PERMIT)
        self.invoices.append(view.invoice)

    async def do_receive(self, amount: int) -> None:
        if self.invoices:
            invoice = self.invoices[amount % len(self.invoices)]
            if self.ledger.entries[decode(invoice).payment_hash].state != "settled":
                self.ledger.receive(invoice)
            await self.lightning.look()

    async def do_look(self, amount: int) -> None:
        await self.lightning.look()

    async def do_wait(self, amount: int) -> None:
        self.clock.seconds += amount * amount / 2  # up to half an hour
        self.ledger.tick()
        await self.lightning.look()

    async def do_late(self, amount: int) -> None:
        self.client.deliver()

    async def settle(self) -> None:
        """The wire is honest from now on; everything in doubt is found out."""
        self.client.deliver()
        for wait in (1, GRACE_S + 60, 900 + LATE_S, 900 + LATE_S, UNPAID_S + 3_600, UNPAID_S + 3_600):
            for _ in range(3):
                await self.lightning.look()
                self.clock.seconds += 61
            self.clock.seconds += wait
            self.ledger.tick()

    # ------------------------------------------------------------------ what must hold

    async def violations(self, *, final: bool) -> list[str]:
        found: list[str] = []
        self.ledger.tick()
        for payment_hash, times in self.ledger.tried.items():
            if times > 1:
                found.append(f"M1: {payment_hash[:8]} was paid {times} times")
            if await self.book.of_hash(payment_hash) is None:
                found.append("a payment was forgotten")
        for order in await self.book.all():
            stage, paid = order.payment.stage, self.ledger.paid[order.payment_hash]
            if order.payment.direction == "pay":
                if stage is Stage.FAILED and (paid or self.ledger.tried[order.payment_hash]):
                    found.append(f"M5: {order.id} was called failed ({order.reason}), and happened")
                if stage is Stage.PAID and paid != 1:
                    found.append(f"M5: {order.id} was called paid, and was not")
                if stage is Stage.PAID and order.fee not in (0, self.ledger.knobs.fee):
                    found.append("a fee was made up")
            elif stage is Stage.PAID and self.ledger.entries[order.payment_hash].state != "settled":
                found.append("an invoice was called paid, and was not")
            if final and stage not in (Stage.PAID, Stage.FAILED):
                found.append(f"{order.id} stays {stage} ({order.reason})")
        accounts = balances(await self.book.posted("nwc:model")).get(("nwc:model", "msat"), Counter())
        if sum(accounts.values()):
            found.append("M3: the journal does not sum to zero")
        if final and accounts[Account.WALLET] != self.ledger.balance - self.start:
            found.append(f"M3: {accounts[Account.WALLET]} booked, {self.ledger.balance - self.start} moved")
        if final:
            found += [f"audit: {text}" for text in (await self.lightning.audit()).differences]
        return found


def _is_crash(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_is_crash(inner) for inner in error.exceptions)
    return isinstance(error, Crash)


async def simulate(steps: list[Step]) -> list[str]:
    """Play the steps; what was violated."""
    world = World()
    await world.play(Step("pay", 1))  # its look-ups have been seen to find what it paid
    for step in steps:
        await world.play(step)
        broken = await world.violations(final=False)
        if broken:
            return broken
    await world.settle()
    return await world.violations(final=True)


_STEPS = st.lists(
    st.builds(
        Step,
        st.sampled_from(ACTIONS),
        st.integers(1, 60),
        st.lists(st.sampled_from(list(Fault)), max_size=5).map(tuple),
        st.none() | st.integers(0, 4),
        st.none() | st.integers(0, GRACE_S - 1),
        st.sampled_from((0, 0, 5, GRACE_S - 1)),
        st.none() | st.integers(0, 2_000),
    ),
    min_size=1,
    max_size=14,
)


@settings(max_examples=60 if settings.default.max_examples <= 1_000 else 4_000, deadline=None)
@given(_STEPS)
def test_no_fault_and_no_crash_pays_twice_forgets_or_calls_paid_what_failed(steps):
    assert asyncio.run(simulate(steps)) == []


def random_steps(seed: int, length: int = 16) -> list[Step]:
    dice = random.Random(seed)
    return [
        Step(
            dice.choice(ACTIONS),
            dice.randint(1, 60),
            tuple(dice.choices(list(Fault), k=dice.randint(0, 4))),
            dice.choice((None, None, 0, 1, 2, 3)),
            dice.choice((None, None, 3, GRACE_S - 1)),
            dice.choice((0, 0, 5, GRACE_S - 1)),
            dice.choice((None, None, 10, 1_500)),
        )
        for _ in range(length)
    ]


def test_every_transition_of_the_saga_is_taken(monkeypatch):
    seen: Counter[str] = Counter()
    real = lightning.step

    def counting(payment, event):
        result = real(payment, event)
        seen[result[2]] += 1
        return result

    monkeypatch.setattr("wallet.lightning_engine.step", counting)
    for seed in range(40):
        assert asyncio.run(simulate(random_steps(seed))) == [], seed
    # Lost, looked up as never arrived, and then the wallet's relays are gone.
    gone = [Step("pay", 10, (Fault.REQUEST_LOST,)), Step("look", 1, (Fault.NONE, Fault.UNREACHABLE))]
    # Written down, and nobody there until the wallet would not take it any more.
    cut = [Step("pay", 10, (), 0), Step("wait", 60)]
    back = [Step("invoice", 5), Step("receive", 0), Step("wait", 9)]
    for steps in (gone, cut, back):
        assert asyncio.run(simulate(steps)) == []
    # Old copies, wallets without proof and wallets that lie for long are shown in tests of their own.
    apart = {"copied", "unproven", "paid_after_all", "given_up"}  # the last one is its owner's word alone
    missing = {row.name for row in TRANSITIONS} - set(seen) - apart
    assert missing == set(), sorted(seen)


# ---------------------------------------------------------------------- planted bugs: the invariants must see them


def changed(name: str, **columns: Any) -> tuple[Transition, ...]:
    assert any(row.name == name for row in TRANSITIONS)
    return tuple(replace(row, **columns) if row.name == name else row for row in TRANSITIONS)


def caught(seeds: int = 60) -> bool:
    return any(asyncio.run(simulate(random_steps(seed))) for seed in range(seeds))


@pytest.mark.parametrize("name", ["silent", "restarted", "look_up_failed", "rejected", "not_arrived", "doubtful"])
def test_calling_a_doubt_failed_is_caught(monkeypatch, name):
    monkeypatch.setattr(lightning, "TRANSITIONS", changed(name, to=Stage.FAILED, effect=Effect.RELEASE))
    assert caught()


def test_believing_a_wallet_that_says_failed_at_once_is_caught(monkeypatch):
    monkeypatch.setattr(lightning, "GRACE_S", 0)
    assert caught()


def test_asking_under_another_id_is_caught(monkeypatch):
    real = ModelClient.send

    async def anew(self, event, method, permit, timeout):
        params = json.loads(self.wallet_key.decrypt(PubKey(event.pubkey), event.content))["params"]
        self.clock.seconds += 1
        return await real(self, await self.request(method, params, int(event.value("expiration"))), method, permit, 1)

    monkeypatch.setattr(ModelClient, "send", anew)
    assert caught()


def test_believing_a_preimage_that_does_not_fit_is_caught(monkeypatch):
    monkeypatch.setattr("wallet.lightning_engine.proves", lambda preimage, payment_hash: True)
    monkeypatch.setattr(Ledger, "_proof", lambda self, entry: {"preimage": "00" * 32})
    real = Ledger._pay

    def never(self, invoice, request):
        return {"preimage": "00" * 32, "fees_paid": 0}

    monkeypatch.setattr(Ledger, "_pay", never)
    assert caught()
    monkeypatch.setattr(Ledger, "_pay", real)
