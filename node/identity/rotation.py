"""Giving an agent a new key, and telling everybody: a saga that goes on where it stopped.

1. The new key is recorded as the *next* one, together with the effect's `begin`.
2. The old key tells the agent's contacts, each with an idempotency key of its own.
3. Both keys sign their note (relays/succession.py).
4. In one commit: the next key becomes the active one, the old one decrypts only, the notes are in the outbox, the
   effect ends. From then on every list and announcement is published for the new key (`Identities.on_change`).

Until 4 the agent speaks with its old key, and a restart begins again at 2. A key that is lost cannot do its part:
`lost` leaves 2 and the old key's note out, and people must be told in another way.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import orjson

from core.clock import Clock
from core.effect import EffectClass, Gate, Intent, Outcome, OutcomeState, Repeated
from core.error import Conflict, StoreUncertain, VendoError
from core.identifier import EffectId, PubKey
from core.unit import Row, UnitOfWork, Update, Write
from node.gate.gate import effect_id
from node.identity.registry import Derived, Identities, Identity, Imported, Remote, Source
from relays.error import SignerUnavailable
from relays.event import Event
from relays.key import npub
from relays.outbox import Outbox
from relays.succession import predecessor_draft, successor_draft

log = logging.getLogger(__name__)

PATH = "/identity/rotate"
RETRY_S = 30.0
_LOST = "lost"

Tell = Callable[[str, PubKey, str, str], Awaitable[object]]  # (agent, to, text, idempotency key)
Contacts = Callable[[str], Sequence[PubKey]]


@dataclass(frozen=True, slots=True)
class Rotated:
    """How far a rotation is: `done`, or `begun` while something it needs does not answer."""

    agent: str
    old: PubKey
    new: PubKey
    epoch: int
    state: str


class Rotations:
    """Rotates agents' keys. A service: `run` finishes what was begun.

    Args:
        identities: whose keys.
        unit: the database.
        gate: a rotation is an effect.
        outbox: carries the notes.
        clock: time.
        tell: sends a private message from an agent, with the key that it has now.
        contacts: whom to tell.
    """

    def __init__(
        self,
        identities: Identities,
        unit: UnitOfWork,
        gate: Gate,
        outbox: Outbox,
        clock: Clock,
        tell: Tell,
        contacts: Contacts,
    ) -> None:
        self._identities, self._unit, self._gate, self._outbox = identities, unit, gate, outbox
        self._clock, self._tell, self._contacts = clock, tell, contacts
        self._busy = asyncio.Lock()
        self._wake = asyncio.Event()

    async def rotate(
        self, caller: str, name: str, key: str, source: Source | None = None, *, lost: bool = False
    ) -> Rotated:
        """Give an agent its next key. `begun` means that it goes on by itself.

        Args:
            caller: who asks, as the gate names it.
            name: the agent.
            key: the idempotency key.
            source: where the new key is from; derived if nothing is said.
            lost: the old key cannot sign any more.

        Raises:
            IdentityUnknown, IdentityExists: as `Identities.draft_next`.
            Refused: the gate said no.
        """
        async with self._busy:
            old = self._identities.identity(name)
            body = orjson.dumps({"agent": name, "lost": lost, "source": _shown(source)})
            before = await self._repeated(caller, key, body)
            if before is not None:
                return before
            coming, write = self._identities.draft_next(name, source)
            note: dict[str, str | int] = {"agent": name, "epoch": coming.epoch, _LOST: int(lost)}
            intent = Intent(caller, PATH, key, body, EffectClass.EXTERNAL, _subject(coming, lost), note=note)
            staged = await self._gate.stage(intent)
            if isinstance(staged, Repeated):
                raise Conflict("This key was used at the same moment.")
            await self._unit.commit([*staged.writes, write])
            self._identities.expect(coming)
            state = "done" if await self._tried(staged.effect_id, name, lost=lost) else "begun"
        self._wake.set()
        return Rotated(name, old.signer.pubkey, coming.signer.pubkey, coming.epoch, state)

    async def _repeated(self, caller: str, key: str, body: bytes) -> Rotated | None:
        """What came of the same request before; asked first, because the key that it made is not the next one now."""
        rows = await self._unit.select("effect", {"id": effect_id(caller, PATH, key)})
        if not rows:
            return None
        name, epoch, _ = _parts(rows[0]["subject"])
        intent = Intent(caller, PATH, key, body, EffectClass.EXTERNAL, rows[0]["subject"])
        await self._gate.stage(intent)  # raises if the body is another
        keys = {row["epoch"]: PubKey(row["pubkey"]) for row in await self._unit.select("identity", {"name": name})}
        state = "done" if rows[0]["state"] == "commit" else "begun"
        before = max((one for one in keys if one < epoch), default=epoch)
        return Rotated(name, keys[before], keys[epoch], epoch, state)

    # ---- the saga

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Finish what was begun before, now and again, until `stop`."""
        ready.set()
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                self._wake.clear()
                async with self._busy:
                    waiting = not await self._finish_all()
                sleeping = asyncio.create_task(self._clock.sleep(RETRY_S) if waiting else _forever())
                woken = asyncio.create_task(self._wake.wait())
                await asyncio.wait((sleeping, woken, stopping), return_when=asyncio.FIRST_COMPLETED)
                sleeping.cancel()
                woken.cancel()
        finally:
            stopping.cancel()

    async def _finish_all(self) -> bool:
        """Try every rotation that has begun. Whether none is left."""
        try:
            rows: list[Row] = await self._unit.select("effect", {"path": PATH, "state": "begun"})
            begun = {_parts(row["subject"])[0] for row in rows}
            for name in self._identities.rotating():
                if name not in begun:  # the last commit was uncertain, and had happened
                    await self._identities.reload(name)
        except VendoError as error:
            log.warning("rotations wait", extra={"action": "rotation_waits", "code": error.code})
            return False
        done = True
        for row in rows:
            name, _, lost = _parts(row["subject"])
            done = await self._tried(EffectId(row["id"]), name, lost=lost) and done
        return done

    async def _tried(self, effect_id: EffectId, name: str, *, lost: bool) -> bool:
        try:
            await self._finish(effect_id, name, lost=lost)
        except VendoError as error:
            log.warning(
                "A rotation waits: %s",
                error.message,
                extra={"action": "rotation_waits", "agent": name, "code": error.code},
            )
            return False
        return True

    async def _finish(self, effect_id: EffectId, name: str, *, lost: bool) -> None:
        coming = self._identities.succession(name)
        if coming is None:  # the first commit may have been uncertain, and have happened
            await self._identities.reload(name)
            coming = self._identities.succession(name)
        if coming is None:  # the agent was deleted meanwhile
            outcome = Outcome(OutcomeState.FAIL, detail={"reason": "the agent is gone"})
            await self._unit.commit(await self._gate.settle(effect_id, outcome))
            return
        told = 0 if lost else await self._tell_contacts(name, coming)
        notes = await self._notes(name, coming, lost=lost)
        rows = tuple(row for event in notes for row in self._outbox.rows(event, effect_id))
        outcome = Outcome(OutcomeState.COMMIT, detail={"epoch": coming.epoch, "told": told, "notes": len(notes)})
        writes: list[Write] = [
            *self._identities.switch(name),
            Update("agent", {"name": name}, {"pubkey": coming.signer.pubkey}, add={"version": 1}, rows=None),
            *rows,
            *await self._gate.settle(effect_id, outcome),
        ]
        await self._unit.commit(writes)
        self._identities.switched(name)
        self._outbox.kick(rows)
        log.info("an agent has a new key", extra={"action": "rotated", "agent": name, "epoch": coming.epoch})

    async def _tell_contacts(self, name: str, coming: Identity) -> int:
        """Whoever cannot be told does not hold the rotation up; the note is public."""
        text = f"This agent goes on under another key: {npub(coming.signer.pubkey)}. Please write to that one."
        told = 0
        for contact in self._contacts(name):
            try:
                await self._tell(name, contact, text, f"rotation-{coming.epoch}-{contact}")
                told += 1
            except (SignerUnavailable, StoreUncertain, Conflict):
                raise  # the rotation goes on when it is over; who was told is not told again
            except VendoError as error:
                log.info(
                    "a contact was not told", extra={"action": "rotation_untold", "agent": name, "code": error.code}
                )
        return told

    async def _notes(self, name: str, coming: Identity, *, lost: bool) -> list[Event]:
        old, new, now = self._identities.current(name), coming.signer, self._clock.now()
        if lost:
            return []
        first = await old.sign(successor_draft(new.pubkey, name, now))
        second = await new.sign(predecessor_draft(old.pubkey, first.id, name, now))
        if (first.pubkey, second.pubkey) != (old.pubkey, new.pubkey):
            raise SignerUnavailable("A signer signed with another key than its own.")
        return [first, second]


def _shown(source: Source | None) -> str:
    match source:
        case Imported(key):
            return key.pubkey
        case Remote(_, _, user):
            return user
        case Derived(int() as epoch):
            return str(epoch)
    return ""


async def _forever() -> None:
    await asyncio.Event().wait()


def _subject(coming: Identity, lost: bool) -> str:
    return f"{coming.name}:{coming.epoch}" + (f":{_LOST}" if lost else "")


def _parts(subject: str) -> tuple[str, int, bool]:
    name, epoch, *rest = subject.split(":")
    return name, int(epoch), rest == [_LOST]
