"""`[fx]`: which settings are taken, and what they make."""

import aiohttp
import pytest

from core.clock import SystemClock
from node.config import parse, render
from node.error import ConfigInvalid
from node.meaning import fx_of
from relays.key import Key
from wallet.fx import Fixed, Oracle
from wallet.price import KNOWN


def config(*lines: str):
    text = render(owner=Key(bytes([1]) * 32).npub, relays=("ws://127.0.0.1:1",), mints=(), port=0, name="n")
    before, _, rest = text.partition("\n[fx] ")
    return parse(before + "\n[fx]\n" + "\n".join(lines) + "\n\n[policy]" + rest.partition("\n[policy]")[2])


@pytest.mark.parametrize(
    "lines",
    [
        ['source = "oracle"'],
        ['source = "oracle"', 'url = "http://prices.example/"'],
        ['source = "oracle"', 'url = "file:///etc/passwd"'],
        ['source = "oracle"', 'url = "https://"'],
        ['source = "oracle"', 'url = "http://127.0.0.1.example/"'],
        ['source = "median"', 'feeds = ["kraken", "coinbase"]'],
        ['source = "median"', 'feeds = ["kraken", "coinbase", "kraken"]'],
        ['source = "median"', 'feeds = ["kraken", "coinbase", "nobody"]'],
        ['source = "median"', 'feeds = ["kraken", "coinbase", {name = "x", url = "http://a.example", field = "f"}]'],
        ['source = "median"', 'feeds = ["kraken", "coinbase", {name = "x y", url = "https://a.example", field = "f"}]'],
        ['source = "median"', "least = 1"],
        ['source = "median"', "max_age_s = 5"],
        ["btc_usd = 0"],
    ],
)
def test_a_source_that_could_not_be_trusted_is_refused(lines):
    with pytest.raises(ConfigInvalid):
        config(*lines)


async def test_the_settings_make_what_they_say():
    async with aiohttp.ClientSession() as http:
        assert isinstance(fx_of(config('source = "fixed"').fx, SystemClock(), http), Fixed)
        found = fx_of(config('source = "median"').fx, SystemClock(), http)
        assert isinstance(found, Oracle)
        assert [one["name"] for one in found.sources()] == list(KNOWN)
        own = config(
            'source = "median"', 'feeds = ["kraken", "yadio", {name = "x", url = "https://a.example", field = "f"}]'
        )
        assert [feed.url for feed in own.fx.sources()][2] == "https://a.example"
        one = config('source = "oracle"', 'url = "http://127.0.0.1:8/"', 'field = "a.b"').fx.sources()
        assert [(feed.name, feed.field) for feed in one] == [("oracle", "a.b")]
