import pytest

from core.money import Msat
from dvm.selection import Nature, Offer, Terms, answered, in_hand, judge, payable, reasons
from dvm.settlement import Method

NOW = 1_000
CEILING = Msat(30_000)


def quote(name: str, price: int, *, gross: int | None = None, expires: int = NOW + 60, eta: int = 5, **more) -> Offer:
    terms = (Terms("http://mint", "02aa", Msat(gross if gross is not None else price + 2_000)),)
    return Offer(name, f"seller-{name}", Nature.QUOTE, 0, Msat(price), name, expires, eta, **{"terms": terms, **more})


def judged(offer: Offer) -> Offer:
    return judge(offer, CEILING, NOW, NOW + 600)


def test_the_cheapest_with_fees_wins_and_not_the_cheapest_price() -> None:
    low, high = judged(quote("low", 10_000, gross=15_000)), judged(quote("high", 11_000, gross=12_000))
    assert [one.event_id for one in payable([low, high], NOW)] == ["high", "low"]


def test_equal_cost_goes_to_the_quicker_seller() -> None:
    slow, quick = judged(quote("slow", 10_000, eta=9)), judged(quote("quick", 10_000, eta=2))
    assert payable([slow, quick], NOW)[0].event_id == "quick"


def test_the_cheapest_of_several_mints_is_used() -> None:
    terms = (Terms("http://dear", "02aa", Msat(14_000)), Terms("http://cheap", "02aa", Msat(12_000)))
    best = judged(quote("a", 10_000, terms=terms)).best
    assert best is not None
    assert best.mint == "http://cheap"


def invoiced(name: str, gross: int, nature: Nature = Nature.IMPLICIT, method: Method = Method.INVOICE_BEFORE) -> Offer:
    terms = (Terms("http://mint", "", Msat(gross), method),)
    content = "x" if nature is Nature.DELIVERED else ""
    return Offer(name, f"seller-{name}", nature, 0, Msat(gross - 2_000), "", NOW + 60, 0, terms, content)


def test_of_equal_cost_what_is_in_hand_comes_first_then_what_is_locked_then_the_firm_quote() -> None:
    locked = judged(quote("d", 10_000))
    firm, bare = judged(invoiced("c", 12_000, Nature.QUOTE)), judged(invoiced("b", 12_000))
    came = judged(invoiced("a", 12_000, Nature.DELIVERED, Method.INVOICE_AFTER))
    found = payable([bare, firm, locked, came], NOW)
    assert [one.event_id for one in found] == ["a", "d", "c", "b"]


def test_a_cheaper_invoice_beats_a_dearer_locked_quote() -> None:
    assert payable([judged(quote("a", 10_000)), judged(invoiced("b", 11_000))], NOW)[0].event_id == "b"


def test_who_takes_locked_ecash_is_not_paid_by_its_invoice() -> None:
    both = (Terms("http://mint", "", Msat(11_000), Method.INVOICE_BEFORE), Terms("http://mint", "02aa", Msat(12_000)))
    best = judged(quote("a", 10_000, terms=both)).best
    assert best is not None
    assert best.method is Method.LOCKED


def test_a_result_that_asks_for_money_is_never_taken_for_a_free_one() -> None:
    came = judged(invoiced("a", 12_000, Nature.DELIVERED, Method.INVOICE_AFTER))
    assert in_hand([came], stated_free=False) is None
    dear = judged(invoiced("a", 40_000, Nature.DELIVERED, Method.INVOICE_AFTER))
    assert "above the reserved maximum" in dear.refusal


@pytest.mark.parametrize(
    ("offer", "reason"),
    [
        (quote("a", 31_000), "above the reserved maximum"),
        (quote("a", 29_000, gross=30_001), "with fees is above"),
        (quote("a", 1_000, expires=NOW), "expired"),
        (quote("a", 1_000, expires=NOW + 2), "about to"),
        (quote("a", 1_000, terms=()), "no mint that both sides accept"),
        (quote("a", 0), "without a price"),
        (Offer("a", "s", Nature.IMPLICIT, 0, Msat(1_000)), "no key and mint"),
        (Offer("a", "s", Nature.DELIVERED, 0, Msat(1_000), content="x"), "paid after the result"),
    ],
)
def test_what_is_not_admissible_is_refused_with_its_reason(offer: Offer, reason: str) -> None:
    assert reason in judged(offer).refusal
    assert payable([judged(offer)], NOW) == []


def test_a_quote_at_exactly_the_reservation_is_admissible() -> None:
    assert judged(quote("a", 28_000, gross=30_000)).refusal == ""


def test_a_result_that_states_no_amount_ranks_behind_every_firm_quote() -> None:
    free = judged(Offer("f", "s", Nature.DELIVERED, 0, None, content="x"))
    assert in_hand([free], stated_free=True) is None
    assert in_hand([free], stated_free=False) == free


def test_who_only_promised_has_not_answered() -> None:
    offers = [Offer("p", "promiser", Nature.PROMISE, 0), judged(quote("a", 1_000))]
    assert answered(offers) == {"seller-a"}


def test_every_offer_gets_its_reason() -> None:
    offers = [
        judged(one)
        for one in (quote("win", 1_000), quote("dear", 5_000), quote("far", 99_000), Offer("p", "p", Nature.PROMISE, 0))
    ]
    lines = reasons(offers[0], offers, NOW)
    assert len(lines) == 4
    assert "chosen" in lines[0]
    assert "passed over at 7000 msat" in lines[1]
    assert "refused" in lines[2]
    assert "had not delivered" in lines[3]


def test_a_quote_that_takes_longer_than_we_would_wait_is_refused() -> None:
    assert "too late" in judged(quote("slow", 10_000, eta=601)).refusal
    assert not judged(quote("quick", 10_000, eta=600)).refusal
