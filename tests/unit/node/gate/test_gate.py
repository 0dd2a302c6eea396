"""The gate: leave to act, pausing, parking, counterparties, costs that were not foreseen."""

import asyncio

import orjson
import pytest

from core.effect import Intent, Outcome, OutcomeState, Permit, Repeated, Staged
from core.error import BudgetExceeded, Conflict, InvalidInput, KeyReused, NotFound, Paused, Refused, Unpermitted
from core.identifier import EffectId
from core.money import MicroUsd, Msat
from node.gate.error import ForeignLedger
from node.gate.gate import NodeGate
from node.gate.limits import Limits
from node.gate.verify import verify_rows
from node.storage.memory import MemoryDatabase
from relays.key import Key
from tests.gate_part import KEY, LIMITS, SELLER, SetClock, intent, memory, open_gate

DAY = "day:2027-01-15"


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def base(clock: SetClock) -> MemoryDatabase:
    return memory(clock)


@pytest.fixture
async def gate(base: MemoryDatabase, clock: SetClock) -> NodeGate:
    return await open_gate(base, clock)


async def begun(gate: NodeGate, asked: Intent | None = None) -> EffectId:
    staged = await gate.begin(asked or intent())
    assert isinstance(staged, Staged)
    return staged.effect_id


async def budget(base: MemoryDatabase, name: str = DAY) -> tuple[int, int]:
    (row,) = await base.select("budget", {"name": name})
    return row["held"], row["spent"]


async def test_staging_writes_nothing(gate: NodeGate, base: MemoryDatabase) -> None:
    before = base.stats()
    await gate.stage(intent())
    assert base.stats() == before


async def test_there_is_no_leave_before_begin_is_durable(gate: NodeGate, base: MemoryDatabase) -> None:
    staged = await gate.stage(intent())
    assert isinstance(staged, Staged)
    with pytest.raises(Unpermitted):
        gate.permit(staged.effect_id)
    await base.commit(staged.writes)
    gate.check(gate.permit(staged.effect_id))


async def test_leave_ends_when_the_effects_end_is_durable(gate: NodeGate, base: MemoryDatabase) -> None:
    effect = await begun(gate)
    permit = gate.permit(effect)
    writes = await gate.settle(effect, Outcome(OutcomeState.COMMIT, Msat(1)))
    gate.check(permit)
    await base.commit(writes)
    with pytest.raises(Unpermitted):
        gate.check(permit)
    with pytest.raises(Unpermitted):
        gate.permit(effect)
    gate.check(gate.delivery(effect))


async def test_only_the_gates_own_permits_are_accepted(gate: NodeGate, base: MemoryDatabase, clock: SetClock) -> None:
    effect = await begun(gate)
    gate.permit(effect)
    other = await open_gate(base, clock)
    for forged in (Permit(effect), other.permit(effect), other.standing("relays"), Permit(EffectId("x"))):
        with pytest.raises(Unpermitted):
            gate.check(forged)
    gate.check(gate.delivery(effect))


async def test_after_a_restart_open_effects_are_listed_and_may_be_acted_on(
    gate: NodeGate, base: MemoryDatabase, clock: SetClock
) -> None:
    first, parked, done = [await begun(gate, intent(name)) for name in ("a", "b", "c")]
    await base.commit(await gate.settle(parked, Outcome(OutcomeState.UNKNOWN)))
    await base.commit(await gate.settle(done, Outcome(OutcomeState.FAIL)))
    again = NodeGate(base, clock, LIMITS, KEY.pubkey)
    with pytest.raises(Unpermitted):
        again.standing("relays")
    assert [row["id"] for row in await again.load()] == [first, parked]
    again.check(again.permit(first))
    again.check(again.permit(parked))
    with pytest.raises(Unpermitted):
        again.permit(done)
    assert again.run == gate.run


async def test_an_unknown_effect_keeps_its_hold_and_is_settled_once(gate: NodeGate, base: MemoryDatabase) -> None:
    effect = await begun(gate)
    permit = gate.permit(effect)
    await base.commit(await gate.settle(effect, Outcome(OutcomeState.UNKNOWN, Msat(50))))
    assert await budget(base) == (100, 0)
    gate.check(permit)
    assert await gate.settle(effect, Outcome(OutcomeState.UNKNOWN)) == ()
    commit = await gate.settle(effect, Outcome(OutcomeState.COMMIT, Msat(40)))
    fail = await gate.settle(effect, Outcome(OutcomeState.FAIL))
    await base.commit(commit)
    with pytest.raises(Conflict):
        await base.commit(fail)
    assert await budget(base) == (0, 40)
    assert verify_rows(await base.select("entry", order=["n"])).ok


async def test_a_paused_node_finishes_what_is_open_and_stays_paused_after_a_restart(
    gate: NodeGate, base: MemoryDatabase, clock: SetClock
) -> None:
    effect = await begun(gate)
    await gate.pause()
    with pytest.raises(Paused):
        await gate.begin(intent("new"))
    gate.check(gate.permit(effect))
    await base.commit(await gate.allocate(effect, SELLER, Msat(100)))
    await base.commit(await gate.settle(effect, Outcome(OutcomeState.COMMIT, Msat(100))))
    again = await open_gate(base, clock)
    assert again.paused
    await again.resume()
    await begun(again, intent("new"))
    assert not (await open_gate(base, clock)).paused


async def test_a_cost_above_the_reservation_is_booked_and_marked(gate: NodeGate, base: MemoryDatabase) -> None:
    effect = await begun(gate)
    await base.commit(await gate.allocate(effect, SELLER, Msat(90)))
    await base.commit(await gate.settle(effect, Outcome(OutcomeState.COMMIT, Msat(150), {"why": "fee"})))
    assert await budget(base) == (0, 150)
    assert await budget(base, f"seller:{SELLER}:2027-01-15") == (0, 90 + 50)
    (entry,) = await base.select("entry", {"effect_id": effect, "type": "commit"})
    content = orjson.loads(orjson.loads(entry["raw"])["content"])
    assert content == {"cost": {"unit": "msat", "value": 150}, "detail": {"why": "fee"}, "over": 50}


async def test_a_cost_of_an_effect_that_held_nothing_counts_for_the_day(
    gate: NodeGate, base: MemoryDatabase, clock: SetClock
) -> None:
    effect = await begun(gate, intent(reserve=None))
    assert await base.select("budget") == []
    clock.at += 86_400
    await base.commit(await gate.settle(effect, Outcome(OutcomeState.COMMIT, Msat(3))))
    assert await budget(base, "day:2027-01-16") == (0, 3)


async def test_a_counterparty_that_was_not_paid_in_the_end_is_not_charged(gate: NodeGate, base: MemoryDatabase) -> None:
    effect = await begun(gate, intent(reserve=300))
    other = "cd" * 32
    await base.commit(await gate.allocate(effect, SELLER, Msat(100)))
    await base.commit(await gate.allocate(effect, other, Msat(200)))
    assert await budget(base, f"seller:{SELLER}:2027-01-15") == (0, 0)
    await base.commit(await gate.settle(effect, Outcome(OutcomeState.COMMIT, Msat(190))))
    assert await budget(base) == (0, 190)
    assert await budget(base, f"seller:{SELLER}:2027-01-15") == (0, 0)
    assert await budget(base, f"seller:{other}:2027-01-15") == (0, 190)


async def test_allocating_again_only_ever_raises(gate: NodeGate, base: MemoryDatabase, clock: SetClock) -> None:
    effect = await begun(gate)
    await base.commit(await gate.allocate(effect, SELLER, Msat(40)))
    assert await gate.allocate(effect, SELLER, Msat(40)) == ()
    clock.at += 86_400
    stale = await gate.allocate(effect, SELLER, Msat(50))
    await base.commit(await gate.allocate(effect, SELLER, Msat(70)))
    with pytest.raises(Conflict):
        await base.commit(stale)
    assert await budget(base, f"seller:{SELLER}:2027-01-15") == (70, 0)
    await base.commit(await gate.settle(effect, Outcome(OutcomeState.FAIL)))
    with pytest.raises(Conflict):
        await gate.allocate(effect, SELLER, Msat(10))
    with pytest.raises(NotFound):
        await gate.allocate(EffectId("none"), SELLER, Msat(10))


async def test_costs_that_make_no_sense_are_our_own_fault(gate: NodeGate) -> None:
    effect = await begun(gate)
    for cost in (Msat(-1), MicroUsd(1)):
        with pytest.raises(ValueError):
            await gate.settle(effect, Outcome(OutcomeState.COMMIT, cost))
    with pytest.raises(NotFound):
        await gate.settle(EffectId("none"), Outcome(OutcomeState.FAIL))
    with pytest.raises(BudgetExceeded):
        await gate.allocate(effect, SELLER, MicroUsd(1))


async def test_refusals_have_their_own_errors(gate: NodeGate) -> None:
    for asked, error in (
        (intent(key=""), InvalidInput),
        (intent(key="\ud800"), InvalidInput),
        (intent(caller="agent:a", path="/wallet/send"), Refused),
        (intent(reserve=9_999), BudgetExceeded),
    ):
        with pytest.raises(error):
            await gate.stage(asked)


async def test_intents_of_one_tick_are_judged_together(gate: NodeGate, base: MemoryDatabase) -> None:
    pending = []
    for k in range(5):
        staged = await gate.stage(intent(f"{k}", 1_000), pending)
        assert isinstance(staged, Staged)
        pending += staged.writes
    with pytest.raises(BudgetExceeded):
        await gate.stage(intent("one more", 1), pending)
    assert isinstance(await gate.stage(intent("0", 1_000), pending), Repeated)
    with pytest.raises(KeyReused):
        await gate.stage(intent("0", 1_000, body=b"other"), pending)
    await base.commit(pending)
    assert await budget(base) == (5_000, 0)


async def test_a_limit_that_was_changed_holds_at_once(base: MemoryDatabase, clock: SetClock) -> None:
    gate = await open_gate(base, clock)
    await begun(gate, intent("a", 1_000))
    lower = await open_gate(base, clock, Limits.of("msat", per_job=1_000, per_day=1_500, per_seller=0))
    with pytest.raises(BudgetExceeded):
        await lower.begin(intent("b", 501))
    await begun(lower, intent("b", 500))
    with pytest.raises(BudgetExceeded):
        await lower.allocate(await begun(gate, intent("c", 10)), SELLER, Msat(1))


async def test_a_change_of_unit_never_sums_two_units(base: MemoryDatabase, clock: SetClock) -> None:
    await begun(await open_gate(base, clock))
    dollars = await open_gate(base, clock, Limits.of("uusd", per_job=9, per_day=9, per_seller=9))
    with pytest.raises(BudgetExceeded):
        await dollars.begin(intent("b", MicroUsd(1)))
    effect = await begun(dollars, intent("c", None))
    await base.commit(await dollars.settle(effect, Outcome(OutcomeState.COMMIT, MicroUsd(2))))
    assert await budget(base) == (100, 0)
    assert await budget(base, f"{DAY}:uusd") == (0, 2)


async def test_another_nodes_database_is_refused(gate: NodeGate, base: MemoryDatabase, clock: SetClock) -> None:
    with pytest.raises(ForeignLedger):
        await NodeGate(base, clock, LIMITS, Key(b"\x09" * 32).pubkey).load()


async def test_a_new_run_begins_with_a_root_and_ends_old_effects(gate: NodeGate, base: MemoryDatabase) -> None:
    effect, old = await begun(gate), gate.run
    await gate.new_run("restored")
    assert gate.run != old
    await base.commit(await gate.settle(effect, Outcome(OutcomeState.FAIL)))
    rows = await base.select("entry", order=["n"])
    assert verify_rows(rows, KEY.pubkey).ok
    assert [row["type"] for row in rows if row["run"] == gate.run] == ["root", "fail"]


async def test_a_key_staged_after_an_uncertain_commit_gives_leave_again(base: MemoryDatabase, clock: SetClock) -> None:
    gate, other = await open_gate(base, clock), NodeGate(base, clock, LIMITS, KEY.pubkey)
    effect = await begun(gate)
    with pytest.raises(Unpermitted):
        other.permit(effect)  # it never heard of the commit
    assert await other.stage(intent()) == Repeated(effect, "job-k", "begun")
    other.check(other.permit(effect))


async def test_standing_work_runs_under_one_entry_a_day(gate: NodeGate, base: MemoryDatabase, clock: SetClock) -> None:
    first = gate.standing("relays")
    assert gate.standing("relays") is first
    gate.standing("handler")
    ready, stop = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(gate.days.run(ready, stop))
    await ready.wait()
    await asyncio.sleep(0.01)  # it waits for the clock now
    clock.at += 86_400
    async with asyncio.timeout(5):
        while len(await base.select("effect", {"path": "/standing"})) < 2:
            await asyncio.sleep(0.001)
    stop.set()
    await task
    assert gate.standing("relays") is not first
    gate.check(first)
    (entry,) = await base.select("entry", {"type": "commit"})
    assert orjson.loads(orjson.loads(entry["raw"])["content"])["detail"] == {"relays": 2, "handler": 1}
    assert verify_rows(await base.select("entry", order=["n"])).ok
    assert await gate.open_effects() == []
