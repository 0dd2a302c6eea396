"""`Messages`: everything that agents hear and say, as one service of the node; and one agent's share of it."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from core.clock import Clock
from core.effect import Gate, Outcome, OutcomeState
from core.error import NotFound, VendoError
from core.identifier import EffectId, PubKey, is_hex64
from core.unit import Among, Insert, UnitOfWork, Update
from fs.feed import Feed
from fs.protocol import Record
from fs.service.nostr import StagedMessage
from node.agent.inbox.intake import Intake
from node.collector import Collector
from node.identity.signing import NEVER
from node.message.admission import Door, Rules, read_rules
from node.message.afar import Afar
from node.message.blossom import Blossom
from node.message.courier import Courier
from node.message.ear import Ear
from node.message.error import NoFileServer
from node.message.history import History
from node.message.inbound import Inbound, Taken
from node.message.outbound import DM_PATH, FILE_PATH, PUBLISH_PATH, REACT_PATH, Outbound
from node.message.record import TABLE, Protocol, Stamp, topic
from node.message.route import Guide, Routes, Way
from node.message.settlement import Settlement
from node.message.shelf import Shelf
from node.message.toll import Toll
from node.message.voice import Voices
from relays.error import KindForbidden
from relays.event import Event
from relays.key import parse_pubkey
from relays.outbox import Outbox
from relays.pool import Pool

log = logging.getLogger(__name__)

_PATHS = (DM_PATH, FILE_PATH, REACT_PATH, PUBLISH_PATH)
OPERATOR = "node"  # the operator's own mailbox: it hears the node's agents, and has no inbox that wakes anybody
RULES_KEY = "admission/"
_ALWAYS = 1 << 53
_BEFORE_US_S = 3_600  # an agent's clock and its owner's may differ
_OPERATOR_BACK_S = 7 * 86_400
MAX_HINTS = 64
_HINTS_AT_ONCE = 4  # of the directory's questions: the others are for messages that are being sent
_BREATH = 64
_PAGE = 500


@dataclass(frozen=True, slots=True)
class Reach:
    """What messages need beside the relays, where a node has it.

    Attributes:
        guide: where people read.
        blossom: servers for files.
        shelf: where fetched files lie.
        collector: takes tolls.
        intake: the door of the agents' inboxes.
        is_theirs: whether another process, which is alive, began an effect.
        ask: what other processes of this node have of an agent's received files, by the file's hash.
        on_rules: is told when somebody changed whom an agent hears.
    """

    guide: Guide | None = None
    blossom: Blossom | None = None
    shelf: Shelf | None = None
    collector: Collector | None = None
    intake: Intake | None = None
    is_theirs: Callable[[EffectId], Awaitable[bool]] | None = None
    ask: Callable[[str, str], Awaitable[bytes | None]] | None = None
    on_rules: Callable[[], None] = lambda: None


class Messages:
    """Messages of all agents. A service: `run` subscribes, opens, fetches, and ends effects whose wraps were taken.

    Args:
        pool: subscriptions.
        outbox: what carries wraps to relays.
        gate: every message out is an effect.
        unit: the database.
        voices: the agents' identities.
        rules: whom each agent hears, as configured.
        clock: time.
        notify: wakes an agent for whom something was committed.
        feed: tells watchers.
        reach: what else there is.
    """

    def __init__(
        self,
        pool: Pool,
        outbox: Outbox,
        gate: Gate,
        unit: UnitOfWork,
        voices: Voices,
        rules: Mapping[str, Rules],
        clock: Clock,
        notify: Callable[[str], None],
        feed: Feed,
        reach: Reach = Reach(),
    ) -> None:
        self._pool, self._unit, self._voices, self._clock, self._feed = pool, unit, voices, clock, feed
        self._guide, self._ask, self._on_rules = reach.guide, reach.ask, reach.on_rules
        self._theirs = reach.is_theirs
        self._doors = {name: Door(one) for name, one in rules.items()}
        stamp = Stamp(clock)
        self._inbound = Inbound(
            unit, lambda: self._ear, self._doors.get, clock, stamp, notify, self._changed,
            on_file=self._file, on_toll=self._stranger, on_taken=self._taken,
            intake=reach.intake,
        )  # fmt: skip
        self._inbound.mute.add(OPERATOR)
        self._inbound.wake = lambda: self._wake.set()
        self._ear = Ear(pool, self._inbound.private, self._inbound.public)
        routes = Routes(unit, reach.guide, lambda: pool.urls, self._at_home)
        self._settlement = Settlement(unit, gate, clock, stamp, self._changed)
        self._outbound = Outbound(
            unit, gate, outbox, voices, routes, self._settlement, clock, stamp, self._changed, self._wrote
        )  # fmt: skip
        self._wake = self._settlement.woken
        self._courier = self._toll = None
        if reach.blossom is not None and reach.shelf is not None:
            self._courier = Courier(
                unit, gate, self._outbound, routes, self._settlement, reach.blossom, reach.shelf,
                lambda: self._inbound, clock, stamp,
            )  # fmt: skip
        if reach.collector is not None:
            self._toll = Toll(unit, reach.collector, clock, stamp, self._doors.get, self._inbound.take)
        self._afar = Afar(unit, clock, stamp, self._inbound.open, self._ear.whose)
        self._inbound.open_afar = self._afar.offer
        self._hints: set[asyncio.Task[None]] = set()
        self._hinting = asyncio.Semaphore(_HINTS_AT_ONCE)

    @property
    def counts(self) -> Counter[str]:
        """What became of everything that came in, by a stable word."""
        return self._inbound.counts

    async def run_files(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Only send the files of agents that tick in this process: another one hears and settles for all."""
        ready.set()
        if self._courier is None:
            await stop.wait()
        else:
            await self._courier.run(stop)

    # ---- agents come and go

    def attach(self, agent: str, since: int, rules: Rules | None = None) -> None:
        """Hear an agent from now on. Also after its keys have changed. `since`: when it was made, Unix seconds."""
        signer = self._voices.get(agent)
        if signer is None:
            return
        if rules is not None:
            self._doors[agent] = Door(rules)
        self._doors.setdefault(agent, Door(Rules()))
        self._inbound.since[agent] = since - _BEFORE_US_S
        keys = (signer, *self._voices.older(agent))
        mailbox = self._doors.get(OPERATOR)
        if mailbox is not None and agent != OPERATOR:
            for gone in keys[1:]:
                mailbox.paid.pop(gone.pubkey, None)  # it may have been replaced because it was lost
            mailbox.paid[signer.pubkey] = _ALWAYS
        self._ear.add(agent, keys, since)
        self._ear.remove(agent, keep=[one.pubkey for one in keys])

    def not_before(self, at: int) -> None:
        """What was written before then (Unix seconds) is recorded and not acted upon."""
        self._inbound.floor = at

    async def recall(self, agents: Sequence[str]) -> None:
        """Read the rules that were changed while the node ran, for agents that are heard."""
        keys = tuple(RULES_KEY + name for name in agents if name in self._doors)
        for row in await self._unit.select("meta", {"key": Among(keys)}) if keys else ():
            name = row["key"].removeprefix(RULES_KEY)
            try:
                self._doors[name] = self._doors[name].replaced(read_rules(orjson.loads(row["value"])))
            except VendoError:
                log.warning("saved rules cannot be read", extra={"action": "rules_unread", "agent": name})

    def detach(self, agent: str) -> None:
        """Hear an agent no more."""
        self._ear.remove(agent)
        self._doors.pop(agent, None)
        self._inbound.since.pop(agent, None)

    def rules(self, agent: str) -> Rules:
        """Whom an agent hears.

        Raises:
            NotFound: there is no such agent.
        """
        door = self._doors.get(agent)
        if door is None:
            raise NotFound("There is no agent with this name.")
        return door.rules

    async def set_rules(self, agent: str, value: Mapping[str, Any]) -> None:
        """Change whom an agent hears, at once and for good; what is not named stays.

        Raises:
            NotFound: there is no such agent.
            InvalidInput: a rule is not valid.
        """
        rules = read_rules(value, self.rules(agent))
        text, key = orjson.dumps(rules.to_dict()).decode(), RULES_KEY + agent
        await self._unit.commit(
            [Insert("meta", {"key": key, "value": text}, or_ignore=True), Update("meta", {"key": key}, {"value": text})]
        )
        self._doors[agent] = self._doors[agent].replaced(rules)
        self._on_rules()

    async def shelved(self, agent: str, ox: str) -> bytes | None:
        """A file that came for an agent and lies with this process."""
        return await self._courier.shelf.get(agent, ox) if self._courier is not None else None

    def _at_home(self, agent: str, to: PubKey) -> bool:
        door = self._doors.get(agent)
        return door is not None and door.known(to, self._clock.now())

    # ---- life

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Listen for every agent until `stop`; go on with what was on its way before a restart."""
        await self._load()
        self._ear.start()
        self._settlement.watches = True
        await self._resume()
        ready.set()
        stopping = asyncio.create_task(stop.wait())
        try:
            async with asyncio.TaskGroup() as tasks:
                if self._courier is not None and not self._courier.is_running:
                    tasks.create_task(self._courier.run(stop), name="couriers")
                taker = tasks.create_task(self._toll.run(), name="tolls") if self._toll is not None else None
                await self._loop(stop, stopping)
                if taker is not None:
                    taker.cancel()
        finally:
            stopping.cancel()
            self._settlement.watches = False
            self._ear.stop()
            await self._afar.aclose()
            hints = list(self._hints)
            for hint in hints:
                hint.cancel()
            await asyncio.gather(*hints, return_exceptions=True)

    async def _load(self) -> None:
        """Rules that were changed, and since when each agent is there."""
        names = list(self._voices)
        made: dict[str, int] = {}
        for begin in range(0, len(names), _PAGE):
            page = names[begin : begin + _PAGE]
            rows = await self._unit.select("agent", {"name": Among(tuple(page))}, columns=("name", "created_at"))
            made |= {row["name"]: int(row["created_at"]) for row in rows}
            await self.recall(page)
        now = self._clock.now()
        for count, name in enumerate(names):
            if count % _BREATH == 0:
                await asyncio.sleep(0)
            self.attach(name, made.get(name, now - _OPERATOR_BACK_S if name == OPERATOR else now))
        await self._afar.resume()
        if self._toll is not None:
            await self._toll.resume()
        if self._courier is not None:
            await self._courier.resume()

    async def adopt(self) -> None:
        """Follow what other processes have begun since."""
        if self._settlement.watches:
            await self._resume(new=True)

    async def bury(self) -> None:
        """End what a process has left that was put out."""
        if self._settlement.watches:
            await self._resume()

    async def _resume(self, *, new: bool = False) -> None:
        """Messages that were begun and not ended when the node stopped; `new`: that were begun by others since."""
        names = ("id", "path", "caller")
        for row in await self._unit.select("effect", {"state": Among(("begun", "unknown"))}, columns=names):
            prefix = next((one for one in _PATHS if row["path"].startswith(one)), None)
            if prefix is None:
                continue
            effect_id = EffectId(row["id"])
            if self._settlement.is_followed(effect_id):
                continue
            told = await self._unit.select(TABLE, {"effect_id": effect_id}, limit=1)
            agent = told[0]["agent"] if told else row["caller"].partition(":")[2] or OPERATOR
            to = "" if prefix == PUBLISH_PATH else parse_pubkey(row["path"].removeprefix(prefix))
            if await self._settlement.resume(effect_id, agent, to):
                if new and told:
                    self._wrote(agent, PubKey(to), Way(Protocol.NIP17, None, bool(told[0]["first"])))
                    self._changed(agent)
                continue
            if new or (self._theirs is not None and await self._theirs(effect_id)):
                continue  # a file: its bytes lie with the process that began it, which sends them
            if prefix == FILE_PATH and self._courier is not None and await self._courier.again(effect_id):
                continue
            # Its events were committed with it and have been cleared since: a week ago they had all been taken
            state = OutcomeState.FAIL if prefix == FILE_PATH else OutcomeState.COMMIT
            await self._settlement.end(effect_id, agent, Outcome(state))

    async def _loop(self, stop: asyncio.Event, stopping: asyncio.Task[bool]) -> None:
        while not stop.is_set():
            self._wake.clear()
            await self._settlement.look()
            wait = await self._inbound.drain()
            waits = [] if wait is None else [wait]
            if (next_ms := self._settlement.next_ms) is not None:
                waits.append((next_ms - self._clock.millis()) / 1000)
            await self._rest(stopping, min(waits, default=None))

    async def _rest(self, stopping: asyncio.Task[bool], seconds: float | None) -> None:
        """Until the next look, a new message, or the end."""
        woken = asyncio.create_task(self._wake.wait())
        waiting: set[asyncio.Task[bool] | asyncio.Task[None]] = {woken, stopping}
        alarm: asyncio.Task[None] | None = None
        if seconds is not None:
            alarm = asyncio.create_task(self._clock.sleep(seconds))
            waiting.add(alarm)
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()
            if alarm is not None:
                alarm.cancel()

    # ---- what follows from a message

    def _wrote(self, agent: str, to: PubKey, way: Way) -> None:
        """Whom an agent wrote to first may answer, contact or not."""
        door = self._doors.get(agent)
        if door is not None:
            door.wrote(to, self._clock.now(), first=way.first)

    def _changed(self, agent: str) -> None:
        self._feed.grew(topic(agent))

    async def _file(self, taken: Taken) -> None:
        if self._courier is not None and taken.agent != OPERATOR:
            await self._courier.receive(taken)

    async def _stranger(self, taken: Taken) -> None:
        if self._toll is None or not await self._toll.offer(taken):
            self.counts["unpaid"] += 1

    def _taken(self, taken: Taken) -> None:
        """Look up where the sender reads before the answer is ready, and acknowledge if that is wanted."""
        if len(self._hints) >= MAX_HINTS or taken.agent == OPERATOR:
            return
        hint = asyncio.create_task(self._hint(taken), name="message hint")
        self._hints.add(hint)
        hint.add_done_callback(self._hints.discard)

    async def _hint(self, taken: Taken) -> None:
        try:
            if self._guide is not None:
                async with self._hinting:
                    await self._guide.relays_for_dm(taken.rumor.sender)
            door = self._doors.get(taken.agent)
            if door is not None and door.rules.acknowledge and taken.protocol is Protocol.NIP17:
                await self._outbound.acknowledge(taken.agent, taken.rumor.sender, taken.rumor.id, taken.rumor.kind)
        except VendoError as error:
            log.info("no acknowledgement", extra={"action": "ack_failed", "code": error.code, "agent": taken.agent})

    # ---- out

    async def stage(self, caller: str, agent: str, to: PubKey, text: str, key: str) -> StagedMessage:
        """As `Outbound.stage`."""
        return await self._outbound.stage(caller, agent, to, text, key)

    async def send(self, caller: str, agent: str, to: PubKey, text: str, key: str) -> str:
        """As `Outbound.send`."""
        return await self._outbound.send(caller, agent, to, text, key)

    async def stage_file(self, caller: str, agent: str, to: PubKey, data: bytes, mime: str, key: str) -> StagedMessage:
        """As `Courier.stage`.

        Raises:
            NoFileServer: this node keeps no files.
        """
        if self._courier is None:
            raise NoFileServer
        return await self._courier.stage(caller, agent, to, data, mime, key)

    async def stage_event(self, caller: str, agent: str, event: Event, key: str) -> StagedMessage:
        """As `Outbound.publish`; of an agent only kinds that one may sign.

        Raises:
            KindForbidden: agents publish no such events.
        """
        if agent != OPERATOR and event.kind in NEVER:
            raise KindForbidden(f"Agents publish no events of kind {event.kind}.")
        return await self._outbound.publish(caller, agent, event, key)

    def history(self, agent: str) -> History:
        """What an agent said and heard."""
        return History(agent, self._unit, self._feed)

    async def files(self, agent: str) -> list[str]:
        """The files that came for an agent, by hash."""
        return await self._courier.shelf.names(agent) if self._courier is not None else []

    async def file(self, agent: str, ox: str) -> bytes | None:
        """A file that came for an agent."""
        found = await self.shelved(agent, ox)
        if found is None and self._ask is not None and is_hex64(ox):
            found = await self._ask(agent, ox)
        return found


class AgentMessenger:
    """`Messages` as one agent: what its `/nostr` speaks to."""

    def __init__(self, messages: Messages, agent: str) -> None:
        self._messages, self._agent = messages, agent

    async def stage(self, caller: str, to: PubKey, text: str, key: str) -> StagedMessage:
        """Judge a message from this agent.

        Raises:
            InvalidInput, Refused, NotReady: as `Outbound.stage`.
        """
        return await self._messages.stage(caller, self._agent, to, text, key)

    async def stage_file(self, caller: str, to: PubKey, data: bytes, mime: str, key: str) -> StagedMessage:
        """Judge a file from this agent.

        Raises:
            NoFileServer, FileRefused, Refused, NotReady: as `Courier.stage`.
        """
        return await self._messages.stage_file(caller, self._agent, to, data, mime, key)

    async def stage_event(self, caller: str, event: Event, key: str) -> StagedMessage:
        """Judge an event of this agent's that is to be published.

        Raises:
            InvalidInput, KindForbidden, Refused: as `Outbound.publish`.
        """
        return await self._messages.stage_event(caller, self._agent, event, key)

    async def recent(self, limit: int) -> list[dict[str, Any]]:
        """The latest messages, oldest first."""
        return await self._messages.history(self._agent).recent(limit)

    async def talk(self, peer: PubKey, limit: int) -> list[dict[str, Any]]:
        """The last messages from and to one person."""
        return await self._messages.history(self._agent).talk(peer, limit)

    def follow(self, after: int | None) -> AsyncIterator[Record]:
        """Messages as they come."""
        return self._messages.history(self._agent).follow(after)

    async def rules(self) -> dict[str, Any]:
        """Whom this agent hears."""
        return self._messages.rules(self._agent).to_dict()

    async def set_rules(self, value: Mapping[str, Any]) -> None:
        """Change whom it hears.

        Raises:
            InvalidInput: a rule is not valid.
        """
        await self._messages.set_rules(self._agent, value)

    async def files(self) -> list[str]:
        """The files that came, by hash."""
        return await self._messages.files(self._agent)

    async def file(self, ox: str) -> bytes | None:
        """A file that came."""
        return await self._messages.file(self._agent, ox)
