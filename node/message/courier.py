"""Files in and out (NIP-17, kind 15). Bytes travel beside the message; what is half done is a row and goes on later.

In: only what a contact sent, bounded, checked against the hashes in the message, kept on the shelf; then the agent
finds an event in its inbox. Out: the encrypted bytes and their key are kept before anything leaves; the wraps go out
once the first of our servers has them.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from hashlib import sha256
from typing import Any, Protocol

import orjson

from core.clock import Clock
from core.effect import EffectClass, Gate, Intent, Outcome, OutcomeState, Repeated
from core.error import NotFound, VendoError
from core.identifier import EffectId, PubKey
from core.unit import Row, UnitOfWork, Write
from fs.service.nostr import StagedMessage
from node.message.blossom import Blossom
from node.message.error import FileRefused, FileUnreachable
from node.message.inbound import Taken
from node.message.outbound import FILE_PATH, Outbound
from node.message.record import TABLE, Stamp, State, change, message_row
from node.message.record import Protocol as Way
from node.message.route import Routes
from node.message.settlement import Settlement
from node.message.shelf import Shelf
from relays.error import MalformedEvent, NotForUs
from relays.event import Draft, tags
from relays.file_message import FileMessage, decrypt_file, encrypt_file, file_draft, read_file_message
from relays.key import npub
from relays.kind import FILE
from relays.nip17 import Rumor, rumor_id

log = logging.getLogger(__name__)

WORKERS = 4
MAX_QUEUED = 1_024
TRIES = 5
_BACK_OFF_S = (1.0, 5.0, 20.0, 60.0)
_AGAIN_S = 30.0  # after something of our own failed: the database, the disk, a distant signer


class Keeper(Protocol):
    """Who puts a fetched file into an agent's inbox: `Inbound`."""

    async def take_file(self, taken: Taken, facts: dict[str, Any], *writes: Write) -> None:
        """Commit it."""


class Courier:
    """Fetches and uploads files.

    Args:
        unit: the database.
        gate: a file out is an effect.
        outbound: wraps and sends.
        routes: whether the receiver can be reached at all.
        settlement: ends what failed.
        blossom: the servers.
        shelf: the disk.
        keeper: the inboxes.
        clock: time.
        stamp: for the rows.
    """

    def __init__(
        self,
        unit: UnitOfWork,
        gate: Gate,
        outbound: Outbound,
        routes: Routes,
        settlement: Settlement,
        blossom: Blossom,
        shelf: Shelf,
        keeper: Callable[[], Keeper],
        clock: Clock,
        stamp: Stamp,
        random: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._unit, self._gate, self._outbound, self._routes = unit, gate, outbound, routes
        self._settlement, self._blossom, self.shelf, self._keeper = settlement, blossom, shelf, keeper
        self._clock, self._stamp, self._random = clock, stamp, random
        self._queue: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue(MAX_QUEUED)
        self._resting: set[asyncio.Task[None]] = set()
        self._sending: set[EffectId] = set()
        self.is_running = False
        self._since = clock.millis() / 1000

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`; what is not done by then goes on at the next start."""
        self.is_running = True
        await self._blossom.start()
        try:
            async with asyncio.TaskGroup() as tasks:
                workers = [tasks.create_task(self._work(), name="files") for _ in range(WORKERS)]
                await stop.wait()
                for worker in workers:
                    worker.cancel()
        finally:
            resting = list(self._resting)
            for task in resting:
                task.cancel()
            await asyncio.gather(*resting, return_exceptions=True)
            await self._blossom.stop()
            self.is_running = False

    async def _work(self) -> None:
        while True:
            job = await self._queue.get()
            try:
                await job()
            except VendoError as error:
                log.warning("a file waits", extra={"action": "file_waits", "code": error.code})
                if len(self._resting) < MAX_QUEUED:  # else its row brings it back at the next start
                    resting = asyncio.create_task(self._rest(job), name="file that waits")
                    self._resting.add(resting)
                    resting.add_done_callback(self._resting.discard)

    async def _rest(self, job: Callable[[], Awaitable[None]]) -> None:
        await self._clock.sleep(_AGAIN_S)
        await self._queue.put(job)

    def _later(self, job: Callable[[], Awaitable[None]]) -> bool:
        try:
            self._queue.put_nowait(job)
        except asyncio.QueueFull:
            return False
        return True

    async def resume(self) -> None:
        """What was held for fetching when the node stopped; and bytes that nothing will ever send go from the disk."""
        for row in await self._unit.select(TABLE, {"state": State.HELD.value, "kind": FILE}):
            taken = _taken(row)
            if taken is not None:
                self._later(partial(self._fetch, taken))

        waiting = await self._unit.select(TABLE, {"state": State.QUEUED.value, "kind": FILE})
        await self.shelf.sweep({x for row in waiting if (x := _held_under(row)) is not None}, self._since)

    # ---- in

    async def receive(self, taken: Taken) -> None:
        """A contact's file message: it is written down, then fetched beside everything else.

        Raises:
            VendoError: the database did not take it.
        """
        rumor = taken.rumor
        try:
            message = read_file_message(rumor)
        except MalformedEvent:
            return
        state, reason = State.HELD, ""
        if message.size > self._blossom.max_bytes:
            state, reason = State.DROPPED, "too large"
        body = {"rumor": {"content": rumor.content, "tags": rumor.tags}, "to": taken.signer_pubkey}
        row = message_row(
            self._stamp, taken.agent, rumor.id, rumor.sender, incoming=True, protocol=taken.protocol, kind=FILE,
            text=orjson.dumps(body).decode(), state=state, created_at=rumor.created_at, reason=reason,
        )  # fmt: skip
        known = await self._unit.select(TABLE, {"agent": taken.agent, "id": rumor.id})
        await self._unit.commit([row])
        if not known and state is State.HELD and not self._later(lambda: self._fetch(taken)):
            await self._drop(taken, "too many files at once")

    async def _fetch(self, taken: Taken) -> None:
        reason = ""
        for place in range(TRIES):
            try:
                await self._fetch_once(taken)
                return
            except FileUnreachable as error:
                reason = error.message
                if place < TRIES - 1:
                    await self._clock.sleep(_BACK_OFF_S[min(place, len(_BACK_OFF_S) - 1)])
            except (FileRefused, NotForUs, MalformedEvent) as error:
                reason = error.message
                break
        await self._drop(taken, reason)

    async def _fetch_once(self, taken: Taken) -> None:
        message = read_file_message(taken.rumor)
        self.shelf.check()
        stored = await self._blossom.download(message.urls, self._blossom.max_bytes)
        data = await asyncio.to_thread(decrypt_file, message, stored)
        ox = sha256(data).hexdigest()
        await self.shelf.put(taken.agent, ox, data)
        facts = {"mime": message.mime, "size": len(data), "ox": ox, "path": f"/nostr/files/{ox}"}
        where = {"agent": taken.agent, "id": taken.rumor.id}
        told = change(self._stamp, where, State.RECEIVED, text=orjson.dumps(facts).decode())
        await self._keeper().take_file(taken, facts, told)

    async def _drop(self, taken: Taken, reason: str) -> None:
        log.info("a file was not taken", extra={"action": "file_dropped", "agent": taken.agent, "reason": reason})
        where = {"agent": taken.agent, "id": taken.rumor.id}
        await self._unit.commit([change(self._stamp, where, State.DROPPED, reason, text="{}")])

    # ---- out

    async def stage(self, caller: str, agent: str, to: PubKey, data: bytes, mime: str, key: str) -> StagedMessage:
        """Judge a file and write down all that sending it needs.

        Raises:
            NoFileServer: there is nowhere to put it.
            FileRefused: it is empty or too large.
            Refused, NotReady: as `Outbound.stage`.
        """
        sender = self._outbound.signer(agent)
        if not 0 < len(data) <= self._blossom.max_bytes - 16:
            raise FileRefused(f"A file has 1 to {self._blossom.max_bytes - 16} bytes.")
        ox = sha256(data).hexdigest()
        secret, nonce = self._random(32), self._random(12)
        stored = await asyncio.to_thread(encrypt_file, data, secret, nonce)
        x = sha256(stored).hexdigest()
        message = FileMessage(self._blossom.addresses(x), mime, secret, nonce, x, ox, len(stored))
        draft = file_draft(message, to, self._clock.now())
        subject = rumor_id(sender.pubkey, draft)
        body = orjson.dumps({"from": sender.pubkey, "mime": mime, "ox": ox, "to": to})
        note = {"bytes": len(data)}
        intent = Intent(caller, FILE_PATH + npub(to), key, body, EffectClass.EXTERNAL, subject, note=note)
        admission = await self._gate.stage(intent)
        if isinstance(admission, Repeated):
            return StagedMessage(admission.subject, (), None, True)
        await self._routes.find(agent, to)
        await self.shelf.hold(x, stored)
        facts = {"mime": mime, "size": len(data), "ox": ox, "draft": {"content": draft.content, "tags": draft.tags}}
        row = message_row(
            self._stamp, agent, subject, to, incoming=False, protocol=Way.NIP17, kind=FILE,
            text=orjson.dumps(facts).decode(), state=State.QUEUED, created_at=draft.created_at,
            effect_id=admission.effect_id,
        )  # fmt: skip

        def then() -> None:
            self._send(admission.effect_id, agent, to, draft)

        return StagedMessage(subject, (*admission.writes, row), then, False)

    async def again(self, effect_id: EffectId) -> bool:
        """Go on with a file that was begun and has no wraps yet. False: there is nothing to go on with."""
        rows = await self._unit.select(TABLE, {"effect_id": effect_id})
        if not rows:
            return False
        if effect_id in self._sending:
            return True
        row = rows[0]
        saved = orjson.loads(row["text"])["draft"]
        draft = Draft(FILE, saved["content"], tags(saved["tags"]), row["created_at"])
        return self._send(effect_id, row["agent"], PubKey(row["peer"]), draft)

    def _send(self, effect_id: EffectId, agent: str, to: PubKey, draft: Draft) -> bool:
        """Have a file delivered beside everything else; false if too many wait."""

        async def deliver() -> None:
            await self._deliver(effect_id, agent, to, draft)
            self._sending.discard(effect_id)

        taken = self._later(deliver)
        if taken:
            self._sending.add(effect_id)
        return taken

    async def _deliver(self, effect_id: EffectId, agent: str, to: PubKey, draft: Draft) -> None:
        x = next(tag[1] for tag in draft.tags if tag[0] == "x")
        stored = await self.shelf.held(x)
        reason = "the file is gone"
        try:
            signer = self._outbound.signer(agent)
        except NotFound:
            stored, reason = None, "the agent is gone"
        for place in range(TRIES if stored is not None else 0):
            try:
                self._gate.check(self._gate.permit(effect_id))
                await self._blossom.upload(x, stored or b"", signer)
                staged = await self._outbound.private_draft(agent, to, draft, effect_id, ())
                await self._unit.commit(staged.writes)
                if staged.then is not None:
                    staged.then()
                await self.shelf.release(x)
                return
            except FileUnreachable as error:
                reason = error.message
                if place < TRIES - 1:
                    await self._clock.sleep(_BACK_OFF_S[min(place, len(_BACK_OFF_S) - 1)])
        outcome = Outcome(OutcomeState.FAIL, detail={"reason": reason[:200]})
        await self._settlement.end(effect_id, agent, outcome, reason)
        await self.shelf.release(x)


def _held_under(row: Row) -> str | None:
    """The name under which the bytes of a file on its way out lie on the shelf."""
    try:
        saved = orjson.loads(row["text"])["draft"]["tags"]
        return next((str(tag[1]) for tag in saved if tag[0] == "x"), None)
    except (orjson.JSONDecodeError, KeyError, TypeError, IndexError):
        return None


def _taken(row: Row) -> Taken | None:
    """A file message as it was written down."""
    try:
        body = orjson.loads(row["text"])
        saved = body["rumor"]
        rumor = Rumor(PubKey(row["peer"]), FILE, saved["content"], tags(saved["tags"]), row["created_at"], row["id"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    return Taken(row["agent"], PubKey(body["to"]), rumor, Way(row["protocol"]))
