"""Every kind of database that a node may stand on: tests of `UnitOfWork`'s promises run over all of `ENGINES`."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import pytest

from core.clock import Clock
from core.unit import Append, UnitOfWork
from node.storage.chain import Seal
from node.storage.database import open_database
from node.storage.memory import MemoryDatabase
from node.storage.postgres import open_postgres
from tests.postgres_part import fresh_database


class Base(UnitOfWork, Protocol):
    """A `UnitOfWork` that is opened and closed."""

    def on_entry(self, watcher: Callable[[Append], None]) -> None: ...

    def stats(self) -> dict[str, int]: ...

    async def aclose(self) -> None: ...


Opener = Callable[[Path, Seal, Clock], Awaitable[Base]]
"""Opens an empty database that is this folder's alone; the same folder finds it again after `aclose`."""


async def _memory(folder: Path, seal: Seal, clock: Clock) -> Base:
    return MemoryDatabase(seal, clock)


async def _sqlite(folder: Path, seal: Seal, clock: Clock) -> Base:
    return await open_database(folder / "node.db", seal=seal, clock=clock)


async def _postgres(folder: Path, seal: Seal, clock: Clock) -> Base:
    return await open_postgres(await fresh_database(str(folder)), seal=seal, clock=clock)


ENGINES: dict[str, Opener] = {"memory": _memory, "sqlite": _sqlite, "postgres": _postgres}
EVERY = [pytest.param(name, marks=pytest.mark.needs("postgres") if name == "postgres" else ()) for name in ENGINES]
"""For `params` and `parametrize`: the names of all engines."""
