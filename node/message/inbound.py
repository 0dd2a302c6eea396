"""Messages in: triage before anything that costs, then one commit per message that is taken.

A wrap that is within the budget is opened at once, and its message is durable before the relay pool counts it as
handled. Beyond the budget wraps wait in a fair queue in memory: what floods an agent is not worth a write each.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import orjson

from core.clock import Clock
from core.error import Conflict, StoreUncertain, Unavailable, VendoError
from core.guard import attempted
from core.identifier import PubKey
from core.unit import Condition, Insert, UnitOfWork, Within, Write
from dvm.admission import Meter
from node.agent.error import InboxFull
from node.agent.inbox.intake import Intake
from node.agent.inbox.row import envelope
from node.agent.wake import news
from node.agent.wake.event import Event as Told
from node.agent.wake.herald import Herald
from node.message.admission import Door, Verdict, unfit, work_of
from node.message.ear import Ear, Listener
from node.message.fairness import Bucket, FairQueue
from node.message.record import TABLE, Protocol, Stamp, State, change, message_row
from relays.error import NotForUs
from relays.event import Event
from relays.kind import DM, FILE, LEGACY_DM, REACTION
from relays.nip04 import read_legacy, receiver_of
from relays.nip17 import Rumor, open_seal, open_wrap
from relays.nip25 import reacted_to

log = logging.getLogger(__name__)

OPEN_PER_SECOND, OPEN_BURST = 400.0, 2_000  # wraps of all agents together
LANE_PER_SECOND, LANE_BURST = 50.0, 400  # of one agent from one relay
MAX_NOTE = 8_000
_TURN = 16
_WAIT_S = 1.0  # after the database did not take a message
_RECALL_ROWS, _RECALL_PAGES = 100, 10
_AHEAD_S = 900


class Taken(NamedTuple):
    """A private message that was admitted."""

    agent: str
    signer_pubkey: PubKey
    rumor: Rumor
    protocol: Protocol


Take = Callable[[Taken], Awaitable[None]]


class Inbound:
    """What happens to every event that names an agent.

    Args:
        unit: the database.
        ear: whose keys are whose.
        doors: the admission of an agent; None if there is none by that name.
        clock: time.
        stamp: for the rows.
        notify: wakes an agent for whom something was committed.
        changed: is told whose messages have changed.
        on_file: takes a contact's file message.
        on_toll: takes a stranger's message that must bring money.
        on_taken: is told of every text that was taken, after the commit.
        intake: the door of the inboxes.
    """

    def __init__(
        self,
        unit: UnitOfWork,
        ear: Callable[[], Ear],
        doors: Callable[[str], Door | None],
        clock: Clock,
        stamp: Stamp,
        notify: Callable[[str], None],
        changed: Callable[[str], None],
        *,
        on_file: Take,
        on_toll: Take,
        on_taken: Callable[[Taken], None],
        intake: Intake | None = None,
    ) -> None:
        self._unit, self._ear, self._doors, self._clock, self._stamp = unit, ear, doors, clock, stamp
        self._notify, self._changed = notify, changed
        self._on_file, self._on_toll, self._on_taken = on_file, on_toll, on_taken
        self._intake = intake or Intake(unit, clock)
        self._herald = Herald(unit, clock, self._intake)
        self._budget = Bucket(OPEN_BURST, OPEN_PER_SECOND)
        self._lanes = Meter(LANE_BURST, LANE_PER_SECOND)
        self.queue: FairQueue[tuple[Listener, Event, int]] = FairQueue()
        self.since: dict[str, int] = {}
        self.floor = 0  # what was written before may have been dealt with in a life that this database forgot
        self.mute: set[str] = set()  # names that hear and have no inbox: the operator's own
        self.counts: Counter[str] = Counter()
        self.wake: Callable[[], None] = lambda: None
        self.open_afar: Callable[[Listener, Event, int], Awaitable[None]] = self.open

    # ---- doors

    async def private(self, event: Event, relay: str) -> None:
        """A verified wrap, or an old DM."""
        for listener in self._ear().whose(event):
            if reason := unfit(event, self._clock.now()):
                self.counts[reason] += 1
            elif event.kind != LEGACY_DM:
                await self._wrapped(listener, event, relay)
            elif self._is_welcome(listener, event):
                await (self.open_afar if listener.is_remote else self.open)(listener, event, 0)

    async def _wrapped(self, listener: Listener, event: Event, relay: str) -> None:
        door, bits = self._doors(listener.agent), work_of(event)
        if door is None or door.needs_work(bits):
            self.counts["stranger"] += 1
            return
        mono = self._clock.monotonic()
        lane = (listener.agent, relay)
        if not self.queue and self._lanes.take("\0".join(lane), mono) and self._budget.take(mono):
            await (self.open_afar if listener.is_remote else self.open)(listener, event, bits)
            return
        if listener.is_remote:
            self.counts["shed"] += 1
            return
        before = self.queue.shed
        self.queue.put(lane, (listener, event, bits), bits)
        self.counts["delayed"] += 1
        self.counts["shed"] += self.queue.shed - before
        self.wake()

    async def drain(self) -> float | None:
        """Open what waits, as far as the budget goes: seconds until there is more of it, or None if nothing waits."""
        opened = 0
        while self.queue:
            opened += 1
            if opened % _TURN == 0:
                await asyncio.sleep(0)
            wait = self._budget.wait(self._clock.monotonic())
            if wait > 0:
                return wait
            found = self.queue.take()
            if found is None or not self._budget.take(self._clock.monotonic()):
                return None
            _, error = await attempted(self.open(*found))
            if isinstance(error, Unavailable | StoreUncertain | Conflict):
                log.warning("a message waits", extra={"action": "dm_waits", "code": error.code})
                listener, _, bits = found
                self.queue.put((listener.agent, ""), found, bits)  # the relay pool counts it as handled: it is ours
                return _WAIT_S
            if error is not None:  # whatever a stranger's message breaks, the others are opened
                code = error.code if isinstance(error, VendoError) else "fault"
                trace = None if isinstance(error, VendoError) else error
                log.warning("a message was not taken", exc_info=trace, extra={"action": "dm_failed", "code": code})
                self.counts["failed"] += 1
        return None

    # ---- private messages

    async def open(self, listener: Listener, event: Event, bits: int) -> None:
        """Open a wrap, half at first: its seal says who wrote, and most of a flood ends there. Or read an old DM.

        Raises:
            SignerUnavailable: a remote signer did not answer; it is worth another try.
            VendoError: the database did not take it.
        """
        door = self._doors(listener.agent)
        if door is None:
            return
        if event.kind == LEGACY_DM:
            await self._legacy(door, listener, event)
            return
        if not door.recalled:
            await self._recall(door, listener.agent)
        try:
            seal = await open_wrap(listener.signer, event)
            sender = seal.pubkey
            if sender == listener.signer.pubkey:
                self.counts["own_copy"] += 1
                return
            if self._dropped_early(door, sender, bits):
                return
            rumor = await open_seal(listener.signer, seal)
        except NotForUs:
            self.counts["undecryptable"] += 1
            return
        await self._judge(door, Taken(listener.agent, listener.signer.pubkey, rumor, Protocol.NIP17), bits)

    async def _recall(self, door: Door, agent: str) -> None:
        """To whom the agent wrote first, from the latest of what was said: once for each agent and run."""
        opened: set[str] = set()
        latest: dict[str, int] = {}
        before: int | None = None
        for _ in range(_RECALL_PAGES):
            where: dict[str, Condition] = {"agent": agent, "changed_ms": Within(None, before)}
            rows = await self._unit.select(TABLE, where, order=("-changed_ms",), limit=_RECALL_ROWS)
            for row in rows:
                before = int(row["changed_ms"])
                if row["peer"] and row["protocol"] != Protocol.PUBLIC and row["direction"] == "out":
                    latest.setdefault(row["peer"], int(row["created_at"]))
                    if row["first"]:
                        opened.add(row["peer"])
            if len(rows) < _RECALL_ROWS:
                break
        for peer, at in reversed(latest.items()):
            door.wrote(PubKey(peer), at, first=peer in opened)
        door.recalled = True

    def _dropped_early(self, door: Door, sender: PubKey, bits: int) -> bool:
        """What the sender alone decides, before the second decryption; no rate is counted for it."""
        verdict, reason = door.glance(sender, bits, self._clock.now())
        if verdict is Verdict.DROP:
            self._drop(reason)
            return True
        return False

    def _drop(self, reason: str) -> None:
        self.counts[reason] += 1
        log.debug("a message was dropped", extra={"action": f"dm_{reason}"})

    def _is_welcome(self, listener: Listener, event: Event) -> bool:
        """Whether an old DM is read: its sender stands outside, so a stranger's is never decrypted."""
        door = self._doors(listener.agent)
        if door is None or receiver_of(event) is None:
            return False
        if event.pubkey == listener.signer.pubkey:
            self.counts["own_copy"] += 1
            return False
        if not door.known(event.pubkey, self._clock.now()):
            self._drop("stranger")  # its cipher proves nothing, so neither work nor money lets it in
            return False
        return True

    async def _legacy(self, door: Door, listener: Listener, event: Event) -> None:
        try:
            text = await read_legacy(listener.signer, event)
        except NotForUs:
            self.counts["undecryptable"] += 1
            return
        rumor = Rumor(event.pubkey, DM, text, event.tags, event.created_at, event.id)
        await self._judge(door, Taken(listener.agent, listener.signer.pubkey, rumor, Protocol.NIP04), 0)

    async def _judge(self, door: Door, taken: Taken, bits: int) -> None:
        rumor, now = taken.rumor, self._clock.now()
        if rumor.kind == REACTION:
            await self._reaction(taken.agent, rumor.sender, reacted_to(rumor))
            return
        if rumor.kind not in (DM, FILE) or not rumor.content.strip():
            self.counts["other_kind"] += 1
            return
        if rumor.created_at < self.since.get(taken.agent, 0):
            # Relays show a node that was made anew from its words all that it did, and paid for, in its last life.
            self.counts["before_us"] += 1
            log.info(
                "a message from before this node was made is left out",
                extra={"action": "dm_old", "agent": taken.agent},
            )
            return
        if rumor.created_at > now + _AHEAD_S:
            self._drop("future")
            return
        verdict, reason = door.judge(rumor.sender, bits, rumor.kind, now, self._clock.monotonic())
        if verdict is Verdict.DROP:
            self._drop(reason)
        elif rumor.created_at < self.floor and taken.agent not in self.mute:
            await self._forgotten(taken)
        elif verdict is Verdict.TOLL:
            await self._on_toll(taken)
        elif rumor.kind == FILE:
            self.counts["file"] += 1
            await self._on_file(taken)
        else:
            try:
                await self.take(taken)
            except InboxFull as error:
                await self._refused(taken, error.code)

    async def _forgotten(self, taken: Taken) -> None:
        """The node was restored from a copy that is older than this: that it came is kept, and nobody acts on it."""
        self._drop("restored")
        await self._unit.commit([self._row(taken, State.DROPPED, "restored")])
        self._changed(taken.agent)

    async def _refused(self, taken: Taken, code: str) -> None:
        """The inbox takes no more: that it came is kept, and nobody answers."""
        self._drop("full")
        await self._unit.commit([self._row(taken, State.DROPPED, code)])
        self._changed(taken.agent)

    def _row(self, taken: Taken, state: State, reason: str = "") -> Write:
        rumor = taken.rumor
        return message_row(
            self._stamp, taken.agent, rumor.id, rumor.sender, incoming=True, protocol=taken.protocol, kind=rumor.kind,
            text=rumor.content, state=state, created_at=rumor.created_at, reason=reason,
        )  # fmt: skip

    async def take(self, taken: Taken, *more: Write) -> None:
        """Commit a text to the inbox and the record, and wake the agent.

        Raises:
            InboxFull: the agent takes no more now.
            VendoError: the database did not take it.
        """
        rumor, agent = taken.rumor, taken.agent
        payload = {
            "text": rumor.content,
            "created_at": rumor.created_at,
            "protocol": taken.protocol.value,
            "contact": self._is_contact(agent, rumor.sender),
        }
        waiting = envelope(
            agent, rumor.id, cause="message", source="nostr", sender=rumor.sender,
            payload=orjson.dumps(payload).decode(), at=self._clock.now(), or_ignore=True, written_at=rumor.created_at,
        )  # fmt: skip
        queued = await self._commit(agent, waiting, [self._row(taken, State.RECEIVED), *more])
        self.counts["received" if queued else "full"] += 1
        if queued:
            self._on_taken(taken)

    def _is_contact(self, agent: str, sender: PubKey) -> bool:
        """Whether the operator named them: everybody else's words are read, and move no money."""
        door = self._doors(agent)
        return door is not None and sender in door.rules.contacts

    async def _tell(self, event: Told, *writes: Write) -> bool:
        """Commit an event of an agent, with what tells it and those who may know of all. As `_commit`."""
        agent = event.owner
        audience = {agent: list[str]()} if agent in self.mute else await self._herald.audience(event)
        own, *others = self._herald.rows(event, audience)  # whose thing it is stands first
        beside = await self._herald.room_for(others)
        queued = await self._commit(agent, own, [*writes, *beside])
        for other in audience:
            if other != agent:
                self._notify(other)
        return queued

    async def _commit(self, agent: str, waiting: Insert, writes: Sequence[Write]) -> bool:
        """Commit what came, with its trigger. Whether the agent gets it: if not, there was no room for it."""
        if agent in self.mute:
            await self._unit.commit(writes)
            self._changed(agent)
            return True
        async with self._intake.room(waiting) as rows:
            await self._unit.commit([*rows, *writes])
        self._changed(agent)
        self._notify(agent)
        return waiting in rows

    async def take_file(self, taken: Taken, facts: dict[str, Any], *writes: Write) -> None:
        """Commit a file that was fetched: an event in the inbox, which names the file to read.

        Raises:
            InboxFull: the agent takes no more now.
            VendoError: the database did not take it.
        """
        rumor, contact = taken.rumor, self._is_contact(taken.agent, taken.rumor.sender)
        data = {"created_at": rumor.created_at, "file": facts, "contact": contact}
        event = news.came("nostr.file", taken.agent, rumor.id, rumor.sender, rumor.created_at, data)
        if await self._tell(event, *writes):
            self._on_taken(taken)

    # ---- reactions and mentions

    async def _reaction(self, agent: str, sender: PubKey, message_id: str | None) -> None:
        """A reaction by the one we wrote to says that our message has arrived."""
        self.counts["reaction"] += 1
        if message_id is None:
            return
        where = {"agent": agent, "id": message_id, "peer": sender, "direction": "out"}
        rows = await self._unit.select(TABLE, where)
        if rows and rows[0]["state"] != State.SEEN:
            await self._unit.commit([change(self._stamp, where, State.SEEN)])
            self._changed(agent)

    async def public(self, event: Event, relay: str) -> None:
        """A verified note or reaction that names an agent. Nothing is ever paid on its word."""
        now, mono = self._clock.now(), self._clock.monotonic()
        for listener in self._ear().whose(event):
            door = self._doors(listener.agent)
            if door is None or event.pubkey == listener.signer.pubkey or listener.agent in self.mute:
                continue
            if event.kind == REACTION:
                await self._reaction(listener.agent, event.pubkey, reacted_to(event))
                continue
            heard, reason = door.hears(event.pubkey, now, mono)
            since = max(self.floor, self.since.get(listener.agent, 0))
            if not listener.current or event.created_at < since or unfit(event, now):
                continue
            if not heard:
                self.counts[f"mention_{reason}"] += 1
                continue
            await self._mention(listener.agent, event)

    async def _mention(self, agent: str, event: Event) -> None:
        text = event.content[:MAX_NOTE]
        data = {"text": text, "created_at": event.created_at, "event_id": event.id, "kind": event.kind}
        told = news.came("nostr.mention", agent, event.id, event.pubkey, event.created_at, data)
        row = message_row(
            self._stamp, agent, event.id, event.pubkey, incoming=True, protocol=Protocol.PUBLIC, kind=event.kind,
            text=text, state=State.RECEIVED, created_at=event.created_at,
        )  # fmt: skip
        try:
            await self._tell(told, row)
        except InboxFull:
            self.counts["mention_full"] += 1
            return
        self.counts["mention"] += 1
