"""Jobs that build on others: the error travels, only finished steps are charged, and nobody else's word counts."""

from dataclasses import replace

import pytest

from core.error import InvalidInput
from core.money import MicroUsd, Msat
from core.unit import Update
from dvm.chain import MAX_REFERENCES, PLACEHOLDER, as_compute, earlier_request, previewed, result_text
from dvm.error import ChainBroken, InputTooLarge, NoSuchJob, NotFinished, ProviderFailed
from dvm.job import Purchase
from dvm.policy import Policy
from dvm.provider.echo import Echo
from dvm.provider.provider import Answer
from dvm.record import decode, encode
from dvm.request import ComputeRequest, Datum
from dvm.service import Service
from relays.event import Draft, Event
from relays.key import Key
from relays.nip90 import Input, cancel_draft, feedback_draft, read_request, request_draft, result_draft
from tests.unit.dvm.market_part import echo, until
from tests.unit.dvm.test_market import World, bought, story, words

ME, SELLER, STRANGER = Key.generate(), Key.generate(), Key.generate()
NOW = 1_700_000_000
POLICY = Policy(order=("dvm",), quote_window_ms=1_500, timeout_s=30, lock_margin_s=60)


def ask(*inputs: Datum) -> ComputeRequest:
    return ComputeRequest(5050, inputs, (), MicroUsd(50_000))


def request(*providers: str, kind: int = 5050) -> Event:
    return ME.sign(request_draft(kind=kind, inputs=[Input("earlier")], created_at=NOW, providers=providers))


def result(of: Event, text: str, key: Key = SELLER, at: int = NOW + 1) -> Event:
    return key.sign(result_draft(request=read_request(of), content=text, created_at=at))


# -- which event counts


def test_the_earliest_good_result_counts() -> None:
    of = request()
    events = [result(of, "late", at=NOW + 9), result(of, "", at=NOW + 1), result(of, "good", at=NOW + 2)]
    assert result_text(of, events, "").text == "good"
    assert result_text(of, events, events[0].id).text == "late", "the customer says which one it took"
    assert result_text(of, [], "").text is None


def test_what_is_not_a_result_of_that_request_does_not_count() -> None:
    of, other = request(SELLER.pubkey), request(SELLER.pubkey, kind=5001)
    wrong = [
        result(of, "a stranger's", STRANGER),
        result(other, "x"),
        SELLER.sign(Draft(6001, "another kind", (("e", of.id),), NOW + 1)),
        SELLER.sign(Draft(6050, "sealed", (("e", of.id), ("encrypted",)), NOW + 1)),
        SELLER.sign(Draft(1, "a note", (("e", of.id),), NOW + 1)),
    ]
    assert result_text(of, wrong, "").text is None


def test_a_failure_or_a_cancellation_travels_and_a_strangers_does_not() -> None:
    of = request(SELLER.pubkey)
    draft = feedback_draft(request=read_request(of), status="error", created_at=NOW, info="out of ink")
    with pytest.raises(ProviderFailed, match="out of ink"):
        result_text(of, [SELLER.sign(draft)], "")
    assert result_text(of, [STRANGER.sign(draft)], "").text is None
    with pytest.raises(ProviderFailed, match="cancelled"):
        result_text(of, [ME.sign(cancel_draft(of.id, 5050, NOW))], "")
    assert result_text(of, [STRANGER.sign(cancel_draft(of.id, 5050, NOW))], "").text is None


def test_what_names_no_open_request_is_refused() -> None:
    note = ME.sign(Draft(1, "a note", (), NOW))
    sealed = ME.sign(Draft(5050, "…", (("encrypted",),), NOW))
    for event in (note, sealed):
        with pytest.raises(ProviderFailed):
            earlier_request(Datum(event.id, "job"), [event])


def test_a_provider_judges_a_placeholder_and_too_many_references_are_its_to_refuse() -> None:
    asked = as_compute(read_request(ME.sign(request_draft(
        kind=5050, inputs=[Input("ab" * 32, "job"), Input("and this")], created_at=NOW,
    ))))  # fmt: skip
    assert [item.data for item in previewed(asked).inputs] == [PLACEHOLDER, "and this"]
    Echo().check(previewed(asked))
    crowd = replace(asked, inputs=tuple(Datum(f"{n:064x}", "job") for n in range(MAX_REFERENCES + 1)))
    for bad in (crowd, replace(asked, inputs=(Datum("no id", "event"),)), replace(asked, inputs=(Datum("u", "url"),))):
        with pytest.raises(InvalidInput):
            Echo().check(previewed(bad))


# -- between nodes


@story
async def test_a_chain_of_three_whose_middle_fails_charges_only_the_first(world: World) -> None:
    class Broken(Echo):
        async def run(self, request: ComputeRequest) -> Answer:
            if "break" in request.inputs[-1].data:
                await world.clock.sleep(3)
                raise ProviderFailed("out of paper")
            return await super().run(request)

    def services() -> list[Service]:
        return [Service(5050, Msat(9_000), Broken(), eta_s=2)]

    buyer, seller = world.node(policy=POLICY), world.node(services=services)
    await buyer.up()
    await seller.up()
    await buyer.fund(200)
    await world.clock.sleep(1)
    to = seller.key.pubkey
    first = await buyer.buying.buy("agent:a", "1", replace(ask(Datum("one")), to=to))
    await until(world.clock, lambda: len(words(buyer, 5050)) == 1)
    broken = replace(ask(Datum(first.job_id, "job"), Datum("break")), to=to)
    second = await buyer.buying.buy("agent:a", "2", broken)
    await until(world.clock, lambda: len(words(buyer, 5050)) == 2)
    third = await buyer.buying.buy("agent:a", "3", ask(Datum(second.job_id, "job")))
    await until(world.clock, lambda: not buyer.buying._open, 900)
    shown = [(await buyer.buying.view(one.job_id)).to_dict() for one in (first, second, third)]
    assert [one["state"] for one in shown] == ["delivered", "failed", "failed"]
    assert "out of paper" in shown[1]["error"]
    assert "builds on" in shown[2]["error"], shown[2]["error"]
    assert [one["money"] for one in shown] == ["claimed", "refunded", "refunded"]
    assert await seller.sat() == 9
    with pytest.raises(ChainBroken, match="out of paper"):
        await buyer.buying.buy("agent:a", "4", ask(Datum(second.job_id, "job")))


@story
async def test_each_step_works_on_what_the_one_before_it_found(world: World) -> None:
    buyer, seller = world.node(), world.node(services=echo(9_000))
    await buyer.up()
    await seller.up()
    await buyer.fund(200)
    await world.clock.sleep(1)
    first = await bought(buyer, ask(Datum("one")), key="1")
    second = await bought(buyer, ask(Datum(first.job_id, "job"), Datum("two")), key="2")
    assert second.result == "one\n\ntwo"
    sent = next(event for event in words(buyer, 5050) if event.id == second.purchase.request_id)
    assert sent.all("i")[0][1:3] == (first.purchase.request_id, "job")
    assert sent.all("result") == [("result", first.purchase.request_id, first.purchase.result_id)]
    forged = result_draft(request=read_request(words(buyer, 5050)[0]), content="mine", created_at=world.clock.now() - 5)
    world.relay.store(STRANGER.sign(forged))
    third = await bought(buyer, ask(Datum(first.purchase.request_id, "job")), key="3")
    assert third.result == "one", "the result that was taken is pinned"


@story
async def test_jobs_of_others_and_unfinished_ones_are_not_built_on(world: World) -> None:
    buyer, seller = world.node(providers=[Echo()]), world.node(services=echo())
    await buyer.up()
    await seller.up()
    own = await bought(buyer, ask(Datum("mine alone")), key="1")
    with pytest.raises(NoSuchJob):
        await buyer.buying.buy("agent:b", "2", ask(Datum(own.job_id, "job")))
    with pytest.raises(NoSuchJob):
        await buyer.buying.buy("agent:a", "3", ask(Datum("no such job", "job")))
    private = replace(ask(Datum("a secret")), to=seller.key.pubkey, private="wrap")
    hidden = await bought(buyer, private, key="4")
    with pytest.raises(ChainBroken, match="private"):
        await buyer.buying.buy("agent:a", "5", ask(Datum(hidden.job_id, "job")))
    again = await bought(buyer, replace(private, inputs=(Datum(hidden.job_id, "job"),)), key="6")
    assert again.result == "a secret"
    staged = await buyer.buying.stage("agent:a", "7", ask(Datum("later")))
    await buyer.db.commit(staged.writes)
    with pytest.raises(NotFinished):
        await buyer.buying.buy("agent:a", "8", ask(Datum(staged.job_id, "job")))


@story
async def test_an_open_job_that_anybody_may_answer_is_not_built_on(world: World) -> None:
    """A stranger could answer the first request, as if long ago, and its words would be taken for the result."""
    buyer = world.node(policy=POLICY)
    await buyer.up()
    first = await buyer.buying.buy("agent:a", "1", ask(Datum("one")))
    await until(world.clock, lambda: len(words(buyer, 5050)) == 1)
    with pytest.raises(NotFinished):
        await buyer.buying.buy("agent:a", "2", ask(Datum(first.job_id, "job")))
    to_one = await buyer.buying.buy("agent:a", "3", replace(ask(Datum("one")), to=STRANGER.pubkey))
    await until(world.clock, lambda: len(words(buyer, 5050)) == 2)
    assert (await buyer.buying.buy("agent:a", "4", ask(Datum(to_one.job_id, "job")))).job_id


@story
async def test_what_was_bought_sealed_is_built_on_as_text(world: World) -> None:
    sealed = {"proven": lambda mint: True}
    buyer, seller = world.node(**sealed), world.node(services=echo(9_000), **sealed)
    await buyer.up()
    await seller.up()
    await buyer.fund(200)
    await world.clock.sleep(1)
    first = await bought(buyer, ask(Datum("one")), key="1")
    assert first.purchase.result_id == first.purchase.sealed_id != ""
    second = await bought(buyer, ask(Datum(first.job_id, "job"), Datum("two")), key="2")
    assert second.result == "one\n\ntwo"
    sent = next(event for event in words(buyer, 5050) if event.id == second.purchase.request_id)
    assert sent.all("i")[0][1:3] == ("one", "text")


@story
async def test_an_earlier_result_that_makes_the_request_too_long_is_refused_before_anything_is_kept(
    world: World,
) -> None:
    buyer, seller = world.node(providers=[Echo()]), world.node(services=echo())
    await buyer.up()
    await seller.up()
    first = await bought(buyer, replace(ask(Datum("x" * 12_000)), to=seller.key.pubkey, private="wrap"), key="1")
    assert first.result
    too_long = [Datum(first.job_id, "job"), Datum("y" * 15_000)]
    with pytest.raises(InputTooLarge, match="encrypted"):
        await buyer.buying.buy("agent:a", "2", replace(ask(*too_long), to=seller.key.pubkey, private="wrap"))
    assert len(await buyer.db.select("purchase")) == 1


@story
async def test_a_job_whose_request_cannot_be_made_ends_and_holds_no_money(world: World) -> None:
    buyer = world.node()
    await buyer.up()
    hidden = replace(ask(Datum("x")), to=STRANGER.pubkey, private="nip44")
    staged = await buyer.buying.stage("agent:a", "1", hidden)
    await buyer.db.commit(staged.writes)
    (row,) = await buyer.db.select("purchase")
    long = replace(decode(Purchase, row["body"]), inputs=(Datum("x" * 70_000),))
    await buyer.db.commit([Update("purchase", {"id": staged.job_id}, {"body": encode(long)})])
    await buyer.buying.adopt()
    await until(world.clock, lambda: not buyer.buying._open, 60)
    shown = (await buyer.buying.view(staged.job_id)).to_dict()
    assert (shown["state"], shown["money"], shown["cost_uusd"]) == ("failed", "none", 0)
    assert "cannot be made" in shown["error"]
    assert shown["released_uusd"] == shown["reserved_uusd"]
    assert words(buyer, 5050) == []


@story
async def test_the_built_in_provider_builds_on_our_own_results_too(world: World) -> None:
    buyer, seller = world.node(providers=[Echo()]), world.node(services=echo())
    await buyer.up()
    await seller.up()
    own = await bought(buyer, ask(Datum("from the market")), key="1")
    await seller.down()
    after = await bought(buyer, ask(Datum(own.job_id, "job")), key="2")
    assert (after.to_dict()["provider"], after.result) == ("builtin", "from the market")


@story
async def test_nothing_is_fetched_for_a_stranger_who_has_not_paid(world: World) -> None:
    """M7: a quote is made without a look at what the job builds on."""
    buyer, seller = world.node(), world.node(services=echo(9_000))
    await buyer.up()
    await seller.up()
    asked: list[float] = []
    fetch = seller.selling._counter.material._fetch

    async def counting(filters, seconds: float) -> list[Event]:
        asked.append(world.clock.monotonic())
        return await fetch(filters, seconds)

    seller.selling._counter.material._fetch = counting
    note = ME.sign(Draft(1, "a public note", (), world.clock.now()))
    world.relay.store(note)
    world.relay.store(ME.sign(request_draft(kind=5050, inputs=[Input(note.id, "event")], created_at=world.clock.now())))
    await until(world.clock, lambda: bool(words(seller, 7000)))
    await world.clock.sleep(90)
    assert words(seller, 7000)[0].value("status") == "payment-required"
    assert asked == []
    await buyer.fund(200)
    assert (await bought(buyer, ask(Datum(note.id, "event")))).result == "a public note"
    assert asked


@story
async def test_an_event_is_an_input_if_our_relays_have_it_and_nothing_is_waited_for_without_end(world: World) -> None:
    buyer, seller = world.node(), world.node(services=echo())
    await buyer.up()
    await seller.up()
    note = ME.sign(Draft(1, "a public note", (), world.clock.now()))
    world.relay.store(note)
    assert (await bought(buyer, ask(Datum(note.id, "event")), key="1")).result == "a public note"
    began = world.clock.monotonic()
    missing = await bought(buyer, ask(Datum("ab" * 32, "event")), key="2")
    assert missing.state == "failed"
    await until(world.clock, lambda: not seller.selling._open, 100)
    assert world.clock.monotonic() - began < 60, "a free job is not waited for as long as a paid one"
    assert {row["state"] for row in await seller.selling.list_sales()} == {"done", "failed"}
