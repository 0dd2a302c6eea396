"""The schema of a PostgreSQL database: made once by whoever comes first, as the models say, never guessed at."""

import asyncio
from typing import Any

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from core.clock import SystemClock
from core.unit import Insert
from node.storage.chain import unsigned_seal
from node.storage.database import open_database
from node.storage.error import NewerSchema, NotOurDatabase, StoreFailed
from node.storage.migration import migrate_postgres, revisions
from node.storage.postgres_link import connect
from node.storage.schema import facts
from node.storage.table import METADATA
from tests.postgres_part import fresh_database

pytestmark = pytest.mark.needs("postgres")
TYPES = {int: "BIGINT", str: 'TEXT COLLATE "C"', bytes: "BYTEA"}


async def execute(url: str, sql: str) -> Any:
    link = await asyncpg.connect(url)
    try:
        return await link.fetch(sql)
    finally:
        await link.close()


async def tables(url: str) -> set[str]:
    return {row[0] for row in await execute(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}


async def test_migrations_and_models_agree() -> None:
    url, compared = await fresh_database(), []

    def is_other(context: Any, there: Any, ours: Any, type_there: Any, _: Any) -> bool:
        compared.append(ours)
        return type_there.compile(context.dialect) != TYPES[facts(ours.table.name).kinds[ours.name]]

    def differences(connection: Connection) -> list[Any]:
        options = {"compare_type": is_other, "compare_server_default": True}
        return compare_metadata(MigrationContext.configure(connection, opts=options), METADATA)

    engine = create_async_engine("postgresql+asyncpg://", async_creator=lambda: connect(url))
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    await engine.dispose()
    assert len(compared) == sum(len(table.columns) for table in METADATA.tables.values())


async def test_a_second_time_there_is_nothing_to_do() -> None:
    url = await fresh_database(bare=True)
    assert await migrate_postgres(url)
    assert not await migrate_postgres(url)
    (row,) = await execute(url, "SELECT version_num FROM alembic_version")
    assert row[0] == revisions()[-1]


async def test_processes_that_start_at_once_make_the_schema_once() -> None:
    url = await fresh_database(bare=True)
    bases = await asyncio.gather(*(open_database(url, seal=unsigned_seal, clock=SystemClock()) for _ in range(4)))
    for number, base in enumerate(bases):
        await base.commit([Insert("seen", {"event_id": f"{number}", "at": 0})])
    assert await bases[0].count("seen") == 4
    for base in bases:
        await base.aclose()


async def test_a_newer_schema_is_refused_and_left_alone() -> None:
    url = await fresh_database(bare=True)
    await migrate_postgres(url)
    before = await tables(url)
    await execute(url, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(NewerSchema, match="9999"):
        await open_database(url, seal=unsigned_seal, clock=SystemClock())
    assert await tables(url) == before


async def test_a_database_of_something_else_is_refused_and_left_alone() -> None:
    url = await fresh_database(bare=True)
    await execute(url, "CREATE TABLE theirs (x int)")
    with pytest.raises(NotOurDatabase):
        await open_database(url, seal=unsigned_seal, clock=SystemClock())
    assert await tables(url) == {"theirs"}


async def test_an_upgrade_that_fails_leaves_the_database_as_it_was() -> None:
    url = await fresh_database(bare=True)
    await migrate_postgres(url, "0002")
    await execute(url, "CREATE TABLE mark (in_the_way int)")  # the next revision makes a table of this name
    before = await tables(url)
    with pytest.raises(StoreFailed):
        await migrate_postgres(url)
    assert await tables(url) == before
    (row,) = await execute(url, "SELECT version_num FROM alembic_version")
    assert row[0] == "0002"
    await execute(url, "DROP TABLE mark")
    assert await migrate_postgres(url)
