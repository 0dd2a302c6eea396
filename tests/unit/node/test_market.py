"""What the settings of buying and selling mean for the parts."""

import pytest

from core.money import Msat
from dvm.provider.echo import Echo
from node.market import SellSection
from node.offer import offer_of


@pytest.mark.parametrize(
    ("price", "invoice", "expected", "invoices"),
    [
        (21_000, "before", 21_000, True),
        (21_001, "before", 22_000, True),
        (21_001, "none", 22_000, False),
        (0, "before", 0, False),
    ],
)
def test_a_service_that_takes_invoices_has_a_price_in_whole_sats(
    price: int, invoice: str, expected: int, invoices: bool
) -> None:
    section = SellSection.model_validate({"kind": 5050, "price_msat": price, "provider": "echo", "invoice": invoice})
    service = offer_of(section).service(Echo())
    assert (service.terms.fixed, service.invoices) == (Msat(expected), invoices)
