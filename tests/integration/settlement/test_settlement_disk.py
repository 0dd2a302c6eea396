"""ENOSPC, EIO and short writes at every persisted step of an atomic settlement, at the buyer's and the seller's disk.

The disk is well again half a second later. The job ends, paid for or not, and what the relay and the mint show of its
money is right. A seeded sample is tried (`--randomly-seed` repeats it); `--hypothesis-profile=torture` tries all.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.dying_part import BEFORE, FAULTS, Arm, arm
from tests.integration.settlement.step_part import STEPS, TORTURE, sample
from tests.integration.settlement.town_part import Job, Town, settling, tried
from tests.market_part import until

pytestmark = pytest.mark.timeout(3_600 if TORTURE else 480)

CASES = [(mode, who, step, how) for (mode, who), steps in STEPS.items() for step in steps for how in FAULTS]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        sample(metafunc, "case", CASES, 2)


@pytest_asyncio.fixture
async def town(tmp_path: Path) -> AsyncIterator[Town]:
    """One for each test: after a job that failed a buyer thinks less of its seller, and may not buy there again."""
    async with settling(tmp_path) as town:
        await town.ready()
        yield town


async def test_a_disk_that_fails_at_a_step_of_the_money_loses_and_doubles_nothing(
    town: Town, case: tuple[str, str, str, str]
) -> None:
    mode, who, step, how = case
    job, before = Job(mode, f"a bad disk {case}", 110), await town.held()
    arm(town.market.homes[who], Arm(step, BEFORE, how))
    # Who cannot write that it begins to pay, or is late for the mending, pays nothing or has it back.
    assert await tried(town, job, before) in ("claimed", "refunded", "nothing")

    async def taken() -> bool:
        return not (town.market.homes[who] / "arm").exists()

    await until(taken, "the step to be reached")
