"""What a Lightning invoice says (BOLT-11), as far as paying it into our wallet needs. Pure."""

from dataclasses import dataclass

import bitstring
import bolt11
from bolt11.exceptions import Bolt11Exception

from wallet.error import InvoiceRejected, InvoiceUnfit

MAX_LENGTH = 4_096
MAINNET = "bc"
# A payment may stay in doubt, and its coins bound, until its invoice ends; the payee chooses when. A week is usual.
MOST_S = 8 * 86_400
MOST_MSAT = 2_100_000_000_000_000_000  # all bitcoin that there will be


@dataclass(frozen=True, slots=True)
class Invoice:
    """An invoice, decoded. `amount_msat` None lets the payer choose; `expires_at` in Unix seconds.

    `description` is what its maker says it is for, `description_hash` the SHA-256 (hex) of a longer text in its place;
    `min_final_cltv` is how many blocks the payee may hold it.
    """

    amount_msat: int | None
    currency: str
    payment_hash: str
    expires_at: int
    description: str = ""
    min_final_cltv: int = 18
    description_hash: str = ""


def read_invoice(text: str) -> Invoice:
    """Decode an invoice; its signature is checked by the library.

    Raises:
        InvoiceRejected: it is none.
    """
    if len(text) > MAX_LENGTH:
        raise InvoiceRejected("The invoice is too long.")
    try:
        found = bolt11.decode(text)
        expires_at = found.date + (found.expiry or 3600)
    # The decoder lets faults of the libraries below it through.
    except (
        Bolt11Exception,
        bitstring.Error,
        ValueError,
        TypeError,
        LookupError,
        ArithmeticError,
        AssertionError,
    ) as error:
        raise InvoiceRejected("This is not a valid invoice.") from error
    return Invoice(
        None if found.amount_msat is None else int(found.amount_msat),
        found.currency,
        found.payment_hash,
        expires_at,
        "".join(one for one in found.description or "" if one.isprintable()),
        18 if found.min_final_cltv_expiry is None else int(found.min_final_cltv_expiry),
        found.description_hash or "",
    )


def check_invoice(text: str, sat: int, now: int, *, currencies: frozenset[str] = frozenset({MAINNET})) -> Invoice:
    """The invoice, once it is for exactly this amount, on this network, and not expired.

    Raises:
        InvoiceRejected: it is not.
    """
    invoice = fresh_invoice(text, now, currencies=currencies)
    if invoice.amount_msat != sat * 1000:
        raise InvoiceRejected("The invoice is for another amount than was asked for.")
    return invoice


def fresh_invoice(text: str, now: int, *, currencies: frozenset[str] = frozenset({MAINNET})) -> Invoice:
    """An invoice that asks for some amount which can exist, on this network, and has not expired.

    Raises:
        InvoiceRejected: it is not.
    """
    invoice = read_invoice(text)
    if not 0 < (invoice.amount_msat or 0) <= MOST_MSAT:
        raise InvoiceRejected("The invoice names no amount, or more than there is.")
    if invoice.currency not in currencies:
        raise InvoiceRejected("The invoice is for another network.")
    if invoice.expires_at <= now:
        raise InvoiceRejected("The invoice has expired.")
    return invoice


def plain_invoice(text: str) -> str:
    """An invoice as payees write it, in one form: lower case, no blanks around it, no `lightning:` before it."""
    return text.strip().lower().removeprefix("lightning:").removeprefix("//")


def asked_invoice(text: str) -> Invoice:
    """An invoice that names its amount.

    Raises:
        InvoiceUnfit: it is not.
    """
    try:
        invoice = read_invoice(text)
    except InvoiceRejected as error:
        raise InvoiceUnfit(error.message) from error
    if not invoice.amount_msat or invoice.amount_msat <= 0:
        raise InvoiceUnfit("The invoice names no amount.")
    return invoice


def payable_invoice(text: str, now: int, *, currencies: frozenset[str] = frozenset({MAINNET})) -> Invoice:
    """An invoice that we may pay: it names an amount, is for one of these networks, has not expired, and ends soon.

    Raises:
        InvoiceUnfit: it is not.
    """
    invoice = asked_invoice(text)
    if invoice.currency not in currencies:
        raise InvoiceUnfit("The invoice is for another network.")
    if invoice.expires_at <= now:
        raise InvoiceUnfit("The invoice has expired.")
    if invoice.expires_at > now + MOST_S:
        raise InvoiceUnfit("The invoice can be paid for longer than eight days.")
    return invoice
