"""What several modules here begin with."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.clock import SystemClock
from node.storage.chain import unsigned_seal
from node.storage.memory import MemoryDatabase
from tests.integration.agent.keep_part import Keep
from tests.unit_part import ENGINES, EVERY


@pytest.fixture(params=EVERY)
async def keep(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Keep]:
    base = await ENGINES[request.param](tmp_path, unsigned_seal, SystemClock())
    made = Keep(base)
    await made.settle()
    yield made
    await base.aclose()


@pytest.fixture
async def quick() -> Keep:
    made = Keep(MemoryDatabase())
    await made.settle()
    return made
