"""What comes in over a real relay: who is heard, in which order, and what a flood costs."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Any

import orjson
import pytest

from core.clock import SystemClock
from core.identifier import PubKey
from core.unit import Row, Update, Write
from dvm.nonce import Unsigned
from node.agent.inbox.intake import Intake
from node.agent.inbox.overflow import Overflow, Policy
from node.agent.inbox.row import envelope
from node.agent.wake.event import grant
from node.agent.wake.interest import watch
from node.message import inbound
from node.message.admission import Mentions, Rules, Strangers
from node.message.outbound import REACT_PATH
from node.message.service import Reach
from node.storage.error import StoreFull
from node.storage.memory import MemoryDatabase
from relays.event import Draft, Event
from relays.key import Key
from relays.kind import DM
from relays.local_signer import KeySigner
from relays.nip04 import legacy_draft
from relays.nip17 import wrap
from tests.integration.agent.node_part import AGENT, NAME, NODE_PERMIT, OWNER, STRANGER, Town, town

FRIENDS = Rules(contacts=frozenset({OWNER.pubkey}))


async def _put(here: Town, event: Event) -> None:
    await here.people.send(here.relay, event, NODE_PERMIT)


async def _heard(here: Town, count: int) -> list[Row]:
    await here.until(lambda: _are(here, count))
    return await here.rows("message", direction="in")


async def _are(here: Town, count: int) -> bool:
    return len(await here.rows("message", direction="in")) >= count


def mined(sender: Key, to: PubKey, bits: int) -> Event:
    """A wrap whose id was worked on."""
    plain = wrap(sender, to, Draft(DM, "hello", (("p", to),), SystemClock().now()))
    once = Key.generate()
    seal = _seal(sender, to)
    content = once.encrypt(to, seal)
    unsigned = Unsigned(once.pubkey, Draft(1059, content, plain.tags, plain.created_at))
    nonce = 0
    while True:
        tried = unsigned.with_nonce(str(nonce), bits)
        if int(tried.id, 16).bit_length() <= 256 - bits:
            return once.sign(tried.draft)
        nonce += 1


def _seal(sender: Key, to: PubKey) -> str:
    rumor = {
        "pubkey": sender.pubkey,
        "kind": DM,
        "content": "worked",
        "tags": [["p", to]],
        "created_at": SystemClock().now(),
    }
    content = sender.encrypt(to, orjson.dumps(rumor).decode())
    return sender.sign(Draft(13, content, (), 1)).to_json()


async def test_a_message_is_kept_with_its_protocol_and_what_became_of_it(relay: str) -> None:
    async with town(relay) as here:
        await here.say(OWNER, "good morning")
        (row,) = await _heard(here, 1)
        assert (row["agent"], row["peer"], row["protocol"], row["state"]) == (NAME, OWNER.pubkey, "nip17", "received")
        assert row["text"] == "good morning"
        await here.hear(OWNER)
        await here.until(lambda: _state(here, "sent"))


async def _state(here: Town, state: str) -> bool:
    rows = await here.rows("message", direction="out")
    return bool(rows) and all(row["state"] == state for row in rows)


async def test_a_stranger_who_worked_is_heard_and_one_who_did_not_is_not(relay: str) -> None:
    rules = replace(FRIENDS, strangers=Strangers.POW, pow_bits=8)
    async with town(relay, rules=rules) as here:
        await here.say(STRANGER, "without work")
        await _put(here, mined(STRANGER, AGENT.pubkey, 8))
        (row,) = await _heard(here, 1)
        assert (row["peer"], row["text"]) == (STRANGER.pubkey, "worked")
        await here.until(lambda: here.messages.counts["stranger"] == 1)


async def test_whom_the_agent_hears_can_be_changed_while_it_runs_and_stays_changed(relay: str) -> None:
    async with town(relay) as here:
        await here.messages.set_rules(NAME, {"contacts": [STRANGER.pubkey], "deny": [OWNER.pubkey]})
        await here.say(OWNER, "hello")
        await here.say(STRANGER, "hello")
        await here.until(lambda: here.messages.counts["denied"] == 1)
        assert {row["peer"] for row in await _heard(here, 1)} == {STRANGER.pubkey}
        kept = here.unit
    async with town(relay, kept) as again:
        assert again.messages.rules(NAME).deny == {OWNER.pubkey}


async def test_the_rate_of_a_sender_is_bounded(relay: str) -> None:
    async with town(relay, rules=replace(FRIENDS, per_minute=1)) as here:
        for number in range(13):
            await here.say(OWNER, f"hello {number}")
        await here.until(lambda: here.messages.counts["rate"] == 3)
        assert len(await here.rows("inbox", cause="message")) == 10


async def test_what_waits_together_is_dealt_with_in_the_order_in_which_it_was_written(relay: str) -> None:
    now = SystemClock().now()
    async with town(relay) as here:
        await here.gate.pause()
        for at in (30, 10, 20):
            draft = Draft(DM, f"ask: {at}", (("p", AGENT.pubkey),), now - 60 + at)
            await _put(here, wrap(OWNER, AGENT.pubkey, draft))
        await _heard(here, 3)
        await here.gate.resume()
        await here.until(lambda: len(here.jobs.started) == 3)
        asked = [here.jobs.requests[job].inputs[0].data for job in here.jobs.started]
        assert asked == ["10", "20", "30"]


async def test_a_message_from_the_future_is_left_alone(relay: str) -> None:
    async with town(relay) as here:
        draft = Draft(DM, "later", (("p", AGENT.pubkey),), SystemClock().now() + 5_000)
        await _put(here, wrap(OWNER, AGENT.pubkey, draft))
        await here.until(lambda: here.messages.counts["future"] == 1)
        assert not await here.rows("inbox", cause="message")


# ---- old messages


async def _legacy(here: Town, sender: Key, text: str) -> Event:
    event = sender.sign(await legacy_draft(KeySigner(sender), AGENT.pubkey, text, SystemClock().now()))
    await _put(here, event)
    return event


async def test_an_old_message_is_read_and_answered_in_kind(relay: str) -> None:
    async with town(relay) as here:
        asked = await _legacy(here, OWNER, "good morning")
        await here.until(lambda: _sent_kind(here, 4))
        (answer,) = [event for event in await _events(here) if event["kind"] == 4]
        assert answer["pubkey"] == AGENT.pubkey
        assert ["p", OWNER.pubkey] in answer["tags"]
        assert "summarize:" in OWNER.decrypt_legacy(AGENT.pubkey, answer["content"])
        rows = await here.rows("message")
        assert {row["protocol"] for row in rows} == {"nip04"}
        assert {row["id"] for row in rows} == {asked.id, answer["id"]}
        await here.say(OWNER, "summarize: Now by the new way.")
        await here.until(lambda: here.jobs.started)
        await here.jobs.finish(here.jobs.started[-1], result="short", provider="dvm", closed=True)
        assert "short" in (await here.hear(OWNER))[0], "who writes by NIP-17 again is answered so"


async def _events(here: Town) -> list[dict[str, Any]]:
    return [orjson.loads(row["raw"]) for row in await here.rows("outbox")]


async def _sent_kind(here: Town, kind: int) -> bool:
    return any(event["kind"] == kind for event in await _events(here))


async def test_no_money_moves_on_the_word_of_an_old_message(relay: str) -> None:
    async with town(relay) as here:
        await _legacy(here, OWNER, "summarize [max $0.0001]: Some text.")
        await here.until(lambda: here.jobs.started)
        request = here.jobs.requests[here.jobs.started[0]]
        assert request.maximum is not None
        assert request.maximum.value == 0


async def test_a_strangers_old_message_is_not_even_decrypted(relay: str) -> None:
    async with town(relay, rules=replace(FRIENDS, strangers=Strangers.ALL)) as here:
        await _legacy(here, STRANGER, "summarize: Some text.")
        await here.until(lambda: here.messages.counts["stranger"] == 1)
        assert not await here.rows("message")


# ---- who is no contact has nobody's money


async def _maximum(here: Town, count: int) -> int | None:
    await here.until(lambda: len(here.jobs.started) == count)
    maximum = here.jobs.requests[here.jobs.started[-1]].maximum
    return None if maximum is None else int(maximum.value)


async def test_a_strangers_message_buys_nothing_however_it_came_in(relay: str) -> None:
    async with town(relay, rules=replace(FRIENDS, strangers=Strangers.ALL)) as here:
        await here.say(STRANGER, "summarize [max $0.0001]: Some text.")
        assert await _maximum(here, 1) == 0
        await here.say(OWNER, "summarize: Some text.")
        assert await _maximum(here, 2) is None


async def test_whom_the_agent_wrote_to_first_may_answer_and_has_no_money(relay: str) -> None:
    async with town(relay) as here:
        await here.say(STRANGER, "unasked")
        await here.until(lambda: here.messages.counts["stranger"] == 1)
        people = Rules(contacts=frozenset({OWNER.pubkey, STRANGER.pubkey}))
        await here.messages.set_rules(NAME, {"contacts": sorted(people.contacts)})  # so that the way to them is known
        await here.messages.send("operator", NAME, STRANGER.pubkey, "may I ask you something", "key")
        await here.messages.set_rules(NAME, {"contacts": [OWNER.pubkey]})
        await here.say(STRANGER, "summarize: Yes, you may.")
        assert await _maximum(here, 1) == 0
        (row,) = [row for row in await here.rows("inbox") if row["sender"] == STRANGER.pubkey]
        assert orjson.loads(row["payload"])["contact"] is False
        kept = here.unit
    async with town(relay, kept) as again:
        await again.messages.set_rules(NAME, {"contacts": [OWNER.pubkey]})
        await again.say(STRANGER, "summarize: Once more, after a restart.")
        await again.until(lambda: len(again.jobs.started) == 1)
        await again.messages.set_rules(NAME, {"deny": [STRANGER.pubkey]})
        await again.say(STRANGER, "summarize: And now no more.")
        await again.until(lambda: again.messages.counts["denied"] == 1)


async def test_who_wrote_first_and_was_answered_pays_for_the_next_message_as_for_the_first(relay: str) -> None:
    """An answer opens no door past the conditions for strangers."""
    async with town(relay, rules=replace(FRIENDS, strangers=Strangers.ALL)) as here:
        await here.say(STRANGER, "good morning")
        await here.hear(STRANGER)
        await here.messages.set_rules(NAME, {"strangers": "pow"})
        await here.say(STRANGER, "good morning again")
        await here.until(lambda: here.messages.counts["stranger"] == 1)
        kept = here.unit
    async with town(relay, kept) as again:
        await again.say(STRANGER, "and after a restart")
        await again.until(lambda: again.messages.counts["stranger"] == 1)


# ---- reactions and mentions


async def test_a_message_that_was_taken_is_acknowledged_if_that_is_wanted(relay: str) -> None:
    async with town(relay, rules=replace(FRIENDS, acknowledge=True)) as here:
        (sent,) = await here.say(OWNER, "summarize: Some text.")
        assert await here.hear(OWNER) == ["✓"]
        await here.settled("/nostr/react/")
        await here.say(OWNER, "summarize: Some text again.")
        assert len(await here.hear(OWNER, 2)) == 2
        assert sent.id


async def test_a_reaction_to_our_message_marks_it_seen(relay: str) -> None:
    async with town(relay) as here:
        message_id = await here.messages.send("operator", NAME, OWNER.pubkey, "hello", "key")
        await here.until(lambda: _state(here, "sent"))
        for sender, target in ((STRANGER, message_id), (OWNER, "0" * 64), (OWNER, message_id)):
            draft = Draft(7, "+", (("e", target), ("p", AGENT.pubkey)), SystemClock().now())
            await _put(here, wrap(sender, AGENT.pubkey, draft))
        await here.until(lambda: _state(here, "seen"))
        assert not await here.rows("inbox", cause="message")


async def test_a_reaction_that_is_repeated_is_written_down_once(relay: str) -> None:
    async with town(relay) as here:
        message_id = await here.messages.send("operator", NAME, OWNER.pubkey, "hello", "key")
        await here.until(lambda: _state(here, "sent"))
        seen = []
        for count in range(1, 4):
            draft = Draft(7, "+", (("e", message_id), ("p", AGENT.pubkey)), SystemClock().now())
            await _put(here, wrap(OWNER, AGENT.pubkey, draft))
            await here.until(lambda count=count: here.messages.counts["reaction"] == count)
            await asyncio.sleep(0.05)
            (row,) = await here.rows("message", direction="out")
            seen.append((row["state"], row["changed_ms"]))
        assert seen[0][0] == "seen"
        assert seen == [seen[0]] * 3


async def test_an_old_message_that_arrives_late_does_not_bring_back_the_old_way(relay: str) -> None:
    async with town(relay) as here:
        await here.say(OWNER, "summarize: By the new way.")
        await here.until(lambda: here.jobs.started)
        old = await legacy_draft(KeySigner(OWNER), AGENT.pubkey, "written before", SystemClock().now() - 600)
        await _put(here, OWNER.sign(old))
        await _heard(here, 2)
        await here.jobs.finish(here.jobs.started[0], result="short", provider="dvm", closed=True)
        assert any("short" in text for text in await here.hear(OWNER, 2))
        assert not await _sent_kind(here, 4)


@pytest.mark.parametrize(("mentions", "heard"), [(Mentions.CONTACTS, 1), (Mentions.ALL, 2), (Mentions.NONE, 0)])
async def test_a_public_note_that_names_the_agent_is_an_event_and_never_an_order(
    relay: str, mentions: Mentions, heard: int
) -> None:
    async with town(relay, rules=replace(FRIENDS, mentions=mentions)) as here:
        for sender in (OWNER, STRANGER):
            note = Draft(1, "summarize: Some text.", (("p", AGENT.pubkey),), SystemClock().now())
            await _put(here, sender.sign(note))
        counts = here.messages.counts
        seen = ("mention", "mention_stranger", "mention_denied")
        await here.until(lambda: sum(counts[name] for name in seen) == 2)
        rows = [row for row in await here.rows("inbox") if "nostr.mention" in row["payload"]]
        assert [row["cause"] for row in rows] == ["event"] * heard
        await here.until(lambda: _ticked(here, 1 + heard))
        assert not here.jobs.started


async def test_a_note_that_names_the_agent_is_told_to_those_who_see_all_and_to_itself_once(relay: str) -> None:
    async with town(relay) as here:
        now = SystemClock().now()
        await here.unit.commit(
            [
                *watch("boss", "all", now, "nostr.*", '{"data.kind": 1}'),
                *grant("boss", True),
                *watch("none", "i", now, "*"),
            ]
        )
        await here.unit.commit(watch(NAME, "mine", now, "nostr.mention"))
        note = OWNER.sign(Draft(1, "hello you", (("p", AGENT.pubkey),), now))
        await _put(here, note)
        await here.until(lambda: _ticked(here, 2))
        rows = [row for row in await here.rows("inbox") if "nostr.mention" in row["payload"]]
        assert {(row["agent"], row["envelope_id"], row["sender"]) for row in rows} == {
            (NAME, note.id, OWNER.pubkey), ("boss", f"nostr-{NAME}-{note.id}", OWNER.pubkey),
        }  # fmt: skip
        assert len(rows) == 2
        told = {row["agent"]: orjson.loads(row["payload"]) for row in rows}
        assert [told[name]["interests"] for name in (NAME, "boss")] == [["mine"], ["all"]]
        assert told["boss"] | {"interests": ["mine"]} == told[NAME]
        assert (told["boss"]["agent"], told["boss"]["text"]) == (NAME, "hello you")


async def _ticked(here: Town, count: int) -> bool:
    return len(await here.rows("tick")) >= count


# ---- floods


async def test_a_flood_of_strangers_wraps_does_not_keep_a_friend_waiting(
    relay: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200 wraps for one agent, five times what it takes at once; a friend writes in the middle of it."""
    monkeypatch.setattr(inbound, "LANE_BURST", 40)
    monkeypatch.setattr(inbound, "LANE_PER_SECOND", 10.0)
    strangers = [Key.generate() for _ in range(4)]
    draft = Draft(DM, "buy now", (("p", AGENT.pubkey),), SystemClock().now())
    flood = [wrap(strangers[n % 4], AGENT.pubkey, draft) for n in range(200)]
    async with town(relay) as here:
        sends = [asyncio.create_task(_put(here, event)) for event in flood]
        await asyncio.sleep(0.2)
        before = SystemClock().monotonic()
        await here.say(OWNER, "summarize: Some text.")
        await here.until(lambda: here.jobs.started, 60)
        waited = SystemClock().monotonic() - before
        await asyncio.gather(*sends)
        await here.until(lambda: _opened(here) >= len(flood), 60)
        assert waited < 8
        assert here.messages.counts["delayed"] > 0, "beyond the budget they wait in line"
        assert len(await here.rows("message", direction="in")) == 1
        assert len(await here.rows("inbox", cause="message")) == 1


def _opened(here: Town) -> int:
    return here.messages.counts["stranger"] + here.messages.counts["shed"]


async def test_what_waits_in_line_outlives_a_disk_that_is_full_for_a_moment(
    relay: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbound, "_WAIT_S", 0.02)
    async with town(relay) as here:
        queue, listener = here.messages._inbound.queue, here.messages._ear._listeners[AGENT.pubkey]
        commit, fails = here.unit.commit, [StoreFull(), StoreFull()]

        async def full(writes: Iterable[Write]) -> None:
            kept = list(writes)
            if fails and any(getattr(one, "table", "") == "inbox" for one in kept):
                raise fails.pop()
            await commit(kept)

        here.unit.commit = full
        draft = Draft(DM, "ask: hello", (("p", AGENT.pubkey),), SystemClock().now())
        queue.put((NAME, relay), (listener, wrap(OWNER, AGENT.pubkey, draft), 0))
        here.messages._inbound.wake()
        await here.until(lambda: here.jobs.started)
        assert not fails


async def test_a_message_that_the_database_did_not_take_comes_again_without_a_restart(relay: str) -> None:
    async with town(relay) as here:
        commit, fails = here.unit.commit, [StoreFull(), StoreFull()]

        async def full(writes: Iterable[Write]) -> None:
            kept = list(writes)
            if fails and any(getattr(one, "table", "") == "inbox" for one in kept):
                raise fails.pop()
            await commit(kept)

        here.unit.commit = full
        await here.say(OWNER, "ask: hello")
        await here.until(lambda: here.jobs.started, 15)
        assert len(here.jobs.started) == 1


async def test_what_nobody_could_have_sent_changes_nothing(relay: str) -> None:
    """Hostile wraps: each is dropped, counted, and costs no row."""
    once = Key.generate()
    seal = OWNER.sign(Draft(13, OWNER.encrypt(AGENT.pubkey, "[]"), (), 1))
    bodies = ["x", once.encrypt(AGENT.pubkey, "null"), once.encrypt(AGENT.pubkey, seal.to_json()), "A" * 50_000]
    now = SystemClock().now()
    hostile = [once.sign(Draft(1059, body, (("p", AGENT.pubkey),), now)) for body in bodies]
    async with town(relay) as here:
        for event in hostile:
            await _put(here, event)
        await here.until(lambda: here.messages.counts["undecryptable"] == 4)
        assert not await here.rows("message")
        await here.say(OWNER, "good morning")
        await _heard(here, 1)


@pytest.mark.parametrize(
    ("policy", "state", "shown"),
    [("reject_new", None, "dropped"), ("dead_letter", "dead", "received"), ("drop_oldest", "done", "received")],
)
async def test_a_message_for_which_there_is_no_room_is_kept_and_not_acknowledged(
    relay: str, policy: str, state: str | None, shown: str
) -> None:
    def full(pool: Any, unit: MemoryDatabase, gate: Any) -> Reach:
        return Reach(intake=Intake(unit, SystemClock(), Overflow(1, Policy(policy))))

    async with town(relay, reach=full, rules=replace(FRIENDS, acknowledge=True)) as here:
        waits = envelope(NAME, "waits", cause="manual", source="control-plane", sender="", payload="{}", at=1)
        later = Update("inbox", {"envelope_id": "waits"}, set={"next_at_ms": SystemClock().millis() + 600_000})
        await here.unit.commit([waits, later])
        await here.say(OWNER, "help")
        (message,) = await _heard(here, 1)
        assert message["state"] == shown

        async def ended() -> str | None:
            rows = await here.rows("inbox", envelope_id=message["id"])
            return rows[0]["state"] if rows else None

        await here.until(lambda: _is(ended, state))
        assert here.messages.counts["full"] == (policy != "drop_oldest")
        if policy == "drop_oldest":
            await here.until(lambda: _acknowledged(here))
        else:
            await asyncio.sleep(0.2)
            assert not await _acknowledged(here)


async def _acknowledged(here: Town) -> bool:
    return any(row["path"].startswith(REACT_PATH) for row in await here.rows("effect"))


async def _is(found: Callable[[], Awaitable[str | None]], wanted: str | None) -> bool:
    return await found() == wanted
