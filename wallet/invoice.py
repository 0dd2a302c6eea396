"""What a Lightning invoice says (BOLT-11), as far as paying it into our wallet needs. Pure."""

from dataclasses import dataclass

import bitstring
import bolt11
from bolt11.exceptions import Bolt11Exception

from wallet.error import InvoiceRejected

MAX_LENGTH = 4_096
MAINNET = "bc"


@dataclass(frozen=True, slots=True)
class Invoice:
    """An invoice, decoded. `amount_msat` None lets the payer choose; `expires_at` in Unix seconds."""

    amount_msat: int | None
    currency: str
    payment_hash: str
    expires_at: int


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
    )


def check_invoice(text: str, sat: int, now: int, *, currencies: frozenset[str] = frozenset({MAINNET})) -> Invoice:
    """The invoice, once it is for exactly this amount, on this network, and not expired.

    Raises:
        InvoiceRejected: it is not.
    """
    invoice = read_invoice(text)
    if invoice.amount_msat != sat * 1000:
        raise InvoiceRejected("The invoice is for another amount than was asked for.")
    if invoice.currency not in currencies:
        raise InvoiceRejected("The invoice is for another network.")
    if invoice.expires_at <= now:
        raise InvoiceRejected("The invoice has expired.")
    return invoice
