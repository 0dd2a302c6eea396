"""A deposit that is paid from the Lightning wallet: two operations in one chain, whatever ends between them."""

import hashlib
import os
from dataclasses import dataclass, field, replace

import pytest
from bolt11 import decode

from core.error import VendoError
from node.storage.memory import MemoryDatabase
from relays.key import Keyring
from tests import model_mint
from tests.model_mint import ModelMint
from tests.model_nwc import Crash, Fault, ModelClient
from tests.nwc_part import Ledger, bolt11_invoice
from tests.wallet_part import BUYER_WORDS, EFFECT, PERMIT, HandClock, allow, make_wallet
from wallet.funding import Funding, payment_of
from wallet.journal import Account, balances
from wallet.lightning import LATE_S, LightningLimits, Stage
from wallet.lightning_error import InvoiceUnpayable, LightningFailed, WalletUnreachable
from wallet.lightning_record import LightningBook, LightningView
from wallet.lightning_wallet import Lightning
from wallet.payment import State
from wallet.record import Vault

LIMITS = LightningLimits(10_000_000, 50_000_000, 2_000, 10_000)


@dataclass
class Town:
    """A mint whose invoices the Lightning wallet can pay, and a node that may die."""

    clock: HandClock = field(default_factory=HandClock)

    def __post_init__(self) -> None:
        self.ledger = Ledger(lambda: self.clock.seconds)
        self.mint = ModelMint(clock=self.clock)
        self.mint.auto_pay = False
        self.client = ModelClient(self.ledger, self.clock)
        self.ledger.settled = self._paid
        self.quotes: dict[str, str] = {}
        self.db = MemoryDatabase(clock=self.clock)
        self.restart()

    def invoice(self, msat: int, now: int, quote: str) -> str:
        preimage = os.urandom(32)
        payment_hash = hashlib.sha256(preimage).hexdigest()
        self.ledger.preimages[payment_hash] = preimage.hex()
        self.quotes[payment_hash] = quote
        return bolt11_invoice(preimage, msat, now)

    def _paid(self, payment_hash: str, _: object) -> None:
        self.mint.pay(self.quotes[payment_hash])

    def restart(self) -> None:
        self.db.crash_after = None
        self.wallet = make_wallet(BUYER_WORDS, [self.mint], self.clock, self.db)
        self.book = LightningBook(self.db, Vault(Keyring(BUYER_WORDS).derive("seal")), self.clock)
        self.lightning = Lightning(
            self.db, self.book, self.clock, self.client, allow,
            permit_for=lambda _: PERMIT, standing=lambda: PERMIT, limits=LIMITS,
        )  # fmt: skip
        self.funding = Funding(self.db, self.wallet, self.book, self.clock, self.lightning, lambda _: PERMIT)

    def die_after(self, commits: int) -> None:
        left = commits

        def count(_: int) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise Crash

        self.db.crash_after = count

    async def deposit(self) -> LightningView:
        made = await self.wallet.deposit("d", self.mint.url, 100, EFFECT, PERMIT, lightning=True)
        return await self.funding.fund(made, EFFECT, PERMIT)

    async def settle(self) -> None:
        for _ in range(4):
            await self.wallet.recover()
            await self.funding.look()
            await self.lightning.look()
            await self.wallet.poll("d")
            self.clock.seconds += 61

    async def is_whole(self) -> None:
        """The coins are there, paid for once, and both books agree."""
        assert (await self.wallet.balance())[0].live == 100
        assert (self.ledger.tried.total(), self.ledger.paid.total()) == (1, 1)
        assert (await self.wallet.audit()).differences == ()
        assert (await self.lightning.audit()).differences == ()
        accounts = balances(await self.book.posted("nwc:model"))["nwc:model", "msat"]
        assert (accounts[Account.WALLET], accounts[Account.WITHDRAWALS]) == (-101_000, 100_000)
        view = await self.funding.find("d")
        assert view is not None
        assert view.state is State.DONE


@pytest.fixture
def town(monkeypatch: pytest.MonkeyPatch) -> Town:
    made = Town()
    monkeypatch.setattr(model_mint, "invoice", made.invoice)
    return made


async def test_the_invoice_of_a_mint_is_paid_and_the_coins_come(town: Town) -> None:
    assert (await town.deposit()).stage is Stage.PAID
    await town.settle()
    await town.is_whole()


@pytest.mark.parametrize("commits", range(1, 6))
async def test_whatever_ends_between_the_steps_it_goes_on_and_is_paid_once(town: Town, commits: int) -> None:
    town.die_after(commits)
    try:
        await town.deposit()
        await town.wallet.poll("d")
    except Crash:
        pass
    town.restart()
    await town.settle()
    await town.is_whole()


async def test_a_deposit_that_was_to_be_paid_by_hand_is_left_alone(town: Town) -> None:
    await town.wallet.deposit("d", town.mint.url, 100, EFFECT, PERMIT)
    await town.settle()
    assert town.ledger.tried.total() == 0


async def test_a_payment_that_failed_leaves_the_invoice_for_somebody_else(town: Town) -> None:
    town.client.script = [Fault.TURNED_AWAY]
    with pytest.raises(LightningFailed):
        await town.deposit()
    town.restart()
    await town.settle()
    assert town.ledger.tried.total() == 0
    order = await town.book.find(payment_of("d"))
    assert order is not None
    town.mint.pay(town.quotes[decode(order.invoice).payment_hash])
    await town.settle()
    assert (await town.wallet.balance())[0].live == 100


async def test_a_wallet_that_is_away_is_paid_from_when_it_is_back(town: Town) -> None:
    real = town.client.ready

    async def away(*_: object) -> None:
        raise WalletUnreachable

    town.client.ready = away
    with pytest.raises(WalletUnreachable):
        await town.deposit()
    town.client.ready = real
    await town.settle()
    await town.is_whole()


async def test_a_deposit_has_not_failed_while_its_payment_may_have_left(town: Town) -> None:
    await town.db.commit([town.book.showed("nwc:model")])
    town.client.script = [Fault.REQUEST_LOST, Fault.ANSWER_LOST]
    with pytest.raises(VendoError):
        await town.deposit()
    stored = await town.wallet._purse.find("d")
    assert stored is not None
    town.clock.seconds += 9 * 86_400
    await town.wallet.poll("d")
    view = await town.funding.find("d")
    assert view is not None
    assert view.state is State.UNKNOWN
    town.clock.seconds += LATE_S
    await town.lightning.look()
    view = await town.funding.find("d")
    assert view is not None
    assert view.state is State.REFUSED


async def test_nothing_is_paid_once_the_mint_s_quote_has_ended_or_nearly_so(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    quote = town.mint.request_quote

    async def short(*args: object) -> object:
        return replace(await quote(*args), expiry=town.clock.now() + 200)

    monkeypatch.setattr(town.mint, "request_quote", short)
    made = await town.wallet.deposit("d", town.mint.url, 100, EFFECT, PERMIT, lightning=True)
    assert made.pay_until == town.clock.now() + 200 < made.expires_at
    town.clock.seconds += 150
    with pytest.raises(InvoiceUnpayable):
        await town.funding.fund(made, EFFECT, PERMIT)
    town.restart()
    await town.funding.look()
    assert town.ledger.tried.total() == 0
    assert await town.book.all() == []


async def test_the_request_ends_a_minute_before_the_mint_s_quote(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    quote = town.mint.request_quote

    async def short(*args: object) -> object:
        return replace(await quote(*args), expiry=town.clock.now() + 200)

    monkeypatch.setattr(town.mint, "request_quote", short)
    await town.deposit()
    order = await town.book.find(payment_of("d"))
    assert order is not None
    assert order.payment.until == town.clock.now() + 140


async def test_no_money_goes_to_a_mint_that_was_taken_off_the_list(town: Town) -> None:
    await town.wallet.deposit("d", town.mint.url, 100, EFFECT, PERMIT, lightning=True)
    town.restart()
    for book in town.wallet._books.values():
        book.roll.retired = True
    await town.funding.look()
    assert town.ledger.tried.total() == 0


async def test_what_was_being_paid_when_a_copy_was_made_is_looked_up_and_never_sent(town: Town) -> None:
    town.die_after(2)
    with pytest.raises(Crash):
        await town.deposit()
    town.restart()
    assert await town.funding.adopt_copy() == 1
    await town.settle()
    assert town.ledger.tried.total() == 0
    assert (await town.book.find(payment_of("d"))).payment.stage is Stage.UNKNOWN


async def test_without_a_wallet_what_was_begun_is_found_all_the_same(town: Town) -> None:
    await town.deposit()
    alone = Funding(town.db, town.wallet, town.book, town.clock, None, lambda _: PERMIT)
    await alone.look()
    assert (await alone.find(payment_of("d"))).state is State.DONE
    assert await alone.find("nothing") is None
