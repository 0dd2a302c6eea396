"""Coins in several units at one mint: each by itself, whatever the mint says and whenever the process dies."""

import ast
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from core.money import Msat
from node.storage.memory import MemoryDatabase
from tests.model_mint import MSAT_PER, Fault, ModelMint, Payment, payable
from tests.wallet_part import BUYER_WORDS, EFFECT, PERMIT, SELLER_WORDS, HandClock, make_wallet
from wallet import restorer
from wallet.amount import EUR, MSAT, SAT, USD, Amount
from wallet.cashu.keyset import Keyset, KeysetInfo
from wallet.cashu.port import MintQuote
from wallet.cashu.token import Payment as Coins
from wallet.cashu.token import decode, encode, to_payload
from wallet.error import (
    FxUnpriced,
    InsufficientFunds,
    InvoiceRejected,
    MintRefused,
    TokenKeyset,
    TokenMint,
    TokenUnit,
    TooDear,
    UnitAbsent,
    UnitMixed,
)
from wallet.model import Gained, LockTerms, Received, VerifyTerms
from wallet.payment import State
from wallet.wallet import Wallet

OTHERS = (MSAT, USD, EUR)
ROOT = Path(__file__).parents[3]


class Stage:
    """Two wallets at a mint that has four units."""

    def __init__(self, more: Sequence[str] = OTHERS) -> None:
        self.clock = HandClock()
        self.mint = ModelMint(clock=self.clock, more=more)
        self.one_db, self.two_db = MemoryDatabase(clock=self.clock), MemoryDatabase(clock=self.clock)
        self.restart()

    def restart(self) -> None:
        self.one = make_wallet(BUYER_WORDS, [self.mint], self.clock, self.one_db)
        self.two = make_wallet(SELLER_WORDS, [self.mint], self.clock, self.two_db)

    async def fund(self, value: int, unit: str, op_id: str = "") -> None:
        name = op_id or f"deposit {unit}"
        if unit == SAT:
            await self.one.deposit(name, self.mint.url, value, EFFECT, PERMIT)
        else:
            await self.one.foreign.deposit(name, self.mint.url, Amount(value, unit), EFFECT, PERMIT)
        await self.one._keeper.poll(name)
        view = await self.one.find(name)
        assert view is not None
        assert view.state is State.DONE

    def wire(self, *faults: Fault, call: str) -> None:
        left = list(faults)
        self.mint.script = lambda name: left.pop(0) if left and name == call else Fault.NONE

    def bill(self, value: int, unit: str, name: str = "bill") -> str:
        """An invoice that this mint calls so much of a unit."""
        return payable(value * MSAT_PER[unit], self.clock.now(), name)


async def held(wallet: Wallet, unit: str) -> tuple[int, int, int]:
    """Free, reserved and locked."""
    rows = [one for one in await wallet.balance() if one.unit == unit]
    assert len(rows) <= 1
    return (rows[0].live, rows[0].reserved, rows[0].locked) if rows else (0, 0, 0)


async def clean(stage: Stage) -> None:
    """Both wallets agree with themselves and the mint, and the mint owes in each unit just what they hold."""
    for wallet in (stage.one, stage.two):
        audit = await wallet.audit()
        assert audit.differences == ()
        for one in audit.mints:
            assert sum(one.journal.values()) == 0
    for unit in (SAT, *OTHERS):
        both = [await held(wallet, unit) for wallet in (stage.one, stage.two)]
        assert sum(map(sum, both)) == stage.mint.owes(unit), unit


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    """The counters have no such gaps here, and each search costs a second."""
    monkeypatch.setattr(restorer, "GAP", 50)


@pytest.fixture
async def stage() -> Stage:
    made = Stage()
    for unit in (SAT, *OTHERS):
        await made.fund(500, unit)
    return made


# ---------------------------------------------------------------------- in and out


async def test_what_a_mint_has_is_told_by_unit(stage: Stage) -> None:
    offers = await stage.one.foreign.offers(stage.mint.url)
    assert [(one.unit, one.active) for one in offers] == [(unit, True) for unit in (SAT, MSAT, USD, EUR)]
    assert stage.one.foreign.sellers(USD) == (stage.mint.url,)
    assert stage.one.mints == (stage.mint.url,)


async def test_each_unit_is_held_and_reconciled_by_itself(stage: Stage) -> None:
    await clean(stage)
    assert {one.unit: one.live for one in await stage.one.balance()} == dict.fromkeys((SAT, *OTHERS), 500)
    rows = await stage.one_db.select("posting")
    for operation in {row["operation"] for row in rows}:
        assert len({(row["mint"], row["unit"]) for row in rows if row["operation"] == operation}) == 1


@pytest.mark.parametrize("unit", OTHERS)
async def test_a_token_goes_from_one_wallet_to_another_in_its_unit(stage: Stage, unit: str) -> None:
    token = await stage.one.foreign.send("send", stage.mint.url, Amount(123, unit), EFFECT, PERMIT)
    assert decode(token).unit == unit
    got = await stage.two.foreign.receive("receive", token, EFFECT, PERMIT)
    assert got == Gained(Amount(122, unit), Amount(1, unit))
    assert (await held(stage.two, unit))[0] == 122
    assert await held(stage.two, SAT) == (0, 0, 0)
    view = await stage.two.find("receive")
    assert view is not None
    assert (view.unit, view.amount, view.fee) == (unit, 122, 1)
    await clean(stage)


@pytest.mark.parametrize("unit", OTHERS)
async def test_an_invoice_is_paid_with_coins_of_a_unit_by_the_mints_own_rate(stage: Stage, unit: str) -> None:
    text = stage.bill(100, unit)
    paid = await stage.one.foreign.pay("pay", stage.mint.url, text, Amount(110, unit), EFFECT, PERMIT)
    assert paid.gross - paid.fee == Amount(100, unit)
    assert paid.price == Msat(100 * MSAT_PER[unit])
    assert (await held(stage.one, unit))[0] == 500 - paid.gross.value
    assert (await held(stage.one, SAT))[0] == 500
    assert stage.mint.paid_out == 100
    await clean(stage)
    assert await stage.one.foreign.pay("pay", stage.mint.url, text, Amount(110, unit), EFFECT, PERMIT) == paid
    assert len(stage.mint.paid) == 1


async def test_the_invoice_of_a_deposit_names_its_price(stage: Stage) -> None:
    made = await stage.one.foreign.deposit("more", stage.mint.url, Amount(300, USD), EFFECT, PERMIT)
    assert made.amount == Amount(300, USD)
    assert made.price == Msat(300 * MSAT_PER[USD])
    assert made.state is State.WAITING
    with pytest.raises(UnitMixed):  # whose answer counts sat
        await stage.one.poll("more")
    assert (await stage.one.find("more")).state is State.DONE


async def test_an_invoice_above_what_may_be_spent_begins_nothing(stage: Stage) -> None:
    with pytest.raises(TooDear):
        await stage.one.foreign.pay("pay", stage.mint.url, stage.bill(100, USD), Amount(101, USD), EFFECT, PERMIT)
    with pytest.raises(TooDear):  # the mint calls it more than we have: the limit is what is told
        await stage.one.foreign.pay("more", stage.mint.url, stage.bill(90_000, USD), Amount(101, USD), EFFECT, PERMIT)
    assert await stage.one.find("pay") is None
    assert stage.mint.paid == []
    await clean(stage)


async def test_an_invoice_is_paid_once_whichever_unit_pays(stage: Stage) -> None:
    text = stage.bill(100, USD)
    await stage.one.foreign.pay("pay", stage.mint.url, text, Amount(110, USD), EFFECT, PERMIT)
    with pytest.raises(Exception, match="Another operation pays this invoice"):
        await stage.one.pay("again", stage.mint.url, text, Msat(10_000_000), EFFECT, PERMIT)
    assert len(stage.mint.paid) == 1


async def test_one_operation_id_stands_for_one_unit(stage: Stage) -> None:
    await stage.one.foreign.send("send", stage.mint.url, Amount(5, USD), EFFECT, PERMIT)
    with pytest.raises(Exception, match="used for another"):
        await stage.one.foreign.send("send", stage.mint.url, Amount(5, EUR), EFFECT, PERMIT)
    with pytest.raises(Exception, match="used for another"):
        await stage.one.send("send", stage.mint.url, 5, EFFECT, PERMIT)


async def test_too_little_of_a_unit_is_not_made_up_from_another(stage: Stage) -> None:
    with pytest.raises(InsufficientFunds):
        await stage.one.foreign.send("send", stage.mint.url, Amount(501, EUR), EFFECT, PERMIT)
    assert await stage.one.find("send") is None
    await clean(stage)


# ---------------------------------------------------------------------- units that are not there


async def test_a_unit_that_no_mint_has_is_refused_by_name() -> None:
    stage = Stage(more=(EUR,))
    with pytest.raises(UnitAbsent) as caught:
        await stage.one.foreign.deposit("deposit", stage.mint.url, Amount(5, USD), EFFECT, PERMIT)
    assert caught.value.code == "wallet.unit"
    assert "request_quote" not in stage.mint.calls
    rich = Stage()
    await rich.fund(100, USD)
    token = await rich.one.foreign.send("send", rich.mint.url, Amount(50, USD), EFFECT, PERMIT)
    with pytest.raises(TokenUnit) as refused:
        await stage.two.foreign.receive("receive", token, EFFECT, PERMIT)
    assert refused.value.code == "token.unit"
    elsewhere = encode("https://other.test", USD, decode(token).proofs)
    with pytest.raises(TokenMint):
        await stage.two.foreign.receive("receive", elsewhere, EFFECT, PERMIT)
    assert await stage.two.find("receive") is None


@pytest.mark.parametrize("unit", ["auth", "gbp", "", "SAT"])
async def test_a_token_in_a_unit_that_is_not_handled_is_refused(stage: Stage, unit: str) -> None:
    token = await stage.one.foreign.send("send", stage.mint.url, Amount(50, USD), EFFECT, PERMIT)
    odd = encode(stage.mint.url, unit, decode(token).proofs)
    for wallet in (stage.two, stage.two.foreign):
        with pytest.raises(TokenUnit):
            await wallet.receive("receive", odd, EFFECT, PERMIT)


async def test_a_mint_whose_largest_coins_are_too_small_is_not_paid_first(stage: Stage) -> None:
    with pytest.raises(UnitAbsent):
        await stage.one.foreign.deposit("deposit", stage.mint.url, Amount(1 << 30, USD), EFFECT, PERMIT)
    assert await stage.one.find("deposit") is None


@pytest.mark.parametrize("value", [0, -5, 1 << 40, 1 << 70])
async def test_absurd_amounts_are_refused_before_the_mint_is_asked(stage: Stage, value: int) -> None:
    before = list(stage.mint.calls)
    for act in (stage.one.foreign.deposit, stage.one.foreign.send):
        with pytest.raises(Exception, match="positive number"):
            await act("odd", stage.mint.url, Amount(value, USD), EFFECT, PERMIT)
    assert stage.mint.calls == before


# ---------------------------------------------------------------------- jobs are paid for in sat


async def test_a_job_is_never_paid_with_coins_of_another_unit() -> None:
    """The wallet is rich in cents and poor in sat: what the market asks of it fails, and no cent moves."""
    stage = Stage()
    await stage.fund(3, SAT)
    for unit in OTHERS:
        await stage.fund(4_000, unit)
    until = stage.clock.now() + 600
    terms = LockTerms(stage.mint.url, Msat.of_sat(10), stage.two.key.compressed, until, quote_id="quote")
    with pytest.raises(InsufficientFunds):
        await stage.one.lock("lock", terms, Msat.of_sat(50), EFFECT, PERMIT)
    with pytest.raises(InsufficientFunds):
        await stage.one.pay("pay", stage.mint.url, stage.bill(10, SAT), Msat.of_sat(20), EFFECT, PERMIT)
    with pytest.raises(InsufficientFunds):
        await stage.one.send("send", stage.mint.url, 10, EFFECT, PERMIT)
    for unit in OTHERS:
        with pytest.raises(TokenUnit):
            await stage.one.lock("other", replace(terms, unit=unit), Msat.of_sat(50), EFFECT, PERMIT)
        assert await held(stage.one, unit) == (4_000, 0, 0)
    await clean(stage)


async def test_locks_claims_and_refunds_touch_sat_alone(stage: Stage) -> None:
    until = stage.clock.now() + 600
    terms = LockTerms(stage.mint.url, Msat.of_sat(10), stage.two.key.compressed, until, quote_id="quote")
    locked = await stage.one.lock("lock", terms, Msat.of_sat(50), EFFECT, PERMIT)
    back = await stage.one.lock("back", terms, Msat.of_sat(50), EFFECT, PERMIT)
    assert isinstance(await stage.two.claim("claim", locked.payload, EFFECT, PERMIT), Received)
    stage.clock.seconds = until + 1
    assert isinstance(await stage.one.refund("refund", back.op_id, EFFECT, PERMIT), Received)
    spent = await stage.one.spent(stage.mint.url, locked.ys)
    assert str(spent.state) == "SPENT"
    for table in ("operation", "posting"):
        rows = [
            row for row in await stage.one_db.select(table) if "deposit" not in str(row.get("id", row.get("operation")))
        ]
        assert {row["unit"] for row in rows} == {SAT}
    for unit in OTHERS:
        assert await held(stage.one, unit) == (500, 0, 0)
    await clean(stage)


async def test_a_payment_for_a_job_in_another_unit_is_not_worked_for(stage: Stage) -> None:
    """Locked just right, but in cents: each way in says so before anything is asked for."""
    until = stage.clock.now() + 600
    token = await stage.one.foreign.send(
        "send", stage.mint.url, Amount(50, USD), EFFECT, PERMIT, pubkey=stage.two.key.compressed
    )
    coins = decode(token)
    payload = to_payload(Coins(coins.mint, USD, coins.proofs, "quote"))
    wanted = VerifyTerms("quote", Msat.of_sat(1), (stage.mint.url,), stage.two.key.compressed, until)
    calls = list(stage.mint.calls)
    with pytest.raises(TokenUnit):
        await stage.two.verify(payload, wanted)
    with pytest.raises(TokenUnit):
        await stage.two.claim("claim", payload, EFFECT, PERMIT)
    with pytest.raises(TokenUnit):
        await stage.two.appraise("tip", payload, stage.two.key.compressed, 0)
    with pytest.raises(TokenUnit):
        await stage.two.receive("toll", token, EFFECT, PERMIT)
    # And if it calls the cents sat, their keyset gives it away.
    lie = to_payload(Coins(coins.mint, SAT, coins.proofs, "quote"))
    with pytest.raises((TokenKeyset, MintRefused)):
        await stage.two.claim("claim", lie, EFFECT, PERMIT)
    assert "swap" not in stage.mint.calls[len(calls) :]
    assert await stage.two.find("claim") is None


def test_the_market_has_no_way_to_name_another_unit() -> None:
    """Nothing of dvm reaches for what other units are moved with."""
    words = {"foreign", "exchange_of", "Foreign", "Amount", "Cashier"}
    for path in sorted((ROOT / "dvm").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        named = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
        assert not words & (named | imported), path.name


async def test_a_plan_with_coins_of_another_unit_is_not_begun(stage: Stage) -> None:
    """Whoever chose the coins: the teller looks at each before it is written down."""
    planner = stage.one._planner
    real = planner._affordable

    async def astray(book, amount):
        return await real(stage.one._books[stage.mint.url, USD], amount)

    planner._affordable = astray
    with pytest.raises((UnitMixed, TokenKeyset)):
        await stage.one.send("send", stage.mint.url, 10, EFFECT, PERMIT)
    assert await stage.one.find("send") is None
    assert await held(stage.one, USD) == (500, 0, 0)


# ---------------------------------------------------------------------- crashes, restores, old copies


@pytest.mark.parametrize(
    "fault", [Fault.ANSWER_LOST, Fault.REQUEST_LOST, Fault.REPEATED, Fault.WRONG_DLEQ, Fault.FALSE_NO]
)
@pytest.mark.parametrize("unit", [USD, MSAT])
async def test_a_lost_answer_in_another_unit_is_looked_up(stage: Stage, fault: Fault, unit: str) -> None:
    stage.wire(fault, call="swap")
    try:
        await stage.one.foreign.send("send", stage.mint.url, Amount(123, unit), EFFECT, PERMIT)
    except MintRefused:
        assert fault is Fault.FALSE_NO
    stage.restart()
    await stage.one.recover()
    view = await stage.one.find("send")
    assert view is not None
    assert view.state in (State.DONE, State.REFUSED)
    await clean(stage)


async def test_a_deposit_and_a_payment_in_cents_go_on_after_a_restart_with_the_mint_away(stage: Stage) -> None:
    await stage.one.foreign.deposit("more", stage.mint.url, Amount(64, USD), EFFECT, PERMIT)
    stage.mint.lightning = lambda _: Payment.SLOW
    text = stage.bill(100, USD)
    with pytest.raises(Exception, match="may have happened"):
        await stage.one.foreign.pay("pay", stage.mint.url, text, Amount(110, USD), EFFECT, PERMIT)
    audit = await stage.one.audit()
    assert audit.pending_sat == 0
    assert {one.unit: one.pending for one in audit.mints}[USD] == 100
    stage.restart()
    stage.mint.script = lambda name: Fault.UNREACHABLE
    assert await stage.one.recover() == 1
    assert (await held(stage.one, USD))[1] > 0
    stage.mint.script = lambda name: Fault.NONE
    stage.mint.lightning_ends()
    assert await stage.one.recover() == 0
    await stage.one._keeper.poll("more")
    assert [(await stage.one.find(name)).state for name in ("more", "pay")] == [State.DONE, State.DONE]
    await clean(stage)


async def test_the_words_alone_find_the_coins_of_every_unit(stage: Stage) -> None:
    for unit in OTHERS:
        await stage.one.foreign.send(f"send {unit}", stage.mint.url, Amount(77, unit), EFFECT, PERMIT)
    stage.mint.rotate(unit=USD)
    lost = make_wallet(BUYER_WORDS, [stage.mint], stage.clock)
    found = {unit: await lost.restore(stage.mint.url, unit) for unit in await lost.units_at(stage.mint.url)}
    assert set(found) == {SAT, *OTHERS}
    for unit in (SAT, *OTHERS):
        assert found[unit].unit == unit
        assert found[unit].amount == sum(await held(stage.one, unit)), "sent and not taken yet is found as well"
        assert (await held(lost, unit))[0] == found[unit].amount
    assert (await lost.audit()).clean
    await lost.foreign.send("on", stage.mint.url, Amount(30, EUR), EFFECT, PERMIT)


async def test_an_old_copy_is_compared_in_every_unit_before_it_goes_on(stage: Stage) -> None:
    for unit in (USD, EUR):
        await stage.one.foreign.send(f"send {unit}", stage.mint.url, Amount(100, unit), EFFECT, PERMIT)
    young = MemoryDatabase(clock=stage.clock)  # a copy from before there was anything
    again = make_wallet(BUYER_WORDS, [stage.mint], stage.clock, young)
    await again.mark_copied()
    await again._teller.warm(again._books[stage.mint.url, SAT])
    # A process that ends here asks the other units again at its next start.
    assert (await again.copied())[stage.mint.url].startswith("pending")
    again = make_wallet(BUYER_WORDS, [stage.mint], stage.clock, young)
    await again.recover()
    for book in list(again._books.values()):
        await again._teller.warm(book)
    assert await again.copied() == {stage.mint.url: "moved"}
    assert not any(book.copied for book in again._books.values())
    for unit in (SAT, *OTHERS):
        assert (await held(again, unit))[0] == sum(await held(stage.one, unit))


# ---------------------------------------------------------------------- mints that lie about units


async def lying(stage: Stage, bent) -> None:
    """From now on the mint's list of keysets is another one."""
    real = stage.mint.keysets

    async def keysets():
        return tuple(bent(await real()))

    stage.mint.keysets = keysets
    await stage.one._books.roll(stage.mint.url).refresh()


async def test_a_keyset_that_changes_its_unit_is_used_no_more(stage: Stage) -> None:
    usd = next(iter(stage.one._books[stage.mint.url, USD].infos))
    await lying(stage, lambda infos: [replace(info, unit=SAT) if info.id == usd else info for info in infos])
    for unit, book in ((USD, stage.one._books[stage.mint.url, USD]), (SAT, stage.one._books[stage.mint.url, SAT])):
        assert usd not in book.infos, unit
    with pytest.raises((InsufficientFunds, MintRefused)):
        await stage.one.foreign.send("send", stage.mint.url, Amount(5, USD), EFFECT, PERMIT)
    assert await stage.one.send("sat", stage.mint.url, 5, EFFECT, PERMIT), "other units go on"
    audit = await stage.one.audit()
    assert audit.differences == (f"{stage.mint.url} usd: 500 in a keyset of which the mint says two things",)
    found = await stage.one.restore(stage.mint.url)
    assert found.amount == 0, "cents are not found again as sat"
    # Also after a restart, by what lies in the rows.
    stage.restart()
    await stage.one.recover()
    assert usd not in stage.one._books[stage.mint.url, SAT].infos
    assert (await held(stage.one, USD))[0] == 500
    assert (await stage.one.restore(stage.mint.url)).amount in (0, 5)


async def test_one_id_for_two_units_is_used_for_neither(stage: Stage) -> None:
    sat = next(iter(stage.one._books[stage.mint.url, SAT].infos))
    await lying(stage, lambda infos: [*infos, *(replace(info, unit=USD) for info in infos if info.id == sat)])
    for unit in (SAT, USD):
        assert sat not in stage.one._books[stage.mint.url, unit].infos
    with pytest.raises((InsufficientFunds, MintRefused)):
        await stage.one.send("send", stage.mint.url, 5, EFFECT, PERMIT)
    assert await stage.one.foreign.send("cents", stage.mint.url, Amount(5, EUR), EFFECT, PERMIT)
    fresh = make_wallet(SELLER_WORDS, [stage.mint], stage.clock)  # and who hears both at once believes neither
    assert set(await fresh.units_at(stage.mint.url)) == {SAT, *OTHERS}
    assert [sat in book.infos for book in fresh._books.values()] == [False] * 4


async def test_a_refund_from_a_keyset_that_changed_its_unit_waits(stage: Stage) -> None:
    until = stage.clock.now() + 600
    terms = LockTerms(stage.mint.url, Msat.of_sat(10), stage.two.key.compressed, until, quote_id="quote")
    await stage.one.lock("lock", terms, Msat.of_sat(50), EFFECT, PERMIT)
    sat = next(iter(stage.one._books[stage.mint.url, SAT].infos))
    real = stage.mint.keysets
    await lying(stage, lambda infos: [replace(info, unit=EUR) if info.id == sat else info for info in infos])
    stage.clock.seconds = until + 1
    with pytest.raises((MintRefused, TokenKeyset)):
        await stage.one.refund("refund", "lock", EFFECT, PERMIT)
    del stage.mint.keysets
    assert stage.mint.keysets.__func__ is not real
    await stage.one._books.roll(stage.mint.url).refresh()
    assert await stage.one.refund("refund", "lock", EFFECT, PERMIT)
    await clean(stage)


async def test_a_mint_that_answers_a_quote_in_cents_with_sat_is_not_paid(stage: Stage) -> None:
    real = stage.mint.request_quote

    def bend(**more):
        async def quoted(amount, unit, pubkey, permit) -> MintQuote:
            return replace(await real(amount, unit, pubkey, permit), **more)

        return quoted

    for more in ({"unit": SAT}, {"unit": None}, {"amount": 499}, {"amount": None, "unit": None}, {"unit": "gbp"}):
        stage.mint.request_quote = bend(**more)
        with pytest.raises(InvoiceRejected):
            await stage.one.foreign.deposit("bad", stage.mint.url, Amount(500, USD), EFFECT, PERMIT)
    assert await stage.one.find("bad") is None


async def test_signatures_of_a_keyset_of_sat_buy_no_cents(stage: Stage) -> None:
    """A mint that signs a paid quote in cents with keys of sat: the answer is none, and the deposit stays open."""
    await stage.one.foreign.deposit("more", stage.mint.url, Amount(64, USD), EFFECT, PERMIT)
    sat = next(iter(stage.one._books[stage.mint.url, SAT].infos))
    real, restored = stage.mint.mint, stage.mint.restore

    async def minted(quote_id, outputs, signature, permit):
        return [replace(one, keyset=sat) for one in await real(quote_id, outputs, signature, permit)]

    async def restore(outputs):
        return {b: replace(one, keyset=sat) for b, one in (await restored(outputs)).items()}

    stage.mint.mint, stage.mint.restore = minted, restore
    await stage.one._keeper.poll("more")
    view = await stage.one.find("more")
    assert view is not None
    assert view.state is State.UNKNOWN
    assert (await held(stage.one, SAT))[0] == 500
    assert (await held(stage.one, USD))[0] == 500
    stage.mint.mint, stage.mint.restore = real, restored
    await stage.one.recover()
    assert (await held(stage.one, USD))[0] == 564
    await clean(stage)


async def test_keys_that_come_under_another_unit_are_not_taken(stage: Stage) -> None:
    fresh = make_wallet(SELLER_WORDS, [stage.mint], stage.clock)
    real = stage.mint.keys

    async def keys(info: KeysetInfo) -> Keyset:
        found = await real(info)
        return replace(found, info=replace(found.info, unit=SAT))

    stage.mint.keys = keys
    with pytest.raises(Exception, match="another keyset or unit"):
        await fresh.foreign.deposit("deposit", stage.mint.url, Amount(5, USD), EFFECT, PERMIT)


async def test_a_token_whose_coins_are_of_another_unit_than_it_says_is_refused(stage: Stage) -> None:
    sat = await stage.one.send("sat", stage.mint.url, 50, EFFECT, PERMIT)
    usd = await stage.one.foreign.send("usd", stage.mint.url, Amount(50, USD), EFFECT, PERMIT)
    coins = [decode(token).proofs for token in (sat, usd)]
    for name, proofs, unit in (
        ("cents for sat", coins[0], USD),
        ("sat for cents", coins[1], EUR),
        ("both", (*coins[0], *coins[1]), USD),
    ):
        with pytest.raises((TokenKeyset, MintRefused)):
            await stage.two.foreign.receive(name, encode(stage.mint.url, unit, proofs), EFFECT, PERMIT)
        assert await stage.two.find(name) is None
    with pytest.raises((TokenKeyset, MintRefused)):
        await stage.two.receive("sat", encode(stage.mint.url, SAT, coins[1]), EFFECT, PERMIT)
    assert await stage.two.balance() == [one for one in await stage.two.balance() if not one.live]


@pytest.mark.parametrize("more", [{"unit": SAT}, {"unit": None}, {"amount": 1 << 90}, {"fee_reserve": 1 << 90}])
async def test_a_mint_whose_quote_for_an_invoice_is_in_another_unit_or_absurd_is_paid_nothing(
    stage: Stage, more
) -> None:
    real = stage.mint.request_melt

    async def quoted(invoice, unit, permit):
        return replace(await real(invoice, unit, permit), **more)

    stage.mint.request_melt = quoted
    with pytest.raises((MintRefused, TooDear)):
        await stage.one.foreign.pay("pay", stage.mint.url, stage.bill(50, USD), Amount(80, USD), EFFECT, PERMIT)
    assert await stage.one.find("pay") is None
    assert await held(stage.one, USD) == (500, 0, 0)


async def test_what_an_invoice_costs_is_not_guessed_without_a_rate(stage: Stage) -> None:
    with pytest.raises(FxUnpriced):
        stage.one.foreign.likely_cost(stage.mint.url, EUR, Msat(1_000), None)
