"""What the wallet relies on in any mint: the model mint and a real nutshell pass the same suite."""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from hashlib import sha256

import aiohttp
import pytest
from bolt11 import decode

from core.clock import SystemClock
from relays.key import Keyring
from tests.lightning_part import FAILED, PENDING, SETTLED, lightning_mint
from tests.model_mint import ModelMint, Payment, payable
from tests.wallet_part import BUYER_WORDS, PERMIT, allow
from wallet.cashu.derive import Derivation
from wallet.cashu.keyset import Keyset, checked
from wallet.cashu.lock import Lock
from wallet.cashu.mint import MintClient
from wallet.cashu.port import CoinState, MeltState, Mint, QuoteState
from wallet.cashu.proof import Output, Proof
from wallet.cashu.select import split
from wallet.cashu.signature import quote_signature, unblind, was_signed, witness
from wallet.error import MintRejected

KEYRING = Keyring(BUYER_WORDS)
OWNER, OTHER, REFUND = KEYRING.key("wallet"), KEYRING.key("other"), KEYRING.key("refund")
CLOCK = SystemClock()


@dataclass
class Customer:
    """Asks for coins by hand."""

    mint: Mint
    bill: Callable[[int, str], str]
    ends: Callable[[str, str], None]
    derive: Derivation = field(default_factory=lambda: Derivation(KEYRING))
    counter: int = 0
    keyset: Keyset = field(init=False)

    async def start(self) -> "Customer":
        info = next(info for info in await self.mint.keysets() if info.active and info.unit == "sat")
        self.keyset = await self.mint.keys(info)
        return self

    def outputs(self, amount: int) -> list[Output]:
        made = []
        for part in split(amount):
            made.append(self.derive.output(self.keyset.info.id, self.counter, part))
            self.counter += 1
        return made

    def locked(self, amount: int, locktime: int) -> list[Output]:
        lock = Lock(OWNER.compressed, locktime, REFUND.compressed)
        made = []
        for part in split(amount):
            self.counter += 1
            name = f"op/{self.counter}"
            secret = lock.secret(self.derive.lock_nonce(name))
            made.append(self.derive.lock_output(name, self.keyset.info.id, part, secret))
        return made

    def coins(self, outputs: list[Output], signatures: list) -> list[Proof]:
        pairs = zip(outputs, signatures, strict=True)
        return [unblind(output, signature, self.keyset.keys[output.amount]) for output, signature in pairs]

    async def buy(self, amount: int) -> list[Proof]:
        quote = await self.mint.request_quote(amount, "sat", OWNER.compressed, PERMIT)
        assert (await self.mint.quote(quote.id)).state is QuoteState.PAID
        outputs = self.outputs(amount)
        signed = await self.mint.mint(quote.id, outputs, quote_signature(quote.id, outputs, OWNER), PERMIT)
        return self.coins(outputs, signed)

    async def swap(self, inputs: list[Proof], outputs: list[Output]) -> list[Proof]:
        return self.coins(outputs, await self.mint.swap(inputs, outputs, PERMIT))


@pytest.fixture(params=["model", "nutshell"])
async def customer(request, tmp_path) -> AsyncIterator[Customer]:
    async with contextlib.AsyncExitStack() as stack:
        if request.param == "model":
            model = ModelMint(clock=CLOCK)
            yield await Customer(model, *_model_network(model)).start()
            return
        url, network = await stack.enter_async_context(lightning_mint(tmp_path))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        mint = MintClient(url, http, allow)
        yield await Customer(mint, lambda sat, fate: network.invoice(sat * 1000, fate), network.ends).start()


def _model_network(model: ModelMint) -> tuple[Callable[[int, str], str], Callable[[str, str], None]]:
    fates: dict[str, Payment] = {}
    model.lightning = lambda hash_: fates[hash_]

    def bill(sat: int, fate: str) -> str:
        text = payable(sat * 1000, CLOCK.now(), f"bill {len(fates)}")
        fates[decode(text).payment_hash] = {SETTLED: Payment.PAID, FAILED: Payment.FAILED}.get(fate, Payment.SLOW)
        return text

    def ends(text: str, fate: str) -> None:
        if fate == FAILED:
            for held in model._melts.values():
                if held.hash == decode(text).payment_hash:
                    held.ends = MeltState.UNPAID
        model.lightning_ends()

    return bill, ends


async def refused(attempt: Callable) -> int:
    with pytest.raises(MintRejected) as caught:
        await attempt()
    return caught.value.mint_code


async def test_a_mint_keeps_the_rules_that_the_wallet_relies_on(customer):
    keys = customer.keyset
    assert checked(keys.info, keys.keys) == keys
    assert keys.info.ppk == 100
    coins = await customer.buy(13)
    assert all(was_signed(coin, keys.keys[coin.amount]) for coin in coins)

    # Nobody mints twice for one payment, nor without the quote's key.
    quote = await customer.mint.request_quote(4, "sat", OWNER.compressed, PERMIT)
    await customer.mint.quote(quote.id)
    outputs = customer.outputs(4)
    by_other = quote_signature(quote.id, outputs, OTHER)
    await refused(lambda: customer.mint.mint(quote.id, outputs, by_other, PERMIT))
    good = quote_signature(quote.id, outputs, OWNER)
    await customer.mint.mint(quote.id, outputs, good, PERMIT)
    assert (await customer.mint.quote(quote.id)).state is QuoteState.ISSUED
    await refused(lambda: customer.mint.mint(quote.id, outputs, good, PERMIT))

    # A swap must balance to the unit with the fee, spends once, and signs an output once.
    wrong = customer.outputs(13)
    await refused(lambda: customer.mint.swap(coins, wrong, PERMIT))
    reports = await customer.mint.states([coin.y for coin in coins])
    assert {report.state for report in reports.values()} == {CoinState.UNSPENT}
    assert await customer.mint.restore(wrong) == {}
    swapped = customer.outputs(12)
    fresh = await customer.swap(coins, swapped)
    assert await refused(lambda: customer.mint.swap(coins, customer.outputs(12), PERMIT)) == 11001
    assert await refused(lambda: customer.mint.swap(fresh, swapped[:1] + customer.outputs(7), PERMIT)) == 11003
    reports = await customer.mint.states([coin.y for coin in coins])
    assert {report.state for report in reports.values()} == {CoinState.SPENT}

    # Everything signed can be asked for again, whatever amount is named.
    named = [customer.derive.output(o.keyset, customer.counter - len(swapped), 1) for o in swapped[:1]]
    again = await customer.mint.restore([*swapped, *customer.outputs(1)])
    assert set(again) == {output.b for output in swapped}
    assert customer.coins(swapped, [again[output.b] for output in swapped]) == fresh
    assert named[0].amount == 1


async def test_locks_open_for_the_owner_always_and_for_the_refund_key_after_the_locktime(customer):
    def signed(coins: list[Proof], key) -> list[Proof]:
        return [coin.signed(witness(coin.secret, key)) for coin in coins]

    coins = await customer.buy(16)
    held = await customer.swap(coins, customer.locked(15, CLOCK.now() + 600))
    for attempt in (held, signed(held, OTHER), signed(held, REFUND)):
        await refused(lambda attempt=attempt: customer.mint.swap(attempt, customer.outputs(14), PERMIT))
    await customer.swap(signed(held, OWNER), customer.outputs(14))
    reports = await customer.mint.states([coin.y for coin in held])
    assert all(report.state is CoinState.SPENT and report.witness for report in reports.values())

    coins = await customer.buy(16)
    expired = await customer.swap(coins, customer.locked(15, CLOCK.now() - 10))
    await refused(lambda: customer.mint.swap(signed(expired, OTHER), customer.outputs(14), PERMIT))
    await customer.swap(signed(expired, REFUND), customer.outputs(14))


async def test_a_melt_pays_once_gives_a_true_receipt_and_the_change_on_its_blank_outputs(customer):
    limits = await customer.mint.limits()
    limits.withdrawal("sat").check(20, "sat", "withdrawals")
    coins = await customer.buy(64)
    text = customer.bill(20, SETTLED)
    quote = await customer.mint.request_melt(text, "sat", PERMIT)
    assert (quote.amount, quote.state) == (20, MeltState.UNPAID)
    assert 0 < quote.fee_reserve <= 2
    assert (await customer.mint.melt_quote(quote.id)).state is MeltState.UNPAID
    blank = [replace(output, amount=0) for output in customer.outputs(63)]
    paid = await customer.mint.melt(quote.id, coins, blank, PERMIT)
    assert paid.state is MeltState.PAID
    assert sha256(bytes.fromhex(paid.preimage)).hexdigest() == decode(text).payment_hash
    # 1 sat for the input and 1 sat of routing; what comes back is in the order of the outputs.
    assert sum(signature.amount for signature in paid.change) == 64 - 20 - 1 - 1
    for output, signature in zip(blank, paid.change, strict=False):
        unblind(replace(output, amount=signature.amount), signature, customer.keyset.keys[signature.amount])
    restored = await customer.mint.restore(blank)
    assert [restored[o.b].c for o in blank if o.b in restored] == [signature.c for signature in paid.change]
    later = await customer.mint.melt_quote(quote.id)
    assert (later.state, later.preimage) == (MeltState.PAID, paid.preimage)
    reports = await customer.mint.states([coin.y for coin in coins])
    assert {report.state for report in reports.values()} == {CoinState.SPENT}
    await refused(lambda: customer.mint.melt(quote.id, coins, blank, PERMIT))


async def test_a_melt_that_fails_gives_the_coins_back_and_one_under_way_keeps_them(customer):
    coins = await customer.buy(64)
    for fate, ended in ((FAILED, FAILED), (PENDING, FAILED), (PENDING, SETTLED)):
        text = customer.bill(20, fate)
        quote = await customer.mint.request_melt(text, "sat", PERMIT)
        blank = [replace(output, amount=0) for output in customer.outputs(63)]
        if fate == FAILED:
            assert await refused(lambda q=quote, b=blank: customer.mint.melt(q.id, coins, b, PERMIT)) == 20004
        else:
            assert (await customer.mint.melt(quote.id, coins, blank, PERMIT)).state is MeltState.PENDING
            reports = await customer.mint.states([coin.y for coin in coins])
            assert {report.state for report in reports.values()} == {CoinState.PENDING}
            assert await customer.mint.restore(blank) == {}
            await refused(lambda q=quote, b=blank: customer.mint.melt(q.id, coins, b, PERMIT))
            customer.ends(text, ended)
        state = (await customer.mint.melt_quote(quote.id)).state
        reports = await customer.mint.states([coin.y for coin in coins])
        if ended == FAILED:
            assert state is MeltState.UNPAID
            assert {report.state for report in reports.values()} == {CoinState.UNSPENT}
        else:
            assert state is MeltState.PAID
            assert {report.state for report in reports.values()} == {CoinState.SPENT}
            assert sum(one.amount for one in (await customer.mint.restore(blank)).values()) == 64 - 20 - 2
