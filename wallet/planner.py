"""Makes plans: which coins go in, which outputs are asked for, and whether that is within the limits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from core.money import Msat
from core.unit import Write
from wallet.amount import SAT, Amount
from wallet.cashu.book import KeysetBook
from wallet.cashu.derive import Derivation, lock_name
from wallet.cashu.keyset import fee
from wallet.cashu.lock import HashLock, KeyLock, Lock
from wallet.cashu.port import MeltQuote
from wallet.cashu.proof import Output, Proof, total
from wallet.cashu.select import MAX_INPUTS, select, split, with_fee
from wallet.error import InsufficientFunds, MintRefused, TokenTooSmall, TooDear, UnitMixed
from wallet.melt import blank_count, check_ceiling, check_most, likely_reserve
from wallet.payment import Kind
from wallet.purse import Purse, Stored
from wallet.record import Plan

# Locking is priced as if it took so many coins; a wallet in smaller change may have to raise TooDear.
_USUAL_INPUTS = 10


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, and the writes that use up its counters. `amount` in the mint's unit."""

    plan: Plan
    writes: tuple[Write, ...]
    amount: int


def lock_cost(price: Msat, ppk: int) -> Msat:
    """An upper bound of what locking `price` net to the seller takes, with all fees, for a wallet in usual coins."""
    return Msat.of_sat(with_fee(price.sat_up(), ppk) + -(-_USUAL_INPUTS * ppk // 1000))


def melt_cost(amount: Msat, ppk: int) -> Msat:
    """What paying an invoice of `amount` takes at most, with all fees, at a usual mint for a wallet in usual coins."""
    sat = amount.sat_up()
    return Msat.of_sat(sat + likely_reserve(sat) + -(-_USUAL_INPUTS * ppk // 1000))


def lock_of(plan: Plan) -> Lock | HashLock:
    """The lock that a plan's terms ask for."""
    terms = plan.terms
    pubkey, locktime, refund = str(terms["pubkey"]), int(terms["locktime"]), str(terms["refund"])
    if "hash" in terms:
        return HashLock(str(terms["hash"]), pubkey, locktime, refund, str(terms["cosigner"]))
    return Lock(pubkey, locktime, refund)


def _sorted(outputs: Sequence[Output]) -> tuple[Output, ...]:
    """By amount, so that their order tells the mint nothing."""
    return tuple(sorted(outputs, key=lambda output: (output.amount, output.b)))


class Planner:
    """Turns requests into plans.

    Args:
        purse: gives coins and counters.
        derive: makes locked outputs.
        book_of: the keysets of a mint and unit.
    """

    def __init__(self, purse: Purse, derive: Derivation, book_of: Callable[[str, str], KeysetBook]) -> None:
        self._purse = purse
        self._derive = derive
        self._book_of = book_of

    async def _affordable(self, book: KeysetBook, amount: int) -> tuple[Proof, ...]:
        """Free coins that cover `amount` and the fee for spending them.

        Raises:
            InsufficientFunds: there are too few.
        """
        coins = await self._purse.coins(mint=book.mint.url, unit=book.unit, state="live")
        usable = [coin.proof for coin in coins if coin.proof is not None and coin.proof.keyset in book.infos]
        chosen = select(usable, amount, book.infos)
        if chosen is None:
            most = total(sorted(usable, key=lambda coin: coin.amount)[-MAX_INPUTS:])
            small = f", of which {most} at once, since its coins are small: ask for less, several times"
            told = f"{total(usable)} {book.unit} free" + (small if len(usable) > MAX_INPUTS else "")
            raise InsufficientFunds(f"The wallet has {told}; {amount} and fees are needed.")
        return chosen

    def _spare(self, book: KeysetBook, inputs: Sequence[Proof], amount: int) -> tuple[int, int]:
        """Fee and change of spending these inputs for `amount`.

        Raises:
            MintRefused: they no longer cover it.
        """
        due = fee((proof.keyset for proof in inputs), book.infos)
        change = total(inputs) - due - amount
        if change < 0:
            raise MintRefused("The mint's fees rose; the reserved coins no longer cover the payment.")
        return due, change

    async def lock(self, op_id: str, plan: Plan, book: KeysetBook) -> Planned:
        """Lock coins as `plan.terms` says, from `plan.inputs` or, if there are none, from free coins.

        Raises:
            InsufficientFunds: too few free coins.
            TooDear: with all fees it is above the ceiling.
            MintRefused: reserved coins no longer cover it.
            UnitMixed: the book is not of sat; prices and ceilings are.
        """
        if book.unit != SAT:
            raise UnitMixed("Payments for jobs are locked in sat.")
        keyset = (await book.active()).info
        token = with_fee(Msat(int(plan.terms["price"])).sat_up(), keyset.ppk)
        inputs = plan.inputs or await self._affordable(book, token)
        due, change = self._spare(book, inputs, token)
        if Msat.of_sat(token + due).value > int(plan.terms["ceiling"]):
            raise TooDear(f"Locking takes {token + due} sat with fees, above the ceiling.")
        given = self._locked(op_id, lock_of(plan), keyset.id, split(token), plan.attempt)
        kept, writes = await self._purse.outputs(keyset.id, split(change))
        return Planned(replace(plan, inputs=inputs, outputs=_sorted([*given, *kept]), fee=due), tuple(writes), token)

    def _locked(
        self, op_id: str, lock: Lock | HashLock | KeyLock, keyset: str, amounts: Sequence[int], attempt: int
    ) -> list[Output]:
        """Outputs under a lock, named after the operation."""
        given = []
        for place, amount in enumerate(amounts):
            name = lock_name(op_id, keyset, place, attempt)
            given.append(self._derive.lock_output(name, keyset, amount, lock.secret(self._derive.lock_nonce(name))))
        return given

    async def send(self, op_id: str, plan: Plan, book: KeysetBook) -> Planned:
        """Coins for a token of exactly `plan.terms["amount"]`, locked to `plan.terms["pubkey"]` if there is one.

        Raises:
            InsufficientFunds: too few free coins.
            MintRefused: reserved coins no longer cover it.
        """
        keyset = (await book.active()).info
        amount = int(plan.terms["amount"])
        inputs = plan.inputs or await self._affordable(book, amount)
        due, change = self._spare(book, inputs, amount)
        given = split(amount)
        if pubkey := str(plan.terms.get("pubkey", "")):
            locked = self._locked(op_id, KeyLock(pubkey), keyset.id, given, plan.attempt)
            kept, writes = await self._purse.outputs(keyset.id, split(change))
            outputs = _sorted([*locked, *kept])
            return Planned(replace(plan, inputs=inputs, outputs=outputs, fee=due), tuple(writes), amount)
        made, writes = await self._purse.outputs(keyset.id, [*given, *split(change)], gives=len(given))
        return Planned(replace(plan, inputs=inputs, outputs=_sorted(made), fee=due), tuple(writes), amount)

    async def melt(self, plan: Plan, quote: MeltQuote, book: KeysetBook) -> Planned:
        """Coins for an invoice with its fee reserve, and blank outputs for what comes back; see `wallet.melt`.

        Where a mint winds down, no keyset takes new outputs, and the coins of its old ones still pay (NUT-02, NUT-05):
        then nothing can come back, and what the mint does not need of its fee reserve is lost. The ceiling counts the
        whole reserve in any case. Coins worth more than amount, reserve and input fee are never given so.

        Raises:
            InsufficientFunds: too few free coins.
            TooDear: with all fees it is above the ceiling.
            MintRefused: nothing can come back, and the free coins do not make the exact sum.
        """
        inputs = await self._affordable(book, quote.amount + quote.fee_reserve)
        due = fee((proof.keyset for proof in inputs), book.infos)
        if book.unit == SAT:
            check_ceiling(quote, due, Msat(int(plan.terms["ceiling"])))
        else:
            check_most(quote, due, Amount(int(plan.terms["most"]), book.unit))
        overpaid = total(inputs) - due - quote.amount
        if not any(book.usable(id_) for id_ in book.infos):
            if overpaid > quote.fee_reserve:
                raise MintRefused(
                    "The mint has no active keyset, so that no change can come back, and the free coins do not make "
                    f"the exact sum of {quote.amount + quote.fee_reserve + due} {book.unit}.",
                    remedy="Pay an invoice over another amount.",
                )
            return Planned(replace(plan, inputs=inputs, outputs=(), fee=due), (), quote.amount)
        keyset = (await book.active()).info
        outputs, writes = await self._purse.outputs(keyset.id, [0] * blank_count(overpaid))
        return Planned(replace(plan, inputs=inputs, outputs=tuple(outputs), fee=due), tuple(writes), quote.amount)

    async def take(self, plan: Plan, book: KeysetBook) -> Planned:
        """Swap `plan.inputs` for coins that only we know.

        Raises:
            TokenTooSmall: the fee eats them.
        """
        keyset = (await book.active()).info
        due = fee((proof.keyset for proof in plan.inputs), book.infos)
        net = total(plan.inputs) - due
        if net <= 0:
            raise TokenTooSmall("The mint's fee is as much as the coins are worth.")
        made, writes = await self._purse.outputs(keyset.id, split(net))
        return Planned(replace(plan, outputs=_sorted(made), fee=due), tuple(writes), net)

    async def deposit(self, plan: Plan, book: KeysetBook) -> Planned:
        """Coins for a paid quote."""
        keyset = (await book.active()).info
        amount = int(plan.terms["amount"])
        made, writes = await self._purse.outputs(keyset.id, split(amount))
        return Planned(replace(plan, outputs=_sorted(made)), tuple(writes), amount)

    async def again(self, stored: Stored) -> Planned:
        """A new plan for the same operation under the mint's present keysets. Old outputs stay in `past`.

        Raises:
            InsufficientFunds, TooDear, MintRefused, TokenTooSmall: it cannot be done any more.
        """
        book = self._book_of(stored.mint, stored.unit)
        old = stored.plan
        past = (*old.past, old.outputs) if old.outputs else old.past
        # Locked outputs are named after the attempt: one whose outputs were given up is not made again.
        plan = replace(old, past=past, attempt=max(len(past) + 1, stored.op.attempt))
        if stored.op.kind is Kind.LOCK:
            return await self.lock(stored.op.id, plan, book)
        if stored.op.kind is Kind.SEND:
            return await self.send(stored.op.id, plan, book)
        if stored.op.kind is Kind.DEPOSIT:
            return await self.deposit(plan, book)
        return await self.take(replace(plan, inputs=await self.left(stored) or plan.inputs), book)

    async def left(self, stored: Stored) -> tuple[Proof, ...]:
        """The inputs of an operation that takes: of a refund those that the seller has not taken, as far as booked."""
        if stored.op.kind is not Kind.REFUND:
            return stored.plan.inputs
        coins = await self._purse.coins(operation=stored.plan.key[1], state="locked")
        return tuple(coin.proof for coin in coins if coin.proof is not None)
