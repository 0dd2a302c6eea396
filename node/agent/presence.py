"""Agents in public: profile, relay lists, announcement and heartbeat of each, and all of it taken back at the end.

Contents are fixed by the settings, so this runs under the gate's standing permit. What an agent has said is remembered
(`presence/<name>` in table `meta`): it is said again when it changes and once a day, not at every start.
"""

import asyncio
import heapq
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256

import orjson

from core.clock import Clock
from core.error import VendoError
from core.identifier import PubKey
from core.money import Msat
from core.unit import Delete, Insert, UnitOfWork, Update, Write
from node.message.voice import Voices
from relays.event import Draft, Event
from relays.kind import DELETION, DM, DM_RELAYS, HANDLER, HEARTBEAT, METADATA, RELAY_LIST
from relays.nip65 import relay_drafts
from relays.nip89 import Announcement, announcement_draft
from relays.outbox import Outbox
from relays.presence import Profile, heartbeat_draft, profile_draft
from relays.signer import Signer

log = logging.getLogger(__name__)

KEY = "presence/"
PURPOSE = "agent.presence"  # the standing purpose
D = "vendo-agent"
AGAIN_S = 86_400
RETRY_S = 60
PAUSE_S = 0.04  # between two agents: relays limit what one connection may publish
WITHDRAWN = ("withdrawn", 0)
_KINDS = (METADATA, RELAY_LIST, DM_RELAYS, HANDLER, HEARTBEAT)


@dataclass(frozen=True, slots=True)
class Face:
    """What an agent shows. `price` None: strangers cannot write to it, so it announces no service."""

    name: str
    about: str
    price: Msat | None = None
    pow_bits: int = 0
    mints: tuple[str, ...] = ()
    nip05: str = ""


Faces = Callable[[str], Face | None]


class Presence:
    """Publishes for agents. A service: `run` says what is due.

    Args:
        unit: the database.
        outbox: carries the events.
        voices: who signs.
        clock: time.
        relays: where agents read and write.
        faces: what an agent shows; None if it is not public.
        heartbeat_s: how often those who serve say that they are there; 0 is never.
    """

    def __init__(
        self,
        unit: UnitOfWork,
        outbox: Outbox,
        voices: Voices,
        clock: Clock,
        relays: Callable[[], Sequence[str]],
        faces: Faces,
        heartbeat_s: int = 300,
    ) -> None:
        self._unit, self._outbox, self._voices, self._clock = unit, outbox, voices, clock
        self._relays, self._faces, self._heartbeat_s = relays, faces, heartbeat_s
        self._due: list[tuple[int, str, bool]] = []  # when, who, whether it is only a heartbeat
        self._beating: set[str] = set()
        self._said: dict[str, tuple[str, int]] = {}  # name -> digest, when
        self._beats: dict[str, str] = {}  # name -> the last heartbeat's event
        self._wake = asyncio.Event()
        self._now_said, self._is_said = "", asyncio.Event()  # who is being announced; whether that is over

    def renew(self, name: str) -> None:
        """Say who an agent is, soon; nothing is sent if it was said lately and nothing has changed."""
        heapq.heappush(self._due, (0, name, False))
        self._wake.set()

    # ---- life

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Publish until `stop`."""
        ready.set()
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                self._wake.clear()
                wait = await self._next()
                resting = asyncio.create_task(self._clock.sleep(wait))
                woken: asyncio.Task[bool] = asyncio.create_task(self._wake.wait())
                waiting: set[asyncio.Task[bool] | asyncio.Task[None]] = {resting, stopping}
                if wait > PAUSE_S:  # a pause between two agents is kept, whatever else there is to say
                    waiting.add(woken)
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                resting.cancel()
                woken.cancel()
        finally:
            stopping.cancel()

    async def _last(self, name: str) -> tuple[str, int] | None:
        """What an agent has said, as a digest, and when; None if nothing."""
        if name not in self._said:
            rows = await self._unit.select("meta", {"key": KEY + name})
            if not rows:
                return None
            digest, _, at = rows[0]["value"].partition(" ")
            self._said[name] = (digest, int(at or 0))
        return self._said[name]

    def forget(self, name: str) -> None:
        """Say nothing more of an agent, and keep nothing of it: it hibernates."""
        self._said.pop(name, None)
        self._beats.pop(name, None)
        self._beating.discard(name)

    async def _next(self) -> float:
        """Do what is due first; how long to rest after it, in seconds."""
        now = self._clock.now()
        if not self._due:
            return float(AGAIN_S)
        if self._due[0][0] > now:
            return float(self._due[0][0] - now)
        _, name, beat = heapq.heappop(self._due)
        face, signer = self._faces(name), self._voices.get(name)
        if face is None or signer is None:
            self._beating.discard(name)
            return 0.0
        self._now_said, self._is_said = name, asyncio.Event()
        try:
            return await self._say(name, beat, face, signer, now)
        finally:
            self._now_said = ""
            self._is_said.set()

    async def _say(self, name: str, beat: bool, face: Face, signer: Signer, now: int) -> float:
        try:
            if beat:
                return await self._beat(name, face, signer, now)
            sent = await self._announce(name, face, signer, now)
        except VendoError as error:
            log.warning("an agent was not announced", extra={"action": "presence_failed", "code": error.code})
            heapq.heappush(self._due, (now + RETRY_S, name, beat))
            return PAUSE_S
        heapq.heappush(self._due, (self._said[name][1] + AGAIN_S, name, False))
        if self._heartbeat_s and face.price is not None and name not in self._beating:
            self._beating.add(name)
            heapq.heappush(self._due, (now, name, True))
        return PAUSE_S if sent else 0.0

    # ---- saying

    async def _announce(self, name: str, face: Face, signer: Signer, now: int) -> bool:
        drafts = self.drafts(face, signer.pubkey, now)
        plain = orjson.dumps([signer.pubkey, *((one.kind, one.content, one.tags) for one in drafts)])
        digest = sha256(plain).hexdigest()
        before = await self._last(name)
        if before is not None and before[0] == digest and now - before[1] < AGAIN_S:
            return False
        await self._publish([await signer.sign(draft) for draft in drafts], self._remember(name, digest, now))
        self._said[name] = (digest, now)
        return True

    async def _beat(self, name: str, face: Face, signer: Signer, now: int) -> float:
        if face.price is None:
            self._beating.discard(name)
            return 0.0
        event = await signer.sign(heartbeat_draft(D, now))
        last = self._beats.get(name)  # the new one replaces it everywhere: nobody needs its rows any more
        await self._publish([event], [Delete("outbox", {"event_id": last})] if last not in (None, event.id) else ())
        self._beats[name] = event.id
        heapq.heappush(self._due, (now + self._heartbeat_s, name, True))
        return PAUSE_S

    def drafts(self, face: Face, pubkey: PubKey, now: int) -> list[Draft]:
        """Kinds 0, 10002, 10050 and, if strangers may write, 31990."""
        profile = Profile(face.name, face.about, nip05=face.nip05, bot=True)
        out = [profile_draft(profile, now), *relay_drafts(self._relays(), now)]
        if face.price is not None:
            prices = {DM: face.price}
            params = {"pow": face.pow_bits} if face.pow_bits else {}
            offer = Announcement(pubkey, D, (DM,), prices, face.mints, face.name, face.about, now, params)
            out.append(announcement_draft(offer))
        return out

    def _remember(self, name: str, digest: str, now: int) -> list[Write]:
        key, value = KEY + name, f"{digest} {now}"
        return [
            Insert("meta", {"key": key, "value": value}, or_ignore=True),
            Update("meta", {"key": key}, {"value": value}),
        ]

    async def _publish(self, events: Sequence[Event], more: Sequence[Write] = ()) -> None:
        rows = [row for event in events for row in self._outbox.rows(event, PURPOSE)]
        await self._unit.commit([*rows, *more])
        self._outbox.kick(rows)

    # ---- taking back

    async def withdraw(self, name: str, signer: Signer) -> None:
        """Delete everything that an agent has published of itself (NIP-09), and put empty lists in its place.

        Not every relay deletes; a newer, empty event is understood by all of them.

        Raises:
            SignerUnavailable: its signer is far away and does not answer.
        """
        if self._now_said == name:  # what is about to be published is taken back, too
            await self._is_said.wait()
        self._beating.discard(name)
        self._beats.pop(name, None)
        said = await self._last(name)
        if said is None or said == WITHDRAWN:
            return
        events = [await signer.sign(draft) for draft in withdrawal(signer.pubkey, self._clock.now())]
        await self._publish(events, self._remember(name, *WITHDRAWN))
        self._said.pop(name, None)


def withdrawal(pubkey: PubKey, now: int) -> list[Draft]:
    """What takes an identity's public events back: a deletion (NIP-09), and empty ones that are newer."""
    places = [("a", f"{kind}:{pubkey}:{D if kind == HANDLER else ''}") for kind in _KINDS]
    kinds = [("k", str(kind)) for kind in _KINDS]
    profile = orjson.dumps({"deleted": True}).decode()
    return [
        Draft(DELETION, "This agent is no more.", tuple(places + kinds), now),
        Draft(METADATA, profile, (), now + 1),
        *(Draft(one.kind, "", (), one.created_at) for one in relay_drafts((), now + 1)),
        Draft(HANDLER, "", (("d", D),), now + 1),
    ]
