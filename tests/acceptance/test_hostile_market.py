"""A real relay, a real mint and real nodes among strangers, forgers and fools: a clear answer, and nothing is lost.

The tests share one market and run in any order: each states its facts as differences.
"""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import pytest_asyncio

from cli.demo.wire import watching
from core.error import Unavailable
from relays.error import NotForUs
from relays.event import Draft, Event, tags
from relays.key import Key
from relays.kind import DM, GIFT_WRAP, HANDLER, JOB_FEEDBACK, SEAL
from relays.nip17 import Rumor, rumor_id, unwrap, wrap
from tests.market_part import ECHO_FREE, PATIENT, SUMMARY_21, Market, Spec, dead_address, market, until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]
OWNER = Key.generate()
FUNDS = 500
TEXT = " ".join(
    f"Sentence number {n} of this text says that a market needs {word}, and that nobody gets {word} for nothing."
    for n, word in enumerate(("buyers", "sellers", "prices", "promises", "proofs", "patience"), 1)
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def town(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Market]:
    # where tests run a quote may take longer than the window; then the built-in provider does the work
    nodes = {"seller": Spec(ECHO_FREE + SUMMARY_21), "buyer": Spec(replace=PATIENT, owner=OWNER.npub)}
    async with market(tmp_path_factory.mktemp("hostile"), nodes) as opened:
        await opened.fund("buyer", FUNDS)
        yield opened


def _key() -> str:
    return secrets.token_hex(8)


async def _publish(town: Market, event: Event) -> tuple[bool, str]:
    """Hand an event to the relay; its OK and reason."""
    async with town.http.ws_connect(town.relay) as link:
        await link.send_str('["EVENT",' + event.to_json() + "]")
        while True:
            frame = orjson.loads((await link.receive(timeout=30)).data)
            if frame[0] == "OK":
                return frame[2], frame[3]


async def _say(town: Market, sender: Key, text: str) -> None:
    agent = town.rings["buyer"].agent("agent").pubkey
    good, reason = await _publish(town, wrap(sender, agent, Draft(DM, text, tags([["p", agent]]), int(time.time()))))
    assert good, reason


async def _replies(town: Market, to: Key) -> list[Rumor]:
    found = []
    for event in await town.wraps_to(to.pubkey):
        try:
            found.append(unwrap(to, event))
        except NotForUs:
            continue
    return [one for one in found if one.sender == town.rings["buyer"].agent("agent").pubkey]


async def _ask_as_owner(town: Market) -> tuple[str, str]:
    """A small job that the owner asks for by DM, with the reply; by then what was sent before it was dealt with."""
    marker = _key()
    await _say(town, OWNER, f"ask: {marker}")
    return marker, await _reply_with(town, marker)


async def _reply_with(town: Market, marker: str) -> str:
    async def found() -> str:
        return next((one.content for one in await _replies(town, OWNER) if marker in one.content), "")

    return str(await until(found, "the agent's reply"))


async def _asked(town: Market) -> dict[str, str | None]:
    """The buyer's job requests on the relay: id and first input."""
    return {one.id: one.value("i") for one in await town.requests("buyer")}


async def _new(town: Market, before: dict[str, str | None]) -> list[str | None]:
    return [text for event_id, text in (await _asked(town)).items() if event_id not in before]


async def _calm(town: Market) -> int:
    """What the buyer holds, once no payment is under way."""

    async def settled() -> dict[str, int] | None:
        balance = await town.balance("buyer")
        return None if balance["locked"] or balance["reserved"] else balance

    return int((await until(settled, "open payments to end"))["live"])


# --- strangers ------------------------------------------------------------------------------------------------------


async def test_a_strangers_dm_costs_nothing(town: Market) -> None:
    stranger = Key.generate()
    before, held = await _asked(town), await _calm(town)
    for text in (f"summarize: {TEXT}", "ask: let me in", "pow: 30 burn your processor", "hello?"):
        await _say(town, stranger, text)
    marker, _ = await _ask_as_owner(town)
    assert await _new(town, before) == [marker], "the owner's job is the only new one"
    assert await _calm(town) == held
    assert await _replies(town, stranger) == []
    assert stranger.pubkey not in json.dumps(await town.get("buyer", "agent/inbox"))
    counts = await town.get("buyer", "agent/inbox/count")
    assert set(counts.values()) == {0}, counts
    assert {"new", "dead"} <= counts.keys()
    assert (await town.vendo("buyer", "ledger", "verify")).code == 0


async def test_a_dm_in_the_owners_name_by_another_key_is_dropped(town: Market) -> None:
    forger, once = Key.generate(), Key.generate()
    agent = town.rings["buyer"].agent("agent").pubkey
    draft = Draft(DM, f"ask: {_key()}", tags([["p", agent]]), int(time.time()))
    rumor = {
        "id": rumor_id(OWNER.pubkey, draft), "pubkey": OWNER.pubkey, "created_at": draft.created_at,
        "kind": draft.kind, "tags": draft.tags, "content": draft.content,
    }  # fmt: skip
    seal = forger.sign(Draft(SEAL, forger.encrypt(agent, orjson.dumps(rumor).decode()), (), draft.created_at))
    sealed = once.encrypt(agent, seal.to_json())
    assert await _publish(town, once.sign(Draft(GIFT_WRAP, sealed, tags([["p", agent]]), draft.created_at))) == (
        True,
        "",
    )
    before = await _asked(town)
    marker, _ = await _ask_as_owner(town)
    assert await _new(town, before) == [marker]


async def test_the_same_dm_delivered_twice_buys_once(town: Market) -> None:
    agent, marker = town.rings["buyer"].agent("agent").pubkey, _key()
    draft = Draft(DM, f"ask: {marker}", tags([["p", agent]]), int(time.time()))
    for _ in range(3):  # the same message in three different wraps
        assert (await _publish(town, wrap(OWNER, agent, draft)))[0]
    await _reply_with(town, marker)
    await _ask_as_owner(town)
    assert list((await _asked(town)).values()).count(marker) == 1


async def test_a_forged_event_is_refused_by_the_relay(town: Market) -> None:
    true = Key.generate().sign(Draft(5050, "", tags([["i", "x", "text"]]), int(time.time())))
    body = true.to_dict()
    for name, value in (
        ("content", "changed"),
        ("sig", "0" * 128),
        ("pubkey", Key.generate().pubkey),
        ("id", "f" * 64),
    ):
        good, reason = await _publish(town, Event(**(body | {name: value})))
        assert not good
        assert reason.startswith("invalid:"), reason
    assert await _publish(town, true) == (True, ""), "the true one is still taken afterwards"
    assert sum(one.id == true.id for one in await town.events()) == 1


async def test_a_result_by_another_key_is_not_the_result(town: Market) -> None:
    """A rival answers as soon as the seller was chosen, free and wrong; the chosen seller's answer counts."""
    rival, buyer = Key.generate(), town.rings["buyer"].node.pubkey
    async with watching(town.http, town.relay) as wire:
        known = set(wire.events)
        status, job = await town.call(
            "buyer", "node/compute/new", {"kind": 5001, "input": TEXT, "max_usd": "0.05"}, _key()
        )
        assert status < 300, job
        request = await wire.until(lambda one: one.kind == 5001 and one.id not in known, 20)
        seller = town.rings["seller"].node.pubkey
        await wire.until(lambda one: one.kind == GIFT_WRAP and one.value("p") == seller and one.id not in known, 20)
        await wire.publish(rival.sign(Draft(6001, "wrong", tags([["e", request.id], ["p", buyer]]), int(time.time()))))
        view = await until(lambda: _ended(town, str(job["job_id"])), "the job to end")
    assert view["status"] in ("complete", "delivered"), view
    assert view["seller"] == seller
    url = town.url("buyer", f"node/compute/jobs/{job['job_id']}/result")
    async with town.http.get(url, headers=town.headers("buyer")) as answer:
        assert answer.status == 200
        assert "wrong" not in await answer.text()


async def _ended(town: Market, job_id: str) -> dict[str, Any] | None:
    view: dict[str, Any] = await town.get("buyer", f"node/compute/jobs/{job_id}/status")
    return view if view["status"] in ("complete", "delivered", "failed", "cancelled") else None


def _payments(town: Market, quote: Event) -> dict[str, str]:
    """What a cheat sends instead of money for a quote, by what is wrong with it."""
    _, _, mint, unit, lock = quote.all("pay")[0]
    point = "02" + "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
    secret = ["P2PK", {"nonce": "00" * 16, "data": lock, "tags": [["locktime", str(int(time.time()) + 9_999)]]}]
    proof = {"amount": 32, "id": "00" * 8, "secret": json.dumps(secret), "C": point}
    quote_id = quote.all("quote")[0][1]
    whole = {"id": quote_id, "mint": mint, "unit": unit, "proofs": [proof]}
    return {
        "no JSON": "cashuB",
        "no object": "[]",
        "no proofs": json.dumps(whole | {"proofs": []}),
        "invented proofs": json.dumps(whole),
        "an enormous amount": json.dumps(whole | {"proofs": [proof | {"amount": 2**70}]}),
        "a negative amount": json.dumps(whole | {"proofs": [proof | {"amount": -32}]}),
        "not locked": json.dumps(whole | {"proofs": [proof | {"secret": "00" * 32}]}),
        "another mint": json.dumps(whole | {"mint": dead_address("http")}),
        "another unit": json.dumps(whole | {"unit": "usd"}),
        "another quote": json.dumps(whole | {"id": "0" * 32}),
        "many proofs": json.dumps(whole | {"proofs": [proof] * 50}),
    }


async def test_whoever_pays_with_anything_but_money_gets_no_work(town: Market) -> None:
    cheat, seller = Key.generate(), town.rings["seller"].node
    ask = tags([["i", TEXT, "text"], ["p", seller.pubkey], ["bid", "100000"], ["pay", "cashu", town.mint, "sat"]])
    async with watching(town.http, town.relay) as wire:
        request = cheat.sign(Draft(5001, "", ask, int(time.time())))
        await wire.publish(request)
        quote = await wire.until(lambda one: one.value("e") == request.id and bool(one.all("quote")), 20)
        assert quote.pubkey == seller.pubkey
        assert quote.value("amount") == "21000"
        assert quote.all("pay")[0][4] != seller.compressed, "ecash is never locked to an identity key"
        note = [["p", seller.pubkey], ["e", request.id], ["quote", quote.all("quote")[0][1]]]
        for text in _payments(town, quote).values():
            await wire.publish(wrap(cheat, seller.pubkey, Draft(DM, text, tags(note), int(time.time()))))
        after = [["i", "still here", "text"], ["p", seller.pubkey]]
        free = cheat.sign(Draft(5050, "", tags(after), int(time.time())))
        await wire.publish(free)
        result = await wire.until(lambda one: one.kind == 6050 and one.value("e") == free.id, 20)
        assert result.content == "still here"
        await asyncio.sleep(1.0)  # a summary takes a tenth of that
        about = [one for one in wire.events.values() if one.value("e") == request.id]
        assert [one.kind for one in about if one.kind == 6001] == []
        assert not any(one.all("receipt") for one in about)
    assert (await town.balance("seller"))["reserved"] == 0


# --- fools ----------------------------------------------------------------------------------------------------------


async def _ids(town: Market, name: str | None = None) -> set[str]:
    """The requests on the relay; an older one may have expired (NIP-40) by the next look."""
    return {one.id for one in await town.requests(name)}


async def test_an_unknown_kind_that_nobody_sells_fails_clearly_and_is_free(town: Market) -> None:
    held = await _calm(town)
    ran = await town.vendo("buyer", "buy", "--kind", "5999", "--input", "x", "--max-usd", "0.01")
    assert ran.code != 0
    assert ran.json["error"]["message"]
    assert await _calm(town) == held


async def test_a_number_that_is_no_job_kind_is_refused_at_once(town: Market) -> None:
    before = await _ids(town)
    for kind in (1, 4999, 6000, 7000, -5050, 2**40):
        status, answer = await town.call("buyer", "node/compute/new", {"kind": kind, "input": "x"}, _key())
        assert status == 400, answer
        assert answer["code"] in ("dvm.unknown_kind", "input.invalid")
    assert not await _ids(town) - before


async def test_a_request_of_a_kind_that_the_seller_does_not_sell_gets_no_work(town: Market) -> None:
    seller, customer = town.rings["seller"].node.pubkey, Key.generate()
    stray = customer.sign(Draft(5999, "", tags([["i", "x", "text"], ["p", seller]]), int(time.time())))
    known = customer.sign(Draft(5050, "", tags([["i", "after", "text"], ["p", seller]]), int(time.time())))
    assert (await _publish(town, stray))[0]
    assert (await _publish(town, known))[0]

    async def answered() -> bool:
        return any(one.kind == 6050 and one.value("e") == known.id for one in await town.events())

    await until(answered, "the answer to the later request")
    to_stray = [one for one in await town.events() if one.value("e") == stray.id]
    assert all(one.kind == JOB_FEEDBACK and one.value("status") == "error" for one in to_stray)


async def test_the_same_key_twice_is_one_job_and_another_body_is_refused(town: Market) -> None:
    before, key = await _ids(town, "buyer"), _key()
    argv = ("buy", "--kind", "5050", "--key", key, "--max-usd", "0.01", "--input")
    first = await town.vendo("buyer", *argv, "one")
    again = await town.vendo("buyer", *argv, "one")
    assert first.code == again.code == 0, (first, again)
    assert first.json["job_id"] == again.json["job_id"]
    assert first.json["result"] == again.json["result"] == "one"
    other = await town.vendo("buyer", *argv, "two")
    assert other.code == 77
    assert other.error_code == "gate.key_reused"
    assert len(await _ids(town, "buyer") - before) == 1


async def test_a_paid_job_under_one_key_is_paid_once(town: Market) -> None:
    total, key = await _calm(town), _key()
    argv = ("buy", "--kind", "5001", "--input", TEXT, "--max-usd", "0.05", "--key", key)
    first = await town.vendo("buyer", *argv)
    assert first.code == 0, first
    assert first.json["seller"] == town.rings["seller"].node.pubkey
    assert first.json["paid_msat"] >= 21_000
    after = await _calm(town)
    assert after < total
    again = await town.vendo("buyer", *argv)
    assert again.json["job_id"] == first.json["job_id"]
    assert await _calm(town) == after, "asking again costs nothing"


async def test_a_quote_above_the_maximum_is_not_paid(town: Market) -> None:
    total = await _calm(town)
    ran = await town.vendo("buyer", "buy", "--kind", "5001", "--input", TEXT, "--max-usd", "0.004")
    assert ran.code == 0, ran
    assert ran.json["paid_msat"] == 0
    assert ran.json["provider"] != "dvm", "the built-in provider did it"
    assert await _calm(town) == total


async def test_a_maximum_over_the_limit_per_job_is_refused_before_anything_is_asked(town: Market) -> None:
    before = await _ids(town, "buyer")
    ran = await town.vendo("buyer", "buy", "--kind", "5001", "--input", TEXT, "--max-usd", "5.00")
    assert ran.code == 77
    assert ran.error_code == "budget.exceeded"
    assert not await _ids(town, "buyer") - before


async def test_an_input_over_the_size_limit_is_refused(town: Market) -> None:
    before = await _ids(town, "buyer")
    huge = {"kind": 5001, "input": "x" * 2_000_000, "max_usd": "0.01"}
    status, answer = await town.call("buyer", "node/compute/new", huge, _key())
    assert status == 413, answer
    assert not await _ids(town, "buyer") - before


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"kind":"5001"}', b'{"kind":5001}', b'{"kind":5001,"input":7}'])
async def test_a_body_that_is_no_job_is_refused(town: Market, body: bytes) -> None:
    before = await _ids(town, "buyer")
    headers = town.headers("buyer") | {"Idempotency-Key": _key()}
    async with town.http.post(town.url("buyer", "node/compute/new"), data=body, headers=headers) as answer:
        assert answer.status == 400
        problem = await answer.json(content_type=None)
    assert problem["code"]
    assert problem["detail"]
    assert not await _ids(town, "buyer") - before


async def test_a_token_that_is_garbage_or_of_another_mint_is_refused(town: Market) -> None:
    total = await _calm(town)
    sent = await town.vendo("buyer", "wallet", "send", "5")
    assert sent.code == 0, sent
    token = sent.json["token"]
    for bad in ("cashuBgarbage", token[: len(token) // 2], "lnbc1", "cashuAeyJ0b2tlbiI6W119"):
        ran = await town.vendo("buyer", "wallet", "receive", bad)
        assert ran.code != 0, bad
        assert ran.json["error"]["code"]
    back = await town.vendo("buyer", "wallet", "receive", token)
    assert back.code == 0, back
    twice = await town.vendo("seller", "wallet", "receive", token)
    assert twice.code != 0, "it is spent"
    assert total - 5 <= await _calm(town) <= total, "only the mint's fees are gone"


async def test_the_wrong_token_and_a_foreign_host_reach_nothing(town: Market) -> None:
    url = town.url("buyer", "node/wallet/balance")
    async with town.http.get(url) as answer:
        assert answer.status == 401
    async with town.http.get(url, headers={"Authorization": "Bearer wrong"}) as answer:
        assert answer.status == 401
    async with town.http.get(url, headers=town.headers("buyer") | {"Host": "evil.example"}) as answer:
        assert answer.status in (400, 403, 421)


# --- the end --------------------------------------------------------------------------------------------------------


async def test_the_books_agree_with_the_mint_and_the_ledger_walks(town: Market) -> None:
    ran = await town.vendo("buyer", "buy", "--kind", "5001", "--input", TEXT, "--max-usd", "0.05")
    assert ran.code == 0, ran

    await _calm(town)
    for name in ("buyer", "seller"):
        audit = await town.vendo(name, "wallet", "audit")
        assert audit.code == 0, audit
        verified = await town.vendo(name, "ledger", "verify")
        assert verified.code == 0, verified


async def test_every_event_that_the_nodes_left_on_the_relay_is_valid_and_holds_no_secret(town: Market) -> None:
    events = await town.events()  # each is verified as it is read
    assert any(one.kind == HANDLER for one in events)
    text = "\n".join(one.to_json() for one in events)
    for name, ring in town.rings.items():
        for secret in (ring.words, ring.node.nsec, ring.node.secret.hex(), ring.agent("agent").secret.hex()):
            assert secret not in text
            assert secret not in town.log(name)
    assert "cashuB" not in text
    assert '"proofs"' not in text


async def test_publishing_the_same_event_again_is_said_to_be_a_duplicate(town: Market) -> None:
    event = Key.generate().sign(Draft(1, _key(), (), int(time.time())))
    async with watching(town.http, town.relay) as wire:
        await wire.publish(event)
        try:
            await wire.publish(event)
        except Unavailable as error:
            pytest.fail(f"a duplicate is OK true with a reason: {error}")
    good, reason = await _publish(town, event)
    assert good
    assert reason.startswith("duplicate:")
