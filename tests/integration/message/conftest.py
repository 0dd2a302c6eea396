from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.agent.node_part import relay_at


@pytest.fixture
async def relay(tmp_path: Path) -> AsyncIterator[str]:
    async with relay_at(tmp_path) as url:
        yield url
