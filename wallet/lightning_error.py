"""What can go wrong at a Lightning wallet over NWC (NIP-47): the type says whether anything may have left us.

VendoError
├── NotConnected       lightning.none         404  no wallet is connected
├── InvoiceUnpayable   lightning.invoice      400  not an invoice that is paid from here
├── InvoiceKnown       lightning.known        409  an operation has this invoice already
├── LightningLimit     lightning.limit        402  above a limit of `[lightning]`
├── NotGivenUp         lightning.open         409  a payment in doubt that may still become known
├── LightningFailed    lightning.failed       409  looked up: nothing left us
├── WalletUnreachable  nwc.unreachable        503  no relay of the wallet: the request was never sent
├── WalletSilent       nwc.silent             503  the request went out and no usable answer came
├── WalletLacks        nwc.lacks              501  the wallet does not offer what is needed
└── WalletRejected     nwc.rejected           502  the wallet's own error
"""

from core.error import BudgetExceeded, InvalidInput, NotFound, Unavailable, VendoError


class NotConnected(NotFound):
    """No Lightning wallet is connected to this node."""

    code = "lightning.none"
    remedy = "Put its address into a file and name that in [lightning] nwc_file, or set VENDO_NWC."


class InvoiceUnpayable(InvalidInput):
    """This invoice is not paid from here."""

    code = "lightning.invoice"
    remedy = "Ask for another invoice."


class InvoiceKnown(VendoError):
    """This invoice belongs to another operation: each is paid once at most."""

    code = "lightning.known"
    status = 409
    remedy = "See what became of it: vendo wallet lightning, or /wallet/operations. Ask for a new invoice if it failed."


class LightningLimit(BudgetExceeded):
    """The payment is above a limit of [lightning]."""

    code = "lightning.limit"
    remedy = "Pay less, wait, or raise the limit in the configuration."


class NotGivenUp(VendoError):
    """This payment is not given up: what became of it is known, or may still become known."""

    code = "lightning.open"
    status = 409
    unchanged = "Nothing was given up."  # the wallet may have just said how it ended, and that is booked
    remedy = "See how it stands: vendo wallet lightning. While it is in doubt the node goes on asking the wallet."


class LightningFailed(VendoError):
    """The payment failed, and a look-up showed that nothing left the wallet."""

    code = "lightning.failed"
    status = 409
    unchanged = "No money has moved."
    remedy = "Ask for a new invoice to try again."


class WalletUnreachable(Unavailable):
    """No relay of the Lightning wallet is connected; the request was never sent."""

    code = "nwc.unreachable"
    remedy = "Check the relay in the wallet's address, and try again later."


class WalletSilent(Unavailable):
    """The Lightning wallet gave no usable answer; what it did is not known."""

    code = "nwc.silent"
    unchanged = ""


class WalletLacks(VendoError):
    """The Lightning wallet does not offer what is needed."""

    code = "nwc.lacks"
    status = 501
    remedy = "Allow it in the wallet, or connect another one."


class WalletRejected(VendoError):
    """The Lightning wallet answered with an error."""

    code = "nwc.rejected"
    status = 502

    def __init__(self, wallet_code: str, said: str = "") -> None:
        self.wallet_code = wallet_code
        tail = f": {said}" if said else "."
        super().__init__(f"The Lightning wallet answered with {wallet_code}{tail}", wallet_code=wallet_code)
