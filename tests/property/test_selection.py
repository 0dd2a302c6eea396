"""Selection depends on the offers alone: not on the order in which they came, and a lower price never hurts."""

import random
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from core.money import Msat
from dvm.preference import Prefer
from dvm.reputation import Deed, Standing, Verdict, standing
from dvm.selection import Nature, Offer, Terms, judge, least_useful, payable

NOW = 10**9
STANDINGS = st.builds(
    Standing, st.integers(1, 1_000), st.integers(1, 1_000), st.integers(0, 100_000), st.integers(0, 99)
)


@st.composite
def offers(draw: st.DrawFn) -> list[Offer]:
    found = []
    for number in range(draw(st.integers(1, 8))):
        price = draw(st.integers(1, 50_000))
        terms = (Terms("http://mint", "02aa", Msat(price + draw(st.integers(0, 3_000)))),)
        eta = draw(st.integers(0, 60))
        made = Offer(
            f"{draw(st.integers(0, 9))}-{number}", f"s{number}", Nature.QUOTE, 0, Msat(price), "q", NOW + 60, eta,
            terms, standing=draw(STANDINGS),
        )  # fmt: skip
        found.append(judge(made, Msat(60_000), NOW, NOW + 600))
    return found


@given(offers(), st.sampled_from(Prefer), st.one_of(st.none(), st.integers(0, 99)), st.integers(0, 99))
def test_the_order_of_arrival_changes_nothing(
    given_offers: list[Offer], prefer: Prefer, luck: int | None, seed: int
) -> None:
    mixed = random.Random(seed).sample(given_offers, len(given_offers))
    assert payable(given_offers, NOW, prefer, luck) == payable(mixed, NOW, prefer, luck)


@given(offers(), st.sampled_from(Prefer), st.integers(1, 50_000), st.data())
def test_a_cheaper_offer_that_is_otherwise_equal_never_loses_its_place(
    given_offers: list[Offer], prefer: Prefer, less: int, data: st.DataObject
) -> None:
    chosen = data.draw(st.sampled_from(given_offers))
    best = chosen.best
    assert best is not None
    gross = Msat(max(1, best.gross.value - less))
    cheaper = replace(chosen, terms=(replace(best, gross=gross),))
    rivals = [one for one in given_offers if one is not chosen]
    before = payable([*rivals, chosen], NOW, prefer).index(chosen)
    assert payable([*rivals, cheaper], NOW, prefer).index(cheaper) <= before
    assert payable([chosen, replace(cheaper, event_id="~")], NOW, prefer)[0].best.gross <= best.gross


@given(offers(), st.sampled_from(Prefer))
def test_the_winner_is_never_the_one_that_makes_room(given_offers: list[Offer], prefer: Prefer) -> None:
    if len(given_offers) > 1:
        winner = payable(given_offers, NOW, prefer)[0]
        rest = [one for one in given_offers if one is not winner]
        weights = {one.event_id: one for one in rest}
        assert least_useful(given_offers, prefer).event_id in weights


DEEDS = st.lists(
    st.builds(
        Deed, st.just("j"), st.just("s"), st.sampled_from((5001, 5050)), st.integers(NOW - 10**7, NOW),
        st.sampled_from(Verdict), st.integers(0, 10**6), st.integers(0, 10**5), st.booleans(),
    ),
    max_size=20,
)  # fmt: skip


@given(DEEDS, st.integers(1, 10**6), st.integers(0, 10**6))
def test_the_same_past_never_stands_lower_for_a_smaller_price(deeds: list[Deed], price: int, less: int) -> None:
    small = standing(deeds, 5001, max(1, price - less), NOW)
    large = standing(deeds, 5001, price, NOW)
    assert 1 <= large.reputation <= small.reputation <= 1_000


@given(DEEDS, st.integers(1, 10**6), st.integers(0, 10**6))
def test_a_free_job_well_done_changes_no_score(deeds: list[Deed], price: int, at: int) -> None:
    free = Deed("free", "s", 5001, NOW - at, Verdict.DELIVERED, 0, 5, claimed=True)
    assert standing([*deeds, free], 5001, price, NOW).reputation == standing(deeds, 5001, price, NOW).reputation
