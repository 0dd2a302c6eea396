"""The budget for opening wraps, and who waits how long beyond it."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from node.message.fairness import WORKED_BITS, Bucket, FairQueue

LANES = st.tuples(st.sampled_from("abc"), st.sampled_from("xy"))


@given(st.lists(st.tuples(LANES, st.integers(0, 20)), max_size=200))
def test_everything_comes_out_once_and_in_order_within_its_sort(puts: list) -> None:
    queue: FairQueue[int] = FairQueue()
    for number, (lane, bits) in enumerate(puts):
        queue.put(lane, number, bits)
    out = [queue.take() for _ in range(len(puts))]
    assert sorted(out) == list(range(len(puts)))
    assert queue.take() is None
    assert not queue
    for lane in {lane for lane, _ in puts}:
        for worked in (False, True):
            mine = [n for n, (one, bits) in enumerate(puts) if one == lane and (bits >= WORKED_BITS) == worked]
            assert [n for n in out if n in mine] == mine


def test_one_in_a_quiet_lane_waits_for_one_turn_however_long_the_others_are() -> None:
    queue: FairQueue[str] = FairQueue()
    for _ in range(1_000):
        queue.put(("agent", "loud"), "flood")
    queue.put(("agent", "quiet"), "friend")
    queue.put(("other", "loud"), "other")
    assert [queue.take() for _ in range(3)] == ["flood", "friend", "other"]


def test_those_who_worked_go_first_in_their_lane() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.put(("a", "r"), "plain")
    queue.put(("a", "r"), "worked", WORKED_BITS)
    assert queue.take() == "worked"


@given(st.lists(LANES, min_size=30, max_size=300))
def test_it_never_holds_more_than_it_may_and_the_longest_lane_loses(lanes: list) -> None:
    queue: FairQueue[int] = FairQueue(size=20, lane_size=12)
    for number, lane in enumerate(lanes):
        queue.put(lane, number)
        assert len(queue) <= 20
    kept: Counter[tuple[str, str]] = Counter()
    while (number := queue.take()) is not None:
        kept[lanes[number]] += 1
    assert all(count <= 12 for count in kept.values())
    assert queue.shed == len(lanes) - sum(kept.values())
    for lane, count in Counter(lanes).items():
        if count <= 20 // 6:
            assert kept[lane] == count, "who sends little loses nothing"


def test_a_bucket_refills_with_time_and_no_further_than_its_burst() -> None:
    bucket = Bucket(burst=3, per_second=2)
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]
    assert bucket.wait(100.0) == 0.5
    assert bucket.take(100.5)
    assert not bucket.take(100.5)
    assert [bucket.take(1_000.0) for _ in range(4)] == [True, True, True, False]
    assert not bucket.take(999.0), "a clock that goes back gives nothing"
