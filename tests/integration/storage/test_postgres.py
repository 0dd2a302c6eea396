"""PostgreSQL beside what the contract suite sees: several who write to one database, groups, passwords, values."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from core.clock import SystemClock
from core.error import Conflict, InvalidInput, StoreUncertain
from core.unit import Append, Delete, Insert, Row, Update, Within
from node.storage.address import shown, with_password
from node.storage.archive import read_entries, read_identities
from node.storage.chain import Head, Seal, unsigned_seal
from node.storage.error import BadWrite, NewerSchema, NotOurDatabase, StoreFailed, Unreachable
from node.storage.postgres import PostgresDatabase, open_postgres
from node.storage.postgres_link import describe
from tests.postgres_part import fresh_database, own_server

pytestmark = [pytest.mark.needs("postgres"), pytest.mark.timeout(120)]


@contextlib.asynccontextmanager
async def opened(url: str, seal: Seal = unsigned_seal) -> AsyncIterator[PostgresDatabase]:
    base = await open_postgres(url, seal=seal, clock=SystemClock())
    try:
        yield base
    finally:
        await base.aclose()


@contextlib.asynccontextmanager
async def two() -> AsyncIterator[tuple[PostgresDatabase, PostgresDatabase]]:
    url = await fresh_database()
    async with opened(url) as one, opened(url) as other:
        yield one, other


def seen(name: str, at: int = 0) -> Insert:
    return Insert("seen", {"event_id": name, "at": at})


# --- several who write


async def test_of_two_who_change_a_row_one_has_a_conflict_and_no_change_is_lost() -> None:
    async with two() as both:
        await both[0].commit([seen("counter")])

        async def count(base: PostgresDatabase) -> int:
            done = 0
            while done < 25:
                (row,) = await base.select("seen", {"event_id": "counter"})
                with contextlib.suppress(Conflict):
                    await base.commit([Update("seen", {"event_id": "counter", "at": row["at"]}, add={"at": 1})])
                    done += 1
            return done

        done = await asyncio.gather(*(count(base) for base in both for _ in range(3)))
        assert await both[0].select("seen") == [{"event_id": "counter", "at": sum(done)}]


async def test_two_together_never_pass_a_ceiling() -> None:
    async with two() as both:
        await both[0].commit([Insert("budget", {"name": "day", "unit": "msat", "ceiling": 50})])
        held = Update("budget", {"name": "day"}, add={"held": 1}, ceiling=(("held", "spent"), "ceiling"))
        units = [base.commit([held, seen(f"{who}/{k}")]) for k in range(40) for who, base in enumerate(both)]
        verdicts = await asyncio.gather(*units, return_exceptions=True)
        assert sum(verdict is None for verdict in verdicts) == 50
        assert {type(verdict) for verdict in verdicts} == {type(None), Conflict}
        assert (await both[1].select("budget"))[0]["held"] == 50
        assert await both[1].count("seen") == 50


async def test_two_who_take_the_same_rows_in_another_order_both_come_to_an_end() -> None:
    async with two() as both:
        await both[0].commit([seen(name) for name in "abcd"])

        async def move(base: PostgresDatabase, names: str) -> None:
            for _ in range(10):
                await base.commit([Update("seen", {"event_id": name}, add={"at": 1}) for name in (*names, names[0])])

        await asyncio.gather(move(both[0], "abcd"), move(both[1], "dcba"))
        assert [row["at"] for row in await both[0].select("seen", order=["event_id"])] == [30, 20, 20, 30]


async def test_a_key_that_another_takes_meanwhile_is_a_conflict_for_one_unit_alone() -> None:
    async with two() as both:
        names = [f"{k}" for k in range(60)]
        verdicts = await asyncio.gather(
            *(base.commit([seen(name), Append(f"run {who}", "begin", f"{who}/{name}", "{}")])
              for name in names for who, base in enumerate(both)), return_exceptions=True
        )  # fmt: skip
        assert sum(verdict is None for verdict in verdicts) == 60
        assert all(verdict is None or isinstance(verdict, Conflict) for verdict in verdicts)
        for run in ("run 0", "run 1"):
            entries = await both[0].select("entry", {"run": run}, order=["seq"])
            assert [entry["seq"] for entry in entries] == list(range(len(entries)))
            assert [entry["prev"] for entry in entries] == ["", *(entry["id"] for entry in entries)][: len(entries)]


async def test_a_run_that_another_process_goes_on_with_has_no_gap_and_no_fork() -> None:
    async with two() as both:
        for number in range(12):
            await both[number % 2].commit([Append("r", "begin", f"{number}", "{}"), seen(f"{number}")])
        entries = await both[0].select("entry", {"run": "r"}, order=["seq"])
        assert [entry["effect_id"] for entry in entries] == [f"{number}" for number in range(12)]
        assert [entry["prev"] for entry in entries] == ["", *(entry["id"] for entry in entries[:-1])]


async def test_numbers_that_were_chosen_are_not_given_again_by_anybody() -> None:
    row = {"micro_usd": 1, "msat": 2, "taken_at": 3, "source": "s"}
    async with two() as both:
        await both[0].commit([Insert("rate", row), Insert("rate", row | {"n": 40}), Insert("rate", row | {"n": 30})])
        await both[1].commit([Insert("rate", row)])
        await both[0].commit([Insert("rate", row), Insert("rate", row | {"n": 7}), Insert("rate", row)])
        assert [found["n"] for found in await both[0].select("rate", order=["n"])] == [1, 7, 30, 40, 41, 42, 43]


# --- groups


async def test_the_refused_ones_of_a_large_group_are_found_and_the_others_are_kept() -> None:
    async with opened(await fresh_database()) as base:
        await base.commit([seen(f"{k}") for k in range(0, 300, 7)])
        units = [base.commit([seen(f"{k}", 1), Append("r", "begin", f"{k}", "{}")]) for k in range(300)]
        verdicts = await asyncio.gather(*units, return_exceptions=True)
        assert [isinstance(verdict, Conflict) for verdict in verdicts] == [k % 7 == 0 for k in range(300)]
        entries = await base.select("entry", order=["n"])
        assert [entry["effect_id"] for entry in entries] == [f"{k}" for k in range(300) if k % 7]
        assert [entry["seq"] for entry in entries] == list(range(len(entries)))
        assert base.stats()["groups"] <= 7


async def test_questions_of_one_shape_get_each_its_own_answer() -> None:
    async with opened(await fresh_database()) as base:
        await base.commit([seen(f"{k:03}", k % 10) for k in range(300)])
        asked = [base.select("seen", {"at": k % 12}, order=["-event_id"], limit=k % 4) for k in range(200)]
        for k, rows in enumerate(await asyncio.gather(*asked)):
            names = [f"{n:03}" for n in reversed(range(300)) if n % 10 == k % 12][: k % 4]
            assert [row["event_id"] for row in rows] == names
        many = await asyncio.gather(
            *(base.select("seen", {"event_id": Within(f"{k:03}", f"{k + 2:03}")}, columns=["at"]) for k in range(50))
        )
        assert [sorted(row["at"] for row in rows) for rows in many] == [
            sorted((k % 10, (k + 1) % 10)) for k in range(50)
        ]


async def test_a_seal_that_refuses_costs_only_its_own_unit() -> None:
    def seal(head: Head, entry: Append) -> Row:
        if entry.body == "bad":
            raise BadWrite("no")
        return unsigned_seal(head, entry)

    async with opened(await fresh_database(), seal) as base:
        bodies = ["good", "bad", "good"]
        verdicts = await asyncio.gather(
            *(base.commit([seen(f"{k}"), Append("r", "begin", f"{k}", body)]) for k, body in enumerate(bodies)),
            return_exceptions=True,
        )
        assert [type(verdict) for verdict in verdicts] == [type(None), BadWrite, type(None)]
        assert [row["seq"] for row in await base.select("entry", order=["n"])] == [0, 1]
        assert await base.count("seen") == 2


async def test_a_fault_in_the_writer_is_told_and_the_writer_lives_on(caplog: pytest.LogCaptureFixture) -> None:
    def seal(head: Head, entry: Append) -> Row:
        if entry.body == "bad":
            raise KeyError("a bug")
        return unsigned_seal(head, entry)

    async with opened(await fresh_database(), seal) as base:
        with pytest.raises(StoreUncertain):
            await base.commit([seen("a"), Append("r", "begin", "e", "bad")])
        assert "the writer failed" in caplog.text
        await base.commit([Append("r", "begin", "e", "good")])
        assert await base.select("seen") == []
        assert [row["seq"] for row in await base.select("entry")] == [0]


async def test_a_fault_of_the_seal_ends_neither_the_node_nor_those_who_commit_beside_it() -> None:
    def seal(head: Head, entry: Append) -> Row:
        if entry.body == "bad":
            raise KeyError("a bug")
        return unsigned_seal(head, entry)

    async with opened(await fresh_database(), seal) as base:
        for turn in range(4):  # from the first on the run is known, and units are sealed before their group is at work
            bodies = ["bad" if turn and number == 150 else "good" for number in range(300)]
            units = [base.commit([Append("r", "begin", f"{turn}", "good"), Append("r", "begin", f"{turn}", body)])
                     for body in bodies]  # fmt: skip
            verdicts = await asyncio.gather(*units, return_exceptions=True)
            failed = [number for number, verdict in enumerate(verdicts) if verdict is not None]
            assert (150 in failed) == bool(turn)
            assert len(failed) <= 128, "its own group, and no other"
            assert all(isinstance(verdicts[number], StoreUncertain) for number in failed)
            rows = await base.select("entry", {"run": "r"}, order=["seq"])
            assert [row["seq"] for row in rows] == list(range(len(rows)))
            assert [row["prev"] for row in rows] == ["", *(row["id"] for row in rows[:-1])]
            assert sum(row["effect_id"] == f"{turn}" for row in rows) == 2 * (300 - len(failed))


async def test_closing_waits_for_what_is_under_way() -> None:
    url = await fresh_database()
    base = await open_postgres(url, seal=unsigned_seal, clock=SystemClock())
    units = [asyncio.ensure_future(base.commit([seen(f"{k}")])) for k in range(200)]
    await asyncio.sleep(0)
    await base.aclose()
    assert all(unit.done() and unit.exception() is None for unit in units)
    async with opened(url) as again:
        assert await again.count("seen") == 200


# --- values


async def test_a_number_that_grows_too_large_is_refused_and_costs_only_its_own_unit() -> None:
    most = (1 << 63) - 1
    async with opened(await fresh_database()) as base:
        await base.commit([seen("most", most), seen("least", -most - 1)])
        units = [
            [seen("a"), Update("seen", {"event_id": "most"}, add={"at": 1})],
            [seen("b"), Update("seen", {"event_id": "least"}, add={"at": -1})],
            [seen("c")],
        ]
        verdicts = await asyncio.gather(*map(base.commit, units), return_exceptions=True)
        assert [type(verdict) for verdict in verdicts] == [BadWrite, BadWrite, type(None)]
        assert {row["event_id"] for row in await base.select("seen")} == {"most", "least", "c"}


async def test_a_ceiling_near_the_largest_number_is_compared_and_not_refused() -> None:
    most = (1 << 63) - 1
    async with opened(await fresh_database()) as base:
        await base.commit([Insert("budget", {"name": "b", "unit": "u", "ceiling": most, "held": most - 1, "spent": 0})])
        add = Update("budget", {"name": "b"}, add={"held": 1}, ceiling=(("held", "spent"), "ceiling"))
        await base.commit([add])
        with pytest.raises(Conflict):
            await base.commit([add])


# --- addresses and passwords

SECRET = "s%cret/with:odd@signs"


async def test_a_password_is_shown_nowhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with own_server(tmp_path) as server:
        admin = await asyncpg.connect(server.url())
        await admin.execute(f"CREATE ROLE guest LOGIN PASSWORD '{SECRET}'")
        await admin.execute("CREATE DATABASE theirs OWNER guest")
        await admin.close()
        server.ask_for_passwords("guest")
        bare = server.url("theirs", user="guest")
        for url in (bare, with_password(bare, f"{SECRET}x")):
            with pytest.raises(Unreachable) as caught:
                await open_postgres(url, seal=unsigned_seal, clock=SystemClock())
            assert SECRET not in f"{caught.value}{caught.value.context}"
        url = with_password(bare, SECRET)
        assert SECRET not in shown(url)
        async with opened(url) as base:
            await base.commit([seen("a")])
            server.stop()
            await asyncio.sleep(0.05)
            with pytest.raises(Unreachable) as caught:
                await base.commit([seen("b")])
            assert SECRET not in str(caught.value)
        assert SECRET not in caplog.text
        assert "s%25cret" not in caplog.text


@pytest.mark.parametrize("url", ["postgresql://", "postgresql://h", "postgresql://h:port/x", "postgresql://h:99999/x"])
async def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput):
        await open_postgres(url, seal=unsigned_seal, clock=SystemClock())


async def test_where_nobody_listens_is_said(tmp_path: Path) -> None:
    with pytest.raises(Unreachable):
        await open_postgres(f"postgresql://v@/x?host={tmp_path}", seal=unsigned_seal, clock=SystemClock())


async def test_a_server_is_described() -> None:
    facts, faults = await describe(await fresh_database())
    assert faults == []
    assert facts["version"] >= 130_000
    assert facts["bytes"] > 1 << 20


async def test_the_ledger_and_the_keys_are_read_from_outside() -> None:
    url = await fresh_database()
    async with opened(url) as base:
        await base.commit([Append("r", "root", "", "{}"), Append("r", "begin", "\0", "{}")])
        key = {
            "name": "a",
            "epoch": 1,
            "pubkey": "p",
            "source": "derived",
            "sealed": b"\0",
            "state": "active",
            "created_at": 1,
        }
        await base.commit([Insert("identity", key)])
        assert await asyncio.to_thread(read_entries, url) == await base.select("entry", order=["n"])
        assert await asyncio.to_thread(read_identities, url) == await base.select("identity")
    with pytest.raises(NotOurDatabase):
        await asyncio.to_thread(read_entries, await fresh_database(bare=True))


async def test_a_unit_of_one_write_that_matches_nothing_is_a_conflict() -> None:
    async with opened(await fresh_database()) as base:
        with pytest.raises(Conflict) as caught:
            await base.commit([Delete("seen", {"event_id": "none"}, rows=1)])
        assert caught.value.context == {"table": "seen", "write": 0}


async def test_a_seal_that_refuses_in_the_middle_of_a_transaction_leaves_none_open() -> None:
    refusing = False

    def seal(head: Head, entry: Append) -> Row:
        if refusing and entry.body == "bad":
            raise BadWrite("no")
        return unsigned_seal(head, entry)

    async with opened(await fresh_database(), seal) as base:
        step = base._writer._steps

        async def refused(*args: object) -> object:
            nonlocal refusing
            refusing = True
            return await step(*args)

        base._writer._steps = refused
        unit = [seen("a"), seen("a"), Append("r", "begin", "e", "bad")]
        with pytest.raises(BadWrite):
            await base.commit(unit)
        await base.commit([seen("b"), Append("r", "begin", "e", "good")])
        assert [row["event_id"] for row in await base.select("seen")] == ["b"]
        assert [row["seq"] for row in await base.select("entry")] == [0]


async def test_a_schema_that_changes_beneath_a_node_stops_its_writes_at_the_next_connect() -> None:
    url = await fresh_database(bare=True)
    async with opened(url) as base:
        await base.commit([seen("a")])
        admin = await asyncpg.connect(url)
        await admin.execute("UPDATE alembic_version SET version_num = '9999'")
        await admin.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'vendo'"
        )
        await asyncio.sleep(0.1)
        with pytest.raises(NewerSchema):
            await base.commit([seen("b")])
        await admin.execute("UPDATE alembic_version SET version_num = '0001'")
        with pytest.raises(StoreFailed):
            await base.commit([seen("b")])
        await admin.close()
        assert await base.count("seen") == 1
