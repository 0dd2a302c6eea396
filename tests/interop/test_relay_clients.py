"""Our relay as three foreign client libraries use it, step by step."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.conftest import ROOT
from tests.foreign_part import foreign_relay
from tests.market_part import run

pytestmark = [pytest.mark.needs("node"), pytest.mark.asyncio(loop_scope="module")]

STEPS = {
    "nostr-tools": (
        "information", "publish and read", "live", "a forged event is refused", "count", "search", "sync", "delete",
        "letters after auth",
    ),
    "ndk": ("information", "publish and read", "live", "count", "replaceable", "delete", "letters after auth"),
    "applesauce": ("information", "publish and read", "live", "count", "sync", "delete", "letters after auth"),
}  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def found(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, Any]]:
    folder: Path = tmp_path_factory.mktemp("relay")
    async with foreign_relay("ours", folder) as url:
        ran = await run("node", "relay_use.mjs", f"--relay={url}", cwd=ROOT / "tests/interop/node", timeout=70)
        assert ran.out, ran.err
        yield ran.json


@pytest.mark.parametrize(("client", "step"), [(client, step) for client, steps in STEPS.items() for step in steps])
async def test_a_foreign_client_uses_our_relay(found: dict[str, Any], client: str, step: str) -> None:
    assert found["steps"][client].get(step, "never reached") is True, found["steps"][client]


async def test_no_step_was_left_out(found: dict[str, Any]) -> None:
    assert {client: set(steps) for client, steps in found["steps"].items()} == {
        client: set(steps) for client, steps in STEPS.items()
    }
