import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import aiohttp
import pytest
from aiohttp import web

from core.money import MicroUsd, Msat, Rate
from tests.wallet_part import HandClock
from wallet.error import FxUnpriced
from wallet.fx import Fixed, Oracle, history
from wallet.price import Feed


class Source:
    """A price on loopback."""

    def __init__(self) -> None:
        self.status, self.body, self.asked, self.url = 200, '{"data":{"amount":"65000.10"}}', 0, ""
        self.headers: dict[str, str] = {}

    async def answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        return web.Response(status=self.status, text=self.body, headers=self.headers)


@asynccontextmanager
async def serving() -> AsyncIterator[Source]:
    made = Source()
    app = web.Application()
    app.router.add_get("/", made.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    yield made
    await runner.cleanup()


@pytest.fixture
async def source() -> AsyncIterator[Source]:
    async with serving() as made:
        yield made


@contextmanager
def silent() -> Iterator[str]:
    """An address that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"


def one(source: Source, http: aiohttp.ClientSession, clock: HandClock) -> Oracle:
    return Oracle([Feed("it", source.url, "data.amount")], 1, 120, http, clock)


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_a_fixed_rate_is_what_it_is():
    rate = Rate.of_btc_price(65_000, 0, "fixed")
    assert await Fixed(rate).rate() == rate


async def test_a_fresh_price_is_not_asked_for_again_and_an_old_one_is(source, http):
    clock = HandClock()
    oracle = one(source, http, clock)
    rate = await oracle.rate()
    assert rate.micro_usd == 65_000_100_000
    assert rate.cost(Msat(100_000_000_000)) == MicroUsd(65_000_100_000)
    await oracle.rate()
    assert source.asked == 1
    clock.seconds += 121
    source.body = '{"data":{"amount":"66000"}}'
    assert (await oracle.rate()).micro_usd == 66_000_000_000
    assert source.asked == 2


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"data":{"amount":"NaN"}}', '{"data":{"amount":0}}', " " * 70_000])
async def test_without_a_plausible_price_nothing_is_priced(source, http, body):
    source.body = body
    with pytest.raises(FxUnpriced):
        await one(source, http, HandClock()).rate()


async def test_an_old_price_is_not_used_when_the_source_fails(source, http):
    clock = HandClock()
    oracle = one(source, http, clock)
    await oracle.rate()
    source.status = 503
    clock.seconds += 100
    await oracle.rate()
    clock.seconds += 100
    with pytest.raises(FxUnpriced):
        await oracle.rate()


async def test_a_jump_is_not_believed_until_time_has_passed(source, http):
    clock = HandClock()
    oracle = one(source, http, clock)
    await oracle.rate()
    source.body = '{"data":{"amount":"6500"}}'
    clock.seconds += 200
    with pytest.raises(FxUnpriced):
        await oracle.rate()
    clock.seconds += 900
    assert (await oracle.rate()).micro_usd == 6_500_000_000


async def test_a_source_that_fails_is_left_alone_longer_and_longer_and_comes_back(source, http):
    clock = HandClock()
    oracle, asked = one(source, http, clock), []
    source.status = 500
    for _ in range(600):
        with pytest.raises(FxUnpriced):
            await oracle.rate()
        asked.append(source.asked)
        clock.seconds += 1
    assert source.asked < 20, "not once a second"
    source.status = 200
    clock.seconds += 60
    assert (await oracle.rate()).micro_usd == 65_000_100_000


async def test_a_source_that_asks_for_rest_gets_it(source, http):
    clock = HandClock()
    oracle = one(source, http, clock)
    source.status, source.headers = 429, {"Retry-After": "300"}
    with pytest.raises(FxUnpriced, match="0 of 1 sources"):
        await oracle.rate()
    assert oracle.sources()[0]["why"] == "asked too often"
    source.status = 200
    clock.seconds += 299
    with pytest.raises(FxUnpriced):
        await oracle.rate()
    clock.seconds += 2
    await oracle.rate()
    assert source.asked == 2


async def test_a_source_that_leads_elsewhere_is_not_followed(source, http):
    source.status, source.headers = 302, {"Location": source.url}
    with pytest.raises(FxUnpriced):
        await one(source, http, HandClock()).rate()
    assert source.asked == 1


async def test_several_sources_agree_though_one_lies_one_is_gone_and_one_never_answers(http):
    clock = HandClock()
    async with serving() as good, serving() as near, serving() as third, serving() as liar, serving() as gone:
        near.body, third.body = '{"data":{"amount":"65100"}}', '{"data":{"amount":64900}}'
        liar.body, gone.status = '{"data":{"amount":"70000"}}', 503
        feeds = [Feed(str(n), each.url, "data.amount") for n, each in enumerate((good, near, third, liar, gone))]
        with silent() as url:
            oracle = Oracle([*feeds, Feed("silent", url, "usd")], 3, 120, http, clock)
            began = asyncio.get_running_loop().time()
            rate = await oracle.rate()
        assert asyncio.get_running_loop().time() - began < 10, "all are asked at once"
    assert (rate.micro_usd, rate.source) == (65_000_100_000, "0+1+2")
    assert {one["name"]: one["why"] for one in oracle.sources()} == {
        "0": "", "1": "", "2": "", "3": "too far from the others", "4": "asked too often",
        "silent": "no answer (TimeoutError)",
    }  # fmt: skip
    assert [one["name"] for one in oracle.sources() if one["counts"]] == ["0", "1", "2"]


async def test_two_of_three_are_not_enough_when_three_must_agree(http):
    async with serving() as good, serving() as near, serving() as liar:
        liar.body = '{"data":{"amount":"66000"}}'
        feeds = [Feed(str(n), each.url, "data.amount") for n, each in enumerate((good, near, liar))]
        oracle = Oracle(feeds, 3, 120, http, HandClock())
        with pytest.raises(FxUnpriced, match="2 of 3 sources agree"):
            await oracle.rate()


async def test_one_price_that_is_nearly_too_old_does_not_take_the_rate_away_when_it_is(http):
    clock = HandClock(1_800_000_119)
    async with serving() as one_, serving() as two, serving() as old:
        for each in (one_, two, old):
            each.body = '{"usd":"65000","at":1800000119}'
        old.body = '{"usd":"65000","at":1800000000}'  # it counts for one second more
        feeds = [Feed(str(n), each.url, "usd", "at") for n, each in enumerate((one_, two, old))]
        oracle = Oracle(feeds, 2, 120, http, clock)
        assert (await oracle.rate()).taken_at == 1_800_000_000
        clock.seconds += 2
        assert (await oracle.rate()).taken_at == 1_800_000_119
        assert (one_.asked, old.asked) == (1, 1), "nobody had to be asked again"


async def test_an_answer_that_no_decimal_can_hold_ends_nothing(source, http):
    source.body = '{"data":{"amount":"65000"},"x":1e9999999999999999999}'
    oracle, ready, stop = one(source, http, HandClock()), asyncio.Event(), asyncio.Event()
    with pytest.raises(FxUnpriced):
        await oracle.rate()
    assert oracle.sources()[0]["why"] == "the answer holds a number that is none"
    running = asyncio.create_task(oracle.run(ready, stop))
    await asyncio.wait_for(ready.wait(), 20)
    await asyncio.sleep(0.05)
    assert not running.done()
    running.cancel()


async def test_sources_that_do_not_agree_are_not_asked_again_for_every_job(http):
    clock = HandClock()
    async with serving() as good, serving() as liar:
        liar.body = '{"data":{"amount":"99000"}}'
        feeds = [Feed(str(n), each.url, "data.amount") for n, each in enumerate((good, liar))]
        oracle = Oracle(feeds, 2, 120, http, clock)
        for _ in range(30):
            with pytest.raises(FxUnpriced, match="0 of 2 sources agree"):
                await oracle.rate()
            clock.seconds += 1
        assert (good.asked, liar.asked) == (2, 2)


async def test_it_is_asked_again_before_what_is_known_is_too_old(http):
    async with serving() as source:
        source.body = '{"usd":"65000","at":1800000000}'
        clock = HandClock(1_800_000_050)  # the price is 50 s old when it is asked for the first time
        oracle = Oracle([Feed("a", source.url, "usd", "at")], 1, 120, http, clock)
        ready, stop = asyncio.Event(), asyncio.Event()
        slept = []

        async def sleep(seconds: float) -> None:
            slept.append(seconds)
            if len(slept) == 2:
                stop.set()

        clock.sleep = sleep
        await asyncio.wait_for(oracle.run(ready, stop), 20)
    assert slept[0] == 60
    assert (await oracle.rate()).taken_at == 1_800_000_000


def test_history_keeps_the_rate():
    rate = Rate.of_btc_price(65_000, 7, "fixed")
    assert history(rate).row == {
        "micro_usd": rate.micro_usd,
        "msat": rate.msat,
        "taken_at": 7,
        "source": "fixed",
    }
