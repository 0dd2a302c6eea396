"""Private messages in and out (NIP-17), for every agent of the node.

In: a wrap is opened, its sender is looked up on the agent's list, and a stranger's message ends there: nothing is
stored, nothing is woken, nothing is paid. Out: a message is an effect like any other. Its two wraps (the receiver's
copy and the sender's own) are committed with the effect's `begin` and are sent by the outbox; the effect ends when
relays have taken both.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from core.clock import Clock
from core.effect import EffectClass, Gate, Intent, Outcome, OutcomeState, Repeated
from core.error import Conflict, InvalidInput, NotFound, VendoError
from core.identifier import EffectId, PubKey
from core.unit import Among, Insert, UnitOfWork, Write
from fs.service.nostr import StagedMessage
from node.agent.inbox import envelope
from relays.error import NotForUs
from relays.event import Draft, Event
from relays.filter import Filter
from relays.key import Key, npub
from relays.kind import DM, FILE, GIFT_WRAP
from relays.nip17 import Rumor, rumor_id, unwrap, wrap
from relays.outbox import Outbox
from relays.pool import Pool

log = logging.getLogger(__name__)

MAX_TEXT_BYTES = 200_000
_PART_BYTES = 20_000  # two layers of NIP-44 with padding and base64 stay under 64 KiB (NIP-59)
_BEFORE_US_S = 3_600  # an agent's clock and its owner's may differ
_LOOK_MS = (20, 50, 100, 250, 500, 1_000, 2_000, 5_000)
_PATH = "/nostr/dm/"

Admitted = Callable[[str, PubKey], bool]


def split(text: str) -> list[str]:
    """A text in parts that each fit one message, cut at line ends or spaces where there are any.

    Raises:
        InvalidInput: it is empty or over 200,000 bytes.
    """
    if not text.strip():
        raise InvalidInput("The message is empty.")
    if len(text.encode()) > MAX_TEXT_BYTES:
        raise InvalidInput(f"The message is longer than {MAX_TEXT_BYTES} bytes.")
    parts: list[str] = []
    while text:
        end = _fitting(text)
        if end < len(text):
            cut = max(text.rfind("\n", 1, end), text.rfind(" ", 1, end))
            end = cut + 1 if cut > end // 2 else end
        parts.append(text[:end])
        text = text[end:]
    return parts


def _fitting(text: str) -> int:
    """How many characters of the text fit one part, as JSON writes them."""
    end = min(len(text), _PART_BYTES)
    while len(orjson.dumps(text[:end])) > _PART_BYTES:
        end = end * 3 // 4
    return max(end, 1)


@dataclass(slots=True)
class _Sent:
    """A message on its way: the wraps of one effect, and when to look at them next."""

    effect_id: EffectId
    wraps: tuple[str, ...]
    looks: int = 0
    next_ms: int = field(default=0)


class Messages:
    """NIP-17 for the node's agents. A service: `run` subscribes, and ends effects whose wraps were taken.

    Args:
        pool: subscriptions.
        outbox: what carries wraps to relays.
        gate: every message out is an effect.
        unit: the database.
        keys: the agents' keys by name.
        admitted: whether an agent takes messages from a public key.
        clock: time.
        notify: wakes an agent for whom something was committed.
        relays_of: where a person wants messages (kind 10050), if it is known; None uses all relays of the pool.
    """

    def __init__(
        self,
        pool: Pool,
        outbox: Outbox,
        gate: Gate,
        unit: UnitOfWork,
        keys: Mapping[str, Key],
        admitted: Admitted,
        clock: Clock,
        notify: Callable[[str], None],
        relays_of: Callable[[PubKey], Sequence[str] | None] | None = None,
    ) -> None:
        self._pool, self._outbox, self._gate, self._unit = pool, outbox, gate, unit
        self._keys, self._admitted, self._clock, self._notify = keys, admitted, clock, notify
        self._relays_of = relays_of or (lambda _: None)
        self._sent: list[_Sent] = []
        self._since: dict[str, int] = {}
        self._wake = asyncio.Event()
        self.counts: Counter[str] = Counter()

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Listen for every agent until `stop`; go on with messages that were on their way before a restart."""
        await self._resume()
        for row in await self._unit.select("agent"):
            self._since[row["name"]] = row["created_at"] - _BEFORE_US_S
        for name, key in self._keys.items():
            wanted = Filter(kinds=frozenset({GIFT_WRAP}), tags={"p": frozenset({key.pubkey})})
            self._pool.subscribe(f"dm:{name}", [wanted], self._handler(name, key), backdated=True)
        ready.set()
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                self._wake.clear()
                await self._look()
                await self._rest(stopping)
        finally:
            stopping.cancel()
            for name in self._keys:
                self._pool.unsubscribe(f"dm:{name}")

    # in

    def _handler(self, agent: str, key: Key) -> Callable[[Event, str], Awaitable[None]]:
        async def handle(event: Event, relay: str) -> None:
            await self._receive(agent, key, event)

        return handle

    async def _receive(self, agent: str, key: Key, event: Event) -> None:
        """One verified gift wrap for an agent."""
        try:
            rumor = unwrap(key, event)
        except NotForUs:
            self.counts["undecryptable"] += 1
            return
        if rumor.sender == key.pubkey:
            self.counts["own_copy"] += 1
            return
        if not self._admitted(agent, rumor.sender):
            self.counts["stranger"] += 1
            log.debug("a stranger's message was dropped", extra={"action": "dm_stranger", "agent": agent})
            return
        if rumor.kind != DM or not rumor.content.strip():
            self.counts["file" if rumor.kind == FILE else "other_kind"] += 1
            return
        if rumor.created_at < self._since.get(agent, 0):
            # Relays show a node that was made anew from its words all that it did, and paid for, in its last life.
            self.counts["before_us"] += 1
            log.info("a message from before this node was made is left out", extra={"action": "dm_old", "agent": agent})
            return
        await self._unit.commit([self._envelope(agent, rumor)])
        self.counts["received"] += 1
        self._notify(agent)

    def _envelope(self, agent: str, rumor: Rumor) -> Insert:
        payload = {"text": rumor.content, "created_at": rumor.created_at}
        return envelope(
            agent,
            rumor.id,
            cause="message",
            source="nostr",
            sender=rumor.sender,
            payload=orjson.dumps(payload).decode(),
            at=self._clock.now(),
            or_ignore=True,
        )

    # out

    async def stage(self, caller: str, agent: str, to: PubKey, text: str, key: str) -> StagedMessage:
        """Judge a message and make its wraps. It is sent once the writes are committed and `then` has run.

        Args:
            caller: who asks, as the gate names it.
            agent: whose key signs.
            to: the receiver.
            text: what to say.
            key: the idempotency key.

        Raises:
            NotFound: there is no such agent.
            InvalidInput: the text is empty or too long.
            Refused: the gate said no.
        """
        sender = self._keys.get(agent)
        if sender is None:
            raise NotFound("There is no agent with this name.")
        parts = split(text)
        first = self._clock.now() - len(parts) + 1  # a second apart, so that every client shows them in order
        drafts = [Draft(DM, part, (("p", to),), first + place) for place, part in enumerate(parts)]
        subject = rumor_id(sender.pubkey, drafts[0])
        body = orjson.dumps({"from": sender.pubkey, "text": text, "to": to})
        intent = Intent(caller, _PATH + npub(to), key, body, EffectClass.EXTERNAL, subject, note={"parts": len(drafts)})
        admission = await self._gate.stage(intent)
        if isinstance(admission, Repeated):
            return StagedMessage(admission.subject, (), None, True)
        receivers = (to,) if to == sender.pubkey else (to, sender.pubkey)
        wraps = [wrap(sender, receiver, draft) for draft in drafts for receiver in receivers]
        return self._staged(admission.effect_id, admission.writes, subject, wraps, to)

    def _staged(
        self, effect_id: EffectId, begin: tuple[Write, ...], subject: str, wraps: Sequence[Event], to: PubKey
    ) -> StagedMessage:
        relays = self._relays_of(to)
        rows = [row for event in wraps for row in self._outbox.rows(event, effect_id, relays)]

        def then() -> None:
            self._outbox.kick(rows)
            self._follow(_Sent(effect_id, tuple(event.id for event in wraps)))

        return StagedMessage(subject, (*begin, *rows), then, False)

    async def send(self, caller: str, agent: str, to: PubKey, text: str, key: str) -> str:
        """Send a message now. Its id.

        Raises:
            NotFound, InvalidInput, Refused: as `stage`.
        """
        staged = await self.stage(caller, agent, to, text, key)
        if not staged.repeated:
            await self._unit.commit(staged.writes)
            if staged.then is not None:
                staged.then()
        return staged.message_id

    # what became of it

    def _follow(self, sent: _Sent) -> None:
        sent.next_ms = self._clock.millis() + _LOOK_MS[0]
        self._sent.append(sent)
        self._wake.set()

    async def _resume(self) -> None:
        """Messages that were begun and not ended when the node stopped."""
        for row in await self._unit.select("effect", {"state": "begun"}):
            if row["path"].startswith(_PATH):
                wraps = await self._unit.select("outbox", {"effect_id": row["id"]})
                events = tuple(dict.fromkeys(one["event_id"] for one in wraps))
                self._follow(_Sent(EffectId(row["id"]), events))

    async def _look(self) -> None:
        now = self._clock.millis()
        for sent in [one for one in self._sent if one.next_ms <= now]:
            try:
                ended = await self._settle(sent)
            except VendoError as error:
                log.warning("a message waits", extra={"action": "dm_settle_waits", "code": error.code})
                ended = False
            if ended:
                self._sent.remove(sent)
            else:
                sent.looks += 1
                sent.next_ms = now + _LOOK_MS[min(sent.looks, len(_LOOK_MS) - 1)]

    async def _settle(self, sent: _Sent) -> bool:
        """End the effect once each wrap was taken by a relay, or one was refused by all. Whether it has ended."""
        rows = await self._unit.select("outbox", {"event_id": Among(sent.wraps)})
        states: dict[str, set[str]] = {wrap_id: set() for wrap_id in sent.wraps}
        for row in rows:
            states[row["event_id"]].add(row["state"])
        if all("sent" in found or not found for found in states.values()):  # rows are cleared only after their end
            outcome = Outcome(OutcomeState.COMMIT, detail={"wraps": len(states)})
        elif any(found == {"refused"} for found in states.values()):
            outcome = Outcome(OutcomeState.FAIL, detail={"reason": "every relay refused it"})
        else:
            return False
        try:
            await self._unit.commit(await self._gate.settle(sent.effect_id, outcome))
        except Conflict:
            open_still = await self._unit.select("effect", {"id": sent.effect_id, "state": Among(("begun", "unknown"))})
            return not open_still
        return True

    async def _rest(self, stopping: asyncio.Task[bool]) -> None:
        """Until the next look, a new message, or the end."""
        woken = asyncio.create_task(self._wake.wait())
        waiting: set[asyncio.Task[bool] | asyncio.Task[None]] = {woken, stopping}
        alarm: asyncio.Task[None] | None = None
        if self._sent:
            soonest = min(one.next_ms for one in self._sent)
            alarm = asyncio.create_task(self._clock.sleep((soonest - self._clock.millis()) / 1000))
            waiting.add(alarm)
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()
            if alarm is not None:
                alarm.cancel()


class AgentMessenger:
    """`Messages` as one agent: what its `/nostr/dm` speaks to."""

    def __init__(self, messages: Messages, agent: str) -> None:
        self._messages, self._agent = messages, agent

    async def stage(self, caller: str, to: PubKey, text: str, key: str) -> StagedMessage:
        """Judge a message from this agent.

        Raises:
            InvalidInput, Refused: as `Messages.stage`.
        """
        return await self._messages.stage(caller, self._agent, to, text, key)
