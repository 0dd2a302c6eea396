"""Locks for good (NUT-11) at a real nutshell mint: taken and made, also where the process is killed meanwhile."""

import contextlib
from collections.abc import AsyncIterator

import aiohttp
import orjson
import pytest

from core.clock import SystemClock
from core.error import InvalidInput
from relays.key import new_words
from tests.integration.wallet.test_nutshell import POINTS, Part, clean, killed, live
from tests.integration.wallet.test_nutshell import mint_url as mint_url
from tests.wallet_part import EFFECT, PERMIT
from wallet.cashu.lock import KeyLock, read_key_lock
from wallet.cashu.token import decode, to_payload
from wallet.error import TokenLock, TokenReused
from wallet.payment import State

CLOCK = SystemClock()


@pytest.fixture
async def part(tmp_path, mint_url) -> AsyncIterator[Part]:
    async with contextlib.AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        yield Part(mint_url, http, tmp_path, stack)


@pytest.mark.parametrize("sign", ["02", "03"])
async def test_a_locked_token_is_its_holders_alone_whichever_sign_its_key_is_written_with(part, sign):
    sender, thief, seller = await part.funded("sender", 200), await part.wallet("thief"), await part.wallet("seller")
    token = await sender.send("send", part.url, 20, EFFECT, PERMIT, pubkey=sign + seller.key.pubkey)
    with pytest.raises(TokenLock):
        await thief.receive("take", token, EFFECT, PERMIT)
    received = await seller.receive("take", token, EFFECT, PERMIT)
    assert received.amount_sat + received.fee_sat == 20
    await clean(sender, seller)


@pytest.mark.parametrize("point", ["before_request", "after_answer"])
async def test_making_a_locked_token_survives_kill_9(part, point):
    words = new_words()
    seller = await part.wallet("seller")
    await part.funded("buyer", 200, words)
    await killed(part, "buyer", words, point, "send", seller.key.compressed)
    buyer = await part.wallet("buyer", words)
    assert await buyer.recover() == 0
    token = await buyer.send("send", part.url, 20, EFFECT, PERMIT, pubkey=seller.key.compressed)
    assert all(read_key_lock(coin.secret) == KeyLock(seller.key.compressed) for coin in decode(token).proofs)
    received = await seller.receive("take", token, EFFECT, PERMIT)
    assert received.amount_sat + received.fee_sat == 20
    await clean(buyer, seller)
    assert 200 - await live(buyer) - 20 in (0, 1), "one token, and one fee"


@pytest.mark.parametrize("point", POINTS)
async def test_taking_what_was_given_in_public_survives_kill_9(part, point):
    words = new_words()
    seller, friend = await part.wallet("seller", words), await part.funded("friend", 200)
    payload = to_payload(decode(await friend.send("s", part.url, 20, EFFECT, PERMIT, pubkey="02" + seller.key.pubkey)))
    assert await seller.appraise("nutzap:1", payload, "02" + seller.key.pubkey, CLOCK.now()) == 19
    with pytest.raises(TokenReused):
        await seller.appraise("nutzap:2", payload, "02" + seller.key.pubkey, CLOCK.now())
    path = part.path / "payload.json"
    path.write_bytes(orjson.dumps(payload))
    await killed(part, "seller", words, point, "claim", str(path))
    again = await part.wallet("seller", words)
    assert await again.recover() == 0
    assert (await again.claim("claim", payload, EFFECT, PERMIT)).amount_sat == 19
    assert await live(again) == 19
    view = await again.find("claim")
    assert view is not None
    assert view.state is State.DONE
    await clean(again, friend)


async def test_a_lock_for_good_cannot_be_sent_to_what_is_no_key(part):
    sender = await part.funded("sender", 100)
    with pytest.raises(InvalidInput):
        await sender.send("send", part.url, 20, EFFECT, PERMIT, pubkey="02" + "ff" * 32)
    assert await live(sender) == 100
