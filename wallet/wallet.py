"""The wallet: deposits, payments locked to sellers, claims, refunds, tokens. The only driver of mints in the node.

All of this is in sat. What an owner holds in other units is reached through `foreign` alone, which the market never is
given: nothing here takes the name of another unit, so that no job is paid for, claimed or refunded in cents.

An operation is known by an id that the caller chooses; the same id gives the same result and never a second payment.
Its effect has already begun at the gate: the permit is asked for before anything is written, and at every call that
changes something at a mint.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from core.effect import Permit
from core.error import Conflict, InvalidInput, NotFound
from core.identifier import EffectId, derived_id
from core.money import Msat
from core.unit import Write
from wallet.amount import SAT, Amount
from wallet.cashier import request
from wallet.cashu.address import canonical_url
from wallet.cashu.book import KeysetBook
from wallet.cashu.curve import is_point
from wallet.cashu.proof import Proof, total
from wallet.cashu.token import Payment, decode, from_payload
from wallet.error import (
    MintLied,
    MintRefused,
    MintRejected,
    MintSilent,
    TokenLock,
    TokenMint,
    TokenReused,
    TokenTooSmall,
    UnitMixed,
)
from wallet.holding import Holding
from wallet.model import (
    Deposit,
    Locked,
    LockTerms,
    Paid,
    Received,
    Unlock,
    VerifiedPayment,
    VerifyTerms,
)
from wallet.payment import Kind, State
from wallet.planner import Planned, lock_of
from wallet.purse import Coin, Stored
from wallet.record import Plan
from wallet.teller import result_of, settled
from wallet.verification import check_coins, check_given, check_locks, check_unspent, check_worth, net_worth, unlocked


def _no_locked(_: Locked) -> Sequence[Write]:
    return ()


def _no_paid(_: Paid) -> Sequence[Write]:
    return ()


def _no_received(_: Received) -> Sequence[Write]:
    return ()


class Wallet(Holding):
    """One per node; see `Holding` for what it is made of."""

    # ------------------------------------------------------------------ money in

    async def deposit(
        self,
        op_id: str,
        mint: str,
        sat: int,
        effect_id: EffectId,
        permit: Permit,
        *,
        until: int = 0,
        lightning: bool = False,
    ) -> Deposit:
        """An invoice that, once paid, becomes coins (NUT-04). `run` mints them.

        With `lightning` it is to be paid from the node's own Lightning wallet (`wallet.funding`). `until` (Unix
        seconds) is for an invoice that a stranger may never pay: from then on it is looked at ever more rarely, and an
        hour after it has expired it is given up.

        Raises:
            InvoiceRejected: the mint's invoice is not for this amount, network or time.
            MintLimited: the mint does not take this amount; it was asked for nothing.
            Unavailable, MintRejected: the mint gives no quote.
        """
        amount = Amount(sat, SAT)
        stored = await self._cashier.deposit(op_id, mint, amount, effect_id, permit, until=until, lightning=lightning)
        return self._deposit(stored)

    async def poll(self, op_id: str) -> Deposit:
        """Look at a deposit now instead of at `run`'s pace.

        Raises:
            NotFound: there is no such deposit.
            UnitMixed: it is in another unit; `run` looks at it, and `find` tells.
        """
        await self._keeper.poll(op_id)
        stored = await self._purse.find(op_id)
        if stored is None or stored.op.kind is not Kind.DEPOSIT:
            raise NotFound("There is no such deposit.")
        return self._deposit(stored)

    async def deposits_to_fund(self) -> list[tuple[Deposit, EffectId]]:
        """Deposits that wait for the node's own Lightning wallet.

        None of an old copy's rows, and none at a mint that is trusted no more.
        """
        waiting = await self._purse.operations(state=str(State.WAITING))
        wanted = [one for one in waiting if one.plan.terms.get("lightning") and not one.plan.copied]
        return [(self._deposit(one), one.effect_id) for one in wanted if one.mint in self.mints]

    @staticmethod
    def _deposit(stored: Stored) -> Deposit:
        if stored.unit != SAT:
            raise UnitMixed("This deposit is not in sat.")
        plan = stored.plan
        pay_until = int(plan.terms.get("pay_until", plan.expires))
        return Deposit(stored.op.id, plan.invoice, stored.op.state, stored.amount, plan.expires, pay_until)

    async def receive(self, op_id: str, token: str, effect_id: EffectId, permit: Permit) -> Received:
        """Swap somebody's `cashuB` token at once for coins that only we know.

        Raises:
            TokenRejected: with the reason as its type; the mint was asked for nothing unless it is one of ours.
            MintRefused: looked up: nothing happened.
            PaymentUnknown: it may have happened; the same call again goes on.
        """
        payment = decode(token)
        self._accepted(payment)
        return self._received(await self._cashier.receive(op_id, token, payment, effect_id, permit))

    # ------------------------------------------------------------------ money out

    async def send(
        self, op_id: str, mint: str, sat: int, effect_id: EffectId, permit: Permit, *, pubkey: str = ""
    ) -> str:
        """A token of exactly `sat`. It stays readable under its operation id until it is known to be taken.

        Whoever has it has the money; with `pubkey` (compressed hex) only the holder of that key does (NUT-11), and
        nothing brings it back.

        Raises:
            InsufficientFunds, MintRefused, PaymentUnknown: as in `lock`.
            InvalidInput: no such amount, or `pubkey` is no key.
        """
        amount = Amount(sat, SAT)
        return str(result_of(await self._cashier.send(op_id, mint, amount, effect_id, permit, pubkey)))

    async def pay(
        self,
        op_id: str,
        mint: str,
        invoice: str,
        ceiling: Msat,
        effect_id: EffectId,
        permit: Permit,
        then: Callable[[Paid], Sequence[Write]] = _no_paid,
    ) -> Paid:
        """Pay a Lightning invoice with coins (NUT-05), at most `ceiling` with all fees.

        The same `op_id` gives the same payment and never a second one. `then`'s writes are committed with the booking
        that this very call makes; a payment that was booked earlier, or by recovery, is just returned.

        Raises:
            InvoiceRejected: it is none that we pay; nothing was begun.
            InsufficientFunds: too little free money now; nothing was begun.
            TooDear: with fees above `ceiling`; nothing was begun.
            InvoiceKnown: another operation pays this invoice, has paid it, or may have; nothing was begun.
            MintRefused: nothing was begun, or looked up: nothing left us. Final for this `op_id`, if it was begun.
            PaymentUnknown: it may have happened, or still happen until the invoice ends; recovery resolves it.
            OperationReused: the id stands for another invoice.
        """
        limit = {"ceiling": ceiling.value}
        stored = await self._cashier.pay(
            op_id, mint, SAT, invoice, limit, effect_id, permit, lambda done: then(self._paid(done))
        )
        return self._paid(stored)

    @staticmethod
    def _paid(stored: Stored) -> Paid:
        result = result_of(stored)
        assert isinstance(result, Paid)
        return result

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
        if terms.hash:
            facts |= {"hash": terms.hash, "cosigner": self.cosign_pubkey(terms.cosigner) if terms.cosigner else ""}
        wanted = request(op_id, Kind.LOCK, book, effect_id, orjson.dumps(facts).decode())

        async def make() -> Planned:
            # Only for a new operation: one that exists is answered whatever the time.
            if terms.refund_key not in ("", refund):
                raise InvalidInput("The refund key is not the wallet's own for this operation.")
            if not is_point(terms.seller_pubkey) or terms.locktime <= self._clock.now() or terms.price.value <= 0:
                raise InvalidInput("A lock needs the seller's key, a locktime in the future and a price.")
            plan = Plan(wanted.digest, terms=facts | {"ceiling": ceiling.value})
            try:
                lock_of(plan).secret("")
            except TokenLock as error:
                raise InvalidInput(error.message) from error
            return await self._planner.lock(op_id, plan, book)

        stored = await self._teller.perform(wanted, permit, make, lambda done: then(self._locked(done)))
        return self._locked(settled(stored))

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
        book = self._book(lock.mint, lock.unit)  # in sat, as it was locked
        wanted = request(op_id, Kind.REFUND, book, effect_id, lock_op_id)

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
        return VerifiedPayment(book.mint.url, SAT, Msat.of_sat(total(coins)), ys, net, locktime)

    async def appraise(
        self, owner: str, payload: Mapping[str, Any], pubkey: str, not_before: int, giver: str = ""
    ) -> int:
        """What claiming coins would leave, in sat, that somebody gave to us in public (NIP-61).

        No mint is asked whether they are spent: the claim finds out. A coin that passed counts for `owner` alone from
        then on. No mint but a trusted one is asked for anything, and that for its keysets alone.

        Args:
            owner: what they are taken for; one coin counts once.
            payload: in NUT-18's form.
            pubkey: the key of ours that they must be locked to, as it was announced, compressed hex.
            not_before: Unix seconds before which nobody else may be able to take them.
            giver: the Nostr key of who says to have sent them.

        Raises:
            TokenRejected: with the reason as its type.
            Unavailable: the mint's keysets cannot be had now; nothing is known.
        """
        payment = from_payload(payload)
        book = self._accepted(payment)
        if book.retired or book.mint.url != payment.mint:
            raise TokenMint
        check_given(payment, pubkey, not_before, giver)
        await self._check_unused(payment.proofs, owner)
        try:
            coins = await check_coins(payment, book)
        except (MintLied, MintRejected) as error:
            raise MintSilent("The mint gave no usable answer about its keysets.") from error
        if (net := net_worth(coins, book)) <= 0:
            raise TokenTooSmall
        await self._remember(coins, book, owner)
        return net

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
                [self._purse.insert(coin, book.mint.url, book.unit, "incoming", owner) for coin in fresh]
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
        unlock: Unlock | None = None,
    ) -> Received:
        """Swap a payment that is locked to us. A refused claim may be tried again under the same id.

        With `unlock` it is one that is locked to a hash of ours (NUT-14): the mint, and through it the customer, sees
        the preimage, but not before the coins that we get for it can be found again.

        Raises:
            TokenRejected: it is not a payment to us; `TokenSpent`: it was taken back or claimed before.
            MintRefused: looked up: nothing happened.
            PaymentUnknown: it may have happened.
        """
        payment = from_payload(payload)
        book = self._accepted(payment)
        names = sorted(proof.secret for proof in payment.proofs)
        wanted = request(op_id, Kind.CLAIM, book, effect_id, derived_id(*names))

        def plan(coins: tuple[Proof, ...]) -> Plan:
            if unlock is not None:
                return unlocked(wanted.digest, coins, unlock, self.key.compressed)
            if self._cashier.spending_key(coins) != ("wallet",):
                raise TokenLock
            return Plan(wanted.digest, coins, ("wallet",))

        async def make() -> Planned:
            return await self._planner.take(plan(await check_coins(payment, book)), book)

        try:
            stored = await self._teller.perform(wanted, permit, make, lambda done: then(self._received(done)))
        except MintRefused:
            if await self._purse.find(op_id) is None:  # the mint is away
                await self.recollection.owe(op_id, book.mint.url, book.unit, plan(payment.proofs))
            raise
        return self._received(settled(stored))
