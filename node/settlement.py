"""`[settlement]`: how jobs are paid. Pure."""

from typing import Literal, Self

from pydantic import Field, model_validator

from core.money import Msat
from dvm.settlement import Account, Settlement
from node.section import Section
from relays.key import parse_pubkey


class SettlementSection(Section):
    """How jobs are paid, and which are sold sealed."""

    atomic: bool = False
    modes: tuple[Literal["A", "B"], ...] = ("A", "B")
    max_fee_share: int = Field(10, ge=0, le=1_000)
    max_unsecured_msat: int = Field(1_000_000, ge=0)
    order_max_msat: int = Field(0, ge=0)
    orders: int = Field(8, ge=1, le=10_000)
    nutzaps: Literal["selling", "always", "never"] = "selling"
    lud16: str = Field("", max_length=320, pattern=r"^([a-z0-9._+-]+@[A-Za-z0-9.-]+(:[0-9]+)?)?$")
    zapper: str = ""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if bool(self.lud16) != bool(self.zapper):
            raise ValueError("lud16 and zapper go together: an address is only shown if zaps to it can be checked")
        if self.zapper:
            parse_pubkey(self.zapper)
        return self

    def account(self) -> Account | None:
        """Where zaps reach us; None if nowhere."""
        return Account(self.lud16, parse_pubkey(self.zapper)) if self.lud16 else None

    def settlement(self) -> Settlement:
        """For the market's parts."""
        return Settlement(
            atomic=self.atomic,
            modes=self.modes,
            max_fee_share=self.max_fee_share,
            max_unsecured=Msat(self.max_unsecured_msat),
            order_max=Msat(self.order_max_msat),
            orders=self.orders,
        )


TEMPLATE = """\
[settlement]                   # how jobs are paid
atomic = false                 # buy and sell sealed results, so that money and result change hands at once
modes = ["A", "B"]             # bought sealed: "A" work first, then money; "B" money first, released by a signature
max_fee_share = 10             # percent of the price: the safest way to pay with fees up to this is taken
max_unsecured_msat = 1000000   # out to one seller at once that could keep it and deliver nothing
order_max_msat = 0             # sold: jobs up to this price are worked on before the money is locked (mode "A")
orders = 8                     # so many of them at once; a customer that did not pay gets no more for a day
nutzaps = "selling"            # say where ecash may be given to us (NIP-61): "selling", "always"; "never" takes none
lud16 = ""                     # a lightning address that pays into the wallet of [lightning]: shown, and zaps count
zapper = ""                    # the key that signs its zap receipts: nostrPubkey at its address, npub or hex

"""
