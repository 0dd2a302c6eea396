"""An agent with its real parts: gate, ledger, inbox, engine, DMs over a real relay. Only the market is a stand-in.

The stand-in goes through the same gate as the real buyer and ends a job when the test says so.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.clock import SystemClock
from core.effect import EffectClass, Intent, Outcome, OutcomeState, Repeated
from core.error import NotFound
from core.identifier import EffectId, derived_id
from core.money import Msat
from core.unit import Row, Write
from dvm.request import ComputeRequest
from fs.feed import Feed
from fs.namespace import Access, Mount, Namespace
from fs.service.compute import Market, compute_service
from fs.service.identity import identity_service
from fs.service.inbox import inbox_service
from fs.service.logs import logs_service
from fs.service.nostr import nostr_service
from node.agent.buyer import Buyer
from node.agent.inbox.intake import Intake
from node.agent.inbox.mailbox import AgentInbox
from node.agent.inbox.row import agent_of
from node.agent.log import AgentLog
from node.agent.tick.engine import Engine
from node.agent.tick.limit import TickLimits
from node.agent.wake.herald import Herald
from node.agent.wake.news import job_ended
from node.gate.gate import NodeGate
from node.gate.ledger import ledger_seal
from node.gate.limits import Limits
from node.message.admission import Rules
from node.message.service import AgentMessenger, Messages, Reach
from node.message.voice import FixedVoices
from node.storage.memory import MemoryDatabase
from relays.credential import Credentials
from relays.embedded.service import EmbeddedRelay
from relays.event import Draft, Event
from relays.filter import Filter
from relays.key import Key
from relays.kind import DM, GIFT_WRAP
from relays.local_signer import KeySigner
from relays.nip17 import unwrap, wrap
from relays.outbox import Outbox
from relays.pool import Pool
from relays.signer import Signer

NODE, AGENT, OWNER, STRANGER = (Key(bytes([number]) * 32) for number in (1, 2, 3, 4))
LIMITS = Limits.of("msat", per_job=100_000, per_day=150_000, per_seller=100_000)
QUICK = TickLimits(seconds=5, tries=3, back_off_ms=10, pause_ms=20)
NAME = "agent"


@dataclass
class View:
    """What is known of a stand-in's job."""

    job_id: str
    caller: str
    state: str = "quoting"
    version: int = 0
    more: dict[str, Any] = field(default_factory=dict)
    kept: Any = None

    def to_dict(self) -> dict[str, Any]:
        return {"job_id": self.job_id, "caller": self.caller, "state": self.state, "status": self.state, **self.more}


@dataclass(frozen=True)
class StagedView:
    job_id: str
    writes: Sequence[Write]
    repeated: bool
    start: Callable[[], None]


@dataclass
class StandIn:
    """Buys nothing: jobs begin and end, through the real gate."""

    unit: MemoryDatabase
    gate: NodeGate
    engine: Engine
    started: list[str] = field(default_factory=list)
    requests: dict[str, ComputeRequest] = field(default_factory=dict)
    views: dict[str, View] = field(default_factory=dict)
    effects: dict[str, EffectId] = field(default_factory=dict)
    slow: float = 0.0

    async def stage(
        self, caller: str, key: str, request: ComputeRequest, path: str = "/compute/new", pending=(), *, at_once=False
    ) -> StagedView:
        job_id = derived_id(caller, path, key)
        reserve = request.maximum or Msat(50_000)
        intent = Intent(caller, path, key, request.canonical(), EffectClass.IRREVERSIBLE, job_id, reserve)
        admission = await self.gate.stage(intent)
        if isinstance(admission, Repeated):
            return StagedView(admission.subject, (), True, lambda: None)
        self.requests[job_id], self.effects[job_id] = request, admission.effect_id

        def start() -> None:
            self.views[job_id] = View(job_id, caller)
            self.started.append(job_id)

        return StagedView(job_id, admission.writes, False, start)

    async def view(self, job_id: str) -> View:
        if job_id not in self.views:
            raise NotFound("There is no job with this id.")
        return self.views[job_id]

    async def result(self, job_id: str) -> str:
        return str((await self.view(job_id)).more["result"])

    async def list_jobs(self) -> list[View]:
        return list(self.views.values())

    async def cancel(self, job_id: str) -> None:
        (await self.view(job_id)).state = "cancelled"

    async def finish(self, job_id: str, **more: Any) -> None:
        view = await self.view(job_id)
        view.state, view.version, view.more = "delivered" if "result" in more else "failed", 9, more
        outcome = Outcome(OutcomeState.COMMIT, Msat(more.get("cost_msat", 0)))
        writes = await self.gate.settle(self.effects[job_id], outcome)
        self.engine.notify_at(NAME, SystemClock().millis() + 5)
        clock = SystemClock()
        herald = Herald(self.unit, clock, Intake(self.unit, clock))
        told = await herald.tell(job_ended(agent_of(view.caller) or "", view.to_dict()))
        await asyncio.sleep(self.slow)
        await self.unit.commit([*writes, *told.writes])


@dataclass
class Town:
    """One node with one agent, and the relay on which people talk to it."""

    unit: MemoryDatabase
    gate: NodeGate
    relay: str
    engine: Engine
    messages: Messages
    jobs: StandIn
    pool: Pool
    people: Pool
    voices: list[Callable[[], Iterable[Signer]]]

    async def say(self, sender: Key, text: str, kind: int = DM, wraps: int = 1) -> list[Event]:
        """Send the agent a DM, wrapped so many times."""
        draft = Draft(kind, text, (("p", AGENT.pubkey),), SystemClock().now())
        sent = [wrap(sender, AGENT.pubkey, draft) for _ in range(wraps)]
        for event in sent:
            await self.people.send(self.relay, event, NODE_PERMIT)
        return sent

    async def heard(self, person: Key) -> list[str]:
        """What the agent has sent to a person, as the person's own client reads them off the relay."""
        wanted = Filter(kinds=frozenset({GIFT_WRAP}), tags={"p": frozenset({person.pubkey})})
        rumors = [unwrap(person, event) for event in await self.people.fetch([wanted], 20)]
        rumors.sort(key=lambda rumor: rumor.created_at)
        return [rumor.content for rumor in rumors if rumor.sender == AGENT.pubkey]

    async def hear(self, person: Key, count: int = 1) -> list[str]:
        async with asyncio.timeout(60):
            while len(found := await self.heard(person)) < count:
                await asyncio.sleep(0.02)
        return found

    async def rows(self, table: str, **where: Any) -> list[Row]:
        return await self.unit.select(table, where)

    async def until(self, good: Callable[[], Any], seconds: float = 60) -> None:
        async with asyncio.timeout(seconds):
            while True:
                found = good()
                if (await found) if asyncio.iscoroutine(found) else found:
                    return
                await asyncio.sleep(0.005)

    async def settled(self, paths: str) -> list[Row]:
        """Effects of a path, once none of them is open."""
        async with asyncio.timeout(60):
            while True:
                found = [row for row in await self.rows("effect") if row["path"].startswith(paths)]
                if found and all(row["state"] not in ("begun", "unknown") for row in found):
                    return found
                await asyncio.sleep(0.01)


class Someone:
    """The agent, as its `/identity` shows it."""

    pubkey = AGENT.pubkey

    async def profile(self) -> dict[str, Any]:
        return {}

    async def nip05(self) -> str:
        return ""

    async def relays(self) -> dict[str, Any]:
        return {}

    async def keys(self) -> list[dict[str, Any]]:
        return []


class _Anyone:
    effect_id = EffectId("person")


NODE_PERMIT: Any = _Anyone()


async def _running(stack: AsyncExitStack, *services: Any) -> None:
    for service in services:
        ready, stop = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(service.run(ready, stop))

        async def end(task: asyncio.Task[None] = task, stop: asyncio.Event = stop) -> None:
            stop.set()
            await asyncio.wait_for(task, 60)

        stack.push_async_callback(end)
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if task.done():
            await task


@asynccontextmanager
async def relay_at(folder: Path) -> AsyncIterator[str]:
    async with AsyncExitStack() as stack:
        relay = EmbeddedRelay(folder / "relay.db", "127.0.0.1", 0, clock=SystemClock())
        await _running(stack, relay)
        yield relay.url


@asynccontextmanager
async def town(
    relay: str,
    unit: MemoryDatabase | None = None,
    rules: Rules | None = None,
    reach: Callable[[Pool, MemoryDatabase, NodeGate], Reach] | None = None,
    more: Sequence[str] = (),
    agents: Mapping[str, Key] | None = None,
) -> AsyncIterator[Town]:
    clock, feed = SystemClock(), Feed()
    unit = unit or MemoryDatabase(ledger_seal(NODE), clock)
    gate = NodeGate(unit, clock, LIMITS, NODE.pubkey)
    await gate.load()
    agents = agents if agents is not None else {NAME: AGENT}
    signers = [KeySigner(key) for key in agents.values()]
    voices: list[Callable[[], Iterable[Signer]]] = [lambda: signers]
    shown = Credentials(KeySigner(NODE), lambda: (one for voice in voices for one in voice()), lambda *_: True, clock)
    persons = Credentials(KeySigner(OWNER), lambda: [KeySigner(STRANGER), KeySigner(AGENT)], lambda *_: True, clock)
    pool = Pool([relay, *more], unit=unit, clock=clock, check=gate.check, auth=shown)
    people = Pool([relay, *more], unit=MemoryDatabase(), clock=clock, check=lambda _: None, auth=persons)
    outbox = Outbox(pool, unit, clock, gate.delivery)
    made: dict[str, Namespace] = {}
    engine = Engine(unit, clock, {"buyer": Buyer()}, lambda name: made.get(name) or made[NAME], feed, QUICK)
    rules = rules or Rules(contacts=frozenset({OWNER.pubkey}))
    messages = Messages(
        pool, outbox, gate, unit, FixedVoices({name: KeySigner(key) for name, key in agents.items()}),
        dict.fromkeys(agents, rules), clock, engine.notify, feed,
        reach(pool, unit, gate) if reach is not None else Reach(),
    )  # fmt: skip
    jobs = StandIn(unit, gate, engine)
    made[NAME] = _namespace(unit, feed, engine, messages, jobs)
    await engine.create(NAME, "buyer", AGENT.pubkey)
    async with AsyncExitStack() as stack:
        await _running(stack, pool, people, outbox, messages, engine)
        found = Town(unit, gate, relay, engine, messages, jobs, pool, people, voices)
        await found.until(lambda: all(one.is_up(url) for one in (pool, people) for url in one.urls))
        yield found


def _namespace(unit: MemoryDatabase, feed: Feed, engine: Engine, messages: Messages, jobs: StandIn) -> Namespace:
    async def nothing() -> Any:
        return {}

    async def unknown(seller: str, look: bool) -> Any:
        return {}

    clock = SystemClock()
    market = Market(dict, nothing, nothing, unknown)
    inbox = AgentInbox(NAME, unit, clock, engine.notify)
    return Namespace(
        [
            Mount("/compute", compute_service(jobs, market, feed), Access.BUDGETED),
            Mount("/identity", identity_service(Someone()), Access.SIGN),
            Mount("/inbox", inbox_service(inbox), Access.READ),
            Mount("/logs", logs_service(AgentLog(NAME, unit, feed)), Access.READ),
            Mount("/nostr", nostr_service(AgentMessenger(messages, NAME), nothing), Access.BUDGETED),
        ]
    )
