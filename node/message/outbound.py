"""Messages out: each is one effect. Its wraps are committed with the effect's `begin` and sent by the outbox.

NIP-17 goes to the relays of the receiver's kind-10050 list, and the sender's own copy to the sender's. Whoever wrote by
NIP-04 last is answered so.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import orjson

from core.clock import Clock
from core.effect import EffectClass, Gate, Intent, Repeated
from core.error import InvalidInput, NotFound
from core.identifier import EffectId, PubKey
from core.unit import Insert, UnitOfWork, Update, Value, Write
from fs.service.nostr import StagedMessage
from node.message.record import Protocol, Stamp, State, message_row
from node.message.route import Routes, Way
from node.message.settlement import Sent, Settlement
from node.message.text import split
from node.message.voice import Voices
from relays.event import Draft, Event
from relays.key import npub
from relays.kind import DM
from relays.nip04 import legacy_draft
from relays.nip17 import rumor_id, wrap_by
from relays.nip25 import reaction_draft
from relays.outbox import Outbox
from relays.signer import Signer

DM_PATH, FILE_PATH, REACT_PATH = "/nostr/dm/", "/nostr/file/", "/nostr/react/"
PUBLISH_PATH = "/nostr/publish"


@dataclass(frozen=True, slots=True)
class _Letter:
    """What is about to be sent: events for the receiver and copies for the sender, with the rows that record them."""

    subject: str
    events: tuple[Event, ...]
    copies: tuple[Event, ...]
    relays: tuple[str, ...] | None
    rows: tuple[Write, ...]


class Outbound:
    """Judges and sends messages of agents.

    Args:
        unit: the database.
        gate: every message is an effect.
        outbox: carries them.
        voices: who signs.
        routes: which way.
        settlement: watches what becomes of them.
        clock: time.
        stamp: for the rows.
        changed: is told whose messages have changed.
        wrote: is told who wrote to whom, and which way.
    """

    def __init__(
        self,
        unit: UnitOfWork,
        gate: Gate,
        outbox: Outbox,
        voices: Voices,
        routes: Routes,
        settlement: Settlement,
        clock: Clock,
        stamp: Stamp,
        changed: Callable[[str], None],
        wrote: Callable[[str, PubKey, Way], None],
    ) -> None:
        self._unit, self._gate, self._outbox, self._voices, self._routes = unit, gate, outbox, voices, routes
        self._settlement, self._clock, self._stamp, self._changed = settlement, clock, stamp, changed
        self._wrote = wrote

    def signer(self, agent: str) -> Signer:
        """Who signs for an agent.

        Raises:
            NotFound: there is no such agent.
        """
        found = self._voices.get(agent)
        if found is None:
            raise NotFound("There is no agent with this name.")
        return found

    async def stage(self, caller: str, agent: str, to: PubKey, text: str, key: str) -> StagedMessage:
        """Judge a message and make its events. It is sent once the writes are committed and `then` has run.

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
            NotReady: nobody knows where the receiver reads.
            SignerUnavailable: a remote signer did not answer.
        """
        sender, parts = self.signer(agent), split(text)
        now = self._clock.now()
        first = now - len(parts) + 1  # a second apart, so that every client shows them in order
        drafts = [Draft(DM, part, (("p", to),), first + place) for place, part in enumerate(parts)]
        subject = rumor_id(sender.pubkey, drafts[0])
        body = orjson.dumps({"from": sender.pubkey, "text": text, "to": to})
        note = {"parts": len(drafts)}
        intent = Intent(caller, DM_PATH + npub(to), key, body, EffectClass.EXTERNAL, subject, note=note)
        admission = await self._gate.stage(intent)
        if isinstance(admission, Repeated):
            return StagedMessage(admission.subject, (), None, True)
        way = await self._routes.find(agent, to)
        if way.protocol is Protocol.NIP04:
            letter = await self._legacy(agent, sender, to, parts, first, way, admission.effect_id)
        else:
            letter = await self._private(agent, sender, to, drafts, way, admission.effect_id)
        return self.staged(
            admission.effect_id, agent, admission.writes, letter, subject, lambda: self._wrote(agent, to, way)
        )

    async def publish(self, caller: str, agent: str, event: Event, key: str) -> StagedMessage:
        """Judge an event that the agent has had signed. It goes to the node's relays once the writes are committed.

        Args:
            caller: who asks, as the gate names it.
            agent: who signed.
            event: whole and signed.
            key: the idempotency key.

        Raises:
            NotFound: there is no such agent.
            InvalidInput: it is signed by another key.
            Refused: the gate said no.
        """
        if event.pubkey != self.signer(agent).pubkey:
            raise InvalidInput("The event is signed by another key than the one of who publishes it.")
        note = {"kind": event.kind}
        intent = Intent(caller, PUBLISH_PATH, key, event.to_json().encode(), EffectClass.EXTERNAL, event.id, note=note)
        admission = await self._gate.stage(intent)
        if isinstance(admission, Repeated):
            return StagedMessage(admission.subject, (), None, True)
        where = {"path": PUBLISH_PATH, "subject": event.id}
        known = {row["state"] for row in await self._unit.select("effect", where, columns=("state",))}
        if known - {"fail"}:  # under another key: it is on its way, or was published
            return StagedMessage(event.id, (), None, True)
        # what no relay took belongs to the effect that tries again
        anew: dict[str, Value] = {
            "state": "pending",
            "effect_id": admission.effect_id,
            "tries": 0,
            "next_at_ms": 0,
            "reason": "",
        }
        refused = {"event_id": event.id, "state": "refused"}
        begin = (*admission.writes, *([Update("outbox", refused, set=anew, rows=None)] if known else []))
        letter = _Letter(event.id, (event,), (), None, ())
        staged = self.staged(admission.effect_id, agent, begin, letter, event.id)
        return staged if known else replace(staged, writes=tuple(map(_first, staged.writes)))

    async def _private(
        self,
        agent: str,
        sender: Signer,
        to: PubKey,
        drafts: Sequence[Draft],
        way: Way,
        effect_id: EffectId,
    ) -> _Letter:
        events = tuple([await wrap_by(sender, to, draft) for draft in drafts])
        own = [] if to == sender.pubkey else drafts
        copies = tuple([await wrap_by(sender, sender.pubkey, draft) for draft in own])
        rows = tuple(
            message_row(
                self._stamp, agent, rumor_id(sender.pubkey, draft), to, incoming=False, protocol=Protocol.NIP17,
                kind=draft.kind, text=draft.content, state=State.QUEUED, created_at=draft.created_at,
                effect_id=effect_id, first=way.first,
            )
            for draft in drafts
        )  # fmt: skip
        return _Letter(rumor_id(sender.pubkey, drafts[0]), events, copies, way.relays, rows)

    async def _legacy(
        self,
        agent: str,
        sender: Signer,
        to: PubKey,
        parts: Sequence[str],
        first: int,
        way: Way,
        effect_id: EffectId,
    ) -> _Letter:
        drafts = [await legacy_draft(sender, to, part, first + place) for place, part in enumerate(parts)]
        events = tuple([await sender.sign(draft) for draft in drafts])
        rows = tuple(
            message_row(
                self._stamp, agent, event.id, to, incoming=False, protocol=Protocol.NIP04, kind=event.kind,
                text=part, state=State.QUEUED, created_at=event.created_at, effect_id=effect_id,
                first=way.first,
            )
            for event, part in zip(events, parts, strict=True)
        )  # fmt: skip
        return _Letter(events[0].id, events, (), way.relays, rows)

    def staged(
        self,
        effect_id: EffectId,
        agent: str,
        begin: tuple[Write, ...],
        letter: _Letter,
        subject: str,
        wrote: Callable[[], None] = lambda: None,
    ) -> StagedMessage:
        """What to commit, and what to do after it."""
        rows = [row for event in letter.events for row in self._outbox.rows(event, effect_id, letter.relays)]
        rows += [row for event in letter.copies for row in self._outbox.rows(event, effect_id)]
        sent = Sent(effect_id, agent, tuple(e.id for e in letter.events), tuple(e.id for e in letter.copies))

        def then() -> None:
            self._outbox.kick(rows)
            self._settlement.follow(sent)
            self._changed(agent)
            wrote()

        return StagedMessage(subject, (*begin, *rows, *letter.rows), then, False)

    async def private_draft(
        self, agent: str, to: PubKey, draft: Draft, effect_id: EffectId, begin: tuple[Write, ...]
    ) -> StagedMessage:
        """A rumor of any kind that is not a text, e.g. a file's: both copies, without a row of its own in `message`.

        Raises:
            NotReady: nobody knows where the receiver reads.
        """
        sender, way = self.signer(agent), await self._routes.find(agent, to)
        relays = way.relays if way.protocol is Protocol.NIP17 else None
        event, copy = await wrap_by(sender, to, draft), await wrap_by(sender, sender.pubkey, draft)
        subject = rumor_id(sender.pubkey, draft)
        letter = _Letter(subject, (event,), (copy,), relays, ())
        return self.staged(effect_id, agent, begin, letter, subject, lambda: self._wrote(agent, to, way))

    async def acknowledge(self, agent: str, to: PubKey, message_id: str, kind: int) -> None:
        """React to a message that was taken, once however often it is called.

        Raises:
            Refused: the gate said no.
            NotReady: nobody knows where the receiver reads.
        """
        sender = self.signer(agent)
        draft = reaction_draft(message_id, to, self._clock.now(), kind=kind)
        body = orjson.dumps({"e": message_id, "from": sender.pubkey, "to": to})
        path = REACT_PATH + npub(to)
        intent = Intent(f"agent:{agent}", path, message_id, body, EffectClass.EXTERNAL, message_id)
        admission = await self._gate.stage(intent)
        if isinstance(admission, Repeated):
            return
        way = await self._routes.find(agent, to)
        relays = way.relays if way.protocol is Protocol.NIP17 else None
        letter = _Letter(message_id, (await wrap_by(sender, to, draft),), (), relays, ())
        staged = self.staged(admission.effect_id, agent, admission.writes, letter, message_id)
        await self._unit.commit(staged.writes)
        if staged.then is not None:
            staged.then()

    async def send(self, caller: str, agent: str, to: PubKey, text: str, key: str) -> str:
        """Send a message now. Its id.

        Raises:
            NotFound, InvalidInput, Refused, NotReady: as `stage`.
        """
        staged = await self.stage(caller, agent, to, text, key)
        if not staged.repeated:
            await self._unit.commit(staged.writes)
            if staged.then is not None:
                staged.then()
        return staged.message_id


def _first(write: Write) -> Write:
    """A row of the outbox that must be the first of its event: of two who publish it at once the other one waits."""
    return replace(write, or_ignore=False) if isinstance(write, Insert) and write.table == "outbox" else write
