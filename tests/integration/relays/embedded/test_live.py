"""Fan-out, and the seam between the stored answer and the live stream."""

import asyncio

import pytest

from tests.integration.relays.embedded.relay_part import running
from tests.unit.relays.embedded.event_part import ALICE, BOB, NOW, note


@pytest.fixture
async def relay(tmp_path):
    async with running(tmp_path / "relay.db") as made:
        yield made


async def test_one_event_reaches_every_subscription_that_wants_it_and_no_other(relay):
    wanted = [
        {"kinds": [1]},
        {"authors": [ALICE.pubkey]},
        {"#t": ["x"]},
        {},
        {"since": NOW},
        {"kinds": [1], "#t": ["x"]},
    ]
    unwanted = [{"kinds": [2]}, {"authors": [BOB.pubkey]}, {"#t": ["y"]}, {"until": NOW - 1}, {"ids": ["0" * 64]}]
    wires = [await relay.connect() for _ in range(40)]
    for number, wire in enumerate(wires):
        for place, one in enumerate(wanted):
            await wire.say("REQ", f"yes {place} {number % 3}", {**one, "limit": 0})
        for place, one in enumerate(unwanted):
            await wire.say("REQ", f"no {place}", {**one, "limit": 0})
        for _ in [*wanted, *unwanted]:
            assert (await wire.hear())[0] == "EOSE"
    publisher = await relay.connect()
    event = note(with_tags=[("t", "x")])
    assert await publisher.publish(event) == (True, "")
    for number, wire in enumerate(wires):
        heard = [await wire.hear() for _ in wanted]
        assert {one[1] for one in heard} == {f"yes {place} {number % 3}" for place in range(len(wanted))}
        assert {one[2]["id"] for one in heard} == {event.id}
    assert await wires[0].is_silent()


async def test_no_event_falls_between_the_stored_answer_and_the_live_stream(relay):
    publisher = await relay.connect()
    events = [note(content=str(number), at=NOW + number // 10) for number in range(1_500)]

    async def publish():
        for at in range(0, len(events), 10):
            for event in events[at : at + 10]:
                await publisher.offer(event)
            for _ in range(10):
                assert (await publisher.hear())[2] is True

    async def listen(delay):
        await asyncio.sleep(delay)
        wire = await relay.connect()
        await wire.say("REQ", "all", {"limit": 5_000})
        found = []
        while len(found) < len(events):
            heard = await wire.hear()
            if heard[0] == "EVENT":
                found.append(heard[2]["id"])
        assert await wire.is_silent(0.05)  # nothing twice
        return found

    publishing = asyncio.create_task(publish())
    for found in await asyncio.gather(*(listen(number * 0.02) for number in range(25))):
        assert len(found) == len(set(found))
        assert set(found) == {event.id for event in events}
    await publishing


async def test_a_pipelined_burst_is_checked_in_threads_and_answered_whole(relay):
    good = [note(content=str(number)) for number in range(300)]
    wire = await relay.connect()
    expected = {}
    for number, event in enumerate(good):
        fields = event.to_dict()
        expected[event.id] = number % 7 != 0
        await wire.say("EVENT", fields if number % 7 else fields | {"content": "forged"})
    answered = {}
    for _ in good:
        _, event_id, accepted, _ = await wire.hear()
        answered[event_id] = accepted
    assert answered == expected
    assert sorted(await wire.ask({})) == sorted(event_id for event_id, is_good in expected.items() if is_good)
