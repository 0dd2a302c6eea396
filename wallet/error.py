"""What can go wrong with money: the type says whether anything may have left us.

VendoError
├── InsufficientFunds  wallet.insufficient   402  try again when reserved coins came back, or deposit
├── TooDear            wallet.too_dear       402  the payment with its fees is above the ceiling
├── MintRefused        wallet.mint_refused   409  looked up: nothing left us
│   └── MintLimited    wallet.mint_limit     409  the mint does not take this amount; nothing was begun
├── PaymentUnknown     wallet.unknown        503  it may have happened; recovery looks it up
├── MintUnlisted       wallet.mint_unlisted  403  not one of the mints that the owner trusts
├── OperationReused    wallet.reused         409  the operation id was used for something else
├── InvoiceRejected    wallet.invoice        502  a mint's invoice is not what was asked for
│   └── InvoiceUnfit   wallet.invoice_unfit  400  an invoice that we were to pay, and would not
├── MintUnreachable    mint.unreachable      503  no connection: the request was never sent
├── MintSilent         mint.silent           503  the request went out and no usable answer came
├── MintBusy           mint.busy             503  rate limited
├── MintRejected       mint.rejected         502  a definite no, with the mint's own code
├── MintLied           mint.lied             502  an answer that no honest mint gives
├── MintFull           wallet.mint_full     409  the mint would hold more than its cap
├── NotProven          wallet.not_proven     409  a receipt's coins were not taken by the seller that it names
├── MemoInvalid        wallet.memo          400  not a wallet memo of ours
├── FxUnpriced         fx.unpriced           503  no fresh rate
├── UnitAbsent         wallet.unit           409  the mint has no coins in that unit
├── UnitMixed          wallet.unit_mixed     500  amounts of different units met; nothing was done
└── TokenRejected      token.rejected        400  a payment that we do not accept; one subclass per reason
"""

from core.error import InvalidInput, Refused, Unavailable, VendoError


class InsufficientFunds(VendoError):
    """The wallet has too little free money at this mint."""

    code = "wallet.insufficient"
    status = 402
    remedy = "Deposit, or try again when payments that are under way have ended."


class TooDear(Refused):
    """The payment with all fees is above its ceiling."""

    code = "wallet.too_dear"
    status = 402


class MintRefused(VendoError):
    """The mint refused, and a look-up showed that nothing left the wallet."""

    code = "wallet.mint_refused"
    status = 409
    unchanged = "No money has moved."


class MintLimited(MintRefused):
    """The mint does not take this amount."""

    code = "wallet.mint_limit"
    remedy = "Choose an amount within the mint's limits, or another mint."


class PaymentUnknown(VendoError):
    """The payment may have happened: the mint's answer was lost."""

    code = "wallet.unknown"
    status = 503
    unchanged = ""
    remedy = "The wallet keeps looking it up; ask for the operation again later."


class MintUnlisted(Refused):
    """This mint is not on the list of trusted mints."""

    code = "wallet.mint_unlisted"
    remedy = "Add it to the configured mints if you trust it."


class OperationReused(VendoError):
    """This operation id was used for another request."""

    code = "wallet.reused"
    status = 409
    remedy = "Use a new id for a new operation."


class InvoiceRejected(VendoError):
    """The invoice is not what was asked for."""

    code = "wallet.invoice"
    status = 502
    remedy = "Do not pay it; distrust this mint."


class InvoiceUnfit(InvoiceRejected):
    """The invoice is not one that this wallet pays."""

    code = "wallet.invoice_unfit"
    status = 400
    unchanged = "No money has moved, and no mint was asked."
    remedy = "Ask for a new invoice that names its amount and is for this network."


class MintUnreachable(Unavailable):
    """The mint cannot be reached; the request was never sent."""

    code = "mint.unreachable"


class MintSilent(Unavailable):
    """The mint gave no usable answer; what it did is not known."""

    code = "mint.silent"
    unchanged = ""


class MintBusy(Unavailable):
    """The mint limits our rate."""

    code = "mint.busy"


class MintRejected(VendoError):
    """The mint rejected the request."""

    code = "mint.rejected"
    status = 502

    def __init__(self, mint_code: int) -> None:
        self.mint_code = mint_code
        super().__init__(f"The mint rejected the request with code {mint_code}.", mint_code=mint_code)


class MintLied(VendoError):
    """The mint's answer is not valid."""

    code = "mint.lied"
    status = 502
    unchanged = ""
    remedy = "Distrust this mint."


class MemoInvalid(InvalidInput):
    """A wallet memo is not of the form in which it is written."""

    code = "wallet.memo"
    unchanged = "Nothing was taken from it."
    remedy = "Restore without it: free coins are found by the words alone."


class FxUnpriced(Unavailable):
    """There is no fresh exchange rate, so budgets in dollars authorise nothing."""

    code = "fx.unpriced"
    remedy = "Check the rate source, set a fixed rate, or give the budget in msat."


class TokenRejected(InvalidInput):
    """The payment is not accepted."""

    code = "token.rejected"
    remedy = "Send a payment that fits the quote."


class TokenMalformed(TokenRejected):
    """This is not a Cashu payment."""

    code = "token.malformed"


class TokenOversized(TokenRejected):
    """The payment is too long or has too many coins."""

    code = "token.oversized"


class TokenMint(TokenRejected):
    """The payment is from a mint that is not accepted."""

    code = "token.mint"


class TokenUnit(TokenRejected):
    """The payment is in another unit."""

    code = "token.unit"


class TokenQuote(TokenRejected):
    """The payment names another quote."""

    code = "token.quote"


class TokenKeyset(TokenRejected):
    """A coin's keyset is not one of the mint's, or ends too early."""

    code = "token.keyset"


class TokenLock(TokenRejected):
    """A coin's spending condition is not the one that was asked for."""

    code = "token.lock"


class TokenForged(TokenRejected):
    """A coin has no valid proof that the mint signed it (NUT-12)."""

    code = "token.forged"


class TokenTooSmall(TokenRejected):
    """After fees the payment is worth less than the price."""

    code = "token.amount"


class TokenSpent(TokenRejected):
    """A coin is already spent or in use."""

    code = "token.spent"


class TokenReused(TokenRejected):
    """A coin was already offered for another quote."""

    code = "token.reused"


class MintFull(Refused):
    """This mint would hold more than the owner allows."""

    code = "wallet.mint_full"
    status = 409
    remedy = "Name another mint, withdraw, or raise its cap in [wallet]."


class NotProven(VendoError):
    """A mint does not confirm that the coins of a receipt were taken by the seller."""

    code = "wallet.not_proven"
    status = 409
    remedy = "The receipt counts for nothing."


class UnitAbsent(Refused):
    """This mint has no coins in that unit."""

    code = "wallet.unit"
    status = 409
    remedy = "See which units the mints have: vendo wallet mints."


class UnitMixed(VendoError):
    """Amounts of different units were about to meet in one sum."""

    code = "wallet.unit_mixed"
    status = 500
    remedy = "This is a fault of the node or of the mint: report it with the log."
