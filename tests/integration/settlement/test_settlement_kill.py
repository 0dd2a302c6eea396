"""kill -9 of buyer, seller and mint at every persisted step of every settlement method, with locks that last seconds.

Whoever was killed comes back, at once or when the lock, the invoice or the deposit is over. Then the job's money was
claimed, or is back, or never left; nothing is forgotten and nothing happened twice. What happened is read from the
relay, the mints and the Lightning network between them.

A seeded sample is tried (`--randomly-seed` repeats it); `--hypothesis-profile=torture` tries everything.
"""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.dying_mint_part import MintArm, arm_mint
from tests.dying_part import AFTER, BEFORE, MARGINS, Arm, arm, record, recorded
from tests.integration.settlement.judge_part import FATES
from tests.integration.settlement.method_part import METHODS, NODES, Job, Place
from tests.integration.settlement.step_part import (
    ACTS,
    RETURNS,
    SILENT,
    STEPS,
    TORTURE,
    TRANSACTIONS,
    at_mint,
    others,
    sample,
    sealed,
    too_late,
)
from tests.integration.settlement.town_part import Town, every, settling, tried
from tests.market_part import until

pytestmark = pytest.mark.timeout(3_600 if TORTURE else 480)

WHEN = (BEFORE, AFTER)
AT_ONCE = [(method, who, step, when) for (method, who), steps in STEPS.items() for step in steps for when in WHEN]
RETURNING = "when it comes back"
OVER: list[tuple[str, ...]] = [
    *too_late(),
    *((method, RETURNING, step, when) for method, steps in RETURNS.items() for step in steps for when in WHEN),
]
SAMPLES = {
    "at_once": (sealed(AT_ONCE), others(AT_ONCE)),
    "over": (OVER,),
    "at_mint": (at_mint(),),
}
SHORT_S = 10
INVOICE_S, GIVEN_UP_S = 24, 5
HURRIED = {  # a deposit is drawn on until a quote for that could not end before it
    "settlement.prepaid_s": 32,
    "selling.quote_ttl_s": 12,
    "wallet.engine._LATE_S": GIVEN_UP_S,
}


def _waits(method: str) -> dict[str, int]:
    """What nodes wait for where something is to end soon: of each method only what it needs."""
    if METHODS[method].place is Place.LIGHTNING:
        return {name: value for name, value in HURRIED.items() if name.startswith("wallet.")}
    return {name: value for name, value in HURRIED.items() if method == "prepaid" and not name.startswith("wallet.")}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for name, groups in SAMPLES.items():
        if name in metafunc.fixturenames:
            sample(metafunc, name, *groups)


@pytest.mark.parametrize("place", list(Place))
async def test_every_step_that_a_job_s_money_takes_is_one_of_those_that_are_tried(tmp_path: Path, place: Place) -> None:
    async with settling(tmp_path, place) as town:
        for method, way in METHODS.items():
            if way.place is place:
                await _takes(town, method)


async def _takes(town: Town, method: str) -> None:
    mints = {mint.url: mint.home / "mint.steps" for mint in town.mints.values()}
    for name in NODES:
        (town.market.homes[name] / "steps").unlink(missing_ok=True)
        record(town.market.homes[name])
    for steps in mints.values():
        steps.write_text("")
    async with town.errand(Job(method, f"nobody dies {method}", 120)) as errand:
        assert await tried(town, errand) in {"claimed", "served"}
        assert (await errand.ended())["method"] == _NAMES[method]
    for name in NODES:
        await until(lambda name=name: _all_taken(town, method, name), "the last step to be written down")
        assert sorted(recorded(town.market.homes[name])) == sorted(STEPS[method, name])
        (town.market.homes[name] / "steps").unlink()
    done = [line.split() for steps in mints.values() for line in steps.read_text().splitlines()]
    assert sorted(of for of, _ in done) == sorted(act.of for name, act in ACTS[method].items() if name != "refund")
    for of, count in done:
        assert int(count) == TRANSACTIONS[of]
    for steps in mints.values():
        steps.unlink()


_NAMES = {
    "A": "atomic",
    "B": "atomic",
    "locked": "locked",
    "prepaid": "prepaid",
    "free": None,
    "invoice before": "invoice_before",
    "invoice after": "invoice_after",
}


async def _all_taken(town: Town, method: str, name: str) -> bool:
    return set(STEPS[method, name]) <= set(recorded(town.market.homes[name]))


async def test_who_is_killed_and_comes_back_at_once_ends_the_job(
    tmp_path: Path, at_once: Sequence[tuple[str, str, str, str]]
) -> None:
    await every(tmp_path, METHODS[at_once[0][0]].place, at_once, _back_at_once)


async def _back_at_once(town: Town, case: tuple[str, str, str, str]) -> None:
    method, who, step, when = case
    arm(town.market.homes[who], Arm(step, when))
    async with town.errand(Job(method, f"back at once {case}")) as errand:
        await town.fell(who, errand)
        await town.ready()
        assert await tried(town, errand) in FATES[method]


async def test_who_is_killed_and_comes_back_when_everything_is_over_or_its_money_returns_has_lost_nothing(
    tmp_path: Path, over: Sequence[tuple[str, ...]]
) -> None:
    method, who = over[0][:2]
    trial = _returning if who == RETURNING else _too_late
    await every(tmp_path, METHODS[method].place, over, trial, invoice_s=INVOICE_S, waits=_waits(method))


async def _too_late(town: Town, case: tuple[str, ...]) -> None:
    """Dead after a step, until nothing can be claimed or paid any more."""
    method, who, step = case
    arm(town.market.homes[who], Arm(step, AFTER))
    async with town.errand(Job(method, f"too late {case}", SHORT_S)) as errand:
        end = time.time() + _lasts_s(method)
        if await town.fell(who, errand):
            while time.time() < end:
                await asyncio.sleep(0.2)
        await town.ready()
        fate = await tried(town, errand)
        assert fate in FATES[method]
    if fate == "owed":
        await _serves_for_it(town, Job(method, "once more, for what is owed", 60))


def _lasts_s(method: str) -> float:
    """After so long nothing can be claimed or paid any more."""
    if method == "prepaid":
        return HURRIED["settlement.prepaid_s"] + 6
    if METHODS[method].place is Place.LIGHTNING:
        return INVOICE_S + GIVEN_UP_S + 4
    return SHORT_S + MARGINS["dvm.buyer_rule.ATOMIC_MARGIN_S"] + 4


async def _serves_for_it(town: Town, job: Job) -> None:
    """What is kept for a customer pays for its next job."""
    async with town.errand(job) as errand:
        shown = await town.ended(errand)
        assert (shown["state"], shown["result"], shown["money"]) == ("delivered", job.text, "none")
        assert await town.held() == errand.before
        assert not (await town.facts(errand)).bills.payments


async def _returning(town: Town, case: tuple[str, ...]) -> None:
    """The seller is gone for good; the buyer dies while it takes its money back, and comes back at once."""
    method, _, step, when = case
    homes = town.market.homes
    record(homes["buyer"])
    arm(homes["seller"], Arm(SILENT[method], BEFORE))
    arm(homes["buyer"], Arm(step, when))
    async with town.errand(Job(method, f"coming back {case}", SHORT_S)) as errand:
        silent = await town.fell("seller", errand)  # a machine that is very slow may lock nothing in time
        assert await town.fell("buyer", errand) or not silent
        await town.ready("seller")
        await errand.ended()
        await town.ready()
        assert await tried(town, errand) in ({"refunded"} if silent else FATES[method])
    if not silent:
        return
    # What a start finds half done is unknown for a moment.
    taken = {one for one in recorded(homes["buyer"]) if not one.endswith(" unknown")}
    assert set(RETURNS[method]) <= taken <= {*RETURNS[method], *STEPS[method, "buyer"]}


async def test_a_mint_that_is_killed_at_work_and_comes_back_costs_nobody_anything(
    tmp_path: Path, at_mint: Sequence[tuple[str, str, int]]
) -> None:
    method, name, _ = at_mint[0]
    waits = _waits(method) if name == "refund" else {}
    await every(tmp_path, METHODS[method].place, at_mint, _at_mint, waits=waits)


async def _at_mint(town: Town, case: tuple[str, str, int]) -> None:
    method, name, at = case
    act, silent = ACTS[method][name], name == "refund"
    mint = town.mints[act.side]
    arm_mint(mint.home, MintArm(act.of, act.nth, at))
    if silent:
        arm(town.market.homes["seller"], Arm(SILENT[method], BEFORE))
    async with town.errand(Job(method, f"at the mint {case}", SHORT_S if silent else 60)) as errand:
        if silent:
            await town.fell("seller", errand)
        await mint.fell(errand.missed)
        await mint.up()
        if mint.pending():
            done = errand.task is not None and errand.task.done()
            # A buyer that has its result, and has paid for it, does not wait until its seller has minted that.
            assert not done or (method, name) == ("invoice after", "mint"), "what the mint calls pending is waited for"
            await mint.freed()
        if silent:
            await errand.ended()
        await town.ready()
        assert await tried(town, errand) in FATES[method]
