"""`[lightning]`: a Lightning wallet over Nostr Wallet Connect (NIP-47), and what may be paid from it.

The wallet's address is a secret: whoever has it can spend. It comes from the environment, or from a file that its owner
alone can read; never from config.toml.
"""

from collections.abc import MutableMapping
from pathlib import Path

from pydantic import Field, model_validator

from node.identity.passphrase import read_file
from node.section import Section
from relays.nip47 import Address, parse_address
from wallet.lightning import LightningLimits

VARIABLE = "VENDO_NWC"
MSAT = 1_000
_MOST_SAT = 2_100_000_000_000_000


class LightningSection(Section):
    """A Lightning wallet over NWC."""

    nwc_file: str = Field("", max_length=4_096)
    max_payment_sat: int = Field(10_000, ge=0, le=_MOST_SAT)
    max_day_sat: int = Field(50_000, ge=0, le=_MOST_SAT)
    fee_sat: int = Field(10, ge=0, le=_MOST_SAT)
    fee_ppm: int = Field(10_000, ge=0, le=1_000_000)

    @model_validator(mode="after")
    def _check(self) -> "LightningSection":
        if "walletconnect" in self.nwc_file:
            raise ValueError("the wallet's address belongs into a file of its own, which nwc_file names")
        return self

    def limits(self) -> LightningLimits:
        """As the driver takes them."""
        return LightningLimits(self.max_payment_sat * MSAT, self.max_day_sat * MSAT, self.fee_sat * MSAT, self.fee_ppm)


def address_of(home: Path, section: LightningSection, environ: MutableMapping[str, str]) -> Address | None:
    """The wallet's address; None if none is set. The variable is taken out of the environment.

    Raises:
        InvalidInput: the file cannot be used, or what is there is no such address.
    """
    text = environ.pop(VARIABLE, "")
    if not text and section.nwc_file:
        text = read_file(home / section.nwc_file, "Lightning wallet")
    return parse_address(text) if text else None


TEMPLATE = """\
[lightning]                    # a Lightning wallet over Nostr Wallet Connect (NIP-47), to pay and to be paid
nwc_file = ""                  # holds its nostr+walletconnect:// address, for its owner alone; VENDO_NWC goes first
max_payment_sat = 10000        # the most for one payment, without its fee
max_day_sat = 50000            # the most in any 24 hours, with fees and all that is in doubt
fee_sat = 10                   # a fee may be so much...
fee_ppm = 10000                # ... or so many millionths of the amount, whichever is more

"""
