import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest

from core.clock import SystemClock
from core.effect import EffectClass, Intent, Repeated
from core.error import BudgetExceeded, InvalidInput, KeyReused, NotFound
from core.identifier import derived_id
from core.money import Msat
from core.unit import Write
from dvm.request import ComputeRequest
from fs.error import BodyTooLarge, NoSuchFile
from fs.feed import Feed
from fs.service.compute import MAX_REQUEST, Market, NoComputeProvider, compute_service
from fs.service.containers import NoContainerProvider, containers_service
from fs.session import Batch, Role, Session
from node.gate.gate import NodeGate
from node.storage.memory import MemoryDatabase
from tests.gate_part import LIMITS, memory, open_gate

JOB = {"kind": 5001, "input": "text", "max_msat": 400}


@dataclass
class View:
    job_id: str
    caller: str
    state: str = "quoting"
    version: int = 0
    kept: Any = None

    def to_dict(self) -> dict[str, Any]:
        return {"job_id": self.job_id, "state": self.state, "quotes": [1], "money": "none", "closed": False}


@dataclass(frozen=True)
class StagedView:
    job_id: str
    writes: Sequence[Write]
    repeated: bool
    start: Callable[[], None]


@dataclass
class StandIn:
    gate: NodeGate
    views: dict[str, View] = field(default_factory=dict)

    async def stage(
        self, caller: str, key: str, request: ComputeRequest, path: str = "/compute/new", pending=(), *, at_once=False
    ) -> StagedView:
        job_id = derived_id("job", caller, key)
        intent = Intent(
            caller, path, key, request.canonical(), EffectClass.EXTERNAL, job_id, request.maximum or Msat(1)
        )
        admission = await self.gate.stage(intent, pending)
        if isinstance(admission, Repeated):
            return StagedView(admission.subject, (), True, lambda: None)

        def start() -> None:
            assert job_id not in self.views
            self.views[job_id] = View(job_id, caller)

        return StagedView(job_id, admission.writes, False, start)

    async def view(self, job_id: str) -> View:
        if job_id not in self.views:
            raise NotFound("There is no job with this id.")
        return self.views[job_id]

    async def result(self, job_id: str) -> str:
        return "done"

    async def pieces(self, kept: Any):
        for piece in kept:
            yield piece

    async def list_jobs(self) -> list[View]:
        return list(self.views.values())

    async def cancel(self, job_id: str) -> None:
        self.views[job_id].state = "cancelled"


async def nothing() -> Any:
    return []


async def unknown(seller: str, look: bool) -> Any:
    """Of a seller only what was asked for."""
    return {"seller": seller, "asked": look}


@dataclass
class Desk:
    unit: MemoryDatabase
    jobs: StandIn
    feed: Feed = field(default_factory=Feed)

    def __post_init__(self) -> None:
        self.tree = compute_service(self.jobs, Market(lambda: {"order": ["dvm"]}, nothing, nothing, unknown), self.feed)

    def operator(self, key: str = "k") -> Session:
        return Session("operator", Role.OPERATOR, key, unit=self.unit)

    def agent(self, name: str = "a", key: str = "k") -> Session:
        return Session(f"agent:{name}", Role.AGENT, key, unit=self.unit)

    async def new(self, session: Session, body: Any = None) -> Any:
        return orjson.loads(await self.tree.call(("new",), orjson.dumps(body or JOB), session))

    async def read(self, session: Session, *path: str) -> Any:
        return orjson.loads(await self.tree.read(path, session))


@pytest.fixture
async def desk() -> Desk:
    clock = SystemClock()
    unit = memory(clock)
    return Desk(unit, StandIn(await open_gate(unit, clock, LIMITS)))


async def test_a_job_begins_at_once_outside_a_tick(desk: Desk) -> None:
    answer = await desk.new(desk.operator())
    assert answer["status"] == "pending"
    assert answer["job_id"] in desk.jobs.views
    path = answer["status_path"].removeprefix("/compute/").split("/")
    assert (await desk.read(desk.operator(), *path))["state"] == "quoting"
    assert len(await desk.unit.select("effect", {"path": "/compute/new"})) == 1


async def test_the_same_key_finds_the_same_job_and_another_request_is_refused(desk: Desk) -> None:
    first = await desk.new(desk.operator())
    again = await desk.new(desk.operator())
    assert (first["job_id"], again["status"]) == (again["job_id"], "repeated")
    with pytest.raises(KeyReused):
        await desk.new(desk.operator(), JOB | {"input": "other"})
    other = await desk.new(desk.agent())
    assert other["job_id"] != first["job_id"], "a key belongs to its caller"
    assert len(desk.jobs.views) == 2


async def test_calls_that_race_for_one_key_begin_one_job(desk: Desk) -> None:
    answers = await asyncio.gather(*(desk.new(desk.operator()) for _ in range(10)))
    assert len({answer["job_id"] for answer in answers}) == 1
    assert len(desk.jobs.views) == 1
    (budget,) = await desk.unit.select("budget")
    assert budget["held"] == 400


async def test_in_a_tick_a_job_is_staged_and_seen_and_not_begun(desk: Desk) -> None:
    batch = Batch()
    session = Session("agent:a", Role.AGENT, "k", batch=batch)
    answer = await desk.new(session)
    assert answer["status"] == "staged"
    assert await desk.read(session, "jobs", answer["job_id"], "status") == {"status": "staged"}
    assert [stat.name async for stat in desk.tree.list(("jobs",), session)] == ["README", answer["job_id"]]
    writes = len(batch.writes)
    assert (await desk.new(session)) == answer
    with pytest.raises(KeyReused):
        await desk.new(session, JOB | {"input": "other"})
    assert len(batch.writes) == writes
    assert not await desk.unit.select("effect", {"path": "/compute/new"})
    with pytest.raises(NoSuchFile):
        await desk.tree.read(("jobs", answer["job_id"], "status"), desk.agent())
    await desk.unit.commit(batch.writes)
    for then in batch.thens:
        then()
    assert (await desk.read(desk.agent(), "jobs", answer["job_id"], "status"))["state"] == "quoting"
    assert (await desk.new(Session("agent:a", Role.AGENT, "k", batch=Batch())))["status"] == "repeated"


async def test_budget_enforcement(desk: Desk) -> None:
    with pytest.raises(BudgetExceeded):
        await desk.new(desk.operator(), JOB | {"max_msat": 1_001})
    for number in range(12):
        await desk.new(desk.operator(f"k{number}"))
    with pytest.raises(BudgetExceeded):
        await desk.new(desk.operator("k12"))
    assert len(desk.jobs.views) == 12


async def test_an_agent_sees_its_own_jobs_and_the_operator_all(desk: Desk) -> None:
    mine = (await desk.new(desk.agent("a")))["job_id"]
    theirs = (await desk.new(desk.agent("b")))["job_id"]
    assert [row["job_id"] for row in await desk.read(desk.agent("a"), "jobs")] == [mine]
    assert {row["job_id"] for row in await desk.read(desk.operator(), "jobs")} == {mine, theirs}
    for part in ("status", "result", "quotes", "payments", "ctl"):
        with pytest.raises(NoSuchFile):
            await desk.tree.read(("jobs", theirs, part), desk.agent("a"))


async def test_the_stream_of_a_job_tells_each_change_and_ends_with_it(desk: Desk) -> None:
    job_id = (await desk.new(desk.operator()))["job_id"]
    seen: list[tuple[int, str]] = []

    async def watch() -> None:
        async for record in desk.tree.watch(("jobs", job_id, "stream"), desk.operator(), None):
            seen.append((record.id, orjson.loads(record.data)["state"]))

    task = asyncio.create_task(watch())
    for version, state in ((1, "paying"), (2, "working"), (5, "delivered")):
        await asyncio.sleep(0.02)
        desk.jobs.views[job_id].state, desk.jobs.views[job_id].version = state, version
        desk.feed.grew("jobs")
    await asyncio.wait_for(task, 3)
    assert seen == [(0, "quoting"), (1, "paying"), (2, "working"), (5, "delivered")]
    late = [record.id async for record in desk.tree.watch(("jobs", job_id, "stream"), desk.operator(), 2)]
    assert late == [5]
    assert [record async for record in desk.tree.watch(("jobs", job_id, "stream"), desk.operator(), 5)] == []


async def test_a_job_is_cancelled_by_one_word(desk: Desk) -> None:
    job_id = (await desk.new(desk.operator()))["job_id"]
    with pytest.raises(InvalidInput):
        await desk.tree.call(("jobs", job_id, "ctl"), b"destroy", desk.operator())
    answer = await desk.tree.call(("jobs", job_id, "ctl"), b"cancel\n", desk.operator())
    assert orjson.loads(answer)["state"] == "cancelled"


async def test_a_result_that_lies_in_a_file_is_read_in_pieces_as_it_is(desk: Desk) -> None:
    job_id = (await desk.new(desk.operator()))["job_id"]
    path = ("jobs", job_id, "result")
    assert await desk.tree.read(path, desk.operator()) == b"done\n"
    desk.jobs.views[job_id] = View(job_id, "operator", "delivered", 1, kept=(b"once ", b"upon"))
    content = await desk.tree.read(path, desk.operator())
    assert not isinstance(content, bytes)
    assert [piece async for piece in content] == [b"once ", b"upon"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'{"kind":1}', b'{"kind":5001}', b'{"kind":5001,"input":"x","max":1}']
)
async def test_a_record_that_is_no_request_changes_nothing(desk: Desk, body: bytes) -> None:
    with pytest.raises(InvalidInput):
        await desk.tree.call(("new",), body, desk.operator())
    assert not await desk.unit.select("effect", {"path": "/compute/new"})


async def test_an_oversized_record_is_refused(desk: Desk) -> None:
    with pytest.raises(BodyTooLarge):
        await desk.tree.call(("new",), b"x" * (MAX_REQUEST + 1), desk.operator())


async def test_without_a_buyer_or_a_container_provider_new_says_the_fix() -> None:
    async def nothing() -> Any:
        return []

    session = Session("operator", Role.OPERATOR, "k")
    compute = compute_service(None, Market(dict, nothing, nothing, unknown), Feed())
    for tree, error in ((compute, NoComputeProvider), (containers_service(), NoContainerProvider)):
        with pytest.raises(error) as caught:
            await tree.call(("new",), b"{}", session)
        assert caught.value.advice
        assert caught.value.status == 409


async def test_jobs_of_one_tick_are_judged_together(desk: Desk) -> None:
    batch = Batch()
    dear = JOB | {"max_msat": LIMITS.per_job.value}
    fit = LIMITS.per_day.value // LIMITS.per_job.value
    session = Session("agent:a", Role.AGENT, "first", batch=batch)
    for number in range(fit):
        assert (await desk.new(session.with_key(f"key {number}"), dear))["status"] == "staged"
    before = list(batch.writes)
    with pytest.raises(BudgetExceeded):
        await desk.new(session.with_key("one too many"), dear)
    assert batch.writes == before
