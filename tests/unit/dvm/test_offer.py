"""What keys that cost nothing may not do: shut out who is honest, or be charged for what they did not get."""

import pytest

from core.money import Msat
from dvm.buyer import step
from dvm.buyer_event import Allocate, Answered, Lock, Progress, ResultArrived, SellerFailed, WindowClosed
from dvm.job import MAX_OFFERS
from dvm.selection import Nature, Offer
from tests.property.market_part import FEE, World, purchase, quote
from tests.unit.dvm.market_part import echo
from tests.unit.dvm.test_market import World as Market
from tests.unit.dvm.test_market import bought, story
from wallet.error import InsufficientFunds


@pytest.fixture
def world() -> World:
    made = World(purchase())
    made.start()
    return made


def garbage(world: World, nature: str, count: int = 2 * MAX_OFFERS) -> None:
    """So many keys say this."""
    for number in range(count):
        event_id, seller = f"{nature}-{number}", f"key-{nature}-{number}"
        match nature:
            case "decline":
                world.tell(SellerFailed(world.now, event_id, seller, "no"))
            case "implicit":
                world.tell(Answered(world.now, Offer(event_id, seller, Nature.IMPLICIT, world.now, Msat(1))))
            case "promise":
                world.tell(Progress(world.now, event_id, seller, "processing"))
            case "dear":
                price = world.job.limit.ceiling.value - FEE
                world.tell(Answered(world.now, quote(seller, 1_000 + number, price, world.now)))
            case "bad result":
                world.tell(ResultArrived(world.now, event_id, seller, "", "it is empty"))


@pytest.mark.parametrize("nature", ["decline", "implicit", "promise", "dear", "bad result"])
def test_a_crowd_of_worthless_answers_does_not_shut_out_an_honest_quote(world: World, nature: str) -> None:
    garbage(world, nature)
    world.tell(Answered(world.now, quote("honest", 1, 5_000, world.now)))
    garbage(world, "decline")
    assert len(world.job.offers) == MAX_OFFERS
    assert any(item.seller == "honest" for item in world.job.offers)
    world.window(0)
    assert world.job.seller == "honest"


def test_a_free_result_in_hand_is_kept_and_empty_ones_push_no_quote_out(world: World) -> None:
    world.tell(Answered(world.now, quote("honest", 1, 5_000, world.now)))
    for number in range(2 * MAX_OFFERS):
        world.tell(ResultArrived(world.now, f"r{number}", f"key-{number}", "by me", ""))
    assert any(item.seller == "honest" for item in world.job.offers)
    assert [item.content for item in world.job.offers if item.content] == ["by me"]
    world.window(0)
    assert world.job.seller == "honest"


def test_what_is_counted_against_the_seller_is_the_most_that_the_lock_may_take(world: World) -> None:
    world.tell(Answered(world.now, quote("honest", 1, 5_000, world.now)))
    _, effects = step(world.job, WindowClosed(world.now, 0))
    (asked,) = (item for item in effects if isinstance(item, Allocate))
    (lock,) = (item for item in effects if isinstance(item, Lock))
    assert asked.amount == lock.payment.ceiling
    assert Msat(5_000 + FEE) <= lock.payment.ceiling < world.job.limit.ceiling


@story
async def test_only_the_seller_that_was_paid_is_charged(world: Market) -> None:
    buyer, cheap, dear = world.node(), world.node(services=echo(9_000)), world.node(services=echo(10_000))
    for node in (buyer, cheap, dear):
        await node.up()
    await buyer.fund(100)
    lock = buyer.wallet.lock

    async def failing(*arguments):
        buyer.wallet.lock = lock
        raise InsufficientFunds

    buyer.wallet.lock = failing
    view = await bought(buyer)
    assert (view.purchase.seller, view.to_dict()["money"]) == (dear.key.pubkey, "claimed")
    spent = {row["name"].split(":")[1]: row["spent"] for row in await buyer.db.select("budget")}
    assert spent.get(cheap.key.pubkey, 0) == 0
    assert spent[dear.key.pubkey] > 0
