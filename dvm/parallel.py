"""Jobs that several sellers do: follows their purchases until it is decided and until all money is final (ADR 28).

Each purchase is an ordinary one with a part of the reservation, and its own driver. What they came to is computed anew
from their committed rows (`dvm.quorum`); stored is only that somebody is still to be told (a row in `meta`), so that a
crash between two purchases, or before the caller was told, loses nothing.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from core.error import Conflict, StoreUncertain, Unavailable, VendoError
from core.identifier import PubKey
from core.unit import Among, Condition, Delete, Insert, Update, Within, Write
from dvm.desk import Desk
from dvm.error import TooFewSellers
from dvm.job import Purchase
from dvm.opening import TABLE
from dvm.quorum import Ruling, is_shown, judged, spare, together, weigh
from dvm.record import decode, encode
from dvm.redundancy import seat_ids
from dvm.view import PurchaseView

log = logging.getLogger(__name__)

PANEL = "panel/"  # keys in table `meta`, of jobs of which somebody is still to be told
_PANELS = Within(PANEL, "panel0")
_OPEN, _TOLD = "open", "told"


class Parallel:
    """Follows them. `end` asks for one purchase to end early."""

    def __init__(self, desk: Desk, end: Callable[[str], Awaitable[object]]) -> None:
        self._desk, self._end = desk, end
        self._locks: dict[str, asyncio.Lock] = {}
        desk.seated = self.moved

    def opened(self, panel: str) -> Write:
        """What is committed with the purchases of a new job."""
        return Insert("meta", {"key": PANEL + panel, "value": _OPEN})

    def sellers(self, kind: int, count: int, ceiling: int) -> list[PubKey]:
        """Who is asked: different sellers that have announced the kind, those first of whom we know most good.

        Raises:
            TooFewSellers: fewer are known.
        """
        desk, now = self._desk, self._desk.clock.now()
        known = sorted(desk.known_sellers(kind) - {desk.key.pubkey})
        seen = {one: desk.repute.standing(one, kind, ceiling, now) for one in known}
        fit = [one for one in known if not seen[one].fraud]
        if len(fit) < count:
            raise TooFewSellers(f"{len(fit)} sellers of kind {kind} are known; {count} are to do the job.")
        return sorted(fit, key=lambda one: -seen[one].reputation)[:count]

    # ---- what they came to

    async def view(self, panel: str) -> PurchaseView | None:
        """All purchases as one job; None if there is no such job."""
        views = await self._seats(panel)
        if not views:
            return None
        whole = together([view.purchase for view in views])
        return PurchaseView(whole, sum(view.version for view in views), tuple(views))

    async def _seats(self, panel: str) -> list[PurchaseView]:
        rows = await self._desk.unit.select(TABLE, {"id": Among(seat_ids(panel))})
        views = [PurchaseView(decode(Purchase, row["body"]), int(row["version"])) for row in rows]
        return sorted(views, key=_number)

    async def grouped(self, views: Sequence[PurchaseView]) -> list[PurchaseView]:
        """A list of purchases in which those of one job stand once, together."""
        found: dict[str, PurchaseView] = {}
        for view in views:
            seat = view.purchase.seat
            if seat is None:
                found[view.job_id] = view
            elif seat.panel not in found and (whole := await self.view(seat.panel)) is not None:
                found[seat.panel] = whole
        return list(found.values())

    # ---- following them

    async def resume(self) -> None:
        """At start: go on with those of which somebody is still to be told."""
        for row in await self._desk.unit.select("meta", {"key": _PANELS}):
            self.moved(row["key"].removeprefix(PANEL))

    def moved(self, panel: str) -> None:
        """One of its purchases has ended, or its money is final."""
        self._desk.spawn(self._follow(panel), f"panel {panel[:8]}")

    async def _follow(self, panel: str) -> None:
        wait = 0.2
        while True:
            try:
                async with self._locks.setdefault(panel, asyncio.Lock()):
                    return await self._advance(panel)
            except (Conflict, StoreUncertain, Unavailable) as error:
                log.warning("A panel's step was not written: %s", error.code, extra={"action": "panel_unsaved"})
                await self._desk.clock.sleep(wait)
                wait = min(wait * 2, 10.0)

    async def _advance(self, panel: str) -> None:
        """Tell who asked, end what can be ended for nothing, and judge the sellers once all money is final."""
        unit = self._desk.unit
        rows, views = await unit.select("meta", {"key": PANEL + panel}), await self._seats(panel)
        if not rows or not views:
            self._locks.pop(panel, None)
            return
        jobs = [view.purchase for view in views]
        ruling = weigh(jobs)
        if not ruling.decided:
            return
        if rows[0]["value"] == _OPEN:
            writes: list[Write] = [Update("meta", {"key": PANEL + panel, "value": _OPEN}, {"value": _TOLD})]
            whole = PurchaseView(together(jobs), sum(view.version for view in views), tuple(views))
            for callback in self._desk.finished:
                writes += await callback(whole)
            await unit.commit(writes)
        for job_id in spare(jobs):
            try:
                await self._end(job_id)
            except VendoError as error:  # it has ended by itself
                log.info("A purchase was not ended: %s", error.code, extra={"action": "panel_spare"})
        if all(job.closed for job in jobs):
            await unit.commit([*await self._judgement(views, ruling), Delete("meta", {"key": PANEL + panel}, rows=1)])
            self._locks.pop(panel, None)

    async def _judgement(self, views: Sequence[PurchaseView], ruling: Ruling) -> list[Write]:
        """What is kept of each seller: who disagreed has delivered something bad, and no receipt says otherwise."""
        writes: list[Write] = []
        for view in views:
            after = judged(view.purchase, ruling, self._desk.clock.millis())
            if after is not view.purchase:
                where: dict[str, Condition] = {"id": view.job_id, "version": view.version}
                writes.append(Update(TABLE, where, {"body": encode(after), "version": view.version + 1}))
                self._desk.learn(after)
            if is_shown(after, ruling):
                for callback in self._desk.closing:
                    writes += await callback(PurchaseView(after, view.version))
        return writes


def _number(view: PurchaseView) -> int:
    seat = view.purchase.seat
    return 0 if seat is None else seat.number
