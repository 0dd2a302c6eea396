"""Money in units other than sat: the owner's to deposit, to pass on and to pay invoices with, and nobody else's.

What the market buys and sells is paid for in sat: its drivers are given `Wallet`, whose methods take and give sat or
msat, and have no way to name another unit. Results here carry their unit with them.
"""

from dataclasses import dataclass

from core.effect import Permit
from core.error import InvalidInput, Unavailable
from core.identifier import EffectId
from core.money import Msat, Rate
from wallet.amount import SAT, UNITS, Amount
from wallet.cashier import Cashier
from wallet.cashu.address import canonical_url
from wallet.cashu.keyset import MAX_PPK
from wallet.cashu.token import Payment, decode
from wallet.error import (
    MintLied,
    MintRefused,
    MintRejected,
    MintUnlisted,
    TokenMint,
    TokenUnit,
    UnitAbsent,
)
from wallet.model import Gained, OtherDeposit, OtherPaid
from wallet.purse import Stored
from wallet.shelf import Shelf
from wallet.teller import result_of
from wallet.worth import likely_cost

_USUAL_INPUTS = 10


@dataclass(frozen=True, slots=True)
class Offer:
    """What a mint says of one unit: whether coins can be bought and invoices paid; None where it does not say.

    `active`: it gives out new coins of this unit. Limits in the unit's smallest part; None is no limit.
    """

    unit: str
    active: bool
    deposits: bool | None = None
    withdrawals: bool | None = None
    least_deposit: int | None = None
    most_deposit: int | None = None
    least_withdrawal: int | None = None
    most_withdrawal: int | None = None


class Foreign:
    """One per wallet.

    Args:
        cashier: does it.
        shelf: the mints.
    """

    def __init__(self, cashier: Cashier, shelf: Shelf) -> None:
        self._cashier, self._shelf = cashier, shelf

    # ------------------------------------------------------------------ which units there are

    async def offers(self, mint: str) -> tuple[Offer, ...]:
        """The units of a trusted mint that are handled, sat included, as far as it says.

        Raises:
            MintUnlisted: not one of ours.
            Unavailable, MintLied, MintRejected: it does not say.
        """
        roll = self._shelf.roll(canonical_url(mint))
        if roll is None:
            raise MintUnlisted
        await self._cashier.book(mint, SAT).known()
        limits = await roll.limits()
        found = []
        for unit in UNITS:
            book = self._shelf.get((roll.mint.url, unit))
            if book is None or not book.infos:
                continue
            sold, bought = limits.deposit(unit), limits.withdrawal(unit)
            told = bool(limits.deposits or limits.withdrawals)
            found.append(
                Offer(
                    unit,
                    any(map(book.usable, book.infos)),
                    unit in limits.deposits and not sold.disabled if told else None,
                    unit in limits.withdrawals and not bought.disabled if told else None,
                    *(sold.least, sold.most, bought.least, bought.most),
                )
            )
        return tuple(found)

    def sellers(self, unit: str) -> tuple[str, ...]:
        """Trusted mints that give out coins of a unit, by what is known of them now."""
        books = ((mint, self._shelf.get((mint, unit))) for mint in self._shelf.mints)
        return tuple(mint for mint, book in books if book is not None and any(map(book.usable, book.infos)))

    def unheard(self) -> tuple[str, ...]:
        """Trusted mints that have not said yet which units they have."""
        rolls = ((mint, self._shelf.roll(mint)) for mint in self._shelf.mints)
        return tuple(mint for mint, roll in rolls if roll is not None and not roll.heard)

    # ------------------------------------------------------------------ money in and out

    async def deposit(self, op_id: str, mint: str, amount: Amount, effect_id: EffectId, permit: Permit) -> OtherDeposit:
        """An invoice that, once paid, becomes coins of this unit (NUT-04). What it asks for, the mint alone decides.

        Raises:
            UnitAbsent: the mint has no such coins.
            InvoiceRejected, MintLimited, Unavailable, MintRejected: as `Wallet.deposit`.
        """
        self._other(amount.unit)
        stored = await self._cashier.deposit(op_id, mint, amount, effect_id, permit, until=0, lightning=False)
        return self.deposit_of(stored)

    @staticmethod
    def deposit_of(stored: Stored) -> OtherDeposit:
        """A stored deposit, as its owner sees it."""
        plan, amount = stored.plan, Amount(stored.amount, stored.unit)
        price = Msat(int(plan.terms.get("msat", 0)))
        return OtherDeposit(stored.op.id, plan.invoice, stored.op.state, amount, price, plan.expires)

    async def receive(self, op_id: str, token: str, effect_id: EffectId, permit: Permit) -> Gained:
        """Swap somebody's token for coins that only we know, in the token's unit.

        Raises:
            TokenRejected: with the reason as its type; `TokenUnit`: its mint is ours and has no such coins.
            MintRefused, PaymentUnknown: as `Wallet.receive`.
        """
        payment = decode(token)
        await self._check_unit(payment)
        stored = await self._cashier.receive(op_id, token, payment, effect_id, permit)
        result = result_of(stored)
        assert isinstance(result, Gained)
        return result

    async def _check_unit(self, payment: Payment) -> None:
        if payment.unit not in UNITS or payment.unit == SAT:
            raise TokenUnit
        try:
            book = self._cashier.book(payment.mint, payment.unit)
        except (MintUnlisted, InvalidInput) as error:
            raise TokenMint from error
        try:
            await book.known()
        except (Unavailable, MintLied, MintRejected) as error:
            raise MintRefused("The mint's keysets cannot be had; nothing was begun.", cause=error.code) from error
        if not book.infos:
            raise TokenUnit(f"The payment's mint has no coins in {payment.unit}.")

    async def send(
        self, op_id: str, mint: str, amount: Amount, effect_id: EffectId, permit: Permit, *, pubkey: str = ""
    ) -> str:
        """A token of exactly this much; see `Wallet.send`."""
        self._other(amount.unit)
        return str(result_of(await self._cashier.send(op_id, mint, amount, effect_id, permit, pubkey)))

    async def pay(
        self, op_id: str, mint: str, invoice: str, most: Amount, effect_id: EffectId, permit: Permit
    ) -> OtherPaid:
        """Pay a Lightning invoice with coins of `most`'s unit, at most `most` with all fees (NUT-05).

        The mint says what the invoice is in its unit; above `most` nothing is begun.

        Raises:
            TooDear: as above.
            VendoError: as `Wallet.pay`.
        """
        self._other(most.unit)
        ceiling = {"most": most.value}
        result = result_of(await self._cashier.pay(op_id, mint, most.unit, invoice, ceiling, effect_id, permit))
        assert isinstance(result, OtherPaid)
        return result

    def likely_cost(self, mint: str, unit: str, msat: Msat, rate: Rate | None) -> Amount:
        """What paying an invoice takes at most with all fees, at a usual mint. Asks nobody.

        Raises:
            MintUnlisted: not one of ours.
            FxUnpriced: no rate between unit and bitcoin is known.
        """
        ppk = min(self._cashier.book(mint, unit).ppk, MAX_PPK)
        return likely_cost(unit, msat, rate, -(-_USUAL_INPUTS * ppk // 1000))

    @staticmethod
    def _other(unit: str) -> None:
        """Raises UnitAbsent if it is sat, of which `Wallet` has its own types, or no unit that is handled."""
        if unit == SAT or unit not in UNITS:
            raise UnitAbsent(f"{unit!r} is no unit of this wallet besides sat.")
