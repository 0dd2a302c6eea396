"""What a replay says: the same, what is different, or why nothing can be said."""

import asyncio
from typing import Any

import orjson
import pytest
from pydantic import BaseModel

from fs.secret import Secret
from node.agent.context import Context
from node.agent.error import StateRefused
from node.agent.program import Nothing, Program, Trigger
from node.agent.replay.difference import NOTHING, in_step, in_text, pointer
from node.agent.replay.notation import decode, encode
from node.agent.replay.recording import End, Recording
from node.agent.replay.redactor import Redactor
from node.agent.replay.rerun import DIFFERENT, SAME, UNCLEAR, Comparison, replay
from node.agent.replay.tape import Body, LiveTape, Step
from tests.unit.node.agent.replay_part import Book, Scripted, recorded

GONE = Body("ab" * 32, 5_000)


async def changed(before: tuple[Any, ...], after: tuple[Any, ...]) -> Comparison:
    comparison = await replay(await recorded(Scripted(before)), Scripted(after))
    assert comparison.difference is not None
    return comparison


async def test_the_first_difference_is_told_so_that_a_person_sees_it() -> None:
    log, call = ("log", "paid", 1), ("call", "amount", 7)
    found = (await changed((log, call), (log, ("call", "amount", 8)))).difference
    assert found is not None
    assert (found.where, found.expected, found.found) == ("step 3, call '/w/new': body /amount", "7", "8")
    found = (await changed((log,), (("log", "paid", 2),))).difference
    assert found is not None
    assert (found.where, found.expected, found.found) == ("step 2, log 'paid': data /value", "1", "2")
    found = (await changed((log,), (log, ("hibernate", "", 0)))).difference
    assert found is not None
    assert (found.where, found.expected, found.found) == ("step 3", NOTHING, "hibernate")
    found = (await changed((log, call), (log,))).difference
    assert found is not None
    assert found.expected.startswith("call /w/new ")
    assert found.found == NOTHING
    found = (await changed((("add", "", 1),), (("add", "", 2),))).difference
    assert found is not None
    assert (found.where, found.expected, found.found) == ("state /total", "1", "2")
    found = (await changed((("read", "a", 0),), (("read", "b", 0),))).difference
    assert found is not None
    assert (found.where, found.expected, found.found) == ("step 2", "read /w/a", "read /w/b")


async def test_an_error_is_compared_by_its_code_and_words() -> None:
    for script in ((("refuse", "x", 0),), (("break", "x", 0),)):
        recording = await recorded(Scripted(script))
        assert recording.end.code
        assert (await replay(recording, Scripted(script))).result == SAME
    found = (await changed((("refuse", "x", 0),), (("break", "x", 0),))).difference
    assert found is not None
    assert found.where == "end"
    assert found.expected == "error unavailable: x does not answer"
    assert found.found == "error agent.failed: The program raised KeyError."
    mended = await changed((("break", "x", 0),), (("add", "x", 0),))
    assert mended.result == DIFFERENT
    assert mended.difference is not None
    assert mended.difference.found == "a state"


async def test_a_tick_that_ran_out_of_time_is_compared_as_far_as_it_came() -> None:
    script = (("log", "begun", 1), ("read", "a", 0))
    recording = await recorded(Scripted(script))
    late = recording._replace(end=End.failed("agent.too_slow", "The tick took longer than 1 s."))
    assert (await replay(late, Scripted(script))).result == SAME
    asking = late._replace(steps=(*late.steps[:-1], late.steps[-1]._replace(answer=None)))
    comparison = await replay(asking, Scripted(script))
    assert (comparison.result, comparison.steps) == (SAME, 3)
    assert "broke off" in comparison.note
    further = await replay(late, Scripted((*script, ("log", "more", 2))))
    assert further.result == SAME
    assert "broke off" in further.note
    assert (await replay(late, Scripted((("log", "begun", 2),)))).result == DIFFERENT


async def test_a_tick_that_could_not_be_committed_is_the_same_until_then() -> None:
    script = (("log", "begun", 1),)
    recording = await recorded(Scripted(script))
    late = recording._replace(end=End.failed("store.conflict", "Again and again.", late=True))
    comparison = await replay(late, Scripted(script))
    assert comparison.result == SAME
    assert "store.conflict" in comparison.note
    assert (await replay(late, Scripted((("break", "x", 0),)))).result == DIFFERENT


async def test_a_recording_that_was_cut_is_compared_as_far_as_it_goes() -> None:
    script = (("log", "begun", 1), ("log", "more", 2))
    recording = await recorded(Scripted(script))
    comparison = await replay(recording._replace(steps=recording.steps[:-1], cut=True), Scripted(script))
    assert (comparison.result, comparison.steps) == (SAME, 2)
    assert "no more steps were kept" in comparison.note


async def test_what_is_kept_no_more_is_named() -> None:
    script = (("log", "begun", 1), ("read", "b", 0), ("add", "", 1))
    recording = await recorded(Scripted(script))
    state, config = recording.start._replace(state=GONE), recording.start._replace(config=GONE)
    payload = recording.start._replace(envelope={**recording.start.envelope, "payload": GONE})
    for start, what in ((state, "The state"), (config, "The config"), (payload, "The trigger")):
        comparison = await replay(recording._replace(start=start), Scripted(script))
        assert comparison.result == UNCLEAR
        assert comparison.note.startswith(what)
        assert GONE.digest in comparison.note
    steps = tuple(step._replace(answer=GONE) if step.op == "read" else step for step in recording.steps)
    comparison = await replay(recording._replace(steps=steps), Scripted(script))
    assert (comparison.result, comparison.steps) == (UNCLEAR, 3)
    assert "step 3 is kept no more" in comparison.note


async def test_a_large_state_is_compared_by_its_digest_where_it_is_kept_no_more() -> None:
    large = Scripted((("call", "x", "word " * 1_000),))
    recording = await recorded(large)
    body, blobs = encode(recording, Redactor())
    bare = decode(body).filled(blobs)
    assert isinstance(bare.end.state, Body)
    assert (await replay(bare, large)).result == SAME
    other = await replay(bare, Scripted((*large.script, ("add", "", 1))))
    assert other.result == DIFFERENT
    assert other.difference is not None
    assert other.difference.where == "state"
    assert bare.end.state.digest in other.difference.expected


class Slow(Scripted):
    async def on_trigger(self, ctx: Context[Book, Nothing], trigger: Trigger) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise TimeoutError from None


async def test_a_replay_has_a_time_limit() -> None:
    comparison = await replay(await recorded(Scripted(())), Slow(()), seconds=0.02)
    assert comparison.result == UNCLEAR
    assert "took longer" in comparison.note


class Hasty(Scripted):
    """Has a time limit of its own, and passes it."""

    async def on_trigger(self, ctx: Context[Book, Nothing], trigger: Trigger) -> None:
        async with asyncio.timeout(0):
            await asyncio.sleep(1)


async def test_a_program_that_passes_its_own_time_limit_has_failed() -> None:
    recording = (await recorded(Scripted(())))._replace(
        end=End.failed("agent.failed", "The program raised TimeoutError.")
    )
    assert (await replay(recording, Hasty(()))).result == SAME


class Careless(Scripted):
    """Catches everything, and goes on."""

    async def on_trigger(self, ctx: Context[Book, Nothing], trigger: Trigger) -> None:
        for path in ("/w/other", "/w/a"):
            try:
                await ctx.fs.read(path)
            except BaseException:  # noqa: BLE001
                ctx.state.total += 1


async def test_no_program_hides_a_difference_by_catching_it() -> None:
    comparison = await replay(await recorded(Scripted((("read", "a", 0),))), Careless(()))
    assert comparison.result == DIFFERENT
    assert comparison.difference is not None
    assert comparison.difference.found == "read /w/other"


class Two(BaseModel):
    count: int = 0


class Counter(Program[Two, Nothing]):
    """The state's second form; its first called it otherwise."""

    name, version, digest = "counter", 2, "ef" * 32
    state_type, config_type = Two, Nothing

    def migrate(self, version: int, state: dict[str, Any]) -> dict[str, Any]:
        if "n" not in state:
            raise StateRefused("This is no state of a counter.")
        return {"count": state["n"]}

    async def on_create(self, ctx: Context[Two, Nothing]) -> None:
        ctx.log("created")

    async def on_trigger(self, ctx: Context[Two, Nothing], trigger: Trigger) -> None:
        ctx.state.count += 1


async def test_a_state_of_an_older_version_migrates_as_it_did_in_the_tick() -> None:
    recording = await recorded(Counter())
    old = recording._replace(
        start=recording.start._replace(state_version=1, state='{"n":41}'), end=End(2, '{"count":42}')
    )
    assert (await replay(old, Counter())).result == SAME
    off = await replay(old._replace(end=End(2, '{"count":41}')), Counter())
    assert off.difference is not None
    assert (off.difference.where, off.difference.expected, off.difference.found) == ("state /count", "41", "42")
    before = await replay(old._replace(end=End(1, '{"count":42}')), Counter())
    assert before.difference is not None
    assert before.difference.where == "state's version"
    strange = recording._replace(start=recording.start._replace(state_version=1, state='{"m":41}'))
    refused = await replay(strange, Counter())
    assert refused.difference is not None
    assert "agent.state_invalid" in refused.difference.found


async def test_the_first_tick_of_an_agent_runs_its_first_hook_again() -> None:
    recording = await recorded(Counter(), flags=("first",))
    assert [step.args[0] for step in recording.steps if step.op == "hook"] == ["on_create", "on_trigger"]
    assert (await replay(recording, Counter())).result == SAME
    assert (await replay(recording._replace(start=recording.start._replace(flags=())), Counter())).result == DIFFERENT


async def with_secret(program: Program[Any, Any], secret: bytes) -> Recording:
    """A tick whose file /w/a is secret."""

    class Hiding(LiveTape):
        async def read(self, op: str, args: Any, fetch: Any) -> bytes:
            async def hidden() -> bytes:
                answer: bytes = await fetch()
                return Secret(secret) if args == ("/w/a",) else answer

            return await LiveTape.read(self, op, args, hidden)

    return await recorded(program, Hiding())


async def test_a_secret_that_is_only_passed_on_replays_the_same() -> None:
    passing = Scripted((("read", "a", 0), ("id", "", 0)))
    recording = await with_secret(passing, b"correct-horse-battery")
    assert "correct-horse-battery" not in repr(recording)
    comparison = await replay(recording, passing)
    assert (comparison.result, comparison.note) == (SAME, "")


class Measuring(Scripted):
    async def on_trigger(self, ctx: Context[Book, Nothing], trigger: Trigger) -> None:
        ctx.log("length", n=len(await ctx.fs.read("/w/a")))


async def test_a_difference_behind_a_secret_is_not_held_against_the_program() -> None:
    recording = await with_secret(Measuring(()), b"correct-horse-battery")
    comparison = await replay(recording, Measuring(()))
    assert comparison.result == UNCLEAR
    assert "secret" in comparison.note
    assert comparison.difference is not None
    assert comparison.difference.where == "step 3, log 'length': data /n"


async def test_a_comparison_is_json() -> None:
    comparison = await changed((("add", "", 1),), (("add", "", 2),))
    value = orjson.loads(orjson.dumps(comparison.to_dict()))
    assert value["result"] == DIFFERENT
    assert value["where"] == "state /total"
    assert value["code"] == "same"


@pytest.mark.parametrize(
    ("one", "other", "where"),
    [
        ({"a": 1}, {"a": 1}, None),
        ({"a": 1}, {"a": 1.0}, None),
        ({"a": 1}, {"a": True}, "/a"),
        ({"a": {"b/c": [1, 2]}}, {"a": {"b/c": [1, 3]}}, "/a/b~1c/1"),
        ({"a~": 1}, {"a~": 2}, "/a~0"),
        ({"a": [1]}, {"a": [1, 2]}, "/a/1"),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, None),
        ({"a": 1}, {}, "/a"),
        ({}, {"a": None}, "/a"),
        ([], {}, ""),
        (None, 0, ""),
    ],
)
def test_a_difference_in_json_has_a_pointer(one: Any, other: Any, where: str | None) -> None:
    found = pointer(one, other)
    assert (found[0] if found else None) == where


def test_deep_json_is_compared_too() -> None:
    deep: Any = 1
    other: Any = 2
    for _ in range(50_000):
        deep, other = [deep], [other]
    found = pointer(deep, other)
    assert found is not None
    assert found[1:] == (1, 2)


def test_texts_that_are_no_json_are_shown_as_they_are() -> None:
    found = in_text("state", "one", "two " * 200)
    assert found is not None
    assert found.expected == "one"
    assert found.found.endswith("(799 characters)")
    assert in_text("state", '{"a":1}', '{ "a": 1 }') is None


def test_steps_with_other_numbers_of_arguments_are_shown_whole() -> None:
    found = in_step(0, Step("log", ("a", "{}")), Step("log", ("a",)))
    assert (found.where, found.expected, found.found) == ("step 1", "log a {}", "log a")


def test_a_difference_that_is_only_in_the_form_of_json_is_shown_too() -> None:
    found = in_step(0, Step("log", ("a", '{"n":1}')), Step("log", ("a", '{ "n":1}')))
    assert found.expected != found.found
