"""Members tell each other: names in pages, in one go, and nobody hears itself."""

import asyncio

from node.share.bell import AGENTS, CHANGE, WORK, Bell
from node.storage.error import StoreFailed
from tests.unit.node.member_part import Line


async def _idle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_the_others_hear_what_is_rung_and_the_one_who_rings_does_not() -> None:
    line = Line()
    one, two = Bell(line, lambda: "0.1"), Bell(line, lambda: "1.1")
    heard: list[tuple[str, str, list[str]]] = []
    for name, bell in (("one", one), ("two", two)):
        for word in (AGENTS, WORK, CHANGE):
            bell.on(word, lambda names, name=name, word=word: heard.append((name, word, list(names))))
    stop = asyncio.Event()
    running = [asyncio.create_task(bell.run(asyncio.Event(), stop)) for bell in (one, two)]
    await _idle()
    one.agents(["anna"])
    one.agents(["bert", "anna"])
    one.work()
    one.work()
    await _idle()
    two.change()
    await _idle()
    assert heard == [("two", AGENTS, ["anna", "bert"]), ("two", WORK, []), ("one", CHANGE, [])]
    assert len(line.words) == 3, "what comes together is told once"
    stop.set()
    await asyncio.gather(*running)


async def test_many_names_are_told_in_words_that_fit() -> None:
    line = Line()
    bell, stop = Bell(line, lambda: "10.123456"), asyncio.Event()
    running = asyncio.create_task(bell.run(asyncio.Event(), stop))
    names = [f"a{number:030}" for number in range(1_000)]
    bell.agents(names)
    await _idle()
    assert max(len(word) for word in line.words) < 8_000
    assert [name for word in line.words for name in word.split(" ")[2:]] == names
    stop.set()
    await running


async def test_a_line_that_breaks_loses_words_and_not_the_bell() -> None:
    class Broken(Line):
        is_down = True

        async def ring(self, words: list[str]) -> None:  # a list is what it gets
            if self.is_down:
                raise StoreFailed
            await super().ring(words)

    line = Broken()
    bell, stop = Bell(line, lambda: "0.1"), asyncio.Event()
    running = asyncio.create_task(bell.run(asyncio.Event(), stop))
    bell.work()
    await _idle()
    line.is_down = False
    bell.change()
    await _idle()
    assert line.words == ["0.1 change"]
    stop.set()
    await running
