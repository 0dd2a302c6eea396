"""What sellers give back of deposits is taken by a node that was made again from its words, and by no other."""

import pytest

from core.identifier import derived_id
from core.money import Msat
from core.unit import Insert
from dvm import prepaid
from dvm.prepaid import Statement
from node import remainder
from relays.event import Event
from relays.key import Keyring
from relays.nip17 import wrap
from tests.recovery_part import FIRST, RELAY, SECOND, Node, World, node
from tests.wallet_part import BUYER_WORDS, EFFECT, PERMIT, SELLER_WORDS
from wallet.cashu.token import decode, encode
from wallet.error import MintUnlisted

RING = Keyring(BUYER_WORDS)
SELLER = Keyring(SELLER_WORDS).node
ID = derived_id("a deposit")


def said(content: str, *, word: str = prepaid.ACCOUNT, id_: str = ID, key: str | None = None) -> Event:
    """What the seller says of a deposit."""
    echo = RING.key(prepaid.VOUCHER_KEY, id_).compressed if key is None else key
    statement = Statement(prepaid.CLOSED, 2, Msat(5_000), False)
    tags = statement.tag(), ("key", echo)
    return wrap(
        SELLER, RING.node.pubkey, prepaid.message(word, RING.node.pubkey, id_, 1_700_000_000, *tags, content=content)
    )


async def token(world: World, sat: int = 20, mint: str = FIRST) -> str:
    await world.seller.deposit(f"fund {mint} {sat}", mint, 100, EFFECT, PERMIT)
    await world.seller.poll(f"fund {mint} {sat}")
    return await world.seller.send(f"send {mint} {sat}", mint, sat, EFFECT, PERMIT)


async def hears(world: World, event: Event) -> None:
    await world.relay.handlers[remainder.MAIL](event, RELAY)


async def kept(made: Node) -> list:
    return await made.recall.recovery._mind.kept()


@pytest.fixture
async def again(world) -> Node:
    """Made from the words, with one mint on its list, and restored."""
    made = await node(world, [FIRST])
    await made.recall.restore(())
    return made


async def test_what_comes_back_is_taken_once_however_often_it_is_said(world, again):
    text = await token(world)
    for _ in range(2):
        await hears(world, said(text))
    await again.recall.recovery.look()
    got = await again.live()
    assert 18 <= got < 20, "less the fee"
    await hears(world, said(text))
    await again.recall.recovery.look()
    assert await again.live() == got
    assert await again.clean()
    assert not await kept(again)


async def test_it_is_durable_before_it_is_taken_and_goes_on_after_a_restart(world, again):
    await hears(world, said(await token(world)))
    assert len(await kept(again)) == 1
    world.relay.handlers.clear()
    once_more = await node(world, [FIRST], again.db)
    assert set(world.relay.handlers) == {remainder.MAIL}
    await once_more.recall.recovery.look()
    assert await once_more.live() >= 18
    assert not await kept(once_more)


async def test_coins_that_were_taken_before_the_loss_are_nothing_new(world, again):
    text = await token(world)
    await world.seller.receive("back", text, EFFECT, PERMIT)
    await hears(world, said(text))
    await again.recall.recovery.look()
    assert await again.live() == 0
    assert not await kept(again)
    assert await again.clean()


async def test_a_node_that_was_never_restored_listens_to_nothing(world):
    await node(world, [FIRST])
    assert not world.relay.handlers


@pytest.mark.parametrize(
    "change",
    [
        {"key": ""},
        {"key": Keyring(SELLER_WORDS).key(prepaid.VOUCHER_KEY, ID).compressed},
        {"key": RING.key(prepaid.VOUCHER_KEY, derived_id("another")).compressed},
        {"word": prepaid.TERMS},
        {"word": prepaid.DEPOSIT},
        {"id_": "no id"},
    ],
)
async def test_only_the_seller_of_a_deposit_of_these_words_is_heard(world, again, change):
    await hears(world, said(await token(world), **change))
    assert not await kept(again)


@pytest.mark.parametrize("content", ["", "cashuB", "cashuAabc", "hello"])
async def test_a_word_without_coins_is_left_to_whoever_knows_the_deposit(world, again, content):
    await hears(world, said(content))
    assert not await kept(again)


async def test_a_deposit_with_a_row_of_its_own_is_not_touched(world, again):
    row = {"side": "buyer", "id": ID, "state": "closing", "body": "{}", "peer": SELLER.pubkey, "effect_id": "e"}
    await again.db.commit([Insert("deposit", {**row, "version": 0, "created_at": 0, "updated_at": 0})])
    await hears(world, said(await token(world)))
    assert not await kept(again)


async def test_no_mint_is_asked_that_a_seller_names_and_the_owner_does_not(world, again):
    for text in (await token(world, mint=SECOND), _at("http://127.0.0.1:1", await token(world, 21))):
        with pytest.raises(MintUnlisted):
            await hears(world, said(text))
    assert not await kept(again)


def _at(mint: str, text: str) -> str:
    payment = decode(text)
    return encode(mint, payment.unit, payment.proofs)
