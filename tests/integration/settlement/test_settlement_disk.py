"""ENOSPC, EIO and short writes at every persisted step of an atomic settlement, at the buyer's and the seller's disk.

The disk is well again half a second later. The job ends as it would have, and what the relay and the mint show of its
money is right. A seeded sample is tried (`--randomly-seed` repeats it); `--hypothesis-profile=torture` tries all.
"""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.dying_part import BEFORE, FAULTS, Arm, arm
from tests.integration.settlement.step_part import STEPS, TORTURE, sample
from tests.integration.settlement.town_part import Job, Town, settling, tried
from tests.market_part import until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(3_600 if TORTURE else 480)]

CASES = [(mode, who, step, how) for (mode, who), steps in STEPS.items() for step in steps for how in FAULTS]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        sample(metafunc, "case", CASES, 2)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opened(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Town]:
    async with settling(tmp_path_factory.mktemp("settlement")) as town:
        yield town


@pytest_asyncio.fixture(loop_scope="module")
async def town(opened: Town) -> Town:
    await opened.ready()
    return opened


async def test_a_disk_that_fails_at_a_step_of_the_money_loses_and_doubles_nothing(
    town: Town, case: tuple[str, str, str, str]
) -> None:
    mode, who, step, how = case
    job, before = Job(mode, f"a bad disk {case}", 110), await town.held()
    arm(town.market.homes[who], Arm(step, BEFORE, how))
    assert await tried(town, job, before) == "claimed"

    async def taken() -> bool:
        return not (town.market.homes[who] / "arm").exists()

    await until(taken, "the step to be reached")
