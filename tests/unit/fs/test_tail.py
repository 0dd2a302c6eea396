"""A log is read once for all who watch its end; who is behind reads alone; what is lost is told."""

import asyncio
import random
from collections.abc import AsyncIterator

import orjson
import pytest

from core.error import Unavailable
from fs.batch import Batch, Later, batches
from fs.feed import Feed
from fs.protocol import Record
from fs.tail import GAP, Following, Page, Tail

PAGE = 5


class Log:
    """A log in memory that counts how often it is read."""

    def __init__(self, feed: Feed, count: int = 0) -> None:
        self.feed, self.reads, self.fails, self.oldest = feed, 0, 0, 1
        self.ids = list(range(1, count + 1))
        self.hidden: set[int] = set()

    def add(self, count: int = 1) -> None:
        self.ids += range(len(self.ids) + 1, len(self.ids) + 1 + count)
        self.feed.grew("log")

    async def span(self) -> tuple[int, int]:
        return self.oldest, len(self.ids)

    async def page(self, after: int) -> Page:
        self.reads += 1
        await asyncio.sleep(0)
        if self.fails:
            self.fails -= 1
            raise Unavailable("The disk is away.")
        found = [one for one in self.ids if one > after and one >= self.oldest][:PAGE]
        records = [Record(one, str(one).encode(), "n") for one in found if one not in self.hidden]
        return Page(records, found[-1] if found else after, len(found) == PAGE)


def log_with(count: int = 0, pause_s: float = 0.0) -> tuple[Log, Tail]:
    feed = Feed()
    log = Log(feed, count)
    return log, Tail(feed, "log", log, pause_s)


async def take(records: AsyncIterator[Record], count: int) -> list[int]:
    async with asyncio.timeout(5):
        return [(await anext(records)).id for _ in range(count)]


async def waiting(*watchers: Following) -> list[asyncio.Task[Batch]]:
    tasks = [asyncio.create_task(one.batch()) for one in watchers]
    for _ in range(20):
        await asyncio.sleep(0)
    return tasks


async def test_a_late_watcher_gets_the_past_and_then_what_comes() -> None:
    log, tail = log_with(12)
    watcher = tail.follow(0)
    assert await take(watcher, 12) == list(range(1, 13))
    (task,) = await waiting(watcher)
    log.add(2)
    assert [one.id for one in (await task).records] == [13, 14]
    assert await take(tail.follow(9), 5) == [10, 11, 12, 13, 14]


async def test_watchers_at_the_end_share_one_read_and_one_batch() -> None:
    log, tail = log_with(3)
    watchers = [tail.follow(None) for _ in range(50)]
    tasks = await waiting(*watchers)
    before = log.reads
    log.add(4)
    found = await asyncio.gather(*tasks)
    assert [one.id for one in found[0].records] == [4, 5, 6, 7]
    assert all(one is found[0] for one in found)
    assert log.reads == before + 1
    made: list[Record] = []

    def form(record: Record) -> bytes:
        made.append(record)
        return record.data + b"\n"

    assert {one.shown(form) for one in found} == {b"4\n5\n6\n7\n"}
    assert len(made) == 4, "what it looks like is made once"


async def test_records_that_come_close_together_are_handed_over_together() -> None:
    log, tail = log_with(0, pause_s=0.05)
    watcher = tail.follow(None)
    (task,) = await waiting(watcher)
    log.add()
    assert len((await task).records) == 1, "the first one at once"
    (task,) = await waiting(watcher)
    for _ in range(3):
        log.add()
        await asyncio.sleep(0.005)
    assert [one.id for one in (await task).records] == [2, 3, 4]


async def test_a_watcher_that_was_behind_for_long_reads_alone_and_misses_nothing() -> None:
    log, tail = log_with(1)
    slow, quick = tail.follow(0), tail.follow(0)
    assert await take(slow, 1) == [1]
    assert await take(quick, 1) == [1]
    for _ in range(100):  # more batches than are kept
        log.add()
        assert len(await take(quick, 1)) == 1
    assert await take(slow, 100) == list(range(2, 102))


async def test_one_who_leaves_while_reading_for_all_is_replaced() -> None:
    log, tail = log_with(0)
    watchers = [tail.follow(None) for _ in range(3)]
    first, *rest = await waiting(*watchers)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    log.add()
    for found in await asyncio.wait_for(asyncio.gather(*rest), 5):
        assert [one.id for one in found.records] == [1]


async def test_a_read_that_fails_ends_one_watch_and_the_next_one_tries_again() -> None:
    log, tail = log_with(0)
    tasks = await waiting(tail.follow(None), tail.follow(None))
    log.fails = 1
    log.add()
    found = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
    assert isinstance(found[0], Unavailable)
    assert isinstance(found[1], Batch)


async def test_what_is_not_kept_any_more_is_told_first() -> None:
    log, tail = log_with(10)
    log.oldest = 7
    watcher = tail.follow(2)
    first = await anext(watcher)
    assert (first.type, first.id, orjson.loads(first.data)) == (GAP, 6, {"from": 3, "to": 6})
    assert await take(watcher, 4) == [7, 8, 9, 10]
    again = await anext(tail.follow(6))
    assert (again.id, again.type) == (7, "n"), "from the marker on nothing is missing"
    assert await take(tail.follow(0), 4) == [7, 8, 9, 10], "0 is from the oldest that is kept"


async def test_a_watcher_that_falls_behind_what_is_kept_is_told() -> None:
    log, tail = log_with(1)
    slow, quick = tail.follow(0), tail.follow(0)
    assert await take(slow, 1) == await take(quick, 1) == [1]
    for _ in range(60):
        log.add()
        await take(quick, 1)
    log.oldest = 50
    first = await anext(slow)
    assert (first.type, orjson.loads(first.data)) == (GAP, {"from": 2, "to": 49})
    assert await take(slow, 12) == list(range(50, 62))


async def test_a_cursor_past_the_end_is_from_now_on() -> None:
    log, tail = log_with(3)
    watcher = tail.follow(10**18)
    (task,) = await waiting(watcher)
    assert not task.done()
    log.add()
    assert [one.id for one in (await asyncio.wait_for(task, 5)).records] == [4]


async def test_records_that_a_source_leaves_out_hold_nobody_up() -> None:
    log, tail = log_with(20)
    log.hidden = set(range(1, 19)) | {21, 22, 23}
    watcher, other = tail.follow(0), tail.follow(None)
    assert await take(watcher, 2) == [19, 20]
    tasks = await waiting(watcher, other)
    log.add(3)
    await asyncio.sleep(0.01)
    assert not any(task.done() for task in tasks)
    log.add()
    assert [[one.id for one in found.records] for found in await asyncio.gather(*tasks)] == [[24], [24]]


async def test_one_by_one_and_in_batches_are_the_same() -> None:
    _, tail = log_with(9)
    watcher = tail.follow(0)
    assert await take(watcher, 2) == [1, 2]
    assert [one.id for one in (await watcher.batch()).records] == [3, 4, 5]
    assert await take(watcher, 4) == [6, 7, 8, 9]


async def test_a_tail_is_shared_while_somebody_holds_it() -> None:
    feed = Feed()
    log = Log(feed, 2)
    first = feed.shared("log", lambda: Tail(feed, "log", log)).follow(0)
    second = feed.shared("log", lambda: Tail(feed, "log", log)).follow(0)
    assert first._tail is second._tail
    del first, second
    assert not feed._shared


async def test_batches_are_there_for_every_watch_and_later_begins_when_asked() -> None:
    begun: list[str] = []

    async def plain() -> AsyncIterator[Record]:
        for number in (1, 2):
            yield Record(number, b"x", "n")

    async def begin() -> AsyncIterator[Record]:
        begun.append("plain")
        return plain()

    later = Later(begin)
    assert not begun
    assert [[one.id for one in batch.records] async for batch in batches(later)] == [[1], [2]]
    assert [batch.cursor async for batch in batches(plain())] == [1, 2]
    assert begun == ["plain"]

    _, tail = log_with(3)

    async def begin_tail() -> AsyncIterator[Record]:
        return tail.follow(0)

    async for batch in batches(Later(begin_tail)):
        assert [one.id for one in batch.records] == [1, 2, 3]
        break


async def test_a_refused_watch_says_so_when_it_is_asked() -> None:
    async def begin() -> AsyncIterator[Record]:
        raise Unavailable

    with pytest.raises(Unavailable):
        await anext(Later(begin))
    await Later(begin).aclose()


@pytest.mark.parametrize("seed", range(40))
async def test_nobody_misses_or_repeats_anything_whoever_comes_and_goes(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    if seed % 2:
        monkeypatch.setattr("fs.tail._IDLE_S", 0.0)  # the end is left as soon as nobody reads
    log, tail = log_with(chance.randrange(8), pause_s=chance.choice([0.0, 0.001]))
    watchers: list[tuple[Following, int, list[int]]] = []
    tasks: dict[int, asyncio.Task[Batch]] = {}

    def gathered() -> None:
        for place, task in list(tasks.items()):
            if task.done():
                del tasks[place]
                if not task.cancelled():
                    watchers[place][2].extend(one.id for one in task.result().records)

    for _ in range(200):
        match chance.randrange(6):
            case 0:
                log.add(chance.randrange(1, 9))
            case 1 if len(watchers) < 12:
                after = chance.randrange(len(log.ids) + 1)
                watchers.append((tail.follow(after), after, []))
            case 2 if tasks:
                tasks[chance.choice(list(tasks))].cancel()
            case _ if watchers:
                place = chance.randrange(len(watchers))
                if place not in tasks:
                    tasks[place] = asyncio.create_task(watchers[place][0].batch())
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        gathered()
    log.add()
    async with asyncio.timeout(5):
        for place, (watcher, _, found) in enumerate(watchers):
            if place in tasks:
                await asyncio.wait({tasks[place]})
                gathered()
            while not found or found[-1] < len(log.ids):
                found.extend(one.id for one in (await watcher.batch()).records)
    for _, after, found in watchers:
        assert found == list(range(after + 1, len(log.ids) + 1))
