"""ENOSPC, EIO and short writes at every persisted step of every settlement method, at the buyer's and seller's disk.

The disk is well again half a second later. The job ends, paid for or not, and what the relay and the mints show of its
money is right. A seeded sample is tried (`--randomly-seed` repeats it); `--hypothesis-profile=torture` tries all.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.dying_part import BEFORE, FAULTS, Arm, arm
from tests.integration.settlement.judge_part import FATES
from tests.integration.settlement.method_part import METHODS, Job
from tests.integration.settlement.step_part import STEPS, TORTURE, others, sample, sealed
from tests.integration.settlement.town_part import Town, every, tried
from tests.market_part import until

pytestmark = pytest.mark.timeout(3_600 if TORTURE else 480)

Case: TypeAlias = tuple[str, str, str, str]
CASES = [(method, who, step, how) for (method, who), steps in STEPS.items() for step in steps for how in FAULTS]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        sample(metafunc, "case", sealed(CASES), others(CASES))


async def test_a_disk_that_fails_at_a_step_of_the_money_loses_and_doubles_nothing(
    tmp_path: Path, case: Sequence[Case]
) -> None:
    await every(tmp_path, METHODS[case[0][0]].place, case, _with_a_bad_disk)


async def _with_a_bad_disk(town: Town, case: Case) -> None:
    method, who, step, how = case
    arm(town.market.homes[who], Arm(step, BEFORE, how))
    async with town.errand(Job(method, f"a bad disk {case}", 110)) as errand:
        # Who cannot write that it begins to pay, or is late for the mending, pays nothing or has it back.
        assert await tried(town, errand) in FATES[method]

        async def taken() -> bool:
            return not (town.market.homes[who] / "arm").exists()

        await until(taken, "the step to be reached")
