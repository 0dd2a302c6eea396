"""The seller's schedule: nobody starves, no worker idles, a share is a share, and deadlines count."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from core.money import Msat
from dvm.schedule import LEAST_WEIGHT, MOST_WEIGHT, Schedule, Ticket, weight_of

CUSTOMERS = st.sampled_from("abcd")
JOBS = st.lists(
    st.tuples(CUSTOMERS, st.integers(1, 20_000), st.integers(LEAST_WEIGHT, MOST_WEIGHT), st.integers(0, 50)),
    max_size=40,
)


def ticket(number: int, customer: str, ms: int = 1_000, weight: int = LEAST_WEIGHT, deadline: int = 0) -> Ticket:
    return Ticket(f"{customer}{number}", customer, ms, weight, deadline)


@given(JOBS, st.integers(1, 4), st.lists(st.sampled_from(["begin", "end", "cancel"]), max_size=120))
def test_no_worker_idles_while_a_job_waits_and_every_job_begins_once(jobs, workers, moves) -> None:
    schedule = Schedule(workers)
    coming = [ticket(n, *one) for n, one in enumerate(jobs)]
    everyone, began, running, gone = list(coming), [], [], set()
    for move in [*moves, *["begin", "end"] * len(everyone)]:
        if coming:
            schedule.enter(coming.pop())
        if move == "cancel" and (waiting := [one for one in everyone if one not in coming + began and one not in gone]):
            gone.add(waiting[0])
            schedule.leave(waiting[0].job)
        elif move == "end" and running:
            schedule.leave(running.pop(0).job)
        while (one := schedule.begin(0)) is not None:
            began.append(one)
            running.append(one)
        assert schedule.running == len(running) <= workers
        assert not schedule.waiting or schedule.running == workers
    assert Counter(began) == Counter(set(everyone) - gone)


@given(st.integers(1, 4), st.integers(LEAST_WEIGHT, MOST_WEIGHT))
def test_a_job_is_reached_however_many_new_customers_come(workers: int, others: int) -> None:
    """Fresh keys cost nothing: each comes once, and all of them are worth more."""
    schedule = Schedule(workers)
    schedule.enter(ticket(0, "patient"))
    for n in range(workers):
        schedule.enter(ticket(n, f"first{n}", weight=MOST_WEIGHT))
        schedule.begin(0)
    most = 2 + workers + MOST_WEIGHT // LEAST_WEIGHT * 2
    for n in range(most):
        schedule.enter(ticket(n, f"fresh{n}", weight=others))
        schedule.leave(next(iter(schedule._running)))
        begun = schedule.begin(0)
        if begun is not None and begun.customer == "patient":
            return
    raise AssertionError("it starved")


@given(st.integers(2, 200), st.integers(1, 3))
def test_many_jobs_of_one_customer_delay_others_by_no_more_than_their_share(many: int, workers: int) -> None:
    schedule = Schedule(workers)
    for n in range(many):
        schedule.enter(ticket(n, "greedy"))
    for _ in range(workers):
        schedule.begin(0)
    for n in range(5):
        schedule.enter(ticket(n, "modest"))
    order = []
    for _ in range(min(10, many)):
        schedule.leave(next(iter(schedule._running)))
        if (one := schedule.begin(0)) is not None:
            order.append(one.customer)
    for place in range(2, len(order) + 1):
        owed = min(place // 2, 5)
        assert order[:place].count("modest") >= owed - 1, order


@given(st.integers(1, 8))
def test_twice_the_weight_has_twice_the_turns(ratio: int) -> None:
    schedule = Schedule(1)
    for n in range(400):
        schedule.enter(ticket(n, "plain", weight=LEAST_WEIGHT))
        schedule.enter(ticket(n, "dear", weight=ratio * LEAST_WEIGHT))
    turns: Counter[str] = Counter()
    for _ in range(300):
        one = schedule.begin(0)
        assert one is not None
        turns[one.customer] += 1
        schedule.leave(one.job)
    assert abs(turns["dear"] - ratio * turns["plain"]) <= ratio + 1


@given(st.lists(st.integers(0, 1_000), min_size=1, max_size=30))
def test_within_a_customer_the_nearest_deadline_goes_first(deadlines: list[int]) -> None:
    schedule = Schedule(1)
    for n, deadline in enumerate(deadlines):
        schedule.enter(ticket(n, "one", deadline=deadline))
    order = []
    while (one := schedule.begin(0)) is not None:
        order.append(one.deadline)
        schedule.leave(one.job)
    assert order == sorted(deadlines)


@given(JOBS, st.integers(1, 4))
def test_who_waits_alone_waits_no_longer_than_was_said(jobs, workers: int) -> None:
    """One worker: the wait that was told is kept to the millisecond if jobs take what was expected and nobody comes."""
    schedule = Schedule(1)
    now = 0
    for n, one in enumerate(jobs):
        schedule.enter(ticket(n, *one))
    mine = ticket(0, "mine", 500, LEAST_WEIGHT, 0)
    begun = schedule.begin(now)
    said = schedule.wait_ms(mine, now)
    schedule.enter(mine)
    while begun is not None and begun is not mine:
        now += begun.expected_ms
        schedule.leave(begun.job)
        begun = schedule.begin(now)
    if jobs:
        assert now == said
    more = Schedule(workers)
    assert more.wait_ms(mine, 0) == 0


def test_a_promise_counts_for_those_who_ask_and_ends_when_it_is_left() -> None:
    schedule = Schedule(1)
    schedule.promise(ticket(0, "quoted"))
    assert schedule.wait_ms(ticket(1, "other"), 0) == 1_000
    schedule.leave("quoted0")
    assert schedule.wait_ms(ticket(1, "other"), 0) == 0


def test_a_share_is_bounded_on_both_sides() -> None:
    assert weight_of(Msat(0), 10, 4) == LEAST_WEIGHT
    assert weight_of(Msat(10**12), 1, 4) == MOST_WEIGHT
    assert weight_of(Msat(20_000), 2, 1) * 3 == weight_of(Msat(20_000), 2, 3)
