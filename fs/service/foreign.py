"""What `/wallet` does in units other than sat: the same files, for a request or a token that names such a unit."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from core.effect import EffectClass, Permit
from core.error import InvalidInput, VendoError
from core.identifier import EffectId, OperationId
from core.money import Msat, Rate
from fs.service.model import wallet as model
from fs.service.treasury import Treasurer, canonical, other_receipt
from fs.session import Session
from wallet.amount import SAT, UNITS, Amount
from wallet.cashu.token import decode
from wallet.error import TokenRejected
from wallet.foreign import Offer
from wallet.invoice import Invoice, asked_invoice, plain_invoice
from wallet.model import Gained, OtherDeposit, OtherPaid

_LISTEN_S = 5.0  # for what a mint says of its units, when people look


class OtherCoins(Protocol):
    """What `wallet.foreign.Foreign` does for its owner."""

    async def offers(self, mint: str) -> Sequence[Offer]:
        """The units of a mint."""

    async def deposit(
        self, op_id: OperationId, mint: str, amount: Amount, effect_id: EffectId, permit: Permit
    ) -> OtherDeposit:
        """An invoice that buys coins."""

    async def receive(self, op_id: OperationId, token: str, effect_id: EffectId, permit: Permit) -> Gained:
        """Swap a token for coins of our own."""

    async def send(
        self, op_id: OperationId, mint: str, amount: Amount, effect_id: EffectId, permit: Permit, *, pubkey: str = ""
    ) -> str:
        """A token for someone else."""

    async def pay(
        self, op_id: OperationId, mint: str, invoice: str, most: Amount, effect_id: EffectId, permit: Permit
    ) -> OtherPaid:
        """Pay a Lightning invoice."""

    def likely_cost(self, mint: str, unit: str, msat: Msat, rate: Rate | None) -> Amount:
        """What paying an invoice of this amount takes at most, by what is usual."""


class OtherPlaces(Protocol):
    """Which mint it goes to or comes from, and what it is worth: `node.exchange.Placing`."""

    def rate(self) -> Rate | None:
        """The exchange rate, if it is known and fresh."""

    async def into(self, amount: Amount, mint: str | None) -> tuple[str, int | None]:
        """The mint for a deposit, and what it is worth in sat, if that is known."""

    async def out_of(self, unit: str, mint: str | None) -> str:
        """The mint that pays."""


def unit_of(token: str) -> str:
    """The unit that a token names, if it is handled and not sat; else sat, whose wallet says what is wrong."""
    try:
        unit = decode(token).unit
    except TokenRejected:
        return SAT
    return unit if unit in UNITS else SAT


class Exchange:
    """Moves money in other units, as effects of the owner's.

    Args:
        coins: the wallet of other units.
        places: chooses mints.
        treasurer: makes effects.
    """

    def __init__(self, coins: OtherCoins, places: OtherPlaces, treasurer: Treasurer) -> None:
        self._coins, self._places, self._treasurer = coins, places, treasurer

    async def units(self, mints: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
        """What each mint says of its units; nothing of one that does not answer soon."""

        async def one(mint: str) -> list[dict[str, Any]]:
            try:
                async with asyncio.timeout(_LISTEN_S):
                    return [asdict(offer) for offer in await self._coins.offers(mint)]
            except (VendoError, TimeoutError):
                return []

        return dict(zip(mints, await asyncio.gather(*map(one, mints)), strict=True))

    async def deposit(self, session: Session, asked: model.DepositSum, amount: Amount) -> dict[str, Any]:
        """`/wallet/deposit`."""
        if asked.from_lightning:
            raise InvalidInput(
                "The node's Lightning wallet pays for deposits in sat alone: in another unit the mint sets the price."
            )
        said = canonical({"deposit": amount.value, "unit": amount.unit, "mint": asked.mint})
        effect = EffectClass.EXTERNAL
        if (known := await self._treasurer.known(session, "deposit", said, effect)) is not None:
            return known
        mint, worth = await self._places.into(amount, asked.mint)

        async def act(op_id: OperationId, effect_id: EffectId, permit: Permit) -> dict[str, Any]:
            made = await self._coins.deposit(op_id, mint, amount, effect_id, permit)
            return {
                "invoice": made.invoice,
                "state": made.state.value,
                "expires_at": made.expires_at,
                "price_msat": made.price.value,
                **_sum(mint, amount),
            }

        note = _sum(mint, amount) | ({} if worth is None else {"worth_sat": worth})
        return await self._treasurer.move(session, "deposit", said, note, effect, act)

    async def receive(self, session: Session, token: str) -> dict[str, Any]:
        """`/wallet/receive`."""

        async def act(op_id: OperationId, effect_id: EffectId, permit: Permit) -> dict[str, Any]:
            got = await self._coins.receive(op_id, token, effect_id, permit)
            return {"state": "done", "unit": got.amount.unit, "amount": got.amount.value, "fee": got.fee.value}

        return await self._treasurer.move(session, "receive", token.encode(), {}, EffectClass.EXTERNAL, act)

    async def send(self, session: Session, asked: model.SentSum, amount: Amount) -> dict[str, Any]:
        """`/wallet/send`."""
        said = canonical({"send": amount.value, "unit": amount.unit, "mint": asked.mint, "lock": asked.lock})
        effect = EffectClass.IRREVERSIBLE
        if (known := await self._treasurer.known(session, "send", said, effect)) is not None:
            return known  # whichever mints there are now
        mint = await self._places.out_of(amount.unit, asked.mint)

        async def act(op_id: OperationId, effect_id: EffectId, permit: Permit) -> dict[str, Any]:
            token = await self._coins.send(op_id, mint, amount, effect_id, permit, pubkey=asked.pubkey)
            return {"state": "done", "token": token, **_sum(mint, amount)}

        note = _sum(mint, amount) | ({"lock": asked.pubkey} if asked.lock else {})
        return await self._treasurer.move(session, "send", said, note, effect, act)

    async def prepare(self, asked: model.Invoice, invoice: Invoice) -> dict[str, Any]:
        """`/wallet/prepare`; asks nobody."""
        mint = await self._places.out_of(asked.unit, asked.mint)
        most = self._most(asked, invoice, mint)
        return {
            "mint": mint,
            "unit": asked.unit,
            "amount_sat": Msat(invoice.amount_msat or 0).sat_up(),
            "total": most.value,
            "payment_hash": invoice.payment_hash,
            "expires_at": invoice.expires_at,
        }

    async def withdraw(self, session: Session, asked: model.Withdrawal) -> dict[str, Any]:
        """`/wallet/withdraw`. What may be spent is frozen when it is first asked for, and stands in the ledger.

        What the owner agreed to before is not part of what the key stands for: a key that was used is answered.
        """
        text = plain_invoice(asked.invoice)
        invoice = asked_invoice(text)
        wish = canonical({"invoice": text, "mint": asked.mint, "unit": asked.unit, "most": asked.most})
        effect = EffectClass.IRREVERSIBLE
        if (known := await self._treasurer.known(session, "withdraw", wish, effect)) is not None:
            return known  # whatever the rate is now, and whichever mints there are
        if (said := asked.agreed) is not None:
            bound = {"mint": asked.mint or said.mint, "most": asked.most or said.total}
            asked = asked.model_copy(update=bound)
        mint = await self._places.out_of(asked.unit, asked.mint)
        most = self._most(asked, invoice, mint)

        async def act(op_id: OperationId, effect_id: EffectId, permit: Permit) -> dict[str, Any]:
            paid = await self._coins.pay(op_id, mint, text, most, effect_id, permit)
            return {"state": "done", "mint": mint, **other_receipt(paid)}

        note: Mapping[str, str | int] = {
            "mint": mint, "unit": asked.unit, "most": most.value, "payment_hash": invoice.payment_hash,
        }  # fmt: skip
        return await self._treasurer.move(session, "withdraw", wish, note, effect, act)

    def _most(self, asked: model.Invoice, invoice: Invoice, mint: str) -> Amount:
        """What may be spent, with all fees: what was said, or what is usual at the rate of now.

        Raises:
            FxUnpriced: nothing was said, and there is no rate.
            InvalidInput: fees were bounded in sat.
        """
        if asked.max_fee_sat is not None:
            raise InvalidInput("In another unit than sat say what may be spent in all: most.")
        if asked.most is not None:
            return Amount(asked.most, asked.unit)
        return self._coins.likely_cost(mint, asked.unit, Msat(invoice.amount_msat or 0), self._places.rate())


def _sum(mint: str, amount: Amount) -> dict[str, str | int]:
    return {"mint": mint, "unit": amount.unit, "amount": amount.value}
