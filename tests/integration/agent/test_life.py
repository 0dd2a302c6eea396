"""What agents are but for their ticks, whose turn it is, and that nothing is forgotten between."""

import asyncio
import contextlib
import random
from collections.abc import Collection
from dataclasses import dataclass, field

import orjson
import pytest

from core.error import NotFound, Unavailable
from core.identifier import PubKey
from core.unit import Row, Update
from fs.service.ctl import ctl_service
from fs.session import Role, Session
from node.agent.error import AgentBusy, AgentDiffers, AgentStatus
from node.agent.inbox.row import envelope
from node.agent.program import Trigger
from node.agent.tick.engine import Engine
from node.agent.tick.limit import TickLimits
from node.storage.error import StoreFailed
from node.storage.memory import MemoryDatabase
from tests.unit.node.agent.agent_part import PUBKEY, QUICK, Bench, Here, Scripted, remember


@dataclass
class Home:
    """Who holds keys and ears ready, for agents that do not hibernate."""

    awake: set[str] = field(default_factory=set)
    told: list[str] = field(default_factory=list)

    async def rouse(self, name: str, row: Row | None = None) -> bool:
        self.awake.add(name)
        self.told.append(f"rouse {name}")
        return True

    def rest(self, name: str) -> None:
        self.awake.discard(name)
        self.told.append(f"rest {name}")


async def test_who_hibernates_is_woken_by_a_trigger_and_what_it_needs_is_there_before_its_tick() -> None:
    home = Home(awake={"a"})

    async def act(ctx: Here, trigger: Trigger) -> None:
        assert ctx.agent in home.awake
        await remember(ctx, trigger)

    bench = Bench(programs={"scripted": Scripted(act)})
    bench.engine.attend(home)
    async with bench.running("a") as engine:
        await bench.idle("a")
        assert await engine.hibernate("a") == "dormant"
        assert await engine.hibernate("a") == "dormant", "again is no error"
        await asyncio.sleep(0.02)
        assert home.told[-1] == "rest a"
        assert (await bench.row("a"))["status"] == "dormant"
        assert not home.awake
        await bench.put("a", "m1")
        await bench.idle("a")
        assert home.told[-1] == "rouse a"
        assert (await bench.row("a"))["status"] == "active"
        await engine.hibernate("a")
        assert await engine.wake("a") == "active"
        assert home.awake == {"a"}
    assert (await bench.state("a"))["seen"] == ["initialize", "m1"]


async def test_an_agent_may_lay_itself_down_and_what_comes_meanwhile_still_wakes_it() -> None:
    home = Home()

    async def act(ctx: Here, trigger: Trigger) -> None:
        await remember(ctx, trigger)
        ctx.hibernate()

    bench = Bench(programs={"scripted": Scripted(act)})
    bench.engine.attend(home)
    async with bench.running("a"):
        for number in range(20):
            await bench.put("a", f"m{number}")
        await bench.idle("a")
        assert (await bench.until_row("a", lambda row: row["status"] == "dormant"))["ticks"] == 21
        await asyncio.sleep(0.01)
        assert home.told[-1] == "rest a"


async def test_a_stopped_agent_keeps_what_comes_until_it_is_started() -> None:
    bench = Bench()
    async with bench.running("a") as engine:
        await bench.idle("a")
        assert await engine.stop("a") == "stopped"
        await bench.put("a", "m1")
        await asyncio.sleep(0.05)
        assert (await bench.inbox("a"))["m1"]["state"] == "new"
        assert engine.busy == 0
        with pytest.raises(AgentStatus, match="stopped"):
            await engine.hibernate("a")
        with pytest.raises(AgentStatus):
            await engine.release("a")
        assert await engine.start("a") == "active"
        await bench.idle("a")
    assert (await bench.state("a"))["seen"] == ["initialize", "m1"]
    kinds = [one["data"]["status"] for one in await bench.trace("a").recent(50) if one["type"] == "status"]
    assert kinds == ["stopped", "active"]


async def test_a_tick_that_is_under_way_when_its_agent_is_stopped_is_not_committed() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def act(ctx: Here, trigger: Trigger) -> None:
        await remember(ctx, trigger)
        if trigger.envelope_id == "m1":
            begun.set()
            await go_on.wait()

    bench = Bench(programs={"scripted": Scripted(act)}, limits=TickLimits(seconds=5))
    async with bench.running("a") as engine:
        await bench.put("a", "m1")
        await begun.wait()
        await engine.stop("a")
        go_on.set()
        async with asyncio.timeout(60):
            while engine.busy:
                await asyncio.sleep(0.002)
        row = (await bench.inbox("a"))["m1"]
        assert (row["state"], row["tries"], row["error"]) == ("new", 0, "")
        assert (await bench.state("a"))["seen"] == ["initialize"]
        await engine.start("a")
        await bench.idle("a")
    assert (await bench.state("a"))["seen"] == ["initialize", "m1"]


async def test_nobody_is_changed_who_is_not_there() -> None:
    bench = Bench()
    async with bench.running("a") as engine:
        await engine.delete("a")
        for change in (engine.hibernate, engine.wake, engine.stop, engine.start, engine.release):
            for name in ("a", "nobody"):
                with pytest.raises(NotFound):
                    await change(name)


async def test_the_operators_files_change_what_an_agent_is() -> None:
    bench = Bench()
    async with bench.running("a") as engine:
        tree = ctl_service(None, None, engine, "a")  # no switch is used here
        session = Session("operator", Role.OPERATOR, unit=bench.unit)
        found = []
        for name in ("stop", "start", "hibernate", "wake"):
            found.append(orjson.loads(await tree.call((name,), b"", session)))
        assert found == [{"name": "a", "status": one} for one in ("stopped", "active", "dormant", "active")]
        assert orjson.loads(await tree.call(("release",), b"", session))["status"] == "active", (
            "it is what was asked for"
        )
        await tree.call(("stop",), b"", session)
        with pytest.raises(AgentStatus):
            await tree.call(("release",), b"", session)


# ---- whose turn it is


async def test_who_has_much_to_do_holds_up_nobody() -> None:
    order: list[str] = []

    async def act(ctx: Here, trigger: Trigger) -> None:
        order.append(ctx.agent)

    limits = TickLimits(seconds=5, parallel=1, in_a_row=4)
    bench = Bench(programs={"scripted": Scripted(act)}, limits=limits)
    for name in ("busy", "b", "c"):
        await bench.engine.create(name, "scripted", PUBKEY)
    for number in range(60):
        await bench.put("busy", f"m{number}")
    async with bench.running():
        await bench.idle("busy")
    assert order.index("b") <= 4
    assert order.index("c") <= 5
    assert order.count("busy") == 61


async def test_agents_that_wait_for_something_outside_hold_up_nobody() -> None:
    go_on = asyncio.Event()

    async def act(ctx: Here, trigger: Trigger) -> None:
        if ctx.agent.startswith("slow") and trigger.cause == "message":
            await go_on.wait()
        await remember(ctx, trigger)

    limits = TickLimits(seconds=10, parallel=2, open=5)
    bench = Bench(programs={"scripted": Scripted(act)}, limits=limits)
    slow = [f"slow{number}" for number in range(4)]
    async with bench.running(*slow, "quick") as engine:
        for name in (*slow, "quick"):
            await bench.idle(name)
        for name in slow:
            await bench.put(name, "m1")
        async with asyncio.timeout(60):
            while engine.busy < 4:
                await asyncio.sleep(0.005)
        await bench.put("quick", "m1")
        await bench.idle("quick")
        go_on.set()
        for name in slow:
            await bench.idle(name)


async def test_more_ticks_than_are_allowed_are_never_open() -> None:
    open_now, most = [0], [0]

    async def act(ctx: Here, trigger: Trigger) -> None:
        open_now[0] += 1
        most[0] = max(most[0], open_now[0])
        await asyncio.sleep(0.2)
        open_now[0] -= 1

    limits = TickLimits(seconds=10, parallel=1, open=3)
    bench = Bench(programs={"scripted": Scripted(act)}, limits=limits)
    names = [f"a{number}" for number in range(8)]
    async with bench.running(*names):
        for name in names:
            await bench.idle(name)
    assert most[0] == 3


@pytest.mark.parametrize("seed", range(5))
async def test_no_trigger_is_forgotten_whenever_it_comes(seed: int) -> None:
    """Triggers are committed at any moment of a drain, its very end too; each is dealt with without another notice."""
    rng = random.Random(seed)
    bench = Bench(limits=TickLimits(seconds=5, per_minute=0, in_a_row=3, parallel=2))
    names = ("a", "b", "c", "d")
    async with bench.running(*names):

        async def send(name: str) -> None:
            for number in range(60):
                await bench.put(name, f"m{number}")
                for _ in range(rng.randrange(12)):
                    await asyncio.sleep(0)

        await asyncio.gather(*(send(name) for name in names))
        for name in names:
            await bench.idle(name)
    for name in names:
        assert (await bench.state(name))["seen"] == ["initialize", *(f"m{number}" for number in range(60))]


async def test_an_idle_engine_keeps_nothing_of_its_agents() -> None:
    bench = Bench()
    names = [f"a{number}" for number in range(50)]
    async with bench.running(*names) as engine:
        for name in names:
            await bench.idle(name)
        async with asyncio.timeout(60):
            while engine.busy:
                await asyncio.sleep(0.002)
        assert len(engine._order) == 0
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("agent ")]


async def test_ticks_that_began_are_finished_when_the_engine_stops() -> None:
    begun = asyncio.Event()

    async def act(ctx: Here, trigger: Trigger) -> None:
        await remember(ctx, trigger)
        if trigger.envelope_id == "m1":
            begun.set()
            await asyncio.sleep(0.1)

    bench = Bench(programs={"scripted": Scripted(act)}, limits=TickLimits(seconds=5))
    async with bench.running("a"):
        for name in ("m1", "m2", "m3"):
            await bench.put("a", name)
        await begun.wait()
    assert (await bench.state("a"))["seen"] == ["initialize", "m1"]
    assert (await bench.inbox("a"))["m2"]["state"] == "new"


async def test_an_engine_that_is_told_to_end_at_once_waits_for_no_code_that_will_not() -> None:
    begun = asyncio.Event()

    async def act(ctx: Here, trigger: Trigger) -> None:
        begun.set()
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)

    bench = Bench(programs={"scripted": Scripted(act)}, limits=TickLimits(seconds=60, grace_s=0.1))
    await bench.engine.create("a", "scripted", PUBKEY)
    running = asyncio.create_task(bench.engine.run(asyncio.Event(), asyncio.Event()))
    await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 60)
    assert (await bench.inbox("a"))["initialize"]["state"] == "new"
    assert (await bench.row("a"))["failures"] == 0


async def test_a_database_that_fails_for_a_while_costs_no_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.agent.tick.engine._STORE_BACK_OFF_MS", 20)
    broken = [0]

    class Shaky(MemoryDatabase):
        async def commit(self, writes: object) -> None:
            if broken[0]:
                broken[0] -= 1
                raise StoreFailed("the disk is gone for a while")
            await super().commit(writes)

    bench = Bench(unit=Shaky())
    async with bench.running("a"):
        await bench.idle("a")
        await bench.unit.commit([envelope("a", "m1", cause="message", source="test", sender="s", payload="{}", at=1)])
        broken[0] = 5
        bench.engine.notify("a")
        rows = await bench.idle("a")
    assert rows["m1"]["tries"] == 0
    assert (await bench.state("a"))["seen"] == ["initialize", "m1"]


# ---- several processes


@dataclass
class Desk:
    """Claims for tests: some are somebody else's."""

    theirs: set[str] = field(default_factory=set)
    told: list[str] = field(default_factory=list)
    fails: int = 0

    async def claim(self, agents: Collection[str]) -> set[str]:
        await asyncio.sleep(0)
        if self.fails:
            self.fails -= 1
            raise Unavailable
        found = set(agents) - self.theirs
        self.told += [f"claim {name}" for name in sorted(found)]
        return found

    async def take(self, agent: str) -> bool:
        return agent in await self.claim([agent])

    async def release(self, agents: Collection[str]) -> None:
        self.told += [f"release {name}" for name in sorted(agents)]

    def lost(self, agent: str) -> None:
        self.told.append(f"lost {agent}")


def claiming(bench: Bench, desk: Desk) -> None:
    bench.engine = Engine(
        bench.unit, bench.clock, bench.programs, bench.namespace, bench.feed, bench.limits, claims=desk
    )


async def test_only_claimed_agents_have_ticks_and_they_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.agent.tick.engine._TAKEN_BACK_OFF_MS", 20)
    bench, desk = Bench(), Desk(theirs={"b"})
    claiming(bench, desk)
    async with bench.running("a", "b") as engine:
        await bench.idle("a")
        await bench.put("a", "m1")
        await bench.idle("a")
        await asyncio.sleep(0.05)
        assert (await bench.inbox("b"))["initialize"]["state"] == "new"
        assert desk.told[:2] == ["claim a", "release a"]
        with pytest.raises(AgentBusy):
            await engine.hibernate("b")
        desk.theirs.clear()
        desk.fails = 2
        await bench.idle("b")
        await asyncio.sleep(0.02)
    assert desk.told.count("claim a") == desk.told.count("release a")
    assert "release b" in desk.told


async def test_a_commit_under_an_older_epoch_is_refused_and_the_agent_is_left_to_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("node.agent.tick.engine._TAKEN_BACK_OFF_MS", 50)
    bench, desk = Bench(), Desk()

    async def act(ctx: Here, trigger: Trigger) -> None:
        if trigger.envelope_id == "m1" and "b" not in desk.theirs:
            desk.theirs.add("a")  # another process has taken it over
            await bench.unit.commit([Update("agent", {"name": "a"}, add={"epoch": 1})])
            desk.theirs.add("b")
        await remember(ctx, trigger)

    bench.programs["scripted"] = Scripted(act)
    claiming(bench, desk)
    async with bench.running("a"):
        await bench.put("a", "m1")
        async with asyncio.timeout(60):
            while "lost a" not in desk.told:
                await asyncio.sleep(0.002)
        assert (await bench.state("a"))["seen"] == ["initialize"]
        assert (await bench.inbox("a"))["m1"]["tries"] == 0
        desk.theirs.clear()
        desk.theirs.add("b")
        await bench.idle("a")
    assert (await bench.state("a"))["seen"] == ["initialize", "m1"]


async def test_while_an_agent_is_held_it_has_no_tick() -> None:
    ticking = [0]

    async def act(ctx: Here, trigger: Trigger) -> None:
        ticking[0] += 1
        await asyncio.sleep(0.01)
        ticking[0] -= 1

    bench = Bench(programs={"scripted": Scripted(act)}, limits=QUICK)
    async with bench.running("a") as engine:
        for number in range(5):
            await bench.put("a", f"m{number}")
        for _ in range(3):
            async with engine.hold("a"):
                before = (await bench.row("a"))["ticks"]
                await bench.put("a", f"h{before}{_}")
                for _ in range(10):
                    assert ticking[0] == 0
                    await asyncio.sleep(0.002)
                assert (await bench.row("a"))["ticks"] == before
            await asyncio.sleep(0.03)
        await bench.idle("a")
        held = asyncio.create_task(_hold(engine))
        both = asyncio.create_task(_hold(engine))
        await asyncio.gather(held, both)
        assert not engine._order._held


async def _hold(engine: Engine) -> None:
    async with engine.hold("a"):
        await asyncio.sleep(0.005)


async def test_nothing_is_done_by_a_row_that_is_old() -> None:
    bench = Bench()
    await bench.engine.create("a", "scripted", PUBKEY, {})
    old = dict(await bench.row("a"))

    async def change(**to: str) -> None:
        await bench.unit.commit([Update("agent", {"name": "a"}, to, add={"version": 1})])

    await change(status="frozen")
    await bench.engine.create("a", "scripted", PUBKEY, {"no such": "setting"}, row=old)
    assert (await bench.row("a"))["status"] == "frozen", "it lives elsewhere, whatever was known of it"
    await change(status="active", pubkey="b" * 64)
    await bench.engine.create("a", "scripted", PubKey("b" * 64), {}, row=old)
    assert (await bench.row("a"))["status"] == "active", "its key was replaced meanwhile"
    with pytest.raises(AgentDiffers):
        await bench.engine.create("a", "scripted", PUBKEY, {}, row=dict(old, limits="{ }"))
