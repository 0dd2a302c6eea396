"""Many who watch one stream: each sees all of it once, nobody waits for another, and it is read once for all."""

import asyncio
import random

import pytest

from core.error import Refused
from fs.protocol import Record
from node.http import watcher
from tests.integration.http.hub_part import Listener, Log, booth, soon


@pytest.mark.parametrize("way", ["watch", "batched"])
async def test_all_who_watch_share_one_reading_and_each_sees_every_record_once(way: str) -> None:
    log = Log()
    async with booth() as made:
        made.streams["log"] = getattr(log, way)
        log.add(5)
        listeners = [await made.listen("log") for _ in range(60)]
        for _ in range(40):
            log.add()
            await asyncio.sleep(0.003)
        await asyncio.gather(*(one.until(lambda it: it.ids[-1:] == [45]) for one in listeners))
        assert all(one.ids == list(range(6, 46)) for one in listeners)
        assert made.hub.watchers == 60
        assert log.opened == 1
        assert log.pulled == 40


async def test_the_first_record_after_a_pause_does_not_wait_for_others() -> None:
    log = Log()
    async with booth() as made:
        made.streams["log"] = log.watch
        one = await made.listen("log")
        loop, delays = asyncio.get_running_loop(), []
        for number in range(1, 6):
            await asyncio.sleep(0.2)
            begun = loop.time()
            log.add()
            await one.until(lambda it, number=number: it.ids[-1:] == [number])
            delays.append(loop.time() - begun)
        assert sorted(delays)[2] < 0.1


async def test_whoever_has_a_cursor_reads_the_past_and_goes_on_with_the_others() -> None:
    log = Log(page=7)
    async with booth() as made:
        made.streams["log"] = log.watch
        log.add(3_000, size=100)
        here = await made.listen("log")
        cursors = [0, 1, 500, 2_990, 2_999, 3_000]
        late = [await made.listen("log", after) for after in cursors]
        log.add(10)
        await here.until(lambda it: it.ids[-1:] == [3_010])
        for one, after in zip(late, cursors, strict=True):
            await one.until(lambda it: it.ids[-1:] == [3_010])
            assert one.ids == list(range(after + 1, 3_011))
        await soon(lambda: log.readings == 1)
        log.add()
        for one in (here, *late):
            await one.until(lambda it: it.ids[-1] == 3_011)
            assert one.ids == sorted(set(one.ids))


async def test_a_crowd_that_comes_back_to_a_silent_stream_soon_shares_one_reading() -> None:
    log = Log()
    async with booth() as made:
        made.streams["log"] = log.watch
        log.add(10)
        crowd = [await made.listen("log", after=4) for _ in range(30)]
        await soon(lambda: log.readings == 1)
        fresh = await made.listen("log")
        await soon(lambda: log.readings == 1)
        log.add()
        for one in crowd:
            await one.until(lambda it: it.ids[-1:] == [11])
            assert one.ids == list(range(5, 12))
        await fresh.until(lambda it: it.ids == [11])
        await soon(lambda: log.readings == 1)


@pytest.mark.parametrize("delay_s", [0.0, 0.004])
async def test_however_readers_come_and_go_there_is_no_gap_and_no_repetition(delay_s: float) -> None:
    choose, log = random.Random(7), Log(page=5, delay_s=delay_s)
    done = asyncio.Event()

    async def write() -> None:
        while not done.is_set():
            log.add(choose.choice([1, 1, 2, 30]), size=choose.choice([10, 3_000]))
            await asyncio.sleep(choose.choice([0, 0.001, 0.02, 0.15]))

    async def read(number: int) -> None:
        await asyncio.sleep(choose.random())
        after = choose.choice([None, None, 0, max(0, len(log.records) - 3), len(log.records)])
        one = await made.listen("log", after)
        until = asyncio.get_running_loop().time() + choose.random()
        await one.until(lambda it: bool(it.ids) and asyncio.get_running_loop().time() > until)
        first = one.ids[0] if after is None else after + 1
        assert one.ids == list(range(first, first + len(one.ids))), number
        one.close()

    async with booth(look_s=0.05) as made:
        made.streams["log"] = log.watch
        writing = asyncio.create_task(write())
        await asyncio.gather(*(read(number) for number in range(40)))
        done.set()
        await writing
        await soon(lambda: made.hub.watchers == 0 and log.readings == 0)


async def test_a_reader_that_takes_nothing_is_cut_off_with_a_marker_and_the_others_go_on() -> None:
    log = Log()
    async with booth() as made:
        made.streams["log"] = log.watch
        stalled = await made.listen("log", buffer=4_096)
        quick = [await made.listen("log") for _ in range(3)]
        for round_ in range(100):
            log.add(4, size=2_000)
            await asyncio.gather(*(one.until(lambda it, n=4 * (round_ + 1): it.ids[-1:] == [n]) for one in quick))
            if made.hub.watchers == 3:
                break
            assert stalled.end == ""
        await stalled.to_the_end()
        assert stalled.end == '{"reason":"too_slow"}'
        assert stalled.ids == list(range(1, len(stalled.ids) + 1)), "what it has is whole, and it can go on from there"
        again = await made.listen("log", after=stalled.ids[-1])
        await again.until(lambda it: it.ids[-1:] == [len(log.records)])
        assert again.ids[0] == stalled.ids[-1] + 1
        assert all(not one.end for one in quick)


async def test_a_lone_slow_reader_is_not_cut_off_and_the_past_is_read_as_it_takes_it() -> None:
    log = Log(page=10)
    log.add(2_000, size=2_000)
    async with booth() as made:
        made.streams["log"] = log.watch
        one = await made.listen("log", after=0, buffer=4_096)
        await asyncio.sleep(0.5)
        assert log.pulled < 1_000, "4 MB are not read for somebody who takes none of it"
        await one.until(lambda it: it.ids[-1:] == [2_000], within=30)
        assert one.ids == list(range(1, 2_001))


async def test_a_lone_reader_that_has_stalled_for_long_is_cut_off_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "STALLED_S", 0.3)
    log = Log()
    log.add(1_000, size=2_000)
    async with booth(look_s=0.05) as made:
        made.streams["log"] = log.watch
        one = await made.listen("log", after=0, buffer=4_096)
        await asyncio.sleep(0.6)
        await one.to_the_end()
        assert one.end == '{"reason":"too_slow"}'
        assert one.ids == list(range(1, len(one.ids) + 1))


async def test_one_that_never_reads_again_is_dropped_with_what_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "STALLED_S", 0.2)
    monkeypatch.setattr(watcher, "_LINGER_S", 0.2)
    log = Log()
    log.add(1_000, size=2_000)
    async with booth(look_s=0.05) as made:
        made.streams["log"] = log.watch
        await made.listen("log", after=0, buffer=4_096)
        await soon(lambda: made.hub.watchers == 0 and log.readings == 0)


async def test_a_finished_stream_ends_for_all_who_watch_it() -> None:
    log = Log()
    async with booth() as made:
        made.streams["log"] = log.watch
        log.add(3)
        listeners = [await made.listen("log", after) for after in (None, None, 0, 2)]
        await soon(lambda: log.readings == 2)
        log.add()
        log.finish()
        for one, first in zip(listeners, (4, 4, 1, 3), strict=True):
            await one.to_the_end()
            assert (one.ids, one.end) == (list(range(first, 5)), '{"reason":"complete"}')
        await soon(lambda: made.hub.watchers == 0 and log.readings == 0)


async def test_a_stream_that_tells_first_how_things_are_tells_everybody() -> None:
    state = Log()
    state.add(4)

    async def watch(after: int | None):
        async for record in state.watch(3 if after is None else after):
            yield record

    async with booth() as made:
        made.streams["job"] = watch
        first = await made.listen("job")
        await first.until(lambda it: it.ids == [4])
        second, third = await made.listen("job"), await made.listen("job", after=4)
        await second.until(lambda it: it.ids == [4])
        state.add()
        for one in (first, second):
            await one.until(lambda it: it.ids == [4, 5])
        await third.until(lambda it: it.ids == [5])
        await soon(lambda: state.readings == 1)


async def test_newcomers_to_a_busy_stream_soon_need_no_reading_of_their_own() -> None:
    log, busy = Log(), True

    async def write() -> None:
        while busy:
            log.add()
            await asyncio.sleep(0.002)

    async with booth() as made:
        made.streams["log"] = log.watch
        writing = asyncio.create_task(write())
        await asyncio.sleep(0.05)
        listeners = []
        for _ in range(30):
            one = await made.listen("log")
            listeners.append(await one.until(lambda it: len(it.ids) > 1))
        opened = log.opened
        assert opened < 20
        for one in listeners:
            assert one.ids == list(range(one.ids[0], one.ids[0] + len(one.ids)))
        await soon(lambda: log.readings == 1)
        busy = False
        await writing


async def test_a_long_finished_stream_without_a_cursor_comes_whole() -> None:
    log = Log()
    log.add(800, size=2_000)
    log.finish()

    async with booth() as made:
        made.streams["all"] = lambda after: log.watch(after or 0)
        listeners = await asyncio.gather(*(made.listen("all") for _ in range(2)))
        await asyncio.gather(*(one.to_the_end(within=20) for one in listeners))
        assert all(one.ids == list(range(1, 801)) for one in listeners)
        slow = await made.listen("all", buffer=4_096)
        assert (await slow.to_the_end(within=20)).ids == list(range(1, 801))


async def test_what_a_stream_refuses_at_once_is_an_answer_and_no_stream() -> None:
    async def refuse(after: int | None):
        raise Refused("Not for you.")
        yield Record(1, b"", "never")

    async with booth() as made:
        made.streams["no"] = refuse
        for one in [await made.listen("no", after) for after in (None, 0)]:
            assert one.status == 403
            assert b"problem+json" in one.head
        await soon(lambda: made.hub.watchers == 0)


async def test_a_stream_that_fails_later_ends_with_the_errors_code_and_nothing_else() -> None:
    for fault, code in ((Refused("Not any more."), Refused.code), (RuntimeError("secret words"), "http.internal")):
        log = Log()
        async with booth() as made:
            made.streams["log"] = log.watch
            one = await made.listen("log")
            log.add()
            await one.until(lambda it: it.ids == [1])
            log.finish(fault)
            await one.to_the_end()
            assert one.end == f'{{"reason":"error","code":"{code}"}}'
            await soon(lambda log=log: log.readings == 0)


async def test_what_came_before_a_failure_is_sent_before_it_is_told() -> None:
    log = Log()
    async with booth() as made:
        made.streams["log"] = log.watch
        one, late = await made.listen("log"), await made.listen("log", after=0)
        log.add(3)
        log.finish(Refused("Not any more."))
        for listener in (one, late):
            await listener.to_the_end()
            assert listener.ids == [1, 2, 3]
            assert Refused.code in listener.end


async def test_readers_of_a_busy_stream_come_together_and_a_slow_one_is_not_cut_off_by_keep_alives() -> None:
    log, busy = Log(), True

    async def write() -> None:
        while busy:
            log.add(size=400)
            await asyncio.sleep(0.004)

    async with booth(keep_alive_s=0.05, look_s=0.02) as made:
        made.streams["log"] = log.watch
        writing = asyncio.create_task(write())
        listeners = [await made.listen("log", after) for after in (None, 0, None, 5, 0)]
        reading = [asyncio.create_task(one.until(lambda it: len(it.ids) > 300)) for one in listeners]
        await soon(lambda: log.readings == 1)
        await asyncio.gather(*reading)
        busy = False
        await writing
        old = Log()
        old.add(1_000, size=2_000)
        made.streams["old"] = old.watch
        slow = await made.listen("old", after=0, buffer=4_096)
        await asyncio.sleep(0.5)
        await slow.until(lambda it: it.ids[-1:] == [1_000])


async def test_a_reading_ends_when_the_last_one_leaves_and_begins_again_with_the_next() -> None:
    log = Log()
    async with booth(look_s=0.02) as made:
        made.streams["log"] = log.watch
        listeners = [await made.listen("log") for _ in range(3)]
        await soon(lambda: log.readings == 1)
        for number, one in enumerate(listeners, 1):
            one.close()
            await soon(lambda number=number: made.hub.watchers == 3 - number)
            if number < 3:
                assert log.readings == 1
        await soon(lambda: log.readings == 0)
        fresh = await made.listen("log")
        log.add()
        await fresh.until(lambda it: it.ids == [1])


async def test_silence_is_broken_by_comments_and_one_task_does_it_for_all() -> None:
    log = Log()
    async with booth(keep_alive_s=0.1, look_s=0.02) as made:
        made.streams["log"] = log.watch
        before = len(asyncio.all_tasks())
        listeners = [await made.listen("log") for _ in range(20)]
        for one in listeners:
            await one.until(lambda it: it.comments >= 2)
        per_client = 2  # aiohttp's own: one for the connection, one for the request
        assert len(asyncio.all_tasks()) <= before + len(listeners) * per_client + 3


async def test_all_streams_end_when_the_node_stops_and_new_ones_too() -> None:
    log = Log()
    async with booth() as made:
        made.streams["log"] = log.watch
        listeners = [await made.listen("log") for _ in range(5)]
        made.stop.set()
        for one in listeners:
            assert (await one.to_the_end()).end == '{"reason":"shutdown"}'
        assert (await (await made.listen("log")).to_the_end()).end == '{"reason":"shutdown"}'


async def test_there_are_only_so_many_streams() -> None:
    log = Log()
    async with booth(most=2, look_s=0.02) as made:
        made.streams["log"] = log.watch
        first, second = await made.listen("log"), await made.listen("log")
        assert (await made.listen("log")).status == 503
        first.close()
        await soon(lambda: made.hub.watchers == 1)
        assert (await made.listen("log")).status == 200
        second.close()


async def test_hundreds_of_different_streams_cost_two_tasks_each() -> None:
    logs = {str(number): Log() for number in range(200)}
    async with booth() as made:
        made.streams |= {name: log.watch for name, log in logs.items()}
        listeners: list[Listener] = await asyncio.gather(*map(made.listen, logs))
        for log in logs.values():
            log.add()
        await asyncio.gather(*(one.until(lambda it: it.ids == [1]) for one in listeners))
        assert made.hub.watchers == 200
        assert len(asyncio.all_tasks()) < 200 * 4 + 20


async def test_an_old_client_gets_the_bytes_as_they_are() -> None:
    log = Log()
    async with booth() as made:
        made.streams["log"] = log.watch
        one = await made.listen("log", version="1.0")
        assert b"chunked" not in one.head
        log.add(2)
        log.finish()
        await one.to_the_end()
        assert (one.ids, one.end) == ([1, 2], '{"reason":"complete"}')


async def test_a_record_longer_than_every_buffer_comes_whole() -> None:
    log = Log()
    async with booth() as made:
        made.streams["log"] = log.watch
        one, late = await made.listen("log"), await made.listen("log", after=0)
        log.add(size=3_000_000)
        log.add()
        both = (one, late)
        await asyncio.gather(*(listener.until(lambda it: it.ids == [1, 2], within=20) for listener in both))
        assert all(len(listener.data[0]) == 3_000_000 for listener in both)
