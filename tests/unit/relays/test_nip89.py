"""Announcements."""

import orjson
import pytest

from core.money import Msat
from relays.error import MalformedEvent
from relays.event import Draft, Event
from relays.key import Key
from relays.nip89 import Announcement, Price, announcement_draft, read_announcement

KEY = Key.generate()


def event(*tags: tuple[str, ...], content: str = "", kind: int = 31990) -> Event:
    return KEY.sign(Draft(kind, content, tags, 5))


def test_an_announcement_reads_as_it_was_written() -> None:
    made = Announcement(
        KEY.pubkey, "node", (5001, 5970), {5001: Msat(3_000), 5970: Msat(0)}, ("https://m",), "Name", "About", 5
    )
    assert read_announcement(KEY.sign(announcement_draft(made))) == made


@pytest.mark.parametrize(
    ("prices", "text"),
    [({5001: Msat(0)}, "free"), ({5001: Msat(2_500)}, "3"), ({}, "flexible"), ({5050: Msat(1)}, "flexible")],
)
def test_the_price_is_told_to_others_in_the_words_they_know(prices: dict[int, Msat], text: str) -> None:
    made = Announcement(KEY.pubkey, "d", (5001,), prices, (), "", "", 5)
    assert orjson.loads(announcement_draft(made).content)["amount"] == text


def test_different_prices_are_flexible_to_others() -> None:
    made = Announcement(KEY.pubkey, "d", (5001, 5050), {5001: Msat(1), 5050: Msat(2)}, (), "", "", 5)
    assert orjson.loads(announcement_draft(made).content)["amount"] == "flexible"


@pytest.mark.parametrize(
    ("amount", "prices"),
    [('"free"', {5050: Msat(0)}), ('"21"', {5050: Msat(21_000)}), ("21", {5050: Msat(21_000)}), ('"flexible"', {}),
     ("-1", {}), ("2.5", {}), ("true", {}), ("null", {})],
)  # fmt: skip
def test_a_price_in_sats_in_the_content_is_read(amount: str, prices: dict[int, Msat]) -> None:
    read = read_announcement(event(("d", "x"), ("k", "5050"), content=f'{{"name":"N","amount":{amount}}}'))
    assert (read.prices, read.name) == (prices, "N")


@pytest.mark.parametrize("content", ["", "not json", "[]", '{"name":5,"nip90Params":[]}'])
def test_unreadable_content_costs_only_the_texts(content: str) -> None:
    read = read_announcement(event(("d", "x"), ("k", "5050"), ("k", "1"), ("k", "x"), content=content))
    assert (read.kinds, read.name, read.params) == ((5050,), "", {})


@pytest.mark.parametrize("bad", [event(("k", "5050")), event(("d", "x")), event(("d", "x"), ("k", "5050"), kind=1)])
def test_what_announces_nothing_is_malformed(bad: Event) -> None:
    with pytest.raises(MalformedEvent):
        read_announcement(bad)


def test_prices_for_a_unit_and_in_dollars_read_as_they_were_written() -> None:
    tariffs = {5050: Price("msat", "1k_tokens", 20_000, 1_000), 5001: Price("uusd", "job", 5_000, None, 9_000)}
    made = Announcement(KEY.pubkey, "d", (5050, 5001), {}, (), "", "", 5, tariffs=tariffs)
    draft = announcement_draft(made)
    assert ("price", "5050", "msat", "per_1k_tokens", "20000", "min", "1000") in draft.tags
    assert orjson.loads(draft.content)["amount"] == "flexible"
    assert read_announcement(KEY.sign(draft)) == made


@pytest.mark.parametrize(
    ("tag", "prices", "tariffs"),
    [
        (("price", "5050", "sat", "per_job", "21"), {5050: Msat(21_000)}, {}),
        (("price", "5050", "msat", "job", "5", "min", "7"), {5050: Msat(7)}, {}),
        (("price", "5050", "msat", "1k_chars", "5", "max"), {}, {5050: Price("msat", "1k_chars", 5)}),
        (("price", "5050", "usd", "job", "5"), {}, {}),
        (("price", "5050", "msat", "per mile", "5"), {}, {}),
        (("price", "5050", "msat", "job", "-5"), {}, {}),
        (("price", "5051", "msat", "job", "5"), {}, {}),
        (("price", "5050", "msat"), {}, {}),
    ],
)
def test_others_prices_are_read_as_far_as_they_can_be_understood(tag, prices, tariffs) -> None:
    read = read_announcement(event(("d", "x"), ("k", "5050"), tag))
    assert (read.prices, read.tariffs) == (prices, tariffs)
