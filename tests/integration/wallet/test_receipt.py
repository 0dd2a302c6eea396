"""Receipts at a real mint: whoever reads one finds out what the seller took, and is not told stories."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import aiohttp
import orjson
import pytest
import pytest_asyncio

from core.clock import SystemClock
from core.effect import Permit
from core.money import Msat
from dvm.receipt import Verdict, read_receipt
from node.storage.memory import MemoryDatabase
from relays.error import MalformedEvent
from relays.event import Event
from relays.key import Key, Keyring, new_words
from tests.mint_part import running_mint
from tests.receipt_part import Bargain, changed
from tests.wallet_part import EFFECT, PERMIT, allow
from wallet.cashu.mint import MintClient
from wallet.error import NotProven, TokenForged, TokenMint
from wallet.model import Locked, LockTerms
from wallet.payment import State
from wallet.wallet import Wallet

CLOCK = SystemClock()


class Town:
    """A mint, and wallets at it."""

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self.url, self.http = url, http
        self.rings: dict[str, Keyring] = {}

    def wallet(self, name: str) -> Wallet:
        self.rings[name] = Keyring(new_words())
        return Wallet(
            MemoryDatabase(), self.rings[name], CLOCK, allow, [MintClient(self.url, self.http, allow)],
            permit_for=Permit,
        )  # fmt: skip

    async def locked(self, seller: Wallet, locktime: int = 600) -> tuple[Wallet, Locked, Key]:
        """Coins of a funded buyer, locked to the seller, and the key to which they go back."""
        buyer = self.wallet("buyer")
        await buyer.deposit("deposit", self.url, 100, EFFECT, PERMIT)
        assert (await buyer.poll("deposit")).state is State.DONE
        terms = LockTerms(self.url, Msat.of_sat(10), seller.key.compressed, CLOCK.now() + locktime, quote_id="q")
        locked = await buyer.lock("lock", terms, Msat.of_sat(20), EFFECT, PERMIT)
        return buyer, locked, self.rings["buyer"].key("refund", "lock")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mint_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    async with running_mint(tmp_path_factory.mktemp("mint")) as url:
        yield url


@pytest.fixture
async def town(mint_url: str) -> AsyncIterator[Town]:
    async with AsyncExitStack() as stack:
        yield Town(mint_url, await stack.enter_async_context(aiohttp.ClientSession()))


async def test_what_the_seller_took_is_proven_to_a_stranger(town: Town) -> None:
    seller, stranger = town.wallet("seller"), town.wallet("stranger")
    _, locked, refund = await town.locked(seller)
    bargain = Bargain(town.url, seller.key.compressed, seller.key)
    receipt = read_receipt(bargain.receipt(locked.payload, refund))
    assert (receipt.buyer, receipt.seller) == (bargain.buyer.pubkey, bargain.seller.pubkey)
    assert receipt.verdict is Verdict.DELIVERED
    with pytest.raises(NotProven, match="not spent"):
        await stranger.proven(receipt.payment, receipt.wallet_key)
    await seller.claim("claim", locked.payload, EFFECT, PERMIT)
    assert await stranger.proven(receipt.payment, receipt.wallet_key) == locked.amount


async def test_money_that_went_back_proves_nothing(town: Town) -> None:
    seller = town.wallet("seller")
    buyer, locked, refund = await town.locked(seller, locktime=2)
    receipt = read_receipt(Bargain(town.url, seller.key.compressed, seller.key).receipt(locked.payload, refund))
    await asyncio.sleep(3.5)
    await buyer.refund("refund", "lock", EFFECT, PERMIT)
    with pytest.raises(NotProven, match="not taken by the seller"):
        await town.wallet("stranger").proven(receipt.payment, receipt.wallet_key)


async def test_coins_that_no_mint_signed_prove_nothing(town: Town) -> None:
    seller = town.wallet("seller")
    _, locked, refund = await town.locked(seller)
    await seller.claim("claim", locked.payload, EFFECT, PERMIT)
    proofs = [dict(proof) for proof in locked.payload["proofs"]]
    proofs[-1]["amount"] *= 2
    payload = {**locked.payload, "proofs": proofs}
    dearer = read_receipt(Bargain(town.url, seller.key.compressed, seller.key).receipt(payload, refund))
    with pytest.raises(TokenForged):
        await town.wallet("stranger").proven(dearer.payment, dearer.wallet_key)


async def test_only_mints_of_ours_are_asked(town: Town) -> None:
    seller = town.wallet("seller")
    _, locked, refund = await town.locked(seller)
    elsewhere = "http://127.0.0.1:1"
    receipt = read_receipt(
        Bargain(elsewhere, seller.key.compressed, seller.key).receipt({**locked.payload, "mint": elsewhere}, refund)
    )
    with pytest.raises(TokenMint):
        await town.wallet("stranger").proven(receipt.payment, receipt.wallet_key)


async def test_a_receipt_whose_parts_do_not_fit_is_none(town: Town) -> None:
    seller, other = town.wallet("seller"), Key.generate()
    _, locked, refund = await town.locked(seller)
    bargain = Bargain(town.url, seller.key.compressed, seller.key)
    good = bargain.receipt(locked.payload, refund)
    body = orjson.loads(good.content)

    def with_body(**change: object) -> str:
        return orjson.dumps(body | change).decode()

    theirs = Bargain(town.url, seller.key.compressed, seller.key, seller=bargain.seller)
    for_others = orjson.loads(theirs.quote(theirs.request).to_json())
    forged = dict(body["quote"]) | {"content": "another"}
    plain = [dict(body["proofs"][0]) | {"secret": "ab" * 32}]
    hostile = {
        "coins of somebody else's job": bargain.receipt(locked.payload, other),
        "another author": bargain.receipt(locked.payload, refund, by=other),
        "the seller about itself": changed(good, bargain.seller),
        "a quote for another buyer": changed(good, bargain.buyer, content=with_body(quote=for_others)),
        "a quote that its seller did not sign": changed(good, bargain.buyer, content=with_body(quote=forged)),
        "coins that are not locked": changed(good, bargain.buyer, content=with_body(proofs=plain)),
        "coins locked to another key": Bargain(town.url, other.compressed, other).receipt(locked.payload, refund),
        "a quote that names the wallet key of somebody else": Bargain(town.url, seller.key.compressed).receipt(
            locked.payload, refund
        ),
        "a quote signed with another wallet key": Bargain(town.url, seller.key.compressed, other).receipt(
            locked.payload, refund
        ),
        "another seller in the tags": changed(
            good, bargain.buyer, tags=[("p", other.pubkey) if tag[0] == "p" else tag for tag in good.tags]
        ),
        "another job in the tags": changed(
            good, bargain.buyer, tags=[("e", "0" * 64) if tag[0] == "e" else tag for tag in good.tags]
        ),
        "a word that we do not know": changed(
            good, bargain.buyer, tags=[("l", "splendid", "dvm.settled") if tag[0] == "l" else tag for tag in good.tags]
        ),
        "no coins": changed(good, bargain.buyer, content=with_body(proofs=[])),
        "no claim": changed(good, bargain.buyer, content=with_body(claim=None)),
        "no JSON": changed(good, bargain.buyer, content="{"),
        "a list": changed(good, bargain.buyer, content="[]"),
        "nothing": changed(good, bargain.buyer, content=""),
    }
    assert read_receipt(good).request_id
    assert [what for what, event in hostile.items() if _is_receipt(event)] == []


def _is_receipt(event: Event) -> bool:
    try:
        read_receipt(event)
    except MalformedEvent:
        return False
    return True
