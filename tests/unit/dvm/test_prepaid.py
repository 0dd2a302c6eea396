"""Deposits and vouchers between real drivers over a model mint and a simulated wire, in made-up time (ADR 27)."""

import asyncio
from collections import Counter
from dataclasses import replace

import pytest

from core.error import VendoError
from core.money import MicroUsd, Msat
from core.unit import Update
from dvm import prepaid
from dvm.custodian import Custodian
from dvm.deposit import CloseAsked, Deposit
from dvm.deposit import State as Held
from dvm.deposit import step as deposit_step
from dvm.error import DepositRefused, NotNow, ProviderFailed
from dvm.job import Funds, State
from dvm.policy import Policy
from dvm.prepaid import Statement, message
from dvm.provider.echo import Echo
from dvm.record import decode, encode
from dvm.request import ComputeRequest, Datum
from dvm.selection import Terms
from dvm.settlement import Method, Settlement, choose
from dvm.view import PurchaseView
from relays.event import Draft
from relays.key import Key
from relays.kind import DM
from relays.nip17 import wrap
from tests.model_mint import Fault
from tests.unit.dvm.market_part import Node, echo
from tests.unit.dvm.test_market import World, bought, freeze, story, words

RULES = Settlement(
    prepaid_max=Msat(100_000), prepaid_after=1, prepaid_s=300, deposit_max=Msat(200_000), deposit_margin_s=60
)
CHEAP = 1_000  # msat: a lock would cost several times as much


def ask(text: str = "hello") -> ComputeRequest:
    return ComputeRequest(5050, (Datum(text),), (), MicroUsd(50_000))


class Town:
    """A buyer that knows a seller: it has bought one job there in the ordinary way."""

    def __init__(self, world: World, **parts) -> None:
        self.world = world
        self.buyer = world.node(settlement=RULES, policy=Policy(quote_window_ms=3_000, timeout_s=30, lock_margin_s=300))
        self.seller = world.node(services=echo(CHEAP), settlement=RULES, **parts)

    async def up(self) -> "Town":
        await self.buyer.up()
        await self.seller.up()
        await self.buyer.fund(500)
        view = await bought(self.buyer, ask("first"), "first")
        assert view.to_dict()["method"] == "locked"
        return self

    async def open(self, sat: int = 50) -> dict:
        row = await self.buyer.buying.prepaying.open("operator", "d", self.seller.key.pubkey, sat)
        return await self.becomes("open", row["id"])

    async def row(self) -> dict:
        (row,) = await self.buyer.buying.prepaying.rows()
        return row

    async def becomes(self, state: str, id_: str = "", seconds: float = 3_000) -> dict:
        end = self.world.clock.monotonic() + seconds
        while (row := await self.row())["state"] != state:
            assert self.world.clock.monotonic() < end, row
            await self.world.clock.sleep(0.5)
        assert id_ in ("", row["id"])
        return row

    async def theirs(self) -> dict:
        (row,) = await self.seller.selling.custodian.rows()
        return row

    async def close(self) -> dict:
        await self.buyer.buying.prepaying.close((await self.row())["id"])
        return await self.becomes("closed")

    async def clean(self) -> None:
        for node in (self.buyer, self.seller):
            if node.tasks:
                assert (await node.wallet.audit()).differences == ()

    async def effects(self, node: Node) -> list[dict]:
        return [row for row in await node.gate.open_effects() if row["key"] != "fund"]


def town(tell, **parts):
    @story
    async def told(world: World) -> None:
        await tell(await Town(world, **parts).up())

    told.__name__ = tell.__name__
    return told


async def five(here: Town, start: int = 0) -> list[PurchaseView]:
    return [await bought(here.buyer, ask(f"job {n}"), f"job {n}") for n in range(start, start + 5)]


@town
async def test_cheap_jobs_are_drawn_and_the_rest_comes_back(here: Town) -> None:
    before = await here.buyer.sat()
    row = await here.open()
    assert (row["amount_msat"], row["drawn_msat"], row["left_msat"]) == (50_000, 0, 50_000)
    calls = Counter(here.world.mint.calls) if hasattr(here.world.mint, "calls") else Counter()
    views = await five(here)
    for view in views:
        shown = view.to_dict()
        assert (view.result is not None, shown["method"], shown["money"]) == (True, "prepaid", "claimed")
        assert (shown["paid_msat"], shown["cost_msat"], shown["fees_msat"]) == (CHEAP, CHEAP, 0)
        assert view.purchase.closed
    row = await here.row()
    assert (row["drawn_msat"], row["vouchers"], row["pending"]) == (5 * CHEAP, 5, None)
    assert (await here.theirs())["drawn_msat"] == 5 * CHEAP
    assert not calls or calls == Counter(here.world.mint.calls), "no job asks the mint for anything"
    row = await here.close()
    assert row["returned_msat"] >= 50_000 - 5 * CHEAP - 1_000 - 5_000, "less the part of a sat, and the mint's fees"
    assert (await here.theirs())["state"] == "closed"
    assert row["fault"] is None
    assert await here.buyer.sat() >= before - 4 - 8
    assert await here.seller.sat() >= 4
    await here.clean()
    assert await here.effects(here.buyer) == []
    assert await here.effects(here.seller) == []


async def day(node: Node) -> dict:
    return next(row for row in await node.db.select("budget") if row["name"].startswith("day:"))


@town
async def test_a_deposit_is_no_cost_until_vouchers_draw_on_it(here: Town) -> None:
    spent = (await day(here.buyer))["spent"]
    await here.open()
    view = (await five(here))[0]
    after = await day(here.buyer)
    assert after["held"] == 0
    assert after["spent"] == spent + 5 * view.purchase.limit.cost(Msat(CHEAP)).value
    await here.close()
    last = await day(here.buyer)
    assert last["spent"] == after["spent"]


@town
async def test_jobs_at_once_wait_for_each_other_and_each_is_charged_once(here: Town) -> None:
    await here.open()
    staged = [await here.buyer.buying.buy("agent:a", f"j{n}", ask(f"j{n}")) for n in range(4)]
    for one in staged:
        while not (view := await here.buyer.buying.view(one.job_id)).purchase.closed:
            await here.world.clock.sleep(0.1)
        assert (view.state, view.to_dict()["method"]) == ("delivered", "prepaid")
    assert (await here.row())["drawn_msat"] == (await here.theirs())["drawn_msat"] == 4 * CHEAP


@town
async def test_a_dear_job_is_locked_for_itself_though_there_is_a_deposit(here: Town) -> None:
    await here.open(100)
    here.seller.selling.put(replace(here.seller.services()[0], price=Msat(60_000)))
    view = await bought(here.buyer, ask("dear"), "dear")
    assert view.to_dict()["method"] == "locked"


class Failing(Echo):
    """Fails when it is told to."""

    fails = True

    async def run(self, request, *rest):
        if self.fails:
            raise ProviderFailed("It is broken.")
        return await super().run(request, *rest)


@pytest.mark.parametrize("moment", ["asked", "locking", "sent", "open", "closing", "taking", "returned"])
def test_a_buyer_that_crashes_anywhere_forgets_nothing_and_pays_once(moment: str) -> None:
    async def tell(world: World) -> None:
        here = await Town(world).up()
        before = await here.buyer.sat()
        opening = moment in ("asked", "locking", "sent", "open")
        if not opening:
            await here.open()
            await five(here)
        frozen = freeze(here.buyer, "deposit", moment)
        prepaying = here.buyer.buying.prepaying
        task = asyncio.create_task(
            prepaying.open("operator", "d", here.seller.key.pubkey, 50)
            if opening
            else prepaying.close((await here.row())["id"])
        )
        await frozen.wait()
        task.cancel()
        await here.buyer.crash()
        await world.clock.sleep(1)
        await here.buyer.up()
        if opening:
            assert (await here.open())["state"] == "open"
            await five(here)
            await here.close()
        else:
            await here.becomes("closed")
        assert (await here.row())["drawn_msat"] == 5 * CHEAP
        assert (await here.row())["returned_msat"] >= 50_000 - 5 * CHEAP - 6_000
        assert await here.buyer.sat() >= before - 4 - 8
        await here.clean()

    World().run(tell, 100_000)


@pytest.mark.parametrize("moment", ["open", "claiming", "returning", "closed"])
def test_a_seller_that_crashes_anywhere_gives_the_rest_back_once(moment: str) -> None:
    async def tell(world: World) -> None:
        here = await Town(world).up()
        if moment != "open":
            await here.open()
            await five(here)
        frozen = freeze(here.seller, "deposit", moment)
        prepaying = here.buyer.buying.prepaying
        if moment == "open":
            await prepaying.open("operator", "d", here.seller.key.pubkey, 50)
        else:
            await prepaying.close((await here.row())["id"])
        await frozen.wait()
        await here.seller.crash()
        await world.clock.sleep(1)
        await here.seller.up()
        if moment == "open":
            await here.open()
            await five(here)
            await here.close()
        row = await here.becomes("closed")
        assert (row["drawn_msat"], (await here.theirs())["drawn_msat"]) == (5 * CHEAP, 5 * CHEAP)
        assert row["returned_msat"] >= 50_000 - 5 * CHEAP - 6_000
        await here.clean()

    World().run(tell, 100_000)


async def stopped(node: Node, table: str, state: str) -> asyncio.Event:
    """As `freeze`, for one row more in this state than there are now."""
    frozen, commit, before = asyncio.Event(), node.db.commit, await node.db.count(table, {"state": state})

    async def stopping(writes) -> None:
        if frozen.is_set():
            await asyncio.Event().wait()
        await commit(writes)
        if await node.db.count(table, {"state": state}) > before:
            frozen.set()
            del node.db.commit
            await asyncio.Event().wait()

    node.db.commit = stopping
    return frozen


@pytest.mark.parametrize(
    ("who", "moment"), [("buyer", "paying"), ("buyer", "working"), ("buyer", "delivered"), ("seller", "quoted"),
                        ("seller", "working"), ("seller", "done")],
)  # fmt: skip
def test_a_crash_in_the_middle_of_a_job_charges_it_once(who: str, moment: str) -> None:
    async def tell(world: World) -> None:
        here = await Town(world).up()
        await here.open()
        node = here.buyer if who == "buyer" else here.seller
        while (await here.seller.selling.list_sales())[0]["state"] != "done":
            await world.clock.sleep(0.1)
        frozen = await stopped(node, "purchase" if who == "buyer" else "sale", moment)
        task = asyncio.create_task(here.buyer.buying.buy("agent:a", "k", ask("once")))
        await frozen.wait()
        staged = await task
        await node.crash()
        await world.clock.sleep(0.5)
        await node.up()
        while not (view := await here.buyer.buying.view(staged.job_id)).purchase.closed:
            await world.clock.sleep(0.1)
        assert (view.result, view.to_dict()["money"]) == ("once", "claimed")
        assert (await here.row())["drawn_msat"] == (await here.theirs())["drawn_msat"] == CHEAP
        view = await bought(here.buyer, ask("next"), "next")
        assert view.to_dict()["method"] == "prepaid"
        assert (await here.row())["drawn_msat"] == (await here.theirs())["drawn_msat"] == 2 * CHEAP

    World().run(tell)


@town
async def test_a_seller_that_goes_away_leaves_the_deposit_to_be_taken_back(here: Town) -> None:
    before = await here.buyer.sat()
    await here.open()
    await here.seller.crash()
    row = await here.becomes("refunded")
    assert row["returned_msat"] >= 45_000
    assert await here.buyer.sat() >= before - 6
    await here.clean()
    assert await here.effects(here.buyer) == []


@town
async def test_a_seller_claims_what_was_earned_before_it_could_be_taken_back(here: Town) -> None:
    await here.open()
    await five(here)
    row = await here.becomes("closed", seconds=3_000)
    assert row["returned_msat"] >= 50_000 - 5 * CHEAP - 6_000
    assert (await here.theirs())["state"] == "closed"


@town
async def test_a_seller_that_comes_back_too_late_has_lost_what_was_earned(here: Town) -> None:
    await here.open()
    await five(here)
    await here.seller.crash()
    assert (await here.becomes("refunded"))["drawn_msat"] == 5 * CHEAP
    await here.seller.up()
    while (await here.theirs())["state"] != "lost":
        await here.world.clock.sleep(1)
    await here.clean()
    assert await here.effects(here.seller) == []


@town
async def test_nothing_earned_is_not_claimed_when_a_buyer_is_gone(here: Town) -> None:
    await here.open()
    await here.buyer.crash()
    await here.world.clock.sleep(280)
    assert (await here.theirs())["state"] == "released"
    await here.buyer.up()
    assert (await here.becomes("refunded"))["returned_msat"] >= 45_000


def test_a_deposit_is_drawn_only_where_a_lock_costs_too_much() -> None:
    def chosen(price: int, out: int = 0) -> str:
        lock, drawn = Terms("m", "k", Msat(price + 3_000)), Terms("m", "k", Msat(price), Method.PREPAID, deposit="d")
        (way,), _ = choose([lock, drawn], Msat(price), replace(RULES, max_unsecured=Msat(50_000)), Msat(out))
        return way.method.value

    assert [chosen(1_000), chosen(29_000), chosen(30_000)] == ["prepaid", "prepaid", "locked"]
    assert chosen(30_000, out=40_000) == "prepaid", "no more may be out to this seller"


@town
async def test_what_may_be_deposited_is_bounded(here: Town) -> None:
    prepaying, seller = here.buyer.buying.prepaying, here.seller.key.pubkey
    for sat, at, why in ((101, seller, "At most"), (20, "ab" * 32, "has delivered 0 jobs"), (0, seller, "At most")):
        with pytest.raises(DepositRefused, match=why):
            await prepaying.open("operator", f"{sat}{at}", at, sat)
    with pytest.raises(DepositRefused, match="own key"):
        await prepaying.open("operator", "own", here.buyer.key.pubkey, 10)
    await here.open()
    with pytest.raises(DepositRefused, match="open deposit"):
        await prepaying.open("operator", "second", seller, 10)
    same = await prepaying.open("operator", "d", seller, 50)
    assert same["id"] == (await here.row())["id"]
    await here.close()
    with pytest.raises(NotNow):
        await prepaying.close(same["id"])
    assert len(await here.effects(here.buyer)) == 0


@town
async def test_a_deposit_counts_for_what_may_be_out_to_a_seller(here: Town) -> None:
    await here.open()
    assert here.buyer.buying._unsecured(here.seller.key.pubkey, "") == Msat(50_000)
    await five(here)
    assert here.buyer.buying._unsecured(here.seller.key.pubkey, "") == Msat(50_000 - 5 * CHEAP)
    await here.close()
    assert here.buyer.buying._unsecured(here.seller.key.pubkey, "") == Msat(0)


def test_a_seller_that_takes_none_says_so_and_nothing_is_locked() -> None:
    async def tell(world: World) -> None:
        here = Town(world)
        here.seller.settlement = replace(RULES, deposit_max=Msat(0))
        await here.up()
        before = await here.buyer.sat()
        await here.buyer.buying.prepaying.open("operator", "d", here.seller.key.pubkey, 50)
        row = await here.becomes("failed")
        assert "takes no deposits" in row["error"]
        assert await here.buyer.sat() == before
        assert await here.effects(here.buyer) == []

    World().run(tell)


@town
async def test_a_seller_that_never_answers_gets_nothing(here: Town) -> None:
    await here.seller.crash()
    await here.buyer.buying.prepaying.open("operator", "d", here.seller.key.pubkey, 50)
    assert "did not answer" in (await here.becomes("failed"))["error"]


def say(here: Town, node: Node, peer: Node, word: str, deposit: str, *tags, content: str = "") -> None:
    draft = message(word, peer.key.pubkey, deposit, here.world.clock.now(), *tags, content=content)
    here.world.relay.store(wrap(node.key, peer.key.pubkey, draft))


@town
async def test_a_seller_that_counts_more_than_was_signed_is_found_out(here: Town) -> None:
    row = await here.open()
    await five(here)
    lie = Statement(prepaid.OPEN, 5, Msat(6 * CHEAP), False)
    say(here, here.seller, here.buyer, prepaid.ACCOUNT, row["id"], lie.tag())
    await here.world.clock.sleep(1)
    assert (await here.row())["fault"] == "total"
    assert (await here.row())["drawn_msat"] == 5 * CHEAP


@town
async def test_what_a_stranger_sends_to_a_quote_does_not_keep_its_customer_from_paying(here: Town) -> None:
    """A quote's id is public, and what is looked at for one quote is bounded."""
    stranger, world = Key.generate(), here.world
    quote_of = here.seller.selling._quote_id
    strangers = 0

    async def flood() -> None:
        nonlocal strangers
        while not strangers:
            for place in list(here.seller.selling._open.values()):
                for n in range(6):
                    tags = (("p", here.seller.key.pubkey), ("quote", quote_of(place)), ("voucher", f"{n}"))
                    draft = Draft(DM, "{}", tags, world.clock.now())
                    world.relay.store(wrap(stranger, here.seller.key.pubkey, draft))
                    strangers += 1
            await world.clock.sleep(0.001)

    flooding = asyncio.create_task(flood())
    view = await bought(here.buyer, ask("among strangers"), "among strangers")
    await flooding
    assert strangers
    assert (view.result is not None, view.to_dict()["money"]) == (True, "claimed")


@town
async def test_a_stranger_says_nothing_of_a_deposit(here: Town) -> None:
    row = await here.open()
    stranger = here.world.node()
    await stranger.up()
    over = Statement(prepaid.CLOSED, 0, Msat(0), False)
    say(here, stranger, here.buyer, prepaid.ACCOUNT, row["id"], over.tag(), content="cashuBnothing")
    say(here, stranger, here.seller, prepaid.CLOSE, row["id"], ("seq", "0"))
    await here.world.clock.sleep(2)
    assert ((await here.row())["state"], (await here.theirs())["state"]) == ("open", "open")
    await five(here)


@town
async def test_a_worthless_rest_does_not_keep_the_deposit_from_coming_back(here: Town) -> None:
    row = await here.open()
    await here.seller.crash()
    over = Statement(prepaid.CLOSED, 0, Msat(0), False)
    for _ in range(5):
        say(here, here.seller, here.buyer, prepaid.ACCOUNT, row["id"], over.tag(), content="cashuBnothing")
        await here.world.clock.sleep(30)
    assert (await here.row())["fault"] == "token"
    assert (await here.becomes("refunded"))["returned_msat"] >= 45_000
    await here.clean()


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dvm.deposit.GRACE_S", 60)


@pytest.mark.usefixtures("short_grace")
@town
async def test_a_seller_that_takes_all_and_says_nothing_is_given_up_in_the_end(here: Town) -> None:
    row = await here.open()
    await five(here)
    custodian: Custodian = here.seller.selling.custodian

    async def kept(custody):
        return None

    custodian._return = kept
    await here.buyer.buying.prepaying.close(row["id"])
    assert (await here.becomes("lost", seconds=3_000))["fault"] == "kept"
    assert await here.effects(here.buyer) == []


@town
async def test_a_job_that_fails_is_not_charged(here: Town) -> None:
    await here.open()
    broken = Failing()
    here.seller.selling.put(replace(here.seller.services()[0], provider=broken))
    view = await bought(here.buyer, ask("x"), "x")
    shown = view.to_dict()
    assert (view.state, shown["method"], shown["money"], shown["cost_msat"]) == ("failed", "prepaid", "refunded", 0)
    assert (await here.row())["drawn_msat"] == (await here.theirs())["drawn_msat"] == 0
    broken.fails = False
    view = await bought(here.buyer, ask("y"), "y")
    assert (view.to_dict()["method"], (await here.theirs())["drawn_msat"]) == ("prepaid", CHEAP)
    assert (await here.row())["vouchers"] == 2
    await here.close()


@town
async def test_a_job_of_a_seller_that_dies_at_work_waits_for_its_word(here: Town) -> None:
    await here.open()
    frozen = freeze(here.seller, "sale", "working")
    staged = await here.buyer.buying.buy("agent:a", "k", ask("slow"))
    await frozen.wait()
    await here.seller.crash()
    while not (view := await here.buyer.buying.view(staged.job_id)).ended:
        await here.world.clock.sleep(1)
    assert (view.state, view.purchase.money, view.purchase.closed) == ("failed", Funds.LOCKED, False)
    await here.world.clock.sleep(60)
    assert (await here.row())["pending"] is not None, "nobody knows yet"
    await here.seller.up()
    while not (view := await here.buyer.buying.view(staged.job_id)).purchase.closed:
        await here.world.clock.sleep(1)
    ours, theirs = await here.row(), await here.theirs()
    assert ours["drawn_msat"] == theirs["drawn_msat"]
    assert view.purchase.cost == Msat(ours["drawn_msat"])
    assert ours["pending"] is None


@town
async def test_an_old_copy_of_the_buyer_draws_nothing_more(here: Town) -> None:
    await here.open()
    await here.buyer.down()
    await here.buyer.up(copied=True)
    assert (await here.row())["state"] == "closing"
    await here.becomes("closed")


@town
async def test_the_rest_comes_back_to_an_old_copy_too_though_it_knows_of_fewer_vouchers(here: Town) -> None:
    await here.open()
    await here.buyer.down()
    (old,) = await here.buyer.db.select("deposit", {"side": "buyer"})
    await here.buyer.up()
    await bought(here.buyer, ask("after the copy"), "after the copy")
    await here.buyer.down()
    (now,) = await here.buyer.db.select("deposit", {"side": "buyer"})
    assert old["body"] != now["body"]
    known = {key: old[key] for key in ("state", "body")}
    await here.buyer.db.commit([Update("deposit", {"id": now["id"], "side": "buyer"}, known)])
    await here.buyer.up(copied=True)
    await here.becomes("closed")
    assert (await held(here.buyer)).returned > Msat(0)


async def held(node: Node) -> Deposit:
    (row,) = await node.db.select("deposit", {"side": "buyer"})
    return decode(Deposit, row["body"])


@town
async def test_what_is_kept_of_a_deposit_is_no_money(here: Town) -> None:
    await here.open()
    await five(here)
    await here.close()
    for node in (here.buyer, here.seller):
        for row in await node.db.select("deposit"):
            assert "cashuB" not in row["body"]
            assert '"secret"' not in row["body"]
    assert (await held(here.buyer)).state is Held.CLOSED
    for event in words(here.seller, 7000):
        assert "cashuB" not in event.content


@town
async def test_errors_have_codes(here: Town) -> None:
    with pytest.raises(VendoError) as caught:
        await here.buyer.buying.prepaying.close("00" * 32)
    assert caught.value.code == "prepaid.no_such_deposit"
    assert State.PAYING


@pytest.mark.parametrize("crash", [False, True])
def test_a_deposit_that_is_closed_while_its_coins_are_being_locked_ends_closed_with_the_money_back(crash: bool) -> None:
    async def tell(world: World) -> None:
        here = await Town(world).up()
        before, prepaying = await here.buyer.sat(), here.buyer.buying.prepaying
        away = [True]
        swaps = [0]

        def script(call: str) -> Fault:
            swaps[0] += call == "swap"
            return (Fault.ANSWER_LOST if call == "swap" else Fault.UNREACHABLE) if away and swaps[0] else Fault.NONE

        world.mint.script = script
        row = await prepaying.open("operator", "d", here.seller.key.pubkey, 50)
        await here.becomes("locking", row["id"])
        while not swaps[0]:
            await world.clock.sleep(0.1)
        for _ in range(2):  # asked twice it is closed once
            assert (await prepaying.close(row["id"]))["state"] == "locking"
        if crash:
            await here.buyer.crash()
            await here.buyer.up()
        await world.clock.sleep(20)
        assert (await here.row())["state"] == "locking", "what may have left is not called closed"
        away.clear()
        shown = await here.becomes("closed")
        assert (shown["drawn_msat"], shown["fault"]) == (0, None)
        assert await here.buyer.sat() >= before - 12, "less by the fees of locking and giving back"
        assert len(await here.effects(here.buyer)) == 0
        await here.clean()

    World().run(tell, 20_000)


@town
async def test_a_deposit_that_is_closed_and_turns_out_to_have_never_been_locked_has_failed(here: Town) -> None:
    before = await here.buyer.sat()
    frozen = freeze(here.buyer, "deposit", "locking")
    task = asyncio.create_task(here.buyer.buying.prepaying.open("operator", "d", here.seller.key.pubkey, 50))
    await frozen.wait()
    task.cancel()
    await here.buyer.crash()
    (row,) = await here.buyer.db.select("deposit", {"side": "buyer"})
    asked, _ = deposit_step(decode(Deposit, row["body"]), CloseAsked())
    await here.buyer.db.commit([Update("deposit", {"id": row["id"], "side": "buyer"}, {"body": encode(asked)})])
    here.world.mint.script = lambda call: Fault.REFUSED if call == "swap" else Fault.NONE
    await here.buyer.up()
    await here.becomes("failed")
    assert await here.buyer.sat() == before
