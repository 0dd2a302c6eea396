from collections import Counter

import pytest

from core.money import Msat
from dvm.preference import Prefer, draw
from dvm.reputation import Standing
from dvm.selection import Nature, Offer, Terms, judge, payable, reasons

NOW = 1_000


def offer(name: str, gross: int, eta: int = 5, seen: Standing | None = None) -> Offer:
    made = Offer(
        name, f"seller-{name}", Nature.QUOTE, 0, Msat(gross - 1_000), name, NOW + 60, eta,
        (Terms("http://mint", "02aa", Msat(gross)),), standing=seen or Standing(),
    )  # fmt: skip
    return judge(made, Msat(100_000), NOW, NOW + 600)


CHEAP = offer("cheap", 10_000, 30, Standing(200, 200, 0, 4))
QUICK = offer("quick", 30_000, 1)
PROVEN = offer("proven", 20_000, 10, Standing(950, 600, 9_000, 40))
FINE = offer("fine", 25_000, 10, Standing(700, 950, 12_000, 20))
ALL = [CHEAP, QUICK, PROVEN, FINE]


@pytest.mark.parametrize(
    ("prefer", "name"),
    [
        (Prefer.COST, "cheap"),
        (Prefer.LATENCY, "quick"),
        (Prefer.REPUTATION, "proven"),
        (Prefer.QUALITY, "fine"),
        (Prefer.BALANCED, "proven"),
    ],
)
def test_each_preference_has_its_winner_and_says_why_with_numbers(prefer: Prefer, name: str) -> None:
    best = payable(ALL, NOW, prefer)[0]
    assert best.event_id == name
    lines = reasons(best, ALL, NOW, prefer)
    assert len(lines) == len(ALL)
    assert lines[0].startswith(f"seller-{name}: chosen, the ")
    for one in ALL:
        line = next(line for line in lines if one.seller in line)
        assert f"{one.best.gross.value} msat" in line
        assert f"reputation {one.standing.reputation}" in line


def test_what_was_measured_counts_more_than_what_is_promised() -> None:
    boaster = offer("boaster", 10_000, 1, Standing(500, 500, 50_000, 3))
    honest = offer("honest", 10_000, 20, Standing(500, 500, 19_000, 3))
    assert payable([boaster, honest], NOW, Prefer.LATENCY)[0] is honest


def test_who_says_nothing_of_the_time_is_not_taken_for_the_quickest() -> None:
    assert payable([offer("mute", 10_000, 0), offer("says", 10_000, 50)], NOW, Prefer.LATENCY)[0].event_id == "says"


def test_a_small_difference_in_standing_is_no_reason_to_pay_more() -> None:
    dear, cheap = offer("dear", 50_000, seen=Standing(449, 449)), offer("cheap", 5_000, seen=Standing(400, 400))
    for prefer in (Prefer.REPUTATION, Prefer.QUALITY):
        assert payable([dear, cheap], NOW, prefer)[0] is cheap


def test_luck_draws_among_the_best_three_by_their_chances_and_loses_nobody() -> None:
    drawn = Counter(draw("abcde", luck)[0] for luck in range(1_000))
    assert drawn == {"a": 600, "b": 300, "c": 100}
    assert all(sorted(draw("abcde", luck)) == list("abcde") for luck in range(20))
    assert draw([], 7) == []
    assert draw("a", 7) == ["a"]


def test_the_same_luck_chooses_the_same_offer() -> None:
    for luck in range(20):
        assert payable(ALL, NOW, Prefer.COST, luck)[0] == payable(list(reversed(ALL)), NOW, Prefer.COST, luck)[0]
