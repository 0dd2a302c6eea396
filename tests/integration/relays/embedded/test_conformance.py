"""NIP-01, 09, 11, 40, 45 and 70 by raw frames."""

import time

import pytest

from tests.integration.relays.embedded.relay_part import SetClock, running
from tests.unit.relays.embedded.event_part import ALICE, BOB, NOW, note, tied


@pytest.fixture
async def relay(tmp_path):
    async with running(tmp_path / "relay.db") as made:
        yield made


@pytest.fixture
async def wire(relay):
    return await relay.connect()


async def test_an_event_is_acknowledged_stored_and_returned_as_it_was(relay, wire):
    event = note(content='quote " back\\slash \n tab\t nul\0 \u2028 é 🎉', with_tags=[("t", "é"), ("e", "")])
    assert await wire.publish(event) == (True, "")
    await wire.say("REQ", "a", {"ids": [event.id]})
    heard = await wire.hear()
    assert heard[:2] == ["EVENT", "a"]
    assert heard[2] == {**event.to_dict(), "tags": [list(tag) for tag in event.tags]}
    assert await wire.hear() == ["EOSE", "a"]


async def test_the_second_time_is_a_duplicate_and_no_news(relay, wire):
    listener = await relay.connect()
    await listener.say("REQ", "live", {})
    assert await listener.hear() == ["EOSE", "live"]
    event = note()
    await wire.publish(event)
    accepted, reason = await wire.publish(event)
    assert accepted
    assert reason.startswith("duplicate: ")
    assert (await listener.hear())[2]["id"] == event.id
    assert await listener.is_silent()


async def test_unknown_fields_are_not_passed_on(wire):
    event = note()
    await wire.say("EVENT", {**event.to_dict(), "extra": "x"})
    assert (await wire.hear())[2] is True
    await wire.say("REQ", "a", {"ids": [event.id]})
    assert "extra" not in (await wire.hear())[2]


@pytest.mark.parametrize(
    "change",
    [{"content": "changed"}, {"sig": "0" * 128}, {"id": "0" * 64}, {"pubkey": BOB.pubkey}, {"pubkey": "f" * 64}],
)
async def test_a_forged_event_is_refused_before_anyone_hears_of_it(relay, wire, change):
    listener = await relay.connect()
    await listener.say("REQ", "live", {})
    await listener.hear()
    event = note(kind=20_001) if "sig" in change else note()
    await wire.say("EVENT", event.to_dict() | change)
    verb, _, accepted, reason = await wire.hear()
    assert (verb, accepted) == ("OK", False)
    assert reason.startswith("invalid: ")
    assert await listener.is_silent()
    assert await wire.ask({}) == []


async def test_a_forged_body_under_a_known_id_is_not_called_a_duplicate(wire):
    event = note()
    await wire.publish(event)
    await wire.say("EVENT", event.to_dict() | {"content": "other"})
    assert (await wire.hear())[2] is False
    assert await wire.publish(event) == (True, "duplicate: already have this event")


async def test_answers_are_newest_first_with_ties_by_the_lowest_id(wire):
    ties = tied()
    newer, older = note(at=NOW + 1), note(at=NOW - 1)
    for event in [ties[2], older, ties[0], newer, ties[3], ties[1]]:
        await wire.publish(event)
    assert await wire.ask({}) == [newer.id, *(event.id for event in ties), older.id]
    assert await wire.ask({"limit": 3}) == [newer.id, ties[0].id, ties[1].id]
    assert await wire.ask({"limit": 1}, {"until": NOW - 1}) == [newer.id, older.id]
    assert await wire.ask({"since": NOW, "until": NOW}) == [event.id for event in ties]


async def test_a_limit_of_zero_is_live_only(wire):
    await wire.publish(note())
    await wire.say("REQ", "live", {"limit": 0})
    assert await wire.hear() == ["EOSE", "live"]
    later = note(content="later")
    await wire.offer(later)
    heard = [await wire.hear(), await wire.hear()]
    assert ["OK", later.id, True, ""] in heard
    assert [one[2]["id"] for one in heard if one[0] == "EVENT"] == [later.id]


@pytest.mark.parametrize("wanted", [{"ids": []}, {"kinds": []}, {"authors": []}, {"#e": []}])
async def test_an_empty_list_matches_nothing_stored_or_live(wire, wanted):
    await wire.publish(note(with_tags=[("e", "a" * 64)]))
    await wire.say("REQ", "a", wanted)
    assert await wire.hear() == ["EOSE", "a"]
    await wire.publish(note(content="live", with_tags=[("e", "a" * 64)]))
    assert await wire.is_silent()


async def test_a_new_request_under_the_same_id_replaces_the_first(wire):
    await wire.say("REQ", "a", {"kinds": [1]})
    assert await wire.hear() == ["EOSE", "a"]
    await wire.say("REQ", "a", {"kinds": [2]})
    assert await wire.hear() == ["EOSE", "a"]
    assert await wire.publish(note(kind=1)) == (True, "")
    await wire.offer(note(kind=2))
    assert sorted([(await wire.hear())[0], (await wire.hear())[0]]) == ["EVENT", "OK"]
    assert await wire.is_silent()


async def test_a_close_right_behind_the_request_ends_it(wire):
    await wire.publish(note())
    for number in range(50):
        await wire.say("REQ", f"s{number}", {"kinds": [1]})
        await wire.say("CLOSE", f"s{number}")
    await wire.say("REQ", "end", {"limit": 0})
    while await wire.hear() != ["EOSE", "end"]:
        pass
    event = note(content="after")
    await wire.offer(event)
    heard = [await wire.hear(), await wire.hear()]
    assert {tuple(one[:2]) for one in heard} == {("OK", event.id), ("EVENT", "end")}
    assert await wire.is_silent()


async def test_one_subscription_gets_an_event_once_though_many_filters_match(wire):
    await wire.say("REQ", "a", {"kinds": [1]}, {"authors": [ALICE.pubkey]}, {}, {"#t": ["x"]})
    assert await wire.hear() == ["EOSE", "a"]
    event = note(with_tags=[("t", "x")])
    await wire.offer(event)
    assert {(await wire.hear())[0], (await wire.hear())[0]} == {"EVENT", "OK"}
    assert await wire.is_silent()
    assert await wire.ask({"kinds": [1]}, {}, {"#t": ["x"]}) == [event.id]


async def test_an_ephemeral_event_reaches_listeners_and_is_not_stored(relay, wire):
    listener = await relay.connect()
    await listener.say("REQ", "live", {"kinds": [20_001]})
    await listener.hear()
    event = note(kind=20_001)
    assert await wire.publish(event) == (True, "")
    assert (await listener.hear())[2]["id"] == event.id
    assert await wire.ask({}) == []


async def test_the_newest_of_a_replaceable_kind_is_all_there_is(wire):
    old, new = note(kind=0, at=NOW), note(kind=0, at=NOW + 1)
    await wire.publish(new)
    accepted, reason = await wire.publish(old)
    assert accepted
    assert reason.startswith("duplicate: ")
    assert await wire.ask({"kinds": [0]}) == [new.id]


async def test_a_deletion_removes_what_its_author_wrote(wire):
    mine, addressed, theirs = note(), note(kind=30_023, with_tags=[("d", "x")]), note(BOB)
    for event in (mine, addressed, theirs):
        await wire.publish(event)
    address = f"30023:{ALICE.pubkey}:x"
    deletion = note(kind=5, at=NOW + 1, with_tags=[("e", mine.id), ("e", theirs.id), ("a", address)])
    assert await wire.publish(deletion) == (True, "")
    assert await wire.ask({}) == [deletion.id, theirs.id]
    accepted, reason = await wire.publish(mine)
    assert not accepted
    assert reason.startswith("blocked: ")


async def test_expired_events_are_refused_on_arrival_and_gone_when_their_time_comes(tmp_path):
    clock = SetClock(NOW)
    async with running(tmp_path / "relay.db", clock=clock) as relay:
        wire = await relay.connect()
        accepted, reason = await wire.publish(note(with_tags=[("expiration", str(NOW))]))
        assert not accepted
        assert reason.startswith("invalid: ")
        event = note(with_tags=[("expiration", str(NOW + 60))])
        assert await wire.publish(event) == (True, "")
        assert await wire.ask({}) == [event.id]
        clock.time += 60
        assert await wire.ask({}) == []


async def test_a_date_too_far_ahead_is_refused(wire):
    accepted, reason = await wire.publish(note(at=int(time.time()) + 1_000))
    assert not accepted
    assert reason.startswith("invalid: ")
    assert (await wire.publish(note(at=int(time.time()) + 600)))[0]


async def test_a_protected_event_is_refused(wire):
    accepted, reason = await wire.publish(note(with_tags=[("-",)]))
    assert not accepted
    assert reason.startswith("auth-required: ")


async def test_an_unknown_filter_field_closes_the_subscription(wire):
    await wire.say("REQ", "a", {"whatever": ["x"]})
    verb, sub_id, reason = await wire.hear()
    assert (verb, sub_id) == ("CLOSED", "a")
    assert reason.startswith("invalid: ")


async def test_a_count_counts_each_event_once(wire):
    for event in (note(with_tags=[("t", "x"), ("t", "y")]), note(kind=2), note(kind=3)):
        await wire.publish(event)
    await wire.say("COUNT", "c", {"kinds": [1, 2]}, {"#t": ["x", "y"]})
    assert await wire.hear() == ["COUNT", "c", {"count": 2}]
    await wire.say("COUNT", "c", {"kinds": []})
    assert await wire.hear() == ["COUNT", "c", {"count": 0}]


async def test_a_long_answer_arrives_whole_and_in_order(wire):
    events = [note(content=str(number), at=NOW + number) for number in range(700)]
    for event in events:
        await wire.offer(event)
    for _ in events:
        assert (await wire.hear())[2] is True
    expected = [event.id for event in reversed(events)]
    assert await wire.ask({"limit": 5_000}) == expected
    assert await wire.ask({}) == expected[:500]
    assert await wire.ask({"limit": 99_999_999}) == expected


async def test_events_outlive_a_restart(tmp_path):
    event = note()
    async with running(tmp_path / "relay.db") as relay:
        await (await relay.connect()).publish(event)
    async with running(tmp_path / "relay.db") as relay:
        wire = await relay.connect()
        assert await wire.ask({}) == [event.id]
        assert (await wire.publish(event))[1].startswith("duplicate: ")


async def test_a_request_to_vanish_may_name_the_relay_by_localhost(relay, wire):
    """NIP-62: on a machine of one's own the relay is known by both names."""
    mine = note()
    assert await wire.publish(mine) == (True, "")
    named = relay.url.replace("127.0.0.1", "localhost")
    assert named != relay.url
    asked = note(kind=62, content="", at=NOW + 50, with_tags=[("relay", named)])
    assert await wire.publish(asked) == (True, "")
    assert mine.id not in await wire.ask({"authors": [ALICE.pubkey]})
