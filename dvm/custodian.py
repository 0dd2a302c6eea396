"""Deposits of customers: the driver of `dvm.custody`. State and outbox are committed together, then it acts (ADR 27).

A row is the truth, read anew for each step and compared when it is written. What its state implies is done by one task
for each deposit, again after a restart: the claim and the token for the rest are operations of the wallet with ids of
their own, so that neither happens twice.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from core.clock import Clock
from core.effect import EffectClass, Gate, Intent, Outcome, OutcomeState, Repeated
from core.error import Conflict, Refused, StoreUncertain, Unavailable, VendoError
from core.guard import Crew
from core.identifier import EffectId, OperationId, PubKey, derived_id
from core.money import Msat
from core.unit import Among, Insert, Row, UnitOfWork, Update, Write
from dvm import prepaid
from dvm.admission import Meter
from dvm.balance import SELLER as SIDE
from dvm.balance import shown_custody
from dvm.custody import (
    ENDED,
    Claimed,
    ClaimRefused,
    CloseAsked,
    Custody,
    Due,
    Effect,
    Event,
    Returned,
    ReturnRefused,
    Settle,
    State,
    StatusAsked,
    Tell,
    VoucherShown,
    WorkEnded,
    fault,
    step,
)
from dvm.destination import payment_relays
from dvm.error import VoucherDeposit
from dvm.prepaid import Statement, Terms, Voucher
from dvm.record import decode, encode
from dvm.settlement import Settlement
from relays.event import Event as NostrEvent
from relays.event import parse_json
from relays.key import Key
from relays.nip17 import Rumor, unwrap, wrap
from relays.outbox import Outbox
from relays.pool import Pool
from wallet.cashu.curve import is_point
from wallet.error import MintRefused, TokenRejected, TokenSpent
from wallet.model import VerifyTerms
from wallet.wallet import Wallet

log = logging.getLogger(__name__)

TABLE = "deposit"
PATH = "/serve/prepaid"
ANSWER = "market.prepaid"  # the standing purpose under which terms and refusals go out
LEAST = Msat(10_000)
CLOSING_SAT = 1  # what handing over one sat costs is what handing over the rest may cost
BURST, PER_SECOND = 16.0, 0.5  # words of one customer that are answered
STRANGERS_BURST, STRANGERS_PER_SECOND = 64.0, 4.0  # of all who have no deposit here
VERIFYING = 32
LATEST_S = 600  # a customer's clock, and the time that its lock takes
GIVE_UP_S = 86_400  # so long after its locktime a claim is still tried
LONGEST_WAIT_S = 30.0
RETRIES = 16
LISTED = 200
_OPEN_STATES = Among(tuple(state.value for state in State if state not in ENDED))


class Custodian:
    """Of one seller. `start` goes on with what is open, `end` stops.

    Args:
        unit: the database.
        gate: the node's gate.
        pool: relays.
        outbox: sends what was committed.
        wallet: verifies, claims, and makes tokens for what is left.
        clock: time.
        key: our key.
        settlement: which deposits are taken.
    """

    def __init__(
        self,
        unit: UnitOfWork,
        gate: Gate,
        pool: Pool,
        outbox: Outbox,
        wallet: Wallet,
        clock: Clock,
        key: Key,
        settlement: Settlement,
    ) -> None:
        self._unit, self._gate, self._pool, self._outbox = unit, gate, pool, outbox
        self._wallet, self._clock, self._key, self._settlement = wallet, clock, key, settlement
        self._seen: dict[str, Custody] = {}  # by customer; what stands in quotes, read before each
        self._wake: dict[str, asyncio.Event] = {}
        self._verifying: set[str] = set()
        self._meter = Meter(BURST, PER_SECOND)
        self._strangers = Meter(STRANGERS_BURST, STRANGERS_PER_SECOND)
        self._crew = Crew(log, "custody_task_failed")

    # ---- life

    async def start(self) -> None:
        """Go on with every deposit that has not ended."""
        for row in await self._unit.select(TABLE, {"side": SIDE, "state": _OPEN_STATES}):
            self._go_on(decode(Custody, row["body"]))

    async def end(self) -> None:
        """Stop; the rows say how it goes on."""
        await self._crew.end()
        self._seen.clear()
        self._wake.clear()
        self._verifying.clear()

    def dismiss(self) -> None:
        """Stop as a crash would."""
        self._crew.dismiss()

    def _go_on(self, custody: Custody) -> None:
        self._seen[custody.customer] = custody
        if custody.id not in self._wake:
            self._wake[custody.id] = asyncio.Event()
            self._crew.spawn(self._drive(custody.id), f"deposit {custody.id[:8]}")

    async def rows(self) -> list[Row]:
        """The latest, newest first, as plain values."""
        found = await self._unit.select(TABLE, {"side": SIDE}, order=("-created_at", "id"), limit=LISTED)
        return [shown_custody(decode(Custody, row["body"]), row) for row in found]

    # ---- what stands in quotes, and what is drawn

    async def look(self, customer: str) -> None:
        """Read what the customer has here, for the quote that is made next."""
        known = self._seen.get(customer)
        if known is not None and (found := await self._read(known.id)) is not None:
            self._seen[customer] = found[0]

    def offer(self, customer: str, price: Msat, done_at: int) -> Custody | None:
        """The customer's deposit, if a job at this price that ends at `done_at` can be drawn from it."""
        found = self._seen.get(customer)
        if found is None or found.state is not State.OPEN or found.closing or done_at >= found.drawn_until:
            return None
        held = found.held if found.busy else found.total
        return found if held + price <= found.amount else None

    async def take(self, voucher: Voucher, sender: str, request_id: str, price: Msat) -> tuple[Custody, list[Write]]:
        """The deposit, and the writes that hold a job's price of it.

        Raises:
            VoucherRefused: with the reason as its type.
        """
        found = await self._read(voucher.deposit)
        if found is None:
            raise VoucherDeposit
        custody, version = found
        shown = VoucherShown(self._clock.now(), sender, self._key.pubkey, voucher, request_id, price)
        if (why := fault(custody, shown)) is not None:
            raise why
        after, _ = step(custody, shown)
        return after, [self._row(after, version)]

    async def ended(self, deposit: str, request_id: str, *, ok: bool) -> list[Write]:
        """The writes that count a job which was drawn and has ended, or leave it out."""
        found = await self._read(deposit)
        if found is None:
            return []
        custody, version = found
        after, _ = step(custody, WorkEnded(request_id, ok))
        if (wake := self._wake.get(deposit)) is not None:
            wake.set()
        return [self._row(after, version)] if after != custody else []

    # ---- what customers say

    async def hear(self, event: NostrEvent, rumor: Rumor) -> None:
        """A message about a deposit, verified as a message."""
        word, id_, sender = rumor.value(prepaid.TAG), rumor.value("deposit") or "", rumor.sender
        at = self._clock.monotonic()
        if not prepaid.is_id(id_) or not self._meter.take(sender, at):
            return
        found = await self._read(id_)
        if found is None and not self._strangers.take("", at):
            return
        if found is not None and found[0].customer != sender:
            return
        if word == prepaid.ASK and found is None:
            await self._say(sender, id_, prepaid.TERMS, *self._terms().tags())
        elif word == prepaid.DEPOSIT:
            await self._brought(event, rumor, found)
        elif word in (prepaid.STATUS, prepaid.CLOSE) and found is not None:
            seq = prepaid.number(rumor, "seq", prepaid.MOST_SEQ) or 0
            await self._tell(id_, StatusAsked(sender, seq) if word == prepaid.STATUS else CloseAsked(sender, seq))
        elif word in (prepaid.STATUS, prepaid.CLOSE):
            await self._refuse(sender, id_)

    def _terms(self) -> Terms:
        most, mints = self._settlement.deposit_max, self._wallet.mints
        fees = [self._wallet.lock_cost(mint, Msat.of_sat(CLOSING_SAT)).sat_up() - CLOSING_SAT for mint in mints]
        return Terms(LEAST, most, self._settlement.prepaid_s, max(fees, default=0), self._wallet.key.compressed, mints)

    async def _say(self, to: PubKey, id_: str, word: str, *tags: tuple[str, ...]) -> None:
        draft = prepaid.message(word, to, id_, self._clock.now(), *tags)
        rows = self._outbox.rows(wrap(self._key, to, draft), ANSWER, payment_relays(self._pool.urls, None))
        await self._unit.commit(rows)
        self._outbox.kick(rows)

    async def _refuse(self, to: PubKey, id_: str) -> None:
        refused = Statement(prepaid.REFUSED, 0, Msat(0), False)
        await self._say(to, id_, prepaid.ACCOUNT, refused.tag())

    async def _brought(self, event: NostrEvent, rumor: Rumor, found: tuple[Custody, int] | None) -> None:
        id_ = rumor.value("deposit") or ""
        if found is not None:
            return await self._tell(id_, StatusAsked(rumor.sender, 0))
        if id_ in self._verifying or len(self._verifying) >= VERIFYING:
            return
        self._verifying.add(id_)
        self._crew.spawn(self._verify(event, rumor, id_), f"deposit {id_[:8]} verify")

    async def _verify(self, event: NostrEvent, rumor: Rumor, id_: str) -> None:
        try:
            custody = await self._verified(event, rumor, id_)
            if custody is None:
                return await self._refuse(rumor.sender, id_)
            self._go_on(custody)
        except (TokenRejected, Refused) as error:
            log.info("A deposit was refused: %s", error.code, extra={"action": "deposit_refused", "code": error.code})
            await self._refuse(rumor.sender, id_)
        finally:
            self._verifying.discard(id_)

    async def _verified(self, event: NostrEvent, rumor: Rumor, id_: str) -> Custody | None:
        """The deposit, once its coins were found good and it is written; None if it is not within our terms."""
        terms, amount = self._terms(), Msat(prepaid.number(rumor, "amount") or 0)
        key = rumor.value("key") or ""
        if not terms.least <= amount <= terms.most or not is_point(key) or not await self._has_room(rumor.sender):
            return None
        margin_s = self._settlement.deposit_margin_s
        wanted = VerifyTerms(
            id_, amount, self._wallet.mints, self._wallet.key.compressed, self._clock.now() + margin_s + 1
        )
        wait = 0.5
        while True:
            try:
                good = await self._wallet.verify(_payload(rumor.content), wanted)
                break
            except Unavailable as error:
                log.warning("A deposit waits to be verified: %s", error.code, extra={"action": "verify_waits"})
                await self._clock.sleep(wait)
                wait = min(wait * 2, LONGEST_WAIT_S)
        if good.locktime > self._clock.now() + terms.most_s + LATEST_S:  # a place that nobody else could have meanwhile
            return None
        caller = f"customer:{rumor.sender}"
        note: Mapping[str, str | int] = {"amount_msat": amount.value, "mint": good.mint}
        intent = Intent(caller, PATH, id_, id_.encode(), EffectClass.EXTERNAL, id_, note=note)
        admission = await self._gate.stage(intent)
        if isinstance(admission, Repeated) or not await self._has_room(rumor.sender):
            return None
        custody = Custody(
            id_, admission.effect_id, rumor.sender, key, good.mint, amount, good.locktime, margin_s, terms.fee_sat,
            event.to_json(),
        )  # fmt: skip
        said = self._statement(custody, "")
        await self._unit.commit([*admission.writes, self._row(custody, -1), *said])
        self._outbox.kick(said)
        return custody

    async def _has_room(self, customer: str) -> bool:
        """One open deposit for a customer, and so many in all."""
        open_ = await self._unit.select(
            TABLE, {"side": SIDE, "state": _OPEN_STATES}, columns=("peer",), limit=self._settlement.deposits
        )
        return len(open_) < self._settlement.deposits and all(row["peer"] != customer for row in open_)

    # ---- steps

    async def _read(self, id_: str) -> tuple[Custody, int] | None:
        rows = await self._unit.select(TABLE, {"side": SIDE, "id": id_})
        return (decode(Custody, rows[0]["body"]), int(rows[0]["version"])) if rows else None

    async def _tell(self, id_: str, event: Event) -> None:
        """Step, commit, act.

        Raises:
            Conflict: the row changes faster than it can be written.
            StoreUncertain, Unavailable: the database failed; nothing was acted on.
        """
        for _ in range(RETRIES):
            found = await self._read(id_)
            if found is None:
                return
            custody, version = found
            after, effects = step(custody, event)
            writes, rows = await self._writes(after, effects)
            if after != custody:
                writes.append(self._row(after, version))
            if not writes and not rows:
                return
            try:
                await self._unit.commit([*writes, *rows])
            except Conflict:
                continue
            self._outbox.kick(rows)
            if id_ not in self._wake and after.state not in ENDED:
                self._go_on(after)  # its first commit was in doubt
            if (wake := self._wake.get(id_)) is not None:
                wake.set()
            return
        raise Conflict("A deposit changes faster than it can be written.")

    async def _writes(self, after: Custody, effects: Sequence[Effect]) -> tuple[list[Write], tuple[Insert, ...]]:
        writes: list[Write] = []
        rows: tuple[Insert, ...] = ()
        for effect in effects:
            match effect:
                case Tell():
                    rows += self._statement(after, await self._token(after))
                case Settle(ok):
                    state = OutcomeState.COMMIT if ok else OutcomeState.FAIL
                    detail: dict[str, str | int] = {"state": after.state.value, "earned_msat": after.total.value}
                    writes += await self._gate.settle(EffectId(after.effect_id), Outcome(state, None, detail))
        return writes, rows

    async def _token(self, custody: Custody) -> str:
        """What goes back, as long as nobody has taken it."""
        if custody.state is not State.CLOSED or not custody.returned_sat:
            return ""
        found = await self._wallet.find(_rest_id(custody))
        return found.result if found is not None and isinstance(found.result, str) else ""

    def _statement(self, custody: Custody, token: str) -> tuple[Insert, ...]:
        customer = PubKey(custody.customer)
        tags = custody.statement.tag(), ("key", custody.key)  # by which who has lost its rows knows it for its own
        draft = prepaid.message(prepaid.ACCOUNT, customer, custody.id, self._clock.now(), *tags, content=token)
        relays = payment_relays(self._pool.urls, None)
        return self._outbox.rows(wrap(self._key, customer, draft), custody.effect_id, relays)

    def _row(self, after: Custody, version: int) -> Write:
        now = self._clock.now()
        values: dict[str, Any] = {
            "state": after.state.value,
            "body": encode(after),
            "updated_at": now,
            "version": version + 1,
        }
        if version >= 0:
            return Update(TABLE, {"side": SIDE, "id": after.id, "version": version}, values)
        values |= {"side": SIDE, "id": after.id, "peer": after.customer, "effect_id": after.effect_id}
        return Insert(TABLE, {**values, "created_at": now})

    # ---- what the state implies

    async def _drive(self, id_: str) -> None:
        wake, wait = self._wake[id_], 0.5
        while (found := await self._certain(id_)) is not None:
            custody = found[0]
            self._seen[custody.customer] = custody
            if custody.state in ENDED:
                self._seen.pop(custody.customer, None)
                break
            if custody.state is State.OPEN:
                rest_s = 0.5 if custody.closing else max(0.5, custody.due_at - self._clock.now())
                await self._rest(wake, rest_s)
                if self._clock.now() >= custody.due_at:
                    await self._insist(id_, Due(self._clock.now()))
                wait = 0.5
                continue
            done = await (self._claim(custody) if custody.state is State.CLAIMING else self._return(custody))
            if done is not None:
                await self._insist(id_, done)
            if done is not None and not isinstance(done, ReturnRefused):
                wait = 0.5
                continue
            await self._clock.sleep(wait)
            wait = min(wait * 2, LONGEST_WAIT_S)
        self._wake.pop(id_, None)

    async def _certain(self, id_: str) -> tuple[Custody, int] | None:
        while True:
            try:
                return await self._read(id_)
            except VendoError as error:
                log.warning("A deposit cannot be read: %s", error.code, extra={"action": "deposit_unread"})
                await self._clock.sleep(1.0)

    async def _insist(self, id_: str, event: Event) -> None:
        wait = 0.2
        while True:
            try:
                return await self._tell(id_, event)
            except (Conflict, StoreUncertain, Unavailable) as error:
                log.warning("A deposit's step was not written: %s", error.code, extra={"action": "deposit_unsaved"})
                await self._clock.sleep(wait)
                wait = min(wait * 2, 10.0)

    async def _rest(self, wake: asyncio.Event, seconds: float) -> None:
        wake.clear()
        sleeping = asyncio.ensure_future(self._clock.sleep(seconds))
        waking = asyncio.ensure_future(wake.wait())
        try:
            await asyncio.wait((sleeping, waking), return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            waking.cancel()

    async def _claim(self, custody: Custody) -> Event | None:
        """Take the coins; None as long as it is not certain what became of that."""
        effect = EffectId(custody.effect_id)
        rumor = unwrap(self._key, parse_json(custody.payment))
        op_id = OperationId(derived_id("custody", custody.id))
        try:
            received = await self._wallet.claim(op_id, _payload(rumor.content), effect, self._gate.permit(effect))
        except (TokenRejected, MintRefused) as error:
            late = self._clock.now() >= custody.locktime + GIVE_UP_S
            if late or isinstance(error, TokenSpent):
                return ClaimRefused(error.code)
            log.warning("A deposit's claim was refused: %s", error.code, extra={"action": "claim_refused"})
            return None
        except VendoError as error:
            log.warning("A deposit's claim waits: %s", error.code, extra={"action": "claim_waits"})
            return None
        return Claimed(Msat.of_sat(received.amount_sat))

    async def _return(self, custody: Custody) -> Event | None:
        """Make the token for the rest; None as long as it is not certain whether there is one."""
        effect, sat = EffectId(custody.effect_id), custody.rest_sat
        try:
            await self._wallet.send(_rest_id(custody), custody.mint, sat, effect, self._gate.permit(effect))
        except MintRefused as error:
            log.warning("A deposit's rest was refused: %s", error.code, extra={"action": "rest_refused"})
            found = await self._wallet.find(_rest_id(custody))
            return ReturnRefused() if found is not None else None
        except VendoError as error:
            log.warning("A deposit's rest waits: %s", error.code, extra={"action": "rest_waits"})
            return None
        return Returned(sat)


def _rest_id(custody: Custody) -> OperationId:
    """The wallet's name for the token; another one only after the mint has refused the last for certain."""
    return OperationId(derived_id("custody/rest", custody.id, str(custody.returns)))


def _payload(content: str) -> Mapping[str, Any]:
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
