"""Budgets conserve whatever happens: held + spent never pass a ceiling, and what is held is the sum of the holds.

Drivers are played by a list of steps: intents staged on an old view, commits that come late or never, allocations,
settlements in any order, restarts, midnights. Two planted bugs show that the checks see what they are for.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.effect import Outcome, OutcomeState, Staged
from core.error import BudgetExceeded, Conflict
from core.identifier import EffectId
from core.money import Msat
from core.unit import Delete, Update, Write
from node.gate.ledger import ledger_seal
from node.gate.limits import Limits
from node.gate.verify import verify_rows
from node.storage.memory import MemoryDatabase
from tests.gate_part import KEY, SetClock, intent, open_gate

NARROW = Limits.of("msat", per_job=1_000, per_day=1_500, per_seller=800)  # so that a few steps reach them
SELLERS = ("aa" * 32, "bb" * 32)
Bend = Callable[[Write], Write | None]

AMOUNTS = st.sampled_from((0, 1, 90, 350, 700, 900, 1_000, 1_001))
WHICH = st.integers(0, 9)
BEGINNING = (st.tuples(st.just("stage"), AMOUNTS), st.tuples(st.just("commit"), WHICH))
STEPS = st.lists(
    st.one_of(
        *BEGINNING,
        *BEGINNING,  # twice as often as the others, so that there is something to work with
        st.tuples(st.just("allocate"), WHICH, st.integers(0, 1), AMOUNTS),
        st.tuples(st.just("settle"), WHICH, st.sampled_from(OutcomeState), AMOUNTS),
        st.tuples(st.just("restart")),
        st.tuples(st.just("midnight")),
    ),
    min_size=12,
    max_size=80,
)


class BentDatabase(MemoryDatabase):
    """Leaves out or changes writes on their way in: a planted bug."""

    def __init__(self, clock: SetClock, bend: Bend) -> None:
        super().__init__(ledger_seal(KEY), clock)
        self.bend = bend

    async def commit(self, writes: Iterable[Write]) -> None:
        await super().commit([bent for write in writes if (bent := self.bend(write)) is not None])


class Game:
    """One run of steps, with the invariants checked after each."""

    def __init__(self, bend: Bend) -> None:
        self.clock = SetClock()
        self.base = BentDatabase(self.clock, bend)
        self.late: list[Staged] = []
        self.begun: list[tuple[EffectId, int]] = []
        self.keys = 0

    async def play(self, steps: list[tuple[object, ...]]) -> None:
        self.gate = await open_gate(self.base, self.clock, NARROW)
        for name, *arguments in steps:
            with contextlib.suppress(BudgetExceeded, Conflict):
                await getattr(self, str(name))(*arguments)
            await self.check()
        await self.finish()

    async def stage(self, reserve: int) -> None:
        self.keys += 1
        staged = await self.gate.stage(intent(str(self.keys), reserve))
        assert isinstance(staged, Staged)
        self.late.append(staged)

    async def commit(self, which: int) -> None:
        if self.late:
            staged = self.late.pop(which % len(self.late))
            await self.base.commit(staged.writes)
            row = (await self.base.select("effect", {"id": staged.effect_id}))[0]
            self.begun.append((staged.effect_id, row["reserved"]))

    async def allocate(self, which: int, seller: int, amount: int) -> None:
        if self.begun:
            effect, _ = self.begun[which % len(self.begun)]
            await self.base.commit(await self.gate.allocate(effect, SELLERS[seller], Msat(amount)))

    async def settle(self, which: int, state: OutcomeState, cost: int) -> None:
        if self.begun:
            effect, reserved = self.begun[which % len(self.begun)]
            await self.base.commit(await self.gate.settle(effect, Outcome(state, Msat(min(cost, reserved)))))

    async def restart(self) -> None:
        self.late.clear()
        self.gate = await open_gate(self.base, self.clock, NARROW)

    async def midnight(self) -> None:
        self.clock.at += 86_400

    async def check(self) -> None:
        holds = await self.base.select("hold")
        for row in await self.base.select("budget"):
            mine = sum(held["amount"] for held in holds if held["budget"] == row["name"])
            assert row["held"] == mine, "what is held is not the sum of the holds"
            assert row["held"] >= 0
            assert row["spent"] >= 0
            assert row["held"] + row["spent"] <= row["ceiling"], "a ceiling is passed"

    async def finish(self) -> None:
        for row in await self.gate.open_effects():
            await self.base.commit(await self.gate.settle(EffectId(row["id"]), Outcome(OutcomeState.COMMIT, Msat(0))))
        await self.check()
        assert await self.base.select("hold") == []
        assert all(row["held"] == 0 for row in await self.base.select("budget"))
        effects = await self.base.select("effect")
        spent = sum(row["spent"] for row in await self.base.select("budget") if row["name"].startswith("day:"))
        assert spent == sum(row["cost"] for row in effects), "a cost was not booked once"
        report = verify_rows(await self.base.select("entry", order=["n"]), KEY.pubkey)
        assert report.problem is None


def straight(write: Write) -> Write | None:
    return write


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_budgets_conserve(steps: list[tuple[object, ...]]) -> None:
    asyncio.run(Game(straight).play(steps))


def without_ceiling(write: Write) -> Write | None:
    return replace(write, ceiling=None) if isinstance(write, Update) and write.table == "budget" else write


def without_release(write: Write) -> Write | None:
    gone = isinstance(write, Update) and write.table == "budget" and write.add.get("held", 0) < 0
    return None if gone else write


def with_kept_hold(write: Write) -> Write | None:
    return None if isinstance(write, Delete) and write.table == "hold" else write


RACE: list[tuple[object, ...]] = [*[("stage", 900)] * 2, *[("commit", 0)] * 2]
ENDED: list[tuple[object, ...]] = [("stage", 900), ("commit", 0), ("settle", 0, OutcomeState.COMMIT, 5)]


@pytest.mark.parametrize(("bug", "steps"), [(without_ceiling, RACE), (without_release, ENDED), (with_kept_hold, ENDED)])
def test_a_planted_bug_is_caught(bug: Bend, steps: list[tuple[object, ...]]) -> None:
    asyncio.run(Game(straight).play(steps))
    with pytest.raises(AssertionError):
        asyncio.run(Game(bug).play(steps))
