"""Parts of a result (7000 `partial`) are shown as they come, bounded, and are never taken for the result."""

from dataclasses import replace

from core.money import MicroUsd
from dvm.buyer_event import Progress
from dvm.job import MAX_PART_BYTES, MAX_PARTS, State
from dvm.request import ComputeRequest, Datum
from relays.event import Draft
from relays.key import Key
from relays.private_job import Scheme
from tests.property.market_part import SELLERS, World, purchase
from tests.unit.dvm.market_part import until
from tests.unit.dvm.test_market import World as Market
from tests.unit.dvm.test_market import story, words


def working() -> World:
    world = World(purchase())
    world.start()
    world.quote(SELLERS[0], 5_000)
    world.window(0)
    world.lock("done")
    return world


def part(world: World, content: str, seller: str = SELLERS[0], event_id: str = "") -> None:
    world.tell(Progress(world.now, event_id or f"p{world._next()}", seller, "partial", content))


def test_parts_of_the_paid_seller_are_kept_in_their_order_and_once() -> None:
    world = working()
    part(world, "one", event_id="a")
    part(world, "two", event_id="b")
    part(world, "one", event_id="a")
    part(world, "mine", seller=SELLERS[1])
    assert [item.content for item in world.job.parts] == ["one", "two"]
    assert (world.job.state, world.job.result) == (State.WORKING, "")


def test_a_part_is_no_result_and_does_not_save_a_job_from_its_deadline() -> None:
    world = working()
    part(world, f"by {SELLERS[0]}")
    world.deadline()
    assert world.job.state is State.FALLBACK
    world.settle()
    assert world.job.result == ""


def test_no_seller_fills_the_row() -> None:
    world = working()
    for _ in range(3 * MAX_PARTS):
        part(world, "x")
    assert len(world.job.parts) == MAX_PARTS
    fat = working()
    for _ in range(10):
        part(fat, "é" * (MAX_PART_BYTES // 8))
    assert sum(len(item.content.encode()) for item in fat.job.parts) <= MAX_PART_BYTES


def test_before_a_seller_is_chosen_only_the_one_that_was_asked_is_listened_to() -> None:
    for to, kept in (("", 0), (SELLERS[0], 1)):
        world = World(replace(purchase(), to=to))
        world.start()
        part(world, "a taste")
        assert len(world.job.parts) == kept
        assert world.job.state is State.QUOTING


@story
async def test_parts_are_seen_while_the_job_runs_also_when_they_are_encrypted(world: Market) -> None:
    buyer, seller = await world.node().up(), Key.generate()
    wish = ComputeRequest(5050, (Datum("tell"),), (), MicroUsd(50_000), to=seller.pubkey, private=Scheme.NIP44.value)
    staged = await buyer.buying.buy("agent:a", "k", wish)
    await until(world.clock, lambda: bool(words(buyer, 5050)))
    event = words(buyer, 5050)[0]
    for text in ("once upon", "a time"):
        tags = (("e", event.id), ("p", buyer.key.pubkey), ("status", "partial"), ("encrypted",))
        content = seller.encrypt(buyer.key.pubkey, text)
        world.relay.store(seller.sign(Draft(7000, content, tags, world.clock.now())))
        await world.clock.sleep(0.5)
    shown = (await buyer.buying.view(staged.job_id)).to_dict()
    assert [item["content"] for item in shown["parts"]] == ["once upon", "a time"]
    assert (shown["state"], shown["result"]) == ("quoting", None)
