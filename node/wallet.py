"""`[wallet]`: how much may lie at one mint, whether money is moved to keep to it, and what relays keep of it. Pure."""

from pydantic import Field

from node.section import Section
from wallet.spread import Rules


class WalletSection(Section):
    """How much may lie at one mint, and what is moved to keep to it."""

    cap_sat: int = Field(0, ge=0, le=2_100_000_000_000_000)
    caps_sat: dict[str, int] = Field(default_factory=dict)
    spread: bool = True
    least_sat: int = Field(1_000, ge=1, le=2_100_000_000_000_000)
    fee_percent: int = Field(2, ge=0, le=100)
    memo: bool = True

    def rules(self) -> Rules:
        """As the wallet's driver takes them."""
        return Rules(self.cap_sat, self.caps_sat, self.least_sat, self.fee_percent, self.spread)


TEMPLATE = """\
[wallet]                       # a mint is a custodian: what lies there may be lost with it
cap_sat = 0                    # the most that one mint should hold, in all units; more is refused. 0: any amount
caps_sat = {{}}                  # the same for single mints: {{ "https://mint.example" = 50000 }}
spread = true                  # move what is above a cap, or at a mint that is off the list, to another over Lightning
least_sat = 1000               # less than this is not moved
fee_percent = 2                # what a move may cost, of what arrives; 3 sat are always allowed
memo = true                    # have our relays keep, encrypted, which money is under way: found again by the words

"""
