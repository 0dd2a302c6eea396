"""Two wallets at a mint whose wire loses, delays, repeats and falsifies, with a crash after any commit (M3, M5).

The truth is read from the mint, never from the wallets' own journal.
"""

import asyncio
import contextlib
import hashlib
import random
from collections import Counter
from dataclasses import dataclass, field, replace

import bolt11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.error import VendoError
from core.money import Msat
from node.storage.memory import MemoryDatabase
from relays.key import Keyring
from tests.model_mint import Fault, Lie, ModelMint, Payment, payable
from tests.wallet_part import BUYER_WORDS, EFFECT, PERMIT, SELLER_WORDS, HandClock, make_wallet
from wallet import engine, payment
from wallet.cashu.derive import Derivation
from wallet.journal import Account, balances
from wallet.model import Locked, LockTerms, Paid, VerifyTerms
from wallet.payment import TRANSITIONS, Effect, Kind, State, Transition
from wallet.planner import Planner
from wallet.purse import Purse, Stored
from wallet.record import Vault
from wallet.wallet import Wallet

ACTIONS = (
    "deposit",
    "lock",
    "lock",
    "lock",
    "claim",
    "claim",
    "refund",
    "send",
    "receive",
    "pay",
    "pay",
    "pay",
    "lie",
    "rotate",
    "recover",
    "late",
)
PROMISED = 600


class Crash(BaseException):
    """The process dies here; what was committed stays."""


@dataclass(frozen=True)
class Step:
    """One thing that somebody does, what the wire does to its first calls, and after which commit we crash."""

    action: str
    amount: int
    faults: tuple[Fault, ...] = ()
    crash_after: int | None = None


@dataclass
class Side:
    """One wallet and the database that outlives it."""

    words: str
    mint: ModelMint
    clock: HandClock
    db: MemoryDatabase = field(init=False)
    wallet: Wallet = field(init=False)

    def __post_init__(self) -> None:
        self.db = MemoryDatabase(clock=self.clock)
        self.restart()

    def restart(self) -> None:
        self.db.crash_after = None
        self.wallet = make_wallet(self.words, [self.mint], self.clock, self.db)

    def crash_after(self, commits: int | None) -> None:
        left = commits

        def count(_: int) -> None:
            nonlocal left
            if left is not None:
                left -= 1
                if left < 0:
                    raise Crash

        self.db.crash_after = count if commits is not None else None

    def purse(self) -> Purse:
        keyring = Keyring(self.words)
        return Purse(self.db, Vault(keyring.derive("seal")), Derivation(keyring), self.clock)


class World:
    """Buyer, seller, mint, and what must hold between them."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.mint = ModelMint(clock=self.clock)
        self.buyer = Side(BUYER_WORDS, self.mint, self.clock)
        self.seller = Side(SELLER_WORDS, self.mint, self.clock)
        self.locks: dict[str, Locked] = {}
        self.tokens: list[str] = []
        self.seen: Counter[str] = Counter()
        self.number = 0
        self.bills: list[tuple[str, str]] = []
        self.fates: dict[str, Payment] = {}
        self.mint.lightning = self.lightning

    def lightning(self, hash_: str) -> Payment:
        """An invoice's first try goes as was chosen; a second one succeeds, as it well may."""
        return self.fates.pop(hash_, Payment.PAID)

    @property
    def sides(self) -> tuple[Side, Side]:
        return (self.buyer, self.seller)

    def id(self) -> str:
        self.number += 1
        return f"op-{self.number}"

    def wire(self, faults: tuple[Fault, ...]) -> None:
        left = list(faults)

        def script(name: str) -> Fault:
            if name in ("keys", "keysets", "request_quote", "quote", "request_melt"):
                return Fault.NONE
            fault = left.pop(0) if left else Fault.NONE
            if name in ("restore", "states", "melt_quote") and fault not in (
                Fault.NONE,
                Fault.UNREACHABLE,
                Fault.BUSY,
                Fault.REFUSED,
            ):
                # A look-up changes nothing, so there is nothing else that can go wrong with it.
                fault = Fault.ANSWER_LOST
            return fault

        self.mint.script = script

    async def play(self, step: Step) -> None:
        self.wire(step.faults)
        for side in self.sides:
            side.crash_after(step.crash_after)
        try:
            with contextlib.suppress(VendoError):
                await getattr(self, f"do_{step.action}")(step.amount)
        except BaseException as error:
            if not _is_crash(error):
                raise
            for side in self.sides:
                side.restart()
        for side in self.sides:
            side.crash_after(None)
        self.wire(())

    async def do_deposit(self, amount: int) -> None:
        op_id = self.id()
        await self.buyer.wallet.deposit(op_id, self.mint.url, amount * 4, EFFECT, PERMIT)
        await self.buyer.wallet.poll(op_id)

    async def do_lock(self, amount: int) -> None:
        op_id = self.id()
        terms = LockTerms(
            self.mint.url,
            Msat.of_sat(amount),
            self.seller.wallet.key.compressed,
            self.clock.now() + PROMISED,
            quote_id=op_id,
        )
        locked = await self.buyer.wallet.lock(op_id, terms, Msat.of_sat(amount * 2 + 20), EFFECT, PERMIT)
        assert locked.gross.value <= Msat.of_sat(amount * 2 + 20).value
        self.locks[op_id] = locked

    async def found_locks(self) -> None:
        for stored in await self.buyer.purse().operations(kind="lock", state=str(State.DONE)):
            view = await self.buyer.wallet.find(stored.op.id)
            assert view is not None
            assert isinstance(view.result, Locked)
            self.locks[stored.op.id] = view.result

    async def do_claim(self, amount: int) -> None:
        await self.found_locks()
        if not self.locks:
            return
        op_id = sorted(self.locks)[amount % len(self.locks)]
        payload = self.locks[op_id].payload
        terms = VerifyTerms(op_id, Msat.of_sat(1), (self.mint.url,), self.seller.wallet.key.compressed, 0)
        with contextlib.suppress(VendoError):
            await self.seller.wallet.verify(payload, terms)
        await self.seller.wallet.claim(f"claim-{op_id}", payload, EFFECT, PERMIT)

    async def do_refund(self, amount: int) -> None:
        await self.found_locks()
        if not self.locks:
            return
        op_id = sorted(self.locks)[amount % len(self.locks)]
        if amount % 3 == 0:
            self.clock.seconds += PROMISED + 1
        await self.buyer.wallet.refund(f"refund-{op_id}", op_id, EFFECT, PERMIT)

    async def do_send(self, amount: int) -> None:
        self.tokens.append(await self.buyer.wallet.send(self.id(), self.mint.url, amount, EFFECT, PERMIT))

    async def do_receive(self, amount: int) -> None:
        if self.tokens:
            token = self.tokens[amount % len(self.tokens)]
            await self.seller.wallet.receive(f"receive-{hash(token)}", token, EFFECT, PERMIT)

    async def do_pay(self, amount: int) -> None:
        """A new invoice, or the last one once more."""
        if amount % 5 or not self.bills:
            op_id = self.id()
            text = payable(amount * 1000 - amount % 3, self.clock.now(), op_id)
            self.bills.append((op_id, text))
            self.fates[hash_of(text)] = list(Payment)[amount % len(Payment)]
        op_id, text = self.bills[-1]
        ceiling = Msat.of_sat(amount * 2 + 20)
        paid = await self.buyer.wallet.pay(op_id, self.mint.url, text, ceiling, EFFECT, PERMIT)
        if amount % 5:
            assert paid.gross.value <= ceiling.value

    async def do_lie(self, amount: int) -> None:
        self.mint.lie = (Lie.NONE, Lie.NONE, Lie.WRONG_PREIMAGE, Lie.NO_PREIMAGE)[amount % 4]

    async def do_rotate(self, amount: int) -> None:
        self.mint.rotate()
        if amount % 2:
            self.clock.seconds += 400  # long enough for a wallet to ask for the keysets again

    async def do_recover(self, amount: int) -> None:
        for side in self.sides:
            await side.wallet.recover()

    async def do_late(self, amount: int) -> None:
        self.mint.deliver()
        if amount % 2:
            self.mint.lightning_ends()

    async def settle(self) -> None:
        """Wire and mint are honest from now on; everything in doubt is found out, at the latest when invoices end."""
        self.mint.lie = Lie.NONE
        for _ in range(3):
            for side in self.sides:
                await side.wallet.recover()
        self.mint.deliver()
        self.mint.lightning_ends()
        for _ in range(2):
            for side in self.sides:
                await side.wallet.recover()
            self.clock.seconds += 4_300
        self.mint.lightning_ends()
        for side in self.sides:
            await side.wallet.recover()

    # ------------------------------------------------------------------ what must hold

    async def violations(self, *, final: bool) -> list[str]:
        found: list[str] = []
        for name, side in (("buyer", self.buyer), ("seller", self.seller)):
            found += [f"{name}: {text}" for text in await self.judged(side, final=final)]
        found += [f"M1: {hash_} was paid twice" for hash_, times in Counter(self.mint.paid).items() if times > 1]
        if final:
            held = 0
            for side in self.sides:
                held += sum(balance.live + balance.locked for balance in await side.wallet.balance())
            if held != self.mint.circulating:
                found.append(f"wallets hold {held}, the mint owes {self.mint.circulating}")
        return found

    async def judged(self, side: Side, *, final: bool) -> list[str]:
        found: list[str] = []
        purse = side.purse()
        coins: Counter[str] = Counter()
        for coin in await purse.coins():
            coins[coin.state] += coin.amount
            if coin.state == "live" and self.mint.is_spent(coin.y):
                found.append("M5: a coin that is thought free is spent")
        accounts = balances(await purse.posted()).get((self.mint.url, "sat"), Counter())
        if sum(accounts.values()):
            found.append("M3: the journal does not sum to zero")
        if accounts[Account.WALLET] != coins["live"] + coins["reserved"] or accounts[Account.LOCKED] != coins["locked"]:
            found.append("M3: coins and journal differ")
        if accounts[Account.LOST]:
            found.append("M3: money was written off")
        for stored in await purse.operations():
            if stored.op.kind is Kind.MELT:
                found += await self.judged_melt(stored, final=final)
                continue
            groups = [group for group in (stored.plan.outputs, *stored.plan.past) if group]
            signed = sum(all(output.b in self.mint.signed for output in group) for group in groups)
            if stored.op.state is State.REFUSED and signed:
                found.append(f"M5: {stored.op.kind} was called refused, and happened")
            if stored.op.state is State.DONE and signed != 1:
                found.append(f"M1: {stored.op.kind} happened {signed} times")
            if final and stored.op.state in (State.PREPARED, State.UNKNOWN):
                found.append(f"{stored.op.kind} stays open")
        if final:
            audit = await side.wallet.audit()
            found += [f"audit: {text}" for text in audit.differences]
        return found

    async def judged_melt(self, stored: Stored, *, final: bool) -> list[str]:
        """What the mint's Lightning did is the truth."""
        hash_ = str(stored.plan.terms["hash"])
        paid = self.mint.paid.count(hash_)
        if stored.op.state is State.REFUSED and paid:
            return ["M5: an invoice was called not paid, and was"]
        if stored.op.state is State.DONE:
            view = await self.buyer.wallet.find(stored.op.id)
            assert view is not None
            assert isinstance(view.result, Paid)
            # A receipt that the mint withholds is waited for until the invoice has ended, and not for ever.
            true = (
                view.result.preimage == "" or hashlib.sha256(bytes.fromhex(view.result.preimage)).hexdigest() == hash_
            )
            return [] if paid and true else ["M1: an invoice was called paid, and was not, or has a false receipt"]
        return ["melt stays open"] if final and stored.op.state is not State.REFUSED else []


def hash_of(text: str) -> str:
    """An invoice's payment hash."""
    return str(bolt11.decode(text).payment_hash)


def _is_crash(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_is_crash(inner) for inner in error.exceptions)
    return isinstance(error, Crash)


async def simulate(steps: list[Step]) -> tuple[list[str], Counter[str]]:
    """Play the steps; what was violated, and how often each transition was taken."""
    world = World()
    await world.do_deposit(250)
    await world.do_deposit(100)
    for step in steps:
        await world.play(step)
        broken = await world.violations(final=False)
        if broken:
            return broken, world.seen
    await world.settle()
    return await world.violations(final=True), world.seen


_FAULTS = st.lists(st.sampled_from(list(Fault)), max_size=5).map(tuple)
_STEPS = st.lists(
    st.builds(
        Step,
        st.sampled_from(ACTIONS),
        st.integers(1, 60),
        _FAULTS,
        st.none() | st.integers(0, 4),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=20 if settings.default.max_examples <= 1_000 else 2_000, deadline=None)
@given(_STEPS)
def test_no_fault_and_no_crash_loses_or_makes_money(steps):
    broken, _ = asyncio.run(simulate(steps))
    assert broken == []


def random_steps(seed: int, length: int = 14) -> list[Step]:
    dice = random.Random(seed)
    return [
        Step(
            dice.choice(ACTIONS),
            dice.randint(1, 60),
            tuple(dice.choices(list(Fault), k=dice.randint(0, 4))),
            dice.choice((None, None, 0, 1, 2, 3)),
        )
        for _ in range(length)
    ]


def test_every_transition_of_the_saga_is_taken(monkeypatch):
    seen: Counter[str] = Counter()
    real = payment.step

    def counting(operation, event):
        result = real(operation, event)
        seen[result[2]] += 1
        return result

    monkeypatch.setattr(engine, "step", counting)
    monkeypatch.setattr("wallet.teller.step", counting)
    for seed in range(30):
        broken, _ = asyncio.run(simulate(random_steps(seed)))
        assert broken == [], seed
    # Lost, looked up as never arrived, and then the mint is gone.
    gone = Step("lock", 10, (Fault.REQUEST_LOST, Fault.NONE, Fault.NONE, Fault.NONE, Fault.UNREACHABLE))
    broken, _ = asyncio.run(simulate([gone]))
    assert broken == []
    # Paid for, and turned away when the coins are asked for.
    for fault in (Fault.UNREACHABLE, Fault.REFUSED):
        broken, _ = asyncio.run(simulate([Step("deposit", 10, (fault,)), Step("lock", 10)]))
        assert broken == []
    for steps in (LOOSE, ENDED, SLOW):
        broken, _ = asyncio.run(simulate(steps))
        assert broken == []
    # An unpaid deposit, a mint that signs a part, old copies (test_copy.py) and counters that were used twice
    # (test_collision.py) are shown in tests of their own.
    # A melt whose inputs are gone is among test_withdrawal.py's.
    apart = {"expired", "minted_before", "partly_signed", "collided", "contested", "not_ours", "disputed"}
    missing = {row.name for row in TRANSITIONS} - set(seen) - apart
    assert not missing, seen


# ---------------------------------------------------------------------- planted bugs: the invariants must see them


def changed(name: str, **columns) -> tuple[Transition, ...]:
    assert any(row.name == name for row in TRANSITIONS)
    return tuple(replace(row, **columns) if row.name == name else row for row in TRANSITIONS)


def caught(seeds: int = 40) -> bool:
    for seed in range(seeds):
        try:
            broken, _ = asyncio.run(simulate(random_steps(seed)))
        except (VendoError, AssertionError):
            return True
        if broken:
            return True
    return False


# One copy of a melt is on its way while another one is refused (amount 1: the first try fails); then it arrives.
LOOSE = [Step("pay", 1, (Fault.REQUEST_DELAYED,)), Step("late", 2)]
ENDED = [Step("pay", 4, (Fault.REQUEST_LOST, Fault.NONE, Fault.NONE, Fault.REQUEST_LOST))]
SLOW = [Step("pay", 2), Step("recover", 1), Step("late", 1), Step("recover", 1)]


@pytest.mark.parametrize("steps", [LOOSE, ENDED, SLOW])
def test_a_melt_in_doubt_ends_as_it_really_went(steps):
    assert asyncio.run(simulate(steps))[0] == []


def test_believing_one_refusal_while_another_copy_is_on_its_way_is_caught(monkeypatch):
    monkeypatch.setattr(payment, "TRANSITIONS", changed("may_arrive", to=State.REFUSED, effect=Effect.RELEASE))
    assert asyncio.run(simulate(LOOSE))[0] != []


def test_taking_a_payment_under_way_for_a_failed_one_is_caught(monkeypatch):
    monkeypatch.setattr(payment, "TRANSITIONS", changed("in_flight", to=State.REFUSED, effect=Effect.RELEASE))
    assert asyncio.run(simulate(SLOW))[0] != []


def test_believing_any_receipt_is_caught(monkeypatch):
    monkeypatch.setattr(engine, "receipt", lambda plan, quote, closed: quote.preimage or "")
    assert asyncio.run(simulate([Step("lie", 2), Step("pay", 4)]))[0] != []


@pytest.mark.parametrize("name", ["silent", "restarted", "look_up_failed", "not_arrived"])
def test_calling_a_doubt_refused_is_caught(monkeypatch, name):
    monkeypatch.setattr(payment, "TRANSITIONS", changed(name, to=State.REFUSED, effect=Effect.RELEASE))
    assert caught()


def test_believing_a_rejection_without_a_look_up_is_caught(monkeypatch):
    monkeypatch.setattr(payment, "TRANSITIONS", changed("rejected", to=State.REFUSED, effect=Effect.RELEASE))
    assert caught()


def test_believing_amounts_that_the_mint_states_is_caught(monkeypatch):
    real = engine.unblind

    def gullible(output, signature, key):
        return real(replace(output, amount=signature.amount), signature, key)

    monkeypatch.setattr(engine, "unblind", gullible)
    assert caught()


LATE = [
    Step(
        "lock", 10, (Fault.REQUEST_DELAYED, Fault.NONE, Fault.NONE, Fault.NONE, Fault.REQUEST_LOST, Fault.UNREACHABLE)
    ),
    Step("late", 1),
]


def test_a_request_that_arrives_after_its_repetition_was_lost_is_booked():
    broken, _ = asyncio.run(simulate(LATE))
    assert broken == []


def test_forgetting_the_outputs_of_earlier_attempts_is_caught(monkeypatch):
    real = Planner.again

    async def forgetful(self, stored):
        planned = await real(self, stored)
        return replace(planned, plan=replace(planned.plan, past=()))

    monkeypatch.setattr(payment, "TRANSITIONS", changed("not_arrived", effect=Effect.REPLAN))
    assert asyncio.run(simulate(LATE))[0] == []
    monkeypatch.setattr(Planner, "again", forgetful)
    assert asyncio.run(simulate(LATE))[0] != []
