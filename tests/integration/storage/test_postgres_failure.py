"""What a failing PostgreSQL does to a node: what was acknowledged stays, and nothing is believed that is not known."""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from core.clock import SystemClock
from core.error import StoreUncertain, Unavailable, VendoError
from core.unit import Append, Delete, Insert, Update, Write
from node.storage.chain import unsigned_seal
from node.storage.error import StoreFailed, StoreFull, Unreachable, UnsafeServer
from node.storage.postgres import PostgresDatabase, open_postgres
from tests.integration.storage.proxy_part import Wire, wire_to
from tests.postgres_part import Server, emptied, own_server

pytestmark = [pytest.mark.needs("postgres"), pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def the_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with own_server(tmp_path_factory.mktemp("postgres")) as one:
        yield one


@pytest.fixture
async def server(the_server: Server) -> Server:
    """Runs, and holds nothing."""
    if not the_server.runs:
        the_server.start()
    await emptied(the_server.url())
    return the_server


@contextlib.asynccontextmanager
async def opened(url: str, **how: bool) -> AsyncIterator[PostgresDatabase]:
    base = await open_postgres(url, seal=unsigned_seal, clock=SystemClock(), **how)
    try:
        yield base
    finally:
        await base.aclose()


def seen(name: str) -> Insert:
    return Insert("seen", {"event_id": name, "at": 0})


async def names(base: PostgresDatabase) -> set[str]:
    return {row["event_id"] for row in await base.select("seen")}


async def check_chain(base: PostgresDatabase) -> None:
    entries = await base.select("entry", order=["run", "seq"])
    for run in {entry["run"] for entry in entries}:
        mine = [entry for entry in entries if entry["run"] == run]
        assert [entry["seq"] for entry in mine] == list(range(len(mine)))
        assert [entry["prev"] for entry in mine] == ["", *(entry["id"] for entry in mine[:-1])]


async def test_what_was_acknowledged_survives_a_killed_server(server: Server) -> None:
    there, gone, unsure = set(), set(), set()

    async def write(base: PostgresDatabase, who: int, count: int) -> None:
        for number in range(count):
            name = f"{who}/{number}/{len(there)}"
            try:
                await base.commit([seen(name), Append(f"run {who % 2}", "begin", name, "{}")])
                there.add(name)
            except StoreUncertain:
                unsure.add(name)
            except Unavailable:
                gone.add(name)
                await asyncio.sleep(0.005)

    async with opened(server.url()) as base:
        for _ in range(3):
            writers = [asyncio.create_task(write(base, who, 60)) for who in range(12)]
            before = len(there)
            while len(there) < before + 100:
                await asyncio.sleep(0)
            server.kill()
            await asyncio.sleep(0.05)
            server.start()
            await asyncio.gather(*writers)
            found = await names(base)
            assert there <= found
            assert not gone & found
            assert found <= there | unsure
            await check_chain(base)
    assert gone


async def test_a_server_that_was_restarted_while_nobody_asked_is_found_again(server: Server) -> None:
    async with opened(server.url()) as base:
        await base.commit([seen("a"), Append("r", "begin", "1", "{}")])
        assert await names(base) == {"a"}
        server.stop()
        server.start()
        await asyncio.sleep(0.05)
        assert await names(base) == {"a"}
        await base.commit([seen("b"), Append("r", "begin", "2", "{}")])
        await check_chain(base)


async def test_a_server_that_is_away_is_said_to_be_and_nothing_is_written(server: Server) -> None:
    async with opened(server.url()) as base:
        server.stop()
        await asyncio.sleep(0.05)
        with pytest.raises(Unreachable):
            await base.commit([seen("a")])
        with pytest.raises(Unavailable):
            await base.select("seen")
        server.start()
        await base.commit([seen("b")])
        assert await names(base) == {"b"}


LONE: list[Write] = [seen("a"), Append("r", "begin", "1", "{}")]
IN_STEPS: list[Write] = [seen("a"), Update("seen", {"event_id": "a"}, set={"at": 1}), Append("r", "begin", "1", "{}")]


@contextlib.asynccontextmanager
async def over_a_wire(server: Server) -> AsyncIterator[tuple[Wire, PostgresDatabase]]:
    async with wire_to(server.socket) as wire:
        url = f"{server.url(host=f'127.0.0.1:{wire.port}')}?sslmode=disable"
        async with opened(url) as base:
            await base.commit([seen("first"), Append("r", "begin", "0", "{}")])
            await base.commit([Delete("seen", {"event_id": "none"}), *IN_STEPS])  # the texts are prepared from here on
            await base.commit([Delete("seen", {"event_id": "a"}, rows=1)])
            yield wire, base


@pytest.mark.parametrize(("unit", "word"), [(LONE, b"{}"), (IN_STEPS, b"COMMIT")], ids=["one statement", "several"])
async def test_an_answer_that_is_lost_leaves_it_open_whether_the_unit_is_there(
    server: Server, unit: list[Write], word: bytes
) -> None:
    async with over_a_wire(server) as (wire, base):
        wire.cut_after = word
        with pytest.raises(StoreUncertain):
            await base.commit(unit)
        assert wire.cuts == 1
        await asyncio.sleep(0.1)
        assert await names(base) == {"first", "a"}  # it was heard
        await base.commit([seen("next"), Append("r", "begin", "2", "{}")])
        await check_chain(base)


async def test_a_statement_that_is_never_heard_leaves_it_open_as_well(server: Server) -> None:
    async with over_a_wire(server) as (wire, base):
        wire.cut_before = b"{}"
        with pytest.raises(StoreUncertain):
            await base.commit(LONE)
        assert await names(base) == {"first"}
        await base.commit(LONE)
        await check_chain(base)


async def test_a_connection_that_is_lost_before_commit_is_certain(server: Server) -> None:
    async with over_a_wire(server) as (wire, base):
        for cut in ("cut_before", "cut_after"):
            setattr(wire, cut, b"BEGIN")
            with pytest.raises(StoreFailed):
                await base.commit(IN_STEPS)
        assert wire.cuts == 2
        assert await names(base) == {"first"}
        await base.commit(IN_STEPS)
        await check_chain(base)


async def test_a_session_that_the_server_ends_is_made_anew(server: Server) -> None:
    async with opened(server.url()) as base:
        await base.commit([seen("a")])
        admin = await asyncpg.connect(server.url())
        for _ in range(3):
            await admin.execute(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name ~ '^vendo'"
            )
            with contextlib.suppress(VendoError):
                await base.commit([seen("lost")])
        await admin.close()
        await asyncio.sleep(0.05)
        await base.commit([seen("b")])
        assert {"a", "b"} <= await names(base)


@pytest.fixture
def small_disk(server: Server) -> Iterator[Path]:
    """A file system of 24 MiB for the server's tables."""
    if os.getuid() != 0:
        pytest.skip("only root may mount a file system")  # under CI=true the end of the run makes it a failure
    place = server.folder / "small"
    place.mkdir()
    how = f"size=24m,mode=700,uid={server.folder.stat().st_uid},gid={server.folder.stat().st_gid}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", how, "vendo-test", str(place)], check=True)
    yield place
    server.stop()
    subprocess.run(["umount", str(place)], check=True)


async def test_a_full_disk_is_said_to_be_full_and_nothing_is_written(server: Server, small_disk: Path) -> None:
    admin = await asyncpg.connect(server.url())
    await admin.execute(f"CREATE TABLESPACE small LOCATION '{small_disk}'")
    await admin.execute("CREATE DATABASE tight TABLESPACE small")
    await admin.close()
    async with opened(server.url("tight")) as base:
        kept, verdicts = 0, list[VendoError]()
        while not verdicts:
            units = [
                base.commit([Insert("blob", {"digest": f"{kept}/{k}", "body": os.urandom(200_000), "at": k})])
                for k in range(4)
            ]
            for verdict in await asyncio.gather(*units, return_exceptions=True):
                if verdict is None:
                    kept += 1
                else:
                    verdicts.append(verdict)
        assert {type(verdict) for verdict in verdicts} == {StoreFull}
        assert await base.count("blob") == kept
        subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
        await base.commit([seen("after")])
        assert await names(base) == {"after"}
    admin = await asyncpg.connect(server.url())
    await admin.execute("DROP DATABASE tight WITH (FORCE)")
    await admin.execute("DROP TABLESPACE small")
    await admin.close()


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
async def test_a_server_that_may_lose_what_it_acknowledged_is_refused(server: Server, setting: str) -> None:
    server.stop()
    server.start(f"{setting}=off")
    with pytest.raises(UnsafeServer, match=setting):
        await open_postgres(server.url(), seal=unsigned_seal, clock=SystemClock())
    async with opened(server.url(), unsafe=True) as base:
        await base.commit([seen("a")])
    server.stop()


async def test_commits_are_synchronous_whatever_the_role_is_set_to(server: Server) -> None:
    admin = await asyncpg.connect(server.url())
    await admin.execute("ALTER ROLE vendo SET synchronous_commit = off")
    async with opened(server.url()) as base:
        await base.commit([seen("a")])
        assert await base._writer._link.fetchval("SHOW synchronous_commit") == "on"
    await admin.execute("ALTER ROLE vendo RESET synchronous_commit")
    await admin.close()
