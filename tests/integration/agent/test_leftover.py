"""Agents that are taken out of the configuration, and agents whose settings cannot be taken: nobody is held up."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from core.error import InvalidInput, NotFound
from core.unit import Delete, Update, Within
from node.agent.error import AgentDiffers, ConfigRefused
from node.agent.register import KEY, NOTED
from node.config import AgentSection
from node.error import AgentConfigured
from tests.integration.agent.node_part import NAME, relay_at
from tests.integration.agent.test_roster import CONFIGURED, Place, place

SPOOK = AgentSection(name="spook", about="who was here", public=False)


@pytest.fixture
async def relay(tmp_path: Path) -> AsyncIterator[str]:
    async with relay_at(tmp_path) as url:
        yield url


async def _row(at: Place, name: str) -> dict[str, Any]:
    (row,) = await at.here.rows("agent", name=name)
    return row


async def _saved(at: Place, key: str) -> dict[str, Any] | None:
    rows = await at.here.rows("meta", key=key)
    return orjson.loads(rows[0]["value"]) if rows else None


async def test_an_agent_taken_out_of_the_configuration_is_stopped_listed_and_deleted_with_its_last_words(
    relay: str,
) -> None:
    async with place(relay, None, [CONFIGURED, SPOOK]) as at:
        kept = at.here.unit
        with pytest.raises(AgentConfigured):
            await at.roster.delete("spook")
    async with place(relay, kept) as at:
        row = await _row(at, "spook")
        assert row["status"] == "stopped"
        assert row["reason"].startswith("agent.unconfigured: ")
        (shown,) = [one for one in await at.roster.list_agents() if one["name"] == "spook"]
        assert (shown["origin"], shown["about"], shown["reason"]) == ("left", "who was here", row["reason"])
        assert "spook" in at.roster
        await at.roster.delete("spook")
        assert (await _row(at, "spook"))["status"] == "deleted"
        assert await at.here.rows("tick", agent="spook", cause="terminate")
        with pytest.raises(NotFound):
            await at.roster.show("spook")


async def test_an_agent_that_is_in_the_configuration_again_goes_on(relay: str) -> None:
    async with place(relay, None, [SPOOK]) as at:
        kept = at.here.unit
    async with place(relay, kept, []) as at:
        assert (await _row(at, "spook"))["status"] == "stopped"
    async with place(relay, kept, [SPOOK]) as at:
        row = await _row(at, "spook")
        assert (row["status"], row["reason"]) == ("active", "")
        assert await _saved(at, KEY + "spook") is None
    async with place(relay, kept, []) as at:
        assert (await _row(at, "spook"))["status"] == "stopped", "and is noticed again when it goes"


async def test_an_agent_that_was_left_and_started_goes_on_over_a_restart(relay: str) -> None:
    async with place(relay, None, [SPOOK]) as at:
        kept = at.here.unit
    async with place(relay, kept, []) as at:
        await at.here.engine.start("spook")
    async with place(relay, kept, []) as at:
        assert (await _row(at, "spook"))["status"] == "active"
        assert at.roster.is_awake("spook")


@pytest.mark.parametrize("noted", [True, False])
async def test_an_agent_that_sleeps_is_left_over_too_also_after_an_older_version(relay: str, noted: bool) -> None:
    async with place(relay, None, [SPOOK]) as at:
        kept = at.here.unit
        await kept.commit([Update("agent", {"name": "spook"}, {"status": "dormant"})])
        if not noted:
            await kept.commit([Delete("meta", {"key": Within(NOTED, NOTED + "~")})])
    async with place(relay, kept, []) as at:
        assert (await _row(at, "spook"))["status"] == "stopped"
        assert (await at.roster.show("spook"))["about"] == ("who was here" if noted else "")


async def test_an_agent_of_another_process_is_left_alone_until_nobody_names_it(relay: str) -> None:
    async with place(relay, None, [SPOOK]) as at:
        kept = at.here.unit
    others = [NAME, "spook"]
    async with place(relay, kept, [], others) as at:
        assert (await _row(at, "spook"))["status"] == "active"
        (shown,) = [one for one in await at.roster.list_agents() if one["name"] == "spook"]
        assert shown["origin"] == "elsewhere"
        with pytest.raises(AgentConfigured):
            await at.roster.delete("spook")
        await at.roster.follow(everybody=True)
        assert (await _row(at, "spook"))["status"] == "active"
        others.remove("spook")
        await at.roster.follow(everybody=False)
        assert (await _row(at, "spook"))["status"] == "active", "only who leads stops anybody"
        await at.roster.follow(everybody=True)
        assert (await _row(at, "spook"))["status"] == "stopped"
        assert at.roster.is_awake("spook"), "and it can be seen at once"


async def test_nobody_is_stopped_while_another_process_does_not_say_whom_it_names(relay: str) -> None:
    async with place(relay, None, [SPOOK]) as at:
        kept = at.here.unit
    async with place(relay, kept, [], None) as at:
        assert (await _row(at, "spook"))["status"] == "active"


async def test_a_process_that_comes_back_claims_the_agent_of_its_configuration(relay: str) -> None:
    async with place(relay, None, [SPOOK]) as at:
        kept = at.here.unit
    async with place(relay, kept, []) as at:
        assert (await _row(at, "spook"))["status"] == "stopped"
    async with place(relay, kept, [SPOOK]) as at:
        await kept.commit([Update("agent", {"name": "spook"}, {"status": "active"}, rows=None)])
        await at.roster._leftovers._leave("spook", None)  # the steward did not yet know that this process is there
        assert (await _row(at, "spook"))["status"] == "stopped"
        await at.roster.follow(everybody=False)
        assert (await _row(at, "spook"))["status"] == "active"


async def test_another_program_in_the_configuration_sets_one_agent_aside_and_the_node_starts(relay: str) -> None:
    async with place(relay, None, [SPOOK, CONFIGURED]) as at:
        kept = at.here.unit
    other = SPOOK.model_copy(update={"program": "another"})
    async with place(relay, kept, [other, CONFIGURED]) as at:
        row = await _row(at, "spook")
        assert row["status"] == "quarantined"
        assert row["reason"].startswith("agent.differs: ")
        assert at.roster.is_awake("steady")
        assert at.roster.is_awake("spook"), "what comes for it waits"
        await at.here.engine.heal()
        assert (await _row(at, "spook"))["status"] == "quarantined", "its old program cannot put that right"
    async with place(relay, kept, [SPOOK, CONFIGURED]) as at:
        row = await _row(at, "spook")
        assert (row["status"], row["reason"]) == ("active", "")


async def test_a_sleeping_agent_of_another_program_is_set_aside_when_it_wakes(relay: str) -> None:
    async with place(relay, None, [SPOOK]) as at:
        kept = at.here.unit
        await kept.commit([Update("agent", {"name": "spook"}, {"status": "dormant"})])
    async with place(relay, kept, [SPOOK.model_copy(update={"program": "another"})]) as at:
        assert await at.roster.rouse("spook")
        assert (await _row(at, "spook"))["status"] == "quarantined"


async def test_a_deleted_agents_name_in_the_configuration_keeps_no_node_from_starting(relay: str) -> None:
    async with place(relay) as at:
        kept = at.here.unit
        await at.roster.add({"name": "spook"})
        await at.roster.delete("spook")
    async with place(relay, kept, [SPOOK, CONFIGURED]) as at:
        assert at.roster.names() == ["steady"]
        assert (await _row(at, "spook"))["status"] == "deleted"


async def test_settings_that_cannot_be_read_set_one_agent_aside_and_new_ones_put_that_right(relay: str) -> None:
    async with place(relay) as at:
        kept = at.here.unit
        await at.roster.add({"name": "fresh"})
        odd = orjson.dumps({"section": {"name": "fresh", "of_long_ago": 1}}).decode()
        await kept.commit([Update("meta", {"key": KEY + "fresh"}, {"value": odd})])
    async with place(relay, kept) as at:
        row = await _row(at, "fresh")
        assert row["status"] == "quarantined"
        assert row["reason"].startswith("agent.settings: ")
        assert "of_long_ago" in row["reason"]
        assert at.roster.is_awake("steady")
        await at.roster.set_settings("fresh", {"about": "anew"})
        assert (await _row(at, "fresh"))["status"] == "active"


async def test_other_settings_of_an_added_agent_hold_at_once_and_after_a_restart(relay: str) -> None:
    async with place(relay) as at:
        kept = at.here.unit
        await at.roster.add({"name": "fresh", "about": "before", "ticks_per_minute": 5})
        before = await _row(at, "fresh")
        value = await at.roster.settings("fresh") | {"about": "after", "strangers": "all", "storage_mb": 1}
        shown = await at.roster.set_settings("fresh", value)
        assert (shown["about"], shown["strangers"]) == ("after", "all")
        row = await _row(at, "fresh")
        assert orjson.loads(row["limits"]) == {"per_minute": 5, "storage_bytes": 1 << 20}
        assert row["version"] > before["version"], "a tick that runs begins again"
        assert at.messages.rules("fresh").strangers == "all"
        await at.here.engine.hibernate("fresh")
        at.roster.rest("fresh")
        await at.roster.set_settings("fresh", value | {"about": "asleep"})
        assert (await _row(at, "fresh"))["status"] == "dormant"
    async with place(relay, kept) as at:
        assert (await at.roster.settings("fresh"))["about"] == "asleep"


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("fresh", {"name": "other"}, AgentDiffers),
        ("fresh", {"program": "another"}, AgentDiffers),
        ("fresh", {"unknown": 1}, InvalidInput),
        ("fresh", {"config": {"no_such_setting": 1}}, ConfigRefused),
        ("steady", {"about": "x"}, AgentConfigured),
        ("nobody", {}, NotFound),
    ],
)
async def test_what_cannot_be_changed_of_an_agent_is_refused_and_nothing_has_changed(
    relay: str, name: str, value: dict[str, Any], error: type[Exception]
) -> None:
    async with place(relay) as at:
        await at.roster.add({"name": "fresh", "about": "before"})
        with pytest.raises(error):
            await at.roster.set_settings(name, value)
        assert (await at.roster.settings("fresh"))["about"] == "before"


async def test_a_long_list_of_agents_comes_in_pages(relay: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.agent.register.PAGE", 2)
    async with place(relay) as at:
        for name in ("a1", "a2", "a3", "b1"):
            await at.roster.add({"name": name})
        await at.roster.delete("a2")
        every = [one["name"] for one in await at.roster.list_agents()]
        assert every == ["a1", "a3", NAME, "b1", "steady"]
        assert [one["name"] for one in await at.roster.list_agents("a1", 3)] == ["a3", NAME, "b1"]
