"""Signatures for an agent's own words: events of a few harmless kinds, each through the gate, and never bare bytes.

A call from outside is answered with the signed event. Within a tick it is staged with everything else, and the event
comes as a trigger once the tick is committed (DESIGN §4). A signature that was begun and not delivered before a crash
never left this process: it ends as failed.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

import orjson

from core.clock import Clock
from core.effect import EffectClass, Gate, Intent, Outcome, OutcomeState, Repeated
from core.error import Conflict, VendoError
from core.identifier import EffectId, EventId, PubKey
from core.unit import UnitOfWork, Write
from fs.service.identity import StagedSignature
from node.agent.inbox.intake import Intake
from node.agent.wake.herald import Herald
from node.agent.wake.news import signed
from node.identity.registry import Identities
from relays.error import KindForbidden
from relays.event import Draft, Event, Tags, digest
from relays.kind import (
    APP_DATA,
    BLOSSOM_AUTH,
    CLIENT_AUTH,
    DELETION,
    DM,
    DM_RELAYS,
    EPHEMERAL_GIFT_WRAP,
    FILE,
    GIFT_WRAP,
    HANDLER,
    HEARTBEAT,
    HTTP_AUTH,
    KEY_CONSENT,
    KEY_LIST,
    LEDGER_ENTRY,
    LEGACY_DM,
    METADATA,
    RELAY_LIST,
    SEAL,
)
from relays.nip46 import KIND as REMOTE_SIGNING

log = logging.getLogger(__name__)

PATH = "/identity/sign"
DEFAULT_KINDS = frozenset({1, 7, 1111, 1985, 30_023, 31_989})
# Who could sign these would be the agent everywhere, or could take it out of its owner's hands; no setting allows them.
NEVER = frozenset(
    {
        METADATA, 3, LEGACY_DM, DELETION, SEAL, DM, FILE, 62, 443, GIFT_WRAP, LEDGER_ENTRY, RELAY_LIST, DM_RELAYS,
        CLIENT_AUTH, KEY_LIST, KEY_CONSENT, BLOSSOM_AUTH, HTTP_AUTH, REMOTE_SIGNING, HEARTBEAT, HANDLER, 9_734, 9_735,
        10_019, 13_194, 17_375, 23_194, 23_195, EPHEMERAL_GIFT_WRAP, APP_DATA,
    }
)  # fmt: skip


class Signing:
    """Signs for agents. A service: `run` signs what ticks have staged.

    Args:
        identities: the agents' signers.
        unit: the database.
        gate: each signature is an effect.
        clock: time.
        notify: wakes an agent.
        kinds: what agents may sign.
        is_theirs: whether another process, which is alive, began an effect: it signs what its own ticks stage.
        herald: finds whom else to tell of what a tick has had signed.
    """

    def __init__(
        self,
        identities: Identities,
        unit: UnitOfWork,
        gate: Gate,
        clock: Clock,
        notify: Callable[[str], None],
        kinds: Iterable[int] = DEFAULT_KINDS,
        is_theirs: Callable[[EffectId], Awaitable[bool]] | None = None,
        herald: Herald | None = None,
    ) -> None:
        self._is_theirs = is_theirs
        self._herald = herald or Herald(unit, clock, Intake(unit, clock))
        self._own: set[EffectId] = set()
        self._identities, self._unit, self._gate, self._clock, self._notify = identities, unit, gate, clock, notify
        self._kinds = frozenset(kinds) - NEVER
        self._staged: asyncio.Queue[tuple[EffectId, str, Draft]] = asyncio.Queue()

    def check(self, kind: int) -> None:
        """Whether agents may sign this kind.

        Raises:
            KindForbidden: they may not.
        """
        if kind not in self._kinds:
            allowed = ", ".join(map(str, sorted(self._kinds)))
            raise KindForbidden(f"Agents sign no events of kind {kind} here.", remedy=f"Allowed are: {allowed}.")

    async def stage(
        self, caller: str, agent: str, draft: Draft, key: str, pending: Iterable[Write] = ()
    ) -> StagedSignature:
        """Judge a signature. `then` hands it to `run`, which puts the event into the agent's inbox.

        Raises:
            KindForbidden: agents may not sign this kind.
            KeyReused: the key was used for something else.
            Refused: the gate said no.
        """
        pubkey, intent = self._intent(caller, agent, draft, key)
        staged = await self._gate.stage(intent, pending)
        if isinstance(staged, Repeated):
            event_id, _ = _parts(staged.subject)
            return StagedSignature(event_id, (), None, True)
        effect = staged.effect_id

        def then() -> None:
            self._own.add(effect)
            self._staged.put_nowait((effect, agent, draft))

        return StagedSignature(EventId(digest(pubkey, draft).hex()), staged.writes, then, False)

    async def sign(self, caller: str, agent: str, draft: Draft, key: str) -> Event:
        """Sign now. The same key and words are signed again, as of the first time: the event's id stays the same.

        Raises:
            KindForbidden, KeyReused, Refused: as `stage`.
            Conflict: the first time failed, or the agent has another key now.
            SignerUnavailable: the agent's remote signer did not answer, or refused.
        """
        _, intent = self._intent(caller, agent, draft, key)
        staged = await self._gate.stage(intent)
        if isinstance(staged, Repeated):
            event_id, created_at = _parts(staged.subject)
            again = Draft(draft.kind, draft.content, draft.tags, created_at)
            signer = self._identities.current(agent)
            if staged.state == OutcomeState.FAIL.value or digest(signer.pubkey, again).hex() != event_id:
                raise Conflict(
                    "The signature under this key failed, or was of a key that was replaced since.",
                    remedy="Use a new idempotency key.",
                )
            return await signer.sign(again)
        await self._unit.commit(staged.writes)
        try:
            event = await self._signed(staged.effect_id, agent, draft)
        except VendoError as error:
            await self._settle(staged.effect_id, Outcome(OutcomeState.FAIL, detail={"code": error.code}))
            raise
        await self._settle(staged.effect_id, Outcome(OutcomeState.COMMIT, detail={"event": event.id}))
        return event

    def _intent(self, caller: str, agent: str, draft: Draft, key: str) -> tuple[PubKey, Intent]:
        self.check(draft.kind)
        pubkey = self._identities.current(agent).pubkey
        body = orjson.dumps({"agent": agent, "kind": draft.kind, "content": draft.content, "tags": draft.tags})
        subject = f"{digest(pubkey, draft).hex()}:{draft.created_at}"
        note: dict[str, str | int] = {"agent": agent, "kind": draft.kind}
        return pubkey, Intent(caller, PATH, key, body, EffectClass.EXTERNAL, subject, note=note)

    async def _signed(self, effect: EffectId, agent: str, draft: Draft) -> Event:
        self._gate.check(self._gate.permit(effect))
        return await self._identities.current(agent).sign(draft)

    async def _settle(self, effect: EffectId, outcome: Outcome, writes: Iterable[Write] = ()) -> None:
        await self._unit.commit([*await self._gate.settle(effect, outcome), *writes])

    # ---- what ticks have staged

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Sign what ticks stage, until `stop`."""
        await self.bury()
        ready.set()
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                getting = asyncio.create_task(self._staged.get())
                await asyncio.wait((getting, stopping), return_when=asyncio.FIRST_COMPLETED)
                if not getting.done():
                    getting.cancel()
                    return
                await self._deliver(*getting.result())
        finally:
            stopping.cancel()

    async def bury(self) -> None:
        """End what was begun by a process that is gone."""
        for row in await self._unit.select("effect", {"path": PATH, "state": "begun"}):
            effect = EffectId(row["id"])
            if effect in self._own or (self._is_theirs is not None and await self._is_theirs(effect)):
                continue
            lost = Outcome(OutcomeState.FAIL, detail={"code": "restarted"})
            with suppress(Conflict):  # it ended meanwhile
                await self._settle(effect, lost)

    async def _deliver(self, effect: EffectId, agent: str, draft: Draft) -> None:
        try:
            event = await self._signed(effect, agent, draft)
        except VendoError as error:
            outcome = Outcome(OutcomeState.FAIL, detail={"code": error.code})
            news = signed(agent, effect, "identity.unsigned", {"code": error.code, "message": error.message})
        else:
            outcome = Outcome(OutcomeState.COMMIT, detail={"event": event.id})
            news = signed(agent, effect, "identity.signed", {"event": event.to_dict()})
        self._own.discard(effect)
        try:
            told = await self._herald.tell(news)
            await self._settle(effect, outcome, told.writes)
        except Conflict:
            log.info("a signature had ended already", extra={"action": "signature_ended", "agent": agent})
        except VendoError as error:
            log.error("a signature was not delivered", extra={"action": "signature_lost", "code": error.code})
        else:
            for one in told.agents:
                self._notify(one)


class AgentDesk:
    """`Signing` as one agent: what its `/identity/sign` speaks to."""

    def __init__(self, signing: Signing, agent: str, clock: Clock) -> None:
        self._signing, self._agent, self._clock = signing, agent, clock

    def draft(self, kind: int, content: str, tags: Tags, created_at: int | None) -> Draft:
        """The draft that is signed; now, if no time is named.

        Raises:
            KindForbidden: agents may not sign this kind.
        """
        self._signing.check(kind)
        return Draft(kind, content, tags, self._clock.now() if created_at is None else created_at)

    async def stage(self, caller: str, draft: Draft, key: str, pending: Iterable[Write]) -> StagedSignature:
        """As `Signing.stage`."""
        return await self._signing.stage(caller, self._agent, draft, key, pending)

    async def sign(self, caller: str, draft: Draft, key: str) -> Event:
        """As `Signing.sign`."""
        return await self._signing.sign(caller, self._agent, draft, key)


def _parts(subject: str) -> tuple[EventId, int]:
    event_id, _, created_at = subject.partition(":")
    return EventId(event_id), int(created_at)
