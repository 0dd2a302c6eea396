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
    order_mb: int = Field(4, ge=0, le=1_024)
    credit_per_key_msat: int = Field(0, ge=0)
    credit_msat: int = Field(0, ge=0)
    nutzaps: Literal["selling", "always", "never"] = "selling"
    lud16: str = Field("", max_length=320, pattern=r"^([a-z0-9._+-]+@[A-Za-z0-9.-]+(:[0-9]+)?)?$")
    zapper: str = ""
    prepaid_msat: int = Field(0, ge=0, lt=1 << 40)
    prepaid_after: int = Field(3, ge=1, le=1_000)
    prepaid_days: int = Field(7, ge=1, le=90)
    deposit_max_msat: int = Field(0, ge=0, lt=1 << 40)
    deposits: int = Field(256, ge=1, le=10_000)

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
            order_bytes=self.order_mb << 20,
            prepaid_max=Msat(self.prepaid_msat),
            prepaid_after=self.prepaid_after,
            prepaid_s=self.prepaid_days * 86_400,
            deposit_max=Msat(self.deposit_max_msat),
            deposits=self.deposits,
            credit_per_key=Msat(self.credit_per_key_msat),
            credit=Msat(self.credit_msat),
        )


TEMPLATE = """\
[settlement]                   # how jobs are paid
atomic = false                 # buy and sell sealed results, so that money and result change hands at once
modes = ["A", "B"]             # bought sealed: "A" work first, then money; "B" money first, released by a signature
max_fee_share = 10             # percent of the price: the safest way to pay with fees up to this is taken
max_unsecured_msat = 1000000   # locked for one seller, or deposited there, without a seal; [policy]: over Lightning
order_max_msat = 0             # sold: jobs up to this price are worked on before the money is locked (mode "A")
orders = 8                     # so many of them at once; a customer that did not pay gets no more for a day
order_mb = 4                   # of large results that one customer may leave on your file servers unpaid; 0: none
credit_per_key_msat = 0        # sold with invoice = "after": what one trusted customer may owe for results at once
credit_msat = 0                # the same for all of them together; who did not pay one gets no more
nutzaps = "selling"            # say where ecash may be given to us (NIP-61): "selling", "always"; "never" takes none
lud16 = ""                     # a lightning address that pays into the wallet of [lightning]: shown, and zaps count
zapper = ""                    # the key that signs its zap receipts: nostrPubkey at its address, npub or hex
prepaid_msat = 0               # the most in one deposit at a seller, for jobs too cheap for a lock's fees; 0: none
prepaid_after = 3              # only at a seller that has delivered so many jobs for money
prepaid_days = 7               # after which the rest can be taken back without the seller
deposit_max_msat = 0           # sold: the most that a customer may deposit here; 0 takes none
deposits = 256                 # of customers, open at once

"""
