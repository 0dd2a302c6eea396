"""What can happen to a job that we sell, and what its driver must do about it. Pure."""

from dataclasses import dataclass, field
from typing import TypeAlias

from core.money import Msat
from dvm.parcel import Packed

# -- what can happen --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Quoted:
    """The request is admitted at a price; the signed quote is ready."""

    quote_id: str
    expires_at: int
    answer: str
    invoice: str = ""
    invoice_id: str = ""
    mode: str = ""
    hash: str = ""


@dataclass(frozen=True, slots=True)
class Lent:
    """The customer is trusted with the price: it is served, and its result carries the invoice.

    `quote_id` names the terms, as if there had been a quote.
    """

    quote_id: str = ""


@dataclass(frozen=True, slots=True)
class InvoiceWanted:
    """The request is admitted at a price, and its customer pays over Lightning."""


@dataclass(frozen=True, slots=True)
class InvoiceFailed:
    """No invoice can be had, and the customer could pay in no other way."""

    reason: str


@dataclass(frozen=True, slots=True)
class InvoicePaid:
    """The invoice was paid and its coins are in our wallet. `until`: no result is wanted from then on, 0 if unsaid."""

    at: int
    amount: Msat
    until: int = 0


@dataclass(frozen=True, slots=True)
class InvoiceLapsed:
    """The wallet says that the invoice was not paid, and cannot be any more."""


@dataclass(frozen=True, slots=True)
class CreditTaken:
    """The customer's request is served for money that was owed to it.

    `fresh` of it came by nutzaps and was counted for no sale before. `until`: no result is wanted from then on, 0 if
    unsaid; with `at` in Unix seconds. `quote_id` names the terms if there was no quote.
    """

    amount: Msat
    fresh: Msat = field(default_factory=lambda: Msat(0))
    at: int = 0
    until: int = 0
    quote_id: str = ""


@dataclass(frozen=True, slots=True)
class CreditSpent:
    """Of what is owed for this sale so much went into another one."""

    amount: Msat


@dataclass(frozen=True, slots=True)
class Admitted:
    """The request is served for free."""


@dataclass(frozen=True, slots=True)
class PaymentVerified:
    """The wallet found the payment good. `at` is when it was received (Unix seconds)."""

    at: int
    payment: str
    payment_id: str
    sender: str
    mint: str
    ys: tuple[str, ...]
    net: Msat
    locktime: int
    mode: str = ""


@dataclass(frozen=True, slots=True)
class Ordered:
    """The customer accepts the quote, and pays when it has the sealed result (mode A). `at` in Unix seconds."""

    at: int
    sender: str


@dataclass(frozen=True, slots=True)
class VoucherTaken:
    """A good voucher draws the price from the customer's deposit, in the same commit (ADR 27). `at` in Unix seconds.

    `locktime` is what the work has to keep clear of, as with a payment that is locked for it.
    """

    at: int
    sender: str
    deposit: str
    mint: str
    locktime: int = 0


@dataclass(frozen=True, slots=True)
class PaymentRefused:
    """A payment message came for this quote, and it is not good."""

    sender: str
    reason: str


@dataclass(frozen=True, slots=True)
class WorkDone:
    """The provider's result, signed and ready to go out. `at` in Unix seconds.

    `invoice` is in the result if it is to be paid for now, `invoice_id` the wallet's name of the deposit behind it.
    """

    answer: str
    at: int = 0
    invoice: str = ""
    invoice_id: str = ""


@dataclass(frozen=True, slots=True)
class WorkPacked:
    """The provider's result is too large for an event; encrypted it waits in a file for its way to our servers."""

    packed: Packed


@dataclass(frozen=True, slots=True)
class WorkFailed:
    """The provider could not do it, or its result is on no server."""

    reason: str


@dataclass(frozen=True, slots=True)
class Claimed:
    """The payment is in our wallet; `net` is what arrived."""

    net: Msat


@dataclass(frozen=True, slots=True)
class ClaimRefused:
    """The mint says for certain that the payment cannot be claimed any more."""

    reason: str


@dataclass(frozen=True, slots=True)
class QuoteLapsed:
    """The quote's time may be over. `at` in Unix seconds."""

    at: int


@dataclass(frozen=True, slots=True)
class Cosigned:
    """The customer's signatures for every coin of the payment; each was verified."""

    sender: str
    signatures: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unsigned:
    """The time may be over in which a sealed result could be paid for. `at` in Unix seconds."""

    at: int


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The customer deleted the request (NIP-09)."""

    sender: str


@dataclass(frozen=True, slots=True)
class AskedAgain:
    """The same request came once more."""

    at: int


Event: TypeAlias = (
    Quoted
    | InvoiceWanted
    | Lent
    | InvoiceFailed
    | InvoicePaid
    | InvoiceLapsed
    | CreditTaken
    | CreditSpent
    | Admitted
    | PaymentVerified
    | Ordered
    | VoucherTaken
    | PaymentRefused
    | WorkDone
    | WorkPacked
    | WorkFailed
    | Claimed
    | ClaimRefused
    | QuoteLapsed
    | Cosigned
    | Unsigned
    | Cancelled
    | AskedAgain
)

# -- what the driver must do about it ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """In the same commit: put `answer` on its way, again if it was sent before."""

    again: bool = False


@dataclass(frozen=True, slots=True)
class SendWord:
    """In the same commit: a 7000 with this status."""

    status: str
    info: str = ""


@dataclass(frozen=True, slots=True)
class MakeInvoice:
    """Have a mint of ours make the invoice, the same one after a restart; then quote."""


@dataclass(frozen=True, slots=True)
class LookAtInvoice:
    """Ask the mint now whether the invoice was paid: the customer is there."""


@dataclass(frozen=True, slots=True)
class Work:
    """Let the provider do it."""


@dataclass(frozen=True, slots=True)
class Ship:
    """Put the result on our file servers, then come back with `WorkDone`, or with `WorkFailed` if none takes it."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Take the payment at the mint, and try again until it is certain."""


@dataclass(frozen=True, slots=True)
class AwaitSignatures:
    """Come back with `Unsigned` when the customer can have the money back."""


@dataclass(frozen=True, slots=True)
class AwaitInvoice:
    """Tell when the invoice in the result was paid, or cannot be paid any more."""


@dataclass(frozen=True, slots=True)
class SendReceipt:
    """In the same commit: 7000 `success` with the receipt of the claim."""


@dataclass(frozen=True, slots=True)
class CountVoucher:
    """In the same commit: the deposit's count, with or without this job's price."""

    ok: bool


@dataclass(frozen=True, slots=True)
class Settle:
    """In the same commit: end the effect."""

    ok: bool


Effect: TypeAlias = (
    Send
    | SendWord
    | MakeInvoice
    | LookAtInvoice
    | AwaitInvoice
    | Work
    | Ship
    | AwaitSignatures
    | Claim
    | SendReceipt
    | CountVoucher
    | Settle
)
