"""A stranger's way in by money: a Cashu token in the first message. Written down first, then swapped, then delivered.

Cheap questions come before the mint is asked: is there a token, of one of our mints, worth enough? A token that the
mint refuses drops the message; an answer that was lost is looked up under the same operation, and until it is known
nobody is let in. Everything else, a pause of the node or a full disk, lets the message wait as it is.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace

import orjson

from core.clock import Clock
from core.error import VendoError
from core.identifier import PubKey
from core.unit import UnitOfWork, Write
from fs.service.treasury import OperationEnded
from node.collector import Collected, Collector
from node.message.admission import Door
from node.message.inbound import Taken
from node.message.record import TABLE, Stamp, State, change, message_row
from node.message.record import Protocol as Way
from relays.kind import DM
from relays.nip17 import Rumor
from wallet.error import MintRefused, TokenRejected

log = logging.getLogger(__name__)

PAID = "paid"
PAID_S = 30 * 86_400
MAX_HELD = 256
_AGAIN_S = 30.0
_NO = (TokenRejected, MintRefused, OperationEnded)  # what trying again does not change
_TOKEN = re.compile(r"cashuB[A-Za-z0-9_-]{40,}={0,2}")


class Toll:
    """Takes tolls, one at a time.

    Args:
        unit: the database.
        collector: takes the tokens.
        clock: time.
        stamp: for the rows.
        doors: whose rules say how much.
        deliver: puts the message into the inbox.
    """

    def __init__(
        self,
        unit: UnitOfWork,
        collector: Collector,
        clock: Clock,
        stamp: Stamp,
        doors: Callable[[str], Door | None],
        deliver: Callable[..., Awaitable[None]],
    ) -> None:
        self._unit, self._collector = unit, collector
        self._clock, self._stamp, self._doors, self._deliver = clock, stamp, doors, deliver
        self._queue: asyncio.Queue[Taken] = asyncio.Queue(MAX_HELD)
        self._waiting: set[tuple[str, str]] = set()  # what is in the queue, or being taken
        self._behind = False  # there are rows that found the queue full

    async def resume(self) -> None:
        """Who has paid lately, and what was held when the node stopped."""
        now = self._clock.now()
        for row in await self._unit.select(TABLE, {"reason": PAID, "direction": "in"}):
            door = self._doors(row["agent"])
            if door is not None and row["created_at"] + PAID_S > now:
                door.paid[row["peer"]] = row["created_at"] + PAID_S
        await self._refill()

    async def _refill(self) -> None:
        """Put into the queue what is held and not there yet."""
        self._behind = False
        for row in await self._unit.select(TABLE, {"state": State.HELD.value, "kind": DM}):
            rumor = Rumor(PubKey(row["peer"]), DM, row["text"], (), row["created_at"], row["id"])
            self._later(Taken(row["agent"], PubKey(""), rumor, Way(row["protocol"])))

    def _later(self, taken: Taken) -> None:
        """Queue what is written down; what does not fit is read again when the queue is empty."""
        name = (taken.agent, taken.rumor.id)
        if name in self._waiting:
            return
        if self._queue.full():
            self._behind = True
            return
        self._waiting.add(name)
        self._queue.put_nowait(taken)

    async def run(self) -> None:
        """Take what is held, until cancelled."""
        while True:
            taken = await self._queue.get()
            failed = False
            try:
                await self._take(taken)
            except VendoError as error:
                failed = True
                log.warning("a toll waits", extra={"action": "toll_waits", "code": error.code})
                await self._clock.sleep(_AGAIN_S)
            self._waiting.discard((taken.agent, taken.rumor.id))
            if failed:
                self._later(taken)
            await self._catch_up()

    async def _catch_up(self) -> None:
        if not self._behind or not self._queue.empty():
            return
        try:
            await self._refill()
        except VendoError as error:
            self._behind = True
            log.warning("held tolls were not read", extra={"action": "toll_unread", "code": error.code})

    async def offer(self, taken: Taken) -> bool:
        """A stranger's message: whether it brings enough to be looked at. Asks nobody.

        Raises:
            VendoError: the database did not take it.
        """
        door = self._doors(taken.agent)
        if door is None or self._queue.full() or not self._is_enough(taken.rumor.content, door.rules.toll_sat):
            return False
        rumor = taken.rumor
        if await self._unit.select(TABLE, {"agent": taken.agent, "id": rumor.id}):
            return True
        row = message_row(
            self._stamp, taken.agent, rumor.id, rumor.sender, incoming=True, protocol=taken.protocol, kind=rumor.kind,
            text=rumor.content, state=State.HELD, created_at=rumor.created_at,
        )  # fmt: skip
        await self._unit.commit([row])
        self._later(taken)
        return True

    def _is_enough(self, text: str, toll_sat: int) -> bool:
        found = _TOKEN.search(text)
        if found is None:
            return False
        try:
            worth = self._collector.worth(found[0])
        except TokenRejected:
            return False
        return worth is not None and worth >= toll_sat

    async def _take(self, taken: Taken) -> None:
        rumor, door = taken.rumor, self._doors(taken.agent)
        found = _TOKEN.search(rumor.content)
        where = {"agent": taken.agent, "id": rumor.id}
        try:
            if found is None or door is None or rumor.sender in door.rules.deny:
                raise TokenRejected("Nobody hears this message: its money stays with the sender.")
            answer = await self._receive(taken, found[0])
        except _NO as error:
            if "cause" in error.context:
                raise  # the mint could not be asked: nothing was begun
            log.info("a toll was not taken", extra={"action": "toll_refused", "code": error.code})
            await self._unit.commit([change(self._stamp, where, State.DROPPED, error.code, text="")])
            return
        door.paid[rumor.sender] = self._clock.now() + PAID_S
        text = rumor.content.replace(found[0], f"[{answer.amount_sat} sat]")
        paid: Write = change(self._stamp, where, State.RECEIVED, PAID, text=text)
        await self._deliver(taken._replace(rumor=replace(rumor, content=text)), paid)

    async def _receive(self, taken: Taken, token: str) -> Collected:
        sender, message = taken.rumor.sender, taken.rumor.id
        body = orjson.dumps({"agent": taken.agent, "from": sender, "message": message})
        note = {"agent": taken.agent, "from": sender}
        return await self._collector.take("node", f"toll:{taken.agent}:{message}", "toll", token, body, note)
