"""Every state of a bought and of a sold job, when its customer cancels and when its time is over (NIP-90, NIP-09).

What is expected is a table. It names every state, so that a new one fails here until somebody has said what becomes of
it; and from every place the money is followed to its end.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from core.money import Msat
from dvm import buyer, seller
from dvm.buyer_event import CancelAsked, DeadlinePassed, Event, PublishCancel
from dvm.job import ENDED, Funds, State
from dvm.seller import Sale
from dvm.seller_event import Cancelled, QuoteLapsed
from relays.event import Draft
from relays.key import Key
from relays.kind import DELETION
from tests.property.market_part import SELLERS, World, purchase
from tests.unit.dvm.market_part import echo, until
from tests.unit.dvm.test_market import World as Market
from tests.unit.dvm.test_market import story, words

SELLER, RIVAL = SELLERS[0], SELLERS[1]
ROUTE = ("dvm", "summarizer")


def _quoting(world: World) -> None:
    world.start()
    world.quote(SELLER, 5_000)


def _promised(world: World) -> None:
    """The window is over, and a seller that promised a free result is waited for."""
    world.start()
    world.progress(SELLER)
    world.window(0)


def _in_hand(world: World) -> None:
    world.start()
    world.result(SELLER)


def _paying(world: World) -> None:
    _quoting(world)
    world.window(0)


def _unknown(world: World) -> None:
    _paying(world)
    world.lock("lost_after")


def _working(world: World) -> None:
    _paying(world)
    world.lock("done")


def _claimed(world: World) -> None:
    _working(world)
    world.claim()
    world.watch()


def _refunding(world: World) -> None:
    _working(world)
    world.locktime()


def _refunded(world: World) -> None:
    _refunding(world)
    world.refund("done")


def _falls_back(world: World) -> None:
    world.start()
    world.window(0)


def _falls_back_with_money_out(world: World) -> None:
    _working(world)
    world.error(SELLER)


def _falls_back_while_locking(world: World) -> None:
    _paying(world)
    world.deadline()


def _delivered(world: World) -> None:
    _working(world)
    world.result(SELLER)


def _failed(world: World) -> None:
    _falls_back_with_money_out(world)
    world.fallback(ok=False)


def _cancelled(world: World) -> None:
    _working(world)
    world.cancel()


def _ordered(world: World) -> None:
    world.start()
    world.quote(SELLER, 5_000, mode="A")
    world.window(0)


def _sealed(world: World) -> None:
    world.start()
    world.quote(SELLER, 5_000, mode="B")
    world.window(0)
    world.lock("done")
    world.sealed(SELLER)


def _sealed_and_taken(world: World) -> None:
    _sealed(world)
    world.claim()
    world.watch()


Way = Callable[[World], None]
S, F = State, Funds
# how to come there, where that is, and the state after CancelAsked and after DeadlinePassed
PLACES: list[tuple[Way, State, Funds, State, State]] = [
    (lambda world: None, S.STAGED, F.NONE, S.CANCELLED, S.STAGED),
    (_quoting, S.QUOTING, F.NONE, S.CANCELLED, S.FALLBACK),
    (_promised, S.QUOTING, F.NONE, S.CANCELLED, S.FALLBACK),
    (_in_hand, S.QUOTING, F.NONE, S.CANCELLED, S.DELIVERED),
    (_paying, S.PAYING, F.LOCKING, S.CANCELLED, S.FALLBACK),
    (_unknown, S.PAYING, F.LOCKING, S.CANCELLED, S.FALLBACK),
    (_working, S.WORKING, F.LOCKED, S.CANCELLED, S.FALLBACK),
    (_claimed, S.WORKING, F.CLAIMED, S.CANCELLED, S.FALLBACK),
    (_refunding, S.WORKING, F.REFUNDING, S.CANCELLED, S.FALLBACK),
    (_refunded, S.WORKING, F.REFUNDED, S.CANCELLED, S.FALLBACK),
    (_ordered, S.ORDERED, F.NONE, S.CANCELLED, S.FALLBACK),
    (_sealed, S.SEALED, F.LOCKED, S.CANCELLED, S.SEALED),  # the key is waited for until the money is back
    (_sealed_and_taken, S.SEALED, F.CLAIMED, S.CANCELLED, S.SEALED),
    (_falls_back, S.FALLBACK, F.NONE, S.CANCELLED, S.FALLBACK),
    (_falls_back_while_locking, S.FALLBACK, F.LOCKING, S.CANCELLED, S.FALLBACK),
    (_falls_back_with_money_out, S.FALLBACK, F.LOCKED, S.CANCELLED, S.FALLBACK),
    (_delivered, S.DELIVERED, F.LOCKED, S.DELIVERED, S.DELIVERED),
    (_failed, S.FAILED, F.LOCKED, S.FAILED, S.FAILED),
    (_cancelled, S.CANCELLED, F.LOCKED, S.CANCELLED, S.CANCELLED),
]
NAMES = [f"{way.__name__.strip('_<>')}-{state.value}-{money.value}" for way, state, money, _, _ in PLACES]


def test_the_table_names_every_state_and_every_place_of_the_money() -> None:
    assert {state for _, state, *_ in PLACES} == set(State)
    assert {money for _, _, money, *_ in PLACES} == set(Funds)


def _at(way: Way, state: State, money: Funds) -> World:
    world = World(purchase(ROUTE))
    way(world)
    assert (world.job.state, world.job.money) == (state, money)
    return world


def _told(world: World, event: Event) -> list[buyer.Effect]:
    _, effects = buyer.step(world.job, event)
    world.tell(event)
    return effects


@pytest.mark.parametrize("row", PLACES, ids=NAMES)
@pytest.mark.parametrize("claims", [True, False], ids=["the seller claims", "it is taken back"])
def test_cancelling_has_a_defined_end_in_every_state(row: tuple[Way, State, Funds, State, State], claims: bool) -> None:
    way, state, money, after, _ = row
    world = _at(way, state, money)
    effects = _told(world, CancelAsked(world.now))
    assert world.job.state is after
    asked = bool(world.job.request) and state not in (State.STAGED, *ENDED)
    assert any(isinstance(item, PublishCancel) for item in effects) is asked, "who was asked is told, and only then"
    if state in ENDED:
        assert effects == []
    _ends(world, claims=claims)
    assert world.job.state is after, "what comes later changes nothing"


@pytest.mark.parametrize("row", PLACES, ids=NAMES)
@pytest.mark.parametrize("claims", [True, False], ids=["the seller claims", "it is taken back"])
def test_a_deadline_has_a_defined_end_in_every_state(row: tuple[Way, State, Funds, State, State], claims: bool) -> None:
    way, state, money, _, after = row
    world = _at(way, state, money)
    world.now = max(world.now, world.job.deadline * 1000)
    _told(world, DeadlinePassed(world.now))
    assert world.job.state is after
    if state in ENDED:
        assert world.job.state is state
    _ends(world, claims=claims)


def _ends(world: World, *, claims: bool) -> None:
    """The wallet and the mint do what they do in the end; `World.check` sees that every msat is booked."""
    if world._asked() is not None:
        world.lock("done")
        assert not world.job.notes or world.job.notes[-1].word != "paid", "no token is sent for a job that is over"
    if claims:
        world.claim()
        world.watch()
    world.settle()
    assert world.job.closed
    assert world.job.money in (Funds.NONE, Funds.CLAIMED, Funds.REFUNDED)


def test_the_seller_is_out_of_it_and_what_it_brings_later_is_not_paid_twice() -> None:
    world = _at(_working, State.WORKING, Funds.LOCKED)
    world.deadline()
    world.result(SELLER)
    assert world.job.state is State.FALLBACK
    world.quote(RIVAL, 1_000)
    world.fallback(ok=True)
    assert world.job.provider == "builtin"
    _ends(world, claims=True)
    assert [op.seller for op in world.ops.values()] == [SELLER]


# -- the seller's side

CUSTOMER, OTHER = "c" * 64, "d" * 64
PAID = Sale("r", "e", CUSTOMER, 5050, "{}", Msat(5_000), quote_id="q", expires_at=100, payment="wrap")
# state, whether it is paid, the state after the customer's cancellation, and after the quote's time
SOLD: list[tuple[seller.State, seller.State, seller.State]] = [
    (seller.State.SEEN, seller.State.SEEN, seller.State.SEEN),
    (seller.State.INVOICING, seller.State.CANCELLED, seller.State.INVOICING),
    (seller.State.LAPSED, seller.State.LAPSED, seller.State.LAPSED),  # its invoice may still be paid
    (seller.State.QUOTED, seller.State.CANCELLED, seller.State.EXPIRED),
    (seller.State.WORKING, seller.State.WORKING, seller.State.WORKING),  # paid: it is finished and claimed
    (seller.State.STORING, seller.State.STORING, seller.State.STORING),  # worked for: it is delivered
    (seller.State.BILLED, seller.State.BILLED, seller.State.BILLED),  # the result is out: its invoice is waited for
    (seller.State.SEALED, seller.State.SEALED, seller.State.SEALED),  # it waits for signatures until their time is over
    (seller.State.DELIVERED, seller.State.DELIVERED, seller.State.DELIVERED),
    *((state, state, state) for state in seller.State if state in seller.ENDED),
]


def test_the_sellers_table_names_every_state() -> None:
    assert {row[0] for row in SOLD} == set(seller.State)


@pytest.mark.parametrize(("state", "cancelled", "lapsed"), SOLD)
def test_a_sale_that_is_cancelled_or_out_of_time_has_a_defined_end(
    state: seller.State, cancelled: seller.State, lapsed: seller.State
) -> None:
    sale = replace(PAID, state=state)
    assert seller.step(sale, Cancelled(CUSTOMER))[0].state is cancelled
    assert seller.step(sale, Cancelled(OTHER)) == (sale, []), "only the customer may cancel (NIP-09)"
    assert seller.step(sale, QuoteLapsed(100))[0].state is lapsed
    assert seller.step(sale, QuoteLapsed(99)) == (sale, [])


@story
async def test_a_deletion_by_another_key_is_ignored_and_the_customers_own_ends_the_quote(world: Market) -> None:
    from relays.nip90 import Input, cancel_draft, request_draft

    node, me = await world.node(services=echo(9_000)).up(), Key.generate()
    request = me.sign(request_draft(kind=5050, inputs=[Input("x")], created_at=world.clock.now()))
    world.relay.store(request)
    await until(world.clock, lambda: bool(words(node, 7000)))
    draft = cancel_draft(request.id, 5050, world.clock.now())
    world.relay.store(Key.generate().sign(draft))
    await world.clock.sleep(2)
    assert [row["state"] for row in await node.selling.list_sales()] == ["quoted"]
    world.relay.store(me.sign(Draft(DELETION, "never mind", draft.tags, world.clock.now())))
    await until(world.clock, lambda: not node.selling._open)
    assert [row["state"] for row in await node.selling.list_sales()] == ["cancelled"]
