"""The gate on every database: budgets hold, and an idempotency key means one effect."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.effect import Outcome, OutcomeState, Repeated, Staged
from core.error import BudgetExceeded, Conflict, KeyReused
from core.money import MicroUsd, Msat
from core.unit import Insert
from node.gate.gate import NodeGate
from node.gate.ledger import ledger_seal
from node.gate.verify import verify_ledger
from tests.gate_part import KEY, LIMITS, SELLER, SetClock, intent, open_gate
from tests.unit_part import ENGINES, EVERY, Base


@pytest.fixture(params=EVERY)
async def base(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Base]:
    found = await ENGINES[request.param](tmp_path, ledger_seal(KEY), SetClock())
    yield found
    await found.aclose()


async def used(base: Base) -> dict[str, tuple[int, int]]:
    return {row["name"]: (row["held"], row["spent"]) for row in await base.select("budget")}


async def begun(gate: NodeGate, key: str, reserve: int) -> Staged:
    staged = await gate.begin(intent(key, reserve))
    assert isinstance(staged, Staged)
    return staged


async def test_budget_enforcement(base: Base) -> None:
    """Per job, per day and per seller, under concurrency, until midnight; all of it in a ledger that verifies."""
    clock = SetClock()
    gate = await open_gate(base, clock)
    with pytest.raises(BudgetExceeded):
        await gate.begin(intent("dear", 1_001))
    with pytest.raises(BudgetExceeded):
        await gate.begin(intent("other unit", MicroUsd(1)))

    verdicts = await asyncio.gather(*(gate.begin(intent(f"{k}", 900)) for k in range(12)), return_exceptions=True)
    staged = [verdict for verdict in verdicts if isinstance(verdict, Staged)]
    refused = [verdict for verdict in verdicts if isinstance(verdict, BudgetExceeded | Conflict)]
    assert (len(staged), len(refused)) == (5, 7)
    assert (await used(base))["day:2027-01-15"] == (4_500, 0)

    await base.commit(await gate.allocate(staged[0].effect_id, SELLER, Msat(900)))
    await base.commit(await gate.allocate(staged[1].effect_id, SELLER, Msat(900)))
    with pytest.raises(BudgetExceeded):
        await gate.allocate(staged[2].effect_id, SELLER, Msat(201))
    with pytest.raises(BudgetExceeded):
        await gate.allocate(staged[2].effect_id, "cd" * 32, Msat(901))
    await base.commit(await gate.allocate(staged[2].effect_id, SELLER, Msat(200)))
    assert (await used(base))[f"seller:{SELLER}:2027-01-15"] == (2_000, 0)

    for one, cost in zip(staged, (700, 0, 150, 900, 0), strict=True):
        state = OutcomeState.COMMIT if cost else OutcomeState.FAIL
        await base.commit(await gate.settle(one.effect_id, Outcome(state, Msat(cost))))
    assert await used(base) == {"day:2027-01-15": (0, 1_750), f"seller:{SELLER}:2027-01-15": (0, 850)}
    assert await base.select("hold") == []

    for k in range(3):
        await begun(gate, f"again {k}", 1_000)
    with pytest.raises(BudgetExceeded):
        await gate.begin(intent("too much for today", 251))
    clock.at += 86_400
    await begun(gate, "tomorrow", 1_000)

    report = await verify_ledger(await base.select("entry", order=("n",)), KEY.pubkey)
    assert report.problem is None
    assert len(report.open) == 3 + 1 + 1  # the jobs that are still open, and the day's standing entry


async def test_idempotent_effects(base: Base) -> None:
    """One key is one effect: while it runs, after it ended, from many callers at once, and after a restart."""
    gate = await open_gate(base, SetClock())
    verdicts = await asyncio.gather(
        *(gate.begin(intent("once", body=b"a"), [Insert("seen", {"event_id": "row", "at": 0})]) for _ in range(8))
    )
    staged = [verdict for verdict in verdicts if isinstance(verdict, Staged)]
    assert len(staged) == 1
    effect = staged[0].effect_id
    assert verdicts.count(Repeated(effect, "job-once", "begun")) == 7
    assert (await used(base))["day:2027-01-15"] == (100, 0)
    with pytest.raises(KeyReused):
        await gate.begin(intent("once", body=b"b"))
    assert isinstance(await gate.begin(intent("once", body=b"b", path="/compute/other")), Staged)
    assert isinstance(await gate.begin(intent("once", body=b"b", caller="agent:a")), Staged)

    done = Outcome(OutcomeState.COMMIT, Msat(60))
    writes = await gate.settle(effect, done)
    await base.commit(writes)
    with pytest.raises(Conflict):
        await base.commit(writes)
    assert await gate.settle(effect, done) == ()
    with pytest.raises(Conflict):
        await gate.settle(effect, Outcome(OutcomeState.FAIL))
    await gate.pause()
    assert await gate.begin(intent("once", body=b"a")) == Repeated(effect, "job-once", "commit")

    again = await open_gate(base, SetClock())
    assert await again.begin(intent("once", body=b"a")) == Repeated(effect, "job-once", "commit")
    assert [row["spent"] for row in await base.select("budget")] == [60]
    begins = [row for row in await base.select("entry", {"effect_id": effect}) if row["type"] == "begin"]
    assert len(begins) == 1
    assert LIMITS.per_day == Msat(5_000)
