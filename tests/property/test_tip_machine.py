"""Tips: whatever is told of one, in whatever order, no credit is made of nothing and none is lost."""

from hypothesis import given
from hypothesis import strategies as st

from core.money import Msat
from dvm.tip import ENDED, TRANSITIONS, Appraised, Lapsed, PaidTwice, Redeemed, Refused, Spent, State, Tip, insert, step

AMOUNTS = st.integers(0, 40).map(Msat)
DEPOSITS = st.sampled_from(("a", "b", "c"))
EVENTS = st.one_of(
    st.just(Appraised("effect")),
    AMOUNTS.map(Redeemed),
    st.just(Refused("token.spent")),
    st.builds(Spent, AMOUNTS, st.one_of(st.just(""), DEPOSITS)),
    st.builds(PaidTwice, DEPOSITS, AMOUNTS),
    DEPOSITS.map(Lapsed),
)


@given(st.sampled_from(("", "request")), st.lists(EVENTS, max_size=30))
def test_what_is_owed_is_what_came_less_what_was_spent(sale: str, events: list) -> None:
    tip = Tip("id", "sender", "mint", 0, sale=sale)
    came = spent = 0
    for event in events:
        before, tip = tip, step(tip, event)
        if tip == before:
            continue
        if isinstance(event, Redeemed):
            assert before.state is State.TAKEN
            came += event.net.value
        elif isinstance(event, PaidTwice):
            assert event.deposit in before.beside.split()
            assert event.deposit not in tip.beside.split(), "one payment counts once"
            came += event.amount.value
        elif isinstance(event, Spent):
            spent += event.amount.value
        assert tip.owed.value == (came - spent if sale else 0)
        assert tip.owed.value >= 0
        assert tip.state is not State.REPAID or not tip.owed
        assert tip.state is not State.REFUSED or not came
        assert bool(tip.raw) is False
        assert insert(tip, 1).row["owed_msat"] == tip.owed.value


def test_every_state_is_reached_and_left_as_the_table_says() -> None:
    named = {state for state, _ in TRANSITIONS} | {rule.to for rules in TRANSITIONS.values() for rule in rules}
    assert named == set(State)
    assert State.REFUSED in ENDED
    assert not any(state in (State.KEPT, State.REFUSED) for state, _ in TRANSITIONS)
