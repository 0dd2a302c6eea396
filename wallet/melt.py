"""Paying an invoice through a mint: what is checked of its quote, its receipt and its change (NUT-05, NUT-08). Pure.

One melt takes coins for amount, fee reserve and input fee, and what is more comes back on blank outputs. Coins are not
swapped to the exact sum before: selection looks for an exact sum anyway, a swap would cost one more input fee, and it
would be one more thing that can be half done. What it would spare is that a coin that is too large stays reserved
while a slow payment is under way.

A plan's `terms` for a melt: `msat` and `hash` of the invoice, `amount` and `reserve` in the mint's unit, of what may be
spent `ceiling` in msat if that unit is sat, else `most` in the unit; and once it was paid `preimage`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

from core.money import Msat
from wallet.amount import MSAT, SAT, Amount
from wallet.cashu.port import MeltQuote, MeltState
from wallet.cashu.proof import Output, Proof, Signature, total
from wallet.cashu.signature import unblind
from wallet.error import InvoiceUnfit, MintLied, MintRefused, TooDear
from wallet.invoice import Invoice
from wallet.record import Plan

# What a mint may keep back for routing unless we are told otherwise: 2 %, and never less than 2 sat.
_RESERVE_PERCENT = 2
_RESERVE_LEAST_SAT = 2


@dataclass(frozen=True, slots=True)
class Spent:
    """What a paid melt took, in the mint's unit. `withheld` is change that the mint kept above its own reserve."""

    amount: int
    fee: int
    withheld: int


def likely_reserve(sat: int) -> int:
    """The largest fee reserve that is usual for so many sat."""
    return max(_RESERVE_LEAST_SAT, -(-sat * _RESERVE_PERCENT // 100))


def invoice_sat(invoice: Invoice) -> int:
    """What a mint asks for it in whole sat.

    Raises:
        InvoiceUnfit: it names no amount.
    """
    if not invoice.amount_msat or invoice.amount_msat <= 0:
        raise InvoiceUnfit("The invoice names no amount.")
    return Msat(invoice.amount_msat).sat_up()


def check_quote(quote: MeltQuote, invoice: Invoice, text: str, unit: str, now: int) -> None:
    """Whether the mint's quote is for this invoice, and can be paid now.

    Raises:
        MintLied: it is for another invoice, amount or unit.
        MintRefused: it was paid before, is under way, or has expired.
    """
    wanted = exact(invoice, unit)
    # Mints from before quotes named their unit had sat alone.
    if (quote.amount != wanted and wanted is not None) or not (quote.unit == unit or (unit, quote.unit) == (SAT, None)):
        raise MintLied("The mint's quote is for another amount or unit than the invoice.")
    if quote.request is not None and quote.request.lower() != text:
        raise MintLied("The mint's quote is for another invoice.")
    if quote.state is not MeltState.UNPAID:
        raise MintRefused("The mint says that this invoice is paid, or being paid, already.")
    if quote.expiry and quote.expiry <= now:
        raise MintRefused("The mint's quote has expired.")


def exact(invoice: Invoice, unit: str) -> int | None:
    """What a mint must ask for an invoice in a unit of bitcoin; None for another unit, in which it has its own rate.

    Raises:
        InvoiceUnfit: it names no amount.
    """
    sat = invoice_sat(invoice)
    return {SAT: sat, MSAT: invoice.amount_msat}.get(unit)


def check_most(quote: MeltQuote, due: int, most: Amount) -> None:
    """Whether amount, fee reserve and input fee are within what may be spent, all in one unit.

    Raises:
        TooDear: they are not.
        UnitMixed: the quote names another unit.
    """
    asked = Amount(quote.amount + quote.fee_reserve + due, quote.unit or "")
    if asked > most:
        raise TooDear(f"Paying the invoice may take {asked} with fees, above {most}.")


def check_ceiling(quote: MeltQuote, due: int, ceiling: Msat) -> None:
    """Whether amount, fee reserve and input fee are within the ceiling.

    Raises:
        TooDear: they are not.
    """
    most = quote.amount + quote.fee_reserve + due
    if Msat.of_sat(most).value > ceiling.value:
        raise TooDear(f"Paying the invoice may take {most} sat with fees, above the ceiling.")


def blank_count(overpaid: int) -> int:
    """How many blank outputs bring back any part of it (NUT-08)."""
    return max((overpaid - 1).bit_length(), 1) if overpaid > 0 else 0


def receipt(plan: Plan, quote: MeltQuote, *, closed: bool = False) -> str:
    """The preimage of a paid quote; empty where there is none to be had. An empty one proves nothing to anybody.

    A mint that settles an invoice of its own moves nothing over Lightning and has no preimage. Some say so beforehand
    by a quote without a fee reserve. Of the others a missing preimage is taken as it is once the melt is `closed`: the
    invoice has ended and every input is spent, so that the money is gone whatever it bought.

    Raises:
        MintLied: it does not belong to the invoice, or is missing.
    """
    if not quote.preimage:
        if plan.terms["reserve"] == 0 or closed:
            return ""
        raise MintLied("The mint says that it paid and shows no receipt.")
    try:
        raw = bytes.fromhex(quote.preimage)
    except ValueError:
        raw = b""
    if len(raw) != 32 or sha256(raw).hexdigest() != plan.terms["hash"]:
        raise MintLied("The mint says that it paid, and its receipt is not the invoice's.")
    return raw.hex()


def change_signatures(
    plan: Plan, quote: MeltQuote, restored: Mapping[str, Signature]
) -> list[tuple[Output, Signature]]:
    """Which blank outputs were signed, each with the amount that the mint gave it.

    What the mint restores names its output (NUT-09) and comes first. The list in its answer goes by order (NUT-08).

    Raises:
        MintLied: there are more signatures than blank outputs.
    """
    if len(quote.change) > len(plan.outputs):
        raise MintLied("The mint signed more change than it was given outputs.")
    by_order = dict(zip((output.b for output in plan.outputs), quote.change, strict=False))
    found = by_order | dict(restored)
    signed = [(output, found[output.b]) for output in plan.outputs if output.b in found]
    return [(replace(output, amount=signature.amount), signature) for output, signature in signed]


def change_due(plan: Plan, signed: Sequence[tuple[Output, Signature]]) -> list[tuple[Output, Signature]]:
    """What was signed, in the order of the outputs and no more than was overpaid.

    A mint that dies after it has signed the change, and finds the rest of the blank outputs when it comes back, signs
    the change once more on them (nutshell 0.20.2). That is its loss, and no reason to doubt the payment. What is above
    is not ours and not booked. Where nothing of it can be due it is left as it is: then the mint lies.
    """
    left = total(plan.inputs) - plan.fee - int(plan.terms["amount"])
    kept = []
    for output, signature in signed:
        if output.amount <= left:
            left -= output.amount
            kept.append((output, signature))
    return kept or list(signed)


def change_coins(
    plan: Plan, signed: Sequence[tuple[Output, Signature]], keys: Mapping[str, Mapping[int, str]]
) -> tuple[Proof, ...]:
    """The coins of the change.

    Args:
        plan: the melt's.
        signed: from `change_signatures`.
        keys: the mint's keys by keyset and amount.

    Raises:
        MintLied: a signature does not hold, is for an amount that does not exist, or it is more than was overpaid.
    """
    coins = []
    for output, signature in signed:
        key = keys[output.keyset].get(output.amount)
        if key is None:
            raise MintLied("The mint's change has an amount that its keyset does not have.")
        coins.append(unblind(output, signature, key))
    if total(coins) > total(plan.inputs) - plan.fee - int(plan.terms["amount"]):
        raise MintLied("The mint gave back more than was overpaid.")
    return tuple(coins)


def spent(plan: Plan, change: int) -> Spent:
    """What a paid melt took, given its change in the mint's unit."""
    amount = int(plan.terms["amount"])
    kept = total(plan.inputs) - change - amount
    fee = min(kept, plan.fee + int(plan.terms["reserve"]))
    return Spent(amount, fee, kept - fee)
