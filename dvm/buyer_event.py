"""What can happen to a job that we buy, and what its driver must do about it. Pure.

Every event that came from outside was verified (id, signature, author, recipient) before it is told to the machine
(M6). `at_ms` is our own clock's Unix time in milliseconds.
"""

from dataclasses import dataclass
from typing import TypeAlias

from core.money import Msat
from dvm.job import Payment
from dvm.parcel import Kept
from dvm.selection import Bill, Offer
from relays.blob import Pointer

# -- what can happen --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    """The job's rows are durable. `request` is the signed request event, empty if the market is not on the route.

    `fault` says why none can be made: then the job ends, and nothing is sent.
    """

    at_ms: int
    request: str
    request_id: str
    deadline: int
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Answered:
    """A verified answer to our request: a quote, a decline, a promise or a free result. Not yet judged."""

    at_ms: int
    offer: Offer


@dataclass(frozen=True, slots=True)
class ResultArrived:
    """A verified result. `fault` says what the check for its kind found; empty is good.

    One that was too large for its event has a `parcel` until it is fetched; then it is `kept` in a file, if it is long.
    `ours` if its fault is that we could not keep it.
    """

    at_ms: int
    event_id: str
    seller: str
    content: str
    fault: str
    price: Msat | None = None
    bill: Bill | None = None
    parcel: Pointer | None = None
    kept: Kept | None = None
    ours: bool = False


@dataclass(frozen=True, slots=True)
class SealedArrived:
    """A verified sealed result (ADR 25). `fault` says why its hashes do not fit; empty is good.

    `whole` is the signed event as JSON, `hash` what its seal names. `parcel` is set until the bytes of a large one,
    whose key alone is sealed, are here; `ours` if they could not be kept.
    """

    at_ms: int
    event_id: str
    seller: str
    whole: str
    hash: str
    pt_hash: str
    fault: str
    parcel: Pointer | None = None
    ours: bool = False


@dataclass(frozen=True, slots=True)
class KeyShown:
    """The mint shows the preimage. `content` is what it opened; `fault` what is wrong with that.

    `fraud` if it did not open what the seller signed, which `fault` tells then. A long text is `kept` in a file.
    """

    at_ms: int
    preimage: str
    content: str
    fault: str
    fraud: bool = False
    kept: Kept | None = None


@dataclass(frozen=True, slots=True)
class KeyHeld:
    """The mint shows the preimage of a large result, whose bytes cannot be had or kept yet, for this `reason`."""

    at_ms: int
    preimage: str
    reason: str


@dataclass(frozen=True, slots=True)
class RevealPassed:
    """The time may be over in which the mint shows the preimage, or in which what it opens could be kept."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class SellerFailed:
    """A verified 7000 `error`."""

    at_ms: int
    event_id: str
    seller: str
    reason: str


@dataclass(frozen=True, slots=True)
class Progress:
    """A verified 7000 that only tells how it goes. `content` is a part of the result, if it brings one."""

    at_ms: int
    event_id: str
    seller: str
    word: str
    content: str = ""


@dataclass(frozen=True, slots=True)
class Refuse:
    """An answer that was turned away before it reached the machine: another request, a foreign recipient, malformed."""

    at_ms: int
    event_id: str
    seller: str
    reason: str


@dataclass(frozen=True, slots=True)
class WindowClosed:
    """The time for quotes of this round is over, or every seller has answered."""

    at_ms: int
    round: int


@dataclass(frozen=True, slots=True)
class BudgetDenied:
    """The gate has no room for the chosen seller. Only before the choice was committed."""

    at_ms: int
    op_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class LockDone:
    """The wallet has locked the money; nothing was sent to the seller yet."""

    at_ms: int
    op_id: str
    gross: Msat
    amount: Msat
    ys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class InvoicePaid:
    """The wallet has paid the seller's invoice: the money is gone. `gross` is all that left us for it."""

    at_ms: int
    op_id: str
    gross: Msat
    amount: Msat


@dataclass(frozen=True, slots=True)
class LockFailed:
    """The wallet says for certain that nothing left."""

    at_ms: int
    op_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class LockUnknown:
    """The wallet cannot say whether the money left: it is looked up again, never undone on a guess (M5)."""

    at_ms: int
    op_id: str


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """The seller's time is over."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class LocktimePassed:
    """The refund path is open at the mint."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class SpentSeen:
    """The mint says that every locked proof is spent (NUT-07), and it was not us."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class VoucherCounted:
    """It is certain whether the seller has earned the voucher of a job that brought no result (ADR 27)."""

    at_ms: int
    op_id: str
    ok: bool


@dataclass(frozen=True, slots=True)
class RefundDone:
    """The locked money is back; `received` is what arrived."""

    at_ms: int
    received: Msat


@dataclass(frozen=True, slots=True)
class RefundFailed:
    """The mint refused this refund for certain. It is tried again, later."""

    at_ms: int
    reason: str


@dataclass(frozen=True, slots=True)
class FallbackDone:
    """A built-in provider did it, and the result passed the check."""

    at_ms: int
    provider: str
    content: str


@dataclass(frozen=True, slots=True)
class FallbackFailed:
    """A built-in provider could not do it."""

    at_ms: int
    provider: str
    reason: str


@dataclass(frozen=True, slots=True)
class CancelAsked:
    """The caller wants it stopped."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class Chosen:
    """Raised by the job's track alone: accept this offer."""

    at_ms: int
    offer: Offer


Event: TypeAlias = (
    Start
    | Answered
    | ResultArrived
    | SealedArrived
    | KeyShown
    | KeyHeld
    | RevealPassed
    | SellerFailed
    | Progress
    | Refuse
    | WindowClosed
    | BudgetDenied
    | LockDone
    | InvoicePaid
    | LockFailed
    | LockUnknown
    | DeadlinePassed
    | LocktimePassed
    | SpentSeen
    | VoucherCounted
    | RefundDone
    | RefundFailed
    | FallbackDone
    | FallbackFailed
    | CancelAsked
    | Chosen
)

# -- what the driver must do about it ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PublishRequest:
    """Put the request event, whose bytes are in the state, on its way."""


@dataclass(frozen=True, slots=True)
class PublishCancel:
    """Tell the sellers that nobody wants it any more (NIP-09)."""


@dataclass(frozen=True, slots=True)
class StartTimer:
    """Come back with the event that `name` stands for: window, deadline, locktime or reveal."""

    name: str
    at_ms: int
    round: int = 0


@dataclass(frozen=True, slots=True)
class Allocate:
    """Before the commit: count the payment against the seller's limit, or come back with BudgetDenied."""

    op_id: str
    seller: str
    amount: Msat


@dataclass(frozen=True, slots=True)
class Lock:
    """After the commit: lock the money for this payment."""

    payment: Payment


@dataclass(frozen=True, slots=True)
class Pay:
    """After the commit: pay the invoice. The seller sees it paid, and is told nothing else."""

    payment: Payment


@dataclass(frozen=True, slots=True)
class PublishPayment:
    """In the same commit: the token to the seller (NIP-17), and with it the acceptance."""

    payment: Payment


@dataclass(frozen=True, slots=True)
class PublishOrder:
    """In the same commit: tell the seller that its quote is accepted, and that it is paid when it has shown a seal."""

    payment: Payment


@dataclass(frozen=True, slots=True)
class PublishCosign:
    """In the same commit: our signatures to the seller, which has shown the sealed result."""

    payment: Payment


@dataclass(frozen=True, slots=True)
class SeekKey:
    """Ask the mint for the preimage with which the money was taken."""

    payment: Payment


@dataclass(frozen=True, slots=True)
class RunFallback:
    """Let this built-in provider do it."""

    provider: str


@dataclass(frozen=True, slots=True)
class WatchSpent:
    """Ask the mint for the state of the locked proofs until it is final."""

    payment: Payment


@dataclass(frozen=True, slots=True)
class Refund:
    """Take the locked money back."""

    payment: Payment


@dataclass(frozen=True, slots=True)
class CountVoucher:
    """In the same commit: the deposit's count, with or without this job's price."""

    payment: Payment
    ok: bool


@dataclass(frozen=True, slots=True)
class Notify:
    """The job has ended: tell the caller, in the same commit."""


@dataclass(frozen=True, slots=True)
class Finish:
    """Ended, and the money is final: settle the effect, in the same commit."""

    cost: Msat


Effect: TypeAlias = (
    PublishRequest
    | PublishCancel
    | StartTimer
    | Allocate
    | Lock
    | Pay
    | PublishPayment
    | PublishOrder
    | PublishCosign
    | SeekKey
    | RunFallback
    | WatchSpent
    | Refund
    | CountVoucher
    | Notify
    | Finish
    | Chosen
)
