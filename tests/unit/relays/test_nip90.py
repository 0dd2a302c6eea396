"""Jobs on the wire: our own words, and what deployed software says instead."""

from dataclasses import replace

import orjson
import pytest

from core.money import Msat
from relays import nip90
from relays.address import is_relay_url
from relays.error import MalformedEvent
from relays.event import Draft, Event
from relays.key import Key
from relays.nip90 import (
    MAX_RELAYS,
    Feedback,
    Input,
    JobRequest,
    JobResult,
    PayMethod,
    Quote,
    cancel_draft,
    feedback_draft,
    quote_draft,
    read_answer,
    read_request,
    request_draft,
    result_draft,
)
from relays.private_job import reveal

CUSTOMER, SELLER, WALLET = Key.generate(), Key.generate(), Key.generate()
NOW = 1_800_000_000
MINT = "https://mint.example"


def event(kind: int, *tags: tuple[str, ...], content: str = "", key: Key = SELLER) -> Event:
    return key.sign(Draft(kind, content, tags, NOW))


def request(**changes: object) -> JobRequest:
    fields: dict[str, object] = {
        "kind": 5050,
        "inputs": [Input("hello"), Input("https://x", "url", "", "source")],
        "created_at": NOW,
        "params": [("model", "small"), ("range", "1", "2")],
        "output": "text/plain",
        "bid": Msat(21_000),
        "relays": ["wss://a.example", "wss://b.example"],
        "providers": [SELLER.pubkey],
        "deadline": NOW + 60,
        "expiration": NOW + 600,
        "mints": [MINT],
    }
    return read_request(CUSTOMER.sign(request_draft(**(fields | changes))))


def quote(**changes: object) -> Event:
    fields: dict[str, object] = {
        "request": request(),
        "quote_id": "q1",
        "amount": Msat(20_000),
        "expires_at": NOW + 60,
        "eta_s": 4,
        "methods": [PayMethod("cashu", MINT, "sat", WALLET.compressed)],
        "created_at": NOW,
        "text": "20 sat",
        "relay": "wss://a.example",
    }
    return SELLER.sign(quote_draft(**(fields | changes)))


def without(source: Event, name: str, *instead: tuple[str, ...]) -> Event:
    kept = tuple(tag for tag in source.tags if tag[0] != name)
    return SELLER.sign(Draft(source.kind, source.content, kept + instead, NOW))


def test_a_request_reads_as_it_was_written() -> None:
    job = request()
    assert job.customer == CUSTOMER.pubkey
    assert job.inputs == (Input("hello"), Input("https://x", "url", "", "source"))
    assert (job.output, job.bid, job.mints) == ("text/plain", Msat(21_000), (MINT,))
    assert job.params == (("model", "small"), ("range", "1", "2"))
    assert (job.param("model"), job.param("none")) == ("small", None)
    assert job.relays == ("wss://a.example", "wss://b.example")
    assert (job.providers, job.deadline, job.expiration) == ((SELLER.pubkey,), NOW + 60, NOW + 600)
    assert (job.raw.all("i")[0], job.encrypted) == (("i", "hello", "text"), False)


def test_a_bare_request_is_one() -> None:
    job = read_request(event(5001))
    assert (job.inputs, job.bid, job.relays, job.providers, job.mints, job.deadline) == ((), None, (), (), (), None)


def test_a_kind_that_is_no_request_is_refused() -> None:
    for kind in (4999, 6000, 7000):
        with pytest.raises(MalformedEvent):
            read_request(event(kind))


@pytest.mark.parametrize(
    ("tag", "read"),
    [
        (("i", "x", "prompt"), Input("x", "text")),
        (("i", "x", "TEXT"), Input("x", "text")),
        (("i", "x"), Input("x", "text")),
        (("i", "x", ""), Input("x", "text")),
        (("i", "x", "weird"), Input("x", "text")),
        (("i", "x", "job", "wss://r", "m", "more"), Input("x", "job", "wss://r", "m")),
        (("i",), Input("", "text")),
    ],
)
def test_inputs_are_read_as_software_writes_them(tag: tuple[str, ...], read: Input) -> None:
    assert read_request(event(5050, tag)).inputs == (read,)


def test_an_unknown_input_type_is_kept_where_it_may_mean_something() -> None:
    assert read_request(event(5001, ("i", "x", "weird"))).inputs == (Input("x", "weird"),)


def test_other_deviations_of_requests_are_understood_or_ignored() -> None:
    job = read_request(
        event(
            5050,
            ("param", "top-k", "5"),
            ("param", "top-p", "0.5"),
            ("param",),
            ("bid", "free"),
            ("p", "not a key"),
            ("p", SELLER.pubkey),
            ("p", SELLER.pubkey),
            ("relays", "wss://a", "http://b", "wss://a"),
            ("relays", "ws://c"),
            ("deadline", "-5"),
            ("pay", "bolt11"),
            ("pay", "cashu", MINT + "/"),
            ("pay", "cashu", "https://usd", "usd"),
            ("encrypted",),
        )
    )
    assert job.params == (("top_k", "5"), ("top_p", "0.5"))
    assert (job.bid, job.deadline, job.encrypted) == (None, None, True)
    assert (job.providers, job.relays, job.mints) == ((SELLER.pubkey,), ("wss://a", "ws://c"), (MINT,))


def test_a_firm_quote_reads_as_it_was_written() -> None:
    wire = quote()
    read = read_answer(wire)
    assert isinstance(read, Quote)
    assert (read.event_id, read.request_id, read.seller) == (wire.id, request().event_id, SELLER.pubkey)
    assert (read.quote_id, read.amount, read.expires_at, read.eta_s) == ("q1", Msat(20_000), NOW + 60, 4)
    assert read.methods == (PayMethod("cashu", MINT, "sat", WALLET.compressed),)
    assert (read.implicit, read.text) == (False, "20 sat")
    assert wire.value("expiration") == str(NOW + 60)
    assert wire.all("e") == [("e", request().event_id, "wss://a.example")]


@pytest.mark.parametrize(
    "changed",
    [
        without(quote(), "amount", ("amount", "1000")),
        without(quote(), "amount"),
        without(quote(), "pay", ("pay", "cashu", "https://evil", "sat", WALLET.compressed)),
        without(quote(), "pay", ("pay", "cashu", MINT, "sat", Key.generate().compressed)),
        without(quote(), "e", ("e", "f" * 64)),
        without(quote(), "e"),
        without(quote(), "quote", ("quote", "q1", str(NOW + 61), quote().all("quote")[0][3])),
        without(quote(), "quote", ("quote", "q1", "soon", quote().all("quote")[0][3])),
        without(quote(), "quote", ("quote", "q1")),
        without(quote(), "quote", ("quote", "")),
    ],
)
def test_a_firm_quote_whose_terms_do_not_add_up_is_malformed(changed: Event) -> None:
    with pytest.raises(MalformedEvent):
        read_answer(changed)


def test_a_way_to_pay_without_a_wallet_key_is_left_out() -> None:
    methods = [PayMethod("cashu", MINT, "sat", SELLER.pubkey), PayMethod("other", MINT, "sat", WALLET.compressed)]
    read = read_answer(quote(methods=methods))
    assert isinstance(read, Quote)
    assert read.methods == ()


def test_plain_nip_90_payment_words_are_an_implicit_quote() -> None:
    bolt11 = "lnbc210n1" + "q" * 40
    for tag in (("amount", "21000", bolt11), ("amount", "21000", "invoice", bolt11)):
        read = read_answer(event(7000, ("status", "payment_required"), tag, ("e", "a" * 64)))
        assert isinstance(read, Quote)
        assert (read.implicit, read.quote_id, read.amount, read.invoice) == (True, "", Msat(21_000), bolt11)
        assert read.expires_at == 0


def test_payment_words_without_an_amount_are_feedback() -> None:
    read = read_answer(event(7000, ("status", "payment-required", "ask me"), ("amount", "soon"), ("e", "a" * 64)))
    assert isinstance(read, Feedback)
    assert (read.status, read.info, read.amount) == ("payment-required", "ask me", None)


def test_feedback_reads_as_it_was_written() -> None:
    draft = feedback_draft(
        request=request(), status="success", info="paid", created_at=NOW, receipt=(MINT, "02aa", "02bb")
    )
    read = read_answer(SELLER.sign(draft))
    assert isinstance(read, Feedback)
    assert (read.status, read.info, read.receipt) == ("success", "paid", (MINT, "02aa", "02bb"))
    assert read.request_id == request().event_id


def test_feedback_without_p_or_status_is_understood() -> None:
    read = read_answer(event(7000, ("e", "a" * 64), ("status", "processing")))
    assert isinstance(read, Feedback)
    assert read.status == "processing"
    bare = read_answer(event(7000, ("e", "a" * 64), ("encrypted",), content="secret"))
    assert isinstance(bare, Feedback)
    assert bare.status == ""


def test_a_result_reads_as_it_was_written() -> None:
    wire = SELLER.sign(result_draft(request=request(), content="done", created_at=NOW, amount=Msat(5)))
    read = read_answer(wire)
    assert isinstance(read, JobResult)
    assert (read.kind, read.content, read.amount, read.seller) == (6050, "done", Msat(5), SELLER.pubkey)
    assert read.request_id == request().event_id
    assert orjson.loads(wire.value("request") or "")["id"] == request().event_id
    assert wire.values("i") == ["hello", "https://x"]


def test_a_long_request_is_not_echoed() -> None:
    job = request(inputs=[Input("x" * 40_000)])
    wire = SELLER.sign(result_draft(request=job, content="done", created_at=NOW))
    assert len(wire.to_json()) < 2_000
    assert read_answer(wire).request_id == job.event_id


def test_an_encrypted_request_is_not_echoed_in_clear() -> None:
    job = replace(request(), encrypted=True)
    assert result_draft(request=job, content="x", created_at=NOW).tags[-1][0] == "p"


def test_a_result_is_matched_by_its_request_tag_if_there_is_no_e() -> None:
    read = read_answer(event(6050, ("request", request().raw.to_json()), ("status", "success")))
    assert read.request_id == request().event_id
    for tag in ((), ("request", "x"), ("request", "[]"), ("request", '{"id":1}'), ("e", "short")):
        with pytest.raises(MalformedEvent):
            read_answer(event(6050, *([tag] if tag else [])))


def test_a_list_without_brackets_gets_them() -> None:
    for content in ('["e","a"],["e","b"]', '[["e","a"],["e","b"]]'):
        read = read_answer(event(6300, ("e", "a" * 64), content=content))
        assert isinstance(read, JobResult)
        assert orjson.loads(read.content) == [["e", "a"], ["e", "b"]]
    for content in ("[not a list", "plain"):
        other = read_answer(event(6050, ("e", "a" * 64), content=content))
        assert isinstance(other, JobResult)
        assert other.content == content


def test_other_kinds_are_no_answers() -> None:
    with pytest.raises(MalformedEvent):
        read_answer(event(5050, ("e", "a" * 64)))


def test_decrypted_tags_are_read_as_if_they_had_been_outside() -> None:
    outer = event(7000, ("e", "a" * 64), ("encrypted",), content="cipher")
    read = read_answer(reveal(outer, '[["status","success"],["content","the text"]]'))
    assert isinstance(read, Feedback)
    assert (read.status, read.content) == ("success", "the text")
    job = read_request(reveal(event(5050, ("encrypted",)), '[["i","x","text"],["bid","5"],["relays","wss://a"]]'))
    assert (job.inputs, job.bid, job.relays, job.encrypted) == ((Input("x"),), Msat(5), ("wss://a",), True)
    assert reveal(outer, "plain words").content == "plain words"
    assert reveal(outer, "[1,2]").content == "[1,2]"


def test_a_cancellation_names_the_request_and_its_kind() -> None:
    assert cancel_draft(request().event_id, 5050, NOW).tags == (("e", request().event_id), ("k", "5050"))


def test_only_the_first_relays_of_a_request_are_read_and_none_in_other_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a name in other letters takes a quarter of a millisecond, and an event has room for thousands."""
    asked: list[str] = []

    def counted(url: str) -> bool:
        asked.append(url)
        return is_relay_url(url)

    monkeypatch.setattr(nip90, "is_relay_url", counted)
    names = ["wss://one.example", "wss://é.ü", *(f"wss://n{n}.example" for n in range(3_000))]
    event = Key.generate().sign(Draft(5050, "", (("i", "x", "text"), ("relays", *names)), 1))
    found = read_request(event).relays
    assert found[:2] == ("wss://one.example", "wss://n0.example")
    assert len(found) == len(asked) == MAX_RELAYS - 1


def test_a_request_says_how_it_can_be_paid_for_and_an_old_one_pays_invoices() -> None:
    assert not request().pays_invoices
    assert request(mints=()).pays_invoices
    assert request(invoices=True).pays_invoices
    assert request(invoices=True, mints=()).raw.all("pay") == [("pay", "bolt11")]
    assert request(invoices=True).mints == request().mints


def test_a_firm_quote_with_an_invoice_reads_as_it_was_written() -> None:
    text = "lnbc210n1" + "q" * 40
    draft = nip90.quote_draft(
        request=request(), quote_id="q", amount=Msat(21_000), expires_at=NOW + 60, eta_s=2, methods=(), created_at=NOW,
        invoice=text,
    )  # fmt: skip
    quote = nip90.read_answer(SELLER.sign(draft))
    assert isinstance(quote, nip90.Quote)
    assert (quote.invoice, quote.amount, quote.implicit, quote.methods) == (text, Msat(21_000), False, ())
