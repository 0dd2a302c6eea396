import pytest

from core.money import MicroUsd, Msat, Rate
from dvm.job import Limit, Payment, Purchase
from dvm.record import Unreadable, decode, encode
from dvm.selection import Nature, Offer, Terms
from tests.property.market_part import purchase


def full() -> Purchase:
    from dataclasses import replace

    offer = Offer("e", "s", Nature.QUOTE, 5, Msat(3), "q", 9, 1, (Terms("m", "k", Msat(4)),))
    payment = Payment("o", "e", "q", "s", "m", "k", Msat(3), Msat(9), 77, ys=("y1",))
    return replace(purchase(), offers=(offer,), payment=payment).noted(1, "word", 'a "detail"')


def test_a_whole_state_comes_back_equal() -> None:
    assert decode(Purchase, encode(full())) == full()


def test_a_rate_is_kept_exactly() -> None:
    limit = Limit("uusd", 5, Msat(6), Rate(7, 8, 9, "fixed"))
    assert decode(Limit, encode(limit)) == limit
    assert decode(Limit, encode(limit)).cost(Msat(8)) == MicroUsd(7)


def test_a_field_that_is_missing_takes_its_default_and_an_unknown_one_is_dropped() -> None:
    text = encode(full()).replace('"refused_count":0,', '"not_yet_known":1,')
    assert decode(Purchase, text) == full()


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", encode(full()).replace('"kind":5001', '"kind":"5001"')])
def test_what_is_not_a_state_is_refused(text: str) -> None:
    with pytest.raises(Unreadable):
        decode(Purchase, text)
