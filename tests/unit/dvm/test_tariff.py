from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.error import InvalidInput
from core.money import MicroUsd, Msat, Rate
from dvm.error import Unpriced
from dvm.request import ComputeRequest, Datum
from dvm.tariff import UNITS, Tariff

RATE = Rate.of_btc_price(65_000, 0, "test")


def job(text: str = "x", **params: str) -> ComputeRequest:
    return ComputeRequest(5050, (Datum(text),), tuple(params.items()))


@pytest.mark.parametrize(
    ("tariff", "request_", "price"),
    [
        (Tariff(Msat(21_000)), job(), 21_000),
        (Tariff(Msat(20_001)), job(), 21_000),
        (Tariff(Msat(0)), job(), 0),
        (Tariff(Msat(2_000), "1k_chars"), job("é" * 1_500), 3_000),
        (Tariff(Msat(2_000), "1k_bytes"), job("é" * 1_500), 6_000),
        (Tariff(Msat(2_000), "1k_chars", Msat(9_000)), job("x"), 9_000),
        (Tariff(Msat(2_000), "1k_chars", None, Msat(4_000)), job("x" * 9_000), 4_000),
        (Tariff(Msat(1_000), "1k_tokens"), job(max_tokens="4096"), 5_000),
        (Tariff(Msat(500), "1m_hashes"), job(pow="22"), 3_000),
        (Tariff(Msat(7_000), "input"), ComputeRequest(5050, (Datum("a"), Datum("b"))), 14_000),
    ],
)
def test_a_price_follows_from_what_can_be_measured_before_the_work(tariff, request_, price) -> None:
    assert tariff.ask(request_, None) == Msat(price)


def test_a_price_in_dollars_is_frozen_at_the_rate_and_needs_one() -> None:
    tariff = Tariff(MicroUsd(13_000))
    assert tariff.ask(job(), RATE) == Msat(20_000)
    with pytest.raises(Unpriced):
        tariff.ask(job(), None)
    assert Tariff(MicroUsd(0)).ask(job(), None) == Msat(0)


@given(
    st.integers(0, 10**9), st.integers(1, 10**6), st.integers(1_000, 10**6), st.none() | st.integers(0, 10**6),
    st.integers(0, 3_000),
)  # fmt: skip
def test_a_price_in_dollars_is_rounded_up_once_and_by_less_than_a_satoshi(price, least, btc, more, chars) -> None:
    most = None if more is None else MicroUsd(least + more)
    rate = Rate.of_btc_price(btc, 0, "test")
    asked = Tariff(MicroUsd(price), "1k_chars", MicroUsd(least), most).ask(job("x" * chars), rate)
    exact = max(Fraction(price * chars, 1_000), Fraction(least))
    if most is not None:
        exact = min(exact, Fraction(most.value))
    assert asked == Msat.of_sat(ceil(exact * rate.msat / rate.micro_usd / 1_000))


@pytest.mark.parametrize("value", ["", "0", "-1", "1e3", "٣", "9" * 13, "65"])
def test_a_parameter_that_the_price_depends_on_is_a_whole_number_within_bounds(value: str) -> None:
    with pytest.raises(InvalidInput):
        Tariff(Msat(1), "1m_hashes").ask(job(pow=value), None)
    with pytest.raises(InvalidInput):
        Tariff(Msat(1), "1k_tokens").ask(job(), None)


@pytest.mark.parametrize(
    "made",
    [
        lambda: Tariff(Msat(1), "mile"),
        lambda: Tariff(Msat(-1)),
        lambda: Tariff(Msat(1), minimum=MicroUsd(1)),
        lambda: Tariff(Msat(1), minimum=Msat(2), maximum=Msat(1)),
        lambda: Tariff(Msat(10**15 + 1)),
    ],
)
def test_a_tariff_that_makes_no_sense_is_none(made) -> None:
    with pytest.raises(ValueError):
        made()


def test_a_fixed_price_is_one_that_is_known_without_request_and_rate() -> None:
    assert Tariff(Msat(9_000)).fixed == Msat(9_000)
    assert Tariff(Msat(0), minimum=Msat(2_000)).fixed == Msat(2_000)
    assert Tariff(Msat(1), "1k_chars").fixed is None
    assert Tariff(MicroUsd(1)).fixed is None
    assert set(UNITS) == {"job", "input", "1k_chars", "1k_bytes", "1k_tokens", "1m_hashes"}
