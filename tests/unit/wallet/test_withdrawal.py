"""Invoices paid at a model mint that pays, delays, fails, lies and loses answers (NUT-05, NUT-08)."""

import asyncio
import hashlib
from dataclasses import replace

import pytest

from core.error import Unavailable
from core.money import Msat
from core.unit import Insert
from tests.model_mint import Fault, Lie, ModelMint, Payment, payable
from tests.unit.wallet.test_wallet import Stage, clean
from tests.wallet_part import BUYER_WORDS, EFFECT, PERMIT, make_wallet
from wallet.cashu.limit import Limit, Limits
from wallet.cashu.port import MeltQuote, MeltState
from wallet.error import (
    InsufficientFunds,
    InvoiceUnfit,
    MintBusy,
    MintLimited,
    MintRefused,
    OperationReused,
    PaymentUnknown,
    TooDear,
)
from wallet.invoice import payable_invoice
from wallet.lightning_error import InvoiceKnown
from wallet.model import Paid
from wallet.payment import Kind, State

CEILING = Msat.of_sat(200)


@pytest.fixture
async def stage() -> Stage:
    made = Stage()
    await made.fund(255)
    return made


def bill(stage: Stage, msat: int = 100_000, name: str = "bill", expiry: int = 3600) -> str:
    return payable(msat, stage.clock.now(), name, expiry=expiry)


async def pay(stage: Stage, text: str, op_id: str = "pay", ceiling: Msat = CEILING, then=lambda paid: ()) -> Paid:
    return await stage.buyer.pay(op_id, stage.mint.url, text, ceiling, EFFECT, PERMIT, then)


def overpay(stage: Stage) -> None:
    """As if the wallet had no small coins: all of them go in, and most comes back."""
    real = stage.buyer._planner._affordable

    async def everything(book, amount):
        del amount
        return await real(book, 250)

    stage.buyer._planner._affordable = everything


def hash_of(paid: Paid) -> str:
    return hashlib.sha256(bytes.fromhex(paid.preimage)).hexdigest()


async def test_an_invoice_is_paid_once_and_the_change_comes_back(stage):
    text = bill(stage)
    paid = await pay(stage, text)
    assert stage.mint.paid == [hash_of(paid)]
    # 100 sat, 1 sat of routing, 1 sat for the inputs.
    assert (paid.gross, paid.amount, paid.fee) == (Msat.of_sat(102), Msat.of_sat(100), Msat.of_sat(2))
    assert await stage.live() == 255 - 102
    assert await pay(stage, text) == paid
    assert await pay(stage, f"LIGHTNING:{text.upper()}") == paid
    assert len(stage.mint.paid) == 1
    await clean(stage.buyer)
    journal = (await stage.buyer.audit()).mints[0].journal
    assert (journal["lightning"], journal["fees"]) == (100, 2)


async def test_fractions_of_a_sat_are_rounded_up_and_counted_as_a_fee(stage):
    paid = await pay(stage, bill(stage, 20_001))
    assert (paid.amount, paid.gross, paid.fee) == (Msat(20_001), Msat.of_sat(23), Msat(2_999))
    await clean(stage.buyer)


async def test_all_that_a_melt_needs_is_durable_before_it_is_sent(stage):
    seen = {}
    real = stage.mint.melt

    async def watching(quote_id, inputs, outputs, permit):
        seen["operation"] = await stage.buyer_db.select("operation", {"id": "pay"})
        seen["reserved"] = {row["y"] for row in await stage.buyer_db.select("proof", {"state": "reserved"})}
        seen["counter"] = (await stage.buyer_db.select("counter"))[0]["next"]
        seen["inputs"], seen["amounts"] = {coin.y for coin in inputs}, {output.amount for output in outputs}
        return await real(quote_id, inputs, outputs, permit)

    before = (await stage.buyer_db.select("counter"))[0]["next"]
    stage.mint.melt = watching
    await pay(stage, bill(stage))
    assert [row["state"] for row in seen["operation"]] == ["prepared"]
    assert seen["reserved"] == seen["inputs"]
    assert seen["counter"] > before
    assert seen["amounts"] == {0}


async def test_the_callers_rows_are_committed_with_the_payment(stage):
    def then(paid: Paid):
        return [Insert("meta", {"key": "paid", "value": str(paid.gross.value)})]

    paid = await pay(stage, bill(stage), then=then)
    assert (await stage.buyer_db.select("meta"))[0]["value"] == str(paid.gross.value)


@pytest.mark.parametrize(
    "text",
    [
        "lnbc1notaninvoice",
        "",
        payable(None, 1_800_000_000, "amountless"),
        payable(1_000, 1_800_000_000, "other network", currency="tb"),
        payable(1_000, 1_800_000_000 - 7_200, "expired"),
    ],
)
async def test_an_invoice_that_is_not_to_be_paid_is_refused_before_any_mint_is_asked(stage, text):
    stage.mint.calls.clear()
    with pytest.raises(InvoiceUnfit):
        await pay(stage, text)
    assert stage.mint.calls == []
    assert await stage.buyer.find("pay") is None


async def test_one_id_pays_one_invoice(stage):
    await pay(stage, bill(stage))
    with pytest.raises(OperationReused):
        await pay(stage, bill(stage, name="another"))
    assert len(stage.mint.paid) == 1


async def test_what_is_too_dear_or_cannot_be_afforded_begins_nothing(stage):
    with pytest.raises(TooDear):
        await pay(stage, bill(stage), ceiling=Msat.of_sat(102))
    with pytest.raises(InsufficientFunds):
        await pay(stage, bill(stage, 255_000), ceiling=Msat.of_sat(300))
    assert await stage.buyer.find("pay") is None
    assert stage.mint.paid == []
    assert await stage.live() == 255
    assert await pay(stage, bill(stage), ceiling=Msat.of_sat(103))


async def test_the_price_that_ranks_offers_is_never_below_what_is_paid(stage):
    for sat in (1, 7, 100):
        cost = stage.buyer.pay_cost(stage.mint.url, Msat.of_sat(sat))
        paid = await pay(stage, bill(stage, sat * 1000, f"bill {sat}"), f"pay {sat}", ceiling=cost)
        assert paid.gross.value <= cost.value


@pytest.mark.parametrize(
    "bent",
    [
        {"amount": 101},
        {"amount": 99},
        {"unit": "usd"},
        {"request": "lnbc1other"},
        {"state": MeltState.PAID},
        {"state": MeltState.PENDING},
        {"expiry": 1_800_000_000 - 1},
    ],
)
async def test_a_quote_that_does_not_fit_the_invoice_begins_nothing(stage, bent):
    real = stage.mint.request_melt

    async def request_melt(text, unit, permit) -> MeltQuote:
        return replace(await real(text, unit, permit), **bent)

    stage.mint.request_melt = request_melt
    with pytest.raises(MintRefused):
        await pay(stage, bill(stage))
    assert await stage.buyer.find("pay") is None
    assert await stage.live() == 255
    assert "melt" not in stage.mint.calls


@pytest.mark.parametrize("fault", [Fault.UNREACHABLE, Fault.BUSY, Fault.REQUEST_LOST, Fault.REFUSED])
async def test_without_a_quote_nothing_is_begun(stage, fault):
    stage.wire(fault, call="request_melt")
    with pytest.raises(MintRefused):
        await pay(stage, bill(stage))
    assert await stage.buyer.find("pay") is None


async def test_a_mints_limits_are_kept_to_before_it_is_asked(stage):
    stage.clock.seconds += 3_601
    stage.mint.limited = Limits({"sat": Limit(most=50)}, {"sat": Limit(least=10, most=50)})
    for msat in (51_000, 9_000):
        with pytest.raises(MintLimited):
            await pay(stage, bill(stage, msat, str(msat)))
    with pytest.raises(MintLimited):
        await stage.buyer.deposit("too much", stage.mint.url, 51, EFFECT, PERMIT)
    assert not {"request_melt", "request_quote"} & set(stage.mint.calls[-3:])
    assert await stage.buyer.find("pay") is None
    assert (await pay(stage, bill(stage, 50_000))).amount == Msat.of_sat(50)
    stage.clock.seconds += 3_601
    stage.mint.limited = Limits({}, {"sat": Limit(disabled=True)})
    with pytest.raises(MintLimited):
        await pay(stage, bill(stage, 1_000, "switched off"), "switched off")


async def test_a_mint_that_does_not_say_its_limits_is_asked_all_the_same(stage):
    async def limits() -> Limits:
        raise Unavailable

    stage.mint.limits = limits
    stage.clock.seconds += 3_601
    assert await pay(stage, bill(stage))


async def test_a_payment_that_fails_leaves_everything_where_it_was(stage):
    stage.mint.lightning = lambda _: Payment.FAILED
    with pytest.raises(MintRefused):
        await pay(stage, bill(stage))
    assert await stage.live() == 255
    # Final for this id: whoever tries again takes another one.
    stage.mint.lightning = lambda _: Payment.PAID
    with pytest.raises(MintRefused):
        await pay(stage, bill(stage))
    assert stage.mint.paid == []
    assert await pay(stage, bill(stage), "again")
    await clean(stage.buyer)


async def test_a_slow_payment_is_unknown_and_shown_as_pending_until_it_has_ended(stage):
    stage.mint.lightning = lambda _: Payment.SLOW
    with pytest.raises(PaymentUnknown):
        await pay(stage, bill(stage))
    view = await stage.buyer.find("pay")
    assert (view.kind, view.state, view.pending) == (Kind.MELT, State.UNKNOWN, True)
    audit = await stage.buyer.audit()
    assert (audit.differences, audit.open_operations, audit.pending_sat) == ((), 1, 100)
    for _ in range(2):
        with pytest.raises(PaymentUnknown):
            await pay(stage, bill(stage))
    stage.restart()
    await stage.buyer.recover()
    assert (await stage.buyer.find("pay")).pending
    stage.mint.lightning_ends()
    await stage.buyer.recover()
    view = await stage.buyer.find("pay")
    assert (view.state, view.pending) == (State.DONE, False)
    assert (await pay(stage, bill(stage))).gross == Msat.of_sat(102)
    assert stage.mint.calls.count("melt") == 1
    assert await stage.live() == 255 - 102
    await clean(stage.buyer)


async def test_a_slow_payment_that_fails_gives_the_coins_back(stage):
    stage.mint.lightning = lambda _: Payment.STUCK
    with pytest.raises(PaymentUnknown):
        await pay(stage, bill(stage))
    stage.mint.lightning_ends()
    with pytest.raises(MintRefused):
        await pay(stage, bill(stage))
    assert await stage.live() == 255
    assert stage.mint.paid == []
    await clean(stage.buyer)


@pytest.mark.parametrize(
    "fault", [Fault.ANSWER_LOST, Fault.FALSE_NO, Fault.SHORT, Fault.WRONG_AMOUNT, Fault.WRONG_DLEQ]
)
async def test_a_lost_or_falsified_answer_is_looked_up_and_the_change_is_found(stage, fault):
    stage.mint.script = _at("melt", fault)
    paid = await pay(stage, bill(stage))
    assert paid.gross == Msat.of_sat(102)
    assert len(stage.mint.paid) == 1
    await clean(stage.buyer)


def _at(call: str, *faults: Fault):
    left = list(faults)
    return lambda name: left.pop(0) if left and name == call else Fault.NONE


async def test_a_request_that_never_arrived_is_sent_again_as_it_was(stage):
    sent = []
    real = stage.mint.melt

    async def watching(quote_id, inputs, outputs, permit):
        sent.append((quote_id, tuple(inputs), tuple(outputs)))
        return await real(quote_id, inputs, outputs, permit)

    stage.mint.melt = watching
    stage.mint.script = _at("melt", Fault.REQUEST_LOST)
    assert (await pay(stage, bill(stage))).gross == Msat.of_sat(102)
    assert len(sent) == 2
    assert sent[0] == sent[1]
    assert stage.mint.calls.count("request_melt") == 1


async def test_while_a_request_may_still_arrive_a_refusal_of_another_copy_ends_nothing(stage):
    stage.mint.script = _at("melt", Fault.REQUEST_DELAYED, Fault.REFUSED)
    with pytest.raises(PaymentUnknown):
        await pay(stage, bill(stage))
    assert await stage.live() < 255
    stage.mint.deliver()
    await stage.buyer.recover()
    assert (await pay(stage, bill(stage))).gross == Msat.of_sat(102)
    assert len(stage.mint.paid) == 1
    await clean(stage.buyer)


async def test_once_the_invoice_has_ended_what_was_not_paid_is_given_back(stage):
    text = bill(stage)
    stage.mint.script = lambda name: Fault.REQUEST_LOST if name == "melt" else Fault.NONE
    with pytest.raises(PaymentUnknown):
        await pay(stage, text)
    await stage.buyer.recover()
    assert (await stage.buyer.find("pay")).state is State.UNKNOWN
    stage.clock.seconds += 3_600 + 601
    await stage.buyer.recover()
    assert (await stage.buyer.find("pay")).state is State.REFUSED
    with pytest.raises(MintRefused):
        await pay(stage, text)
    assert await stage.live() == 255
    await clean(stage.buyer)


async def test_no_connection_is_a_clear_no(stage):
    stage.mint.script = _at("melt", Fault.UNREACHABLE)
    with pytest.raises(MintRefused):
        await pay(stage, bill(stage))
    assert await stage.live() == 255
    await clean(stage.buyer)


async def test_change_that_a_mint_signs_twice_is_booked_once_and_the_payment_has_ended(stage, caplog):
    """Nutshell does so when it dies after signing it: what is left of the blank outputs is signed with it again."""
    stage.mint.lie = Lie.CHANGE_TWICE
    overpay(stage)
    paid = await pay(stage, bill(stage))
    assert paid.preimage
    assert (await stage.buyer.find("pay")).state is State.DONE
    assert "change_surplus" in [getattr(record, "action", "") for record in caplog.records]
    assert await stage.live() == 255 - paid.gross.value // 1_000
    assert (await stage.buyer.audit()).clean


@pytest.mark.parametrize("lie", [Lie.WRONG_PREIMAGE, Lie.NO_PREIMAGE, Lie.TOO_MUCH_CHANGE])
async def test_a_payment_that_the_mint_does_not_prove_stays_unknown(stage, lie):
    stage.mint.lie, text = lie, bill(stage)
    for _ in range(2):
        with pytest.raises(PaymentUnknown):
            await pay(stage, text)
    if lie is not Lie.NO_PREIMAGE:  # none at all is waited for until the invoice has ended: see below
        stage.clock.seconds += 90_000
    await stage.buyer.recover()
    assert (await stage.buyer.find("pay")).state is State.UNKNOWN
    assert (await stage.buyer.audit()).clean
    if lie is not Lie.TOO_MUCH_CHANGE:
        stage.mint.lie = Lie.NONE
        await stage.buyer.recover()
        assert (await pay(stage, text)).preimage
        await clean(stage.buyer)


async def test_an_invoice_of_the_same_mint_has_no_receipt(stage):
    stage.mint.reserve = lambda amount: 0
    stage.mint.route_fee = 0
    stage.mint.lie = Lie.NO_PREIMAGE
    paid = await pay(stage, bill(stage))
    assert (paid.preimage, paid.gross) == ("", Msat.of_sat(101))
    await clean(stage.buyer)


async def test_change_that_a_mint_keeps_is_a_fee_up_to_its_reserve_and_a_loss_above(stage, caplog):
    stage.mint.lie = Lie.NO_CHANGE
    overpay(stage)
    text = bill(stage)
    for wait in (500, 101):  # a mint that signs change in a second step has done so by then
        with pytest.raises(PaymentUnknown):
            await pay(stage, text, ceiling=Msat.of_sat(103))
        stage.clock.seconds += wait
    paid = await pay(stage, text, ceiling=Msat.of_sat(103))
    assert paid.gross.value == Msat.of_sat(255 - await stage.live()).value > Msat.of_sat(200).value
    journal = (await stage.buyer.audit()).mints[0].journal
    assert journal["lightning"] == 100
    assert journal["fees"] == 3
    assert journal["lost"] > 100
    assert "change_withheld" in [getattr(record, "action", "") for record in caplog.records]
    await clean(stage.buyer)


async def test_inputs_that_are_gone_and_an_invoice_that_is_called_unpaid_are_for_somebody_to_look_at(stage):
    stage.mint.script = _at("melt", Fault.REQUEST_LOST, Fault.REQUEST_LOST)
    with pytest.raises(PaymentUnknown):
        await pay(stage, bill(stage))
    for row in await stage.buyer_db.select("proof", {"state": "reserved"}):
        stage.mint.spent[row["y"]] = (row["amount"], None)
    stage.clock.seconds += 90_000
    await stage.buyer.recover()
    view = await stage.buyer.find("pay")
    assert (view.state, view.reason) == (State.UNKNOWN, "disputed")


async def test_what_an_old_copy_had_begun_is_only_looked_up(stage):
    stage.mint.script = _at("melt", Fault.REQUEST_LOST, Fault.REQUEST_LOST)
    with pytest.raises(PaymentUnknown):
        await pay(stage, bill(stage))
    stage.mint.calls.clear()
    stage.restart()
    await stage.buyer.mark_copied()
    await stage.buyer.recover()
    assert "melt" not in stage.mint.calls
    assert (await stage.buyer.find("pay")).state is State.REFUSED
    assert await stage.live() == 255
    await clean(stage.buyer)


async def test_what_an_old_copy_had_begun_and_was_paid_is_booked(stage):
    stage.mint.script = _at("melt", Fault.REQUEST_DELAYED, Fault.REQUEST_LOST)
    with pytest.raises(PaymentUnknown):
        await pay(stage, bill(stage))
    stage.mint.deliver()
    stage.restart()
    await stage.buyer.mark_copied()
    await stage.buyer.recover()
    assert (await stage.buyer.find("pay")).state is State.DONE
    assert await stage.live() == 255 - 102
    await clean(stage.buyer)


async def test_nothing_secret_of_a_payment_is_in_a_log_or_a_repr(stage, caplog):
    caplog.set_level(0)
    stage.mint.script = _at("melt", Fault.ANSWER_LOST)
    text = bill(stage)
    paid = await pay(stage, text)
    logged = "\n".join(record.getMessage() + repr(record.__dict__) for record in caplog.records)
    rows = "".join([repr(await stage.buyer_db.select(table)) for table in ("operation", "proof", "posting")])
    for held in (logged, rows, repr(paid), repr(await stage.buyer.find("pay"))):
        assert paid.preimage not in held
        assert text not in held


# ---------------------------------------------------------------------- change and receipts that come late or never


@pytest.mark.parametrize("how", [Payment.PAID, Payment.SLOW])
async def test_change_that_is_signed_in_a_second_step_is_not_lost(stage, how):
    stage.mint.lie, stage.mint.lightning = Lie.LATE_CHANGE, lambda _: how
    overpay(stage)
    text = bill(stage)
    with pytest.raises(PaymentUnknown):
        await pay(stage, text)
    stage.clock.seconds += 3_000 if how is Payment.SLOW else 0  # counted from when it was paid
    stage.mint.lightning_ends()
    for _ in range(3):
        await stage.buyer.recover()
        stage.clock.seconds += 100
    assert (await stage.buyer.find("pay")).state is State.UNKNOWN
    stage.mint.sign_change()
    paid = await pay(stage, text)
    assert paid.gross == Msat.of_sat(102)
    assert (await stage.buyer.audit()).mints[0].journal.get("lost", 0) == 0
    assert await stage.live() == 255 - 102
    await clean(stage.buyer)


async def test_a_receipt_that_never_comes_is_waited_for_until_the_invoice_has_ended(stage):
    """As at a mint that settles an invoice of its own, and had named a fee reserve for it."""
    stage.mint.lie, text = Lie.NO_PREIMAGE, bill(stage)
    with pytest.raises(PaymentUnknown):
        await pay(stage, text)
    stage.clock.seconds += 3_600
    await stage.buyer.recover()
    assert (await stage.buyer.find("pay")).state is State.UNKNOWN
    stage.clock.seconds += 601
    await stage.buyer.recover()
    paid = await pay(stage, text)
    assert (paid.preimage, paid.gross) == ("", Msat.of_sat(102))
    await clean(stage.buyer)


# ---------------------------------------------------------------------- one invoice, one payment


async def test_an_invoice_that_an_operation_may_have_paid_is_not_paid_by_another_one(stage):
    stage.mint.lightning, text = lambda _: Payment.SLOW, bill(stage)
    with pytest.raises(PaymentUnknown):
        await pay(stage, text)
    hash_ = payable_invoice(text, stage.clock.now()).payment_hash
    assert await stage.buyer.pays(hash_) == "pay"
    other = ModelMint("https://other.test", clock=stage.clock)
    stage.buyer = make_wallet(BUYER_WORDS, [stage.mint, other], stage.clock, stage.buyer_db)
    await stage.buyer.deposit("more", other.url, 255, EFFECT, PERMIT)
    assert (await stage.buyer.poll("more")).state is State.DONE
    with pytest.raises(InvoiceKnown):
        await stage.buyer.pay("again", other.url, text, CEILING, EFFECT, PERMIT)
    assert not {"request_melt", "melt"} & set(other.calls)
    assert await stage.buyer.find("again") is None
    stage.mint.lightning_ends()
    await stage.buyer.recover()
    with pytest.raises(InvoiceKnown):
        await stage.buyer.pay("again", other.url, text, CEILING, EFFECT, PERMIT)
    assert other.paid == []


async def test_two_at_the_same_time_pay_one_invoice_once(stage):
    other = ModelMint("https://other.test", clock=stage.clock)
    stage.buyer = make_wallet(BUYER_WORDS, [stage.mint, other], stage.clock, stage.buyer_db)
    await stage.buyer.deposit("more", other.url, 255, EFFECT, PERMIT)
    assert (await stage.buyer.poll("more")).state is State.DONE
    text = bill(stage)
    results = await asyncio.gather(
        *(stage.buyer.pay(f"at {url}", url, text, CEILING, EFFECT, PERMIT) for url in (stage.mint.url, other.url)),
        return_exceptions=True,
    )
    assert sorted(type(result).__name__ for result in results) == ["InvoiceKnown", "Paid"]
    assert len(stage.mint.paid) + len(other.paid) == 1


async def test_an_invoice_that_was_refused_may_be_paid_in_another_way(stage):
    stage.mint.lightning, text = lambda _: Payment.FAILED, bill(stage)
    with pytest.raises(MintRefused):
        await pay(stage, text)
    assert await stage.buyer.pays(payable_invoice(text, stage.clock.now()).payment_hash) is None
    stage.mint.lightning = lambda _: Payment.PAID
    assert await pay(stage, text, "again")


async def test_the_payee_cannot_bind_our_coins_for_months(stage):
    stage.mint.calls.clear()
    with pytest.raises(InvoiceUnfit):
        await pay(stage, bill(stage, expiry=9 * 86_400))
    assert stage.mint.calls == []
    assert await pay(stage, bill(stage, name="a week", expiry=7 * 86_400), "week")


async def test_what_leaving_a_mint_that_is_trusted_no_more_costs_can_be_asked(stage):
    stage.buyer = make_wallet(BUYER_WORDS, [], stage.clock, stage.buyer_db, retired=[stage.mint])
    await stage.buyer.recover()
    cost = stage.buyer.pay_cost(stage.mint.url, Msat.of_sat(100))
    assert await pay(stage, bill(stage), ceiling=cost)


async def test_a_payment_that_was_called_too_fast_and_forwarded_all_the_same_is_found(stage):
    real = stage.mint.melt

    async def busy(quote_id, inputs, outputs, permit):
        await real(quote_id, inputs, outputs, permit)
        raise MintBusy

    stage.mint.melt, text = busy, bill(stage)
    assert (await pay(stage, text)).gross == Msat.of_sat(102)
    assert len(stage.mint.paid) == 1
    await clean(stage.buyer)


def wind_down(stage: Stage) -> None:
    """No keyset of the mint takes new outputs from now on; their coins still pay."""
    stage.mint._infos = {id_: replace(one, active=False) for id_, one in stage.mint._infos.items()}


async def test_a_mint_that_winds_down_is_paid_from_to_the_exact_sum(stage):
    wind_down(stage)
    await stage.buyer._teller.book(stage.mint.url, "sat").refresh()
    paid = await pay(stage, bill(stage))
    assert (paid.amount, await stage.live()) == (Msat.of_sat(100), 255 - paid.gross.sat_up())
    assert paid.gross == Msat.of_sat(103), "amount, the whole fee reserve, and the inputs' fee"
    await clean(stage.buyer)


async def test_a_mint_that_winds_down_is_given_no_coin_that_is_too_large(stage):
    overpay(stage)
    wind_down(stage)
    await stage.buyer._teller.book(stage.mint.url, "sat").refresh()
    with pytest.raises(MintRefused, match="exact sum"):
        await pay(stage, bill(stage))
    assert (await stage.live(), stage.mint.paid) == (255, [])
    await clean(stage.buyer)
