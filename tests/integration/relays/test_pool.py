"""The pool against a relay that lies, floods, freezes, forgets and restarts."""

import asyncio
import time
from dataclasses import replace

import pytest

from core.effect import Permit
from core.error import InvalidInput, Unpermitted
from core.identifier import EffectId
from node.storage.memory import MemoryDatabase
from relays import link as link_module
from relays.event import Event
from relays.filter import Filter
from relays.key import Key
from relays.verdict import VerdictState
from tests.integration.relays.hostile_part import (
    PERMIT,
    Collector,
    Keychain,
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


async def test_stored_and_live_events_reach_the_handler() -> None:
    async with relay() as part:
        old, new = note(KEY, "old", now() - 100), note(KEY, "new", now())
        part.keep(old)
        got = Collector()
        pool = make_pool(MemoryDatabase(), part.url)
        pool.subscribe("notes", NOTES, got)
        async with serving(pool):
            assert await pool.caught_up("notes", 5)
            assert got.ids == [old.id]
            await part.broadcast(new)
            await until(lambda: got.ids == [old.id, new.id])


async def test_a_subscription_made_while_running_is_asked_at_once() -> None:
    async with relay() as part:
        part.keep(note(KEY, "a", now() - 5))
        got = Collector()
        pool = make_pool(MemoryDatabase(), part.url)
        async with serving(pool):
            await until(lambda: pool.is_up(part.url))
            pool.subscribe("notes", NOTES, got)
            assert await pool.caught_up("notes", 5)
            assert len(got.events) == 1
            pool.unsubscribe("notes")
            await until(lambda: not part.sessions[0].subs)
            assert not await pool.caught_up("notes", 0.1)


async def test_caught_up_is_false_while_no_relay_answers() -> None:
    pool = make_pool(MemoryDatabase(), "ws://127.0.0.1:9")
    pool.subscribe("notes", NOTES, Collector())
    async with serving(pool):
        assert not await pool.caught_up("notes", 0.3)
        assert pool.health()[0].last_error


async def test_a_forgery_is_dropped_and_does_not_hide_the_genuine_event_that_comes_later() -> None:
    async with relay() as part:
        genuine = note(KEY, "pay 1 sat", now())
        forged = wire(genuine) | {"content": "pay 1000000 sat"}
        got = Collector()
        pool = make_pool(MemoryDatabase(), part.url)
        pool.subscribe("notes", NOTES, got)
        async with serving(pool):
            assert await pool.caught_up("notes", 5)
            await part.broadcast(forged)
            await part.broadcast(forged | {"sig": "0" * 128})
            await part.broadcast(genuine)
            await until(lambda: bool(got.events))
            await part.broadcast(forged)  # under an id that is known by now
            await part.broadcast(note(KEY, "last", now()))
            await until(lambda: len(got.events) == 2)
            assert [event.content for event in got.events] == ["pay 1 sat", "last"]
            assert pool.health()[0].forged == 2


async def test_one_event_from_two_relays_is_handled_once() -> None:
    async with relay() as one, relay() as two:
        event = note(KEY, "twice", now())
        got = Collector()
        pool = make_pool(MemoryDatabase(), one.url, two.url)
        pool.subscribe("notes", NOTES, got)
        async with serving(pool):
            await until(lambda: bool(one.requests and two.requests))
            await one.broadcast(event)
            await two.broadcast(event)
            await until(lambda: sum(health.duplicates for health in pool.health()) == 1)
            assert got.ids == [event.id]


async def test_a_future_event_is_dropped_and_does_not_poison_the_resume_point() -> None:
    async with relay() as part:
        database = MemoryDatabase()
        got = Collector()
        pool = make_pool(database, part.url)
        pool.subscribe("notes", NOTES, got)
        async with serving(pool):
            assert await pool.caught_up("notes", 5)
            await part.broadcast(note(KEY, "from 2099", 4_070_908_800))
            await part.broadcast(note(KEY, "a little ahead", now() + 600))
            await until(lambda: len(got.events) == 1)
            assert pool.health()[0].future == 1
        (row,) = await database.select("cursor")
        assert row["high"] <= now()


async def test_an_event_that_nobody_asked_for_is_dropped() -> None:
    async with relay() as part:
        got = Collector()
        pool = make_pool(MemoryDatabase(), part.url)
        pool.subscribe("notes", NOTES, got)
        async with serving(pool):
            assert await pool.caught_up("notes", 5)
            session = part.sessions[0]
            (sub,) = session.subs
            await session.say("EVENT", sub, wire(note(KEY, "wrong kind", now(), kind=7)))
            await session.say("EVENT", "another", wire(note(KEY, "wrong id", now())))
            await part.broadcast(note(KEY, "right", now()))
            await until(lambda: len(got.events) == 1)
            health = pool.health()[0]
            assert (got.events[0].content, health.off_filter, health.unasked) == ("right", 1, 1)


JUNK = [
    "", "null", "[]", "{}", "[[]]", '["EVENT"]', '["EVENT","x"]', '["OK"]', '["EOSE"]', '["EOSE",1]', "[" * 2000,
    "\x00", '["OK","x","true",""]', '["CLOSED"]', '["AUTH"]', '["NONSENSE",1]', '["COUNT","x",{}]',
]  # fmt: skip


async def test_junk_and_oversized_frames_are_dropped_and_the_connection_goes_on() -> None:
    async with relay() as part:
        got = Collector()
        pool = make_pool(MemoryDatabase(), part.url)
        pool.subscribe("notes", NOTES, got)
        async with serving(pool):
            assert await pool.caught_up("notes", 5)
            session = part.sessions[0]
            (sub,) = session.subs
            for junk in JUNK:
                await session.raw(junk)
            await session.ws.send_bytes(b"\x00\x01")
            await session.say("EVENT", sub, {"id": 5})
            await session.say("EVENT", sub, wire(note(KEY, "x" * 70_000, now())))  # more than 64 KiB
            await session.raw('["NOTICE","' + "x" * (1 << 20) + '"]')  # more than 1 MiB
            await part.broadcast(note(KEY, "right", now()))
            await until(lambda: len(got.events) == 1)
            assert pool.health()[0].malformed == len(JUNK) + 4
            assert part.connections == 1


async def test_a_frame_of_many_mebibytes_ends_the_connection_and_nothing_else() -> None:
    async with relay() as part:
        got = Collector()
        pool = make_pool(MemoryDatabase(), part.url)
        pool.subscribe("notes", NOTES, got)
        async with serving(pool):
            assert await pool.caught_up("notes", 5)
            await part.sessions[0].raw("x" * (5 << 20))
            await until(lambda: part.connections == 2)
            await until(lambda: len(part.requests) == 2)
            await part.broadcast(note(KEY, "after", now()))
            await until(lambda: len(got.events) == 1)


async def test_a_flood_of_notices_changes_nothing() -> None:
    async with relay() as part:
        got = Collector()
        pool = make_pool(MemoryDatabase(), part.url)
        pool.subscribe("notes", NOTES, got)
        async with serving(pool):
            assert await pool.caught_up("notes", 5)
            for _ in range(2_000):
                await part.sessions[0].say("NOTICE", "could not parse command")
            await part.broadcast(note(KEY, "after", now()))
            await until(lambda: len(got.events) == 1)
            assert (part.connections, len(part.requests), pool.health()[0].notices) == (1, 1, 2_000)


async def test_a_relay_that_only_sends_forgeries_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "MAX_FAULTS", 50)
    async with relay() as part:
        pool = make_pool(MemoryDatabase(), part.url)
        pool.subscribe("notes", NOTES, Collector())
        async with serving(pool):
            assert await pool.caught_up("notes", 5)
            forged = wire(note(KEY, "x", now())) | {"content": "y"}
            for _ in range(60):
                await part.broadcast(forged)
            await asyncio.sleep(0.1)
            if part.sessions:
                await part.sessions[0].say("NOTICE", "one more frame")
            await until(lambda: part.connections >= 2)


async def test_three_thousand_missed_events_all_arrive_past_a_result_limit() -> None:
    async with relay() as part:
        database = MemoryDatabase()
        start = now() - 4_000
        part.keep(note(KEY, "before", start))
        got = Collector()
        pool = make_pool(database, part.url)
        pool.subscribe("notes", [replace(NOTES[0], limit=10)], got)
        async with serving(pool):
            assert await pool.caught_up("notes", 5)
        await database.commit([_set_high(part.url, start)])
        missed = [note(KEY, str(n), start + 1 + n // 3) for n in range(3_000)]
        part.keep(*missed)
        again = make_pool(database, part.url)
        again.subscribe("notes", [replace(NOTES[0], limit=10)], got)
        part.requests.clear()
        async with serving(again):
            assert await again.caught_up("notes", 30)
        assert set(got.ids) >= {event.id for event in missed}
        assert len(part.requests) >= 7
        assert all("limit" not in one for _, filters in part.requests for one in filters)
        assert part.requests[0][1][0]["since"] == start - 60


def _set_high(url: str, high: int):
    from core.unit import Update

    return Update("cursor", {"relay": url, "name": "notes"}, {"high": high})


async def test_a_connection_that_is_cut_in_the_middle_of_paging_loses_nothing() -> None:
    async with relay() as part:
        part.cap = 20
        events = [note(KEY, str(n), now() - 1_000 + n) for n in range(200)]
        part.keep(*events)
        cuts = 0

        async def cut(session: Session, sub: str, filters: list[Filter]) -> bool:
            nonlocal cuts
            if len(part.requests) in (4, 9):
                cuts += 1
                part.abort()
                return True
            return False

        part.on_req = cut
        database = MemoryDatabase()
        got = Collector()
        pool = make_pool(database, part.url)
        pool.subscribe("notes", NOTES, got)
        async with serving(pool):
            assert await pool.caught_up("notes", 20)
        assert cuts == 2
        assert sorted(got.ids) == sorted(event.id for event in events)


async def test_a_stop_in_the_middle_of_paging_leaves_the_cursor_where_it_was() -> None:
    async with relay() as part:
        part.cap = 20
        part.keep(*[note(KEY, str(n), now() - 1_000 + n) for n in range(100)])

        async def silent(session: Session, sub: str, filters: list[Filter]) -> bool:
            return len(part.requests) >= 3

        part.on_req = silent
        database = MemoryDatabase()
        got = Collector()
        pool = make_pool(database, part.url)
        pool.subscribe("notes", NOTES, got)
        async with serving(pool):
            await until(lambda: len(part.requests) >= 3)
        assert await database.select("cursor") == []
        part.on_req = None
        again = make_pool(database, part.url)
        again.subscribe("notes", NOTES, got)
        async with serving(again):
            assert await again.caught_up("notes", 10)
        assert len(set(got.ids)) == 100


async def test_after_a_relay_restart_reading_resumes_with_an_overlap_and_no_loss() -> None:
    async with relay() as part:
        got = Collector()
        pool = make_pool(MemoryDatabase(), part.url)
        pool.subscribe("notes", NOTES, got)
        async with serving(pool):
            assert await pool.caught_up("notes", 5)
            seen = note(KEY, "seen", now())
            part.keep(seen)
            await part.broadcast(seen)
            await until(lambda: len(got.events) == 1)
            first_sub = part.requests[0][0]
            await part.stop()
            missed = [note(KEY, f"missed {n}", now() - 30 + n) for n in range(30)]  # also dated before the break
            part.keep(*missed)
            await part.start()
            await until(lambda: len(got.events) == 31, 20)
            resumed_sub, (resumed,) = part.requests[1]
            assert resumed["since"] == seen.created_at - 60
            assert resumed_sub != first_sub
            assert got.ids.count(seen.id) == 1


async def test_a_backdated_subscription_resumes_two_days_and_an_hour_earlier() -> None:
    async with relay() as part:
        database = MemoryDatabase()
        for _ in range(2):
            pool = make_pool(database, part.url)
            pool.subscribe("dm", [Filter(kinds=frozenset({1059}))], Collector(), backdated=True)
            async with serving(pool):
                assert await pool.caught_up("dm", 5)
        assert "since" not in part.requests[0][1][0]
        assert abs(part.requests[-1][1][0]["since"] - (now() - 2 * 86_400 - 3_600)) < 30


@pytest.mark.parametrize("reason", ["rate-limited: slow down", "error: shutting down", ""])
async def test_a_subscription_that_is_closed_for_a_passing_reason_is_asked_again(reason: str) -> None:
    async with relay() as part:

        async def once(session: Session, sub: str, filters: list[Filter]) -> bool:
            if len(part.requests) > 1:
                return False
            session.subs.pop(sub)
            await session.say("CLOSED", sub, reason)
            return True

        part.on_req = once
        got = Collector()
        pool = make_pool(MemoryDatabase(), part.url)
        pool.subscribe("notes", NOTES, got)
        async with serving(pool):
            assert await pool.caught_up("notes", 5)
            await part.broadcast(note(KEY, "x", now()))
            await until(lambda: len(got.events) == 1)
            assert (len(part.requests), part.connections) == (2, 1)


@pytest.mark.parametrize("reason", ["blocked: no", "restricted: members only", "invalid: bad filter", "unsupported: x"])
async def test_a_subscription_that_is_refused_for_good_is_reported_and_not_repeated(reason: str) -> None:
    async with relay() as part:

        async def refuse(session: Session, sub: str, filters: list[Filter]) -> bool:
            await session.say("CLOSED", sub, reason)
            return True

        part.on_req = refuse
        pool = make_pool(MemoryDatabase(), part.url)
        pool.subscribe("notes", NOTES, Collector())
        async with serving(pool):
            await until(lambda: bool(pool.health()[0].stopped))
            await asyncio.sleep(1.2)
            assert pool.health()[0].stopped == {"notes": reason}
            assert len(part.requests) == 1


def signer(calls: list[tuple[str, str]], *keys: Key) -> Keychain:
    return Keychain(*(keys or (KEY,)), calls=calls)


async def test_authentication_happens_once_and_the_subscription_is_asked_once_more() -> None:
    async with relay() as part:

        async def guard(session: Session, sub: str, filters: list[Filter]) -> bool:
            if part.auths:
                return False
            await session.say("AUTH", "riddle")
            await session.say("CLOSED", sub, "auth-required: who are you?")
            return True

        part.on_req = guard
        calls: list[tuple[str, str]] = []
        got = Collector()
        part.keep(note(KEY, "secret", now()))
        pool = make_pool(MemoryDatabase(), part.url, auth=signer(calls))
        pool.subscribe("notes", NOTES, got)
        async with serving(pool):
            assert await pool.caught_up("notes", 5)
        assert calls == [(part.url, "riddle")]
        assert len(got.events) == 1


async def test_a_relay_that_asks_for_authentication_again_and_again_is_given_up() -> None:
    async with relay() as part:

        async def guard(session: Session, sub: str, filters: list[Filter]) -> bool:
            await session.say("AUTH", f"riddle {len(part.requests)}")
            await session.say("CLOSED", sub, "auth-required: once more")
            return True

        part.on_req = guard
        pool = make_pool(MemoryDatabase(), part.url, auth=signer([]))
        pool.subscribe("notes", NOTES, Collector())
        async with serving(pool):
            await until(lambda: bool(pool.health()[0].stopped))
            await asyncio.sleep(0.5)
            assert (len(part.auths), len(part.requests)) == (1, 2)


async def test_without_a_signer_we_stay_unknown() -> None:
    async with relay() as part:

        async def guard(session: Session, value: dict[str, object]) -> bool:
            await session.say("AUTH", "riddle")
            await session.say("OK", value["id"], False, "auth-required: who are you?")
            return True

        part.on_event = guard
        pool = make_pool(MemoryDatabase(), part.url)
        async with serving(pool):
            verdict = await pool.send(part.url, note(KEY, "x", now()), PERMIT)
        assert verdict.state is VerdictState.REFUSED
        assert part.auths == []


async def test_a_published_event_is_sent_again_after_authentication() -> None:
    async with relay() as part:

        async def guard(session: Session, value: dict[str, object]) -> bool:
            if part.auths:
                return False
            await session.say("AUTH", "riddle")
            await session.say("OK", value["id"], False, "auth-required: who are you?")
            return True

        part.on_event = guard
        pool = make_pool(MemoryDatabase(), part.url, auth=signer([]))
        async with serving(pool):
            verdict = await pool.send(part.url, note(KEY, "x", now()), PERMIT)
        assert verdict.state is VerdictState.STORED
        assert len(part.published) == 2


async def test_a_frozen_relay_is_noticed_by_the_heartbeat() -> None:
    async with relay() as part:

        async def freeze(session: Session, value: dict[str, object]) -> bool:
            await part.frozen.wait()  # the socket stays open, nothing is read, no ping is answered
            return True

        part.on_event = freeze
        pool = make_pool(MemoryDatabase(), part.url, heartbeat_s=1.5)
        async with serving(pool):
            verdict = await asyncio.wait_for(pool.send(part.url, note(KEY, "x", now()), PERMIT), 30)
            assert verdict.state is VerdictState.UNKNOWN
            part.on_event = None
            await until(lambda: part.connections >= 2)
            assert (await pool.send(part.url, note(KEY, "y", now()), PERMIT)).state is VerdictState.STORED


async def test_send_needs_a_permit_and_an_address() -> None:
    async with relay() as part:
        pool = make_pool(MemoryDatabase(), part.url)
        async with serving(pool):
            with pytest.raises(Unpermitted):
                await pool.send(part.url, note(KEY, "x", now()), Permit(EffectId("effect")))
            with pytest.raises(InvalidInput):
                await pool.send("http://127.0.0.1", note(KEY, "x", now()), PERMIT)
        assert part.published == []


async def test_a_relay_that_a_stranger_names_is_not_reached_inside_our_own_network() -> None:
    async with relay() as ours, relay() as inside:
        pool = make_pool(MemoryDatabase(), ours.url)
        async with serving(pool):
            verdict = await asyncio.wait_for(pool.send(inside.url, note(KEY, "x", now()), PERMIT), 10)
        assert verdict.state is VerdictState.UNKNOWN
        assert inside.connections == 0


async def test_fetch_returns_what_is_stored_newest_first_and_leaves_nothing_open() -> None:
    async with relay() as one, relay() as two:
        events = [note(KEY, str(n), now() - 50 + n) for n in range(5)]
        one.keep(*events[:3])
        two.keep(*events[2:])
        database = MemoryDatabase()
        pool = make_pool(database, one.url, two.url)
        async with serving(pool):
            await until(lambda: pool.is_up(one.url) and pool.is_up(two.url))
            found = await pool.fetch(NOTES, 5)
            assert [event.id for event in found] == [event.id for event in reversed(events)]
            assert [event.id for event in await pool.fetch([replace(NOTES[0], limit=1)], 5)] == [
                events[4].id,
                events[2].id,
            ]
            await until(lambda: not one.sessions[0].subs and not two.sessions[0].subs)
        assert await database.select("cursor") == []
