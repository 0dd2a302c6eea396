"""Lightning over NWC at a wallet written on other people's types, on a real relay: what is paid, and what lies."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytest_asyncio
from bolt11 import decode

from core.clock import SystemClock
from core.effect import Permit
from core.error import Unpermitted
from core.identifier import EffectId, PubKey
from relays.embedded.access import Access
from relays.key import Key
from tests.integration.relays.embedded.relay_part import running
from tests.integration.wallet.lightning_part import CLOCK, Desk, desk
from tests.nwc_part import METHODS, Ledger, WalletService, serving
from wallet import lightning_engine
from wallet.error import PaymentUnknown
from wallet.journal import Account, balances
from wallet.lightning import LATE_S, LightningLimits, Stage
from wallet.lightning_error import (
    InvoiceKnown,
    InvoiceUnpayable,
    LightningFailed,
    LightningLimit,
    WalletLacks,
    WalletUnreachable,
)
from wallet.nwc import NwcClient


@dataclass
class Part:
    """A wallet on a relay, and a driver that knows its address."""

    ledger: Ledger
    service: WalletService
    desk: Desk
    path: Path

    async def pay(self, key: str = "k", invoice: str | None = None, msat: int = 21_000) -> str:
        """Pay an invoice of somebody else; its payment hash."""
        text = self.ledger.foreign(msat) if invoice is None else invoice
        await self.desk.lightning.pay(f"op-{key}", text, *await self.desk.begin(key))
        return str(decode(text).payment_hash)

    async def stage(self, key: str) -> str:
        view = await self.desk.lightning.find(f"op-{key}")
        return "" if view is None else str(view.stage)

    async def held(self) -> int:
        """What the journal says that we have put in and taken out."""
        name = self.desk.lightning.name
        return balances(await self.desk.book.posted(name)).get((name, "msat"), {}).get(Account.WALLET, 0)


@asynccontextmanager
async def town(path: Path, ledger: Ledger, **more: Access) -> AsyncIterator[Part]:
    """A relay, a wallet on it, and a driver that knows its address; `more` goes to the relay."""
    async with AsyncExitStack() as stack:
        relay = await stack.enter_async_context(running(path / "relay.db", **more))
        service = await stack.enter_async_context(serving(relay.url, ledger))
        yield Part(ledger, service, await stack.enter_async_context(desk(path / "node.db", service.uri)), path)


@pytest_asyncio.fixture
async def part(tmp_path: Path) -> AsyncIterator[Part]:
    async with town(tmp_path, Ledger(time.time)) as made:
        yield made


async def test_an_invoice_is_paid_once_and_booked_with_its_fee(part: Part) -> None:
    invoice = part.ledger.foreign(21_000)
    effect = await part.desk.begin("k")
    for _ in range(2):
        view = await part.desk.lightning.pay("op-k", invoice, *effect)
    assert (view.stage, view.amount, view.fee) == (Stage.PAID, 21_000, 1_000)
    assert part.ledger.tried.total() == 1
    assert await part.held() == -22_000
    with pytest.raises(InvoiceKnown):
        await part.pay("other", invoice)
    audit = await part.desk.lightning.audit()
    assert (audit.differences, audit.paid, audit.fees, audit.open) == ((), 21_000, 1_000, 0)
    assert audit.balance == part.ledger.balance


async def test_a_wallet_that_knows_nothing_newer_is_spoken_to_after_nip_04(tmp_path: Path) -> None:
    ledger = Ledger(time.time)
    ledger.knobs.legacy = True
    async with town(tmp_path, ledger) as part:
        payment_hash = await part.pay()
        assert ledger.paid[payment_hash] == 1
        assert await part.desk.lightning.balance() == ledger.balance


async def test_an_invoice_of_ours_is_booked_once_when_it_is_paid(part: Part) -> None:
    view = await part.desk.lightning.invoice("in", 5_000, "tea", *await part.desk.begin("in"))
    again = await part.desk.lightning.invoice("in", 5_000, "tea", *await part.desk.begin("in2"))
    assert (view.stage, again.invoice) == (Stage.WAITING, view.invoice)
    assert (await part.desk.lightning.poll("in")).stage is Stage.WAITING
    part.ledger.receive(view.invoice)
    await part.desk.until("in", "paid")
    await part.desk.lightning.poll("in")
    assert await part.held() == 5_000
    assert (await part.desk.lightning.audit()).differences == ()


async def test_word_of_the_wallet_makes_an_invoice_known_at_once(part: Part) -> None:
    view = await part.desk.lightning.invoice("in", 5_000, "", *await part.desk.begin("in"))
    ready, stop = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(part.desk.lightning.run(ready, stop))
    part.ledger.receive(view.invoice)
    async with asyncio.timeout(60):
        while (await part.desk.lightning.find("in")).stage is not Stage.PAID:
            await asyncio.sleep(0.05)
    stop.set()
    await task
    assert await part.held() == 5_000


@pytest.mark.parametrize("code", ["INSUFFICIENT_BALANCE", "QUOTA_EXCEEDED", "RESTRICTED", "UNAUTHORIZED"])
async def test_what_is_turned_away_fails_and_is_never_asked_again(part: Part, code: str) -> None:
    part.ledger.knobs.refuse = code
    with pytest.raises(LightningFailed) as caught:
        await part.pay()
    assert code in str(caught.value)
    assert part.service.asked.count("pay_invoice") == 1
    assert await part.held() == 0
    part.ledger.knobs.refuse = ""
    assert (await part.desk.lightning.status())["used_msat"] == 0
    assert (await part.desk.lightning.audit()).differences == ()


async def test_a_rate_limit_is_no_answer_and_the_same_request_goes_out_again(part: Part) -> None:
    part.ledger.knobs.refuse = "RATE_LIMITED"
    with pytest.raises(PaymentUnknown):
        await part.pay("k")
    part.ledger.knobs.refuse = ""
    part.service.restart()  # as wallets do that do not remember what they turned away so
    await part.desk.until("op-k", "paid")
    assert len([id_ for id_, times in part.service.ids.items() if times > 1]) == 1
    assert part.ledger.tried.total() == 1


async def test_a_lost_answer_is_unknown_until_it_is_looked_up(part: Part) -> None:
    part.ledger.knobs.drop = {"pay_invoice", "lookup_invoice"}
    monkey = pytest.MonkeyPatch()
    monkey.setattr(lightning_engine, "PAY_S", 0.5)
    monkey.setattr("wallet.nwc.ASK_S", 0.5)
    try:
        with pytest.raises(PaymentUnknown):
            await part.pay()
    finally:
        monkey.undo()
    assert await part.stage("k") == "unknown"
    assert (await part.desk.lightning.status())["used_msat"] == 23_000  # all that may have left
    part.ledger.knobs.drop = set()
    await part.desk.until("op-k", "paid")
    assert part.ledger.tried.total() == 1
    assert await part.held() == -22_000


async def test_a_wallet_that_says_failed_and_pays_is_not_believed(part: Part) -> None:
    part.ledger.knobs.lie = 2.0
    with pytest.raises(PaymentUnknown):
        await part.pay()
    await part.desk.until("op-k", "paid", "failed")
    assert await part.stage("k") == "paid"
    assert await part.held() == -22_000


async def test_a_preimage_that_does_not_fit_is_no_proof(part: Part) -> None:
    part.ledger.knobs.wrong_preimage = True
    await part.pay()  # the look-up had the right one
    assert await part.stage("k") == "paid"
    view = await part.desk.lightning.find("op-k")
    assert view is not None
    assert view.preimage == part.ledger.preimages[view.payment_hash]


async def test_a_wallet_that_shows_no_proof_at_all_leaves_the_payment_unknown(part: Part) -> None:
    part.ledger.knobs.wrong_preimage = True
    part.ledger.settled = lambda _, entry: setattr(entry, "preimage", "")
    with pytest.raises(PaymentUnknown):
        await part.pay()
    view = await part.desk.lightning.poll("op-k")
    assert view is not None
    assert (view.stage, view.reason) == (Stage.UNKNOWN, "unproven")
    assert await part.held() == 0


async def test_a_stranger_s_answer_is_not_heard_and_a_second_one_changes_nothing(part: Part) -> None:
    part.ledger.knobs.stranger = part.ledger.knobs.duplicate = True
    payment_hash = await part.pay()
    assert part.ledger.paid[payment_hash] == 1
    assert await part.desk.lightning.balance() == part.ledger.balance
    assert await part.held() == -22_000


async def test_a_fee_that_the_answer_does_not_tell_is_asked_for(part: Part) -> None:
    part.ledger.knobs.no_fee, part.ledger.knobs.fee = True, 1_500
    await part.pay()
    assert await part.held() == -22_500


async def test_a_fee_above_what_is_allowed_is_booked_and_named(part: Part) -> None:
    part.ledger.knobs.fee = 9_000
    await part.pay()
    assert await part.held() == -30_000
    assert any("above" in text for text in (await part.desk.lightning.audit()).differences)


async def test_limits_count_everything_that_may_have_left(part: Part) -> None:
    with pytest.raises(LightningLimit):
        await part.pay("dear", msat=1_000_001)
    part.desk.lightning.limits = LightningLimits(1_000_000, 50_000, 2_000, 0)
    part.ledger.knobs.hold = 3_600.0  # under way for long
    with pytest.raises(PaymentUnknown):
        await part.pay("one", msat=30_000)
    with pytest.raises(LightningLimit):
        await part.pay("two", msat=20_000)
    assert part.ledger.tried.total() == 1
    assert (await part.desk.lightning.status())["used_msat"] == 32_000


async def test_two_at_once_do_not_pass_the_limit_together(part: Part) -> None:
    part.desk.lightning.limits = LightningLimits(1_000_000, 50_000, 2_000, 0)
    tried = await asyncio.gather(*(part.pay(f"k{n}", msat=30_000) for n in range(4)), return_exceptions=True)
    assert sum(isinstance(one, str) for one in tried) == 1
    assert part.ledger.tried.total() == 1


@pytest.mark.parametrize(
    "more", [{"expiry_s": 5}, {"expiry_s": 8 * 86_400}, {"blocks": 145}, {"currency": "tb"}, {"msat": None}]
)
async def test_an_invoice_that_cannot_be_paid_from_here_is_refused_before_anything(part: Part, more: dict) -> None:
    invoice = part.ledger.foreign(**more)
    with pytest.raises(InvoiceUnpayable):
        await part.pay("k", invoice)
    with pytest.raises(InvoiceUnpayable):
        await part.pay("k", invoice[:-7] + "qqqqqqq")
    assert part.service.asked == []
    assert await part.desk.book.all() == []


async def test_nothing_leaves_without_the_gate_s_permit(part: Part) -> None:
    with pytest.raises(Unpermitted):
        await part.desk.lightning.pay("op-k", part.ledger.foreign(), EffectId("none"), Permit(EffectId("none")))
    assert part.service.asked == []
    assert await part.desk.book.all() == []


async def test_a_wallet_that_cannot_look_up_is_not_paid_from(tmp_path: Path) -> None:
    ledger = Ledger(time.time)
    ledger.knobs.methods = "pay_invoice get_balance"
    async with town(tmp_path, ledger) as part:
        with pytest.raises(WalletLacks):
            await part.pay()


async def test_a_relay_that_is_away_begins_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wallet.nwc.UP_S", 0.3)
    ledger = Ledger(time.time)
    async with running(tmp_path / "relay.db") as relay, serving(relay.url, ledger) as service:
        uri = service.uri
    async with desk(tmp_path / "node.db", uri) as made:
        with pytest.raises(WalletUnreachable):
            await Part(ledger, service, made, tmp_path).pay()
        assert await made.book.all() == []


async def test_at_a_relay_that_wants_to_know_the_connection_s_own_key_proves_itself(tmp_path: Path) -> None:
    ledger = Ledger(time.time)
    guarded = Access(read_by="auth", auth_to_write=True)
    async with town(tmp_path, ledger, access=guarded) as part:
        payment_hash = await part.pay()
        assert ledger.paid[payment_hash] == 1
        assert [one.authenticated for one in part.desk.pool.health()] == [1]


async def test_what_is_in_doubt_at_another_wallet_is_not_judged_by_this_one(part: Part) -> None:
    part.ledger.knobs.hold = 3_600.0
    with pytest.raises(PaymentUnknown):
        await part.pay()
    other = Ledger(time.time)
    async with serving(part.service.url, other) as service:
        part.desk.client._address = type(part.desk.client._address)(  # as after a new nwc_file
            service.pubkey, part.desk.client._address.relays, part.desk.client._address.key
        )
        view = await part.desk.lightning.poll("op-k")
        assert view is not None
        assert view.stage is Stage.UNKNOWN


async def _in_doubt(part: Part, key: str) -> None:
    """A payment that was made, and whose answer is lost."""
    part.ledger.knobs.drop = {"pay_invoice"}
    monkey = pytest.MonkeyPatch()
    monkey.setattr(lightning_engine, "PAY_S", 0.5)
    try:
        with pytest.raises(PaymentUnknown):
            await part.pay(key)
    finally:
        monkey.undo()
    part.ledger.knobs.drop = set()


class _Later(SystemClock):
    """Long after an invoice has expired."""

    def now(self) -> int:
        return super().now() + 3_600 + 2 * LATE_S


async def test_a_wallet_whose_look_ups_find_invoices_alone_is_not_believed_to_have_paid_nothing(tmp_path: Path) -> None:
    ledger = Ledger(time.time)
    ledger.knobs.blind, ledger.knobs.methods = True, METHODS.replace("list_transactions", "")
    async with town(tmp_path, ledger) as part:
        await part.pay("proven")  # by its own answer, and its look-up finds nothing of it
        await _in_doubt(part, "k")
        part.desk.lightning._engine._clock = _Later()
        await part.desk.lightning.poll("op-k")
        assert await part.stage("k") == "unknown"
        assert ledger.paid.total() == 2


async def test_such_a_wallet_s_list_shows_what_its_look_up_does_not(
    part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    part.ledger.knobs.blind, part.ledger.knobs.drop = True, {"pay_invoice"}
    monkeypatch.setattr(lightning_engine, "PAY_S", 0.5)
    await part.pay()
    assert await part.stage("k") == "paid"
    assert await part.held() == -22_000


async def test_a_wallet_whose_look_up_has_found_a_payment_is_believed_to_know_of_none(part: Part) -> None:
    await part.pay("proven")
    part.ledger.knobs.deaf = {"pay_invoice"}
    await _in_doubt(part, "k")
    part.desk.lightning._engine._clock = _Later()
    await part.desk.lightning.poll("op-k")
    assert await part.stage("k") == "failed"
    assert part.ledger.paid.total() == 1


async def test_two_accounts_at_one_service_have_names_of_their_own(part: Part) -> None:
    address = part.desk.client._address
    other = NwcClient(replace(address, key=Key(b"\x07" * 32)), part.desk.pool, CLOCK)
    assert other.name != part.desk.client.name
    assert NwcClient(address, part.desk.pool, CLOCK).name == part.desk.client.name
    assert part.desk.client.name.startswith("nwc:")


async def test_what_another_wallet_called_failed_is_not_booked_at_this_one(part: Part) -> None:
    part.ledger.knobs.refuse = "QUOTA_EXCEEDED"
    with pytest.raises(LightningFailed):
        await part.pay()
    (order,) = await part.desk.book.all()
    part.ledger.knobs.refuse = ""
    address = part.desk.client._address
    part.desk.client._address = replace(address, key=Key(b"\x07" * 32))
    try:
        assert part.desk.client.name != order.wallet
        await part.desk.lightning._keeper._lied(order.payment_hash)
    finally:
        part.desk.client._address = address
    part.ledger._pay(order.invoice, "")  # it lied, and its own connection says so
    part.desk.client._address = replace(address, wallet=PubKey("ff" * 32))
    await part.desk.lightning._keeper._lied(order.payment_hash)
    assert await part.stage("k") == "failed"
    part.desk.client._address = address
    await part.desk.lightning._keeper._lied(order.payment_hash)
    assert await part.stage("k") == "paid"
