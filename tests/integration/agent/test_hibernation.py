"""Agents that hibernate: only a row is left of each, a letter finds it all the same, and a restart does not wake it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from core.clock import SystemClock
from core.error import NotFound
from core.unit import Insert
from fs.service.agents import agents_service
from fs.session import Role, Session
from node.agent.doorman import Doorman
from node.agent.inbox.row import envelope
from node.error import AgentTaken
from node.storage.memory import MemoryDatabase
from tests.integration.agent.node_part import _running, relay_at
from tests.integration.agent.test_roster import Place, _count, _got, _say, place

CLOCK = SystemClock()


@pytest.fixture
async def relay(tmp_path: Path) -> AsyncIterator[str]:
    async with relay_at(tmp_path) as url:
        yield url


@asynccontextmanager
async def house(relay: str, unit: MemoryDatabase | None = None, window: int = 500) -> AsyncIterator[Place]:
    """A place whose agents may hibernate, with somebody at the door unless the window is 0."""
    async with AsyncExitStack() as stack:
        at = await stack.enter_async_context(place(relay, unit))
        at.here.engine.attend(at.roster)
        if window:
            door = Doorman(at.here.unit, CLOCK, at.roster, window=window, turn_s=0.5)
            at.roster.on_rest(door.changed)
            await _running(stack, door)
        yield at


async def _status(at: Place, name: str) -> str:
    return str((await at.here.rows("agent", name=name))[0]["status"])


async def _ticked(at: Place, name: str, least: int) -> bool:
    return int((await at.here.rows("agent", name=name))[0]["ticks"]) >= least


def _is_unknown(at: Place, name: str) -> bool:
    roster, messages = at.roster, at.messages
    return name not in roster and name not in at.keys and not roster.is_awake(name) and name not in messages._doors


async def _asleep(at: Place, *names: str) -> None:
    for name in names:
        await at.roster.add({"name": name, "strangers": "all"})
        await at.here.until(lambda name=name: _ticked(at, name, 1))
        await at.here.engine.hibernate(name)


def _trigger(name: str, mark: str) -> Insert:
    return envelope(name, mark, cause="manual", source="test", sender="", payload='{"reason":""}', at=CLOCK.now())


async def test_of_an_agent_that_hibernates_nothing_is_kept_and_a_trigger_wakes_it(relay: str) -> None:
    async with house(relay, window=0) as at:
        await _asleep(at, "fresh")
        assert await _status(at, "fresh") == "dormant"
        assert _is_unknown(at, "fresh")
        await at.here.unit.commit([_trigger("fresh", "up")])
        at.here.engine.notify("fresh")
        await at.here.until(lambda: _ticked(at, "fresh", 2))
        assert await _status(at, "fresh") == "active"
        assert at.roster.is_awake("fresh")
        assert "fresh" in at.keys


async def test_a_letter_finds_an_agent_that_hibernates(relay: str) -> None:
    async with house(relay) as at:
        await at.roster.add({"name": "fresh", "strangers": "all"})
        await at.here.until(lambda: _ticked(at, "fresh", 1))
        pubkey = at.keys.current("fresh").pubkey
        await at.here.engine.hibernate("fresh")
        await _say(at, pubkey, "are you there")
        await at.here.until(lambda: _got(at, "fresh"))
        await at.here.until(lambda: _ticked(at, "fresh", 2))
        assert at.roster.is_awake("fresh")


async def test_with_more_agents_than_are_heard_at_once_each_letter_is_found_in_its_turn(relay: str) -> None:
    names = [f"sleeper-{number}" for number in range(5)]
    async with house(relay, window=2) as at:
        for name in names:
            await at.roster.add({"name": name})
        keys = {name: at.keys.current(name).pubkey for name in names}
        for name in names:
            await at.here.until(lambda name=name: _ticked(at, name, 1))
            await at.here.engine.hibernate(name)
        for name in names:
            await _say(at, keys[name], "are you there")
        for name in names:
            await at.here.until(lambda name=name: _got(at, name))


async def test_a_restart_loads_and_wakes_nobody_who_hibernates(relay: str) -> None:
    async with house(relay) as at:
        await _asleep(at, "fresh")
        kept = at.here.unit
    async with house(relay, kept, window=0) as again:
        assert _is_unknown(again, "fresh")
        listed = {row["name"]: row["status"] for row in await again.roster.list_agents("a" + "z" * 30)}
        assert listed == {"fresh": "dormant", "steady": "active"}
        shown = await again.roster.show("fresh")
        assert shown["status"] == "dormant"
        assert shown["npub"].startswith("npub1")
        assert await _status(again, "fresh") == "dormant", "looking at it wakes nobody"
        assert not again.roster.is_awake("fresh")


async def test_what_waits_at_a_restart_wakes_who_hibernates(relay: str) -> None:
    async with house(relay) as at:
        await _asleep(at, "fresh")
        kept = at.here.unit
    await kept.commit([_trigger("fresh", "up")])
    async with house(relay, kept) as again:
        await again.here.until(lambda: _ticked(again, "fresh", 2))
        assert await _count(again, "fresh", 0)
        assert again.roster.is_awake("fresh")


async def test_one_that_hibernates_can_be_deleted_and_its_name_stays_used(relay: str) -> None:
    async with house(relay, window=0) as at:
        await _asleep(at, "fresh")
        tree = agents_service(at.roster)
        operator = Session("operator", Role.OPERATOR, "k", unit=at.here.unit)
        await tree.call(("fresh", "delete"), b"", operator)
        assert await _status(at, "fresh") == "deleted"
        assert not await at.roster.visit("fresh")
        with pytest.raises(NotFound):
            await at.roster.show("fresh")
        with pytest.raises(AgentTaken, match="before"):
            await at.roster.add({"name": "fresh"})


async def test_many_that_are_looked_at_do_not_stay_in_memory(relay: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.agent.roster.GUESTS", 3)
    async with house(relay, window=0) as at:
        names = [f"sleeper-{number}" for number in range(6)]
        await _asleep(at, *names)
        for name in names:
            assert await at.roster.visit(name)
        assert [name for name in names if name in at.roster] == names[3:]
        assert [name for name in names if name in at.keys] == names[3:]
