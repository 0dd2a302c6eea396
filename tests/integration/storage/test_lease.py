"""Leases on a real PostgreSQL: one steward, one holder of an agent, and a late transaction that is refused."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg
import pytest
import pytest_asyncio
from sqlmodel import SQLModel

from core.clock import SystemClock
from core.unit import Append, Insert
from node.share.member import Membership
from node.storage import lease
from node.storage.chain import unsigned_seal
from node.storage.error import Fenced, StoreFailed
from node.storage.fence import FENCE_SQL, IDLE_IN_TRANSACTION_MS
from node.storage.lease import Leases
from node.storage.migration import migrate_postgres
from node.storage.postgres import open_postgres
from node.storage.seat import Place
from node.storage.table import AgentRow, InboxRow
from tests.integration.storage.proxy_part import wire_to
from tests.postgres_part import fresh_database, own_server

pytestmark = [pytest.mark.needs("postgres"), pytest.mark.timeout(60)]
LONG = 60_000
Db: TypeAlias = "asyncpg.Connection[Any]"


@pytest_asyncio.fixture
async def url() -> str:
    return await fresh_database()


@pytest_asyncio.fixture
async def db(url: str) -> AsyncIterator[Db]:
    connection = await asyncpg.connect(url, server_settings={"lock_timeout": "10000"})
    yield connection
    await connection.close()


async def put(db: Db, *rows: SQLModel) -> None:
    for row in rows:
        values = row.model_dump(exclude_none=True)
        places = ", ".join(f"${place}" for place in range(1, len(values) + 1))
        sql = f"INSERT INTO {row.__tablename__} ({', '.join(values)}) VALUES ({places})"
        await db.execute(sql, *values.values())


def agent(name: str, status: str = "active") -> AgentRow:
    return AgentRow(name=name, pubkey=name, status=status, program="p", state_version=1, state="{}", created_at=0)


def envelope(name: str, id_: str, next_at_ms: int = 0) -> InboxRow:
    return InboxRow(
        agent=name, envelope_id=id_, next_at_ms=next_at_ms, cause="message", source="s", sender="", payload="{}", at=0
    )


@asynccontextmanager
async def leases(url: str, lease_ms: int = LONG) -> AsyncIterator[Leases]:
    opened = Leases(url, lease_ms)
    try:
        yield opened
    finally:
        await opened.aclose()


async def _until(holds: Callable[[], Coroutine[Any, Any, bool]], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not await holds():
            await asyncio.sleep(0.02)


async def test_the_first_member_is_the_steward_and_the_second_is_not(url: str) -> None:
    async with leases(url) as one, leases(url) as two:
        first, second = await one.join("home-1", "{}"), await two.join("home-2", "{}")
        assert (first.id, second.id) == ("0.1", "1.1")
        roll = await one.renew(first, '{"url": "here"}')
        assert (roll.steward, roll.term) == ("0.1", 1)
        roll = await two.renew(second, "{}")
        assert (roll.steward, roll.term, [seat.place for seat in roll.members]) == ("0.1", 1, [first, second])
        assert roll.members[0].about == '{"url": "here"}'
        assert 0 < roll.members[0].left_ms <= LONG


async def test_a_steward_that_leaves_is_followed_at_once_under_a_new_term(url: str) -> None:
    async with leases(url) as one, leases(url) as two:
        first, second = await one.join("home-1", "{}"), await two.join("home-2", "{}")
        await one.renew(first, "{}")
        await one.leave(first)
        roll = await two.renew(second, "{}")
        assert (roll.steward, roll.term, roll.put_out) == (second.id, 2, ())
        with pytest.raises(Fenced):
            await one.renew(first, "{}")
        assert (await one.join("home-1", "{}")).id == "0.2", "the slot again, under a token of its own"


async def test_a_member_whose_lease_is_over_is_put_out_with_all_that_it_held(url: str, db: Db) -> None:
    await put(db, agent("anna"))
    async with leases(url) as one, leases(url) as two:
        first, second = await one.join("home-1", "{}"), await two.join("home-2", "{}")
        await one.renew(first, "{}")
        assert await one.claim(first, ["anna"]) == {"anna"}
        assert (await two.renew(second, "{}")).put_out == ()
        await db.execute("UPDATE lease SET until_ms = 1 WHERE name = $1", first.name)
        roll = await two.renew(second, "{}")
        assert (roll.put_out, roll.steward, roll.term) == ((first.id,), second.id, 2)
        assert await db.fetchval("SELECT holder FROM agent") == ""
        assert await two.claim(second, ["anna"]) == {"anna"}
        with pytest.raises(Fenced):
            await one.renew(first, "{}")
        assert await one.claim(first, ["anna"]) == set()


async def test_who_was_late_and_was_not_put_out_goes_on(url: str) -> None:
    async with leases(url, 100) as one:
        place = await one.join("home-1", "{}")
        await asyncio.sleep(0.3)
        assert (await one.renew(place, "{}")).steward == place.id


async def test_a_process_that_starts_again_in_its_home_waits_for_no_lease(url: str, db: Db) -> None:
    await put(db, agent("anna"))
    async with leases(url) as before, leases(url) as after:
        dead = await before.join("home-1", "{}")
        await before.renew(dead, "{}")
        await before.claim(dead, ["anna"])
        alive = await after.join("home-1", "{}")
        assert (alive.slot, alive.token) == (dead.slot, dead.token + 1)
        roll = await after.renew(alive, "{}")
        assert (roll.steward, len(roll.members)) == (alive.id, 1)
        assert await after.claim(alive, ["anna"]) == {"anna"}


async def test_many_that_join_at_once_get_a_slot_each_and_one_steward(url: str) -> None:
    many = [Leases(url, LONG) for _ in range(8)]
    try:
        places = await asyncio.gather(*(one.join(f"home-{number}", "{}") for number, one in enumerate(many)))
        assert sorted(place.slot for place in places) == list(range(8))
        rolls = await asyncio.gather(*(one.renew(place, "{}") for one, place in zip(many, places, strict=True)))
        assert len({roll.steward for roll in rolls}) == 1
        assert {roll.term for roll in rolls} == {1}
    finally:
        await asyncio.gather(*(one.aclose() for one in many))


# ---- the fence


async def test_a_transaction_under_the_fence_ends_before_its_process_is_put_out(url: str, db: Db) -> None:
    async with leases(url, 200) as one, leases(url) as two:
        first, second = await one.join("home-1", "{}"), await two.join("home-2", "{}")
        writing = db.transaction()
        await writing.start()
        assert await db.fetchval(FENCE_SQL, *first.fence().params) == 1
        await asyncio.sleep(0.3)
        assert (await two.renew(second, "{}")).put_out == (), "its commit may still come"
        await one.renew(first, "{}")  # renewing waits for no transaction
        await writing.commit()
        await asyncio.sleep(0.3)
        assert (await two.renew(second, "{}")).put_out == (first.id,)
        assert await db.fetchval(FENCE_SQL, *first.fence().params) is None, "what comes later is refused"


async def test_a_process_that_stands_still_in_a_transaction_holds_up_its_end_for_seconds_only(url: str) -> None:
    settings = {"idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_MS)}
    stuck = await asyncpg.connect(url, server_settings=settings)
    async with leases(url, 200) as one, leases(url) as two:
        first, second = await one.join("home-1", "{}"), await two.join("home-2", "{}")
        await stuck.execute("BEGIN")
        await stuck.execute("INSERT INTO meta (key, value) VALUES ('late', '1')")
        assert await stuck.fetchval(FENCE_SQL, *first.fence().params) == 1

        async def is_out() -> bool:
            return first.id in (await two.renew(second, "{}")).put_out

        await _until(is_out, 30)
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await stuck.execute("COMMIT")
        other = await asyncpg.connect(url)
        assert await other.fetchval("SELECT count(*) FROM meta WHERE key = 'late'") == 0
        await other.close()
    stuck.terminate()


async def test_a_late_commit_of_the_database_is_refused_and_leaves_nothing(url: str, db: Db) -> None:
    clock = SystemClock()
    async with leases(url, 200) as one, leases(url) as two:
        first, second = await one.join("home-1", "{}"), await two.join("home-2", "{}")
        mine, theirs = (
            await open_postgres(url, seal=unsigned_seal, clock=clock),
            await open_postgres(url, seal=unsigned_seal, clock=clock),
        )
        fence, told = first.fence(), list[str]()
        fence.on_broken(lambda: told.append("broken"))
        mine.use_fence(fence)
        theirs.use_fence(second.fence())
        try:
            await mine.commit([Insert("meta", {"key": "early", "value": "1"})])
            await asyncio.sleep(0.3)
            assert (await two.renew(second, "{}")).put_out == (first.id,)
            late = [Insert("meta", {"key": "late", "value": "1"}), Append("run", "begin", "e", "{}")]
            done = await asyncio.gather(
                mine.commit(late), mine.commit([Insert("meta", {"key": "later", "value": "1"})]),
                theirs.commit([Insert("meta", {"key": "theirs", "value": "1"})]), return_exceptions=True,
            )  # fmt: skip
            assert [type(error) for error in done] == [Fenced, Fenced, type(None)]
            assert told == ["broken"]
            with pytest.raises(Fenced):
                await mine.commit([Insert("meta", {"key": "latest", "value": "1"})])
            assert {row["key"] for row in await db.fetch("SELECT key FROM meta")} == {"early", "theirs"}
            assert await db.fetchval("SELECT count(*) FROM entry") == 0
        finally:
            await mine.aclose()
            await theirs.aclose()


async def test_commits_of_a_process_that_is_in_are_never_refused_while_it_renews(url: str) -> None:
    async with leases(url) as one, leases(url) as two:
        first, second = await one.join("home-1", "{}"), await two.join("home-2", "{}")
        store = await open_postgres(url, seal=unsigned_seal, clock=SystemClock())
        store.use_fence(first.fence())
        stop = asyncio.Event()

        async def renew() -> None:
            while not stop.is_set():
                await asyncio.gather(one.renew(first, "{}"), two.renew(second, "{}"))

        renewing = asyncio.create_task(renew())
        try:
            for batch in range(20):
                writes = ([Insert("meta", {"key": f"{batch}-{n}", "value": ""})] for n in range(20))
                await asyncio.gather(*(store.commit(unit) for unit in writes))
        finally:
            stop.set()
            await renewing
            await store.aclose()


async def test_a_fence_says_once_that_it_is_broken() -> None:
    fence, told = Place(3, 17).fence(), []
    fence.on_broken(lambda: told.append(1))
    assert fence.params == ("member/3", 17)
    assert [type(fence.broken()), type(fence.broken())] == [Fenced, Fenced]
    assert (told, fence.is_broken) == ([1], True)


# ---- agents


async def test_an_agent_has_one_holder_and_each_claim_raises_its_epoch(url: str, db: Db) -> None:
    await put(db, agent("anna"), agent("bert"), agent("carl"))
    async with leases(url) as one, leases(url) as two:
        first, second = await one.join("home-1", "{}"), await two.join("home-2", "{}")
        assert await one.claim(first, ["anna", "bert", "nobody"]) == {"anna", "bert"}
        assert await two.claim(second, ["anna", "bert", "carl"]) == {"carl"}
        await one.release(first, ["anna", "carl"])
        assert await two.claim(second, ["anna", "bert", "carl"]) == {"anna", "carl"}
        rows = await db.fetch("SELECT name, holder, epoch FROM agent ORDER BY name")
        assert [tuple(row) for row in rows] == [("anna", "1.1", 2), ("bert", "0.1", 1), ("carl", "1.1", 2)]


async def test_many_members_that_claim_the_same_agents_share_them_out(url: str, db: Db) -> None:
    names = [f"agent-{number}" for number in range(200)]
    await put(db, *map(agent, names))
    many = [Leases(url, LONG) for _ in range(4)]
    try:
        places = [await one.join(f"home-{number}", "{}") for number, one in enumerate(many)]
        taken: dict[str, list[set[str]]] = {place.id: [] for place in places}

        async def work(one: Leases, place: Place, batch: list[str]) -> None:
            taken[place.id].append(await one.claim(place, batch))

        batches = [names[start : start + 20] for start in range(0, 200, 20)]
        await asyncio.gather(*(work(one, place, b) for b in batches for one, place in zip(many, places, strict=True)))
        held = [name for parts in taken.values() for part in parts for name in part]
        assert sorted(held) == sorted(names), "each exactly once"
        rows = await db.fetch("SELECT name, holder FROM agent")
        assert all(any(row["name"] in part for part in taken[row["holder"]]) for row in rows)
        assert await db.fetchval("SELECT max(epoch) FROM agent") == 1
    finally:
        await asyncio.gather(*(one.aclose() for one in many))


async def test_an_agent_that_somebody_writes_is_passed_over_and_not_waited_for(url: str, db: Db) -> None:
    await put(db, agent("anna"), agent("bert"))
    async with leases(url) as one, db.transaction():
        await db.execute("UPDATE agent SET ticks = ticks + 1 WHERE name = 'anna'")
        place = await one.join("home-1", "{}")
        async with asyncio.timeout(60):
            assert await one.claim(place, ["anna", "bert"]) == {"bert"}


async def test_what_waits_for_agents_that_nobody_holds_is_found(url: str, db: Db) -> None:
    states = {"anna": "active", "bert": "dormant", "carl": "stopped", "dora": "active", "emil": "active"}
    await put(db, *(agent(name, status) for name, status in states.items()))
    await put(db, *(envelope(name, f"{name}-{n}") for name in states for n in range(3) if name != "dora"))
    await put(db, envelope("dora", "later", 1 << 50))
    async with leases(url) as one:
        place = await one.join("home-1", "{}")
        await one.claim(place, ["emil"])
        assert await one.waiting(100) == ["anna", "bert"]
        assert await one.waiting(1) == ["anna"]


# ---- telling


async def test_members_hear_what_is_rung_also_after_their_connection_broke(url: str, db: Db) -> None:
    heard: list[str] = []
    async with leases(url) as one, leases(url) as two:
        first = await one.join("home-1", "{}")
        await one.hear(heard.append)
        await two.ring(["a", "b"])

        async def has_heard() -> bool:
            return heard[:2] == ["a", "b"]

        await _until(has_heard)
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'vendo lease'"
        await db.execute(f"{ended} AND datname = current_database()")

        async def hears_again() -> bool:
            with contextlib.suppress(StoreFailed):  # the first to use the dead connection learns of it
                await one.renew(first, "{}")
                await two.ring(["c"])
            return "c" in heard

        await _until(hears_again)


async def test_a_database_that_is_away_for_longer_than_a_lease_puts_nobody_out(tmp_path: Path) -> None:
    with own_server(tmp_path) as server:
        url = server.url()
        await migrate_postgres(url)
        ends: list[Fenced] = []
        stop, tasks, made = asyncio.Event(), [], []
        for number in range(3):
            lines = Leases(url, 5_000)
            member = Membership(
                lines, SystemClock(), lock=f"home-{number}", lease_s=5.0, renew_s=1.0, about=dict, end=ends.append
            )
            await member.join()
            made.append((member, lines))
            tasks.append(asyncio.create_task(member.run(asyncio.Event(), stop)))
        await asyncio.sleep(0.5)
        before = [member.place.id for member, _ in made]
        server.kill()
        await asyncio.sleep(6.5)
        assert not any(member.may_act for member, _ in made)
        server.start()

        async def are_back() -> bool:
            return all(member.may_act and len(member.others()) == 2 for member, _ in made)

        await _until(are_back, 60)
        await asyncio.sleep(8)
        await _until(are_back, 60)
        assert ([member.place.id for member, _ in made], ends) == (before, [])
        assert [member.leads for member, _ in made] == [True, False, False]
        stop.set()
        await asyncio.gather(*tasks)
        await asyncio.gather(*(lines.aclose() for _, lines in made))


async def test_a_renewal_that_gets_no_answer_is_given_up_in_time_and_the_next_one_gets_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "ANSWER_S", 3.0)
    with own_server(tmp_path) as server:
        await migrate_postgres(server.url())
        async with wire_to(server.socket) as wire:
            far = f"{server.url(host=f'127.0.0.1:{wire.port}')}?sslmode=disable"
            async with leases(far) as mine:
                place = await mine.join("lock", "{}")
                for number, word in enumerate((b"BEGIN", b"in the middle", b"COMMIT"), 1):
                    wire.stuck_at = word
                    async with asyncio.timeout(60):
                        with pytest.raises(StoreFailed):
                            await mine.renew(place, '{"at": "in the middle"}')
                        assert (await mine.renew(place, "{}")).steward == place.id
                    assert wire.cuts == number
