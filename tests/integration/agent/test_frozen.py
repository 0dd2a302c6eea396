"""An agent that was exported: frozen here it is not heard and not seen, also after a restart, until it is thawed."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.error import InvalidInput, NotFound
from node.agent.roster import Roster
from node.backup.arrive import Arrival, Wish
from node.backup.depart import Departure
from node.backup.manifest import seal_draft
from node.error import AgentTaken
from relays.kind import DELETION, HEARTBEAT, METADATA
from tests.integration.agent.node_part import relay_at
from tests.integration.agent.test_roster import CLOCK, OPERATOR_KEY, Place, _got, _say, place


@pytest.fixture
async def relay(tmp_path: Path) -> AsyncIterator[str]:
    async with relay_at(tmp_path) as url:
        yield url


async def _freeze(at: Place, name: str) -> None:
    at.here.engine.attend(at.roster)
    async with at.here.engine.hold(name):
        await at.here.engine.freeze(name)


async def test_a_frozen_agent_is_not_heard_and_what_was_said_to_it_is_found_when_it_is_thawed(relay: str) -> None:
    async with place(relay) as at:
        await at.roster.add({"name": "away"})
        pubkey = at.keys.current("away").pubkey
        await _freeze(at, "away")
        assert not at.roster.is_awake("away")
        await _say(at, pubkey, "are you there")
        await asyncio.sleep(0.5)
        assert not await _got(at, "away")
        assert (await at.roster.show("away"))["status"] == "frozen"
        await at.here.engine.thaw("away")
        assert at.roster.is_awake("away")
        await at.here.until(lambda: _got(at, "away"))


async def test_a_restart_leaves_frozen_agents_alone_also_those_of_the_configuration(relay: str) -> None:
    async with place(relay) as at:
        await at.roster.add({"name": "away", "strangers": "all"})
        pubkeys = [at.keys.current(name).pubkey for name in ("away", "steady")]
        for name in ("away", "steady"):
            await _freeze(at, name)
        kept = at.here.unit
    async with place(relay, kept) as again:
        assert not again.roster.is_awake("away")
        assert not again.roster.is_awake("steady")
        assert not set(again.keys) & {"away", "steady"}, "not even their keys are in memory"
        for pubkey in pubkeys:
            await _say(again, pubkey, "hello")
        await asyncio.sleep(0.5)
        assert not await _got(again, "away")
        assert not await _got(again, "steady")
        again.here.engine.attend(again.roster)
        await again.here.engine.thaw("steady")
        await again.here.until(lambda: _got(again, "steady"))


async def test_who_is_deleted_while_frozen_takes_nothing_back_not_even_if_a_crash_comes_between(
    relay: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with place(relay) as at:
        for name in ("gone", "half"):
            await at.roster.add({"name": name, "strangers": "all"})
        pubkeys = {name: at.keys.current(name).pubkey for name in ("gone", "half")}
        for name in pubkeys:
            await at.here.until(lambda name=name: at.is_said(pubkeys[name], HEARTBEAT))
            await _freeze(at, name)
        await at.roster.delete("gone")
        with pytest.raises(NotFound):
            await at.roster.show("gone")

        async def crash(self: Roster, name: str) -> None:
            raise asyncio.CancelledError

        with monkeypatch.context() as patch:
            patch.setattr(Roster, "_leave", crash)
            with pytest.raises(asyncio.CancelledError):
                await at.roster.delete("half")
        kept = at.here.unit
    async with place(relay, kept) as again:
        await asyncio.sleep(0.5)
        assert {row["status"] for row in await again.here.rows("agent") if row["name"] in pubkeys} == {"deleted"}
        for pubkey in pubkeys.values():
            assert not await again.is_said(pubkey, DELETION)
            assert await again.is_said(pubkey, METADATA), "what it says of itself is its own, wherever it is"
        assert not set(again.keys) & set(pubkeys)


def _departure(at: Place, home: Path) -> Departure:
    node = OPERATOR_KEY  # any key will do
    programs = at.here.engine._means.programs
    return Departure(
        at.here.unit, CLOCK, at.here.engine, programs, lambda _: None, home, lambda: (), node.pubkey,
        lambda raw: node.sign(seal_draft(raw, CLOCK.now())).to_json().encode(),
    )  # fmt: skip


def _arrival(at: Place, home: Path) -> Arrival:
    programs = at.here.engine._means.programs
    return Arrival(
        at.here.unit,
        CLOCK,
        at.here.engine,
        programs,
        home,
        lambda: (),
        at.keys,
        at.roster,
        lambda: None,
        lambda: 1 << 30,
        OPERATOR_KEY.pubkey,
    )


async def test_an_agent_that_comes_in_is_heard_and_seen_at_once_or_after_the_crash_that_came_between(
    relay: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with place(relay) as at:
        at.here.engine.attend(at.roster)
        await at.roster.add({"name": "mover", "about": "was elsewhere", "strangers": "all"})
        section = at.roster.find("mover")
        assert section is not None
        with (tmp_path / "x").open("wb") as out:
            await _departure(at, tmp_path).export(section, out)
    async with place(relay) as at:
        with monkeypatch.context() as patch:

            async def crash(*_: object) -> None:
                raise asyncio.CancelledError

            patch.setattr(Roster, "_finish", crash)
            with pytest.raises(asyncio.CancelledError):
                await _arrival(at, tmp_path).bring(tmp_path / "x", Wish(clone="late"))
        await _arrival(at, tmp_path).bring(tmp_path / "x", Wish(clone="soon"))
        pubkey = at.keys.current("soon").pubkey
        await _say(at, pubkey, "hello")
        await at.here.until(lambda: _got(at, "soon"))
        await at.here.until(lambda: at.is_said(pubkey, HEARTBEAT))
        assert (await at.roster.show("soon"))["about"] == "was elsewhere"
        kept = at.here.unit
    async with place(relay, kept) as again:
        assert again.roster.is_awake("late")
        assert again.roster.is_awake("soon")
        await _say(again, again.keys.current("late").pubkey, "hello")
        await again.here.until(lambda: _got(again, "late"))
        with pytest.raises(AgentTaken):
            await _arrival(again, tmp_path).bring(tmp_path / "x", Wish(clone="steady"))
        with pytest.raises(InvalidInput):
            await _arrival(again, tmp_path).bring(tmp_path / "x", Wish(clone="import"))
