"""What is thought of a seller: money counts, of each buyer so much, and less with time."""

from core.money import Msat
from dvm.receipt import Verdict
from dvm.renown import BAD_WEIGHT, HALF_LIFE_S, MOST_AGE_S, PER_BUYER, PRIOR, Deal, standing, worth

NOW = 1_800_000_000
SAT = 1_000


def deal(sat: int, buyer: str = "b", *, bad: bool = False, age_s: int = 0) -> Deal:
    return Deal(buyer, Verdict.UNDELIVERED if bad else Verdict.DELIVERED, Msat(sat * SAT), NOW - age_s)


def test_of_a_seller_nothing_is_known_at_first() -> None:
    found = standing([], NOW)
    assert (found.score, found.deals, found.buyers) == (500, 0, 0)
    assert "nothing is known" in found.reasons[0]


def test_delivered_money_raises_and_undelivered_lowers() -> None:
    assert standing([deal(100)], NOW).score > 500 > standing([deal(100, bad=True)], NOW).score


def test_one_bad_deal_outweighs_several_good_ones_of_its_size() -> None:
    good = [deal(100, f"b{n}") for n in range(BAD_WEIGHT - 1)]
    assert standing([*good, deal(100, "x", bad=True)], NOW).score < 500


def test_one_buyer_counts_only_so_much() -> None:
    most = standing([deal(PER_BUYER.sat_down())], NOW)
    assert standing([deal(PER_BUYER.sat_down()) for _ in range(50)], NOW).score == most.score
    assert standing([deal(PER_BUYER.sat_down(), f"b{n}") for n in range(2)], NOW).score > most.score


def test_money_counts_less_with_time_and_in_the_end_nothing() -> None:
    amount = Msat(100 * SAT)
    ages = range(0, MOST_AGE_S + 1, HALF_LIFE_S // 7)
    values = [worth(amount, age).value for age in ages]
    assert values == sorted(values, reverse=True)
    assert [worth(amount, n * HALF_LIFE_S).value for n in range(3)] == [100_000, 50_000, 25_000]
    assert worth(amount, MOST_AGE_S) == Msat(0)
    assert worth(amount, -5) == amount, "a clock that is ahead makes nobody richer"
    assert standing([deal(100, age_s=MOST_AGE_S)], NOW) == standing([], NOW)


def test_the_reasons_name_the_sums() -> None:
    found = standing([deal(100), deal(30, "c"), deal(7, "d", bad=True)], NOW)
    assert (found.delivered, found.undelivered, found.buyers) == (Msat(130_000), Msat(7_000), 3)
    told = "\n".join(found.reasons)
    assert [word for word in ("130000 msat", "7000 msat", str(found.score)) if word not in told] == []
    assert found.score == 1_000 * (130_000 + PRIOR.value) // (130_000 + BAD_WEIGHT * 7_000 + 2 * PRIOR.value)
