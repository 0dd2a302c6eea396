"""Copies of a database as they would come out of a backup: every row of every table, into an empty one."""

from core.unit import Insert, UnitOfWork
from node.storage.table import METADATA


async def copy_rows(source: UnitOfWork, target: UnitOfWork) -> None:
    for table in METADATA.tables:
        rows = await source.select(table)
        await target.commit([Insert(table, row) for row in rows])
