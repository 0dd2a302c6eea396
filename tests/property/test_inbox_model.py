"""Inbox and engine against a simple model: arrivals, failures, restarts and crashes in any order, on any database."""

import asyncio
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import orjson
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from pydantic import BaseModel

from core.error import Conflict
from core.identifier import PubKey
from core.unit import Insert
from fs.feed import Feed
from fs.namespace import Namespace
from fs.session import Role, Session
from node.agent.error import AgentStatus, InboxFull
from node.agent.inbox import row as inbox_row
from node.agent.inbox.intake import Intake
from node.agent.inbox.mailbox import AgentInbox
from node.agent.inbox.overflow import Overflow
from node.agent.inbox.row import envelope
from node.agent.program import Context, Nothing, Program, Trigger
from node.agent.tick import aftermath, runner
from node.agent.tick.engine import Engine
from node.agent.tick.limit import TickLimits
from node.agent.tick.supervision import Ruling, judge
from node.agent.wake import alarm
from node.agent.wake.alarm import set_alarm
from node.agent.wake.bell import Alarms
from node.storage.chain import unsigned_seal
from tests.property.inbox_model_part import (
    BACK_OFF_MS,
    QUARANTINE,
    TRIES,
    Entry,
    HastyLoop,
    ModelAgent,
    Mortal,
    Overflowed,
    StepClock,
    numbers,
)
from tests.unit_part import ENGINES

Letter: TypeAlias = tuple[str, int, str, int | None, int | None]
"""Sender, priority, what the program does with it, how long it lives (s), the sender's own number."""

AGENTS = ("a", "b")
TIMES = st.sampled_from([1, 500, 1_000, 2_000, 4_000])
LETTERS = st.tuples(
    st.sampled_from(["eve", "bob"]),
    st.sampled_from([0, 0, 0, -1, 1]),
    st.sampled_from(["ok", "ok", "pause", "fail", "fragile", "slow", "hibernate"]),
    st.sampled_from([None, None, 1, 2, 4]),
    st.sampled_from([None, None, 1, 2, 3]),
)
LIMITS = TickLimits(
    seconds=30, grace_s=30, tries=TRIES, back_off_ms=BACK_OFF_MS, quarantine=QUARANTINE, per_minute=0,
    in_a_row=1_000,
)  # fmt: skip
TORTURE = settings.default is not None and settings.default.max_examples > 1_000


class Served(BaseModel):
    """What was dealt with, in order."""

    count: int = 0
    seen: list[str] = []


class Doer(Program[Served, Nothing]):
    """Does what each trigger says, and notices if it runs twice at once."""

    name = "doer"
    state_type, config_type = Served, Nothing

    def __init__(self) -> None:
        self.broken = False
        self.inside: Counter[str] = Counter()
        self.twice = False

    async def on_trigger(self, ctx: Context[Served, Nothing], trigger: Trigger) -> None:
        self.inside[ctx.agent] += 1
        self.twice |= self.inside[ctx.agent] > 1
        try:
            await self._do(ctx, str(trigger.payload.get("do", "ok")))
        finally:
            self.inside[ctx.agent] -= 1
        ctx.state.count += 1
        ctx.state.seen.append(trigger.envelope_id)

    async def _do(self, ctx: Context[Served, Nothing], word: str) -> None:
        match word:
            case "fail":
                raise ValueError("as it was told")
            case "fragile" if self.broken:
                raise ValueError("something is broken")
            case "slow":
                await asyncio.sleep(600)
            case "pause":
                for _ in range(3):
                    await asyncio.sleep(0)
            case "hibernate":
                ctx.hibernate()


class InboxMachine(RuleBasedStateMachine):
    """What comes, what the operator does, and what time and crashes do."""

    database: ClassVar[str]

    # ---- putting it up

    @initialize(
        depth=st.integers(2, 6), policy=st.sampled_from(["reject_new", "drop_oldest", "dead_letter"]),
        dead=st.integers(1, 3),
    )  # fmt: skip
    def begin(self, depth: int, policy: str, dead: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="vendo-inbox-"))
        self.loop = HastyLoop()
        self.clock, self.program, self.number = StepClock(), Doer(), numbers()
        self.overflow = Overflow().changed({"max_depth": depth, "policy": policy, "dead_letter_max": dead})
        self.model = {name: ModelAgent(depth, policy, dead) for name in AGENTS}
        self.task: asyncio.Task[None] | None = None
        self.do(self._open())
        self._compare()

    async def _open(self) -> None:
        self.unit = await ENGINES[self.database](self.folder, unsigned_seal, self.clock)
        self._fresh()
        for name in AGENTS:
            await self.engine.create(name, "doer", PubKey("ab" * 32))
            self.model[name].entries["initialize"] = Entry(next(self.number), "initialize", (0, "node"), "ok")
        await self._start()

    def _fresh(self) -> None:
        """An engine that knows nothing but the database."""
        broken = self.program.broken
        self.program = Doer()
        self.program.broken = broken
        self.mortal = Mortal(self.unit)
        self.intake = Intake(self.unit, self.clock, self.overflow)
        self.engine = Engine(
            self.mortal, self.clock, {"doer": self.program}, lambda name: Namespace([]), Feed(), LIMITS,
            bury=self.intake.bury,
        )  # fmt: skip

    async def _start(self) -> None:
        ready, self.stop = asyncio.Event(), asyncio.Event()
        self.task = asyncio.create_task(self.engine.run(ready, self.stop))
        await ready.wait()
        await self._quiet()

    def do(self, act: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(act)

    async def _quiet(self) -> None:
        """Until nobody does anything any more, or the process has died."""
        calm = 0
        while calm < 10 and not self.mortal.dead.is_set():
            await asyncio.sleep(1 if self.engine.busy else 0)
            calm = 0 if self.engine.busy else calm + 1

    async def _end(self) -> None:
        if self.task is not None:
            self.stop.set()
            await self.task
            self.task = None

    async def _kill(self) -> None:
        """Nothing of the process goes on."""
        own = asyncio.current_task()
        rounds = 0
        while tasks := [task for task in asyncio.all_tasks() if task is not own and not task.done()]:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=0.01)
            rounds += 1
            assert rounds < 1_000, f"these do not end: {tasks}"
        self.task = None

    # ---- what comes

    @rule(agent=st.sampled_from(AGENTS), letters=st.lists(LETTERS, min_size=1, max_size=4), told=st.booleans())
    def arrive(self, agent: str, letters: list[Letter], told: bool) -> None:
        """Something new. Unless it is `told`, the engine hears of it with whatever comes next."""
        for letter in letters:
            self._arrive(agent, self._entry(letter))
        if told:
            self.settle()

    def _entry(self, letter: Letter) -> Entry:
        sender, priority, do, lives, seq = letter
        n = next(self.number)
        expires = None if lives is None else self.clock.now() + lives
        return Entry(n, f"m{n}", (priority, sender), do, seq, expires)

    @rule(
        agent=st.sampled_from(AGENTS), letters=st.lists(LETTERS, min_size=1, max_size=6), ms=TIMES,
        more=st.lists(LETTERS, max_size=2), pick=st.integers(0, 50),
    )  # fmt: skip
    def arrive_while_stopped(self, agent: str, letters: list[Letter], ms: int, more: list[Letter], pick: int) -> None:
        """The operator stops an agent; things come, time passes, more comes, some of it again, and it goes on."""
        self.status(agent, "stop")
        self.arrive(agent, letters, told=True)
        self.wait(ms)
        self.arrive_again(agent, pick, ignore=True)
        self.arrive(agent, more, told=True)
        self.status(agent, "start")

    @rule(agent=st.sampled_from(AGENTS), letter=LETTERS)
    def die(self, agent: str, letter: Letter) -> None:
        """Something that the agent cannot deal with is tried to its end."""
        self.arrive(agent, [(*letter[:2], "fail", *letter[3:])], told=True)
        for _ in range(TRIES - 1):
            self.wait(4_000)

    @rule(agent=st.sampled_from(AGENTS), times=st.integers(1, 3))
    def alarm(self, agent: str, times: int) -> None:
        """An alarm is set for now, again and again within one millisecond, and wakes the agent each time."""

        async def ring() -> str:
            await self.unit.commit(set_alarm(agent, "x", self.clock.millis(), at_ms=self.clock.millis()))
            await Alarms(self.unit, self.clock, lambda _: None).look()
            assert not await self.unit.count("alarm")
            return str((await self.unit.select("inbox", {"agent": agent}, order=("-n",), limit=1))[0]["envelope_id"])

        for _ in range(times):
            name = self.do(ring())
            assert name.startswith("alarm:x:")
            assert name not in self.model[agent].entries, "it has not fired"
            self.model[agent].entries[name] = Entry(next(self.number), name, (0, "x"), "ok")
        self.settle()

    @rule(agent=st.sampled_from(AGENTS), pick=st.integers(0, 50), ignore=st.booleans())
    def arrive_again(self, agent: str, pick: int, ignore: bool) -> None:
        """What is known comes once more, with another word in it."""
        known = [one for one in self.model[agent].entries.values() if not one.stays]
        if known:
            old = known[pick % len(known)]
            self._arrive(agent, Entry(0, old.id, old.line, "fail"), ignore=ignore)
        self.settle()

    def _arrive(self, agent: str, entry: Entry, *, ignore: bool = True) -> None:
        refused = False
        try:
            self.model[agent].arrive(entry, self.clock.millis())
        except Overflowed:
            refused = True
        row = envelope(
            agent, entry.id, cause="message", source="web", sender=entry.line[1], priority=entry.priority,
            payload=orjson.dumps({"do": entry.do}).decode(), at=self.clock.now(), seq=entry.seq,
            expires_at=entry.expires_at, or_ignore=ignore,
        )  # fmt: skip

        async def come() -> bool:
            try:
                async with self.intake.room(row) as writes:
                    with suppress(Conflict):
                        await self.unit.commit(writes)
            except InboxFull:
                return True
            return False

        assert self.do(come()) is refused

    # ---- what time and the operator do

    def settle(self) -> None:
        """Let the engine do all that is due, and compare."""

        async def work() -> None:
            for name in AGENTS:
                self.engine.notify(name)
            await self._quiet()

        self.do(work())
        self._compare(told=True)

    @rule(ms=TIMES)
    def wait(self, ms: int) -> None:
        """Time passes; nobody tells the engine."""
        self.settle()
        self.do(self._passes(ms))
        self._compare()

    @rule()
    def break_or_mend(self) -> None:
        self.settle()
        self.program.broken = not self.program.broken

    @rule(agent=st.sampled_from(AGENTS), pick=st.integers(0, 50), replay=st.booleans(), every=st.booleans())
    def dead_letter(self, agent: str, pick: int, replay: bool, every: bool) -> None:
        """Dead ones are handed out again, or given up."""
        self.settle()
        dead = self.model[agent].where("dead")
        chosen = dead if every or not dead else [dead[pick % len(dead)]]
        inbox = AgentInbox(agent, self.unit, self.clock, self.engine.notify, self.intake)
        self.do(self._passes(1))  # so that ids of ticks differ from those of the tries before
        self._compare()
        for one in chosen:
            self.model[agent].replay(one.id) if replay else self.model[agent].discard(one.id)

        async def act() -> None:
            operator = Session("operator", Role.OPERATOR, unit=self.unit)
            if every:
                await (inbox.replay_all(operator) if replay else inbox.discard_all(operator))
            for one in [] if every else chosen:
                await (inbox.replay(operator, one.id) if replay else inbox.discard(operator, one.id))
            await self._quiet()

        self.do(act())
        self._compare()

    async def _passes(self, ms: int) -> None:
        self.clock.advance(ms)
        await self._quiet()

    @rule(agent=st.sampled_from(AGENTS), word=st.sampled_from(["hibernate", "wake", "stop", "start", "release"]))
    def status(self, agent: str, word: str) -> None:
        """The operator says something."""
        self.settle()
        to, allowed = {
            "hibernate": ("dormant", ["active"]),
            "wake": ("active", ["dormant"]),
            "stop": ("stopped", ["active", "dormant", "quarantined"]),
            "start": ("active", ["stopped"]),
            "release": ("active", ["quarantined"]),
        }[word]
        may = self.model[agent].turn(to, allowed)

        async def say() -> bool:
            try:
                await getattr(self.engine, word)(agent)
            except AgentStatus:
                return False
            finally:
                await self._quiet()
            return True

        assert self.do(say()) is may
        self._compare()

    # ---- ends and beginnings

    @rule()
    def restart(self) -> None:
        """The process ends in good order, and another one begins."""

        async def again() -> None:
            await self._end()
            self._fresh()
            await self._start()

        self.do(again())
        self._compare()

    @rule(commits=st.integers(1, 4), made=st.booleans())
    def crash(self, commits: int, made: bool) -> None:
        """The process dies at one of its next commits, while it does what waits; and another one begins."""

        async def die() -> None:
            self.mortal.dies_at, self.mortal.made = self.mortal.commits + commits, made
            for name in AGENTS:
                self.engine.notify(name)
            await self._quiet()
            await self._kill()

        self.do(die())
        self._catch_up()
        self._fresh()
        self.do(self._start())
        self._compare()

    def _catch_up(self) -> None:
        """The model has as many ticks as the database says that there were before the crash."""

        async def ticks() -> dict[str, int]:
            return {name: await self.unit.count("tick", {"agent": name}) for name in AGENTS}

        for name, count in self.do(ticks()).items():
            model = self.model[name]
            model.left = count - self.tried[name]
            model.run(self.clock.millis(), self.program.broken)
            assert model.left == 0, f"{name} had ticks that nothing explains"
            model.left = None

    @property
    def tried(self) -> dict[str, int]:
        return {name: model.ticks + model.lost for name, model in self.model.items()}

    # ---- comparing

    def _compare(self, *, told: bool = False) -> None:
        """`told`: the engine has looked at every inbox, and has put away what came too late."""
        now_ms = self.clock.millis()
        for name, model in self.model.items():
            model.run(now_ms, self.program.broken)
            rows, agent = self.do(self._rows(name))
            if not told or model.status not in ("active", "dormant"):
                for row in rows:
                    late = row["expires_at"] is not None and row["expires_at"] * 1_000 <= now_ms
                    if late and row["state"] == "new" and model.entries[row["envelope_id"]].state == "expired":
                        row["state"] = "expired"
            found = {row["envelope_id"]: (row["state"], row["tries"]) for row in rows}
            assert found == {one.id: (one.state, one.tries) for one in model.entries.values()}
            waits = {row["envelope_id"]: row["next_at_ms"] for row in rows if row["state"] == "new"}
            assert waits == {one.id: one.next_ms for one in model.where("new")}
            assert (agent["status"], agent["failures"]) == (model.status, model.failures)
            state = orjson.loads(agent["state"])
            assert state.get("seen", []) == model.served
            assert agent["ticks"] == state.get("count", 0) == model.ticks == len(model.served)

    async def _rows(self, name: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        rows = await self.unit.select("inbox", {"agent": name}, order=("n",))
        return rows, (await self.unit.select("agent", {"name": name}))[0]

    @invariant()
    def one_at_a_time(self) -> None:
        if hasattr(self, "program"):
            assert not self.program.twice

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return

        async def end() -> None:
            await self._end()
            await self.unit.aclose()

        self.do(end())
        self.loop.close()
        shutil.rmtree(self.folder)


class MemoryMachine(InboxMachine):
    database = "memory"


class SqliteMachine(InboxMachine):
    database = "sqlite"


TestOnMemory, TestOnSqlite = MemoryMachine.TestCase, SqliteMachine.TestCase
TestOnMemory.settings = settings(
    max_examples=1_000 if TORTURE else 30,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestOnSqlite.settings = settings(
    max_examples=150 if TORTURE else 5, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)


# --- planted bugs: the same script passes without them


@contextmanager
def machine() -> Iterator[MemoryMachine]:
    made = MemoryMachine()
    made.begin(depth=6, policy="reject_new", dead=3)
    try:
        yield made
    finally:
        made.teardown()


def tries_again(made: InboxMachine) -> None:
    """What fails once holds back its sender's next one, and is tried again, while another sender's goes on."""
    letters: list[Letter] = [("eve", 0, "fail", None, None), ("eve", 0, "ok", None, None), ("bob", 0, "ok", None, None)]
    made.arrive(agent="a", letters=letters, told=True)
    made.wait(ms=1_000)
    made.wait(ms=2_000)


def is_restarted(made: InboxMachine) -> None:
    """What comes again after a restart is known."""
    made.arrive(agent="a", letters=[("eve", 0, "ok", None, None), ("eve", 0, "hibernate", None, None)], told=True)
    made.restart()
    made.arrive_again(agent="a", pick=0, ignore=True)


@pytest.mark.parametrize("script", [tries_again, is_restarted])
def test_the_scripts_hold_without_a_planted_bug(script: Callable[[InboxMachine], None]) -> None:
    with machine() as made:
        script(made)


def test_planted_a_failure_that_is_not_counted_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgets(failure: Any, row: Any, *others: Any) -> Ruling:
        return replace(judge(failure, row, *others), tries=row["tries"])

    monkeypatch.setattr(aftermath, "judge", forgets)
    with machine() as made, pytest.raises(AssertionError):
        tries_again(made)


def test_planted_a_line_that_does_not_wait_for_its_first_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_row, "line_of", lambda row: (row["priority"], "web", str(row["n"])))
    with machine() as made, pytest.raises(AssertionError):
        tries_again(made)


def test_planted_an_alarm_that_fires_once_for_one_time_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    async def same(_alarms: Alarms, row: Any, _now_ms: int) -> str:
        return f"alarm:{row['id']}:{row['due_ms']}"

    def ignored(write: Insert) -> Insert:
        return replace(write, or_ignore=True)

    made_ring = alarm.ring
    monkeypatch.setattr(Alarms, "_name", same)
    monkeypatch.setattr(alarm, "ring", lambda *given: ignored(made_ring(*given)))
    with machine() as made, pytest.raises(AssertionError):
        made.alarm(agent="a", times=2)


def test_planted_an_agent_that_stays_awake_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = runner._changed
    monkeypatch.setattr(runner, "_changed", lambda *given: {**changed(*given), "status": "active"})
    with machine() as made, pytest.raises(AssertionError):
        is_restarted(made)
