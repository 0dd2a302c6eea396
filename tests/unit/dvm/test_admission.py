from dataclasses import replace

import pytest

from core.money import Msat
from dvm.admission import (
    Decline,
    Ignore,
    Limits,
    Load,
    MakeQuote,
    Meter,
    Offering,
    Serve,
    bits_needed,
    judge,
    screen,
)
from dvm.nonce import leading_zero_bits
from dvm.trust import Standing, Trust, most_open, proven_bits, standing_of
from relays.event import Draft
from relays.key import Key
from relays.nip90 import JobRequest, read_request

US, CUSTOMER = Key.generate(), Key.generate()
NOW = 1_700_000_000
PAID = {5050: Offering(Msat(9_000), ("http://a", "http://b"), 1)}
FREE = {5050: Offering(Msat(0), (), 1)}


def request(*tags: tuple[str, ...], kind: int = 5050, key: Key = CUSTOMER, at: int = NOW) -> JobRequest:
    return read_request(key.sign(Draft(kind, "", (("i", "x", "text"), *tags), at)))


def decide(one: JobRequest, offerings=PAID, load: Load | None = None, limits: Limits | None = None, **more):
    limits = limits or Limits()
    if word := screen(one.raw, ourselves=US.pubkey, now=NOW, kinds=offerings, limits=limits):
        return Ignore(word)
    return judge(one, offerings[one.kind], load or Load(), limits, now=NOW, **more)


def test_a_good_request_gets_a_quote_payable_at_the_mints_of_both_sides() -> None:
    assert decide(request(("pay", "cashu", "http://b", "sat"))) == MakeQuote(("http://b",))


def test_a_plain_request_gets_a_quote_payable_at_all_our_mints() -> None:
    assert decide(request()) == MakeQuote(("http://a", "http://b"))


def test_a_free_service_is_served() -> None:
    assert decide(request(("bid", "0")), FREE) == Serve()


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
    assert decide(one) == Ignore(word)


def test_a_bid_below_the_price_is_told_the_floor() -> None:
    decision = decide(request(("bid", "8999")))
    assert isinstance(decision, Decline)
    assert decision.floor == Msat(9_000)


@pytest.mark.parametrize(
    "decision",
    [
        decide(request(("pay", "cashu", "http://other", "sat"))),
        decide(request(("i", "x" * 40_000, "text"))),
        decide(request(), {5050: replace(PAID[5050], room=0)}),
        decide(request(), load=Load(open_of_customer=4)),
        decide(request(), FREE, load=Load(free_of_customer=64)),
        decide(request(("encrypted",), ("p", US.pubkey))),
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


def mined(bits: int, *tags: tuple[str, ...], committed: int | None = None) -> JobRequest:
    """A request whose id begins with so many zero bits."""
    target = bits if committed is None else committed
    for nonce in range(1 << 20):
        one = request(("nonce", str(nonce), str(target)), *tags)
        if leading_zero_bits(one.event_id) >= bits:
            return one
    raise AssertionError("unlucky")


GUARDED = Limits(pow_bits=8, pow_bits_full=12)
EMPTY = {5050: Offering(Msat(0), (), 32, 32)}
KNOWN = Standing(Trust.KNOWN)


def test_work_counts_as_far_as_the_event_commits_to_it() -> None:
    assert proven_bits(mined(8).raw) == 8
    assert proven_bits(mined(8, committed=4).raw) == 4
    assert proven_bits(request(("nonce", "1", "200")).raw) == 0
    assert proven_bits(request(("nonce", "1")).raw) == 0
    assert proven_bits(request(("nonce", "1", "-1")).raw) == 0


def test_an_unknown_key_shows_work_for_a_free_job_or_is_not_served() -> None:
    assert decide(mined(8), EMPTY, limits=GUARDED) == Serve()
    assert decide(request(), EMPTY, limits=GUARDED) == Ignore("pow")
    assert decide(mined(8, committed=7), EMPTY, limits=GUARDED) == Ignore("pow")
    told = decide(request(("p", US.pubkey)), EMPTY, limits=GUARDED)
    assert isinstance(told, Decline)
    assert (told.word, "8 bits" in told.reason, told.retry_after_s > 0) == ("pow", True, True)


def test_a_known_key_and_one_that_has_paid_need_no_work() -> None:
    for standing in (KNOWN, Standing(Trust.PAID_BEFORE, Msat(1))):
        assert decide(request(), EMPTY, limits=GUARDED, standing=standing) == Serve()


def test_with_a_floor_an_unknown_key_may_pay_instead_of_working() -> None:
    floor = replace(GUARDED, floor=Msat(2_000))
    offer = {5050: Offering(Msat(0), ("http://a",), 32, 32)}
    assert decide(request(), offer, limits=floor) == MakeQuote(("http://a",), Msat(2_000))
    assert decide(mined(8), offer, limits=floor) == Serve()


def test_the_work_that_is_asked_for_rises_as_places_are_taken_for_paid_jobs_too() -> None:
    def needed(room: int, price: int) -> int:
        return bits_needed(GUARDED, Offering(Msat(price), (), room, 32))

    assert [needed(room, 0) for room in (32, 9, 8, 4, 0)] == [8, 8, 8, 10, 12]
    assert [needed(room, 1) for room in (32, 9, 8, 4, 0)] == [0, 0, 0, 6, 12]
    full = {5050: Offering(Msat(9_000), ("http://a",), 1, 32)}
    assert decide(request(), full) == Ignore("pow")
    assert decide(request(), full, standing=KNOWN) == MakeQuote(("http://a",))


def test_what_would_be_late_is_declined_as_busy_and_told_when_to_come_again() -> None:
    slow = {5050: replace(PAID[5050], wait_s=40, eta_s=10)}
    told = decide(request(("deadline", str(NOW + 45))), slow)
    assert isinstance(told, Decline)
    assert (told.word, told.retry_after_s) == ("busy", 40)
    assert isinstance(decide(request(("deadline", str(NOW + 51))), slow), MakeQuote)
    assert isinstance(decide(request(), slow), MakeQuote)


@pytest.mark.parametrize(
    ("one", "limits", "word"),
    [
        (request(("i", "x" * 140_000, "text")), Limits(), "too_large"),
        (request(), Limits(broadcast=False), "broadcast"),
        (request(("p", US.pubkey)), Limits(ban=frozenset({CUSTOMER.pubkey})), "banned"),
    ],
)
def test_what_is_unwanted_is_dropped_with_its_own_word(one: JobRequest, limits: Limits, word: str) -> None:
    assert decide(one, limits=limits) == Ignore(word)


def test_credit_follows_from_what_was_settled_and_is_bounded() -> None:
    price = Msat(10_000)
    assert most_open(Standing(), price, 4) == 4
    assert most_open(KNOWN, price, 4) == 16
    assert [most_open(Standing(Trust.PAID_BEFORE, Msat(paid)), price, 4) for paid in (9_999, 25_000, 10**9)] == [
        4,
        6,
        16,
    ]
    standing = standing_of(named=True, settled=Msat(0), free_today=2, free_per_day=3)
    assert (standing.trust, standing.free_left) == (Trust.KNOWN, 1)
    assert standing_of(named=False, settled=Msat(0), free_today=0, free_per_day=3) == Standing()
    assert decide(request(), standing=standing) == Serve()


LIGHTNING = {5050: replace(PAID[5050], invoices=True)}


def test_a_plain_request_gets_an_invoice_where_invoices_are_taken() -> None:
    assert decide(request(), LIGHTNING) == MakeQuote(("http://a", "http://b"), invoice=True)


def test_who_shares_a_mint_with_us_gets_no_invoice() -> None:
    both = (("pay", "cashu", "http://b", "sat"), ("pay", "bolt11"))
    assert decide(request(*both), LIGHTNING) == MakeQuote(("http://b",))


def test_who_shares_no_mint_with_us_gets_an_invoice_if_it_says_that_it_can_pay_one() -> None:
    other = ("pay", "cashu", "http://other", "sat")
    assert decide(request(other, ("pay", "bolt11")), LIGHTNING) == MakeQuote((), invoice=True)
    assert isinstance(decide(request(other), LIGHTNING), Decline)
    assert isinstance(decide(request(other, ("pay", "bolt11"))), Decline), "a seller that takes ecash only"
