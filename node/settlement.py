"""`[settlement]`: how jobs are paid. Pure."""

from typing import Literal

from pydantic import Field

from core.money import Msat
from dvm.settlement import Settlement
from node.section import Section


class SettlementSection(Section):
    """How jobs are paid, and which are sold sealed."""

    atomic: bool = False
    modes: tuple[Literal["A", "B"], ...] = ("A", "B")
    max_fee_share: int = Field(10, ge=0, le=1_000)
    max_unsecured_msat: int = Field(1_000_000, ge=0)
    order_max_msat: int = Field(0, ge=0)
    orders: int = Field(8, ge=1, le=10_000)
    credit_per_key_msat: int = Field(0, ge=0)
    credit_msat: int = Field(0, ge=0)

    def settlement(self) -> Settlement:
        """For the market's parts."""
        return Settlement(
            atomic=self.atomic,
            modes=self.modes,
            max_fee_share=self.max_fee_share,
            max_unsecured=Msat(self.max_unsecured_msat),
            order_max=Msat(self.order_max_msat),
            orders=self.orders,
            credit_per_key=Msat(self.credit_per_key_msat),
            credit=Msat(self.credit_msat),
        )


TEMPLATE = """\
[settlement]                   # how jobs are paid
atomic = false                 # buy and sell sealed results, so that money and result change hands at once
modes = ["A", "B"]             # bought sealed: "A" work first, then money; "B" money first, released by a signature
max_fee_share = 10             # percent of the price: the safest way to pay with fees up to this is taken
max_unsecured_msat = 1000000   # out to one seller at once that could keep it and deliver nothing
order_max_msat = 0             # sold: jobs up to this price are worked on before the money is locked (mode "A")
orders = 8                     # so many of them at once; a customer that did not pay gets no more for a day
credit_per_key_msat = 0        # sold with invoice = "after": what one trusted customer may owe for results at once
credit_msat = 0                # the same for all of them together; who did not pay one gets no more

"""
