from dataclasses import replace

import orjson
import pytest

from core.error import InvalidInput
from core.money import Msat
from relays.error import MalformedEvent, NotForUs
from relays.event import MAX_EVENT_BYTES, Draft, Event, verify
from relays.key import Key
from relays.kind import GIFT_WRAP
from relays.nip17 import unwrap, wrap
from relays.nip90 import (
    Feedback,
    Input,
    JobResult,
    Quote,
    feedback_draft,
    quote_draft,
    read_answer,
    request_draft,
    result_draft,
)
from relays.private_job import (
    MOST_BYTES,
    Scheme,
    as_event,
    open_answer,
    open_request,
    scheme_of,
    sealed_answer,
    sealed_request,
)

CUSTOMER, SELLER, OTHER = Key.generate(), Key.generate(), Key.generate()
NOW = 1_700_000_000
SECRET = "the harvest is hidden in the old mill"
HIDDEN = [Scheme.NIP44, Scheme.NIP04, Scheme.WRAP]


def draft(text: str = SECRET, **more) -> Draft:
    return request_draft(
        kind=5050, inputs=[Input(text)], created_at=NOW, params=[("model", "a secret model")], bid=Msat(9_000),
        providers=[SELLER.pubkey], relays=["wss://relay.example"], **more,
    )  # fmt: skip


@pytest.mark.parametrize("scheme", HIDDEN)
def test_a_hidden_request_reads_as_it_was_written_and_shows_nothing(scheme: Scheme) -> None:
    event, request_id = sealed_request(CUSTOMER, SELLER.pubkey, draft(), scheme)
    verify(event)
    assert SECRET not in event.to_json()
    assert "a secret model" not in event.to_json()
    request = open_request(SELLER, event)
    assert request.inputs == (Input(SECRET),)
    assert request.params == (("model", "a secret model"),)
    assert (request.event_id, request.customer, request.bid) == (request_id, CUSTOMER.pubkey, Msat(9_000))
    assert (request.encrypted, request.scheme, request.wire) == (True, scheme.value, event)
    if scheme is Scheme.WRAP:
        assert CUSTOMER.pubkey not in event.to_json()
        assert event.kind == GIFT_WRAP


@pytest.mark.parametrize("scheme", HIDDEN)
def test_nobody_else_reads_a_hidden_request(scheme: Scheme) -> None:
    event, _ = sealed_request(CUSTOMER, SELLER.pubkey, draft(), scheme)
    with pytest.raises(NotForUs):
        open_request(OTHER, event)


@pytest.mark.parametrize("scheme", HIDDEN)
def test_answers_go_the_way_that_the_request_came_and_repeat_nothing_of_it(scheme: Scheme) -> None:
    event, request_id = sealed_request(CUSTOMER, SELLER.pubkey, draft(), scheme)
    request = open_request(SELLER, event)
    drafts = [
        result_draft(request=request, content=f"done: {SECRET}", created_at=NOW),
        feedback_draft(request=request, status="error", created_at=NOW, info=f"no: {SECRET}"),
        feedback_draft(request=request, status="partial", created_at=NOW, content=f"half: {SECRET}"),
        quote_draft(
            request=request, quote_id="q", amount=Msat(5_000), expires_at=NOW + 60, eta_s=3, methods=[],
            created_at=NOW, text="5 sat",
        ),
    ]  # fmt: skip
    read = []
    for made in drafts:
        answer = sealed_answer(SELLER, request, made)
        verify(answer)
        assert SECRET not in answer.to_json()
        assert not answer.all("i")
        assert not answer.all("request")
        if scheme is Scheme.WRAP:
            assert SELLER.pubkey not in answer.to_json()
            answer = as_event(unwrap(CUSTOMER, answer))
        else:
            assert not answer.content or scheme_of(answer.content) is scheme
        read.append(read_answer(open_answer(CUSTOMER, answer)))
    result, error, partial, quote = read
    assert isinstance(result, JobResult)
    assert isinstance(error, Feedback)
    assert isinstance(partial, Feedback)
    assert isinstance(quote, Quote)
    assert (result.content, result.encrypted) == (f"done: {SECRET}", False)
    assert (error.status, error.info or error.content) == ("error", f"no: {SECRET}")
    assert (partial.status, partial.content) == ("partial", f"half: {SECRET}")
    assert {one.request_id for one in read} == {request_id}


@pytest.mark.parametrize("scheme", [Scheme.NIP44, Scheme.NIP04])
def test_what_feedback_says_is_a_list_of_tags_inside_as_ndk_and_nostr_dvm_read_it(scheme: Scheme) -> None:
    event, request_id = sealed_request(CUSTOMER, SELLER.pubkey, draft(), scheme)
    request = open_request(SELLER, event)
    made = quote_draft(
        request=request, quote_id="q", amount=Msat(5_000), expires_at=NOW + 60, eta_s=3, methods=[],
        created_at=NOW, text="5 sat",
    )  # fmt: skip
    answer = sealed_answer(SELLER, request, made)
    inside = orjson.loads(
        CUSTOMER.decrypt(SELLER.pubkey, answer.content)
        if scheme is Scheme.NIP44
        else CUSTOMER.decrypt_legacy(SELLER.pubkey, answer.content)
    )
    assert {"e": request_id, "status": "payment-required", "amount": "5000", "content": "5 sat"}.items() <= {
        tag[0]: tag[1] for tag in inside
    }.items()
    opened = open_answer(CUSTOMER, answer)
    assert [tag for tag in opened.tags if tag[0] in ("e", "status", "amount")] == [
        tag for tag in answer.tags if tag[0] in ("e", "status", "amount")
    ], "nothing is said twice"


def test_a_body_with_everything_inside_is_understood_in_either_cipher() -> None:
    """As NDK writes it: i, param, output, relays and bid in the content."""
    inside = [
        ["i", SECRET, "text"], ["param", "top-k", "4"], ["output", "text/plain"], ["relays", "wss://a.example"],
        ["bid", "7000"],
    ]  # fmt: skip
    for encrypt in (CUSTOMER.encrypt, CUSTOMER.encrypt_legacy):
        content = encrypt(SELLER.pubkey, orjson.dumps(inside).decode())
        event = CUSTOMER.sign(Draft(5050, content, (("p", SELLER.pubkey), ("encrypted",)), NOW))
        request = open_request(SELLER, event)
        assert (request.inputs, request.bid, request.output) == ((Input(SECRET),), Msat(7_000), "text/plain")
        assert (request.param("top_k"), request.relays) == ("4", ("wss://a.example",))


def test_feedback_whose_tags_are_all_inside_is_understood() -> None:
    """As nostrdvm writes it: no status outside, the text in a `content` tag."""
    inside = [["status", "processing", "wait"], ["content", "I think"], ["amount", "3000"]]
    content = SELLER.encrypt(CUSTOMER.pubkey, orjson.dumps(inside).decode())
    outer = (("e", "ab" * 32), ("p", CUSTOMER.pubkey), ("encrypted",))
    answer = read_answer(open_answer(CUSTOMER, SELLER.sign(Draft(7000, content, outer, NOW))))
    assert isinstance(answer, Feedback)
    assert (answer.status, answer.content, answer.amount) == ("processing", "I think", Msat(3_000))


def test_a_result_that_is_a_list_of_tags_stays_the_result() -> None:
    listed = '[["e","ab"],["content","x"]]'
    event = SELLER.sign(Draft(6300, SELLER.encrypt(CUSTOMER.pubkey, listed), (("e", "ab" * 32), ("encrypted",)), NOW))
    answer = read_answer(open_answer(CUSTOMER, event))
    assert isinstance(answer, JobResult)
    assert answer.content == listed


def test_an_answer_that_cannot_be_decrypted_stays_marked_as_encrypted() -> None:
    event = SELLER.sign(Draft(6050, SELLER.encrypt(OTHER.pubkey, "x"), (("e", "ab" * 32), ("encrypted",)), NOW))
    answer = read_answer(open_answer(CUSTOMER, event))
    assert isinstance(answer, JobResult)
    assert answer.encrypted


def test_a_wrapped_request_in_the_name_of_another_is_refused() -> None:
    """The seal's author is who asks; a rumor that claims somebody else is nobody's."""
    from relays.nip17 import rumor_json

    seal = OTHER.sign(Draft(13, OTHER.encrypt(SELLER.pubkey, rumor_json(CUSTOMER.pubkey, draft())), (), NOW))
    once = Key.generate()
    gift = once.sign(Draft(GIFT_WRAP, once.encrypt(SELLER.pubkey, seal.to_json()), (("p", SELLER.pubkey),), NOW))
    with pytest.raises(NotForUs):
        open_request(SELLER, gift)


def test_a_wrap_of_something_else_is_no_request() -> None:
    with pytest.raises(MalformedEvent):
        open_request(SELLER, wrap(CUSTOMER, SELLER.pubkey, Draft(14, "hello", (), NOW)))


def test_a_private_job_needs_somebody_to_encrypt_to() -> None:
    for scheme in HIDDEN:
        with pytest.raises(InvalidInput):
            sealed_request(CUSTOMER, None, draft(), scheme)


@pytest.mark.parametrize("scheme", HIDDEN)
def test_the_longest_allowed_request_fits_one_event(scheme: Scheme) -> None:
    many = [f"wss://relay-{number}.example.com/a/rather/long/path" for number in range(12)]
    whole = replace(draft(), tags=(("i", "x" * MOST_BYTES[scheme], "text"), ("relays", *many)))
    event, _ = sealed_request(CUSTOMER, SELLER.pubkey, whole, scheme)
    assert len(event.to_json()) <= MAX_EVENT_BYTES


def test_an_open_job_is_as_it_always_was() -> None:
    event, request_id = sealed_request(CUSTOMER, None, draft(), Scheme.OPEN)
    request = open_request(SELLER, event)
    answer: Event = sealed_answer(SELLER, request, result_draft(request=request, content="x", created_at=NOW))
    assert (event.id, request.scheme, answer.content) == (request_id, "", "x")
    assert answer.all("request")
    assert open_answer(CUSTOMER, answer) == answer


@pytest.mark.parametrize("scheme", [Scheme.NIP44, Scheme.NIP04])
def test_the_receipt_of_a_hidden_job_names_its_coins_to_the_customer_alone(scheme: Scheme) -> None:
    event, _ = sealed_request(CUSTOMER, SELLER.pubkey, draft(), scheme)
    receipt = ("https://mint.example", "02" + "ab" * 32)
    made = feedback_draft(
        request=open_request(SELLER, event), status="success", created_at=NOW, info="thanks", receipt=receipt
    )
    answer = sealed_answer(SELLER, open_request(SELLER, event), made)
    verify(answer)
    assert not any(part in answer.to_json() for part in receipt)
    read = read_answer(open_answer(CUSTOMER, answer))
    assert isinstance(read, Feedback)
    assert (read.status, read.content, read.receipt) == ("success", "thanks", receipt)
