"""Token buckets of the control plane."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.http.rate import Buckets, Rate, retry_after

START = 250_000.0  # what a machine's monotonic clock may say


def test_a_burst_is_taken_at_once_and_the_rest_as_time_goes_by() -> None:
    buckets = Buckets(Rate(5, 20))
    assert [buckets.take("a", START) for _ in range(20)] == [0.0] * 20
    assert buckets.take("a", START) == pytest.approx(0.2, abs=1e-4)
    assert buckets.take("a", START + 0.19) > 0
    assert buckets.take("a", START + 0.2001) == 0.0
    assert buckets.take("a", START + 0.2001) > 0


def test_what_was_refused_takes_nothing() -> None:
    buckets = Buckets(Rate(1, 1))
    assert buckets.take("a", START) == 0.0
    waits = [buckets.take("a", START) for _ in range(100)]
    assert len(set(waits)) == 1
    assert buckets.take("a", START + 1.001) == 0.0


def test_each_name_has_a_bucket_of_its_own() -> None:
    buckets = Buckets(Rate(1, 1))
    assert [buckets.take(name, START) for name in "abc"] == [0.0] * 3
    assert buckets.take("a", START) > 0


def test_looking_takes_nothing() -> None:
    buckets = Buckets(Rate(1, 2))
    assert [buckets.wait("a", START) for _ in range(5)] == [0.0] * 5
    assert buckets.take("a", START) == buckets.take("a", START) == 0.0
    assert buckets.wait("a", START) == pytest.approx(buckets.take("a", START))


def test_a_rate_of_nothing_is_no_limit_and_remembers_nobody() -> None:
    buckets = Buckets(Rate(0, 1))
    assert {buckets.take(str(number % 7), START) for number in range(1_000)} == {0.0}
    assert len(buckets) == 0


def test_memory_is_bounded_and_those_that_asked_most_are_remembered() -> None:
    buckets = Buckets(Rate(1, 10), most=100)
    for _ in range(10):
        buckets.take("greedy", START)
    for number in range(1_000):
        buckets.take(f"stranger {number}", START)
        assert len(buckets) <= 100
    assert buckets.take("greedy", START) > 0


def test_who_has_waited_long_enough_is_forgotten_first() -> None:
    buckets = Buckets(Rate(1, 1), most=10)
    for number in range(10):
        buckets.take(f"old {number}", START)
    for number in range(5):
        buckets.take(f"new {number}", START + 100)
    assert all(buckets.take(f"new {number}", START + 100) > 0 for number in range(5))


@given(
    st.floats(0.5, 1_000), st.integers(1, 50), st.lists(st.floats(0, 0.5), min_size=1, max_size=200)
)  # fmt: skip
def test_no_more_than_the_burst_and_what_time_allows_is_ever_taken(
    per_second: float, burst: int, pauses: list[float]
) -> None:
    buckets, mono, taken = Buckets(Rate(per_second, burst)), START, 0
    for pause in pauses:
        mono += pause
        wait = buckets.take("a", mono)
        assert wait >= 0
        taken += wait == 0.0
        assert taken <= burst + (mono - START) * per_second + 1e-3


@pytest.mark.parametrize(("seconds", "said"), [(0.0001, 1), (0.99, 1), (1.0, 1), (1.01, 2), (59.5, 60)])
def test_a_header_says_whole_seconds_and_at_least_one(seconds: float, said: int) -> None:
    assert retry_after(seconds) == said
