"""Any tick replays the same; and whatever is changed in a program is found where it first shows."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from node.agent.replay.recording import Recording
from node.agent.replay.rerun import DIFFERENT, SAME, replay
from tests.unit.node.agent.replay_part import Act, Script, Scripted, acts, last_acts, recorded, scripts

MOST = min(settings.default.max_examples, 3_000)


@settings(max_examples=MOST)
@given(scripts)
async def test_a_tick_that_reads_calls_and_draws_replays_the_same(script: Script) -> None:
    recording = await recorded(Scripted(script))
    comparison = await replay(recording, Scripted(script))
    assert (comparison.result, comparison.difference, comparison.code_changed) == (SAME, None, False)
    assert comparison.steps == len(recording.steps)


@st.composite
def changed(draw: st.DrawFn, script: Script) -> Script:
    """The script with one act taken out, put in, put elsewhere or made another one."""
    place = draw(st.integers(0, len(script) - 1))
    how = draw(st.sampled_from(["remove", "insert", "replace", "swap"]))
    before, act, after = script[:place], script[place], script[place + 1 :]
    if how == "remove":
        return (*before, *after)
    if how == "insert":
        return (*before, draw(acts), act, *after)
    if how == "replace":
        return (*before, draw(acts if after else last_acts), *after)
    other: tuple[Act, ...] = after[:1]
    return (*before, *other, act, *after[1:])


@settings(max_examples=MOST)
@given(scripts.flatmap(lambda script: st.tuples(st.just(script), changed(script))))
async def test_a_change_of_a_program_is_found_at_its_first_difference(pair: tuple[Script, Script]) -> None:
    before, after = pair
    assume(before != after)
    recording, other = await recorded(Scripted(before)), await recorded(Scripted(after))
    comparison = await replay(recording, Scripted(after, "cd" * 32))
    assert comparison.code_changed
    first = first_difference(recording, other)
    if first is None:
        assert comparison.result == SAME
        return
    assert comparison.result == DIFFERENT
    assert comparison.difference is not None
    place = comparison.difference.where.split(",")[0].split(" /")[0]
    assert place == first
    assert comparison.difference.expected != comparison.difference.found


def first_difference(one: Recording, other: Recording) -> str | None:
    """Where two live ticks first did something else: the oracle."""
    for n in range(max(len(one.steps), len(other.steps))):
        left = one.steps[n][:2] if n < len(one.steps) else None
        right = other.steps[n][:2] if n < len(other.steps) else None
        if left != right:
            return f"step {n + 1}"
    if one.end == other.end:
        return None
    return "end" if one.end.code or other.end.code else "state"


@pytest.mark.parametrize("script", [(), (("add", "a", 1),)])
async def test_the_oracle_itself_sees_what_is_the_same(script: Script) -> None:
    assert first_difference(await recorded(Scripted(script)), await recorded(Scripted(script))) is None
