"""Nutzaps: hostile ones cost nothing and bring nothing, good ones are swapped once and pay for jobs (NIP-61)."""

import asyncio
import json
from collections.abc import Callable, Sequence

import pytest

from core.money import Msat
from dvm.admission import Limits
from dvm.provider.echo import Echo
from dvm.service import Service
from relays.event import Event
from relays.key import Key, Keyring
from relays.nip61 import read_nutzap
from tests.model_mint import Fault
from tests.nutzap_part import Giver
from tests.unit.dvm.market_part import Node, until
from tests.unit.dvm.test_bill import ask, pay, quoted, sale_of, statuses
from tests.unit.dvm.test_market import World, freeze, story, words
from tests.wallet_part import EFFECT, PERMIT, SELLER_WORDS, make_wallet
from wallet.cashu.lock import Lock
from wallet.cashu.token import from_payload

PRICE = 20_000


def sold(**more: int) -> Callable[[], Sequence[Service]]:
    return lambda: [Service(5050, Msat(PRICE), Echo(), eta_s=2, invoices=True, **more)]


async def start(world: World, **more: int) -> Node:
    world.mint.auto_pay = False
    parts = {"services": sold(**more), "strangers": Limits(pow_bits_full=0), "gifts": True, "offered": True}
    return await world.node(**parts).up()


async def giver(world: World, sat: int = 200, key: Key | None = None) -> Giver:
    wallet = make_wallet(SELLER_WORDS, [world.mint], world.clock)
    await wallet.deposit("fund", wallet.mints[0], sat, EFFECT, PERMIT)
    for quote in list(world.mint._quotes):
        world.mint.pay(quote)
    while (await wallet.poll("fund")).state.value != "done":
        await world.clock.sleep(0.1)
    return Giver(wallet, world.clock, key)


def give(world: World, event: Event) -> None:
    world.relay.store(event)


async def tips(node: Node) -> dict[str, dict]:
    return {one["id"]: dict(one) for one in await node.nutzaps.listed()}


async def ended(node: Node, event: Event, *states: str) -> dict:
    for _ in range(4_000):
        found = (await tips(node)).get(event.id)
        if found is not None and found["state"] in states:
            return found
        await node.clock.sleep(0.05)
    raise AssertionError(await tips(node))


async def refused(node: Node, reason: str) -> None:
    await until(node.clock, lambda: bool(node.nutzaps.refused[reason]))
    assert dict(node.nutzaps.refused) == {reason: 1}


@story
async def test_where_nutzaps_are_taken_is_said_with_a_key_that_is_no_identity(world: World) -> None:
    node = await start(world)
    await until(world.clock, lambda: bool(words(node, 10_019)))
    (info,) = words(node, 10_019)
    assert info.pubkey == node.key.pubkey
    assert info.values("pubkey") == [node.wallet.key.pubkey]
    assert info.values("pubkey")[0] not in (node.key.pubkey, Keyring(node.words).operator.pubkey)
    assert info.all("mint") == [("mint", world.mint.url, "sat")]
    assert info.values("relay") == list(node.pool.urls)
    node.offered = False
    await until(world.clock, lambda: bool(words(node, 5)), 60)
    assert words(node, 5)[0].value("a") == f"10019:{node.key.pubkey}:"
    await world.clock.sleep(60)
    assert (len(words(node, 10_019)), len(words(node, 5))) == (1, 1)


@story
async def test_a_node_that_sells_nothing_says_nothing_and_takes_what_is_given_all_the_same(world: World) -> None:
    node = await world.node(gifts=True).up()
    zap = await (await giver(world)).zap(node.key.pubkey, node.nutzaps.pubkey, 10)
    give(world, zap)
    assert (await ended(node, zap, "kept"))["net_msat"] == 9_000
    assert not words(node, 10_019)


@story
async def test_a_gift_is_swapped_once_however_often_it_comes_and_its_sender_is_told(world: World) -> None:
    node, friend = await start(world), await giver(world)
    zap = await friend.zap(node.key.pubkey, node.nutzaps.pubkey, 30)
    give(world, zap)
    found = await ended(node, zap, "kept")
    assert (found["net_msat"], found["owed_msat"], found["request_id"]) == (29_000, 0, None)
    for _ in range(3):
        await node.nutzaps._on_nutzap(zap, "")
    again = friend.event(node.key.pubkey, [json.loads(text) for text in zap.values("proof")], more=(("alt", "x"),))
    give(world, again)
    await refused(node, "token.reused")
    assert await node.sat() == 29
    assert world.mint.calls.count("swap") == 2, "one to make it and one to take it"
    await until(world.clock, lambda: bool(words(node, 7_376)))
    (told,) = words(node, 7_376)
    assert (told.all("e")[0][1], told.all("e")[0][3], told.value("p")) == (zap.id, "redeemed", friend.key.pubkey)
    assert ["amount", "29"] in json.loads(node.key.decrypt(node.key.pubkey, told.content))
    effect = (await node.db.select("effect", {"subject": zap.id}))[0]
    assert effect["state"] == "commit"
    assert (await node.wallet.audit()).clean


def forged(proof: dict) -> dict:
    return {**proof, "dleq": {**proof["dleq"], "e": "11" * 32}}


def bare(proof: dict) -> dict:
    return {name: value for name, value in proof.items() if name != "dleq"}


HOSTILE: dict[str, tuple[str, Callable[[Giver, Node, list[dict]], Event]]] = {
    "another mint": (
        "token.mint", lambda g, n, p: g.event(n.key.pubkey, p, mint="https://evil.example"),
    ),
    "our mint written otherwise": (
        "token.mint", lambda g, n, p: g.event(n.key.pubkey, p, mint=n.wallet.mints[0] + "/"),
    ),
    "two mints": (
        "malformed", lambda g, n, p: g.event(n.key.pubkey, p, more=(("u", "https://evil.example"),)),
    ),
    "two recipients": (
        "malformed", lambda g, n, p: g.event(n.key.pubkey, p, more=(("p", "ab" * 32),)),
    ),
    "no proofs": ("malformed", lambda g, n, p: g.event(n.key.pubkey, [])),
    "a proof that is no object": ("malformed", lambda g, n, p: g.event(n.key.pubkey, [[1]])),
    "a proof that is too long": (
        "malformed", lambda g, n, p: g.event(n.key.pubkey, [{**p[0], "x": "y" * 5_000}]),
    ),
    "too many proofs": ("malformed", lambda g, n, p: g.event(n.key.pubkey, [{"a": 1}] * 65)),
    "a proof without its fields": ("token.malformed", lambda g, n, p: g.event(n.key.pubkey, [{"amount": 1}])),
    "an amount of zero": ("token.malformed", lambda g, n, p: g.event(n.key.pubkey, [{**p[0], "amount": 0}])),
    "a negative amount": ("token.malformed", lambda g, n, p: g.event(n.key.pubkey, [{**p[0], "amount": -8}])),
    "the same coin twice": ("token.malformed", lambda g, n, p: g.event(n.key.pubkey, [p[0], p[0]])),
    "another unit": ("token.unit", lambda g, n, p: g.event(n.key.pubkey, p, more=(("unit", "usd"),))),
    "a plain coin": ("token.lock", lambda g, n, p: g.event(n.key.pubkey, [{**p[0], "secret": "ab" * 32}])),
    "no DLEQ": ("token.forged", lambda g, n, p: g.event(n.key.pubkey, [bare(one) for one in p])),
    "one of two without DLEQ": ("token.forged", lambda g, n, p: g.event(n.key.pubkey, [p[0], bare(p[1])])),
    "a false DLEQ": ("token.forged", lambda g, n, p: g.event(n.key.pubkey, [*p[:-1], forged(p[-1])])),
    "another amount than was signed": (
        "token.forged", lambda g, n, p: g.event(n.key.pubkey, [{**p[0], "amount": 2 * p[0]["amount"]}]),
    ),
    "an amount that the keyset has not": (
        "token.keyset", lambda g, n, p: g.event(n.key.pubkey, [{**p[0], "amount": 3}]),
    ),
    "dated far ahead": ("too_early", lambda g, n, p: g.event(n.key.pubkey, p, at=n.clock.now() + 3_000)),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_nutzap_brings_nothing_and_no_mint_is_asked_to_swap(name: str) -> None:
    async def tale(world: World) -> None:
        reason, make = HOSTILE[name]
        node, stranger = await start(world), await giver(world)
        event = make(stranger, node, await stranger.proofs(20, node.nutzaps.pubkey))
        swaps = world.mint.calls.count("swap")
        await node.nutzaps._on_nutzap(event, "")
        await refused(node, reason)
        assert world.mint.calls.count("swap") == swaps
        assert await node.sat() == 0
        assert not await node.db.select("tip")
        assert not await node.db.select("effect", {"subject": event.id})

    World().run(tale)


@pytest.mark.parametrize("whose", ["identity", "somebody", "sign"])
def test_coins_that_are_locked_to_another_key_than_the_announced_one_are_refused(whose: str) -> None:
    async def tale(world: World) -> None:
        node, stranger = await start(world), await giver(world)
        ours = node.nutzaps.pubkey
        key = {"identity": "02" + node.key.pubkey, "somebody": Key.generate().compressed, "sign": "03" + ours[2:]}
        give(world, await stranger.zap(node.key.pubkey, key[whose], 20))
        await refused(node, "token.lock")

    World().run(tale)


@story
async def test_coins_that_the_sender_can_take_back_soon_are_refused(world: World) -> None:
    node, stranger = await start(world), await giver(world)
    (proof, *_) = await stranger.proofs(16, node.nutzaps.pubkey)
    back = Lock(node.nutzaps.pubkey, world.clock.now() + 600, stranger.key.compressed).secret("00" * 16)
    give(world, stranger.event(node.key.pubkey, [{**proof, "secret": back}]))
    await refused(node, "token.lock")


@pytest.mark.parametrize("names", ["sender", "nobody", "thief"])
def test_coins_that_name_their_sender_are_nobody_elses_credit(names: str) -> None:
    async def tale(world: World) -> None:
        node, friend, thief = await start(world), await giver(world), Key.generate()
        tag = {"sender": [["P", friend.key.pubkey]], "nobody": [], "thief": [["P", thief.pubkey]]}[names]
        body = {"nonce": "00" * 16, "data": node.nutzaps.pubkey, "tags": tag}
        secret = json.dumps(["P2PK", body])
        (proof, *_) = await friend.proofs(16, node.nutzaps.pubkey)
        give(world, friend.event(node.key.pubkey, [{**proof, "secret": secret}]))
        # A lock that names another sender is refused for that; else it is seen that this secret was never signed.
        await refused(node, "token.lock" if names == "thief" else "token.forged")

    World().run(tale)


@story
async def test_somebody_elses_nutzap_is_none_of_our_business(world: World) -> None:
    node, stranger = await start(world), await giver(world)
    await node.nutzaps._on_nutzap(await stranger.zap("ab" * 32, node.nutzaps.pubkey, 20), "")
    await refused(node, "malformed")


@story
async def test_coins_that_were_spent_are_refused_for_good_and_end_their_effect(world: World) -> None:
    node, stranger = await start(world), await giver(world)
    zap = await stranger.zap(node.key.pubkey, node.nutzaps.pubkey, 20)
    for proof in from_payload(read_nutzap(zap, node.key.pubkey).payload).proofs:
        world.mint.spent[proof.y] = (proof.amount, None)
    give(world, zap)
    found = await ended(node, zap, "refused")
    assert (found["reason"], found["net_msat"]) == ("token.spent", 0)
    assert (await node.db.select("effect", {"subject": zap.id}))[0]["state"] == "fail"
    assert not words(node, 7_376)


@story
async def test_what_comes_while_the_mint_is_away_is_taken_when_it_is_back(world: World) -> None:
    node, friend = await start(world), await giver(world)
    zap = await friend.zap(node.key.pubkey, node.nutzaps.pubkey, 20)
    world.mint.script = lambda name: Fault.UNREACHABLE
    for book in node.wallet._books.values():  # as if it had never been heard of
        book.roll.infos, book.roll._asked_at, book._infos, book._keysets = {}, None, {}, {}
    give(world, zap)
    await ended(node, zap, "seen")
    await world.clock.sleep(300)
    world.mint.script = lambda name: Fault.NONE
    await ended(node, zap, "kept")
    assert await node.sat() == 19


@pytest.mark.parametrize("fault", [Fault.ANSWER_LOST, Fault.REQUEST_LOST, Fault.REPEATED, Fault.BUSY, Fault.FALSE_NO])
def test_whatever_becomes_of_the_mints_answer_it_is_taken_once(fault: Fault) -> None:
    async def tale(world: World) -> None:
        node, friend = await start(world), await giver(world)
        zap = await friend.zap(node.key.pubkey, node.nutzaps.pubkey, 20)
        left = [fault]
        world.mint.script = lambda name: left.pop() if name == "swap" and left else Fault.NONE
        give(world, zap)
        await ended(node, zap, "kept")
        assert await node.sat() == 19
        assert (await node.wallet.audit()).clean

    World().run(tale)


@pytest.mark.parametrize(("table", "state"), [("tip", "taken"), ("operation", "prepared"), ("operation", "done")])
def test_a_crash_after_any_step_neither_loses_nor_doubles_a_nutzap(table: str, state: str) -> None:
    async def tale(world: World) -> None:
        node, friend = await start(world), await giver(world)
        zap = await friend.zap(node.key.pubkey, node.nutzaps.pubkey, 20)
        frozen = freeze(node, table, state)
        give(world, zap)
        await frozen.wait()
        await node.crash()
        await node.up()
        await ended(node, zap, "kept")
        assert await node.sat() == 19
        await until(world.clock, lambda: bool(words(node, 7_376)))
        await world.clock.sleep(60)
        assert len(words(node, 7_376)) == 1
        assert (await node.wallet.audit()).clean

    World().run(tale)


# ---- paying for jobs


def quote_of(node: Node, asked: Event) -> Event:
    return next(one for one in words(node, 7000) if one.value("e") == asked.id)


@pytest.mark.parametrize("names", ["request", "quote"])
def test_a_nutzap_that_names_our_request_or_quote_pays_for_the_job(names: str) -> None:
    async def tale(world: World) -> None:
        node = await start(world)
        friend = await giver(world)
        asked = ask(world, friend.key, "hello nutzap")
        await quoted(node, asked)
        named = asked.id if names == "request" else quote_of(node, asked).id
        zap = await friend.zap(node.key.pubkey, node.nutzaps.pubkey, 21, named)
        give(world, zap)
        await until(world.clock, lambda: bool(words(node, 6050)))
        assert words(node, 6050)[0].content == "hello nutzap"
        shown = await sale_of(node, asked)
        assert (shown["state"], shown["paid_by"], shown["earned_msat"]) == ("done", "credit", PRICE)
        assert statuses(node, asked) == ["payment-required", "processing"]
        found = await ended(node, zap, "repaid")
        assert (found["net_msat"], found["owed_msat"], found["request_id"]) == (PRICE, 0, asked.id)
        assert node.selling.open_count() == 0

    World().run(tale)


@story
async def test_too_little_is_kept_and_counts_with_what_comes_after_it(world: World) -> None:
    node = await start(world)
    friend = await giver(world)
    asked = ask(world, friend.key, "in two parts")
    await quoted(node, asked)
    first = await friend.zap(node.key.pubkey, node.nutzaps.pubkey, 12, asked.id)
    give(world, first)
    assert (await ended(node, first, "owed"))["owed_msat"] == 11_000
    await world.clock.sleep(5)
    assert not words(node, 6050), "no work for a part of the price"
    second = await friend.zap(node.key.pubkey, node.nutzaps.pubkey, 13, asked.id)
    give(world, second)
    await until(world.clock, lambda: bool(words(node, 6050)))
    left = (await ended(node, first, "repaid"), await ended(node, second, "owed"))
    assert [one["owed_msat"] for one in left] == [0, 3_000]


@story
async def test_what_comes_too_late_pays_for_the_same_keys_next_request_and_nobody_elses(world: World) -> None:
    node = await start(world)
    friend = await giver(world)
    asked = ask(world, friend.key, "late", deadline=world.clock.now() + 30)
    await quoted(node, asked)
    await world.clock.sleep(40)
    zap = await friend.zap(node.key.pubkey, node.nutzaps.pubkey, 30, asked.id)
    give(world, zap)
    await ended(node, zap, "owed")
    await world.clock.sleep(20)
    assert not words(node, 6050)
    assert (await quoted(node, ask(world, Key.generate(), "not theirs"))).invoice
    fresh = ask(world, friend.key, "in time")
    await until(world.clock, lambda: bool(words(node, 6050)))
    assert words(node, 6050)[0].value("e") == fresh.id
    assert (await sale_of(node, fresh))["paid_by"] == "credit"
    assert (await ended(node, zap, "owed"))["owed_msat"] == 9_000


@story
async def test_somebody_elses_nutzap_does_not_pay_for_a_customer_and_is_its_senders_credit(world: World) -> None:
    node = await start(world)
    friend = await giver(world)
    asked = ask(world, Key.generate(), "mine")
    await quoted(node, asked)
    zap = await friend.zap(node.key.pubkey, node.nutzaps.pubkey, 30, asked.id)
    give(world, zap)
    assert (await ended(node, zap, "owed"))["sender"] == friend.key.pubkey
    await world.clock.sleep(10)
    assert (await sale_of(node, asked))["state"] == "quoted"


def test_an_invoice_that_is_paid_beside_a_nutzap_is_credit() -> None:
    World().run(_paid_twice, 20_000)


async def _paid_twice(world: World) -> None:
    node = await start(world)
    friend = await giver(world)
    asked = ask(world, friend.key, "twice")
    quote = await quoted(node, asked)
    zap = await friend.zap(node.key.pubkey, node.nutzaps.pubkey, 21, asked.id)
    give(world, zap)
    await until(world.clock, lambda: bool(words(node, 6050)))
    pay(world, quote)
    assert (await ended(node, zap, "owed"))["owed_msat"] == PRICE
    ask(world, friend.key, "for the second payment")
    await until(world.clock, lambda: len(words(node, 6050)) == 2)
    assert await node.sat() == 40
    assert (await node.db.select("tip", {"id": zap.id}))[0]["beside"] == ""
    third = ask(world, friend.key, "a third")
    await quoted(node, third)
    unpaid = await friend.zap(node.key.pubkey, node.nutzaps.pubkey, 21, third.id)
    give(world, unpaid)
    await until(world.clock, lambda: len(words(node, 6050)) == 3)
    assert (await node.db.select("tip", {"id": unpaid.id}))[0]["beside"]
    await world.clock.sleep(4 * 3_600)
    assert (await node.db.select("tip", {"id": unpaid.id}))[0]["beside"] == "", "the invoice can be paid no more"


@story
async def test_a_nutzap_is_redeemed_before_a_crash_and_pays_after_it(world: World) -> None:
    node = await start(world)
    friend = await giver(world)
    asked = ask(world, friend.key, "over a crash")
    await quoted(node, asked)
    frozen = freeze(node, "tip", "owed")
    give(world, await friend.zap(node.key.pubkey, node.nutzaps.pubkey, 21, asked.id))
    await frozen.wait()
    await node.crash()
    await node.up()
    await until(world.clock, lambda: bool(words(node, 6050)))
    assert (await sale_of(node, asked))["state"] == "done"
    assert await node.sat() == 20


@story
async def test_many_at_once_are_each_taken_once(world: World) -> None:
    node, friend = await start(world), await giver(world)
    zaps = [await friend.zap(node.key.pubkey, node.nutzaps.pubkey, 4) for _ in range(12)]
    for zap in zaps:
        give(world, zap)
    await asyncio.gather(*(ended(node, zap, "kept") for zap in zaps))
    assert await node.sat() == 36
    assert (await node.wallet.audit()).clean


@story
async def test_two_requests_at_once_with_credit_for_one_are_both_answered(world: World) -> None:
    node = await start(world)
    friend = await giver(world)
    first = ask(world, friend.key, "late", deadline=world.clock.now() + 30)
    await quoted(node, first)
    await world.clock.sleep(40)
    zap = await friend.zap(node.key.pubkey, node.nutzaps.pubkey, 30, first.id)
    give(world, zap)
    await ended(node, zap, "owed")
    both = [ask(world, friend.key, f"at once {n}") for n in range(2)]

    def answered() -> bool:
        done = {one.value("e") for one in words(node, 6050)}
        told = {one.value("e") for one in words(node, 7000) if one.value("status") == "payment-required"}
        return len(done & {one.id for one in both}) == 1 and {one.id for one in both} <= done | told

    await until(world.clock, answered)
    assert (await ended(node, zap, "owed"))["owed_msat"] == 9_000
