"""What several sources of a price come to, some of them late, wrong or made to deceive."""

from decimal import Decimal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from wallet.price import AHEAD_S, APART, KNOWN, Agreement, Feed, NoPrice, Price, agreed, median, read_price

NOW = 1_800_000_000


def prices(*usd: str | int, at: int = NOW) -> list[Price]:
    return [Price(str(n), Decimal(one), at) for n, one in enumerate(usd)]


def what(*usd: str | int) -> Agreement:
    return agreed(prices(*usd), NOW, 120, 3)


def test_the_middle_of_those_that_are_near_each_other_counts():
    assert what(65_000, 65_100, 64_900).usd == 65_000
    assert what(65_000, 65_100, 64_900, 65_050).usd == 65_025
    found = what(65_000, 65_100, 64_900, 70_000)
    assert (found.usd, found.counted, found.left_out) == (65_000, ("0", "1", "2"), {"3": "too far from the others"})


@pytest.mark.parametrize(
    "usd",
    [(), (65_000,), (65_000, 65_000), (65_000, 65_000, 70_000), (60_000, 60_000, 60_000, 70_000, 70_000, 70_000)],
)
def test_without_enough_that_agree_there_is_no_price(usd):
    found = what(*usd)
    assert (found.usd, found.counted) == (None, ())
    assert found.reason


def test_old_ones_and_those_from_the_future_do_not_count():
    good = prices(65_000, 65_000, 65_000)
    assert agreed([*good, Price("old", Decimal(65_000), NOW - 121)], NOW, 120, 3).left_out == {"old": "too old"}
    ahead = Price("ahead", Decimal(65_000), NOW + AHEAD_S + 1)
    assert agreed([*good, ahead], NOW, 120, 3).left_out == {"ahead": "from the future"}
    assert agreed([*good[1:], ahead], NOW, 120, 3).usd is None
    assert agreed(prices(1, 1, 1, at=NOW - 120), NOW, 120, 3).at == NOW - 120


@given(
    st.decimals("0.01", "1000000000", places=2),
    st.lists(st.decimals("-0.004", "0.004", places=4), min_size=3, max_size=8),
    st.lists(st.decimals("0.01", "1000000000", places=2), max_size=7),
)
def test_liars_who_are_fewer_move_the_price_by_no_more_than_the_honest_differ(true, honest, lies):
    assume(len(lies) < len(honest))
    said = [true * (1 + off) for off in honest]
    all_of_them = [Price(str(n), usd, NOW) for n, usd in enumerate([*said, *lies])]
    found = agreed(all_of_them, NOW, 120, 3)
    assert found.usd is None or min(said) * (1 - APART) <= found.usd <= max(said) * (1 + APART)


@given(st.lists(st.decimals("1", "1000", places=2), min_size=1, max_size=9))
def test_the_median_is_within_and_does_not_depend_on_the_order(values):
    assert min(values) <= median(values) <= max(values)
    assert median(values) == median(values[::-1])


ANSWERS = {
    "kraken": b'{"error":[],"result":{"XXBTZUSD":{"c":["65000.5","1"]}}}',
    "coinbase": b'{"data":{"amount":"65000.5","base":"BTC","currency":"USD"}}',
    "bitstamp": b'{"last":"65000.5","timestamp":"1799999990"}',
    "mempool": b'{"time":1799999990,"USD":65000.5,"EUR":1}',
    "coingecko": b'{"bitcoin":{"usd":65000.5,"last_updated_at":1799999990}}',
    "yadio": b'{"BTC":{"USD":65000.5,"EUR":1},"timestamp":1799999990123}',
}


@pytest.mark.parametrize("name", KNOWN)
def test_the_price_and_its_time_are_found_in_the_answers_of_known_sources(name):
    feed = KNOWN[name]
    assert read_price(ANSWERS[name], feed, NOW) == Price(name, Decimal("65000.5"), NOW - 10 if feed.stamp else NOW)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"USD": true}', b'{"USD": null}', b'{"USD": "x"}', b'{"USD": -1}', b'{"USD": 1e30}', b'{"USD": "Infinity"}',
        b'{"USD": NaN}', b'{"USD": "NaN"}', b'{"USD": 0}', b'{"USD": []}', b'{"USD": {}}', b'{"USD": ""}',
        b'{"USD": 65000, "x": 1e9999999999999999999}',
        b'{"USD": "' + b"1" * 60 + b'"}', b'{"USD": "0x10"}',
    ],
)  # fmt: skip
def test_anything_else_is_no_price(raw):
    with pytest.raises(NoPrice):
        read_price(raw, Feed("a", "", "USD"), NOW)


@pytest.mark.parametrize("at", [b"0", b"-5", b'"soon"', b"1e30", b"null"])
def test_a_time_that_is_none_is_no_price(at):
    with pytest.raises(NoPrice):
        read_price(b'{"USD": 1, "at": ' + at + b"}", Feed("a", "", "USD", "at"), NOW)


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b'"USD"', b'{"USD": ' + b"9" * 5_000 + b"}"]
)
def test_what_is_not_the_answer_at_all_is_an_error_that_is_expected(raw):
    with pytest.raises((ValueError, LookupError, TypeError, RecursionError)):
        read_price(raw, Feed("a", "", "USD"), NOW)
