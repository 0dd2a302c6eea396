from dataclasses import replace

import pytest

from core.money import Msat
from dvm.admission import Decline, Ignore, Limits, Load, MakeQuote, Meter, Offering, Serve, admit
from relays.event import Draft
from relays.key import Key
from relays.nip90 import JobRequest, read_request

US, CUSTOMER = Key.generate(), Key.generate()
NOW = 1_700_000_000
PAID = {5050: Offering(Msat(9_000), ("http://a", "http://b"), 1)}
FREE = {5050: Offering(Msat(0), (), 1)}


def request(*tags: tuple[str, ...], kind: int = 5050, key: Key = CUSTOMER, at: int = NOW) -> JobRequest:
    return read_request(key.sign(Draft(kind, "", (("i", "x", "text"), *tags), at)))


def judge(one: JobRequest, offerings=PAID, load: Load | None = None, limits: Limits | None = None):
    return admit(one, ourselves=US.pubkey, now=NOW, offerings=offerings, load=load or Load(), limits=limits or Limits())


def test_a_good_request_gets_a_quote_payable_at_the_mints_of_both_sides() -> None:
    assert judge(request(("pay", "cashu", "http://b", "sat"))) == MakeQuote(("http://b",))


def test_a_plain_request_gets_a_quote_payable_at_all_our_mints() -> None:
    assert judge(request()) == MakeQuote(("http://a", "http://b"))


def test_a_free_service_is_served() -> None:
    assert judge(request(("bid", "0")), FREE) == Serve()


@pytest.mark.parametrize(
    ("one", "word"),
    [
        (request(kind=5001), "kind_not_served"),
        (request(key=US), "own_request"),
        (request(("p", CUSTOMER.pubkey)), "for_others"),
        (request(at=NOW - 700), "out_of_time"),
        (request(at=NOW + 700), "out_of_time"),
        (request(("expiration", str(NOW))), "expired"),
        (request(("deadline", str(NOW - 1))), "expired"),
        (request(("encrypted",)), "encrypted"),
    ],
)
def test_what_does_not_concern_us_is_ignored_with_a_word(one: JobRequest, word: str) -> None:
    assert judge(one) == Ignore(word)


def test_a_bid_below_the_price_is_told_the_floor() -> None:
    decision = judge(request(("bid", "8999")))
    assert isinstance(decision, Decline)
    assert decision.floor == Msat(9_000)


@pytest.mark.parametrize(
    "decision",
    [
        judge(request(("pay", "cashu", "http://other", "sat"))),
        judge(request(("i", "x" * 40_000, "text"))),
        judge(request(), {5050: replace(PAID[5050], room=0)}),
        judge(request(), load=Load(open_of_customer=4)),
        judge(request(), FREE, load=Load(free_of_customer=64)),
        judge(request(("encrypted",), ("p", US.pubkey))),
    ],
)
def test_what_cannot_be_done_is_declined(decision: object) -> None:
    assert isinstance(decision, Decline)


def test_each_key_has_its_own_rate_and_their_number_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dvm.admission.MAX_CUSTOMERS", 3)
    meter = Meter(2, 1.0)
    assert [meter.take("a", 0), meter.take("a", 0), meter.take("a", 0)] == [True, True, False]
    assert meter.take("b", 0)
    assert meter.take("a", 1.0)
    for name in "cdefg":
        meter.take(name, 1.0)
    assert len(meter.keys) == 3
