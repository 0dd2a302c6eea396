"""What a tick asks and does is written down in order, and answered from there when it is run again."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest

from core.error import Conflict, InvalidInput, Paused, VendoError
from fs.error import NoSuchFile
from fs.secret import Secret
from node.agent.replay import tape as tape_module
from node.agent.replay.notation import decode, encode
from node.agent.replay.recording import End, Recording, Start
from node.agent.replay.redactor import Redactor
from node.agent.replay.tape import BodyMissing, BrokenOff, Diverged, Fault, LiveTape, ReplayTape, Step, Stopped, Tape


def answering(answer: bytes | VendoError) -> Callable[[], Coroutine[Any, Any, bytes]]:
    async def fetch() -> bytes:
        await asyncio.sleep(0)
        if isinstance(answer, VendoError):
            raise answer
        return answer

    return fetch


async def never() -> bytes:
    raise AssertionError("a replay asks nobody")


def steps_of(tape: LiveTape) -> tuple[Step, ...]:
    """What a replay finds: the steps as they come back from the database."""
    start = Start("ada", "t", "p", "c", 1, "{}", "{}", {"payload": "{}"}, 0, 0)
    body, blobs = encode(Recording(start, tuple(tape.steps), End(1, "{}"), tape.cut), tape.redactor)
    return decode(body).filled(blobs).steps


async def talk(tape: Tape, fetch: Callable[[bytes | VendoError], Any]) -> list[str]:
    said = [(await tape.read("read", ("/a",), fetch(b"one"))).decode()]
    tape.tell("log", "note", '{"n":1}')
    try:
        await tape.read("call", ("/b", "key", b"body"), fetch(NoSuchFile("no b", remedy="look elsewhere", tries=3)))
    except VendoError as error:
        said.append(f"{type(error).__name__} {error.code} {error.message} {error.advice} {error.context}")
    said.append(repr(await tape.read("read", ("/c",), fetch(b"\x00\xff" * 3))))
    return said


async def test_a_replay_hears_what_the_tick_heard() -> None:
    live = LiveTape()
    first = await talk(live, answering)
    replay = ReplayTape(steps_of(live))
    assert await talk(replay, lambda _: never) == first
    replay.finish()
    assert first[1] == "NoSuchFile fs.not_found no b look elsewhere {'tries': 3}"


def subclasses(kind: type[VendoError]) -> list[type[VendoError]]:
    return [kind, *(deeper for sub in kind.__subclasses__() for deeper in subclasses(sub))]


def test_every_error_comes_back_as_the_class_of_its_code() -> None:
    own = [kind for kind in subclasses(VendoError) if not kind.__module__.startswith("tests") and "code" in vars(kind)]
    assert len(own) > 20
    for kind in own:
        error = kind.__new__(kind)
        VendoError.__init__(error, "what happened")
        again = Fault.of(error).error()
        assert (type(again), again.code, again.message, again.advice) == (kind, kind.code, "what happened", kind.remedy)


def test_an_error_of_a_class_that_is_not_here_keeps_its_code() -> None:
    again = Fault("plugin.broke", "it broke").error()
    assert (again.code, again.message, isinstance(again, VendoError)) == ("plugin.broke", "it broke", True)


@pytest.mark.parametrize(("kind", "parent"), [(Paused, VendoError), (Conflict, VendoError), (NoSuchFile, VendoError)])
async def test_a_program_may_tell_errors_apart_in_a_replay_too(kind: type[VendoError], parent: type) -> None:
    live = LiveTape()
    with pytest.raises(kind):
        await live.read("read", ("/a",), answering(kind()))
    with pytest.raises(kind):
        await ReplayTape(steps_of(live)).read("read", ("/a",), never)


DIFFERENT: list[tuple[str, tuple[str | bytes, ...]]] = [
    ("read", ("/b",)),
    ("list", ("/a",)),
    ("read", ("/a", "more")),
    ("read", ()),
]


@pytest.mark.parametrize(("op", "args"), DIFFERENT)
async def test_the_first_other_step_stops_a_replay(op: str, args: tuple[str | bytes, ...]) -> None:
    replay = ReplayTape([Step("log", ("x", "{}")), Step("read", ("/a",), b"one")])
    replay.tell("log", "x", "{}")
    with pytest.raises(Diverged) as seen:
        await replay.read(op, args, never)
    assert (seen.value.position, seen.value.expected) == (1, Step("read", ("/a",), b"one"))
    assert seen.value.found is not None
    assert seen.value.found[:2] == (op, args)


async def test_a_program_cannot_catch_a_difference_away() -> None:
    replay = ReplayTape([Step("read", ("/a",), b"one")])

    async def careless() -> None:
        with suppress(Exception):
            await replay.read("read", ("/other",), never)

    with pytest.raises(Diverged):
        await careless()
    with pytest.raises(Diverged):
        await replay.read("read", ("/a",), never)
    with pytest.raises(Diverged):
        replay.tell("log", "x", "{}")
    with pytest.raises(Diverged):
        replay.finish()


async def test_doing_more_or_less_than_was_recorded_is_a_difference() -> None:
    more = ReplayTape([])
    with pytest.raises(Diverged) as seen:
        more.tell("hibernate")
    assert (seen.value.expected, seen.value.found) == (None, Step("hibernate", ()))
    less = ReplayTape([Step("hibernate", ())])
    with pytest.raises(Diverged) as seen:
        less.finish()
    assert (seen.value.expected, seen.value.found) == (Step("hibernate", ()), None)


async def test_a_read_that_was_cancelled_ends_a_replay_there() -> None:
    live = LiveTape()

    async def slow() -> bytes:
        await asyncio.sleep(60)
        return b""

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await live.read("read", ("/slow",), slow)
    assert steps_of(live) == (Step("read", ("/slow",), None),)
    with pytest.raises(BrokenOff):
        await ReplayTape(steps_of(live)).read("read", ("/slow",), never)


async def test_reads_that_overlap_keep_the_order_in_which_they_began() -> None:
    def after(pause: float, answer: bytes) -> Callable[[], Coroutine[Any, Any, bytes]]:
        async def fetch() -> bytes:
            await asyncio.sleep(pause)
            return answer

        return fetch

    live = LiveTape()
    await asyncio.gather(
        live.read("read", ("/slow",), after(0.02, b"s")), live.read("read", ("/quick",), after(0, b"q"))
    )
    replay = ReplayTape(steps_of(live))
    answers = await asyncio.gather(replay.read("read", ("/slow",), never), replay.read("read", ("/quick",), never))
    assert answers == [b"s", b"q"]
    replay.finish()


async def test_what_comes_after_the_last_step_that_is_kept_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tape_module, "MAX_STEPS", 3)
    live = LiveTape()
    for n in range(5):
        live.tell("log", "n", str(n))
    assert await live.read("read", ("/a",), answering(b"still answered")) == b"still answered"
    assert live.cut
    assert len(live.steps) == 3
    replay = ReplayTape(steps_of(live), cut=True)
    for n in range(3):
        replay.tell("log", "n", str(n))
    with pytest.raises(BrokenOff):
        replay.tell("log", "n", "3")


async def test_a_tick_that_reads_very_much_keeps_digests_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tape_module, "MAX_KEPT", 10_000)
    live = LiveTape()
    for n in range(4):
        await live.read("read", (f"/{n}",), answering(bytes([65 + n]) * 4_000))
    live.tell("log", "note", "x" * 9_000)
    assert sum(len(step.answer) for step in live.steps if isinstance(step.answer, bytes)) < 10_000
    assert len(live.steps[-1].args[1]) < 400
    replay = ReplayTape(steps_of(live))
    assert await replay.read("read", ("/0",), never) == b"A" * 4_000
    assert await replay.read("read", ("/1",), never) == b"B" * 4_000
    with pytest.raises(BodyMissing) as seen:
        await replay.read("read", ("/2",), never)
    assert (seen.value.position, seen.value.body.size) == (2, 4_000)


async def test_long_arguments_are_compared_by_their_digest() -> None:
    live = LiveTape()
    live.tell("log", "note", "x" * 5_000)
    live.tell("log", "note", b"\xff" * 5_000)
    steps = steps_of(live)
    assert all(len(step.args[1]) < 400 for step in steps)
    replay = ReplayTape(steps)
    replay.tell("log", "note", "x" * 5_000)
    replay.tell("log", "note", b"\xff" * 5_000)
    replay.finish()
    with pytest.raises(Diverged):
        ReplayTape(steps).tell("log", "note", "x" * 4_999 + "y")


async def test_of_a_secret_answer_only_a_handle_is_kept() -> None:
    live = LiveTape()
    found = await live.read("read", ("/secrets/key",), answering(Secret(b"hunter-2-hunter\n")))
    assert found == b"hunter-2-hunter\n"
    await live.read("call", ("/api", "k", b"token=" + found.strip()), answering(b"welcome hunter-2-hunter"))
    steps = steps_of(live)
    assert "hunter" not in repr(steps)
    replay = ReplayTape(steps)
    handle = await replay.read("read", ("/secrets/key",), never)
    assert await replay.read("call", ("/api", "k", b"token=" + handle.strip()), never) == b"welcome " + handle.strip()
    replay.finish()


async def test_a_secret_in_json_keeps_its_form() -> None:
    live = LiveTape()
    await live.read(
        "read", ("/secrets/db",), answering(Secret(b'{"user":"root","pin":1234,"tls":true,"at":["h1:5432"]}'))
    )
    live.tell("log", "connected", '{"as":"root","to":"h1:5432"}')
    steps = steps_of(live)
    assert b"1234" not in repr(steps).encode()
    assert "root" not in repr(steps)
    assert "5432" not in repr(steps)
    assert b'"tls":true' in (steps[0].answer if isinstance(steps[0].answer, bytes) else b"")


def test_a_secret_shows_itself_to_nobody() -> None:
    assert "hunter" not in f"{Secret(b'hunter')!r} {[Secret(b'hunter')]}"


async def test_nothing_but_stopping_passes_the_handlers_of_programs() -> None:
    assert not issubclass(Stopped, Exception)
    live = LiveTape(Redactor(["word"]))
    with pytest.raises(InvalidInput):
        await live.read("read", ("/a",), answering(InvalidInput("the word is wrong")))
    assert "word" not in repr(steps_of(live))
