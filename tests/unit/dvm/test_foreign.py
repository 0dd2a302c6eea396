"""What other software writes is understood all the way, not only by the readers (docs/reference/wire.md)."""

import orjson

from core.money import MicroUsd, Msat
from dvm.provider.echo import Echo
from dvm.request import ComputeRequest, Datum
from dvm.service import Service
from relays.event import Draft, Event
from relays.key import Key
from tests.unit.dvm.market_part import Node, until
from tests.unit.dvm.test_market import World, story, words

ID = "ab" * 32


async def asked(buyer: Node, kind: int) -> tuple[str, Event]:
    """A job that the buyer has published."""
    wish = ComputeRequest(kind, (Datum("what is new"),), (), MicroUsd(50_000))
    staged = await buyer.buying.buy("agent:a", str(kind), wish)
    await until(buyer.clock, lambda: bool(words(buyer, kind)))
    return staged.job_id, words(buyer, kind)[0]


@story
async def test_a_list_of_content_without_its_brackets_is_a_good_result(world: World) -> None:
    buyer, seller = await world.node().up(), Key.generate()
    job_id, request = await asked(buyer, 5300)
    content = f'["e","{ID}"],["a","30023:{ID}:slug"]'
    tags = (("e", request.id), ("p", buyer.key.pubkey), ("status", "success"), ("amount", "0"))
    world.relay.store(seller.sign(Draft(6300, content, tags, world.clock.now())))
    await until(world.clock, lambda: job_id not in buyer.buying._open)
    view = await buyer.buying.view(job_id)
    assert view.result is not None, view.to_dict()
    assert orjson.loads(view.result) == [["e", ID], ["a", f"30023:{ID}:slug"]]


@story
async def test_payment_with_an_underscore_is_an_offer_and_feedback_needs_no_p(world: World) -> None:
    buyer, asks, works = await world.node().up(), Key.generate(), Key.generate()
    job_id, request = await asked(buyer, 5050)
    bolt11 = "lnbc210n1" + "q" * 60
    asking = (("status", "payment_required"), ("amount", "21000", "invoice", bolt11), ("e", request.id))
    world.relay.store(asks.sign(Draft(7000, "", asking, world.clock.now())))
    world.relay.store(works.sign(Draft(7000, "", (("status", "processing"), ("e", request.id)), world.clock.now())))
    await world.clock.sleep(3)
    shown = (await buyer.buying.view(job_id)).to_dict()
    offers = {one["seller"]: one for one in shown["quotes"]}
    assert (offers[asks.pubkey]["nature"], offers[asks.pubkey]["price_msat"]) == ("implicit", 21_000)
    assert offers[works.pubkey]["nature"] == "promise"
    assert shown["state"] == "quoting", "a seller that promised work is waited for"
    world.relay.store(works.sign(Draft(6050, "news", (("e", request.id),), world.clock.now())))
    await until(world.clock, lambda: job_id not in buyer.buying._open)
    assert (await buyer.buying.view(job_id)).result == "news"


@story
async def test_a_prompt_with_hyphens_in_its_parameters_is_served(world: World) -> None:
    seen: list[ComputeRequest] = []

    class Listening(Echo):
        def check(self, request: ComputeRequest) -> None:
            super().check(request)
            seen.append(request)

    seller, me = await world.node(services=lambda: [Service(5050, Msat(0), Listening())]).up(), Key.generate()
    tags = (("i", "tell me", "prompt"), ("param", "top-k", "40"), ("param", "top-p", "0.9"))
    world.relay.store(me.sign(Draft(5050, "", tags, world.clock.now())))
    await until(world.clock, lambda: bool(words(seller, 6050)))
    assert words(seller, 6050)[0].content == "tell me"
    assert seen[0].params == (("top_k", "40"), ("top_p", "0.9"))
