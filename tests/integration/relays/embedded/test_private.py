"""NIP-42, who gets private messages, and one AUTH for many keys, over real sockets."""

import time

import pytest

from relays.embedded.access import Access
from relays.embedded.limit import Limits
from relays.event import Draft
from relays.key import Key
from relays.keylist import consent_draft, consent_of, list_drafts
from relays.negentropy import Initiator, Vector
from tests.integration.relays.embedded.relay_part import running
from tests.unit.relays.embedded.event_part import ALICE, BOB, note

NODE = Key(b"\5" * 32)
CAROL = Key(b"\6" * 32)
AGENTS = [Key(bytes([8]) * 30 + number.to_bytes(2, "big")) for number in range(1, 601)]


@pytest.fixture
async def relay(tmp_path):
    access = Access(private=True, trusted=frozenset({CAROL.pubkey}), denied_keys=frozenset({AGENTS[0].pubkey}))
    async with running(tmp_path / "relay.db", Limits(listed_keys=600), access=access) as made:
        yield made


def now():
    return int(time.time())


async def prove(wire, key, relay, change=None):
    fields = {"relay": relay.url, "challenge": wire.challenge} | (change or {})
    await wire.say("AUTH", key.sign(Draft(22_242, "", tuple(fields.items()), now())).to_dict())
    verb, _, accepted, reason = await wire.hear()
    assert verb == "OK"
    return accepted, reason


def wrap(receiver, author=ALICE, kind=1059):
    return note(author, kind, content="secret", at=now(), with_tags=[("p", receiver.pubkey)])


async def closed(wire, *parts):
    await wire.say(*parts)
    verb, _, reason = await wire.hear()
    assert verb in ("CLOSED", "NEG-ERR")
    return reason.partition(":")[0]


@pytest.mark.parametrize("kind", [4, 1059, 21_059])
async def test_private_kinds_need_auth_for_every_sort_of_request(relay, kind):
    wire = await relay.connect()
    assert await closed(wire, "REQ", "a", {"kinds": [kind]}) == "auth-required"
    assert await closed(wire, "REQ", "a", {"kinds": [1]}, {"kinds": [1, kind], "#p": [BOB.pubkey]}) == "auth-required"
    assert await closed(wire, "COUNT", "a", {"kinds": [kind], "#p": [BOB.pubkey]}) == "auth-required"
    start = Initiator(Vector([])).start()
    assert await closed(wire, "NEG-OPEN", "a", {"kinds": [kind]}, start) == "auth-required"


async def test_a_party_gets_its_messages_and_nobody_else_does(relay):
    writer = await relay.connect()
    to_bob, from_bob, other = wrap(BOB), wrap(CAROL, BOB, kind=4), wrap(CAROL)
    public = note(at=now())
    for event in (to_bob, from_bob, other, public):
        assert await writer.publish(event) == (True, "")
    wire = await relay.connect()
    assert await prove(wire, BOB, relay) == (True, "")
    assert await wire.ask({"kinds": [1059], "#p": [BOB.pubkey]}) == [to_bob.id]
    assert await wire.ask({"kinds": [1059]}) == [to_bob.id]
    assert set(await wire.ask({"kinds": [4, 1059]})) == {to_bob.id, from_bob.id}
    assert set(await wire.ask({})) == {to_bob.id, from_bob.id, public.id}
    assert await wire.ask({"ids": [other.id, to_bob.id]}) == [to_bob.id]
    assert await closed(wire, "REQ", "a", {"kinds": [1059], "#p": [BOB.pubkey, CAROL.pubkey]}) == "auth-required"
    assert await closed(wire, "COUNT", "a", {"kinds": [1059], "#p": [CAROL.pubkey]}) == "auth-required"
    await wire.say("COUNT", "c", {})
    assert (await wire.hear())[2] == {"count": 3}
    nobody = await relay.connect()
    assert await nobody.ask({}) == await nobody.ask({"limit": 1}) == [public.id]
    assert await nobody.ask({"ids": [to_bob.id, other.id]}) == []
    await nobody.say("COUNT", "c", {})
    assert (await nobody.hear())[2] == {"count": 1}


async def test_live_private_messages_go_to_their_parties_only(relay):
    nobody, bob, carol, writer = [await relay.connect() for _ in range(4)]
    await prove(bob, BOB, relay)
    await prove(carol, CAROL, relay)
    for wire in (nobody, bob, carol):
        await wire.say("REQ", "all", {})
        assert await wire.hear() == ["EOSE", "all"]
    for event in (wrap(BOB), wrap(BOB, kind=21_059)):
        await writer.publish(event)
        assert (await bob.hear())[2]["id"] == event.id
    last = note(at=now())
    await writer.publish(last)
    for wire in (nobody, bob, carol):
        assert (await wire.hear())[2]["id"] == last.id


async def test_several_keys_on_one_connection_add_up(relay):
    writer, wire = await relay.connect(), await relay.connect()
    events = [wrap(BOB), wrap(CAROL)]
    for event in events:
        await writer.publish(event)
    assert await prove(wire, BOB, relay) == (True, "")
    assert await prove(wire, CAROL, relay) == (True, "")
    found = await wire.ask({"kinds": [1059], "#p": [BOB.pubkey, CAROL.pubkey]})
    assert set(found) == {event.id for event in events}


async def test_an_auth_for_another_relay_or_challenge_or_by_an_unwanted_key_proves_nothing(relay):
    wire, other = await relay.connect(), await relay.connect()
    assert wire.challenge != other.challenge
    for change in ({"relay": "ws://127.0.0.1:1"}, {"relay": "wss://evil.example.com"}, {"challenge": other.challenge}):
        assert not (await prove(wire, BOB, relay, change))[0]
    assert (await prove(wire, AGENTS[0], relay))[1].startswith("blocked:")
    assert await closed(wire, "REQ", "a", {"kinds": [1059]}) == "auth-required"


async def test_a_protected_event_is_taken_from_its_proven_author_only(relay):
    wire = await relay.connect()
    event = note(BOB, at=now(), with_tags=[("-",)])
    assert (await wire.publish(event))[1].startswith("auth-required:")
    await prove(wire, ALICE, relay)
    assert (await wire.publish(event))[1].startswith("restricted:")
    await prove(wire, BOB, relay)
    assert await wire.publish(event) == (True, "")


async def send_lists(wire, relay, agents, node=NODE, url=None, bare=False):
    url = url or relay.url
    at = now()
    consents = [consent_of(one.sign(consent_draft(node.pubkey, url, at, at + 3_600))) for one in agents]
    drafts = list_drafts(url, [one.pubkey for one in agents] if bare else consents, at)
    answers = []
    for draft in drafts:
        await wire.say("AUTH", node.sign(draft).to_dict())
        verb, _, accepted, reason = await wire.hear()
        assert verb == "OK"
        answers.append((accepted, reason))
    return answers


async def test_one_auth_and_lists_read_for_hundreds_of_keys(relay):
    writer, wire = await relay.connect(), await relay.connect()
    await prove(wire, NODE, relay)
    answers = await send_lists(wire, relay, AGENTS)
    assert answers == [(True, "")] * 3
    await wire.say("REQ", "dm", {"kinds": [1059], "#p": [one.pubkey for one in AGENTS], "limit": 0})
    assert await wire.hear() == ["EOSE", "dm"]
    for agent in (AGENTS[1], AGENTS[333], AGENTS[599]):
        event = wrap(agent)
        await writer.publish(event)
        assert (await wire.hear())[2]["id"] == event.id
    assert await closed(wire, "REQ", "x", {"kinds": [1059], "#p": [BOB.pubkey]}) == "auth-required"
    again = await relay.connect()  # the relay has verified these consents before
    await prove(again, NODE, relay)
    assert (await send_lists(again, relay, AGENTS[:3]))[0] == (True, "")


async def test_a_list_is_refused_without_its_nodes_auth_or_for_elsewhere_or_beyond_the_bound(relay):
    wire = await relay.connect()
    assert (await send_lists(wire, relay, AGENTS[:2]))[0][1].startswith("auth-required:")
    await prove(wire, ALICE, relay)
    assert (await send_lists(wire, relay, AGENTS[:2]))[0][1].startswith("auth-required:")
    await prove(wire, NODE, relay)
    assert (await send_lists(wire, relay, AGENTS[:2], url="wss://evil.example.com"))[0][1].startswith("invalid:")
    more = [Key(bytes([9]) * 30 + number.to_bytes(2, "big")) for number in range(1, 602)]
    assert (await send_lists(wire, relay, more, bare=True))[0][1].startswith("restricted:")
    assert await closed(wire, "REQ", "a", {"kinds": [1059], "#p": [AGENTS[1].pubkey]}) == "auth-required"


async def test_a_bare_list_is_believed_of_a_trusted_node_only(relay):
    for node, good in ((NODE, False), (CAROL, True)):
        wire = await relay.connect()
        await prove(wire, node, relay)
        assert (await send_lists(wire, relay, AGENTS[:5], node, bare=True))[0][0] is good
        await wire.say("REQ", "a", {"kinds": [1059], "#p": [AGENTS[1].pubkey]})
        assert (await wire.hear())[0] == ("EOSE" if good else "CLOSED")


async def test_a_list_makes_nobody_an_author(relay):
    wire = await relay.connect()
    await prove(wire, NODE, relay)
    await send_lists(wire, relay, [BOB])
    assert (await wire.publish(note(BOB, at=now(), with_tags=[("-",)])))[1].startswith("restricted:")


@pytest.mark.parametrize("kind", [13, 22_242, 22_243, 22_244, 24_242, 27_235])
async def test_what_belongs_in_no_relay_is_not_taken(relay, kind):
    wire = await relay.connect()
    assert (await wire.publish(note(kind=kind, at=now())))[1].startswith("blocked:")


async def reconcile(wire, held, wanted, sub="neg"):
    """(have, need) after all rounds."""
    side = Initiator(Vector([(event.created_at, event.id) for event in held]))
    have, need = [], []
    await wire.say("NEG-OPEN", sub, wanted, side.start())
    while True:
        verb, heard_sub, message = await wire.hear()
        assert (verb, heard_sub) == ("NEG-MSG", sub), message
        step = side.receive(message)
        have += step.have
        need += step.need
        if step.reply is None:
            await wire.say("NEG-CLOSE", sub)
            return set(have), set(need)
        await wire.say("NEG-MSG", sub, step.reply)


async def test_both_sides_learn_what_the_other_lacks(relay):
    wire = await relay.connect()
    events = [note(content=str(number), at=now() - number) for number in range(500)]
    stored, ours = events[:400], events[100:]
    for event in stored:
        await wire.offer(event)
    for _ in stored:
        assert (await wire.hear())[2] is True
    have, need = await reconcile(wire, ours, {"kinds": [1]})
    assert have == {event.id for event in events[400:]}
    assert need == {event.id for event in events[:100]}


async def test_a_reconciliation_names_no_private_event_of_others(relay):
    writer = await relay.connect()
    to_bob, to_carol, public = wrap(BOB), wrap(CAROL), note(at=now())
    for event in (to_bob, to_carol, public):
        await writer.publish(event)
    nobody, bob = await relay.connect(), await relay.connect()
    assert await reconcile(nobody, [], {}) == (set(), {public.id})
    await prove(bob, BOB, relay)
    assert await reconcile(bob, [], {}) == (set(), {public.id, to_bob.id})
    assert await reconcile(bob, [], {"kinds": [1059]}) == (set(), {to_bob.id})


async def test_reconciliations_are_bounded_and_given_back(tmp_path):
    limits = Limits(syncs=2, sync_items=5, all_sync_items=8)
    async with running(tmp_path / "relay.db", limits) as relay:
        wire = await relay.connect()
        events = [note(content=str(number), at=now() - number) for number in range(5)]
        for event in events:
            await wire.publish(event)
        some = {"ids": [event.id for event in events[:3]]}
        start = Initiator(Vector([])).start()
        await wire.say("NEG-OPEN", "a", {}, start)
        assert (await wire.hear())[0] == "NEG-MSG"
        assert await closed(wire, "NEG-OPEN", "b", {}, start) == "blocked"  # 5 + 5 > 8
        await wire.say("NEG-OPEN", "b", some, start)
        assert (await wire.hear())[0] == "NEG-MSG"
        assert await closed(wire, "NEG-OPEN", "c", {}, start) == "blocked"  # two are open
        assert await closed(wire, "NEG-MSG", "nothing", start) == "closed"
        assert await closed(wire, "NEG-MSG", "a", "zz") == "invalid"
        await wire.say("NEG-CLOSE", "b")
        await wire.publish(note(content="one more", at=now()))
        assert await closed(wire, "NEG-OPEN", "d", {}, start) == "blocked"  # six are too many for one
        syncs = relay.relay._hub._syncs
        assert (len(syncs), syncs.items) == (0, 0)
        await wire.say("NEG-OPEN", "e", some, start)
        assert (await wire.hear())[0] == "NEG-MSG"
        wire.ws._conn.transport.abort()
        other = await relay.connect()
        assert await reconcile(other, [], some) == (set(), set(some["ids"]))
        await other.say("COUNT", "c", {"kinds": [9]})
        await other.hear()
        assert (len(syncs), syncs.items) == (0, 0)


async def test_a_stranger_who_is_known_learns_nothing_from_what_a_limit_leaves_out(relay):
    """A private event that used up a place of the answer would tell when its receiver was written to."""
    writer, wire = await relay.connect(), await relay.connect()
    public = note(at=now() - 100, with_tags=[("p", BOB.pubkey)])
    for event in (public, wrap(BOB)):
        await writer.publish(event)
    await prove(wire, CAROL, relay)
    assert await wire.ask({"#p": [BOB.pubkey], "limit": 1}) == [public.id]
    assert await wire.ask({"limit": 1}) == [public.id]


async def test_a_party_still_gets_no_more_than_it_asked_for(relay):
    writer, wire = await relay.connect(), await relay.connect()
    events = [wrap(BOB), note(at=now() - 5), note(BOB, 4, at=now() - 9, with_tags=[("p", ALICE.pubkey)])]
    for event in events:
        await writer.publish(event)
    await prove(wire, BOB, relay)
    assert await wire.ask({"limit": 2}) == [events[0].id, events[1].id]


async def test_many_kinds_and_a_private_event_do_not_make_a_small_question_too_broad(relay):
    """Anybody can write events of many kinds."""
    writer, wire = await relay.connect(), await relay.connect()
    begin = now() - 100
    events = [note(ALICE, 2_000 + number, at=begin + number) for number in range(90)]
    for event in (*events, wrap(BOB), wrap(NODE)):
        assert await writer.publish(event) == (True, "")
    for _ in range(2):
        assert await wire.ask({"limit": 1}) == [events[-1].id]
        assert await wire.ask({"limit": 3, "until": begin + 50}) == [one.id for one in events[50:47:-1]]
        await wire.say("COUNT", "c", {})
        assert (await wire.hear())[2] == {"count": 90}
        await prove(wire, CAROL, relay)
