"""Deposits of ours at sellers: the driver of `dvm.deposit`. State and outbox are committed together, then it acts.

A row is the truth, read anew for each step and compared when it is written. What its state implies is done by one task
for each deposit, again after a restart: lock, refund and the taking of the rest are operations of the wallet with ids
of their own, so that none happens twice (ADR 27).
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from core.clock import Clock
from core.effect import EffectClass, Gate, Intent, Outcome, OutcomeState, Repeated
from core.error import Conflict, NotFound, StoreUncertain, Unavailable, VendoError
from core.guard import Crew
from core.identifier import EffectId, PubKey, derived_id
from core.money import Msat
from core.unit import Among, Insert, Row, UnitOfWork, Update, Write
from dvm import prepaid
from dvm.balance import BUYER as SIDE
from dvm.balance import shown_deposit
from dvm.deposit import (
    ENDED,
    HELD,
    Agreed,
    CloseAsked,
    Counted,
    Declined,
    Deposit,
    Drawn,
    Effect,
    Event,
    GraceOver,
    Heard,
    LockDone,
    LockFailed,
    LocktimePassed,
    RefundDone,
    RefundFailed,
    SendClose,
    SendCoins,
    Settle,
    SpentSeen,
    State,
    TakeDone,
    TakeFailed,
    step,
    verdict,
)
from dvm.destination import payment_relays
from dvm.error import DepositRefused, NoSuchDeposit, NotNow, VoucherBusy, VoucherDeposit
from dvm.prepaid import Terms, Voucher
from dvm.record import decode, encode
from dvm.settlement import Settlement
from relays.error import MalformedEvent, NotForUs
from relays.event import Event as NostrEvent
from relays.event import parse_json
from relays.filter import Filter
from relays.key import Keyring
from relays.kind import DM, GIFT_WRAP
from relays.nip17 import Rumor, unwrap, wrap
from relays.nip90 import PayMethod, Quote
from relays.outbox import Outbox
from relays.pool import Pool
from wallet.cashu.curve import is_point
from wallet.error import MintRefused, TokenRejected, TokenSpent
from wallet.model import Locked, LockTerms
from wallet.payment import State as OperationState
from wallet.wallet import Wallet

log = logging.getLogger(__name__)

TABLE = "deposit"
PATH = "/market/prepaid/open"
MAIL = "market/prepaid"
ASK_S = 120  # a seller that says nothing of its terms for so long takes no deposit
ASK_AGAIN_S, ASK_RARELY_S = 5.0, 3_600.0
LONGEST_WAIT_S = 30.0
LONGEST_LOOK_S = 300.0
RETRIES = 16
LISTED = 200
LONG_OUT_S = 60.0
FEE_SLACK_SAT = 2  # a seller may count so much more for closing than twice what it costs at this mint
_OPEN_STATES = Among(tuple(state.value for state in State if state not in ENDED))


class Prepaying:
    """Of one buyer. `start` goes on with what is open, `end` stops.

    Args:
        unit: the database.
        gate: the node's gate.
        pool: relays.
        outbox: sends what was committed.
        wallet: locks, takes back, takes the rest.
        clock: time.
        keyring: the keys of deposits derive from its seed.
        settlement: whether deposits are made, and which.
        delivered: how many jobs a seller has delivered for money.
        unsecured: what is out to a seller by jobs.
    """

    def __init__(
        self,
        unit: UnitOfWork,
        gate: Gate,
        pool: Pool,
        outbox: Outbox,
        wallet: Wallet,
        clock: Clock,
        keyring: Keyring,
        settlement: Settlement,
        delivered: Callable[[str], int],
        unsecured: Callable[[str], Msat],
    ) -> None:
        self._unit, self._gate, self._pool, self._outbox = unit, gate, pool, outbox
        self._wallet, self._clock, self._keyring, self._settlement = wallet, clock, keyring, settlement
        self._delivered, self._unsecured = delivered, unsecured
        self._seen: dict[str, Deposit] = {}  # as they were read or written last
        self._wake: dict[str, asyncio.Event] = {}
        self._out: dict[str, tuple[int, float]] = {}  # the voucher of each that is out, and since when it is seen
        self._crew = Crew(log, "deposit_task_failed")
        self._running = self._hears = False

    # ---- life

    async def start(self) -> None:
        """Go on with every deposit that has not ended."""
        self._running = True
        await self.adopt()

    async def adopt(self) -> None:
        """Take up what is not driven yet, also what other processes have committed."""
        for row in await self._unit.select(TABLE, {"side": SIDE, "state": _OPEN_STATES}):
            known, wake = self._seen.get(row["id"]), self._wake.get(row["id"])
            if wake is None:
                self._go_on(decode(Deposit, row["body"]))
            elif known is None or known.state.value != row["state"]:
                wake.set()

    async def adopt_copy(self) -> None:
        """The rows are an old copy's: nothing more is drawn, since the seller may have seen later vouchers."""
        for row in await self._unit.select(TABLE, {"side": SIDE, "state": _OPEN_STATES}):
            deposit = decode(Deposit, row["body"])
            unlocked = deposit.state is State.LOCKING and await self._wallet.find(deposit.lock_id) is None
            gone = LockFailed("The node was restored from a copy that was made while it was opened.")
            await self._tell(deposit.id, gone if unlocked else CloseAsked())

    async def end(self) -> None:
        """Stop; the rows say how it goes on."""
        self._running = self._hears = False
        self._pool.unsubscribe(MAIL)
        await self._crew.end()
        self._seen.clear()
        self._wake.clear()

    def dismiss(self) -> None:
        """Stop as a crash would."""
        self._crew.dismiss()

    def _go_on(self, deposit: Deposit) -> None:
        self._seen[deposit.id] = deposit
        if not self._running or deposit.id in self._wake:
            return
        self._wake[deposit.id] = asyncio.Event()
        if not self._hears:
            self._hears = True
            ours = Filter(kinds=frozenset({GIFT_WRAP}), tags={"p": frozenset({self._keyring.node.pubkey})})
            self._pool.subscribe(MAIL, [ours], self._on_wrap, backdated=True)
        self._crew.spawn(self._drive(deposit.id), f"deposit {deposit.id[:8]}")

    # ---- what its owner wants

    async def open(self, caller: str, key: str, seller: str, sat: int) -> Row:
        """Begin a deposit. The same key gives the same one.

        Raises:
            DepositRefused: our own bounds say no; nothing was begun.
            Refused: the gate says no.
        """
        amount = Msat.of_sat(sat)
        body = f"{seller}:{sat}".encode()
        effect_id = derived_id(caller, PATH, key)
        id_ = derived_id("deposit", effect_id)
        note: dict[str, str | int] = {"seller": seller, "amount_msat": amount.value}
        intent = Intent(caller, PATH, key, body, EffectClass.IRREVERSIBLE, id_, note=note)
        admission = await self._gate.stage(intent)
        if isinstance(admission, Repeated):
            return await self.row(admission.subject)
        self._check(seller, amount)
        if await self._unit.select(TABLE, {"side": SIDE, "peer": seller, "state": _OPEN_STATES}, limit=1):
            raise DepositRefused("There is an open deposit at this seller.")
        margin_s = self._settlement.deposit_margin_s
        deposit = Deposit(id_, admission.effect_id, seller, amount, margin_s, self._clock.now())
        asked = self._message(deposit, prepaid.ASK, ("amount", str(amount.value)))
        await self._unit.commit([*admission.writes, self._row(deposit, -1), *asked])
        self._outbox.kick(asked)
        self._go_on(deposit)
        return await self.row(id_)

    def _check(self, seller: str, amount: Msat) -> None:
        """Our own bounds.

        Raises:
            DepositRefused: which of them says no.
        """
        rules = self._settlement
        if seller == self._keyring.node.pubkey:
            raise DepositRefused("This is our own key.")
        if not Msat(0) < amount <= rules.prepaid_max:
            raise DepositRefused(f"At most {rules.prepaid_max.value} msat may be in a deposit.")
        if (done := self._delivered(seller)) < rules.prepaid_after:
            raise DepositRefused(
                f"The seller has delivered {done} jobs for money; {rules.prepaid_after} are asked for."
            )
        if self._unsecured(seller) + self.at_risk(seller) + amount > rules.max_unsecured:
            raise DepositRefused(f"More than {rules.max_unsecured.value} msat would be out to this seller.")

    async def close(self, id_: str) -> Row:
        """Draw no more, and have the rest back.

        Raises:
            NoSuchDeposit: there is none of ours with this id.
            NotNow: it has ended.
        """
        found = await self._read(id_)
        if found is None:
            raise NoSuchDeposit(f"There is no deposit {id_[:64]}.")
        if found[0].state in ENDED:
            raise NotNow(f"The deposit is {found[0].state.value}.")
        await self._tell(id_, CloseAsked())
        return await self.row(id_)

    async def row(self, id_: str) -> Row:
        """One as plain values.

        Raises:
            NoSuchDeposit: there is none of ours with this id.
        """
        rows = await self._unit.select(TABLE, {"side": SIDE, "id": id_})
        if not rows:
            raise NoSuchDeposit(f"There is no deposit {id_[:64]}.")
        return shown_deposit(decode(Deposit, rows[0]["body"]), rows[0])

    async def rows(self) -> list[Row]:
        """The latest, newest first, as plain values."""
        found = await self._unit.select(TABLE, {"side": SIDE}, order=("-created_at", "id"), limit=LISTED)
        return [shown_deposit(decode(Deposit, row["body"]), row) for row in found]

    # ---- what jobs draw

    def at_risk(self, seller: str) -> Msat:
        """What a seller could keep of deposits without delivering for it."""
        return Msat(sum(one.at_risk.value for one in self._seen.values() if one.seller == seller))

    def drawable(self, method: PayMethod, quote: Quote) -> bool:
        """Whether a quote can be drawn from the deposit that it names: ours there, with room, counted as we do."""
        deposit = self._seen.get(method.deposit)
        if deposit is None or deposit.seller != quote.seller or not deposit.is_open or self._stands(deposit):
            return False
        if not deposit.agrees(method.seq, Msat(method.total)) or method.mint != deposit.mint:
            return False
        return quote.amount <= deposit.left and self._clock.now() + quote.eta_s < deposit.due_at

    def _stands(self, deposit: Deposit) -> bool:
        """Whether one voucher has been out for long: its job waits for a full disk, say, perhaps for a day."""
        now, seq = self._clock.monotonic(), deposit.seq if deposit.pending is not None else -1
        if seq < 0 or self._out.get(deposit.id, (0, 0.0))[0] != seq:
            self._out[deposit.id] = seq, now
        return now - self._out[deposit.id][1] > LONG_OUT_S

    async def draw(
        self, deposit: str, job_id: str, request_id: str, price: Msat, book: Callable[[Voucher], Sequence[Write]]
    ) -> Voucher:
        """A voucher for a job, committed together with what `book` says of that job.

        Raises:
            VoucherBusy: another job's voucher is out.
            VoucherDeposit: nothing can be drawn any more, or not so much.
            Conflict, StoreUncertain, Unavailable: it was not written, or it is not known whether it was.
        """
        found = await self._read(deposit)
        if found is None:
            raise VoucherDeposit
        before, version = found
        if before.pending is not None:
            raise VoucherBusy
        after, _ = step(before, Drawn(self._clock.now(), job_id, request_id, price))
        if (out := after.pending) is None:
            raise VoucherDeposit("The deposit is not open, or does not cover the job.")
        key = self._keyring.key(prepaid.VOUCHER_KEY, deposit)
        voucher = prepaid.signed(key, after.seller, deposit, out.seq, out.total, request_id)
        writes = book(voucher)
        if not writes:
            raise Conflict("The job has changed meanwhile.")
        await self._unit.commit([self._row(after, version), *writes])
        self._seen[deposit] = after
        return voucher

    async def counted(self, deposit: str, job_id: str, *, ok: bool) -> list[Write]:
        """The writes that count a job's voucher, or void it."""
        found = await self._read(deposit)
        if found is None:
            return []
        before, version = found
        after, _ = step(before, Counted(job_id, ok))
        return [self._row(after, version)] if after != before else []

    def recount(self, deposit: str) -> None:
        """What `counted` gave was committed."""
        self._crew.spawn(self._look_again(deposit), f"deposit {deposit[:8]} count")

    async def _look_again(self, deposit: str) -> None:
        await self._read(deposit)

    async def verdict(self, deposit: str, job_id: str) -> bool | None:
        """Whether the voucher of a job that brought no result counts; None as long as that is not known."""
        found = await self._read(deposit)
        return False if found is None else verdict(found[0], job_id)

    async def ask(self, deposit: str) -> None:
        """Ask the seller what it counts; vouchers that it has not seen are void from then on."""
        found = await self._read(deposit)
        if found is not None and found[0].state in HELD:
            rows = self._message(found[0], prepaid.STATUS, ("seq", str(found[0].seq)))
            await self._unit.commit(rows)
            self._outbox.kick(rows)

    # ---- what sellers say

    async def _on_wrap(self, event: NostrEvent, relay: str) -> None:
        try:
            rumor = unwrap(self._keyring.node, event)
        except (NotForUs, MalformedEvent):
            return
        word, id_ = rumor.value(prepaid.TAG), rumor.value("deposit") or ""
        if rumor.kind != DM or word not in (prepaid.TERMS, prepaid.ACCOUNT) or id_ not in self._wake:
            return
        found = await self._read(id_)
        if found is None or found[0].seller != rumor.sender:
            return
        if word == prepaid.TERMS and found[0].state is State.ASKED:
            await self._insist(id_, self._judged(found[0], prepaid.read_terms(rumor)))
        elif word == prepaid.ACCOUNT and (said := prepaid.read_statement(rumor)) is not None:
            await self._insist(id_, Heard(said, event.to_json() if _token(rumor) else ""))

    def _judged(self, deposit: Deposit, terms: Terms | None) -> Event:
        """What the seller's terms mean for this deposit."""
        if terms is None:
            return Declined("The seller takes no deposits.")
        if not terms.least <= deposit.amount <= terms.most:
            return Declined(f"The seller takes {terms.least.value} to {terms.most.value} msat.")
        lasts_s = min(self._settlement.prepaid_s, terms.most_s)
        if not is_point(terms.wallet_key) or lasts_s <= 2 * deposit.margin_s:
            return Declined("The seller's terms make no safe lock.")
        both = [mint for mint in self._wallet.mints if mint in terms.mints]
        usual = {mint: self._wallet.lock_cost(mint, Msat.of_sat(1)).sat_up() - 1 for mint in both}
        fit = [mint for mint in both if terms.fee_sat <= 2 * usual[mint] + FEE_SLACK_SAT]
        if not fit:
            return Declined("No mint that both accept, or the seller wants too much for closing.")
        mint = min(fit, key=lambda one: usual[one])
        now = self._clock.now()
        return Agreed(now, mint, terms.wallet_key, now + lasts_s, terms.fee_sat)

    # ---- steps

    async def _read(self, id_: str) -> tuple[Deposit, int] | None:
        rows = await self._unit.select(TABLE, {"side": SIDE, "id": id_})
        if not rows:
            return None
        found = decode(Deposit, rows[0]["body"])
        if found.state not in ENDED:
            self._seen[id_] = found
        return found, int(rows[0]["version"])

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
            before, version = found
            after, effects = step(before, event)
            if after == before and not effects:
                return
            writes, rows = await self._writes(after, effects)
            try:
                await self._unit.commit([self._row(after, version), *writes, *rows])
            except Conflict:
                continue
            self._seen[id_] = after
            self._outbox.kick(rows)
            if (wake := self._wake.get(id_)) is not None:
                wake.set()
            return
        raise Conflict("A deposit changes faster than it can be written.")

    async def _insist(self, id_: str, event: Event) -> None:
        wait = 0.2
        while True:
            try:
                return await self._tell(id_, event)
            except (Conflict, StoreUncertain, Unavailable) as error:
                log.warning("A deposit's step was not written: %s", error.code, extra={"action": "deposit_unsaved"})
                await self._clock.sleep(wait)
                wait = min(wait * 2, 10.0)

    async def _writes(self, after: Deposit, effects: Sequence[Effect]) -> tuple[list[Write], tuple[Insert, ...]]:
        writes: list[Write] = []
        rows: tuple[Insert, ...] = ()
        for effect in effects:
            match effect:
                case SendCoins():
                    rows += await self._coins(after)
                case SendClose():
                    rows += self._message(after, prepaid.CLOSE, ("seq", str(after.seq)))
                case Settle(ok):
                    state = OutcomeState.COMMIT if ok else OutcomeState.FAIL
                    detail: dict[str, str | int] = {"state": after.state.value, "charged_msat": after.charged.value}
                    writes += await self._gate.settle(EffectId(after.effect_id), Outcome(state, None, detail))
        return writes, rows

    async def _coins(self, deposit: Deposit) -> tuple[Insert, ...]:
        """The locked coins, on their way to the seller."""
        found = await self._wallet.find(deposit.lock_id)
        if found is None or not isinstance(found.result, Locked):
            raise Unavailable("The locked coins are not at hand.")
        key = self._keyring.key(prepaid.VOUCHER_KEY, deposit.id).compressed
        content = orjson.dumps(found.result.payload).decode()
        return self._message(
            deposit, prepaid.DEPOSIT, ("amount", str(deposit.amount.value)), ("key", key), content=content
        )

    def _message(self, deposit: Deposit, word: str, *tags: tuple[str, ...], content: str = "") -> tuple[Insert, ...]:
        seller = PubKey(deposit.seller)
        draft = prepaid.message(word, seller, deposit.id, self._clock.now(), *tags, content=content)
        relays = payment_relays(self._pool.urls, None)
        return self._outbox.rows(wrap(self._keyring.node, seller, draft), deposit.effect_id, relays)

    def _row(self, after: Deposit, version: int) -> Write:
        now = self._clock.now()
        values: dict[str, Any] = {
            "state": after.state.value,
            "body": encode(after),
            "updated_at": now,
            "version": version + 1,
        }
        if version >= 0:
            return Update(TABLE, {"side": SIDE, "id": after.id, "version": version}, values)
        values |= {"side": SIDE, "id": after.id, "peer": after.seller, "effect_id": after.effect_id}
        return Insert(TABLE, {**values, "created_at": now})

    # ---- what the state implies

    async def _drive(self, id_: str) -> None:
        wake, wait, asked = self._wake[id_], 0.25, ASK_AGAIN_S
        ask_at = self._clock.now() + ASK_AGAIN_S
        place: State | None = None
        while True:
            try:
                found = await self._read(id_)
                if found is None or found[0].state in ENDED:
                    break
                deposit = found[0]
                if deposit.state is not place:
                    place, wait, asked, ask_at = deposit.state, 0.25, ASK_AGAIN_S, self._clock.now() + ASK_AGAIN_S
                event = await self._next(deposit)
                if event is not None:
                    await self._tell(id_, event)
                elif deposit.state in (State.SENT, State.CLOSING) and self._clock.now() >= ask_at:
                    await self._again(deposit)
                    asked = min(asked * 2, ASK_RARELY_S)
                    ask_at = self._clock.now() + asked
            except VendoError as error:
                log.warning("A deposit waits: %s", error.code, extra={"action": "deposit_waits", "code": error.code})
            await self._rest(wake, self._pause(place, wait, id_))
            wait = min(wait * 2, LONGEST_LOOK_S)
        self._wake.pop(id_, None)
        self._seen.pop(id_, None)

    def _pause(self, place: State | None, wait: float, id_: str) -> float:
        deposit = self._seen.get(id_)
        if deposit is not None and place is State.OPEN:
            return max(0.5, deposit.due_at - self._clock.now())
        if deposit is not None and place in (State.CLOSING, State.RETURNED) and not deposit.spent:
            return min(wait, max(0.5, deposit.locktime + 3 - self._clock.now()))
        return min(wait, LONGEST_WAIT_S)

    async def _rest(self, wake: asyncio.Event, seconds: float) -> None:
        sleeping = asyncio.ensure_future(self._clock.sleep(seconds))
        waking = asyncio.ensure_future(wake.wait())
        try:
            await asyncio.wait((sleeping, waking), return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            waking.cancel()
        wake.clear()

    async def _again(self, deposit: Deposit) -> None:
        """The seller has not answered: say it once more."""
        unseen = deposit.unwanted and not deposit.spent  # it was sent once, together with the word that it is closed
        rows = await self._coins(deposit) if deposit.state is State.SENT or unseen else ()
        if deposit.state is State.CLOSING:
            rows += self._message(deposit, prepaid.CLOSE, ("seq", str(deposit.seq)))
        await self._unit.commit(rows)
        self._outbox.kick(rows)

    async def _next(self, deposit: Deposit) -> Event | None:
        """What is to be told now; None if there is nothing but to wait.

        Raises:
            VendoError: it is not certain yet.
        """
        now = self._clock.now()
        match deposit.state:
            case State.ASKED if now >= deposit.created_at + ASK_S:
                return Declined("The seller did not answer.")
            case State.LOCKING:
                return await self._lock(deposit)
            case State.OPEN | State.SENT if now >= deposit.due_at:
                return CloseAsked()
            case State.CLOSING | State.RETURNED:
                return await self._look(deposit)
            case State.TAKING:
                return await self._take(deposit)
            case State.REFUNDING:
                return await self._refund(deposit)
        return None

    async def _lock(self, deposit: Deposit) -> Event | None:
        """Lock the coins, or learn for certain that nothing left; the same id is asked for again after any doubt."""
        effect = EffectId(deposit.effect_id)
        cost = self._wallet.lock_cost(deposit.mint, deposit.amount)
        terms = LockTerms(deposit.mint, deposit.amount, deposit.wallet_key, deposit.locktime, quote_id=deposit.id)
        try:
            locked = await self._wallet.lock(
                deposit.lock_id, terms, Msat(cost.value * 5 // 4), effect, self._gate.permit(effect)
            )
        except VendoError as error:
            found = await self._wallet.find(deposit.lock_id)
            if found is not None and found.state is OperationState.DONE and isinstance(found.result, Locked):
                return LockDone(found.result.gross, found.result.ys)
            begun = found is not None and found.state is not OperationState.REFUSED
            if begun or isinstance(error, Conflict | StoreUncertain):
                raise
            return LockFailed(error.message)
        return LockDone(locked.gross, locked.ys)

    async def _look(self, deposit: Deposit) -> Event | None:
        """Whether the seller took the coins, and whether they may be taken back."""
        now = self._clock.now()
        if deposit.spent:
            return SpentSeen(now) if deposit.state is State.RETURNED else GraceOver(now)
        seen = await self._wallet.spent(deposit.mint, deposit.ys)
        if str(seen.state).upper() == "SPENT":
            return SpentSeen(now)
        return LocktimePassed(now) if now >= deposit.locktime else None

    async def _take(self, deposit: Deposit) -> Event:
        """Take what the seller gave back."""
        effect = EffectId(deposit.effect_id)
        token = _token(unwrap(self._keyring.node, parse_json(deposit.wrap)))
        try:
            got = await self._wallet.receive(deposit.return_id, token, effect, self._gate.permit(effect))
        except TokenRejected as error:
            return TakeFailed(error.message)
        except MintRefused as error:
            found = await self._wallet.find(deposit.return_id)
            away = found is None or found.reason == "never_sent"
            if away or self._clock.now() < deposit.locktime:  # it may pass; it is asked again
                raise
            return TakeFailed(error.message)
        return TakeDone(Msat.of_sat(got.amount_sat + got.fee_sat), Msat.of_sat(got.amount_sat))

    async def _refund(self, deposit: Deposit) -> Event | None:
        """Take the coins back after the locktime, for ever tried again; or learn that the seller was first."""
        effect = EffectId(deposit.effect_id)
        try:
            got = await self._wallet.refund(deposit.refund_id, deposit.lock_id, effect, self._gate.permit(effect))
        except (TokenSpent, MintRefused, NotFound):
            seen = await self._wallet.spent(deposit.mint, deposit.ys)
            if str(seen.state).upper() == "SPENT":
                return SpentSeen(self._clock.now())
            return RefundFailed()
        return RefundDone(Msat.of_sat(got.amount_sat))


def _token(rumor: Rumor) -> str:
    return rumor.content.strip()
