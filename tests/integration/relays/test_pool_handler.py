"""Handlers that fail, are slow or end their own subscription, and bursts that are faster than they are."""

import asyncio
import time

import pytest

from core.error import InvalidInput
from node.storage.memory import MemoryDatabase
from relays.event import MAX_EVENT_BYTES, Event
from relays.filter import Filter
from relays.key import Key
from relays.verdict import VerdictState
from tests.integration.relays.hostile_part import (
    PERMIT,
    Collector,
    Session,
    make_pool,
    note,
    relay,
    serving,
    until,
)

KEY = Key.generate()
NOTES = [Filter(kinds=frozenset({1}))]


def now() -> int:
    return int(time.time())


def wire(event: Event) -> dict[str, object]:
    return event.to_dict() | {"tags": [list(tag) for tag in event.tags]}


async def test_a_failing_handler_does_not_mark_the_event_as_seen() -> None:
    async with relay() as one, relay() as two:
        tries: list[str] = []

        async def picky(event: Event, url: str) -> None:
            tries.append(url)
            if len(tries) == 1:
                raise InvalidInput("not now")
            if len(tries) == 3:
                raise ZeroDivisionError

        pool = make_pool(MemoryDatabase(), one.url, two.url)
        pool.subscribe("notes", NOTES, picky)
        async with serving(pool):
            await until(lambda: bool(one.requests and two.requests))
            event = note(KEY, "x", now())
            await one.broadcast(event)
            await until(lambda: len(tries) == 1)
            await two.broadcast(event)
            await until(lambda: len(tries) == 2)
            await two.broadcast(note(KEY, "y", now()))
            await two.broadcast(note(KEY, "z", now()))
            await until(lambda: len(tries) == 4)  # even a fault in the handler stops nothing
            assert sum(health.handler_errors for health in pool.health()) == 2


async def test_a_slow_handler_holds_up_neither_other_subscriptions_nor_answers() -> None:
    async with relay() as part:
        gate = asyncio.Event()
        got = Collector()

        async def slow(event: Event, url: str) -> None:
            await gate.wait()

        pool = make_pool(MemoryDatabase(), part.url)
        pool.subscribe("slow", NOTES, slow)
        pool.subscribe("quick", [Filter(kinds=frozenset({2}))], got)
        async with serving(pool):
            assert await pool.caught_up("slow", 5)
            assert await pool.caught_up("quick", 5)
            await part.broadcast(note(KEY, "x", now()))
            await part.broadcast(note(KEY, "y", now(), kind=2))
            await until(lambda: len(got.events) == 1)
            assert (await pool.send(part.url, note(KEY, "z", now(), kind=3), PERMIT)).state is VerdictState.STORED
            gate.set()


async def test_what_found_the_queue_full_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from relays import delivery

    monkeypatch.setattr(delivery, "MAX_WAITING", 20)
    async with relay() as part:
        gate = asyncio.Event()
        got = Collector()

        async def slow(event: Event, url: str) -> None:
            await gate.wait()
            await got(event, url)

        pool = make_pool(MemoryDatabase(), part.url)
        pool.subscribe("notes", NOTES, slow)
        async with serving(pool):
            assert await pool.caught_up("notes", 5)
            events = [note(KEY, str(n), now() - 30) for n in range(100)]
            part.keep(*events)
            for event in events:
                await part.broadcast(event)
            await until(lambda: pool.health()[0].dropped >= 80)
            part.cap = 15
            gate.set()
            monkeypatch.setattr(delivery, "MAX_WAITING", 200)
            part.cap = 500
            await until(lambda: len(set(got.ids)) == 100, 15)
            assert len(got.ids) == 100


async def test_a_handler_may_end_its_own_subscription() -> None:
    async with relay() as part:
        done = asyncio.Event()

        async def once(event: Event, url: str) -> None:
            pool.unsubscribe("notes")
            await asyncio.sleep(0.05)
            done.set()

        pool = make_pool(MemoryDatabase(), part.url)
        pool.subscribe("notes", NOTES, once)
        async with serving(pool):
            assert await pool.caught_up("notes", 5)
            await part.broadcast(note(KEY, "x", now()))
            await asyncio.wait_for(done.wait(), 60)


async def test_a_burst_is_verified_and_arrives_in_order() -> None:
    async with relay() as part:
        got = Collector()
        pool = make_pool(MemoryDatabase(), part.url)
        pool.subscribe("notes", NOTES, got)
        async with serving(pool):
            assert await pool.caught_up("notes", 5)
            events = [note(KEY, str(n), now()) for n in range(1_000)]
            session, (sub,) = part.sessions[0], part.sessions[0].subs
            for at, event in enumerate(events):
                if at % 10 == 0:
                    await session.say("EVENT", sub, wire(event) | {"content": "forged"})
                await session.say("EVENT", sub, wire(event))
            await until(lambda: len(got.events) == 1_000)
            assert got.ids == [event.id for event in events]
            assert pool.health()[0].forged == 100


async def test_a_relay_that_never_says_eose_still_delivers() -> None:
    async with relay() as part:

        async def silent(session: Session, sub: str, filters: list[Filter]) -> bool:
            for value in part.found(filters):
                await session.say("EVENT", sub, value)
            return True

        part.on_req = silent
        part.keep(note(KEY, "x", now()))
        got = Collector()
        pool = make_pool(MemoryDatabase(), part.url)
        pool.subscribe("notes", NOTES, got)
        async with serving(pool):
            await until(lambda: len(got.events) == 1)
            assert not await pool.caught_up("notes", 0.2)


async def test_a_flood_that_is_faster_than_its_handler_is_held_back_and_not_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from relays import delivery

    monkeypatch.setattr(delivery, "CROWDED", 50)
    monkeypatch.setattr(delivery, "MAX_WAITING", 400)
    async with relay() as part:
        got = Collector()

        async def slowish(event: Event, url: str) -> None:
            await asyncio.sleep(0.001)
            await got(event, url)

        pool = make_pool(MemoryDatabase(), part.url)
        pool.subscribe("notes", NOTES, slowish)
        async with serving(pool):
            assert await pool.caught_up("notes", 5)
            for n in range(1_000):
                await part.broadcast(note(KEY, str(n), now()))
            await until(lambda: len(got.events) == 1_000)
            assert pool.health()[0].dropped == 0


async def test_an_event_that_only_its_frame_has_room_for_is_dropped() -> None:
    """What is stored of it could not be read again after a restart: not a payment, not a request."""
    empty = len(note(KEY, "", now()).to_json())
    good, long = (note(KEY, "x" * (MAX_EVENT_BYTES - empty + more), now()) for more in (0, 1))
    assert (len(good.to_json()), len(long.to_json())) == (MAX_EVENT_BYTES, MAX_EVENT_BYTES + 1)
    async with relay() as part:
        got = Collector()
        pool = make_pool(MemoryDatabase(), part.url)
        pool.subscribe("notes", NOTES, got)
        async with serving(pool):
            assert await pool.caught_up("notes", 5)
            await part.broadcast(long)
            await part.broadcast(good)
            await until(lambda: got.ids == [good.id])
            assert pool.health()[0].malformed == 1
            assert pool.is_up(part.url)


async def test_a_burst_of_events_lets_other_work_go_on_meanwhile() -> None:
    turns, at = 0, []

    async def handle(event: Event, url: str) -> None:
        at.append(turns)  # it never waits: so is the opening of a wrap that is for nobody

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with relay() as part:
        part.keep(*(note(KEY, str(n), now() - 5) for n in range(200)))
        pool = make_pool(MemoryDatabase(), part.url)
        pool.subscribe("notes", NOTES, handle)
        async with serving(pool):
            working = asyncio.create_task(other())
            assert await pool.caught_up("notes", 5)
            working.cancel()
    assert len(at) == 200
    assert max(at.count(turn) for turn in set(at)) <= 16
