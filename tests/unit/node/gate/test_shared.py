"""Gates of several processes on one database: a run for each, one pause, and one that drives what all have begun."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest

from core.effect import Outcome, OutcomeState, Staged
from core.error import Paused, Unpermitted
from core.money import Msat
from core.unit import Append, Write
from node.error import LeaseUnsure
from node.gate.gate import NodeGate
from node.gate.verify import verify_rows
from node.storage.memory import MemoryDatabase
from tests.gate_part import KEY, LIMITS, START, SetClock, intent, memory

DAY = 86_400


@dataclass
class Stands:
    slot: int
    leads: bool = False
    others: Collection[int] = (0, 1, 2)
    rang: list[int] = field(default_factory=list)
    unsure: bool = False

    def slots(self) -> Collection[int]:
        return [slot for slot in self.others if slot != self.slot]

    def begun(self) -> None:
        self.rang.append(1)

    def check(self) -> None:
        if self.unsure:
            raise LeaseUnsure


class Own:
    """One process's own connection: it is told of its own entries, and of nobody else's."""

    def __init__(self, base: MemoryDatabase) -> None:
        self._watchers: list[Callable[[Append], None]] = []
        self._base = base
        self.select, self.count = base.select, base.count

    def on_entry(self, watcher: Callable[[Append], None]) -> None:
        self._watchers.append(watcher)

    async def commit(self, writes: Iterable[Write]) -> None:
        unit = tuple(writes)
        await self._base.commit(unit)
        for write in unit:
            for watcher in self._watchers if isinstance(write, Append) else ():
                watcher(write)


async def _gate(base: MemoryDatabase, clock: SetClock, slot: int, *, leads: bool = False) -> tuple[NodeGate, Stands]:
    stands = Stands(slot, leads)
    gate = NodeGate(Own(base), clock, LIMITS, KEY.pubkey, shared=stands)
    await gate.load()
    return gate, stands


async def _begin(gate: NodeGate, key: str) -> Any:
    staged = await gate.begin(intent(key))
    assert isinstance(staged, Staged)
    return staged.effect_id


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def base(clock: SetClock) -> MemoryDatabase:
    return memory(clock)


async def test_each_process_writes_a_run_of_its_own_and_the_whole_ledger_is_verified(
    base: MemoryDatabase, clock: SetClock
) -> None:
    one, _ = await _gate(base, clock, 0, leads=True)
    two, _ = await _gate(base, clock, 2)
    assert one.run != two.run
    effect = await _begin(two, "k")
    await base.commit(await one.settle(effect, Outcome(OutcomeState.COMMIT, Msat(5))))
    entries = await base.select("entry", order=("n",))
    assert {entry["run"] for entry in entries} == {one.run, two.run}
    roots = [orjson.loads(orjson.loads(entry["raw"])["content"]) for entry in entries if entry["type"] == "root"]
    assert [root.get("after") for root in roots] == [None, one.run], "the second names the first"
    report = verify_rows(entries, KEY.pubkey)
    assert (report.ok, report.runs, report.open) == (True, 2, tuple(report.open))
    assert effect not in report.open


async def test_a_process_goes_on_with_the_run_of_its_slot(base: MemoryDatabase, clock: SetClock) -> None:
    await _gate(base, clock, 0)
    before, _ = await _gate(base, clock, 1)
    after, _ = await _gate(base, clock, 1)
    assert after.run == before.run
    await _begin(after, "k")
    assert verify_rows(await base.select("entry", order=("n",)), KEY.pubkey).ok


async def test_after_a_restore_every_process_begins_a_new_run(base: MemoryDatabase, clock: SetClock) -> None:
    one, _ = await _gate(base, clock, 0)
    two, _ = await _gate(base, clock, 1)
    clock.at += 1
    await one.new_run("restored")
    again, _ = await _gate(base, clock, 1)
    assert again.run not in (two.run, one.run)
    assert verify_rows(await base.select("entry", order=("n",)), KEY.pubkey).ok


async def test_a_pause_holds_for_all_at_once(base: MemoryDatabase, clock: SetClock) -> None:
    one, _ = await _gate(base, clock, 0)
    two, _ = await _gate(base, clock, 1)
    await one.pause()
    with pytest.raises(Paused):
        await two.stage(intent("k"))
    await two.resume()
    assert isinstance(await one.stage(intent("k")), Staged)


async def test_what_one_has_begun_the_steward_learns_and_may_act_on(base: MemoryDatabase, clock: SetClock) -> None:
    one, _ = await _gate(base, clock, 0, leads=True)
    two, stands = await _gate(base, clock, 1)
    stands.rang.clear()
    effect = await _begin(two, "k")
    assert stands.rang == [1], "the steward is told"
    with pytest.raises(Unpermitted):
        one.permit(effect)
    await one.adopt()
    one.check(one.permit(effect))
    await one._unit.commit(await one.settle(effect, Outcome(OutcomeState.COMMIT, Msat(5))))
    await one.adopt()
    with pytest.raises(Unpermitted):
        one.permit(effect)


async def test_who_takes_over_may_act_on_everything_that_is_open(base: MemoryDatabase, clock: SetClock) -> None:
    one, _ = await _gate(base, clock, 0, leads=True)
    two, stands = await _gate(base, clock, 1)
    effect = await _begin(one, "k")
    with pytest.raises(Unpermitted):
        two.permit(effect)
    stands.leads = True
    assert [row["id"] for row in await two.reopen()] == [effect]
    two.check(two.permit(effect))


async def test_a_process_knows_which_effects_another_one_has_in_hand(base: MemoryDatabase, clock: SetClock) -> None:
    one, stands = await _gate(base, clock, 0, leads=True)
    two, _ = await _gate(base, clock, 1)
    effect = await _begin(two, "k")
    assert await one.is_theirs(effect)
    assert not await two.is_theirs(effect)
    stands.others = (0,)  # it was put out
    assert not await one.is_theirs(effect)


async def test_a_process_that_is_not_sure_of_its_lease_lets_nothing_out(base: MemoryDatabase, clock: SetClock) -> None:
    gate, stands = await _gate(base, clock, 0, leads=True)
    permit = gate.standing("heartbeat")
    gate.check(permit)
    stands.unsure = True
    with pytest.raises(LeaseUnsure):
        gate.check(permit)


async def test_each_process_has_its_own_standing_effect_and_ends_its_own_of_yesterday(
    base: MemoryDatabase, clock: SetClock
) -> None:
    one, _ = await _gate(base, clock, 0)
    two, _ = await _gate(base, clock, 1)
    clock.at += DAY
    await one.days.open()
    rows = {row["key"]: row["state"] for row in await base.select("effect", {"path": "/standing"})}
    assert rows == {
        "2027-01-15": "commit", "2027-01-15/1": "begun", "2027-01-16": "begun",
    }  # fmt: skip
    await two.days.open()
    rows = {row["key"]: row["state"] for row in await base.select("effect", {"path": "/standing"})}
    assert rows["2027-01-15/1"] == "commit"


async def test_what_a_process_left_that_came_no_more_is_ended_after_two_days(
    base: MemoryDatabase, clock: SetClock
) -> None:
    assert clock.at == START
    one, _ = await _gate(base, clock, 0)
    await _gate(base, clock, 7)
    clock.at += 2 * DAY
    await one.days.open()
    rows = {row["key"]: row["state"] for row in await base.select("effect", {"path": "/standing"})}
    assert rows["2027-01-15/7"] == "commit"
    assert verify_rows(await base.select("entry", order=("n",)), KEY.pubkey).ok


async def test_many_effects_of_a_process_that_does_not_lead_are_not_kept_for_ever(
    base: MemoryDatabase, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.gate.gate._BEGUN", 10)
    gate, _ = await _gate(base, clock, 1)
    effects = [await _begin(gate, f"k{number}") for number in range(25)]
    assert sum(effect in gate._open for effect in effects) == 10
    gate.permit(effects[-1])


async def test_an_entry_that_comes_after_later_ones_is_not_missed(base: MemoryDatabase, clock: SetClock) -> None:
    one, _ = await _gate(base, clock, 0, leads=True)
    two, _ = await _gate(base, clock, 1)
    late, soon = await _begin(two, "late"), await _begin(two, "soon")
    held = one._unit.select

    async def without(table: str, *args: Any, **more: Any) -> Any:
        rows = await held(table, *args, **more)
        return [row for row in rows if table != "entry" or row["effect_id"] != late]

    one._unit.select = without  # its transaction is still under way
    await one.adopt()
    one.permit(soon)
    with pytest.raises(Unpermitted):
        one.permit(late)
    one._unit.select = held  # now it is committed
    await one.adopt()
    one.permit(late)
    clock.at += 61
    await _begin(two, "more")
    await one.adopt()
    await one.adopt()
    assert one._gaps == {}, "and what never comes is not asked for for ever"
