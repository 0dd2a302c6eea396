"""Reconciliation finds exactly both differences, whatever the two sides hold and however small the frames are."""

import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relays.error import MalformedSync
from relays.negentropy import LEAST_FRAME_BYTES, Initiator, Vector, respond

Item = tuple[int, str]

# Few seconds and few first bytes, so that ties, shared prefixes and equal bounds are common.
TIMES = st.integers(0, 6) | st.integers(0, (1 << 53) - 1)
IDS = st.builds(lambda head, tail: (head + tail).hex(), st.binary(min_size=2, max_size=2), st.just(b"\x07" * 30)) | (
    st.binary(min_size=32, max_size=32).map(bytes.hex)
)
ITEMS = st.tuples(TIMES, IDS)


def reconcile(ours: list[Item], theirs: list[Item], frame: int = LEAST_FRAME_BYTES) -> tuple[list[str], list[str], int]:
    here, there = Initiator(Vector(ours), frame), Vector(theirs)
    have: list[str] = []
    need: list[str] = []
    message: str | None = here.start()
    rounds = 0
    while message is not None:
        rounds += 1
        assert len(message) <= 2 * frame
        answer = respond(there, message, frame)
        assert len(answer) <= 2 * frame
        step = here.receive(answer)
        have, need, message = have + step.have, need + step.need, step.reply
    return have, need, rounds


def assert_exact(ours: list[Item], theirs: list[Item], frame: int = LEAST_FRAME_BYTES) -> int:
    have, need, rounds = reconcile(ours, theirs, frame)
    mine, other = set(ours), set(theirs)
    assert sorted(have) == sorted(one for _, one in mine - other)
    assert sorted(need) == sorted(one for _, one in other - mine)
    return rounds


@given(st.lists(ITEMS, max_size=90), st.lists(ITEMS, max_size=90), st.lists(ITEMS, max_size=90))
def test_both_differences_are_found_exactly_and_each_id_once(
    both: list[Item], ours: list[Item], theirs: list[Item]
) -> None:
    # An id has one created_at on Nostr: it is its hash.
    times = {event_id: at for at, event_id in both + ours + theirs}
    fixed = [[(times[event_id], event_id) for _, event_id in part] for part in (both, ours, theirs)]
    assert_exact(fixed[0] + fixed[1], fixed[0] + fixed[2])


@pytest.mark.parametrize("other", [0, 40, 700, 3_000])
@pytest.mark.parametrize("mine", [0, 1, 700, 3_000])
def test_large_and_crowded_sets_need_many_small_frames_and_still_end(mine: int, other: int) -> None:
    luck = random.Random(f"{mine} {other}")

    def some(count: int) -> list[Item]:
        return [(luck.randrange(1_700_000_000, 1_700_000_050), luck.randbytes(32).hex()) for _ in range(count)]

    both = some(2_000)
    rounds = assert_exact(both + some(mine), both + some(other))
    assert rounds <= 8 + (mine + other) // 20


@given(st.binary(max_size=300))
@example(b"\x61\x00\x00\x02\xff\xff\xff\xff\x7f")
@example(b"\x61" + b"\x80" * 40)
@example(b"\x61\x05\x00\x00\x00\x21" + b"\x00" * 40)
@example(b"\x61\x05\x00\x00\x02\x01a\x00")
def test_junk_is_refused_or_answered_and_never_more(junk: bytes) -> None:
    holding = Vector((second, f"{second:064x}") for second in range(200))
    for raw in (junk, b"\x61" + junk):
        try:
            answer = respond(holding, raw.hex())
        except MalformedSync:
            pass
        else:
            assert answer.startswith("61")
        try:
            step = Initiator(holding).receive(raw.hex())
        except MalformedSync:
            continue
        assert step.reply is None or step.reply.startswith("61")


@pytest.mark.parametrize("frame", [LEAST_FRAME_BYTES, 60_000])
def test_equal_sets_agree_in_one_round(frame: int) -> None:
    items = [(second // 3, f"{second * 7919:064x}") for second in range(5_000)]
    assert reconcile(items, list(reversed(items)), frame) == ([], [], 1)
