"""Payments that are locked to a hash (NUT-14), at a real nutshell mint with its default fees."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from hashlib import sha256

import aiohttp
import pytest
import pytest_asyncio

from core.error import InvalidInput
from core.money import Msat
from relays.key import Keyring
from tests.integration.wallet.test_nutshell import CLOCK, Part, clean
from tests.mint_part import running_mint
from tests.wallet_part import EFFECT, PERMIT
from wallet.cashu.lock import revealed
from wallet.cashu.mint import MintClient
from wallet.cashu.signature import witness
from wallet.cashu.token import from_payload
from wallet.error import MintRejected, TokenLock, TokenSpent
from wallet.model import LockTerms, Received, Unlock, VerifyTerms
from wallet.wallet import Wallet

JOB = "job"
PREIMAGE = "5e" * 32
HASH = sha256(bytes.fromhex(PREIMAGE)).hexdigest()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hash_mint(tmp_path_factory) -> AsyncIterator[str]:
    async with running_mint(tmp_path_factory.mktemp("mint")) as url:
        yield url


@pytest.fixture
async def part(tmp_path, hash_mint) -> AsyncIterator[Part]:
    async with contextlib.AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        yield Part(hash_mint, http, tmp_path, stack)


def sealed(part: Part, seller: Wallet, *, job: str = JOB, locktime: int = 600) -> LockTerms:
    return replace(part.terms(seller, locktime=locktime), hash=HASH, cosigner=job)


def wanted(part: Part, buyer: Wallet, seller: Wallet, *, job: str = JOB) -> VerifyTerms:
    cosigner = buyer.cosign_pubkey(job) if job else ""
    return replace(part.wanted(seller), hash=HASH, cosigner=cosigner)


async def test_a_payment_for_a_preimage_shows_it_to_the_buyer_at_the_mint(part):
    buyer, seller = await part.funded("buyer", 200), await part.wallet("seller")
    locked = await buyer.lock("lock", sealed(part, seller, job=""), Msat.of_sat(20), EFFECT, PERMIT)
    verified = await seller.verify(locked.payload, wanted(part, buyer, seller, job=""))
    assert verified.net == Msat.of_sat(10)
    with pytest.raises(TokenLock):
        await seller.claim("plain", locked.payload, EFFECT, PERMIT)
    with pytest.raises(TokenLock):
        await seller.claim("other", locked.payload, EFFECT, PERMIT, unlock=Unlock("11" * 32))
    received = await seller.claim("claim", locked.payload, EFFECT, PERMIT, unlock=Unlock(PREIMAGE))
    assert received == Received(10, 1)
    state = await buyer.spent(part.url, locked.ys)
    assert state.state == "SPENT"
    assert {revealed(report.witness, HASH) for report in state.coins.values()} == {PREIMAGE}
    await clean(buyer, seller)


async def test_a_cosigned_payment_needs_preimage_and_both_signatures(part):
    buyer, seller = await part.funded("buyer", 200), await part.wallet("seller")
    locked = await buyer.lock("lock", sealed(part, seller), Msat.of_sat(20), EFFECT, PERMIT)
    await seller.verify(locked.payload, wanted(part, buyer, seller))
    cosigned = await buyer.cosign("lock", JOB)
    for unlock in (
        Unlock(PREIMAGE),
        Unlock(PREIMAGE, tuple(reversed(cosigned))),
        Unlock(PREIMAGE, cosigned[:-1]),
        Unlock("11" * 32, cosigned),
    ):
        with pytest.raises(TokenLock):
            await seller.claim("bad", locked.payload, EFFECT, PERMIT, unlock=unlock)
    assert (await buyer.spent(part.url, locked.ys)).state == "UNSPENT"
    # What the wallet refuses to send, the mint refuses as well.
    mint = MintClient(part.url, part.http, lambda _: None)
    coins = from_payload(locked.payload).proofs
    for preimage, with_cosigner in ((PREIMAGE, False), ("", True), ("11" * 32, True)):
        bent = [
            coin.signed(
                witness(coin.secret, seller.key, preimage=preimage, cosigned=signature if with_cosigner else "")
            )
            for coin, signature in zip(coins, cosigned, strict=True)
        ]
        with pytest.raises(MintRejected):
            await mint.swap(bent, (await _outputs(seller, sum(coin.amount for coin in coins) - 1)), PERMIT)
    unlock = Unlock(PREIMAGE, cosigned)
    assert await seller.claim("claim", locked.payload, EFFECT, PERMIT, unlock=unlock) == Received(10, 1)
    assert await seller.claim("claim", locked.payload, EFFECT, PERMIT, unlock=unlock) == Received(10, 1)
    state = await buyer.spent(part.url, locked.ys)
    assert {revealed(report.witness, HASH) for report in state.coins.values()} == {PREIMAGE}
    assert all(len(report.witness or "") <= 1024 for report in state.coins.values())
    await clean(buyer, seller)


async def _outputs(wallet: Wallet, amount: int):
    """Outputs that are asked for by hand, so that only the witness can be at fault."""
    book = wallet._book(wallet.mints[0])
    await book.known()
    keyset = (await book.active()).info.id
    derive = wallet._planner._derive
    return [derive.output(keyset, 900_000 + n, 1 << n) for n in range(amount.bit_length()) if amount >> n & 1]


async def _after(locktime: int) -> None:
    while CLOCK.now() <= locktime + 1:
        await asyncio.sleep(0.2)


async def test_a_seller_with_the_cosignature_cannot_steal_by_the_refund_path(part):
    """The co-sign key is not the refund key: after the locktime only the buyer can spend without the preimage."""
    buyer, seller = await part.funded("buyer", 200), await part.wallet("seller")
    terms = sealed(part, seller, locktime=8)
    locked = await buyer.lock("lock", terms, Msat.of_sat(20), EFFECT, PERMIT)
    cosigned = await buyer.cosign("lock", JOB)
    await _after(terms.locktime)
    coins = from_payload(locked.payload).proofs
    mint = MintClient(part.url, part.http, lambda _: None)
    amount = sum(coin.amount for coin in coins) - 1
    for signatures in (lambda coin, sig: [sig], lambda coin, sig: [sig, _own(coin, seller)]):
        bent = [
            coin.signed(json.dumps({"signatures": signatures(coin, sig)}))
            for coin, sig in zip(coins, cosigned, strict=True)
        ]
        with pytest.raises(MintRejected):
            await mint.swap(bent, await _outputs(seller, amount), PERMIT)
    assert await buyer.refund("refund", "lock", EFFECT, PERMIT) == Received(10, 1)
    with pytest.raises(TokenSpent):
        await seller.claim("claim", locked.payload, EFFECT, PERMIT, unlock=Unlock(PREIMAGE, cosigned))
    await clean(buyer, seller)


def _own(coin, seller: Wallet) -> str:
    return json.loads(witness(coin.secret, seller.key))["signatures"][0]


async def test_another_hash_key_or_a_plain_lock_is_refused_before_the_mint_is_asked(part):
    buyer, seller = await part.funded("buyer", 300), await part.wallet("seller")
    good = wanted(part, buyer, seller)
    locked = await buyer.lock("lock", sealed(part, seller), Msat.of_sat(20), EFFECT, PERMIT)
    for terms in (
        replace(good, hash="22" * 32),
        replace(good, cosigner=buyer.cosign_pubkey("another job")),
        replace(good, cosigner=""),
        replace(good, wallet_pubkey=buyer.key.compressed),
        replace(good, min_locktime=CLOCK.now() + 700),
        replace(good, hash=""),
    ):
        with pytest.raises(TokenLock):
            await seller.verify(locked.payload, terms)
    plain = await buyer.lock("plain", part.terms(seller), Msat.of_sat(20), EFFECT, PERMIT)
    with pytest.raises(TokenLock):
        await seller.verify(plain.payload, good)
    await seller.verify(locked.payload, good)


async def test_a_lock_that_would_not_be_safe_is_never_made(part):
    buyer, seller = await part.funded("buyer", 100), await part.wallet("seller")
    for terms in (
        replace(sealed(part, seller), hash="abc"),
        replace(sealed(part, seller), seller_pubkey=buyer.cosign_pubkey(JOB)),
        replace(sealed(part, seller), seller_pubkey="02" + buyer.refund_pubkey("bad")[2:]),
    ):
        with pytest.raises(InvalidInput):
            await buyer.lock("bad", terms, Msat.of_sat(20), EFFECT, PERMIT)
    assert await buyer.find("bad") is None


async def test_a_claim_that_was_cut_off_goes_on_after_a_restart_with_its_preimage(part):
    words = "legal winner thank year wave sausage worth useful legal winner thank yellow"
    buyer = await part.funded("buyer", 200)
    database = await part.database("seller")

    class Cut(MintClient):
        async def swap(self, inputs, outputs, permit):
            await super().swap(inputs, outputs, permit)
            raise asyncio.CancelledError

    def wallet(maker: type[MintClient]) -> Wallet:
        mints = [maker(part.url, part.http, lambda _: None)]
        return Wallet(database, Keyring(words), CLOCK, lambda _: None, mints, permit_for=lambda _: PERMIT)

    seller = wallet(Cut)
    locked = await buyer.lock("lock", sealed(part, seller), Msat.of_sat(20), EFFECT, PERMIT)
    unlock = Unlock(PREIMAGE, await buyer.cosign("lock", JOB))
    with pytest.raises(asyncio.CancelledError):
        await seller.claim("claim", locked.payload, EFFECT, PERMIT, unlock=unlock)
    again = wallet(MintClient)
    assert await again.recover() == 0
    assert await again.claim("claim", locked.payload, EFFECT, PERMIT, unlock=unlock) == Received(10, 1)
    await clean(buyer, again)
