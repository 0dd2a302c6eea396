"""kill -9 of buyer, seller and mint at every persisted step of an atomic settlement, with locks that last seconds.

Whoever was killed comes back, at once or when the lock is over. Then the job's money was claimed, or is back, or never
left; nothing is forgotten and nothing happened twice. What happened is read from the relay and the mint.

A seeded sample is tried (`--randomly-seed` repeats it); `--hypothesis-profile=torture` tries everything.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.dying_mint_part import ANSWER, SWAP, MintArm, arm_mint
from tests.dying_part import AFTER, BEFORE, MARGINS, Arm, arm, record, recorded
from tests.integration.settlement.step_part import OPENED, STEPS, TORTURE, sample
from tests.integration.settlement.town_part import KINDS, NODES, Job, Town, settling, tried
from tests.market_part import until

pytestmark = pytest.mark.timeout(3_600 if TORTURE else 480)

SWAPS = {"lock": 1, "claim": 2}  # which of the mint's swaps since the job began
TRANSACTIONS = 5  # of the mint in one swap, at most
AT_ONCE = [
    (mode, who, step, when) for (mode, who), steps in STEPS.items() for step in steps for when in (BEFORE, AFTER)
]
TOO_LATE = [(mode, who, step) for (mode, who), steps in STEPS.items() for step in steps if step not in OPENED]
AT_MINT = [(mode, swap, at) for mode in KINDS for swap in SWAPS for at in (ANSWER, *range(TRANSACTIONS + 1))]
SAMPLES = {"at_once": (AT_ONCE, 2), "too_late": (TOO_LATE, 1), "at_mint": (AT_MINT, 1)}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for name, (cases, count) in SAMPLES.items():
        if name in metafunc.fixturenames:
            sample(metafunc, name, cases, count)


@pytest_asyncio.fixture
async def town(tmp_path: Path) -> AsyncIterator[Town]:
    """One for each test: after a job that failed a buyer thinks less of its seller, and may not buy there again."""
    async with settling(tmp_path) as town:
        await town.ready()
        yield town


async def test_every_step_that_a_job_s_money_takes_is_one_of_those_that_are_tried(town: Town) -> None:
    for mode in KINDS:
        await _takes(town, mode)


async def _takes(town: Town, mode: str) -> None:
    for name in NODES:
        (town.market.homes[name] / "steps").unlink(missing_ok=True)
        record(town.market.homes[name])
    (town.mint.home / "mint.steps").touch()
    job, before = Job(mode, f"nobody dies {mode}", 120), await town.held()
    assert await tried(town, job, before) == "claimed"
    for name in NODES:
        await until(lambda name=name: _all_taken(town, mode, name), "the last step to be written down")
        assert sorted(recorded(town.market.homes[name])) == sorted(STEPS[mode, name])
        (town.market.homes[name] / "steps").unlink()
    swaps = (town.mint.home / "mint.steps").read_text().splitlines()
    (town.mint.home / "mint.steps").unlink()
    assert {line.split()[0] for line in swaps} == {SWAP}
    assert len(swaps) == len(SWAPS)
    assert max(int(line.split()[1]) for line in swaps) == TRANSACTIONS


async def _all_taken(town: Town, mode: str, name: str) -> bool:
    return set(STEPS[mode, name]) <= set(recorded(town.market.homes[name]))


async def test_who_is_killed_and_comes_back_at_once_ends_the_job(
    town: Town, at_once: tuple[str, str, str, str]
) -> None:
    mode, who, step, when = at_once
    job, before = Job(mode, f"back at once {at_once}"), await town.held()
    arm(town.market.homes[who], Arm(step, when))
    await town.fell(who, await town.buy(job))
    await town.ready()
    assert await tried(town, job, before) in ("claimed", "refunded", "nothing")


async def test_who_comes_back_when_the_lock_is_over_has_lost_nothing(
    town: Town, too_late: tuple[str, str, str]
) -> None:
    mode, who, step = too_late
    job, before = Job(mode, f"too late {too_late}", 8), await town.held()
    over = time.time() + job.timeout_s + MARGINS["dvm.buyer_rule.ATOMIC_MARGIN_S"] + 4
    arm(town.market.homes[who], Arm(step, AFTER))
    await town.fell(who, await town.buy(job))
    while time.time() < over:
        await asyncio.sleep(0.2)
    await town.ready()
    assert await tried(town, job, before) in ("claimed", "refunded", "nothing")


async def test_a_mint_that_is_killed_in_a_swap_and_comes_back_costs_nobody_anything(
    town: Town, at_mint: tuple[str, str, int]
) -> None:
    mode, swap, at = at_mint
    job, before = Job(mode, f"at the mint {at_mint}", 60), await town.held()
    arm_mint(town.mint.home, MintArm(SWAP, SWAPS[swap], at))
    job_id = await town.buy(job)
    assert job_id
    await town.mint.fell()
    await town.mint.up()
    if town.mint.pending():
        assert not (await town.shown(job_id))["closed"], "what the mint calls pending is waited for"
        await town.mint.freed()
    assert await tried(town, job, before) in ("claimed", "refunded", "nothing")
