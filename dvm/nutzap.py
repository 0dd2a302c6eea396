"""Nutzaps (NIP-61): says where they are taken, checks each one that comes, swaps its coins, and lets them pay for jobs.

Cheapest checks first; what its coins are worth is known from their locks and DLEQ proofs and the keysets of a trusted
mint, so junk costs nobody a call. What passed is written down with the gate's `begin` before the mint is asked to swap,
and swapped by the wallet's own saga under an id that derives from the event: a crash at any step loses and doubles
nothing. `dvm/tip.py` decides what it then is.
"""

import asyncio
import logging
from collections import Counter as Tally
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from core.clock import Clock
from core.effect import EffectClass, Gate, Intent, Outcome, OutcomeState, Repeated
from core.error import Conflict, Refused, StoreUncertain, Unavailable, VendoError
from core.guard import Crew
from core.identifier import EffectId, derived_id
from core.money import Msat
from core.unit import Insert, Row, UnitOfWork, Update, Within
from dvm import tip as tips
from dvm.admission import Meter
from dvm.tip import ENDED, TABLE, Lapsed, PaidTwice, Redeemed, State, Tip, owner_of, step
from relays.error import MalformedEvent
from relays.event import Event, parse_json
from relays.filter import Filter
from relays.key import Key
from relays.kind import NUTZAP
from relays.nip61 import (
    Nutzap,
    info_draft,
    locked_to,
    read_nutzap,
    redeemed_content,
    redeemed_draft,
    withdrawn_draft,
)
from relays.outbox import TABLE as OUTBOX
from relays.outbox import Outbox
from relays.pool import Pool
from wallet.error import MintBusy, MintRefused, TokenRejected, TokenSpent
from wallet.payment import State as OperationState
from wallet.wallet import Wallet

log = logging.getLogger(__name__)

PURPOSE = "market.nutzaps"  # the standing purpose
SUBSCRIPTION = "market/nutzaps"
PATH = "/serve/nutzap"
ANNOUNCED = "nutzap/announced"  # in `meta`: what was last said of where they are taken
PAST_S = 14 * 86_400  # so far back they are looked for at the first start
AHEAD_S = 600  # a sender's clock may be wrong by so much
LOCK_S = 3_600  # a coin that others can take sooner is none for us
AGAIN_S = 86_400
LOOK_S = 15.0
SLOWEST_S = 3_600.0
MAX_SEEN = 256  # that wait for their mint, or for the node to go on
UNKNOWN_S = 86_400  # a keyset that a mint has not named in so long it does not have
GIVE_UP_S = 30 * 86_400
PER_SECOND, BURST = 20.0, 100  # that are looked at; the rest waits at the relays
LISTED = 100


class Market(Protocol):
    """What is sold: `dvm.selling.Selling`."""

    def find(self, request_id: str) -> "Paid | None":
        """The sale of a request, if it has not ended."""


class Paid(Protocol):
    """An open sale: `dvm.sale.OpenSale`."""

    @property
    def invoiced(self) -> str:
        """The payment hash of its invoice; empty if it has none."""

    async def look(self) -> None:
        """Ask now whether its invoice was paid."""

    async def take_credit(self) -> bool:
        """Have it paid by what its customer is owed."""


async def sale_of(unit: UnitOfWork, named: Sequence[str]) -> str:
    """The request of ours that is named, by itself or by an answer to it; empty if none is."""
    for one in named:
        if await unit.select("sale", {"id": one}, columns=("id",)):
            return one
        sent = await unit.select(OUTBOX, {"event_id": one}, columns=("effect_id",), limit=1)
        found = await unit.select("sale", {"effect_id": sent[0]["effect_id"]}, columns=("id",)) if sent else []
        if found:
            return str(found[0]["id"])
    return ""


class Nutzaps:
    """Takes nutzaps for one node. A service.

    Args:
        unit: the database.
        gate: the node's gate.
        pool: relays.
        outbox: sends what was committed.
        wallet: checks and swaps. Its mints are the ones at which nutzaps are taken.
        key: the node's, to which they are sent. They are locked to the wallet's, never to this one.
        clock: time.
        market: the sales that they may pay for.
        offered: whether it is said in public that they are taken.
        taken: whether they are; else what was begun is finished.
    """

    def __init__(
        self,
        unit: UnitOfWork,
        gate: Gate,
        pool: Pool,
        outbox: Outbox,
        wallet: Wallet,
        key: Key,
        clock: Clock,
        market: Market,
        offered: Callable[[], bool],
        *,
        taken: bool = True,
    ) -> None:
        self.refused: Tally[str] = Tally()
        self._unit, self._gate, self._pool, self._outbox, self._wallet = unit, gate, pool, outbox, wallet
        self._key, self._clock, self._market, self._offered = key, clock, market, offered
        self._crew = Crew(log, "nutzap_task_failed")
        self._busy: set[str] = set()
        self._meter = Meter(BURST, PER_SECOND)
        self._said_at: float | None = None
        self._listens = taken
        self._later: dict[str, tuple[float, float]] = {}  # what was not to be had: when again, and how long after

    @property
    def pubkey(self) -> str:
        """The key to which nutzaps for us are locked, compressed."""
        return locked_to(self._wallet.key.pubkey)

    # ---- life

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Take them until `stop`; what is then open goes on at the next start."""
        if self._listens:
            to_us = {"p": frozenset({self._key.pubkey})}
            asked = Filter(kinds=frozenset({NUTZAP}), tags=to_us, since=self._clock.now() - PAST_S)
            self._pool.subscribe(SUBSCRIPTION, [asked], self._on_nutzap)
        ready.set()
        stopped = asyncio.ensure_future(stop.wait())
        try:
            while not stop.is_set():
                try:
                    await self._look()
                except VendoError as error:
                    log.warning("Nutzaps are not looked at: %s", error.code, extra={"action": "nutzaps_wait"})
                resting = asyncio.ensure_future(self._clock.sleep(LOOK_S))
                await asyncio.wait((resting, stopped), return_when=asyncio.FIRST_COMPLETED)
                resting.cancel()
        finally:
            stopped.cancel()
            self._pool.unsubscribe(SUBSCRIPTION)
            await self._crew.end()
            self._busy.clear()

    async def _look(self) -> None:
        """Say what is due, and go on with what is open."""
        await self._announce()
        for state, order in ((State.SEEN, "created_at"), (State.TAKEN, "created_at"), (State.OWED, "-created_at")):
            for row in await self._unit.select(TABLE, {"state": state.value}, order=(order, "id"), limit=MAX_SEEN):
                self._begin(tips.read(row))
        for row in await self._unit.select(TABLE, {"beside": Within(low=" ")}, limit=MAX_SEEN):
            await self._look_beside(tips.read(row))

    # ---- where they are taken

    async def _announce(self) -> None:
        mints = self._wallet.mints
        draft = info_draft(self._pool.urls, mints, self._wallet.key.pubkey, self._clock.now())
        wanted = derived_id(*(item for tag in draft.tags for item in tag)) if mints and self._offered() else ""
        rows = await self._unit.select("meta", {"key": ANNOUNCED})
        said = rows[0]["value"] if rows else ""
        fresh = self._said_at is not None and self._clock.monotonic() < self._said_at + AGAIN_S
        if said == wanted and (not wanted or fresh):
            return
        event = self._key.sign(draft if wanted else withdrawn_draft(self._key.pubkey, self._clock.now()))
        sent = self._outbox.rows(event, PURPOSE)
        await self._unit.commit(
            [
                Insert("meta", {"key": ANNOUNCED, "value": wanted}, or_ignore=True),
                Update("meta", {"key": ANNOUNCED}, {"value": wanted}),
                *sent,
            ]
        )
        self._said_at = self._clock.monotonic()
        self._outbox.kick(sent)

    # ---- one that comes

    async def _on_nutzap(self, event: Event, relay: str) -> None:
        """A verified kind 9321. When it returns, what is to be kept of it is durable.

        Raises:
            Unavailable, Conflict, StoreUncertain: the relay is to be asked for it again.
        """
        while not self._meter.take("", self._clock.monotonic()):
            await self._clock.sleep(1 / PER_SECOND)  # what waits meanwhile waits at the relay
        reason = self._screened(event)
        if reason:
            self.refused[reason] += 1
            return
        if await self._unit.select(TABLE, {"id": event.id}, columns=("id",)):
            return
        zap = read_nutzap(event, self._key.pubkey)
        tip = Tip(
            event.id,
            zap.sender,
            zap.mint,
            self._clock.now(),
            sale=await sale_of(self._unit, zap.named),
            raw=event.to_json(),
        )
        taken = await self._taken(tip, zap, new=True)
        if taken is not None:
            self._begin(taken)

    def _screened(self, event: Event) -> str:
        """Why it is not looked at; empty if it is. Asks nobody."""
        try:
            zap = read_nutzap(event, self._key.pubkey)
        except MalformedEvent:
            return "malformed"
        if event.created_at > self._clock.now() + AHEAD_S:
            return "too_early"
        if zap.sender == self._key.pubkey:
            return "ours"
        return "" if zap.mint in self._wallet.mints else "token.mint"

    async def _taken(self, tip: Tip, zap: Nutzap, *, new: bool = False) -> Tip | None:
        """Its next state if its coins are good, durably; None if nothing more is to be done with it now.

        Raises:
            Unavailable: too many wait already.
        """
        try:
            not_before = self._clock.now() + LOCK_S
            await self._wallet.appraise(owner_of(tip.id), zap.payload, self.pubkey, not_before, tip.sender)
            admission = await self._gate.stage(
                Intent(
                    caller=f"customer:{tip.sender}",
                    path=PATH,
                    key=tip.id,
                    body=tip.id.encode(),  # the id is the hash of the whole event
                    effect=EffectClass.EXTERNAL,
                    subject=tip.id,
                    note={"mint": tip.mint, **({"request": tip.sale} if tip.sale else {})},
                )
            )
        except TokenRejected as error:
            self.refused[error.code] += 1
            log.info("A nutzap was refused: %s", error.code, extra={"action": "nutzap_refused", "code": error.code})
            if not new:
                await self._unit.commit([tips.forget(tip)])
            return None
        except (Unavailable, Refused) as error:  # a mint that is away, a node that is paused: it is ours all the same
            log.info("A nutzap waits: %s", error.code, extra={"action": "nutzap_waits", "code": error.code})
            if new:
                await self._wait(tip)
            elif isinstance(error, MintBusy) and self._clock.now() > tip.created_at + UNKNOWN_S:
                self.refused["given_up"] += 1
                await self._unit.commit([tips.forget(tip)])
            return None
        if isinstance(admission, Repeated):  # of an earlier life, whose row is gone
            self.refused["repeated"] += 1
            if not new:
                await self._unit.commit([tips.forget(tip)])
            return None
        now = self._clock.now()
        after = step(tip, tips.Appraised(admission.effect_id))
        row = tips.insert(after, now) if new else tips.update(tip, after, now)
        await self._unit.commit([*admission.writes, row])
        return after if new else tips.next_version(after)

    async def _wait(self, tip: Tip) -> None:
        """Keep it until its coins can be looked at.

        Raises:
            Unavailable: too many are kept; the relay has it as well.
        """
        if await self._unit.count(TABLE, {"state": State.SEEN.value}, limit=MAX_SEEN) >= MAX_SEEN:
            raise Unavailable("Too many nutzaps wait for their mints.")
        await self._unit.commit([tips.insert(tip, self._clock.now())])

    # ---- what is open

    def _begin(self, tip: Tip) -> None:
        """Go on with it in a task, unless one is at it."""
        due, _ = self._later.get(tip.id, (0.0, 0.0))
        if tip.state in ENDED or tip.id in self._busy or self._clock.monotonic() < due:
            return
        self._busy.add(tip.id)
        self._crew.spawn(self._go_on(tip), f"nutzap {tip.id[:8]}")

    async def _go_on(self, tip: Tip) -> None:
        try:
            found: Tip | None = tip
            if tip.state is State.SEEN:
                found = await self._looked_at(tip)
            if found is not None and found.state is State.TAKEN:
                found = await self._redeemed(found)
            if found is not None and found.state is State.OWED and (sale := self._market.find(found.sale)) is not None:
                await sale.take_credit()
        except (Conflict, StoreUncertain, Unavailable) as error:
            log.info("A nutzap waits: %s", error.code, extra={"action": "nutzap_waits", "code": error.code})
        finally:
            self._busy.discard(tip.id)

    async def _looked_at(self, tip: Tip) -> Tip | None:
        if self._clock.now() > tip.created_at + GIVE_UP_S:
            self.refused["given_up"] += 1
            await self._unit.commit([tips.forget(tip)])
            return None
        return await self._taken(tip, read_nutzap(parse_json(tip.raw), self._key.pubkey))

    async def _redeemed(self, tip: Tip) -> Tip | None:
        """Swap its coins; the same again after a crash. None if that is not certain yet."""
        effect = EffectId(tip.effect_id)
        zap = read_nutzap(parse_json(tip.raw), self._key.pubkey)
        try:
            received = await self._wallet.claim(
                derived_id("nutzap", tip.id), zap.payload, effect, self._gate.permit(effect)
            )
        except TokenSpent as error:  # only this is certain: with a mint that is away it may come right
            self.refused[error.code] += 1
            outcome = Outcome(OutcomeState.FAIL, None, {"reason": error.code})
            return await self._write(tip, step(tip, tips.Refused(error.code)), outcome)
        except (TokenRejected, MintRefused) as error:
            log.warning("A nutzap was not taken yet: %s", error.code, extra={"action": "nutzap_waits"})
            _, delay = self._later.get(tip.id, (0.0, LOOK_S))
            self._later[tip.id] = (self._clock.monotonic() + delay, min(2 * delay, SLOWEST_S))
            return None
        self._later.pop(tip.id, None)
        net = Msat.of_sat(received.amount_sat)
        outcome = Outcome(OutcomeState.COMMIT, None, {"earned_msat": net.value})
        return await self._write(tip, step(tip, Redeemed(net)), outcome, self._receipt(zap, received.amount_sat))

    def _receipt(self, zap: Nutzap, sat: int) -> Event:
        """The word that it was redeemed (kind 7376); what it brought we alone can read."""
        secret = self._key.encrypt(self._key.pubkey, redeemed_content(sat, zap.unit))
        relay = self._pool.urls[0] if self._pool.urls else ""
        return self._key.sign(redeemed_draft(zap.id, zap.sender, relay, secret, self._clock.now()))

    async def _write(self, before: Tip, after: Tip, outcome: Outcome, receipt: Event | None = None) -> Tip:
        effect = EffectId(before.effect_id)
        rows = self._outbox.rows(receipt, before.effect_id) if receipt is not None else ()
        settled = await self._gate.settle(effect, outcome)
        await self._unit.commit([tips.update(before, after, self._clock.now()), *settled, *rows])
        self._outbox.kick(rows)
        return tips.next_version(after)

    async def _look_beside(self, tip: Tip) -> None:
        """Whether invoices for sales that it has paid were paid as well: that money is its sender's credit."""
        for deposit in tip.beside.split():
            found = await self._wallet.find(deposit)
            if found is not None and found.state is OperationState.DONE:
                after = step(tip, PaidTwice(deposit, Msat.of_sat(found.amount)))
            elif found is None or found.state is OperationState.REFUSED:
                after = step(tip, Lapsed(deposit))
            else:
                continue
            await self._unit.commit([tips.update(tip, after, self._clock.now())])
            tip = tips.next_version(after)

    # ---- reading

    async def listed(self) -> Sequence[Row]:
        """The latest, newest first, as plain values."""
        rows = await self._unit.select(TABLE, order=("-created_at", "id"), limit=LISTED)
        return [tips.shown(tips.read(row)) for row in rows]

    def facts(self) -> Mapping[str, Any]:
        """To which key they are locked, whether that is said in public, and what was refused, by reason."""
        return {"pubkey": self.pubkey, "offered": self._offered(), "refused": dict(sorted(self.refused.items()))}
