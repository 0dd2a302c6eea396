import pytest

from core.money import Msat
from dvm.answer import translate
from dvm.buyer_event import Answered, Event, Progress, Refuse, ResultArrived, SellerFailed
from dvm.job import Purchase
from dvm.selection import Nature
from relays.event import Draft
from relays.key import Key
from relays.nip90 import (
    Input,
    JobRequest,
    PayMethod,
    feedback_draft,
    quote_draft,
    read_request,
    request_draft,
    result_draft,
)
from tests.property.market_part import MINT, purchase
from wallet.error import MintUnlisted

US, SELLER = Key.generate(), Key.generate()
NOW = 1_700_000_000
TEXT = "a text " * 40


def job() -> tuple[Purchase, JobRequest]:
    from dataclasses import replace

    event = US.sign(request_draft(kind=5001, inputs=[Input(TEXT)], created_at=NOW))
    return replace(purchase(), request_id=event.id), read_request(event)


def cost(mint: str, price: Msat) -> Msat:
    if mint != MINT:
        raise MintUnlisted
    return price + Msat(2_000)


def told(draft: Draft) -> Event:
    return translate(SELLER.sign(draft), job_(), ourselves=US.pubkey, at_ms=NOW * 1000, lock_cost=cost)


JOB, REQUEST = job()


def job_() -> Purchase:
    return JOB


def quoted(*mints: str, unit: str = "sat", amount: int = 5_000) -> Draft:
    methods = [PayMethod("cashu", mint, unit, "02" + "ab" * 32) for mint in mints]
    return quote_draft(
        request=REQUEST,
        quote_id="q",
        amount=Msat(amount),
        expires_at=NOW + 60,
        eta_s=3,
        methods=methods,
        created_at=NOW,
    )


def test_a_firm_quote_is_priced_with_fees_at_the_mints_of_both_sides() -> None:
    event = told(quoted("https://foreign.example", MINT))
    assert isinstance(event, Answered)
    assert event.offer.nature is Nature.QUOTE
    assert [(one.mint, one.gross) for one in event.offer.terms] == [(MINT, Msat(7_000))]


def test_a_quote_at_a_mint_that_was_not_agreed_has_no_terms() -> None:
    event = told(quoted("https://foreign.example"))
    assert isinstance(event, Answered)
    assert event.offer.terms == ()


def test_a_quote_in_another_unit_has_no_terms() -> None:
    event = told(quoted(MINT, unit="usd"))
    assert isinstance(event, Answered)
    assert event.offer.terms == ()


def test_a_quote_whose_terms_were_changed_is_refused() -> None:
    draft = quoted(MINT)
    tags = tuple(("amount", "1") if tag[0] == "amount" else tag for tag in draft.tags)
    event = told(Draft(draft.kind, draft.content, tags, draft.created_at))
    assert isinstance(event, Refuse)
    assert "hash" in event.reason


def test_a_good_result_has_no_fault_and_a_long_one_has() -> None:
    good = told(result_draft(request=REQUEST, content="short", created_at=NOW))
    bad = told(result_draft(request=REQUEST, content="x" * len(TEXT), created_at=NOW))
    assert isinstance(good, ResultArrived)
    assert isinstance(bad, ResultArrived)
    assert (good.fault, good.price) == ("", None)
    assert "not shorter" in bad.fault


def test_plain_nip90_words_are_understood() -> None:
    assert isinstance(told(feedback_draft(request=REQUEST, status="processing", created_at=NOW)), Progress)
    assert isinstance(told(feedback_draft(request=REQUEST, status="error", created_at=NOW, info="no")), SellerFailed)
    implicit = told(feedback_draft(request=REQUEST, status="payment-required", created_at=NOW, amount=Msat(7)))
    assert isinstance(implicit, Answered)
    assert implicit.offer.nature is Nature.IMPLICIT


@pytest.mark.parametrize(
    ("draft", "reason"),
    [
        (Draft(7000, "", (("status", "processing"), ("e", "ab" * 32)), NOW), "another request"),
        (Draft(7000, "", (("status", "processing"), ("e", REQUEST.event_id), ("p", SELLER.pubkey)), NOW), "somebody"),
        (Draft(6050, "x", (("e", REQUEST.event_id),), NOW), "another kind"),
        (Draft(7000, "", (("status", "pong"), ("e", REQUEST.event_id)), NOW), "status"),
    ],
)
def test_what_is_not_an_answer_to_us_is_refused_with_its_reason(draft: Draft, reason: str) -> None:
    event = told(draft)
    assert isinstance(event, Refuse)
    assert reason in event.reason


def test_feedback_without_a_recipient_is_understood() -> None:
    draft = Draft(7000, "", (("status", "processing"), ("e", REQUEST.event_id)), NOW)
    assert isinstance(told(draft), Progress)
