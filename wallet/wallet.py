"""The wallet: deposits, payments locked to sellers, claims, refunds, tokens. The only driver of mints in the node.

An operation is known by an id that the caller chooses; the same id gives the same result and never a second payment.
Its effect has already begun at the gate: the permit is asked for before anything is written, and at every call that
changes something at a mint.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any

import orjson

from core.clock import Clock
from core.effect import Permit
from core.error import Conflict, InvalidInput, NotFound
from core.identifier import EffectId, OperationId, derived_id
from core.money import Msat
from core.unit import UnitOfWork, Write
from relays.key import Key, Keyring
from wallet.auditor import Auditor
from wallet.cashu.book import KeysetBook
from wallet.cashu.curve import is_point
from wallet.cashu.derive import Derivation
from wallet.cashu.lock import condition, read_lock
from wallet.cashu.mint import canonical_url
from wallet.cashu.port import Mint
from wallet.cashu.proof import Output, Proof, total
from wallet.cashu.token import Payment, decode, from_payload
from wallet.copy import OldCopy
from wallet.engine import Engine
from wallet.error import (
    InvoiceRejected,
    MintLied,
    MintRejected,
    MintSilent,
    MintUnlisted,
    TokenLock,
    TokenMint,
    TokenReused,
    TokenUnit,
)
from wallet.invoice import MAINNET, check_invoice
from wallet.keeper import Keeper
from wallet.model import (
    Audit,
    Balance,
    Deposit,
    Locked,
    LockTerms,
    OperationView,
    Received,
    Restored,
    SpentState,
    VerifiedPayment,
    VerifyTerms,
)
from wallet.payment import Kind
from wallet.planner import Planned, Planner, lock_cost
from wallet.purse import Coin, Purse, Stored
from wallet.record import Plan, Vault
from wallet.restorer import Restorer
from wallet.teller import Request, Teller, conclude, result_of, settled, view_of
from wallet.verification import check_coins, check_locks, check_unspent, check_worth

UNIT = "sat"


def _no_locked(_: Locked) -> Sequence[Write]:
    return ()


def _no_received(_: Received) -> Sequence[Write]:
    return ()


class Wallet:
    """One per node.

    Args:
        unit: the database.
        keyring: every key derives from it.
        clock: time.
        check: the gate's check of permits.
        mints: clients of the mints that the owner trusts.
        retired: clients of mints that are trusted no more and hold money of ours (`wallet.leftover`): it is fetched,
            what is open there is finished, and nothing new is begun. No other mint is ever asked for anything.
        permit_for: the gate's permit for an effect that has begun; used after a restart.
        currencies: networks whose invoices a deposit may have (`bc` is the Bitcoin main network).
    """

    def __init__(
        self,
        unit: UnitOfWork,
        keyring: Keyring,
        clock: Clock,
        check: Callable[[Permit], None],
        mints: Sequence[Mint],
        *,
        permit_for: Callable[[EffectId], Permit],
        retired: Sequence[Mint] = (),
        currencies: frozenset[str] = frozenset({MAINNET}),
    ) -> None:
        self._keyring = keyring
        self._clock = clock
        self._check = check
        self._currencies = currencies
        self._books = {(canonical_url(mint.url), UNIT): KeysetBook(mint, UNIT, clock) for mint in mints}
        for mint in retired:
            self._books.setdefault((canonical_url(mint.url), UNIT), KeysetBook(mint, UNIT, clock, retired=True))
        derive = Derivation(keyring)
        self._purse = Purse(unit, Vault(keyring.derive("seal")), derive, clock)
        self._planner = Planner(self._purse, derive, self._book)
        self._engine = Engine(
            self._purse, keyring, clock, self._books, permit_for, self._renew, self._make_way, conclude
        )
        self._restorer = Restorer(self._purse, derive, clock)
        self._copy = OldCopy(self._purse, derive, unit, clock)
        self._teller = Teller(
            self._purse, self._planner, self._engine, self._books, clock, check, self._guard,
            lambda book: self._keeper.look_up(book),
        )  # fmt: skip
        self._auditor = Auditor(self._purse, self._books, clock)
        self._keeper = Keeper(self._purse, self._teller, self._engine, self._auditor, self._books, clock, permit_for)

    async def _guard(self, book: KeysetBook) -> None:
        await (self._copy.settle(book) if book.copied else self._restorer.guard(book))

    async def _renew(self, stored: Stored) -> Stored:
        return await self._teller.renew(stored)

    async def _make_way(self, book: KeysetBook, others: Collection[Output]) -> None:
        async with self._teller.choosing(book):
            await self._restorer.restore(book, others)

    def _book(self, mint: str, unit: str = UNIT) -> KeysetBook:
        if unit != UNIT:
            raise TokenUnit("Only sat is handled.")
        return self._teller.book(canonical_url(mint), unit)

    @property
    def mints(self) -> tuple[str, ...]:
        """Canonical addresses of the trusted mints."""
        return tuple(mint for (mint, _), book in self._books.items() if not book.retired)

    @property
    def key(self) -> Key:
        """The wallet's own key, to which payments to us are locked (NUT-11). Never an identity key."""
        return self._keyring.key("wallet")

    def refund_pubkey(self, op_id: str) -> str:
        """The refund key of the lock with this operation id, compressed hex."""
        return self._keyring.key("refund", op_id).compressed

    # ------------------------------------------------------------------ service

    async def recover(self) -> int:
        """At start: resolve every open operation, or leave it unknown. How many are still open."""
        await self._copy.load(self._books.values())
        async with asyncio.TaskGroup() as group:  # a mint that is away keeps none of the others waiting
            for book in self._books.values():
                group.create_task(self._teller.warm(book))
        return await self._keeper.recover()

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Background work: unknown operations, unpaid deposits, payments that were taken."""
        await self._keeper.run(ready, stop)

    # ------------------------------------------------------------------ after a restore from an old copy

    async def mark_copied(self) -> None:
        """Before `recover`: the rows are an old copy's. See `wallet.copy` for what follows from that."""
        await self._copy.mark(self._books.values())

    async def copied(self) -> Mapping[str, str]:
        """Mint → what asking it has shown so far: `pending`, `same` or `moved`. Empty where nothing was restored."""
        return await self._copy.states()

    async def forget_copied(self) -> None:
        """All mints were asked, and nobody needs the answers any more."""
        await self._copy.forget()

    def on_booked(self, callback: Callable[[OperationView], Awaitable[Sequence[Write]]]) -> None:
        """Have it asked, when money has moved, for writes that are committed together with the booking.

        It may be asked again if that commit has to be repeated.
        """

        async def booked(stored: Stored) -> Sequence[Write]:
            return await callback(view_of(stored))

        self._engine.booked = booked

    # ------------------------------------------------------------------ reading

    async def balance(self) -> list[Balance]:
        """What is held, per mint and unit."""
        return await self._auditor.balance()

    async def find(self, op_id: str) -> OperationView | None:
        """An operation, so that a driver can look it up after a restart."""
        stored = await self._purse.find(op_id)
        return None if stored is None else view_of(stored)

    async def audit(self) -> Audit:
        """Compare rows, journal and mints. Payments found taken are booked."""
        return await self._auditor.audit()

    async def spent(self, mint: str, ys: Sequence[str]) -> SpentState:
        """What the mint says of these coins (NUT-07). Our locked coins that were taken are booked as paid.

        Raises:
            MintUnlisted: not one of ours.
            Unavailable: the mint does not answer.
        """
        return await self._auditor.spent(self._book(mint), ys)

    async def restore(self, mint: str) -> Restored:
        """Find coins of this seed that the database does not know (NUT-09, NUT-13).

        Raises:
            MintUnlisted: not one of ours.
            Unavailable: the mint does not answer.
        """
        book = self._book(mint)
        if book.copied:  # first of all what moved meanwhile: coins that are found in another way would hide it
            await self._teller.compared(book)
        async with self._teller.choosing(book):
            return await self._restorer.restore(book)

    def lock_cost(self, mint: str, price: Msat) -> Msat:
        """At most what locking `price` costs us with all fees, for a wallet in usual coins.

        Raises:
            MintUnlisted: not one of ours.
        """
        book = self._book(mint)
        if book.retired:
            raise MintUnlisted
        return lock_cost(price, book.ppk)

    # ------------------------------------------------------------------ money in

    async def deposit(self, op_id: str, mint: str, sat: int, effect_id: EffectId, permit: Permit) -> Deposit:
        """An invoice that, once paid, becomes coins (NUT-04). `run` mints them.

        Raises:
            InvoiceRejected: the mint's invoice is not for this amount, network or time.
            Unavailable, MintRejected: the mint gives no quote.
        """
        book = self._book(mint)
        if not 0 < sat < 1 << 40:
            raise InvalidInput("A deposit is a positive number of sat.")
        wanted = self._request(op_id, Kind.DEPOSIT, book, effect_id, str(sat))
        async with self._engine.driving(op_id):
            stored = await self._teller.begun(wanted)
            if stored is None:
                self._check(permit)
                self._teller.admit(wanted)
                key = ("quote", op_id)
                pubkey = self._keyring.key(*key).compressed
                quote = await book.mint.request_quote(sat, UNIT, pubkey, permit)
                if (quote.amount, quote.unit) not in ((sat, UNIT), (None, None)) or quote.pubkey not in (pubkey, None):
                    raise InvoiceRejected("The mint's quote is not for what was asked for.")
                invoice = check_invoice(quote.request, sat, self._clock.now(), currencies=self._currencies)
                plan = Plan(
                    wanted.digest,
                    key=key,
                    quote=quote.id,
                    invoice=quote.request,
                    expires=max(invoice.expires_at, quote.expiry or 0),
                    terms={"amount": sat},
                )
                stored = await self._teller.await_payment(wanted, plan, sat)
        return self._deposit(stored)

    async def poll(self, op_id: str) -> Deposit:
        """Look at a deposit now instead of at `run`'s pace.

        Raises:
            NotFound: there is no such deposit.
        """
        await self._keeper.poll(op_id)
        stored = await self._purse.find(op_id)
        if stored is None or stored.op.kind is not Kind.DEPOSIT:
            raise NotFound("There is no such deposit.")
        return self._deposit(stored)

    @staticmethod
    def _deposit(stored: Stored) -> Deposit:
        return Deposit(stored.op.id, stored.plan.invoice, stored.op.state, stored.amount, stored.plan.expires)

    async def receive(self, op_id: str, token: str, effect_id: EffectId, permit: Permit) -> Received:
        """Swap somebody's `cashuB` token at once for coins that only we know.

        Raises:
            TokenRejected: with the reason as its type; the mint was asked for nothing unless it is one of ours.
            MintRefused: looked up: nothing happened.
            PaymentUnknown: it may have happened; the same call again goes on.
        """
        payment = decode(token)
        book = self._accepted(payment)
        wanted = self._request(op_id, Kind.RECEIVE, book, effect_id, token.strip())

        async def make() -> Planned:
            coins = await check_coins(payment, book, needs_dleq=False)
            return await self._planner.take(Plan(wanted.digest, coins, self._spending_key(coins)), book)

        try:
            stored = await self._teller.perform(wanted, permit, make)
        except MintUnlisted as error:
            raise TokenMint from error
        return self._received(settled(stored))

    def _spending_key(self, coins: Sequence[Proof]) -> tuple[str, ...]:
        """The key that a token's coins need: none, or ours for all of them.

        Raises:
            TokenLock: any other condition.
        """
        locked = [condition(coin.secret) is not None for coin in coins]
        if not any(locked):
            return ()
        if not all(locked) or any(read_lock(coin.secret).pubkey != self.key.compressed for coin in coins):
            raise TokenLock("A coin is locked to another key.")
        return ("wallet",)

    def _accepted(self, payment: Payment) -> KeysetBook:
        """The book of the payment's mint, if that is one of ours. Asks nobody.

        Raises:
            TokenMint, TokenUnit: it is not acceptable.
        """
        if payment.unit != UNIT:
            raise TokenUnit
        try:
            return self._book(payment.mint)
        except (MintUnlisted, InvalidInput) as error:
            raise TokenMint from error

    # ------------------------------------------------------------------ money out

    async def send(self, op_id: str, mint: str, sat: int, effect_id: EffectId, permit: Permit) -> str:
        """A bearer token of exactly `sat`. It stays readable under its operation id until it is known to be taken.

        Raises:
            InsufficientFunds, MintRefused, PaymentUnknown: as in `lock`.
        """
        book = self._book(mint)
        if not 0 < sat < 1 << 40:
            raise InvalidInput("A token is a positive number of sat.")
        wanted = self._request(op_id, Kind.SEND, book, effect_id, str(sat))

        async def make() -> Planned:
            return await self._planner.send(Plan(wanted.digest, terms={"amount": sat}), book)

        return str(result_of(settled(await self._teller.perform(wanted, permit, make))))

    async def lock(
        self,
        op_id: str,
        terms: LockTerms,
        ceiling: Msat,
        effect_id: EffectId,
        permit: Permit,
        then: Callable[[Locked], Sequence[Write]] = _no_locked,
    ) -> Locked:
        """Lock coins to a seller (NUT-11), refundable to us after the locktime.

        The same `op_id` gives the same payment and never a second one. `then`'s writes are committed with the booking
        that this very call makes; a payment that was booked earlier, or by recovery, is just returned.

        Raises:
            InsufficientFunds: too little free money now; nothing was begun.
            TooDear: with fees above `ceiling`; nothing was begun.
            MintRefused: looked up: nothing left us. Final for this `op_id`, if it was begun.
            PaymentUnknown: it may have happened; recovery resolves it.
            InvalidInput: the terms make no safe lock.
        """
        book = self._book(terms.mint, terms.unit)
        refund = self.refund_pubkey(op_id)
        facts: dict[str, str | int] = {
            "pubkey": terms.seller_pubkey,
            "locktime": terms.locktime,
            "refund": refund,
            "price": terms.price.value,
            "quote_id": terms.quote_id,
        }
        wanted = self._request(op_id, Kind.LOCK, book, effect_id, orjson.dumps(facts).decode())

        async def make() -> Planned:
            # Only for a new operation: one that exists is answered whatever the time.
            if terms.refund_key not in ("", refund):
                raise InvalidInput("The refund key is not the wallet's own for this operation.")
            if not is_point(terms.seller_pubkey) or terms.locktime <= self._clock.now() or terms.price.value <= 0:
                raise InvalidInput("A lock needs the seller's key, a locktime in the future and a price.")
            return await self._planner.lock(op_id, Plan(wanted.digest, terms=facts | {"ceiling": ceiling.value}), book)

        stored = await self._teller.perform(wanted, permit, make, lambda done: then(self._locked(done)))
        return self._locked(settled(stored))

    @staticmethod
    def _locked(stored: Stored) -> Locked:
        result = result_of(stored)
        assert isinstance(result, Locked)
        return result

    @staticmethod
    def _received(stored: Stored) -> Received:
        result = result_of(stored)
        assert isinstance(result, Received)
        return result

    async def refund(
        self,
        op_id: str,
        lock_op_id: str,
        effect_id: EffectId,
        permit: Permit,
        then: Callable[[Received], Sequence[Write]] = _no_received,
    ) -> Received:
        """Take a locked payment back after its locktime. A refused refund may be tried again under the same id.

        Raises:
            NotFound: there is no such payment, or it is not there to be refunded any more.
            InvalidInput: its locktime has not passed.
            TokenSpent: the seller was first.
            MintRefused: looked up: nothing happened.
            PaymentUnknown: it may have happened.
        """
        lock = await self._purse.find(lock_op_id)
        if lock is None or lock.op.kind is not Kind.LOCK:
            raise NotFound("There is no such locked payment.")
        book = self._book(lock.mint, lock.unit)
        wanted = self._request(op_id, Kind.REFUND, book, effect_id, lock_op_id)

        async def make() -> Planned:
            if int(lock.plan.terms["locktime"]) >= self._clock.now():
                raise InvalidInput("The locktime has not passed.")
            coins = await self._purse.coins(operation=lock_op_id, state="locked")
            inputs = tuple(coin.proof for coin in coins if coin.proof is not None)
            if not inputs:
                raise NotFound("The payment is no longer there to be refunded.")
            return await self._planner.take(Plan(wanted.digest, inputs, ("refund", lock_op_id)), book)

        stored = await self._teller.perform(wanted, permit, make, lambda done: then(self._received(done)))
        return self._received(settled(stored))

    # ------------------------------------------------------------------ being paid

    async def verify(self, payload: Mapping[str, Any], terms: VerifyTerms) -> VerifiedPayment:
        """Whether a payment message is worth working for. A coin that passed counts for this quote alone from then on.

        Raises:
            TokenRejected: with the reason as its type. No mint but one of ours, named in the quote, is asked.
            Unavailable: the mint gives no usable answer; nothing is known.
        """
        try:
            return await self._verified(from_payload(payload), terms)
        except (MintLied, MintRejected) as error:
            raise MintSilent("The mint gave no usable answer about the payment.") from error

    async def _verified(self, payment: Payment, terms: VerifyTerms) -> VerifiedPayment:
        book = self._accepted(payment)
        if book.retired or book.mint.url not in {canonical_url(mint) for mint in terms.mints}:
            raise TokenMint
        locktime = check_locks(payment, terms)
        coins = await check_coins(payment, book)
        net = check_worth(coins, book, terms, locktime)
        owner = f"quote:{terms.quote_id}"
        await self._check_unused(coins, owner)
        await check_unspent(coins, book)
        await self._remember(coins, book, owner)
        ys = tuple(coin.y for coin in coins)
        return VerifiedPayment(book.mint.url, UNIT, Msat.of_sat(total(coins)), ys, net, locktime)

    async def _check_unused(self, coins: Sequence[Proof], owner: str) -> dict[str, Coin]:
        known = await self._purse.known([coin.y for coin in coins])
        if any((coin.state, coin.operation) != ("incoming", owner) for coin in known.values()):
            raise TokenReused
        return known

    async def _remember(self, coins: Sequence[Proof], book: KeysetBook, owner: str) -> None:
        """One coin pays one quote: whoever offers it for a second one is refused, also after a restart."""
        known = await self._check_unused(coins, owner)
        fresh = [coin for coin in coins if coin.y not in known]
        try:
            await self._purse.commit(
                [self._purse.insert(coin, book.mint.url, UNIT, "incoming", owner) for coin in fresh]
            )
        except Conflict as error:
            raise TokenReused from error

    async def claim(
        self,
        op_id: str,
        payload: Mapping[str, Any],
        effect_id: EffectId,
        permit: Permit,
        then: Callable[[Received], Sequence[Write]] = _no_received,
    ) -> Received:
        """Swap a payment that is locked to us. A refused claim may be tried again under the same id.

        Raises:
            TokenRejected: it is not a payment to us; `TokenSpent`: it was taken back or claimed before.
            MintRefused: looked up: nothing happened.
            PaymentUnknown: it may have happened.
        """
        payment = from_payload(payload)
        book = self._accepted(payment)
        names = sorted(proof.secret for proof in payment.proofs)
        wanted = self._request(op_id, Kind.CLAIM, book, effect_id, derived_id(*names))

        async def make() -> Planned:
            coins = await check_coins(payment, book)
            if self._spending_key(coins) != ("wallet",):
                raise TokenLock
            return await self._planner.take(Plan(wanted.digest, coins, ("wallet",)), book)

        stored = await self._teller.perform(wanted, permit, make, lambda done: then(self._received(done)))
        return self._received(settled(stored))

    # ------------------------------------------------------------------ inside

    def _request(self, op_id: str, kind: Kind, book: KeysetBook, effect_id: EffectId, body: str) -> Request:
        digest = derived_id(str(kind), book.mint.url, book.unit, body)
        return Request(OperationId(op_id), kind, book.mint.url, book.unit, effect_id, digest)
