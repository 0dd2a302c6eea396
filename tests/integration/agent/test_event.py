"""Events: what happens is told once, in the commit in which it happens, to those who may know of it and want to."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from core.clock import SystemClock
from core.error import InvalidInput, NotFound
from core.unit import Insert
from dvm.provider.echo import Echo
from fs.error import AccessDenied
from fs.namespace import Access, Mount, Namespace
from fs.service.goals import goals_service
from fs.service.interests import interests_service
from fs.session import Batch, Role, Session
from node.agent.goal import AgentGoals
from node.agent.inbox.intake import Intake
from node.agent.inbox.overflow import Overflow, Policy
from node.agent.wake.agenda import AgentInterests
from node.agent.wake.estate import settle
from node.agent.wake.event import Event, grant
from node.agent.wake.herald import Herald
from node.agent.wake.interest import MAX_INTERESTS, unwatch, watch
from node.config import InboxSection
from node.storage.chain import unsigned_seal
from node.storage.memory import MemoryDatabase
from node.waking import Waking
from tests.integration.agent.inbox_part import START, StillClock, letter
from tests.unit.dvm.market_part import Node, echo, until
from tests.unit.dvm.test_market import ASK, World, bought, freeze
from tests.unit_part import ENGINES, EVERY, Base


@pytest.fixture(params=EVERY)
async def unit(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Base]:
    base = await ENGINES[request.param](tmp_path, unsigned_seal, SystemClock())
    yield base
    await base.aclose()


def herald(unit: Base, **overflow: Any) -> Herald:
    clock = StillClock()
    return Herald(unit, clock, Intake(unit, clock, Overflow().changed(overflow)))


def event(owner: str = "a", kind: str = "payment.received", **more: Any) -> Event:
    return Event("e1", kind, "web", "op1", {"amount": 21, "unit": "sat"}, owner, **more)


async def told(unit: Any, agent: str) -> list[dict[str, Any]]:
    rows = await unit.select("inbox", {"agent": agent, "cause": "event"}, order=["n"])
    return [{"id": row["envelope_id"], **orjson.loads(row["payload"])} for row in rows]


# --- who may know, and who wants to


async def test_an_event_goes_to_its_owner_by_an_interest_and_to_nobody_else(unit: Base) -> None:
    for agent in ("a", "b"):
        await unit.commit([*watch(agent, "all", START, "*"), *watch(agent, "money", START, "payment.*")])
    found = await herald(unit).tell(event())
    await unit.commit(found.writes)
    assert found.agents == ("a",)
    assert await told(unit, "b") == []
    assert await told(unit, "a") == [
        {
            "id": "e1", "type": "payment.received", "source": "web", "subject": "op1",
            "data": {"amount": 21, "unit": "sat"}, "interests": ["all", "money"],
        }
    ]  # fmt: skip


async def test_the_nodes_own_events_go_to_those_alone_that_may_see_all(unit: Base) -> None:
    for agent in ("a", "b", "c"):
        await unit.commit(watch(agent, "all", START, "*"))
    assert (await herald(unit).tell(event(""))).agents == ()
    await unit.commit([*grant("b", True), *grant("c", True)])
    assert set((await herald(unit).tell(event(""))).agents) == {"b", "c"}
    assert set((await herald(unit).tell(event("a"))).agents) == {"a", "b", "c"}
    await unit.commit(grant("b", False))
    assert (await herald(unit).tell(event(""))).agents == ("c",)


async def test_who_may_see_all_still_has_to_want_it(unit: Base) -> None:
    await unit.commit([*grant("b", True), *watch("b", "big", START, "payment.*", '{"data.amount":{"min":100}}')])
    assert (await herald(unit).tell(event(""))).agents == ()
    await unit.commit(watch("b", "big", START, "payment.*", '{"data.amount":{"min":21}}'))
    assert (await herald(unit).tell(event(""))).agents == ("b",)
    assert (await herald(unit).tell(event("", "job.finished"))).agents == ()
    await unit.commit(unwatch("b", "big"))
    assert (await herald(unit).tell(event(""))).agents == ()


async def test_an_agent_is_told_of_its_own_without_an_interest_and_of_what_it_did_itself_not_at_all(unit: Base) -> None:
    assert (await herald(unit).tell(event(direct=True))).agents == ("a",)
    await unit.commit([*watch("a", "all", START, "*"), *watch("b", "all", START, "*"), *grant("b", True)])
    assert (await herald(unit).tell(event(by="a"))).agents == ("b",)
    assert (await herald(unit).tell(event(by="a", direct=True))).agents == ("b",)
    assert set((await herald(unit).tell(event(by="b"))).agents) == {"a"}


async def test_an_event_that_is_told_again_is_in_the_inbox_once(unit: Base) -> None:
    for _ in range(3):
        await unit.commit((await herald(unit).tell(event(direct=True))).writes)
    assert len(await told(unit, "a")) == 1


async def test_a_full_inbox_does_not_keep_the_cause_from_happening(unit: Base) -> None:
    await unit.commit([letter("a", "waits")])
    found = await herald(unit, max_depth=1, policy=Policy.REJECT_NEW).tell(event(direct=True))
    assert found.writes == ()
    found = await herald(unit, max_depth=1, policy=Policy.DEAD_LETTER).tell(event(direct=True))
    await unit.commit(found.writes)
    ((row),) = await unit.select("inbox", {"envelope_id": "e1"})
    assert row["state"] == "dead"


async def test_a_pattern_of_a_newer_version_matches_nothing(unit: Base) -> None:
    row = {"agent": "a", "id": "i", "event": "*", "pattern": '{"data.x": {"like": 1}}', "created_at": START}
    await unit.commit([Insert("interest", row)])
    assert (await herald(unit).tell(event())).agents == ()


# --- as files


def tree(unit: Any, agent: str, waking: Waking | None = None) -> Namespace:
    clock = StillClock()
    mounts = [
        Mount("/goals", goals_service(AgentGoals(agent, unit, clock)), Access.WRITE),
        Mount("/secret", goals_service(AgentGoals(agent + "-secret", unit, clock)), Access.ADMIN),
        Mount("/interests", interests_service(AgentInterests(agent, unit, clock)), Access.WRITE),
    ]
    return Namespace(mounts, {"/aims": "/goals"}, waking.file_changed(agent) if waking is not None else None)


def operator(unit: Any, key: str = "k") -> Session:
    return Session("operator", Role.OPERATOR, key, unit=unit)


def waking(unit: Any, woken: list[str], soon: list[str] | None = None) -> Waking:
    heard = soon if soon is not None else []
    return Waking(unit, StillClock(), InboxSection(), lambda hook: hook, woken.append, heard.append)


async def test_interests_are_set_listed_and_deleted_as_files(unit: Base) -> None:
    files = tree(unit, "a")
    body = b'{"id":"big","event":"payment.*","pattern":{"data.amount":{"min":1000}}}'
    made = orjson.loads(await files.call("/interests/new", body, operator(unit)))
    assert (made["event"], made["pattern"]) == ("payment.*", {"data.amount": {"min": 1000}})
    assert orjson.loads(await files.read("/interests/big", operator(unit))) == made
    await files.call("/interests/big/delete", b"", operator(unit))
    with pytest.raises(NotFound):
        await files.read("/interests/big", operator(unit))
    odd = (b"{}", b'{"id":"x","event":"*","pattern":[]}', b'{"id":"x","event":"A"}', b'{"id":"x","event":"*","y":1}')
    for wrong in odd:
        with pytest.raises(InvalidInput):
            await files.call("/interests/new", wrong, operator(unit))


async def test_whose_events_an_agent_sees_is_its_operators_to_say(unit: Base) -> None:
    files, agent = tree(unit, "a"), Session("agent:a", Role.AGENT, "k", unit=unit)
    assert orjson.loads(await files.read("/interests/sees", agent)) == {"events": "own"}
    with pytest.raises(AccessDenied):
        await files.write("/interests/sees", b'{"events":"all"}', agent)
    await files.write("/interests/sees", b'{"events":"all"}', operator(unit))
    assert orjson.loads(await files.read("/interests/sees", agent)) == {"events": "all"}
    await files.write("/interests/sees", b'{"events":"own"}', operator(unit))
    assert await unit.select("meta") == []
    for wrong in (b'{"events":"none"}', b"{}", b'{"events":true}', b'{"all":"events"}'):
        with pytest.raises(InvalidInput):
            await files.write("/interests/sees", wrong, operator(unit))


async def test_there_is_a_bound_to_how_many_interests_an_agent_has() -> None:
    unit = MemoryDatabase()
    for number in range(MAX_INTERESTS):
        await unit.commit(watch("a", f"i{number}", START, "*"))
    with pytest.raises(InvalidInput):
        await tree(unit, "a").call("/interests/new", b'{"id":"more","event":"*"}', operator(unit))
    await tree(unit, "a").call("/interests/new", b'{"id":"i1","event":"x"}', operator(unit))


async def test_what_wakes_an_agent_goes_with_it(unit: Base) -> None:
    await unit.commit([*watch("a", "i", START, "*"), *grant("a", True), letter("a", "m"), *watch("b", "i", START, "*")])
    await unit.commit(settle("a", START))
    assert (await herald(unit).tell(event("", direct=False))).agents == ()
    assert [row["agent"] for row in await unit.select("interest")] == ["b"]
    assert (await unit.select("inbox"))[0]["state"] == "discarded"


# --- files that are written


async def test_a_goal_that_is_set_is_told_in_the_commit_that_sets_it(unit: Base) -> None:
    woken: list[str] = []
    files = tree(unit, "a", waking(unit, woken))
    await unit.commit(watch("a", "goals", START, "file.changed", '{"subject":{"prefix":"/goals/"}}'))
    await files.write("/aims/tea", b'{"description":"1"}', operator(unit))
    (found,) = await told(unit, "a")
    assert (found["type"], found["subject"], found["interests"]) == ("file.changed", "/goals/tea", ["goals"])
    assert found["data"] == {"path": "/goals/tea", "bytes": 19, "by": "operator"}
    assert woken == ["a"]
    await files.write("/goals/tea", b'{"description":"2"}', operator(unit, "another"))
    assert len(await told(unit, "a")) == 2
    await files.remove("/aims/tea", operator(unit, "a third"))
    assert (await told(unit, "a"))[-1]["data"] == {"path": "/goals/tea", "bytes": 0, "by": "operator"}
    with pytest.raises(NotFound):
        await files.remove("/goals/tea", operator(unit, "a fourth"))
    assert len(await told(unit, "a")) == 3


async def test_a_call_that_makes_or_deletes_a_file_is_told_as_a_change_of_it(unit: Base) -> None:
    woken: list[str] = []
    files = tree(unit, "a", waking(unit, woken))
    await unit.commit(watch("a", "files", START, "file.changed"))
    body = b'{"id":"big","event":"payment.*"}'
    await files.call("/interests/new", body, operator(unit, "k1"))
    await files.call("/interests/big/delete", b"", operator(unit, "k2"))
    found = await told(unit, "a")
    assert [(one["subject"], one["data"]["bytes"]) for one in found] == [("/interests", 32), ("/interests/big", 0)]
    assert woken == ["a", "a"]
    with pytest.raises(InvalidInput):
        await files.call("/interests/new", b"{}", operator(unit, "k3"))
    await files.call("/interests/new", b'{"id":"own","event":"x"}', Session("agent:a", Role.AGENT, "k4", unit=unit))
    assert len(await told(unit, "a")) == 2, "what is refused tells nothing, and what it does itself is no news"


async def test_a_write_that_is_refused_tells_nothing(unit: Base) -> None:
    woken: list[str] = []
    files = tree(unit, "a", waking(unit, woken))
    await unit.commit(watch("a", "all", START, "*"))
    with pytest.raises(InvalidInput):
        await files.write("/goals/tea", b"no json", operator(unit))
    with pytest.raises(NotFound):
        await files.write("/goals/Not A Goal", b"{}", operator(unit))
    assert (await told(unit, "a"), woken) == ([], [])


async def test_where_an_agent_may_not_look_it_is_not_told(unit: Base) -> None:
    files = tree(unit, "a", waking(unit, []))
    await unit.commit(watch("a", "all", START, "*"))
    await files.write("/secret/x", b'{"description":"x"}', operator(unit))
    assert await told(unit, "a") == []


async def test_what_an_agent_writes_itself_is_no_news_to_it_and_is_to_those_who_see_all(unit: Base) -> None:
    for agent in ("a", "b", "c"):
        await unit.commit(watch(agent, "all", START, "*"))
    await unit.commit(grant("b", True))
    batch, woken = Batch(), []
    files = tree(unit, "a", waking(unit, woken))
    await files.write("/goals/tea", b'{"description":"x"}', Session("agent:a", Role.AGENT, "tick-1", batch=batch))
    assert await told(unit, "b") == [], "not before the tick's commit"
    await unit.commit(batch.writes)
    for then in batch.thens:
        then()
    assert [found["data"]["by"] for found in await told(unit, "b")] == ["agent:a"]
    assert (await told(unit, "a"), await told(unit, "c"), woken) == ([], [], ["b"])


# --- jobs and payments, with the real drivers, gates and wallets


def attached(agents: list[str]) -> Any:
    def attach(node: Node) -> None:
        made = Waking(node.db, node.clock, InboxSection(), str, agents.append, agents.append)
        node.buying.on_finished(made.job_ended)
        node.buying.on_moved(made.job_moved)
        node.wallet.on_booked(made.paid)

    return attach


def types(found: list[dict[str, Any]]) -> list[str]:
    return [one["type"] for one in found]


PATH = ["job.quoting", "job.paying", "job.working", "payment.sent", "job.finished"]


def test_a_job_and_its_payment_are_told_once_each_to_the_agent_that_asked_for_it() -> None:
    async def story(world: World) -> None:
        woken: list[str] = []
        buyer = world.node(attach=attached(woken))
        seller = world.node(services=echo(9_000), attach=attached([]))
        await buyer.up()
        await seller.up()
        for node, agents in ((buyer, ("a", "b", "boss")), (seller, ("a", "boss"))):
            for agent in agents:
                await node.db.commit(watch(agent, "all", START, "*"))
            await node.db.commit(grant("boss", True))
        await buyer.fund(100)
        view = await bought(buyer)
        assert view.result == "hello market"
        found = await told(buyer.db, "a")
        assert sorted(types(found)) == sorted(PATH)
        assert await told(buyer.db, "b") == [], "another agent's job and money are none of its business"
        assert sorted(types(await told(buyer.db, "boss"))) == sorted([*PATH, "payment.received"])
        sent = next(one for one in found if one["type"] == "payment.sent")
        assert sent["data"]["kind"] == "lock"
        assert sent["data"]["amount"] == 10, "in sat: 9 for the seller, who pays a fee to take them"
        assert "cashu" not in str(found), "no event carries money"
        assert set(woken) == {"a", "boss"}
        earned = [one for one in await told(seller.db, "boss") if one["type"] == "payment.received"]
        assert [(one["data"]["kind"], one["data"]["amount"]) for one in earned] == [("claim", 9)]
        assert await told(seller.db, "a") == [], "what the node earns is the operator's"

    World().run(story)


def test_an_agent_that_asked_for_a_job_hears_of_its_end_as_ever_without_an_interest() -> None:
    async def story(world: World) -> None:
        buyer = await world.node(providers=[Echo()], attach=attached([])).up()
        view = await bought(buyer)
        (found,) = await told(buyer.db, "a")
        assert found["id"] == f"job-{view.job_id}"
        assert found == {"id": found["id"], "type": "job.finished", "job": found["job"]}
        assert (found["job"]["job_id"], found["job"]["result"]) == (view.job_id, "hello market")

    World().run(story)


@pytest.mark.parametrize("state", ["quoting", "paying", "working", "delivered"])
def test_after_a_crash_each_event_is_there_once(state: str) -> None:
    async def story(world: World) -> None:
        buyer = world.node(attach=attached([]))
        seller = world.node(services=echo(9_000))
        await buyer.up()
        await seller.up()
        await buyer.fund(100)
        await buyer.db.commit(watch("a", "all", START, "*"))
        frozen = freeze(buyer, "purchase", state)
        begun = asyncio.create_task(buyer.buying.buy("agent:a", "k", ASK))
        await until(world.clock, frozen.is_set)
        begun.cancel()
        await buyer.crash()
        await world.clock.sleep(1)
        await buyer.up()
        await bought(buyer)
        await world.clock.sleep(1)
        found = types(await told(buyer.db, "a"))
        assert len(set(found)) == len(found), "nothing twice"
        assert {"payment.sent", "job.working", "job.finished"} <= set(found)

    World().run(story)
