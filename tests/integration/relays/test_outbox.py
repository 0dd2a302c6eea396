"""The outbox against relays that lose, refuse and repeat."""

import asyncio
import time
from typing import Any

import pytest

from core.clock import SystemClock
from core.unit import Insert
from node.storage.memory import MemoryDatabase
from relays import lane, publication
from relays.key import Key
from relays.outbox import Outbox
from tests.integration.relays.hostile_part import (
    PERMIT,
    Session,
    make_outbox,
    make_pool,
    note,
    relay,
    serving,
    until,
)

KEY = Key.generate()


def now() -> int:
    return int(time.time())


async def states(database: MemoryDatabase) -> dict[str, str]:
    return {row["relay"]: row["state"] for row in await database.select("outbox")}


async def settled(database: MemoryDatabase, state: str, count: int = 1) -> list[dict[str, Any]]:
    async with asyncio.timeout(60):
        while len(rows := await database.select("outbox", {"state": state})) < count:
            await asyncio.sleep(0.01)
    return rows


async def test_an_event_goes_to_every_relay_and_is_marked_sent() -> None:
    async with relay() as one, relay() as two:
        database = MemoryDatabase()
        pool = make_pool(database, one.url, two.url)
        outbox = make_outbox(pool, database)
        async with serving(pool, outbox):
            event = note(KEY, "x", now())
            rows = outbox.rows(event, "effect")
            await database.commit(rows)
            outbox.kick(rows)
            await settled(database, "sent", 2)
        assert [value["id"] for value in one.published + two.published] == [event.id] * 2


async def test_a_kick_puts_the_event_on_the_wire_without_reading_the_table() -> None:
    class Counting(MemoryDatabase):
        selects = 0

        async def select(self, *args: Any, **options: Any) -> Any:
            self.selects += 1
            return await super().select(*args, **options)

    async with relay() as part:
        database = Counting()
        pool = make_pool(database, part.url)
        outbox = make_outbox(pool, database)
        async with serving(pool, outbox):
            await until(lambda: pool.is_up(part.url))
            before = database.selects
            rows = outbox.rows(note(KEY, "x", now()), "effect")
            await database.commit(rows)
            outbox.kick(rows)
            await until(lambda: len(part.published) == 1)
            assert database.selects == before


async def test_a_kick_without_rows_finds_what_is_pending() -> None:
    async with relay() as part:
        database = MemoryDatabase()
        pool = make_pool(database, part.url)
        outbox = make_outbox(pool, database)
        async with serving(pool, outbox):
            await until(lambda: pool.is_up(part.url))
            await database.commit(outbox.rows(note(KEY, "x", now()), "effect"))
            outbox.kick()
            await settled(database, "sent")


async def test_an_ok_that_never_comes_leads_to_the_same_bytes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publication, "OK_S", 0.2)
    monkeypatch.setattr(lane, "RETRY_BASE_S", 0.05)
    async with relay() as part:

        async def swallow(session: Session, value: dict[str, Any]) -> bool:
            part.stored[value["id"]] = value  # it has the event, but never says so
            return len(part.published) < 3

        part.on_event = swallow
        database = MemoryDatabase()
        pool = make_pool(database, part.url)
        outbox = make_outbox(pool, database)
        async with serving(pool, outbox):
            rows = outbox.rows(note(KEY, "x", now()), "effect")
            await database.commit(rows)
            outbox.kick(rows)
            (row,) = await settled(database, "sent")
        assert row["reason"].startswith("duplicate:")
        assert len(part.published) >= 3
        assert all(one == part.published[0] for one in part.published)


@pytest.mark.parametrize("reason", ["rate-limited: slow down", "error: no space", "some words"])
async def test_a_passing_refusal_is_tried_again(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "RETRY_BASE_S", 0.05)
    async with relay() as part:

        async def twice(session: Session, value: dict[str, Any]) -> bool:
            if len(part.published) > 2:
                return False
            await session.say("OK", value["id"], False, reason)
            return True

        part.on_event = twice
        database = MemoryDatabase()
        pool = make_pool(database, part.url)
        outbox = make_outbox(pool, database)
        async with serving(pool, outbox):
            rows = outbox.rows(note(KEY, "x", now()), "effect")
            await database.commit(rows)
            outbox.kick(rows)
            await settled(database, "sent")
        assert len(part.published) == 3


@pytest.mark.parametrize("word", ["blocked", "invalid", "restricted", "pow", "mute"])
async def test_a_final_refusal_is_kept_with_its_reason(word: str) -> None:
    async with relay() as part:

        async def refuse(session: Session, value: dict[str, Any]) -> bool:
            await session.say("OK", value["id"], False, f"{word}: no")
            return True

        part.on_event = refuse
        database = MemoryDatabase()
        pool = make_pool(database, part.url)
        outbox = make_outbox(pool, database)
        async with serving(pool, outbox):
            rows = outbox.rows(note(KEY, "x", now()), "effect")
            await database.commit(rows)
            outbox.kick(rows)
            (row,) = await settled(database, "refused")
            await asyncio.sleep(0.3)
        assert (row["reason"], len(part.published)) == (f"{word}: no", 1)


async def test_pending_rows_go_out_after_a_restart() -> None:
    async with relay() as part:
        database = MemoryDatabase()
        pool = make_pool(database, part.url)
        first = make_outbox(pool, database)
        events = [note(KEY, str(n), now()) for n in range(50)]
        for event in events:
            await database.commit(first.rows(event, "effect"))  # and then the process dies: no kick
        pool = make_pool(database, part.url)
        async with serving(pool, make_outbox(pool, database)):
            await settled(database, "sent", 50)
        assert {value["id"] for value in part.published} == {event.id for event in events}


async def test_a_relay_that_is_down_gets_its_events_when_it_is_back() -> None:
    async with relay() as part, relay() as other:
        await part.stop()
        database = MemoryDatabase()
        pool = make_pool(database, part.url, other.url)
        outbox = make_outbox(pool, database)
        async with serving(pool, outbox):
            rows = outbox.rows(note(KEY, "x", now()), "effect")
            await database.commit(rows)
            outbox.kick(rows)
            await settled(database, "sent")
            assert (await states(database)) == {part.url: "pending", other.url: "sent"}
            await part.start()
            await settled(database, "sent", 2)


async def test_a_lost_connection_leads_to_the_same_events_again() -> None:
    async with relay() as part:
        count = 0

        async def cut(session: Session, value: dict[str, Any]) -> bool:
            nonlocal count
            count += 1
            if count in (100, 400):
                part.abort()
                return True
            return False

        part.on_event = cut
        database = MemoryDatabase()
        pool = make_pool(database, part.url)
        outbox = make_outbox(pool, database)
        async with serving(pool, outbox):
            events = [note(KEY, str(n), now()) for n in range(1_000)]
            rows = [row for event in events for row in outbox.rows(event, "effect")]
            await database.commit(rows)
            outbox.kick(rows)
            await settled(database, "sent", 1_000)
        assert set(part.stored) == {event.id for event in events}


async def test_no_more_than_256_events_are_in_flight_to_a_relay() -> None:
    async with relay() as part:
        held: list[tuple[Session, dict[str, Any]]] = []

        async def hold(session: Session, value: dict[str, Any]) -> bool:
            held.append((session, value))
            return True

        part.on_event = hold
        database = MemoryDatabase()
        pool = make_pool(database, part.url)
        outbox = make_outbox(pool, database)
        async with serving(pool, outbox):
            rows = [row for n in range(600) for row in outbox.rows(note(KEY, str(n), now()), "effect")]
            await database.commit(rows)
            outbox.kick(rows)
            await until(lambda: len(held) == 256)
            await asyncio.sleep(0.2)
            assert len(held) == 256
            for session, value in held:
                await session.say("OK", value["id"], True, "")
            await until(lambda: len(held) == 512)


async def test_more_events_than_memory_holds_are_read_from_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    from relays import outbox as outbox_module

    monkeypatch.setattr(lane, "MAX_HELD", 100)
    monkeypatch.setattr(outbox_module, "MAX_HELD", 100)
    async with relay() as part:
        database = MemoryDatabase()
        pool = make_pool(database, part.url)
        outbox = make_outbox(pool, database)
        async with serving(pool, outbox):
            rows = [row for n in range(1_000) for row in outbox.rows(note(KEY, str(n), now()), "effect")]
            await database.commit(rows)
            outbox.kick(rows)
            await settled(database, "sent", 1_000)
        assert len(part.published) == 1_000


async def test_a_row_that_the_gate_does_not_permit_is_not_sent() -> None:
    from core.effect import Permit
    from core.identifier import EffectId

    async with relay() as part:
        database = MemoryDatabase()
        pool = make_pool(database, part.url)
        outbox = Outbox(
            pool, database, SystemClock(), lambda effect: PERMIT if effect == "good" else Permit(EffectId(effect))
        )
        async with serving(pool, outbox):
            rows = [*outbox.rows(note(KEY, "bad", now()), "bad"), *outbox.rows(note(KEY, "good", now()), "good")]
            await database.commit(rows)
            outbox.kick(rows)
            await settled(database, "sent")
        assert [value["content"] for value in part.published] == ["good"]
        assert len(await database.select("outbox", {"state": "pending"})) == 1


async def test_the_same_rows_may_be_committed_and_kicked_twice() -> None:
    async with relay() as part:
        database = MemoryDatabase()
        pool = make_pool(database, part.url)
        outbox = make_outbox(pool, database)
        async with serving(pool, outbox):
            event = note(KEY, "x", now())
            for _ in range(2):
                rows = outbox.rows(event, "effect")
                await database.commit(rows)
                outbox.kick(rows)
                await settled(database, "sent")
            await until(lambda: len(part.published) == 2)
        assert len(await database.select("outbox")) == 1


async def test_an_expired_event_is_given_up_on_its_second_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "RETRY_BASE_S", 0.05)
    async with relay() as part:

        async def busy(session: Session, value: dict[str, Any]) -> bool:
            await session.say("OK", value["id"], False, "error: busy")
            return True

        part.on_event = busy
        database = MemoryDatabase()
        pool = make_pool(database, part.url)
        outbox = make_outbox(pool, database)
        async with serving(pool, outbox):
            rows = outbox.rows(note(KEY, "x", now(), tags=(("expiration", str(now())),)), "effect")
            await database.commit(rows)
            outbox.kick(rows)
            (row,) = await settled(database, "refused")
        assert (row["reason"][:7], len(part.published)) == ("expired", 1)


async def test_a_relay_that_is_not_ours_and_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from relays import outbox as outbox_module

    monkeypatch.setattr(outbox_module, "REACH_S", 0.1)
    monkeypatch.setattr(outbox_module, "MAX_ROUNDS", 2)
    async with relay() as ours, relay() as inside:
        database = MemoryDatabase()
        pool = make_pool(database, ours.url)
        outbox = make_outbox(pool, database)
        async with serving(pool, outbox):
            rows = [row for n in range(300) for row in outbox.rows(note(KEY, str(n), now()), "effect", [inside.url])]
            await database.commit(rows)
            outbox.kick(rows)
            rows_refused = await settled(database, "refused", 300)
        assert rows_refused[0]["reason"] == "the relay could not be reached"
        assert (inside.connections, ours.published) == (0, [])


async def test_a_relay_that_is_not_ours_and_takes_events_without_a_word_is_given_up_and_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A stranger's relay list must not keep rows, sockets and memory busy for ever."""
    monkeypatch.setattr(publication, "OK_S", 0.05)
    monkeypatch.setattr(lane, "RETRY_BASE_S", 0.02)
    monkeypatch.setattr(lane, "MAX_FOREIGN_TRIES", 3)

    async def mute(session: Session, value: dict[str, Any]) -> bool:
        return True

    async with relay() as ours, relay() as theirs:
        theirs.on_event = mute
        database = MemoryDatabase()
        pool = make_pool(database, ours.url, known=[theirs.url])
        outbox = make_outbox(pool, database)
        async with serving(pool, outbox):
            rows = outbox.rows(note(KEY, "x", now()), "effect", [theirs.url])
            await database.commit(rows)
            outbox.kick(rows)
            (row,) = await settled(database, "refused")
            assert row["tries"] == 3
            await until(lambda: theirs.url not in outbox._lanes)


async def test_a_look_finds_what_another_process_committed_however_long_that_took() -> None:
    async with relay() as part:
        database = MemoryDatabase()
        pool = make_pool(database, part.url)
        outbox = Outbox(pool, database, SystemClock(), lambda _: PERMIT, overlap_s=90.0)
        other = Outbox(pool, database, SystemClock(), lambda _: PERMIT)  # of a process in which none runs
        async with serving(pool, outbox):
            await until(lambda: pool.is_up(part.url))
            rows = other.rows(note(KEY, "x", now()), "effect")
            aged = [
                Insert(row.table, {**row.row, "next_at_ms": int(row.row["next_at_ms"] or 0) - 60_000}) for row in rows
            ]
            await database.commit(aged)
            other.kick(aged)
            await asyncio.sleep(0.1)
            assert part.published == [], "the other one does not run, and nobody has looked"
            for _ in range(5):
                outbox.look()
                await asyncio.sleep(0.02)
            await settled(database, "sent")
            for _ in range(5):
                outbox.look()
                await asyncio.sleep(0.02)
        assert len(part.published) == 1
