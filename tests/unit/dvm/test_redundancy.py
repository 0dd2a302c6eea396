"""`2/3`: which wishes can be met, and when two results are the same."""

import pytest

from core.error import InvalidInput
from core.money import MicroUsd, Msat, Rate
from dvm.job import Limit
from dvm.opening import share_of
from dvm.redundancy import MOST, Redundancy, canonical, seat_ids, seat_key
from dvm.request import ComputeRequest

RATE = Rate.of_btc_price(65_000, 0, "test")


@pytest.mark.parametrize("text", ["2/2", "2/3", "3/3", "3/4", "3/5", "5/5"])
def test_more_than_half_of_up_to_five_may_be_asked_to_agree(text):
    assert str(Redundancy.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "3", "1/1", "1/2", "1/3", "2/4", "2/5", "4/3", "4/6", "0/3", "2/3 ", "-2/3", "2/33"]
)
def test_any_other_wish_is_refused(text):
    with pytest.raises(InvalidInput, match="redundancy"):
        Redundancy.parse(text)


def test_a_request_says_it_in_one_word_and_a_key_stands_for_it():
    plain = {"kind": 5400, "input": "x"}
    wanted = ComputeRequest.parse(plain | {"redundancy": "2/3"})
    assert wanted.redundancy == Redundancy(2, 3)
    assert wanted.canonical() != ComputeRequest.parse(plain).canonical()
    for bad in ("1/3", 7, {"k": 2}, ["2/3"]):
        with pytest.raises(InvalidInput):
            ComputeRequest.parse(plain | {"redundancy": bad})
    with pytest.raises(InvalidInput, match="leave out"):
        ComputeRequest.parse(plain | {"redundancy": "2/3", "to": "a" * 64})
    assert ComputeRequest.parse(plain | {"redundancy": "2/3", "private": True}).private


def test_results_are_compared_in_the_form_of_their_kind():
    assert canonical(5400, '{"b": 2,\n "a":1}') == canonical(5400, '{"a":1,"b":2}')
    assert canonical(5400, "no JSON ") == "no JSON"
    assert canonical(5400, "3") != canonical(5400, "4")
    assert canonical(5901, " AB\n") == "ab"
    assert canonical(5050, "text\n") == "text" != canonical(5050, "Text")


@pytest.mark.parametrize("parts", range(2, MOST + 1))
@pytest.mark.parametrize("limit", [
    Limit("uusd", 50_001, RATE.cover(MicroUsd(50_001)), RATE),
    Limit("msat", 10_007, Msat(10_007)),
    Limit("msat", 10_007, Msat(10_007), RATE),
    Limit("uusd", 1, RATE.cover(MicroUsd(1)), RATE),
])  # fmt: skip
def test_the_parts_of_a_reservation_are_together_within_it(limit, parts):
    part = share_of(limit, parts)
    assert parts * part.value <= limit.value < parts * (part.value + 1)
    assert parts * part.ceiling.value <= limit.ceiling.value
    assert (part.unit, part.rate) == (limit.unit, limit.rate)


def test_the_first_purchase_has_the_caller_s_own_key_and_no_other_has():
    keys = [seat_key("k", number) for number in range(1, 6)]
    assert keys[0] == "k"
    assert len({*keys, *seat_ids("p")}) == 10
