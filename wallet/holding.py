"""What a wallet is made of, and what it can be asked without money being moved: balances, audits, what mints say."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from core.clock import Clock
from core.effect import Permit
from core.error import InvalidInput, NotFound
from core.identifier import EffectId, OperationId
from core.money import Msat
from core.unit import Among, UnitOfWork, Write
from relays.key import Key, Keyring
from wallet.amount import SAT, UNITS
from wallet.auditor import Auditor
from wallet.cashier import Cashier
from wallet.cashu.address import canonical_url
from wallet.cashu.book import KeysetBook
from wallet.cashu.derive import Derivation
from wallet.cashu.port import Mint
from wallet.cashu.proof import Output
from wallet.cashu.signature import sign_secret
from wallet.cashu.subscription import Topic
from wallet.cashu.token import Payment
from wallet.cashu.watcher import Watcher
from wallet.copy import OldCopy
from wallet.debt import Debts
from wallet.engine import Engine
from wallet.error import (
    MintUnlisted,
    TokenMint,
    TokenUnit,
)
from wallet.foreign import Foreign
from wallet.invoice import MAINNET, Invoice, payable_invoice, plain_invoice
from wallet.keeper import Keeper
from wallet.model import (
    Audit,
    Balance,
    Locked,
    OperationView,
    Restored,
    SpentState,
    Watch,
)
from wallet.payment import Kind, State
from wallet.planner import Planner, lock_cost, melt_cost
from wallet.proven import check_taken
from wallet.purse import HELD, OPEN, Purse, Stored
from wallet.recollection import Recollection
from wallet.record import Vault
from wallet.restorer import Restorer
from wallet.shelf import Shelf
from wallet.teller import Teller, conclude, result_of, view_of
from wallet.withdrawal import Withdrawal

_WARM_S = 60.0  # so long a start waits for what a mint has to say of our counters
_log = logging.getLogger(__name__)


class Holding:
    """The parts of a wallet, and all that changes nothing at a mint.

    Args:
        unit: the database.
        keyring: every key derives from it.
        clock: time.
        check: the gate's check of permits.
        mints: clients of the mints that the owner trusts.
        retired: clients of mints that are trusted no more and hold money of ours (`wallet.leftover`): it is fetched,
            what is open there is finished, and nothing new is begun. No other mint is ever asked for anything.
        permit_for: the gate's permit for an effect that has begun; used after a restart.
        collection: the gate's permit for deposits, also of an effect that has ended; `permit_for` if there is none.
        watchers: mints' websockets (NUT-17), by canonical address; without one a mint is just asked again and again.
        currencies: networks whose invoices are paid and may be given for deposits (`bc` is the Bitcoin main network).
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
        watchers: Mapping[str, Watcher] | None = None,
        collection: Callable[[EffectId], Permit] | None = None,
    ) -> None:
        self._keyring = keyring
        self._clock = clock
        self._check = check
        self._currencies = currencies
        self._watchers = dict(watchers or {})
        self._unit = unit
        self._books = Shelf(clock)
        for mint in mints:
            self._books.add(mint)
        for mint in retired:
            self._books.add(mint, retired=True)
        derive = Derivation(keyring)
        vault = Vault(keyring.derive("seal"))
        self._purse = Purse(unit, vault, derive, clock)
        self._purse.on_coin = self._books.pin
        self._planner = Planner(self._purse, derive, lambda mint, unit: self._teller.book(mint, unit))
        self._engine = Engine(
            self._purse, keyring, clock, self._books, permit_for, self._renew, self._make_way, conclude, collection
        )
        self._restorer = Restorer(self._purse, derive, clock)
        self._copy = OldCopy(self._purse, derive, unit, clock, self._books)
        self._teller = Teller(
            self._purse, self._planner, self._engine, self._books, clock, check, self._guard,
            lambda book: self._keeper.look_up(book),
        )  # fmt: skip
        self.debts = Debts()
        self._withdrawal = Withdrawal(self._teller, self._planner, self._purse, clock, currencies, self.debts)
        self._cashier = Cashier(
            self._teller, self._planner, self._engine, self._withdrawal, keyring, clock, check, currencies
        )
        self.foreign = Foreign(self._cashier, self._books)
        self._auditor = Auditor(self._purse, self._books, clock)
        self.recollection = Recollection(unit, self._purse, vault, derive, self._teller, self._auditor, clock)
        self._keeper = Keeper(
            self._purse, self._teller, self._engine, self._auditor, self._books, clock, collection or permit_for
        )

    async def _guard(self, book: KeysetBook) -> None:
        await (self._copy.settle(book) if book.copied else self._restorer.guard(book))

    async def _renew(self, stored: Stored) -> Stored:
        return await self._teller.renew(stored)

    async def _make_way(self, book: KeysetBook, others: Collection[Output]) -> None:
        async with self._teller.choosing(book):
            await self._restorer.restore(book, others)

    def _book(self, mint: str, unit: str = SAT) -> KeysetBook:
        if unit != SAT:
            raise TokenUnit("Jobs are paid for in sat.")
        return self._teller.book(canonical_url(mint), unit)

    @property
    def mints(self) -> tuple[str, ...]:
        """Canonical addresses of the trusted mints."""
        return self._books.mints

    @property
    def currencies(self) -> frozenset[str]:
        """Networks whose invoices count here, as they stand in an invoice (`bc` is the Bitcoin main network)."""
        return self._currencies

    @property
    def key(self) -> Key:
        """The wallet's own key, to which payments to us are locked (NUT-11). Never an identity key."""
        return self._keyring.key("wallet")

    def refund_pubkey(self, op_id: str) -> str:
        """The refund key of the lock with this operation id, compressed hex."""
        return self._keyring.key("refund", op_id).compressed

    def cosign_pubkey(self, job: str) -> str:
        """The key of ours that signs beside the seller's, compressed hex. Never the refund key (`HashLock.check`)."""
        return self._keyring.key("cosign", job).compressed

    async def cosign(self, lock_op_id: str, job: str) -> tuple[str, ...]:
        """Our signatures for a payment that was locked with this job's co-sign key, in the order of its coins.

        Once a seller has them it can take the money by showing the preimage.

        Raises:
            NotFound: no such payment was locked with that key.
        """
        stored = await self._purse.find(lock_op_id)
        if stored is None or stored.result is None or stored.op.kind is not Kind.LOCK:
            raise NotFound("There is no such locked payment.")
        key = self._keyring.key("cosign", job)
        if stored.plan.terms.get("cosigner") != key.compressed:
            raise NotFound("The payment was not locked with this co-sign key.")
        return tuple(sign_secret(proof["secret"], key) for proof in self._locked(stored).payload["proofs"])

    @property
    def units(self) -> tuple[str, ...]:
        """The units that are handled, at mints that have them."""
        return tuple(UNITS)

    def fetch_from(self, mint: Mint) -> None:
        """Ask one more mint for what is ours there: one that is not on the list, and held money of ours (`retired`)."""
        self._books.add(mint, retired=True)

    @property
    def known_mints(self) -> tuple[str, ...]:
        """Canonical addresses of all mints that may be asked, trusted or not."""
        return self._books.known

    def on_change(self, watcher: Callable[[], None]) -> None:
        """Have it called when rows of the wallet have changed."""
        self._purse.on_commit(watcher)

    # ------------------------------------------------------------------ service

    async def recover(self) -> int:
        """At start: resolve every open operation, or leave it unknown. How many are still open."""
        await self._open_books()
        await self._copy.load()
        async with asyncio.TaskGroup() as group:  # a mint that is away keeps none of the others waiting
            for book in list(self._books.values()):
                group.create_task(self._warm(book))
        return await self._keeper.recover()

    async def _open_books(self) -> None:
        """The books of all that we hold, in whichever unit, whatever the mint says now."""
        rows = await self._unit.select("proof", {"state": HELD}, columns=("mint", "unit", "keyset"), distinct=True)
        for row in rows:
            self._books.pin(str(row["mint"]), str(row["unit"]), str(row["keyset"]))
        under_way = Among((str(State.WAITING), *OPEN.values))
        rows += await self._unit.select("operation", {"state": under_way}, columns=("mint", "unit"), distinct=True)
        for mint, unit in {(str(row["mint"]), str(row["unit"])) for row in rows}:
            if self._books.roll(mint) is not None:
                self._teller.book(mint, unit)

    async def _warm(self, book: KeysetBook) -> None:
        try:
            async with asyncio.timeout(_WARM_S):
                await self._teller.warm(book)
        except TimeoutError:
            _log.warning("a mint says more than can be heard at start", extra={"action": "mint_cold"})

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Background work: unknown operations, unpaid deposits, payments that were taken."""
        try:
            await self._keeper.run(ready, stop)
        finally:
            for watcher in self._watchers.values():
                await watcher.aclose()

    # ------------------------------------------------------------------ after a restore from an old copy

    async def mark_copied(self) -> None:
        """Before `recover`: the rows are an old copy's. See `wallet.copy` for what follows from that."""
        await self._open_books()
        await self._copy.mark()

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

    async def pays(self, payment_hash: str) -> OperationId | None:
        """The operation that pays an invoice with coins, has paid it, or may have. What was refused has not."""
        return await self._withdrawal.pays(payment_hash)

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

    def watching(self, mint: str, ys: Sequence[str], hurry: Callable[[], None]) -> AbstractContextManager[Watch]:
        """Call `hurry` whenever the mint says that one of these coins has changed, until the block is left.

        Its word is a hint; `spent` asks.
        """
        watcher = self._watchers.get(canonical_url(mint))
        return nullcontext(Watch()) if watcher is None else watcher.watching(Topic.COINS, ys, hurry)

    async def units_at(self, mint: str) -> tuple[str, ...]:
        """The units in which there may be something of ours at a mint: those that it lists, and those that we hold.

        Raises:
            MintUnlisted: not one of ours.
            Unavailable, MintRejected, MintLied: the mint does not say.
        """
        await self._book(mint).known()
        return tuple(book.unit for book in self._books.at(canonical_url(mint)))

    def is_contested(self, mint: str) -> bool:
        """Whether the mint, when it was last asked, contradicted itself about keysets: coins in those are not found.

        Raises:
            MintUnlisted: not one of ours.
        """
        return bool(self._book(mint).roll.contested)

    async def restore(self, mint: str, unit: str = SAT) -> Restored:
        """Find coins of this seed, in one unit, that the database does not know (NUT-09, NUT-13).

        Raises:
            MintUnlisted: not one of ours.
            Unavailable: the mint does not answer.
        """
        book = self._teller.book(canonical_url(mint), unit)
        if book.copied:  # first of all what moved meanwhile: coins that are found in another way would hide it
            await self._teller.compared(book)
        async with self._teller.choosing(book):
            return await self._restorer.restore(book)

    async def proven(self, payment: Payment, pubkey: str) -> Msat:
        """What coins were worth that somebody's receipt shows, once the mint has confirmed that `pubkey` took them.

        Raises:
            NotProven: it does not.
            TokenRejected: the coins are not of a mint of ours.
            Unavailable: the mint does not answer.
        """
        return await check_taken(payment, self._accepted(payment), pubkey)

    def lock_cost(self, mint: str, price: Msat) -> Msat:
        """At most what locking `price` costs us with all fees, for a wallet in usual coins.

        Raises:
            MintUnlisted: not one of ours.
        """
        return lock_cost(price, self._listed(mint).ppk)

    def pay_cost(self, mint: str, amount: Msat) -> Msat:
        """At most what paying an invoice of `amount` costs us with all fees, by what is usual. Asks nobody.

        Raises:
            MintUnlisted: not one of ours.
        """
        return melt_cost(amount, self._book(mint).ppk)  # a mint that is trusted no more is left in this way

    def payable(self, invoice: str) -> Invoice:
        """The invoice, if it is one that may be paid now. Asks nobody.

        Raises:
            InvoiceUnfit: it is not.
        """
        return payable_invoice(plain_invoice(invoice), self._clock.now(), currencies=self._currencies)

    def _listed(self, mint: str) -> KeysetBook:
        book = self._book(mint)
        if book.retired:
            raise MintUnlisted
        return book

    @staticmethod
    def _locked(stored: Stored) -> Locked:
        result = result_of(stored)
        assert isinstance(result, Locked)
        return result

    def _accepted(self, payment: Payment) -> KeysetBook:
        """The book of the payment's mint, if that is one of ours. Asks nobody.

        Raises:
            TokenMint, TokenUnit: it is not acceptable.
        """
        if payment.unit != SAT:
            raise TokenUnit
        try:
            return self._book(payment.mint)
        except (MintUnlisted, InvalidInput) as error:
            raise TokenMint from error
