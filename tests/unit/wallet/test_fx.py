from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from core.money import MicroUsd, Msat, Rate
from tests.wallet_part import HandClock
from wallet.error import FxUnpriced
from wallet.fx import Fixed, Oracle, history, read_price


class Source:
    """A price on loopback."""

    def __init__(self) -> None:
        self.status, self.body, self.asked, self.url = 200, '{"data":{"amount":"65000.10"}}', 0, ""

    async def answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        return web.Response(status=self.status, text=self.body)


@pytest.fixture
async def source() -> AsyncIterator[Source]:
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
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_a_fixed_rate_is_what_it_is():
    rate = Rate.of_btc_price(65_000, 0, "fixed")
    assert await Fixed(rate).rate() == rate


async def test_a_fresh_price_is_not_asked_for_again_and_an_old_one_is(source, http):
    clock = HandClock()
    oracle = Oracle(source.url, "data.amount", 120, http, clock)
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
        await Oracle(source.url, "data.amount", 120, http, HandClock()).rate()


async def test_an_old_price_is_not_used_when_the_source_fails(source, http):
    clock = HandClock()
    oracle = Oracle(source.url, "data.amount", 120, http, clock)
    await oracle.rate()
    source.status = 503
    clock.seconds += 100
    await oracle.rate()
    clock.seconds += 100
    with pytest.raises(FxUnpriced):
        await oracle.rate()


async def test_a_jump_is_not_believed_until_time_has_passed(source, http):
    clock = HandClock()
    oracle = Oracle(source.url, "data.amount", 120, http, clock)
    await oracle.rate()
    source.body = '{"data":{"amount":"6500"}}'
    clock.seconds += 200
    with pytest.raises(FxUnpriced):
        await oracle.rate()
    clock.seconds += 900
    assert (await oracle.rate()).micro_usd == 6_500_000_000


@pytest.mark.parametrize(
    ("raw", "field", "price"),
    [
        (b'{"USD": 65000}', "USD", "65000"),
        (b'{"USD": 65000.123456789}', "USD", "65000.123456789"),
        (b'{"result":{"XXBTZUSD":{"c":["64000.5","1"]}}}', "result.XXBTZUSD.c.0", "64000.5"),
    ],
)
def test_prices_are_found_in_the_forms_that_sources_use(raw, field, price):
    assert str(read_price(raw, field)) == price


@pytest.mark.parametrize(
    "raw",
    [b'{"USD": true}', b'{"USD": null}', b'{"USD": "x"}', b'{"USD": -1}', b'{"USD": 1e30}', b'{"USD": "Infinity"}'],
)
def test_anything_else_is_no_price(raw):
    with pytest.raises(ValueError):
        read_price(raw, "USD")


def test_history_keeps_the_rate():
    rate = Rate.of_btc_price(65_000, 7, "fixed")
    assert history(rate).row == {
        "micro_usd": rate.micro_usd,
        "msat": rate.msat,
        "taken_at": 7,
        "source": "fixed",
    }
