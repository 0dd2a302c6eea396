"""What a node does that was restored from a backup: it knows that it is a copy, and does nothing a second time.

Since the backup was taken its earlier life may have paid, been paid, answered and been told things, and no row here
says so. Therefore, once, before anything acts:

- the ledger goes on in a new run: the old one may have gone further;
- every mint is asked before anything is begun there (`wallet.copy`); payments that were prepared are not sent;
- jobs that may have been paid since end, and their effects are parked (`dvm.copy`); what had left is followed. So are
  the operator's payments that had begun and of which the wallet knows nothing (`fs.service.treasury`);
- triggers that waited are put into the dead letter, and alarms that were due in between are counted as missed: they
  may have been dealt with. Their operator hands out again what should be (`/inbox/deadletter`);
- messages that were written in between are recorded, and not acted upon (`heard_since`).

With `moved` the operator has said that the node was stopped when the backup was taken and did not run since: then only
the first two hold. What had no trace that could be looked up is at least once: an answer that was sent just after the
backup may be sent again, and a request that a program repeats with its old idempotency key is a new one.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import orjson

from core.clock import Clock
from core.error import InvalidInput, VendoError
from core.unit import Condition, Delete, Insert, Row, UnitOfWork, Update, Value, Within, Write
from node.agent.inbox.row import DEAD, NEW
from node.agent.inbox.row import TABLE as INBOX
from node.agent.wake.alarm import TABLE as ALARMS
from node.agent.wake.alarm import following, ring
from node.backup.unpack import RESTORED

log = logging.getLogger(__name__)

WAITED = "backup.waited: It waited when the backup was taken, and may have been dealt with since."
LOOK_S = 5.0
_PAGE = 500


class Ledger(Protocol):
    """Where entries go: `node.gate.gate.NodeGate`."""

    async def new_run(self, reason: str) -> None:
        """Go on in a new run."""


class Money(Protocol):
    """The wallet, as far as it is needed here."""

    async def mark_copied(self) -> None:
        """The rows are an old copy's."""

    async def copied(self) -> Mapping[str, str]:
        """Mint → `pending…`, `same` or `moved`."""

    async def forget_copied(self) -> None:
        """Nobody needs the answers any more."""


class Spending(Protocol):
    """Buying, and the operator's own payments, as far as they are needed here."""

    async def adopt_copy(self) -> int:
        """End what may have been paid since."""

    async def nothing_was_paid(self) -> int:
        """No money moved since: what was ended cost nothing."""


class Homecoming:
    """What follows from a restore. A service: `run` waits until every mint has answered.

    Args:
        unit: the database; `vendo restore` has left a mark in it.
        clock: time.
        ledger: the gate.
        money: the wallet.
        spending: what was being bought and paid.
    """

    def __init__(self, unit: UnitOfWork, clock: Clock, ledger: Ledger, money: Money, *spending: Spending) -> None:
        self._unit, self._clock, self._ledger, self._money, self._spending = unit, clock, ledger, money, spending
        self._mark: dict[str, Any] = {}

    @property
    def heard_since(self) -> int:
        """Unix seconds: what was written before is not acted upon. 0 where nothing was restored."""
        return 0 if self._mark.get("moved") else int(self._mark.get("adopted_at", 0))

    async def facts(self) -> Mapping[str, Any] | None:
        """What is known of the restore, and which mints have not answered yet; None where nothing was restored."""
        if not self._mark:
            return None
        return {**self._mark, "mints": dict(await self._money.copied())}

    # ---- the first start

    async def is_adopted(self) -> bool:
        """Whether a process may act on these rows: they are no copy's, or `adopt` has been here.

        Raises:
            VendoError: the database failed.
        """
        mark = await self._read()
        if mark is None:
            return True
        if "adopted_at" not in mark:
            return False
        self._mark = mark
        return True

    async def _read(self) -> dict[str, Any] | None:
        rows = await self._unit.select("meta", {"key": RESTORED})
        found: dict[str, Any] | None = orjson.loads(rows[0]["value"]) if rows else None
        return found

    async def adopt(self) -> None:
        """Before anything acts. What a crash interrupts is done again at the next start.

        Raises:
            VendoError: the database failed.
        """
        mark = await self._read()
        if mark is None:
            return
        self._mark = mark
        if "adopted_at" in mark:
            return
        taken = datetime.fromtimestamp(self._mark["taken_at"], UTC).isoformat()
        await self._ledger.new_run(f"restored from a backup of {taken}")
        await self._money.mark_copied()
        if self._mark["moved"]:
            await self._say(waited=0, alarms=0, jobs=0, adopted_at=self._clock.now())
        else:
            if "waited" not in self._mark:  # once: what waits after this is what those jobs have told
                await self._say(alarms=await self._silence(), waited=await self._set_aside())
            jobs = sum([await one.adopt_copy() for one in self._spending])
            await self._say(jobs=jobs, adopted_at=self._clock.now())
        found = {name: self._mark[name] for name in ("waited", "alarms", "jobs")}
        log.warning("this node was restored from a backup", extra={"action": "restored", "taken_at": taken, **found})

    async def _say(self, **more: Any) -> None:
        self._mark = {**self._mark, **more}
        value = orjson.dumps(self._mark).decode()
        await self._unit.commit([Update("meta", {"key": RESTORED}, {"value": value})])

    async def _set_aside(self) -> int:
        """Triggers that waited. An agent's very first one stays: without it there is no agent."""
        count, after = 0, 0
        while True:
            where: dict[str, Condition] = {"state": NEW, "n": Within(low=after + 1)}
            rows = await self._unit.select(INBOX, where, order=("n",), limit=_PAGE, columns=("n", "cause"))
            if not rows:
                return count
            after = rows[-1]["n"]
            waited = [row["n"] for row in rows if row["cause"] != "initialize"]
            await self._unit.commit([_dead(n, self._clock.millis()) for n in waited])
            count += len(waited)

    async def _silence(self) -> int:
        """Alarms that were due in between, or should have been."""
        now, count = self._clock.millis(), 0
        while True:
            due: dict[str, Condition] = {"due_ms": Within(high=now + 1)}
            rows = await self._unit.select(ALARMS, due, order=("due_ms",), limit=_PAGE)
            if not rows:
                return count
            await self._unit.commit([write for row in rows for write in _missed(row, now)])
            count += len(rows)

    # ---- until every mint has answered

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Look now and then, until all is known or `stop`."""
        ready.set()
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                done = await self._look()
                resting = asyncio.create_task(asyncio.Event().wait() if done else self._clock.sleep(LOOK_S))
                await asyncio.wait({resting, stopping}, return_when=asyncio.FIRST_COMPLETED)
                resting.cancel()
        finally:
            stopping.cancel()

    async def _look(self) -> bool:
        """Whether nothing is left to find out."""
        if not self._mark or "settled_at" in self._mark:
            return True
        try:
            states = dict(await self._money.copied())
            if any(state not in ("same", "moved") for state in states.values()):
                return False
            moved = "moved" in states.values()
            if not moved:
                for one in self._spending:
                    await one.nothing_was_paid()
            await self._say(settled_at=self._clock.now(), money_moved=moved)
            await self._money.forget_copied()
        except VendoError as error:
            log.warning("a restored node waits", extra={"action": "restored_waits", "code": error.code})
            return False
        log.info("every mint has answered", extra={"action": "restored_settled", "money_moved": moved})
        return True


def _dead(n: int, now_ms: int) -> Write:
    """It came long ago, and died now: `node.retention.rule` counts from then."""
    died: dict[str, Value] = {"state": DEAD, "error": WAITED, "next_at_ms": now_ms}
    return Update(INBOX, {"n": n, "state": NEW}, died, rows=None)


def _missed(row: Row, now_ms: int) -> Sequence[Write]:
    """What becomes of an alarm whose time fell into what nobody remembers."""
    where = {"agent": row["agent"], "id": row["id"], "due_ms": row["due_ms"]}
    try:
        after, skipped = following(row, now_ms)
    except InvalidInput:  # its time zone is not known any more
        after, skipped = None, 0
    if after is not None:
        return (Update(ALARMS, where, {"due_ms": after, "missed": row["missed"] + skipped + 1}),)
    rung = ring(row, now_ms, row["missed"])
    told = Insert(INBOX, {**rung.row, "state": DEAD, "error": WAITED, "next_at_ms": now_ms}, or_ignore=True)
    return (Delete(ALARMS, where, rows=1), told)
