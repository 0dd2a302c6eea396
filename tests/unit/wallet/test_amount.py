import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.money import Msat, Rate
from wallet.amount import EUR, MSAT, SAT, UNITS, USD, Amount, added
from wallet.error import FxUnpriced, UnitMixed
from wallet.worth import likely_cost, sat_worth, worth_in

RATE = Rate.of_btc_price(100_000, 1, "test")
AMOUNTS = st.builds(Amount, st.integers(0, 1 << 40), st.sampled_from(sorted(UNITS)))


@given(AMOUNTS, AMOUNTS)
def test_amounts_of_different_units_never_meet(one: Amount, other: Amount) -> None:
    acts = [
        lambda: one + other,
        lambda: one - other,
        lambda: one < other,
        lambda: one <= other,
        lambda: one > other,
        lambda: one >= other,
        lambda: added([one, other], one.unit),
    ]
    for act in acts:
        if one.unit == other.unit:
            act()
        else:
            with pytest.raises(UnitMixed):
                act()


@given(st.lists(st.integers(0, 1 << 40)), st.sampled_from(sorted(UNITS)))
def test_a_sum_is_of_the_unit_that_was_named(values: list[int], unit: str) -> None:
    assert added([Amount(value, unit) for value in values], unit) == Amount(sum(values), unit)


@pytest.mark.parametrize("value", [1.0, True, "5"])
def test_an_amount_is_a_whole_number(value: object) -> None:
    with pytest.raises(TypeError):
        Amount(value, USD)


@pytest.mark.parametrize("unit", ["auth", "", "SAT", "gbp"])
def test_an_amount_is_of_a_unit_that_is_handled(unit: str) -> None:
    with pytest.raises(ValueError, match="unknown unit"):
        Amount(1, unit)


@pytest.mark.parametrize(
    ("amount", "shown"),
    [(Amount(21, SAT), "21 sat"), (Amount(5, USD), "0.05 usd"), (Amount(-512, EUR), "-5.12 eur")],
)
def test_people_read_dollars_and_not_cents(amount: Amount, shown: str) -> None:
    assert str(amount) == shown


def test_worth_is_rounded_up_and_never_guessed() -> None:
    assert sat_worth(Amount(7, SAT), None) == 7
    assert sat_worth(Amount(1_001, MSAT), None) == 2
    assert sat_worth(Amount(100, USD), RATE) == 1_000
    assert sat_worth(Amount(100, USD), None) is None
    assert sat_worth(Amount(100, EUR), RATE) is None
    assert worth_in(USD, Msat(1), RATE) == Amount(1, USD)
    for unit, rate in ((EUR, RATE), (USD, None)):
        with pytest.raises(FxUnpriced):
            worth_in(unit, Msat(1_000), rate)


@given(st.integers(1, 10**12), st.sampled_from([SAT, MSAT, USD]))
def test_what_is_usual_is_never_below_the_price_itself(msat: int, unit: str) -> None:
    plain = worth_in(unit, Msat(msat), RATE)
    assert likely_cost(unit, Msat(msat), RATE, 1) > plain
    worth = sat_worth(plain, RATE)
    assert worth is not None
    assert worth * 1_000 >= msat
