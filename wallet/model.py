"""What the wallet is asked for and what it answers. Amounts in sat are whole units of the mint's `sat` unit.

What is in another unit has types of its own (`Gained`, `OtherDeposit`, `OtherPaid`), whose amounts name it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from core.identifier import EffectId, OperationId
from core.money import Msat
from wallet.amount import SAT, Amount
from wallet.cashu.port import CoinReport
from wallet.payment import Kind, State


@dataclass(frozen=True, slots=True)
class Balance:
    """What is held at one mint in one unit: free, tied up in open operations, locked to or handed to others."""

    mint: str
    unit: str
    live: int
    reserved: int
    locked: int


@dataclass(frozen=True, slots=True)
class Deposit:
    """An invoice that buys coins, and how far it is. Times in Unix seconds; `expires_at` is 0 if never.

    Until `pay_until` a payment is sure to buy them: then the mint's quote ends, or its invoice.
    """

    op_id: OperationId
    invoice: str
    state: State
    amount_sat: int
    expires_at: int = 0
    pay_until: int = 0


@dataclass(frozen=True, slots=True)
class Received:
    """What came in, net, and the fee that the mint took of it."""

    amount_sat: int
    fee_sat: int


@dataclass(frozen=True, slots=True)
class Gained:
    """What came in in another unit than sat, net, and the fee that the mint took of it."""

    amount: Amount
    fee: Amount


@dataclass(frozen=True, slots=True)
class OtherDeposit:
    """A `Deposit` in another unit than sat. `price` is what its invoice asks for; the mint alone decides that."""

    op_id: OperationId
    invoice: str
    state: State
    amount: Amount
    price: Msat
    expires_at: int = 0


@dataclass(frozen=True, slots=True)
class LockTerms:
    """A payment locked to a seller (NUT-11), refundable to us.

    Attributes:
        mint: one of our mints.
        unit: `sat` is the only one.
        price: what the seller gets, net of its claim's input fee.
        seller_pubkey: the seller's wallet key, compressed hex.
        locktime: Unix seconds from which we may take it back.
        refund_key: the wallet's own refund key for this operation; empty means the same.
        quote_id: stands as `id` in the NUT-18 payload.
        hash: SHA-256 (hex) whose preimage the seller must show (NUT-14); empty means that its key is enough.
        cosigner: name of the job whose co-sign key of ours must sign as well; only with `hash`.
    """

    mint: str
    price: Msat
    seller_pubkey: str
    locktime: int
    refund_key: str = ""
    quote_id: str = ""
    unit: str = "sat"
    hash: str = ""
    cosigner: str = ""


@dataclass(frozen=True, slots=True)
class Locked:
    """A locked payment. `gross` is all that left the wallet, fees included; `amount` is the sum of the coins."""

    op_id: OperationId
    payload: Mapping[str, Any] = field(repr=False)
    ys: tuple[str, ...]
    gross: Msat
    amount: Msat


@dataclass(frozen=True, slots=True)
class Paid:
    """A Lightning invoice that was paid.

    Attributes:
        preimage: the receipt, 64 hex digits: its SHA-256 is the invoice's payment hash. Empty if the mint settled an
            invoice of its own, for which there is none.
        gross: all that left the wallet for good: after change, with every fee.
        amount: what the invoice asked for.
        fee: the rest: the mint's input fee, the network's fee, and rounding up to the mint's unit.
    """

    op_id: OperationId
    preimage: str = field(repr=False)
    gross: Msat
    amount: Msat
    fee: Msat


@dataclass(frozen=True, slots=True)
class OtherPaid:
    """A `Paid` with coins of another unit: `gross` and `fee` in it, and `price`, what the invoice asked for, in msat.

    `gross` less `fee` is what the mint called the invoice's amount, by its own rate.
    """

    op_id: OperationId
    preimage: str = field(repr=False)
    gross: Amount
    fee: Amount
    price: Msat


@dataclass(frozen=True, slots=True)
class VerifyTerms:
    """What a payment must be worth and how it must be locked.

    Attributes:
        quote_id: the quote that it pays; one coin pays one quote.
        price: net of the claim's input fee.
        mints: those named in the quote.
        wallet_pubkey: our wallet key, compressed hex.
        min_locktime: Unix seconds before which nobody else may spend it.
        hash: SHA-256 (hex) of our preimage to which it must be locked (NUT-14); empty asks for a lock to our key alone.
        cosigner: the customer's key that must sign as well, compressed hex; empty if none may.
    """

    quote_id: str
    price: Msat
    mints: tuple[str, ...]
    wallet_pubkey: str
    min_locktime: int
    hash: str = ""
    cosigner: str = ""


@dataclass(frozen=True, slots=True)
class Unlock:
    """What a payment that is locked to a hash is claimed with.

    Attributes:
        preimage: 64 hex digits. Whoever sees it can open the sealed result.
        cosigned: the customer's signatures in the order of the payment's coins; empty if it has no co-signer.
    """

    preimage: str = field(repr=False)
    cosigned: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VerifiedPayment:
    """A payment that is ours to claim. `net` is what a claim leaves."""

    mint: str
    unit: str
    amount: Msat
    ys: tuple[str, ...]
    net: Msat
    locktime: int


@dataclass(frozen=True, slots=True)
class SpentState:
    """What the mint says of some coins together: `UNSPENT`, `PENDING`, `SPENT`, or `MIXED`."""

    state: str
    coins: Mapping[str, CoinReport] = field(repr=False)


OperationResult: TypeAlias = Locked | Received | Gained | Paid | OtherPaid | str | None


@dataclass(frozen=True, slots=True)
class OperationView:
    """An operation as others may see it. The result is there once it is done; a sent token is money.

    `pending`: it is unknown because the mint says that it is still at it, as with a payment under way over Lightning.
    """

    id: OperationId
    kind: Kind
    state: State
    mint: str
    unit: str
    effect_id: EffectId
    amount: int
    fee: int
    reason: str
    result: OperationResult = field(default=None, repr=False)
    pending: bool = False


@dataclass(frozen=True, slots=True)
class AuditedMint:
    """One mint and unit: what the coins' rows say and what the journal says.

    `pending` of what is reserved goes out over Lightning just now, by the mint's last word.
    """

    mint: str
    unit: str
    live: int
    reserved: int
    locked: int
    journal: Mapping[str, int]
    pending: int = 0


@dataclass(frozen=True, slots=True)
class Audit:
    """Whether rows, journal and mints agree, and every way in which they do not.

    `pending_sat` is what goes out over Lightning just now of the coins in sat; of others each mint's row tells.
    """

    mints: tuple[AuditedMint, ...]
    open_operations: int
    differences: tuple[str, ...]
    pending_sat: int = 0

    @property
    def clean(self) -> bool:
        """No differences."""
        return not self.differences


@dataclass(frozen=True, slots=True)
class Restored:
    """What a scan from the seed found that was not in the database."""

    mint: str
    amount: int
    coins: int
    keysets: int
    unit: str = SAT


@dataclass(slots=True)
class Watch:
    """What is watched. `heard`: the mint has promised to tell, on a socket that is open; so it need not be asked often.

    Without a watcher it is never heard.
    """

    heard: bool = False
