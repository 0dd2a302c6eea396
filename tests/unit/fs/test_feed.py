import asyncio

from fs.feed import Feed


async def test_every_waiter_wakes_and_none_is_missed_between_read_and_wait() -> None:
    feed = Feed()
    count = feed.count("a")
    feed.grew("a")
    assert await feed.wait("a", count, 0.01)
    waiters = [asyncio.create_task(feed.wait("a", feed.count("a"), 5)) for _ in range(3)]
    await asyncio.sleep(0)
    feed.grew("b")
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiters)
    feed.grew("a")
    assert await asyncio.gather(*waiters) == [True] * 3


async def test_a_wait_that_ends_leaves_nothing_behind() -> None:
    feed = Feed()
    assert not await feed.wait("a", 0, 0.001)
    assert not feed._waiting
