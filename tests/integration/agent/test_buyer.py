from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from node.message.text import split
from relays.event import Draft
from relays.key import npub
from relays.nip17 import wrap
from tests.integration.agent.node_part import AGENT, NAME, NODE_PERMIT, OWNER, STRANGER, Town, relay_at, town

SELLER = "cd" * 32
DONE = {"result": "short words", "provider": "dvm", "seller": SELLER, "paid_msat": 21_000, "cost_msat": 23_000,
        "cost_uusd": 15, "closed": True}  # fmt: skip


@pytest.fixture
async def relay(tmp_path: Path) -> AsyncIterator[str]:
    async with relay_at(tmp_path) as url:
        yield url


@pytest.fixture
async def here(relay: str) -> AsyncIterator[Town]:
    async with town(relay) as made:
        yield made


async def _bought(here: Town, text: str) -> str:
    await here.say(OWNER, text)
    await here.until(lambda: here.jobs.started)
    return here.jobs.started[-1]


async def test_a_dm_becomes_a_job_and_its_result_the_reply(here: Town) -> None:
    here.jobs.slow = 0.05  # the commit of the job's end takes longer than anyone thought
    job_id = await _bought(here, "summarize: Many words. " * 10)
    request = here.jobs.requests[job_id]
    assert (request.kind, request.maximum) == (5001, None)
    assert here.jobs.views[job_id].caller == f"agent:{NAME}"
    await here.jobs.finish(job_id, **DONE)
    (reply,) = await here.hear(OWNER)
    assert reply.startswith("short words\n")
    assert npub(SELLER) in reply
    assert "21000 msat" in reply
    (effect,) = await here.settled("/nostr/dm/")
    assert (effect["caller"], effect["state"]) == (f"agent:{NAME}", "commit")
    assert len({row["event_id"] for row in await here.rows("outbox")}) == 2, "the receiver's copy and our own"
    assert await here.heard(AGENT) != [], "our own copy is on the relay"
    assert len(await here.rows("inbox", cause="message")) == 1, "and does not come back as a message"


async def test_a_message_that_arrives_twice_in_different_wraps_buys_once(here: Town) -> None:
    await here.say(OWNER, "summarize: Some text.", wraps=3)
    await here.until(lambda: here.jobs.started)
    await here.until(lambda: here.messages.counts["received"] == 3)
    assert len(here.jobs.started) == 1
    assert len(await here.rows("inbox", cause="message")) == 1


async def test_a_strangers_dm_costs_nothing(here: Town) -> None:
    before = {table: await here.rows(table) for table in ("inbox", "tick", "effect", "entry", "outbox", "log", "seen")}
    await here.say(STRANGER, "summarize: Some text.")
    draft = Draft(14, "pow: 30 free work", (("p", AGENT.pubkey),), 1)
    await here.say(STRANGER, "hello")
    await here.people.send(here.relay, wrap(STRANGER, AGENT.pubkey, draft), NODE_PERMIT)
    await here.until(lambda: here.messages.counts["stranger"] == 3)
    assert here.engine.busy == 0
    after = {table: await here.rows(table) for table in before}
    assert after == before
    assert not here.jobs.started
    assert await here.heard(STRANGER) == []


async def test_other_kinds_and_empty_texts_are_left_alone(here: Town) -> None:
    await here.say(OWNER, "https://example.org/file", kind=15)
    await here.say(OWNER, "+", kind=7)
    await here.say(OWNER, "  ")
    counts = here.messages.counts
    await here.until(lambda: (counts["file"], counts["reaction"], counts["other_kind"]) == (1, 1, 1))
    assert not await here.rows("inbox", cause="message")


async def test_proof_of_work_is_asked_for_an_event_of_the_agents_own(here: Town) -> None:
    job_id = await _bought(here, "pow: 12 a note [max $9]")
    request = here.jobs.requests[job_id]
    event = orjson.loads(request.inputs[0].data)
    assert (request.kind, request.params) == (5970, (("pow", "12"),))
    assert (event["pubkey"], event["kind"], event["content"]) == (AGENT.pubkey, 1, "a note [max $9]")


async def test_the_fallback_is_named_with_its_cost(here: Town) -> None:
    job_id = await _bought(here, "ask: how are you")
    await here.jobs.finish(job_id, result="fine", provider="builtin", seller="echo", cost_msat=0, closed=True)
    (reply,) = await here.hear(OWNER)
    assert "built-in provider (echo) at cost 0" in reply


async def test_a_failed_job_is_told(here: Town) -> None:
    job_id = await _bought(here, "ask: how are you")
    await here.jobs.finish(job_id, error="nobody answered", cost_msat=0, closed=True)
    (reply,) = await here.hear(OWNER)
    assert "did not succeed: nobody answered" in reply
    assert "it cost nothing" in reply


async def test_unknown_words_are_helped_once_an_hour(here: Town) -> None:
    await here.say(OWNER, "good morning")
    (reply,) = await here.hear(OWNER)
    assert "summarize:" in reply
    await here.say(OWNER, "good evening")
    await here.until(lambda: _ticks(here, 3))
    assert len(await here.heard(OWNER)) == 1


async def _ticks(here: Town, count: int) -> bool:
    return len(await here.rows("tick")) >= count


async def test_a_refusal_of_the_gate_is_the_reply_and_nothing_begins(here: Town) -> None:
    await here.say(OWNER, "summarize [max $1]: Some text.")
    (reply,) = await here.hear(OWNER)
    assert reply.startswith("I cannot do that: ")
    assert not here.jobs.started
    assert not [row for row in await here.rows("effect") if row["path"] == "/compute/new"]


async def test_over_a_pause_the_message_waits(here: Town) -> None:
    await here.gate.pause()
    await here.say(OWNER, "summarize: Some text.")
    await here.until(lambda: here.messages.counts["received"] == 1)
    assert not here.jobs.started
    await here.gate.resume()
    await here.until(lambda: here.jobs.started)
    assert not await here.rows("inbox", state="dead")


async def test_a_reply_that_was_committed_before_a_crash_goes_out_after_it(relay: str) -> None:
    async with town(relay) as here:
        job_id = await _bought(here, "ask: how are you")
        dead = here.unit
        here.messages._outbound._outbox.kick = lambda rows: None  # it dies before it sends
        await here.jobs.finish(job_id, **DONE)
        await here.until(lambda: _queued(here))
        assert await here.heard(OWNER) == []
    async with town(relay, dead) as again:
        (reply,) = await again.hear(OWNER)
        assert reply.startswith("short words")
        (effect,) = await again.settled("/nostr/dm/")
        assert effect["state"] == "commit"


async def _queued(here: Town) -> bool:
    return len(await here.rows("outbox")) == 2


async def test_the_same_key_sends_one_message_and_another_text_under_it_is_refused(here: Town) -> None:
    first = await here.messages.send("operator", NAME, OWNER.pubkey, "once", "key")
    again = await here.messages.send("operator", NAME, OWNER.pubkey, "once", "key")
    assert first == again
    with pytest.raises(Exception, match="used before with another body"):
        await here.messages.send("operator", NAME, OWNER.pubkey, "twice", "key")
    assert await here.hear(OWNER) == ["once"]
    (effect,) = await here.settled("/nostr/dm/")
    assert effect["subject"] == first


async def test_a_long_text_comes_in_parts_that_fit(here: Town) -> None:
    text = 'Ünïcödé and "quotes" 🙂 ' * 2_000
    await here.messages.send("operator", NAME, OWNER.pubkey, text, "key")
    parts = await here.hear(OWNER, len(split(text)))
    assert "".join(parts) == text


async def test_what_its_owner_said_in_an_earlier_life_is_not_bought_again(here: Town) -> None:
    """A node made anew from its words is shown every message of the old one, and it has no row that says so."""
    (agent,) = await here.rows("agent")
    draft = Draft(14, "summarize: Long ago.", (("p", AGENT.pubkey),), agent["created_at"] - 2 * 86_400)
    await here.people.send(here.relay, wrap(OWNER, AGENT.pubkey, draft), NODE_PERMIT)
    await here.until(lambda: here.messages.counts["before_us"] == 1)
    late = Draft(14, "summarize: A moment ago.", (("p", AGENT.pubkey),), agent["created_at"] - 60)
    await here.people.send(here.relay, wrap(OWNER, AGENT.pubkey, late), NODE_PERMIT)
    await here.until(lambda: here.jobs.started)
    assert len(here.jobs.started) == 1
    assert not [row for row in await here.rows("inbox") if "Long ago" in row["payload"]]
